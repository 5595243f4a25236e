"""Event-loop lag, and the line of code that blocked the loop.

A heartbeat sleeps on the loop and measures by how much it woke late.  A watchdog thread
(watchdog.py) names what kept it.  Works on asyncio, uvloop and trio.

Cost at the defaults (0.1 s, 0.25 s), measured on an idle loop of a shared two-core machine: ten
wake-ups a second with the loop's own turn, 0.16 to 0.18 % of one core on asyncio and uvloop, 0.26
to 0.33 % on trio; the watchdog adds 0.13 to 0.16 %.  A busy loop, which is awake anyway, pays less.

Limits: a block shorter than `blocked_s + interval_s` may fall between two beats and count as less.
Timers of the loops have a resolution of about a millisecond, so the first bound of the histogram
is the noise floor, not a fault.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from perf_middleware.clock import monotonic_us
from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge
from perf_middleware.metrics.probes.frames import watched_roots
from perf_middleware.metrics.probes.pulse import Pulse, WatchCounts
from perf_middleware.metrics.probes.watchdog import Watchdog
from perf_middleware.metrics.watching.blocks import US_PER_S, LogBudget, LoopBlock, Pace
from perf_middleware.metrics.watching.durations import Durations, RollingMax, RollingShare
from perf_middleware.metrics.watching.stalls import STALL_CAUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perf_middleware.clock import Clock
    from perf_middleware.metrics.watching.stalls import Stall
    from perf_middleware.resource import Background

logger = logging.getLogger(__name__)

LAG_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LAG_WINDOW_US = 150 * US_PER_S  # half of it is surely kept: a scrape a minute meets every peak
BLOCKED_WINDOW_US = 120 * US_PER_S
BLOCKED_LEAST_US = 10 * US_PER_S
LATE_US_MIN = 50_000  # a beat that is less late waited its turn: a busy loop is not a blocked one
LOG_LINES_PER_MINUTE_MAX = 10
SHOWN_BLOCKS_MAX = 20  # in the status: each may have 30 lines of stack
CLOSE_S_MAX = 1.0
_CAUSE_LABELS = {cause: LabelSet([("cause", cause)]) for cause in STALL_CAUSES}


class LoopProbe:
    """Measures the event loop that opens it.

    `own_paths` are directories that count as the app's own code even inside site-packages.
    `describe_load` says what is being served, for the report: it is called on the watchdog's
    thread while the loop is stuck, so it must only read plain attributes.  `on_block` is called on
    the watchdog's thread too: once with `ended=False` for a block that goes on for four times
    `blocked_s`, and once with `ended=True` for each block.  A failure of either is counted and
    logged, the watch goes on.
    """

    name = "event loop probe"
    required = False

    def __init__(
        self,
        *,
        interval_s: float = 0.1,
        blocked_s: float = 0.25,
        blocked_kept_max: int = 100,
        own_paths: Sequence[str] = (),
        describe_load: Callable[[], str | None] | None = None,
        on_block: Callable[[LoopBlock], None] | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        if interval_s <= 0 or blocked_kept_max < 1:
            raise ValueError("interval_s must be > 0 and blocked_kept_max >= 1")
        self._interval_s = interval_s
        self._interval_us = round(interval_s * US_PER_S)
        self._pace = Pace(round(blocked_s * US_PER_S))
        self._own_paths = tuple(own_paths)
        self._describe_load = describe_load
        self._on_block = on_block
        self._clock = clock
        self._lag = Durations(LAG_BOUNDS_S)
        self._lag_max = RollingMax(window_us=LAG_WINDOW_US)
        self._blocked_share = RollingShare(window_us=BLOCKED_WINDOW_US, least_us=BLOCKED_LEAST_US)
        self._newest_us = 0
        self._counts = WatchCounts()
        self._log_budget = LogBudget(per_minute_max=LOG_LINES_PER_MINUTE_MAX)
        self._lock = threading.Lock()
        self._recent: deque[LoopBlock] = deque(maxlen=blocked_kept_max)
        self._pulse: Pulse | None = None
        self._watchdog: Watchdog | None = None

    async def open(self, background: Background) -> None:
        """Start heartbeat and watchdog; opening twice starts anew."""
        await self.close()
        pulse = self._pulse = Pulse()
        self._watchdog = Watchdog(
            pulse,
            pace=self._pace,
            roots=watched_roots(self._own_paths),
            counts=self._counts,
            report=self._report,
            report_stall=self._report_stall,
            describe_load=self._describe_load,
            clock=self._clock,
        )
        self._watchdog.start()

        async def beat() -> None:
            await self._beat(pulse)

        background.start("event loop heartbeat", beat)

    async def close(self) -> None:
        """End both; a block that ends with this call is still reported."""
        pulse, watchdog = self._pulse, self._watchdog
        self._pulse = self._watchdog = None
        if pulse is None or watchdog is None:
            return
        self._arrive(pulse)  # we run, so the loop does: as good as a beat
        pulse.due_us = None
        watchdog.stop()
        if pulse.scope is not None:
            pulse.scope.cancel()
        with anyio.move_on_after(CLOSE_S_MAX):
            # Polled: a join would block the loop, and a worker thread for it may not be free.
            while watchdog.alive:  # noqa: ASYNC110
                await anyio.sleep(0.002)

    async def _beat(self, pulse: Pulse) -> None:
        if pulse.closed:
            return
        pulse.thread_id = threading.get_ident()
        pulse.cpu_clock = _own_cpu_clock()
        pulse.is_running = _loop_is_running()
        try:
            with anyio.CancelScope() as pulse.scope:
                while not pulse.closed:
                    pulse.due_us = self._clock() + self._interval_us
                    await anyio.sleep(self._interval_s)
                    self._arrive(pulse)
        finally:
            pulse.due_us = None  # cancelled: nobody may take our silence for a block

    def _arrive(self, pulse: Pulse) -> None:
        now_us = self._clock()
        due_us = pulse.due_us
        if due_us is None:
            return
        lag_us = max(0, now_us - due_us)
        if lag_us >= self._pace.blocked_us:
            pulse.late.append((due_us, now_us))
            pulse.wake.set()
        self._newest_us = lag_us
        self._lag.observe(lag_us * 1000)
        self._lag_max.add(lag_us, now_us)
        self._blocked_share.add(lag_us if lag_us >= LATE_US_MIN else 0, now_us)

    def lag_s(self) -> float:
        """Seconds by which the newest heartbeat was late, or is late by now; from any thread."""
        due_us = None if self._pulse is None else self._pulse.due_us
        overdue_us = 0 if due_us is None else self._clock() - due_us
        return max(self._newest_us, overdue_us) / US_PER_S

    def blocked_share(self) -> float | None:
        """Which share of the last one to two minutes the loop stood still; None before a beat.

        The chance that a request met a loop that did not turn.  One block in a minute moves it a
        little, a loop that is stuck most of the time a lot, whatever the newest beat says.
        """
        return self._blocked_share.read(self._clock())

    def recent_blocks(self) -> list[LoopBlock]:
        """The blocks that have ended, newest first; from any thread."""
        with self._lock:
            return list(reversed(self._recent))

    def families(self) -> Iterable[Family]:
        """Lag, blocks and stalls since the probe was made; none where no loop was measured."""
        if not self._lag.count:
            return  # without a lifespan nobody opened us, and a lag of 0 would be made up
        counts = self._counts
        yield Family(
            name="perf_event_loop_lag_seconds",
            kind="histogram",
            help="By how much the event loop's heartbeat woke late.",
            points=(self._lag.distribution(),),
            unit="seconds",
            bounds=self._lag.bounds_s,
        )
        yield gauge(
            "perf_event_loop_lag_newest_seconds",
            "Lag of the newest heartbeat.",
            (Value(NO_LABELS, self.lag_s()),),
            unit="seconds",
            across="max",
        )
        yield gauge(
            "perf_event_loop_lag_max_seconds",
            "Largest lag of the last 75 to 150 seconds.",
            (Value(NO_LABELS, self._lag_max.read(self._clock()) / US_PER_S),),
            unit="seconds",
            across="max",
        )
        yield counter(
            "perf_event_loop_blocked",
            "Times that one piece of code kept the event loop from turning.",
            (Value(NO_LABELS, counts.blocked),),
        )
        yield counter(
            "perf_event_loop_blocked_seconds",
            "How long the event loop was kept from turning.",
            (Value(NO_LABELS, counts.blocked_us / US_PER_S),),
            unit="seconds",
        )
        yield counter(
            "perf_process_stalls",
            "Times that the whole process did not run: stopped, starved, or locked by a thread.",
            [Value(_CAUSE_LABELS[cause], counts.stalls[cause]) for cause in STALL_CAUSES],
        )
        yield counter(
            "perf_process_stalled_seconds",
            "How long the whole process did not run.",
            [
                Value(_CAUSE_LABELS[cause], counts.stalled_us[cause] / US_PER_S)
                for cause in STALL_CAUSES
            ],
            unit="seconds",
        )

    def status(self) -> dict[str, Any]:
        """Lag now and at its largest, seconds; blocks, stalls and failures; the newest blocks."""
        counts = self._counts
        return {
            "running": self._watchdog is not None and self._watchdog.alive,
            "lag_s": self.lag_s(),
            "lag_max_s": self._lag_max.read(self._clock()) / US_PER_S,
            "blocked_share": self.blocked_share(),
            "beats": self._lag.count,
            "blocked": counts.blocked,
            "blocked_s": counts.blocked_us / US_PER_S,
            "stalls": dict(counts.stalls),
            "errors": counts.errors,
            "recent_blocks": [block.as_dict() for block in self.recent_blocks()[:SHOWN_BLOCKS_MAX]],
        }

    def _report(self, block: LoopBlock) -> None:
        """On the watchdog's thread.  The log comes last: its handler may be what is stuck."""
        if block.ended:
            with self._lock:
                self._recent.append(block)
        try:
            if self._on_block is not None:
                self._on_block(block)
        finally:
            self._log(block.sentence())

    def _report_stall(self, stall: Stall) -> None:
        self._log(stall.sentence())

    def _log(self, sentence: str) -> None:
        held_back = self._log_budget.spend(self._clock())
        if held_back is not None:
            more = f" ({held_back} more such reports were not logged)" if held_back else ""
            logger.warning("%s%s", sentence, more)


def _own_cpu_clock() -> int | None:
    """This thread's processor time as a clock for other threads; None where there is none."""
    clock_of = getattr(time, "pthread_getcpuclockid", None)
    # Asked by the thread for itself: with the id of a thread that has ended it may crash.
    return None if clock_of is None else clock_of(threading.get_ident())


def _loop_is_running() -> Callable[[], bool]:
    try:
        return asyncio.get_running_loop().is_running
    except RuntimeError:  # trio: its loop runs until it ends
        return lambda: True
