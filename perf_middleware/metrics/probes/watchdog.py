"""The thread that notices a stuck event loop, because nothing on the loop can.

The heartbeat (loop.py) writes when it is due next; this thread sleeps, compares and, once the beat
is overdue by the threshold, samples the loop's thread until the beat comes.  Everything is judged
here, also a beat that came late: only this thread knows whether it was kept from running itself
(stalls.py).  What must be decided is pure; this module reads clocks and frames.

Cost, measured with a threshold of 0.25 s: twelve wake-ups a second of 0.11 to 0.13 ms, context
switches included, 0.13 to 0.16 % of one core.  A sample of 38 frames costs 0.08 ms more, twenty a
second at most and only while the loop stands.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from perf_middleware.metrics.probes.frames import capture, source_of
from perf_middleware.metrics.probes.thread_times import thread_times_us
from perf_middleware.metrics.watching.blame import Tally, judge
from perf_middleware.metrics.watching.blocks import US_PER_S, LoopBlock, Pace
from perf_middleware.metrics.watching.stalls import Lateness, Stall, cause_of, holder_of, overlap_us

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock
    from perf_middleware.code_roots import CodeRoots
    from perf_middleware.metrics.probes.pulse import Pulse, WatchCounts
    from perf_middleware.metrics.watching.stalls import StallCause

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # neither Windows nor macOS counts a thread's own context switches

    def _lock_waits() -> int | None:
        return None
else:

    def _lock_waits() -> int | None:
        return getrusage(RUSAGE_THREAD).ru_nvcsw


logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_Meters: TypeAlias = tuple[int, int | None, int | None]
"""Processor time of the process and of the loop's thread, us; times this thread gave way."""

THREAD_NAME = "perf_middleware event loop watchdog"
SAMPLES_BEFORE_ANNOUNCED = 2


@dataclass(slots=True)
class _Episode:
    """One beat that is overdue, as far as the watchdog has seen it."""

    due_us: int
    tally: Tally
    stalled_us: int = 0
    load: str | None = None
    announced: bool = False
    paused: bool = False  # the loop was not even running: nobody's block


class Watchdog:
    """Watches one pulse on a daemon thread; calls `report` there, at the end or before it."""

    def __init__(
        self,
        pulse: Pulse,
        *,
        pace: Pace,
        roots: CodeRoots,
        counts: WatchCounts,
        report: Callable[[LoopBlock], None],
        report_stall: Callable[[Stall], None],
        describe_load: Callable[[], str | None] | None,
        clock: Clock,
    ) -> None:
        self._pulse = pulse
        self._pace = pace
        self._roots = roots
        self._counts = counts
        self._report = report
        self._report_stall = report_stall
        self._describe_load = describe_load
        self._clock = clock
        self._episode: _Episode | None = None
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to judge what is left and end; it does so within milliseconds."""
        self._pulse.closed = True
        self._pulse.wake.set()

    def _run(self) -> None:
        pulse, pace = self._pulse, self._pace
        while not pulse.closed:
            wait_us = pace.wait_us(due_us=pulse.due_us, now_us=self._clock())
            before = self._meters()
            threads_before_us = thread_times_us()
            asleep_us = self._clock()
            pulse.wake.wait(wait_us / US_PER_S)
            pulse.wake.clear()
            now_us = self._clock()
            late_us = now_us - asleep_us - wait_us
            cause = None
            if late_us >= pace.tick_us:
                cause = cause_of(_lateness(wait_us, late_us, before, self._meters()))
            # Before anything is said: the thread that held the lock runs on with every line of us.
            stall = None
            if cause is not None and late_us >= pace.blocked_us:
                stall = self._try(partial(self._stall, cause, late_us, threads_before_us))
            self._try_look(now_us, late_us, cause)
            if stall is not None:
                self._try(partial(self._report_stall, stall))
        # Beats that came late while we were busy with a look; each of these judges one at least.
        while pulse.late:
            self._try_look(self._clock(), 0, None)

    def _try_look(self, now_us: int, late_us: int, cause: StallCause | None) -> None:
        self._try(lambda: self._look(now_us, late_us, cause))

    def _try(self, step: Callable[[], _T]) -> _T | None:
        try:
            return step()
        except Exception as error:  # noqa: BLE001 - an observer that fails must not end the watch
            self._failed(error)
            return None

    def _stall(self, cause: StallCause, late_us: int, before_us: dict[int, int]) -> Stall:
        """What is said of a stall that has just ended."""
        lasted_s = late_us / US_PER_S
        holder = None
        if cause == "interpreter_lock":
            not_others = {threading.get_ident(), self._pulse.thread_id}
            after_us = {k: v for k, v in thread_times_us().items() if k not in not_others}
            holder = holder_of(before_us, after_us, late_us=late_us)
        stack = capture(holder) if holder is not None else ()
        if not stack:
            return Stall(lasted_s=lasted_s, cause=cause)
        line = stack[judge(stack, self._roots).guilty]
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return Stall(
            lasted_s=lasted_s,
            cause=cause,
            thread=names.get(holder, ""),
            line=line,
            code=source_of(line),
        )

    def _meters(self) -> _Meters:
        loop_us: int | None = None
        if self._pulse.cpu_clock is not None:
            try:
                loop_us = time.clock_gettime_ns(self._pulse.cpu_clock) // 1000
            except OSError:  # the loop's thread has ended
                self._pulse.cpu_clock = None
        return time.process_time_ns() // 1000, loop_us, _lock_waits()

    def _look(self, now_us: int, late_us: int, cause: StallCause | None) -> None:
        pulse, counts = self._pulse, self._counts
        stalled = (now_us, now_us)
        if cause is not None:
            stalled = (now_us - late_us, now_us)
            counts.stalls[cause] += 1
            counts.stalled_us[cause] += late_us
        while pulse.late:
            self._finish(*pulse.late.popleft(), stalled)
        due_us = pulse.due_us
        if due_us is None or due_us >= now_us:
            return
        episode = self._episode_of(due_us)
        episode.stalled_us += overlap_us(stalled, (due_us, now_us))
        if now_us - due_us - episode.stalled_us >= self._pace.blocked_us:
            self._sample(episode, now_us)

    def _episode_of(self, due_us: int) -> _Episode:
        if self._episode is None or self._episode.due_us != due_us:
            self._episode = _Episode(due_us, Tally(self._roots))
        return self._episode

    def _sample(self, episode: _Episode, now_us: int) -> None:
        pulse = self._pulse
        if not pulse.is_running():
            # Between two run_until_complete() nobody expects the loop to turn.
            episode.paused = True
            return
        if episode.load is None:
            episode.load = self._load()
        stack = capture(pulse.thread_id)
        if pulse.due_us != episode.due_us or pulse.late:
            return  # the loop came back while we looked: this stack is another moment's
        if not stack:
            pulse.due_us = None  # the thread has ended without closing us; there is no loop
            return
        episode.tally.add(stack)
        lasted_us = now_us - episode.due_us - episode.stalled_us
        # A second sample, because C code that held the interpreter lock is over at the first.
        spoken_for = episode.announced or episode.tally.samples < SAMPLES_BEFORE_ANNOUNCED
        if lasted_us >= self._pace.announced_us and not spoken_for:
            episode.announced = True
            self._report(self._block(episode, lasted_us, now_us, ended=False))

    def _load(self) -> str | None:
        if self._describe_load is None:
            return None
        try:
            return self._describe_load()
        except Exception as error:  # noqa: BLE001 - the user's callable; the line is still worth naming
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self._counts.errors += 1
        if self._counts.errors == 1:
            logger.warning("the event loop watchdog failed and goes on", exc_info=error)

    def _finish(self, due_us: int, came_us: int, stalled: tuple[int, int]) -> None:
        episode = self._episode_of(due_us)
        self._episode = None
        stalled_us = episode.stalled_us + overlap_us(stalled, (due_us, came_us))
        lasted_us = came_us - due_us - stalled_us
        if lasted_us < self._pace.blocked_us or episode.paused:
            return
        self._counts.blocked += 1
        self._counts.blocked_us += lasted_us
        self._report(self._block(episode, lasted_us, self._clock(), ended=True))

    def _block(self, episode: _Episode, lasted_us: int, now_us: int, *, ended: bool) -> LoopBlock:
        at_s = time.time() - (now_us - episode.due_us) / US_PER_S
        lasted_s = lasted_us / US_PER_S
        finding = episode.tally.finding()
        if finding is None:
            return LoopBlock(at_s=at_s, lasted_s=lasted_s, ended=ended, load=episode.load)
        return LoopBlock(
            at_s=at_s,
            lasted_s=lasted_s,
            ended=ended,
            line=finding.line,
            origin=finding.origin,
            code=source_of(finding.line),
            call=finding.call,
            call_code=source_of(finding.call),
            caller=finding.caller,
            caller_code="" if finding.caller is None else source_of(finding.caller),
            stack=finding.stack,
            seen=finding.seen,
            samples=finding.samples,
            load=episode.load,
        )


def _lateness(waited_us: int, late_us: int, before: _Meters, after: _Meters) -> Lateness:
    return Lateness(
        waited_us=waited_us,
        late_us=late_us,
        process_cpu_us=after[0] - before[0],
        loop_cpu_us=_difference(after[1], before[1]),
        lock_waits=_difference(after[2], before[2]),
        switch_us=int(sys.getswitchinterval() * US_PER_S),
    )


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
