"""Ends this worker when memory stays critical: asks the server to drain, once and in turn.

All of it runs on the watch's thread, at its looks; a request never meets it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.events import WorkerFinishing
from perf_middleware.memory_watch.cleanup import mib
from perf_middleware.memory_watch.finish.drivers.process import sibling_bytes
from perf_middleware.memory_watch.finishing import (
    Lasting,
    Standing,
    held_back,
    is_futile,
    is_shared,
)
from perf_middleware.memory_watch.shedding_figures import FinishingFigures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.memory_watch.finish.drivers.turn import Turn
    from perf_middleware.memory_watch.finishing import Cause, Reason
    from perf_middleware.memory_watch.reading import MemorySample

logger = logging.getLogger("perf_middleware.memory_watch")

STILL_HERE_US: Final = 60_000_000  # a drain that takes longer is worth a line in the log
STUCK_US: Final = 10_000_000
FAILED_PAUSE_US: Final = 30_000_000
US_PER_S: Final = 1_000_000

WHY: Final[dict[Reason, str]] = {
    "young": "it has not been up for long enough",
    "unhandled": "nothing in this process heeds the signal: it would end in the middle of requests",
    "futile": "a fresh one would be as full: the limit is below what it needs at its start",
    "smaller": "its siblings are larger, and go first",
    "turn": "another worker is finishing",
    "gap": "another worker has only just finished",
    "failed": "its turn, or the hook, could not be had",
}


class Finisher:
    """Asks this worker to finish, at most once.

    `finish()` is what ends it: the signal, or the user's own hook.  `finishing` is true from then
    on.  `is_heeded()` says whether a server is there to hear it.  A cleanup takes `settle_us` at
    most; to refuse everybody for `stuck_us` is in vain.  `shares` are those from which on it is
    hard and critical: who began there does not finish.  Hooks, None until somebody sets them:
    `on_change(event)` is told, `in_flight()` counts the requests that the server drains.
    """

    def __init__(
        self,
        finish: Callable[[], object],
        *,
        turn: Turn,
        uptime_us_min: int,
        settle_us: int = 0,
        stuck_us: int = STUCK_US,
        shares: tuple[float, float] | None = None,
        is_heeded: Callable[[], bool] | None = None,
        siblings: Callable[[], tuple[int, ...]] = sibling_bytes,
        clock: Clock = monotonic_us,
    ) -> None:
        self.figures = FinishingFigures()
        self.finishing = False
        self.reason: Reason | None = None
        self.on_change: Callable[[WorkerFinishing], object] | None = None
        self.in_flight: Callable[[], int] | None = None
        self._finish = finish
        self._turn = turn
        self._uptime_us_min = uptime_us_min
        self._is_heeded = is_heeded
        self._siblings = siblings
        self._clock = clock
        self._lasting = Lasting(settle_us=settle_us, stuck_us=stuck_us)
        self._shares = shares
        self._first: MemorySample | None = None
        self._told: set[Reason] = set()
        self._began_us: int | None = None
        self._not_before_us = 0
        self._finishing_us = 0
        self._is_told_still_here = False

    def looked(self, step: int, sample: MemorySample, *, refused: int | None) -> None:
        """One look at the memory; `refused` is how many requests were turned away so far, None
        where some are let in.
        """
        now_us = self._clock()
        if self._began_us is None:
            self._began_us = now_us  # not when it was made: a worker may be forked after that
        if self._first is None and sample.bounds:
            self._first = sample
        if self.finishing:
            self._note_still_here(now_us)
            return
        cause = self._lasting.note(step, at_us=now_us, refused=refused)
        if cause is None:
            self.reason = None
            self._told.clear()
            return
        if now_us < self._not_before_us:
            return
        reason = self._held_back(cause, sample, now_us)
        if reason is None:
            self._ask(cause, sample, now_us)
        else:
            self._note_held_back(reason)

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.figures.reset()

    def families(self) -> Iterator[Family]:
        """The families for a scrape."""
        return self.figures.families(finishing=self.finishing)

    def status(self) -> dict[str, Any]:
        """JSON-able; `held_back` is why it does not finish though it should."""
        return {
            "finishing": self.finishing, "held_back": self.reason, **self.figures.totals(),
        }  # fmt: skip

    def _is_futile(self, cause: Cause, sample: MemorySample) -> bool:
        if self._shares is None or self._first is None:
            return False
        hard, critical = self._shares
        return is_futile(self._first, sample, share=critical if cause == "critical" else hard)

    def _held_back(self, cause: Cause, sample: MemorySample, now_us: int) -> Reason | None:
        began_us = now_us if self._began_us is None else self._began_us
        standing = Standing(
            uptime_us=now_us - began_us,
            own_bytes=sample.rss_bytes,
            is_heeded=self._is_heeded is None or self._is_heeded(),
            is_futile=self._is_futile(cause, sample),
        )
        reason = held_back(standing, uptime_us_min=self._uptime_us_min)
        if reason is None and is_shared(sample):  # only then: it walks the table of processes
            standing = Standing(
                uptime_us=standing.uptime_us,
                own_bytes=sample.rss_bytes,
                sibling_bytes=self._siblings(),
            )
            reason = held_back(standing, uptime_us_min=self._uptime_us_min)
        if reason is not None:
            return reason
        try:
            return self._turn.take(now_us)
        except OSError as error:
            if "failed" not in self._told:
                logger.warning("the turn to finish cannot be taken: %s", error)
            return "failed"

    def _note_held_back(self, reason: Reason) -> None:
        self.reason = reason
        self.figures.refused[reason] += 1
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("memory is short, and this worker cannot finish yet: %s", WHY[reason])

    def _ask(self, cause: Cause, sample: MemorySample, now_us: int) -> None:
        in_flight = 0 if self.in_flight is None else self.in_flight()
        tightest = sample.tightest
        # Before the signal: whatever the server does from now on meets a worker that says so.
        self.finishing = True
        self.reason = None
        self._finishing_us = now_us
        self.figures.asked += 1
        logger.warning(
            "memory is %s: this worker (%s) finishes, %d requests are in flight",
            _in_words(sample, cause), mib(sample.rss_bytes), in_flight,
        )  # fmt: skip
        try:
            if self.on_change is not None:
                self.on_change(
                    WorkerFinishing(
                        cause=cause,
                        rss_bytes=sample.rss_bytes,
                        share=sample.share,
                        bound="" if tightest is None else tightest.name,
                        in_flight=in_flight,
                    )
                )
        except Exception:
            self.figures.failures += 1
            logger.exception("who was to be told of a finishing worker failed")
        try:
            self._finish()
        except Exception:
            self.figures.failures += 1
            self.finishing = False
            self._not_before_us = now_us + FAILED_PAUSE_US
            self._turn.give_back()
            logger.exception("this worker could not be asked to finish, and goes on")
            self._note_held_back("failed")

    def _note_still_here(self, now_us: int) -> None:
        if now_us - self._finishing_us < STILL_HERE_US or self._is_told_still_here:
            return
        self._is_told_still_here = True
        logger.warning(
            "this worker was asked to finish %d s ago and is still here, with %d requests in "
            "flight: the server's own limit for a graceful end is what cuts them short",
            (now_us - self._finishing_us) // US_PER_S,
            0 if self.in_flight is None else self.in_flight(),
        )


def _in_words(sample: MemorySample, cause: Cause) -> str:
    tightest = sample.tightest
    lasting = "critical" if cause == "critical" else "short, and requests are refused for it"
    if tightest is None:
        return lasting
    return (
        f"{lasting} ({tightest.share:.0%} of the {tightest.name} limit, "
        f"{mib(tightest.used_bytes)} of {mib(tightest.limit_bytes)})"
    )
