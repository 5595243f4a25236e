"""One look into growth that is suspect, from the suspicion to what it was.

    caches      some seconds: which bounded caches fill, and is it they?
    tracing     in a thread of its own: which lines allocate what stays alive?
    confirming  some seconds more: does it still grow, now that nobody looks, and from one
                collection of garbage to the next?

It is stepped by the watch's thread with each witness; only the tracing waits.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from perf_middleware.memory_watch.leaks.confirming import goes_on, load_share
from perf_middleware.memory_watch.leaks.history import of_witness
from perf_middleware.memory_watch.leaks.verdict import (
    FillingCache,
    GrowingType,
    Site,
    TraceReport,
    Verdict,
    caches_explain,
    is_alive,
    is_bursty,
    leak_reason,
    sites_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.memory_watch.leaks.growth import Growth
    from perf_middleware.memory_watch.leaks.history import Trough
    from perf_middleware.memory_watch.leaks.route_growth import InUse
    from perf_middleware.memory_watch.leaks.verdict import Reason
    from perf_middleware.memory_watch.reading import Witness

logger = logging.getLogger("perf_middleware.memory_watch")

CACHES_US: Final = 1_500_000  # between two looks at the sizes of caches
CONFIRM_US: Final = 3_500_000  # doubled for each level, as what grows slowly needs more to show
CONFIRM_POINTS: Final = 4
CONFIRM_TRIES: Final = 3
TRACED_LOAD_MIN: Final = 0.25  # of the requests a second while it grew, while it was traced
DURING_MAX: Final = 64
PATIENCE_US: Final = 120_000_000  # beyond twice the time of a tracing: its snapshots take long


class CensusPort(Protocol):
    """Objects at one moment; probes.Census."""

    def filling(self) -> Sequence[FillingCache]: ...

    def more_than(self, before: Any) -> tuple[GrowingType, ...]: ...


class Looks:
    """What an inquiry may do; None is what it may not."""

    __slots__ = ("census", "collect", "start", "trace", "trace_s")

    def __init__(
        self,
        *,
        census: Callable[[], CensusPort] | None,
        collect: Callable[[], InUse] | None,
        trace: Callable[[float], TraceReport | None] | None,
        trace_s: float,
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self.census = census
        self.collect = collect
        self.trace = trace
        self.trace_s = trace_s
        self.start = start_thread if start is None else start


def start_thread(work: Callable[[], None]) -> None:
    """Run `work` beside the watch."""
    threading.Thread(target=work, name="perf-middleware-leak-inquiry", daemon=True).start()


class Inquiry:
    """`step` until `is_over`; then `verdict` is what it was, None where it cannot be told yet.

    `points` are those of `growth`.
    """

    def __init__(
        self, growth: Growth, points: Sequence[Trough], looks: Looks, *, now_us: int
    ) -> None:
        self.growth = growth
        self._points = points
        self.verdict: Verdict | None = None
        self.is_over = self.has_traced = self.has_failed = False
        self._looks = looks
        self._patience_us = round(looks.trace_s * 1_000_000) * 2 + PATIENCE_US
        self.was_cut_short = False
        self._stage: Literal["caches", "tracing", "confirming"] = "caches"
        self._since_us = now_us
        self._report: TraceReport | None = None
        self._floor: InUse | None = None
        self._work_done = self._is_given_up = False
        self._trace_load = 1.0
        self._before: Trough | None = None
        self._during: list[Trough] = []
        self._after: list[Trough] = []
        self._tries = 0
        self._types: tuple[GrowingType, ...] = ()
        self._census = None if looks.census is None else looks.census()

    @property
    def is_tracing(self) -> bool:
        """Whether figures of now are those of the tracing itself."""
        return self._stage == "tracing" and not self.is_over

    def give_up(self) -> None:
        """Let its thread end as soon as it can; who traces is told to stop by somebody else."""
        self._is_given_up = self.is_over = True

    def step(self, witness: Witness) -> None:
        """Go on, as far as it goes at this moment."""
        now = of_witness(witness)
        if self._stage == "caches":
            if self._census is not None and now.at_us - self._since_us < CACHES_US:
                return
            self._look_at_caches(now)
        elif self._stage == "tracing":
            self._during = [*self._during, now][-DURING_MAX:]
            if self._work_done:
                self._after_work(now)
            elif now.at_us - self._since_us > self._patience_us:
                self.has_failed = self.is_over = True
                logger.error("tracing for memory growth has not come back; it is not waited for")
        else:
            self._confirm(now)

    def _look_at_caches(self, now: Trough) -> None:
        caches = () if self._census is None else self._census.filling()
        if caches and caches_explain(self.growth, caches):
            ordered = sorted(caches, key=lambda cache: -(cache.bytes_per_s or float("inf")))
            self._end("levels_off", "cache", now, caches=tuple(ordered[:3]))
            return
        self._stage, self._before, self._since_us = "tracing", now, now.at_us
        self._looks.start(self._work)
        if self._work_done:  # no thread was needed
            self._after_work(now)

    def _work(self) -> None:
        """Trace, then collect: whatever happens, `_work_done` is set last."""
        try:
            if self._looks.trace is not None and not self._is_given_up:
                self.has_traced = True
                self._report = self._looks.trace(self._looks.trace_s)
                # None: there was no time for it.  The hunt must not rest as if nothing were found.
                self.has_traced = self._report is not None
            if self._looks.collect is not None and not self._is_given_up:
                self._floor = self._looks.collect()
            # After the collection: what waits for one has no part in it.
            census = None if self._is_given_up else self._looks.census
            if self._census is not None and census is not None:
                self._types = census().more_than(self._census)
        except Exception:
            self.has_failed = True
            logger.exception("looking into memory growth failed")
        finally:
            self._census = None  # it holds objects of the app
            self._work_done = True

    def _after_work(self, now: Trough) -> None:
        if self.has_failed:
            self.is_over = True
        else:
            report = self._report  # None: the process was too busy, or somebody else traced
            self.was_cut_short = self._looks.trace is not None and (
                report is None or bool(report.ended_early)
            )
            if self._before is not None:
                self._trace_load = load_share(self.growth, [self._before, now])
            self._stage, self._since_us = "confirming", now.at_us

    def _confirm(self, now: Trough) -> None:
        self._after.append(now)
        self._after = self._after[-64:]
        due_us = (self._tries + 1) * (CONFIRM_US << self.growth.level)
        if now.at_us - self._since_us < due_us or len(self._after) < CONFIRM_POINTS:
            return
        if goes_on(self.growth, self._points, self._after):
            floor = None if self._looks.collect is None else self._looks.collect()
            if self._floor is not None and floor is not None:
                passed_s = (now.at_us - self._since_us) / 1_000_000
                load = load_share(self.growth, self._after)
                if not is_alive(self.growth, self._floor, floor, passed_s=passed_s, load=load):
                    freed = max(0, now.blocks - floor[0])
                    self._end("levels_off", "garbage", now, freed_blocks=freed)
                    return
            if self._report is not None and self._trace_load < TRACED_LOAD_MIN:
                # What grows with the requests was not there to be seen: any other line would seem
                # to explain it.
                self.was_cut_short = self.is_over = True
                return
            bursty = is_bursty(self._during)
            sites = sites_of(self.growth, self._report, bursty=bursty)
            reason = leak_reason(
                self.growth, self._report, sites, load=self._trace_load, bursty=bursty
            )
            if reason is None:
                self.is_over = True
            else:
                self._end("leak", reason, now, sites=sites)
            return
        self._tries += 1
        if self._tries >= CONFIRM_TRIES:
            self._end("levels_off", "ended", now)

    def _end(
        self,
        kind: Literal["leak", "levels_off"],
        reason: Reason,
        now: Trough,
        *,
        sites: tuple[Site, ...] = (),
        caches: tuple[FillingCache, ...] = (),
        freed_blocks: int = 0,
    ) -> None:
        self.is_over = True
        self.verdict = Verdict(
            kind=kind,
            reason=reason,
            at_us=now.at_us,
            growth=self.growth,
            sites=sites,
            caches=caches,
            types=self._types if kind == "leak" else (),
            bytes=freed_blocks,
        )
