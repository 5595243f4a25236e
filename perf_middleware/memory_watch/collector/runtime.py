"""`perf.memory.gc`: the garbage collector of the process, for as long as the app runs.

    open           thresholds                      close    thresholds and frozen as before
    app started    collect, freeze
    long pauses    noted inside the collector, logged within a second by a task

The collector calls back in the middle of any line of the app, maybe one that holds a lock.  So
nothing is logged there and nothing is waited for: a value is put into a deque.

Cost: 1 us a collection, measured; a task that wakes once a second.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from collections import deque
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import anyio

from perf_middleware.clock import monotonic_us
from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, gauge
from perf_middleware.memory_watch.collector.drivers.process import PROCESS, ProcessCollector
from perf_middleware.memory_watch.collector.pauses import LinesPerMinute, LongPauses, Pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from perf_middleware.clock import Clock
    from perf_middleware.memory_watch.collector.drivers.process import Thresholds
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.memory_watch")

TELL_EVERY_S: Final = 1.0
UNTOLD_MAX: Final = 64  # between two wakes; what is more is counted and not logged
OLDEST: Final = 2
US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one collection by hand has brought; `blocks` are Python's small objects of any kind.

    RSS is None where nobody tells it.
    """

    generation: int
    took_us: int
    collected: int
    uncollectable: int
    blocks_before: int
    blocks_after: int
    rss_before_bytes: int | None = None
    rss_after_bytes: int | None = None

    def picture(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "generation": self.generation,
            "pause_s": self.took_us / US_PER_S,
            "collected": self.collected,
            "uncollectable": self.uncollectable,
            "blocks_freed": self.blocks_before - self.blocks_after,
            "rss_before_bytes": self.rss_before_bytes,
            "rss_after_bytes": self.rss_after_bytes,
        }


class GarbageCollection:
    """Freezes, tunes and explains the collector; each only where it is asked for.

    `route_running()` and `describe_load()` are called inside the collector once a pause was long,
    in the thread that had it: they must be quick and take no lock.  What they raise is counted.
    """

    name = "garbage collection"
    required = False

    def __init__(
        self,
        *,
        freeze: bool = False,
        thresholds: Thresholds | None = None,
        pause_told_s: float = 0.1,
        pauses_max: int = 32,
        log_lines_per_minute_max: int = 6,
        route_running: Callable[[], str | None] | None = None,
        describe_load: Callable[[], str | None] | None = None,
        rss_bytes: Callable[[], int | None] | None = None,
        process: ProcessCollector = PROCESS,
        clock: Clock = monotonic_us,
    ) -> None:
        self.pauses = LongPauses(pauses_max=pauses_max)
        self.observer_failures = 0
        self.route_running = route_running
        self.describe_load = describe_load
        self._freezes = freeze
        self._thresholds = thresholds
        self._told_us = round(pause_told_s * US_PER_S)
        self._lines = LinesPerMinute(log_lines_per_minute_max)
        self._rss_bytes = rss_bytes
        self._process = process
        self._clock = clock
        self._untold: deque[Pause] = deque(maxlen=UNTOLD_MAX)
        self._started_us: int | None = None
        self._loop_thread: int | None = None
        self._is_inside = False
        self._is_by_hand = False
        self._thresholds_hold = True
        self._scope: anyio.CancelScope | None = None
        self._last: Collected | None = None
        self._collections = 0
        # One object, kept: `gc.callbacks` must hold exactly what is taken out again.
        self._callback = self._collecting

    # --- as a resource ---------------------------------------------------------------------------

    async def open(self, background: Background) -> None:
        """Set the thresholds and watch; opening twice starts anew."""
        await self.close()
        self._loop_thread = get_ident()
        self._thresholds_hold = self._process.enter(self._thresholds)
        self._is_inside = True
        if not self._thresholds_hold:
            logger.warning(
                "garbage collection: thresholds %s are not set, another app of this process has "
                "set others: %s", self._thresholds, gc.get_threshold(),
            )  # fmt: skip
        gc.callbacks.append(self._callback)
        scope = self._scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                while True:
                    await anyio.sleep(TELL_EVERY_S)
                    self.tell()

        background.start("garbage collection", run)

    def note_started(self) -> None:
        """The app has started: what is there now is there to stay."""
        if self._freezes and self._is_inside:
            self.freeze()

    async def close(self) -> None:
        """Watch no more; the last app of the process puts back what the first has found."""
        with contextlib.suppress(ValueError):  # someone else has cleared the list, or not open
            gc.callbacks.remove(self._callback)
        self._started_us = self._loop_thread = None
        if self._scope is not None:
            self._scope.cancel()
            self._scope = None
        self.tell()
        if self._is_inside:
            self._is_inside = False
            self._process.leave()

    # --- by hand ---------------------------------------------------------------------------------

    def collect(self, generation: int = OLDEST) -> Collected:
        """Collect now, in this thread: the process stands for it.

        What is frozen is left out.  Raises ValueError for no such generation.
        """
        if not 0 <= generation <= OLDEST:
            raise ValueError(f"a generation is from 0 to {OLDEST}: {generation}")
        rss_before_bytes = self._rss()
        blocks_before = sys.getallocatedblocks()
        uncollectable_before = len(gc.garbage)
        began_us = self._clock()
        self._is_by_hand = True
        try:
            unreachable = gc.collect(generation)
        finally:
            self._is_by_hand = False
        took_us = self._clock() - began_us
        uncollectable = max(0, len(gc.garbage) - uncollectable_before)
        self._collections += 1
        self._last = Collected(
            generation=generation,
            took_us=took_us,
            collected=unreachable - uncollectable,
            uncollectable=uncollectable,
            blocks_before=blocks_before,
            blocks_after=sys.getallocatedblocks(),
            rss_before_bytes=rss_before_bytes,
            rss_after_bytes=self._rss(),
        )
        return self._last

    def freeze(self) -> int:
        """Collect, and leave all that is there now out of later collections: how many objects.

        They are freed as ever once nothing refers to them, but in cycles they stay for ever.
        """
        took_us = self.collect().took_us
        frozen = self._process.freeze()
        logger.info(
            "garbage collection: %d objects are frozen, after a collection of %.3f s",
            frozen, took_us / US_PER_S,
        )  # fmt: skip
        return frozen

    def thaw(self) -> bool:
        """Undo `freeze`, for all apps of the process; False where there is nothing to undo."""
        return self._process.thaw()

    # --- pauses ----------------------------------------------------------------------------------

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        try:
            if phase == "start":
                self._started_us = None if self._is_by_hand else self._clock()
                return
            started_us, self._started_us = self._started_us, None
            if started_us is None:
                return  # asked for, or opened in the middle of one
            now_us = self._clock()
            if now_us - started_us >= self._told_us:
                self._note(now_us, now_us - started_us, info)
        except Exception:  # noqa: BLE001 - it would land in the middle of any line of the app
            self.observer_failures += 1

    def _note(self, now_us: int, took_us: int, info: dict[str, int]) -> None:
        pause = Pause(
            at_us=now_us,
            took_us=took_us,
            generation=info["generation"],
            collected=info["collected"],
            uncollectable=info["uncollectable"],
            on_loop=get_ident() == self._loop_thread,
            route=self._ask(self.route_running),
            load=self._ask(self.describe_load),
            where=_interrupted_line(),
        )
        self.pauses.add(pause)
        self._untold.append(pause)

    def _ask(self, ask: Callable[[], str | None] | None) -> str | None:
        try:
            return None if ask is None else ask()
        except Exception:  # noqa: BLE001 - the pause is worth telling without it
            self.observer_failures += 1
            return None

    def tell(self) -> None:
        """Log what was noted; the task does, once a second."""
        while self._untold:
            pause = self._untold.popleft()
            held_back = self._lines.spend(pause.at_us)
            if held_back is not None:
                more = f" ({held_back} more were not logged)" if held_back else ""
                logger.warning("%s%s", pause.sentence(), more)

    # --- figures ---------------------------------------------------------------------------------

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        yield from self.pauses.families()
        yield gauge(
            "perf_memory_gc_frozen_objects",
            "Objects that garbage collections leave out, as counted when they were frozen.",
            [Value(NO_LABELS, self._process.frozen)],
        )
        yield gauge(
            "perf_memory_gc_threshold",
            "The collector's thresholds: new objects, collections of the young and of the middle.",
            [
                Value(LabelSet([("generation", str(number))]), threshold)
                for number, threshold in enumerate(gc.get_threshold())
            ],
            across="max",
        )

    def reset_counts(self) -> None:
        """Every count back to zero; the pauses that are remembered are forgotten."""
        self.pauses.reset()
        self.observer_failures = self._collections = 0

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        now_us = self._clock()
        return {
            "collecting": gc.isenabled(),
            "thresholds": list(gc.get_threshold()),
            "thresholds_are_ours": self._thresholds is not None and self._thresholds_hold,
            "apps": self._process.inside,
            "frozen": self._process.frozen,
            "long_pauses": self.pauses.count,
            "pauses": [pause.picture(now_us) for pause in self.pauses.last.copy()],
            "by_hand": self._collections,
            "last_by_hand": None if self._last is None else self._last.picture(),
            "observer_failures": self.observer_failures,
        }

    def _rss(self) -> int | None:
        return None if self._rss_bytes is None else self._rss_bytes()


def _interrupted_line() -> str | None:
    """File, line and function at which the collector was due: the frame below our callback's."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect makes many objects
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    if frame is None:
        return None
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} ({code.co_name})"
