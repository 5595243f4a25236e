"""What the watch knows: each look is judged, a change of step told, observers shown the sample."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from perf_middleware.events import MemoryStepChanged
from perf_middleware.memory_watch.changes_told import ChangesTold
from perf_middleware.memory_watch.cleanup import mib, same_bound
from perf_middleware.memory_watch.ladder import (
    HARD,
    STEP_NAMES,
    LadderState,
    after,
    cleaned,
    cleanup_is_due,
    is_worth_shrinking,
)
from perf_middleware.memory_watch.pace import Growth, growth_after, wait_us
from perf_middleware.memory_watch.reading import MemorySample

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock
    from perf_middleware.events import Events
    from perf_middleware.memory_watch.cleanup import CleanupReport
    from perf_middleware.memory_watch.ladder import Ladder
    from perf_middleware.memory_watch.reading import Bound
    from perf_middleware.memory_watch.watch_figures import WatchCounts

logger = logging.getLogger("perf_middleware.memory_watch")

US_PER_S: Final = 1_000_000
OLD_US_MIN: Final = 5 * US_PER_S
OLD_INTERVALS: Final = 3  # without a look for so long, the newest share is nobody's any more


class Lookout:
    """Looks by `sample()` and folds what it sees; `show(step)` is called with each judgement.

    One thread at a time.
    """

    def __init__(
        self,
        sample: Callable[[], MemorySample],
        *,
        ladder: Ladder,
        interval_us: int,
        show: Callable[[int], object],
        counts: WatchCounts,
        events: Events | None,
        clock: Clock,
    ) -> None:
        self.on_sample: list[Callable[[MemorySample], object]] = []
        self._sample = sample
        self._ladder = ladder
        self._interval_us = interval_us
        self._show = show
        self._counts = counts
        self._events = events
        self._clock = clock
        self._failing: set[object] = set()  # what was told of in the log, until it is well again
        self.forget()

    def forget(self) -> None:
        """As before the first look; what was counted stays."""
        now_us = self._clock()
        self.state = LadderState(since_us=now_us)
        self.newest = MemorySample(at_us=now_us, rss_bytes=0)
        self._growth = Growth()
        self._seen_us: int | None = None
        self._lines = ChangesTold(self.state.step)
        self._told_bound: Bound | None = None
        self._look_us = 0
        self._show(self.state.step)

    def share(self) -> float | None:
        """Used of the tightest bound, at the newest look; None where that is old or knows none."""
        newest = self.newest
        old_us = max(OLD_US_MIN, OLD_INTERVALS * self._interval_us)
        return newest.share if self._clock() - newest.at_us <= old_us else None

    def glance(self) -> None:
        """Look once; what fails is counted, and told once."""
        began_ns = time.thread_time_ns()
        try:
            sample = self._sample()
        except Exception as exc:  # noqa: BLE001 - what a platform does not tell is no error of ours
            self._counts.look_failures += 1
            self.tell_once("sample", "the memory cannot be read: %s: %s", exc)
            if self.share() is None:  # as if nothing limited this process: the step falls
                self.judge(MemorySample(at_us=self._clock(), rss_bytes=0))
                self._let_observe(self.newest)  # who refuses requests must hear that too
        else:
            self._failing.discard("sample")
            self.judge(sample)
            self._let_observe(sample)
        self._look_us = (time.thread_time_ns() - began_ns) // 1000
        self._counts.looks += 1
        self._counts.look_us += self._look_us

    def look(self) -> MemorySample:
        """Look once, observed by nobody; raises what `sample` raises."""
        sample = self._sample()
        self.judge(sample)
        return sample

    def judge(self, sample: MemorySample) -> None:
        """Take `sample` for the newest; a step that changes is told."""
        is_first = self._seen_us is None
        self._account()
        self.newest = sample
        self._growth = growth_after(self._growth, sample)
        before = self.state
        state = self.state = after(before, sample, ladder=self._ladder)
        self._show(state.step)
        if state.step != before.step:
            self._counts.changes[state.step] += 1
            self._publish(before.step, state)
        was = self._lines.told
        held_back = self._lines.note(state.step, now_us=self._clock())
        if held_back is not None:
            self._log(was, state, held_back, is_first=is_first)

    def _account(self) -> None:
        """Count the time that is over for the step that held in it."""
        now_us = self._clock()
        if self._seen_us is not None:
            self._counts.at_step_us[self.state.step] += max(0, now_us - self._seen_us)
        self._seen_us = now_us

    def wait_us(self) -> int:
        """How long until the next look."""
        return wait_us(
            self._growth, self.newest, ladder=self._ladder, interval_us=self._interval_us,
            look_us=self._look_us,
        )  # fmt: skip

    def cleanup_is_due(self) -> bool:
        return cleanup_is_due(self.state, now_us=self._clock(), ladder=self._ladder)

    def is_worth_shrinking(self) -> bool:
        return is_worth_shrinking(self.state, ladder=self._ladder)

    def note_cleanup(self, report: CleanupReport) -> None:
        """A cleanup has ended, the next one keeps its distance."""
        self.state = cleaned(
            self.state, step=report.step, brought_share=report.brought_share,
            now_us=self._clock(), ladder=self._ladder,
        )  # fmt: skip

    def tell_once(self, what: object, text: str, error: Exception) -> None:
        """Log an error, unless that of `what` was: until it is well again."""
        if what not in self._failing:
            self._failing.add(what)
            logger.warning(text, type(error).__name__, error, exc_info=error)

    def _log(self, was: int, state: LadderState, held_back: int, *, is_first: bool) -> None:
        # What it rose by, where it falls: another bound may be the tightest by now.
        risen_by = same_bound(self.newest, self._told_bound) if state.step < was else None
        bound = self._told_bound = risen_by or state.bound
        limits = "nothing is known to limit this process"
        if bound is not None:
            used, limit = mib(bound.used_bytes), mib(bound.limit_bytes)
            limits = f"{bound.share:.1%} of {bound.name}: {used} of {limit}"
        if is_first:
            limits += "; at the first look already"
        if held_back:
            limits += f"; {held_back} changes before this one are not in the log"
        logger.log(
            logging.WARNING if state.step >= HARD and state.step > was else logging.INFO,
            "memory step: %s, was %s (%s)", STEP_NAMES[state.step], STEP_NAMES[was], limits,
        )  # fmt: skip

    def _publish(self, before: int, state: LadderState) -> None:
        bound = state.bound
        if self._events is not None:
            self._events.publish(
                MemoryStepChanged(
                    step=state.step,
                    before=before,
                    share=None if bound is None else bound.share,
                    bound=None if bound is None else bound.name,
                    used_bytes=None if bound is None else bound.used_bytes,
                    limit_bytes=None if bound is None else bound.limit_bytes,
                )
            )

    def _let_observe(self, sample: MemorySample) -> None:
        for observe in list(self.on_sample):
            try:
                observe(sample)
            except Exception as exc:  # noqa: BLE001 - an observer that fails harms no other
                self._counts.observer_failures += 1
                self.tell_once(observe, "an observer of the memory watch failed: %s: %s", exc)
            else:
                self._failing.discard(observe)
