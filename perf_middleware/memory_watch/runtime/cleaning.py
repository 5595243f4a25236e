"""One cleanup, run: callbacks in their order, then garbage, then what malloc holds free.

Everything that the loop is asked for may be left out: while it is stuck, the rest goes on.
"""

from __future__ import annotations

import gc
import logging
import threading
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.memory_watch.cleanup import (
    Cleaner,
    CleanupReport,
    Freed,
    Pressure,
    freed_bytes_of,
    same_bound,
    with_cleaner,
)
from perf_middleware.memory_watch.runtime.home import NoLoopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock
    from perf_middleware.memory_watch.reading import Bound, MemorySample
    from perf_middleware.memory_watch.runtime.home import HomeLoop, LoopCall

logger = logging.getLogger("perf_middleware.memory_watch")

US_PER_S: Final = 1_000_000
SLICE_S: Final = 0.1  # between two looks while the loop is waited for
GRACE_S: Final = 0.1  # from a call's cancellation to its end
OVERDUE_S: Final = 5.0  # as long as a share is believed without a look
SPENT_US: Final = 5_000  # with so little left nobody begins: uvloop's timers are 1 ms early
LOOP_PART: Final = 2  # of the time left, which the loop may take until it answers at all


class Cleaning:
    """The callbacks of one watch; one thread at a time runs them."""

    def __init__(
        self,
        sample: Callable[[], MemorySample],
        *,
        trim: Callable[[], int | None] | None,
        collect: bool,
        budget_us: int,
        shrink_share: float,
        meanwhile: Callable[[], object],
        overdue: Callable[[], object],
        clock: Clock,
    ) -> None:
        """`meanwhile` is called now and then while the loop is waited for; `overdue`, from another
        thread, when a callback keeps the watch's own for OVERDUE_S.
        """
        self.cleaners: tuple[Cleaner, ...] = ()
        self.is_interrupted = False
        self._sample = sample
        self._trim = trim
        self._collect = collect
        self._budget_us = budget_us
        self._shrink_share = shrink_share
        self._meanwhile = meanwhile
        self._overdue = overdue
        self._clock = clock
        self._call: LoopCall | None = None
        self._running: dict[str, LoopCall] = {}  # overran, and are not at their end yet
        self._changing = threading.Lock()
        self._loop_is_stuck = False
        self._failing: set[str] = set()

    def add(self, cleaner: Cleaner) -> None:
        """Raises ValueError for a name that is taken, and where there are too many."""
        with self._changing:
            self.cleaners = with_cleaner(self.cleaners, cleaner)

    def remove(self, name: str) -> None:
        """What is not there does no harm."""
        with self._changing:
            self.cleaners = tuple(one for one in self.cleaners if one.name != name)
        self._failing.discard(name)
        self._running.pop(name, None)

    def interrupt(self) -> None:
        """End what is waited for; what is left of this cleanup is skipped.  From any thread."""
        self.is_interrupted = True
        call = self._call
        if call is not None:
            call.give_up()

    def begin_anew(self) -> None:
        """In a forked child: what was waited for is its parent's, and so are its locks."""
        self._changing = threading.Lock()
        self._call = None
        self._running = {}

    def run(
        self,
        before: MemorySample,
        *,
        step: int,
        bound: Bound | None,
        home: HomeLoop | None,
        shrinks: bool = True,
    ) -> tuple[CleanupReport, MemorySample]:
        """Free memory: what came of it, and the newest sample; without `shrinks`, callbacks are
        asked for what costs nothing to give.
        """
        began_us = self._clock()
        self.is_interrupted = False
        used_bytes = before.rss_bytes if bound is None else bound.used_bytes
        limit_bytes = None if bound is None else bound.limit_bytes
        pressure = Pressure(
            step=step,
            shrink_share=self._shrink_share if shrinks else 0.0,
            used_bytes=used_bytes,
            share=None if bound is None else bound.share,
            limit_bytes=limit_bytes,
        )
        freed = self._each(
            [(one, _asking(one, pressure)) for one in self.cleaners], home=home, began_us=began_us
        )
        collected = gc.collect() if self._collect and not self.is_interrupted else None
        trimmed_bytes = None if self.is_interrupted else self._trimmed_bytes()
        newest = self._look() or before
        after = same_bound(newest, bound)
        after_bytes = newest.rss_bytes if after is None else after.used_bytes
        report = CleanupReport(
            step=step,
            before_bytes=before.rss_bytes if after is None else used_bytes,
            after_bytes=after_bytes,
            took_us=max(0, self._clock() - began_us),
            bound=None if after is None else after.name,
            limit_bytes=None if after is None else limit_bytes,
            freed=tuple(freed),
            collected=collected,
            trimmed_bytes=trimmed_bytes,
        )
        return report, newest

    def relievable(self) -> set[str]:
        """The names of those that want to know when the pressure is over."""
        return {one.name for one in self.cleaners if one.relief is not None}

    def relieve(self, names: set[str], *, home: HomeLoop | None) -> list[Freed]:
        """Tell these that the pressure is over: what became of it."""
        self.is_interrupted = False
        calls = [
            (one, one.relief)
            for one in self.cleaners
            if one.relief is not None and one.name in names
        ]
        return self._each(calls, home=home, began_us=self._clock())

    # --- one callback after the other ------------------------------------------------------------

    def _each(
        self,
        calls: list[tuple[Cleaner, Callable[[], Any]]],
        *,
        home: HomeLoop | None,
        began_us: int,
    ) -> list[Freed]:
        self._loop_is_stuck = False
        until_us = began_us + self._budget_us
        spent_us = min(SPENT_US, self._budget_us // 10)
        freed = []
        for cleaner, function in calls:
            begun_us = self._clock()
            left_us = until_us - begun_us
            if self.is_interrupted:
                one = Freed(cleaner.name, "skipped", reason="the watch ends")
            elif left_us <= spent_us:
                one = Freed(cleaner.name, "skipped", reason="no time left")
            elif cleaner.thread or home is None:
                one = self._here(cleaner, function, begun_us)
            else:
                one = self._on_loop(cleaner, function, home, begun_us, left_us)
            freed.append(one)
        return freed

    def _here(self, cleaner: Cleaner, function: Callable[[], Any], begun_us: int) -> Freed:
        watcher = self._watched(cleaner) if cleaner.thread else None
        try:
            answer = function()
            if isawaitable(answer):
                if iscoroutine(answer):
                    answer.close()
                if not cleaner.thread:
                    return Freed(cleaner.name, "skipped", reason="no event loop is known")
                raise TypeError("a cleanup on the watch's thread must not be async")  # noqa: TRY301
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - the next one goes on, and so does the watch
            return self._failed(cleaner, exc, begun_us)
        finally:
            if watcher is not None:
                watcher.cancel()
        return self._done(cleaner, answer, begun_us)

    def _watched(self, cleaner: Cleaner) -> threading.Timer | None:
        """Tells of a callback that does not come back; None where no thread can be had."""

        def tell() -> None:
            logger.warning(
                "the memory cleanup %s has kept the watch's thread for %g s: until it ends nobody "
                "looks at the memory, no step holds and nobody is refused",
                cleaner.name, OVERDUE_S,
            )  # fmt: skip
            self._overdue()

        timer = threading.Timer(OVERDUE_S, tell)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            return None
        return timer

    def _on_loop(
        self,
        cleaner: Cleaner,
        function: Callable[[], Any],
        home: HomeLoop,
        begun_us: int,
        left_us: int,
    ) -> Freed:
        name, left_s = cleaner.name, left_us / US_PER_S
        if self._loop_is_stuck:
            return Freed(name, "skipped", reason="the event loop is stuck")
        before = self._running.pop(name, None)
        if before is not None and not before.is_over(0):
            self._running[name] = before
            return Freed(name, "skipped", reason="its last call still runs")
        try:
            call = self._call = home.call(function, left_s=left_s)
        except NoLoopError:  # it has ended: nobody is there whom this thread could disturb
            return self._here(cleaner, function, begun_us)
        try:
            if self.is_interrupted:  # before it could be seen that there is a call to give up
                call.give_up()
            # A loop that is stuck must leave some time for what needs no loop.
            self._wait(call.has_begun, left_s / LOOP_PART)
            if not call.is_kept():
                self._loop_is_stuck = not self.is_interrupted
                reason = "the event loop is stuck" if self._loop_is_stuck else "the watch ends"
                return Freed(name, "skipped", reason=reason)
            left_s = (begun_us + left_us - self._clock()) / US_PER_S
            is_done = self._wait(call.is_over, left_s + GRACE_S)
        finally:
            self._call = None
        if call.error is not None:
            return self._failed(cleaner, call.error, begun_us)
        if is_done and call.has_ended:
            return self._done(cleaner, call.answer, begun_us)
        if not is_done:
            self._running[name] = call
        reason = "" if call.was_cut_off or not is_done else "cancelled"
        return Freed(name, "overran", self._clock() - begun_us, reason=reason)

    def _wait(self, is_so: Callable[[float], bool], timeout_s: float) -> bool:
        """Wait in slices: the memory may go on growing meanwhile."""
        for _ in range(int(timeout_s / SLICE_S)):
            if is_so(SLICE_S):
                return True
            self._meanwhile()
        return is_so(max(0.0, timeout_s % SLICE_S))

    def _done(self, cleaner: Cleaner, answer: object, begun_us: int) -> Freed:
        self._failing.discard(cleaner.name)
        took_us = max(0, self._clock() - begun_us)
        return Freed(cleaner.name, "done", took_us, freed_bytes_of(answer))

    def _failed(self, cleaner: Cleaner, error: BaseException, begun_us: int) -> Freed:
        if cleaner.name not in self._failing:
            self._failing.add(cleaner.name)
            logger.warning(
                "the memory cleanup %s failed, others go on", cleaner.name, exc_info=error
            )
        took_us = max(0, self._clock() - begun_us)
        return Freed(cleaner.name, "failed", took_us, reason=type(error).__name__)

    def _look(self) -> MemorySample | None:
        try:
            return self._sample()
        except Exception:  # noqa: BLE001 - the watch itself counts and tells that, at its next look
            return None

    def _trimmed_bytes(self) -> int | None:
        """What was given back to the system; None where that is not possible."""
        if self._trim is None:
            return None
        try:
            return self._trim()
        except Exception:
            logger.warning("free memory cannot be trimmed: not tried any more", exc_info=True)
            self._trim = None
            return None


def _asking(cleaner: Cleaner, pressure: Pressure) -> Callable[[], Any]:
    return lambda: cleaner.callback(pressure)
