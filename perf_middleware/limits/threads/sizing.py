r"""How many threads sync endpoints may use: a fold over samples that tries and looks.

    calls wait for a thread, the processor has room  ->  a quarter more threads, on trial
        after two service times:
            the line is gone, or more calls are completed   ->  they stay; go on
            no more is completed                            ->  take them back; wait long before
                                                                the next trial (twice as long each)
    nobody waits, half of them lie idle for `idle_us`       ->  a fifth less, down to `threads_min`

More threads help calls that wait (for a database, a file, a peer) and nothing else: work that holds
the interpreter lock is not done sooner by more of them, nor is what waits for ten connections.
That cannot be read from any clock in advance, so it is tried: throughput before and after, as
.NET's thread pool does by hill climbing, in steps that a log can explain.
Little's law gives the service time: calls in progress over calls completed a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

US_PER_S: Final = 1_000_000
GROW_SHARE: Final = 4  # a quarter more, two at least
GAIN_SHARE: Final = 3  # a trial stays for a third of the gain that as many waiting threads bring
CPU_FULL_SHARE: Final = 0.85  # of what the process may use: above, threads only take turns
JUDGE_US_MIN: Final = US_PER_S
JUDGE_US_MAX: Final = 20 * US_PER_S  # calls that take longer are judged by what has come by then
BACK_OFF_US: Final = 10 * US_PER_S
BACK_OFF_US_MAX: Final = 320 * US_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeBounds:
    """Between how many threads, and how long they must lie idle before some are given up."""

    threads_min: int = 40
    threads_max: int = 200
    idle_us: int = 30 * US_PER_S

    def __post_init__(self) -> None:
        if not 1 <= self.threads_min <= self.threads_max or self.idle_us < 1:
            raise ValueError(f"1 <= threads_min <= threads_max, idle_us above 0: {self}")


@dataclass(frozen=True, slots=True)
class ThreadSample:
    """The pool at one moment; `completed` counts calls since any fixed time.

    `cpu_share` is of the processor time that the process may use, None where it is not known.
    """

    borrowed: int
    waiting: int
    completed: int
    cpu_share: float | None = None


@dataclass(frozen=True, slots=True)
class Sizing:
    """The number of threads, and what is being looked at.

    `measured_from`: since when, and from which count, throughput is measured; `tried_from`: the
    number before a trial and the calls a second that were completed with it.
    """

    total: int
    measured_from: tuple[int, int] | None = None
    tried_from: tuple[int, float] | None = None
    idle_since_us: int | None = None
    no_trial_before_us: int = 0
    back_off_us: int = BACK_OFF_US


def after(state: Sizing, sample: ThreadSample, *, now_us: int, bounds: SizeBounds) -> Sizing:
    """The state after one more sample; its `total` is within the bounds."""
    if not bounds.threads_min <= state.total <= bounds.threads_max:
        total = min(max(state.total, bounds.threads_min), bounds.threads_max)
        return Sizing(total, back_off_us=state.back_off_us)
    if sample.waiting == 0:
        return _after_no_line(state, sample, now_us=now_us, bounds=bounds)
    if state.measured_from is None:
        return replace(state, measured_from=(now_us, sample.completed), idle_since_us=None)
    since_us, completed = state.measured_from
    passed_us = max(1, now_us - since_us)
    done = sample.completed - completed
    if passed_us < judge_us(done, passed_us=passed_us, in_progress=sample.borrowed):
        return state
    rate = done * US_PER_S / passed_us
    measured = replace(state, measured_from=(now_us, sample.completed))
    if state.tried_from is not None:
        total, rate_before = state.tried_from
        if rate < needed_rate(rate_before, before=total, now=state.total):
            return replace(
                measured,
                total=total,
                tried_from=None,
                no_trial_before_us=now_us + state.back_off_us,
                back_off_us=min(2 * state.back_off_us, BACK_OFF_US_MAX),
            )
        measured = replace(measured, tried_from=None, back_off_us=BACK_OFF_US)
    is_full = sample.cpu_share is not None and sample.cpu_share >= CPU_FULL_SHARE
    if is_full or now_us < state.no_trial_before_us or state.total >= bounds.threads_max:
        return measured
    total = min(bounds.threads_max, state.total + max(2, state.total // GROW_SHARE))
    return replace(measured, total=total, tried_from=(state.total, rate))


def judge_us(done: int, *, passed_us: int, in_progress: int) -> int:
    """How long to look before throughput is known, us: two service times, by Little's law."""
    if done <= 0:
        return JUDGE_US_MAX
    service_us = in_progress * passed_us // done
    return min(max(JUDGE_US_MIN, 2 * service_us), JUDGE_US_MAX)


def needed_rate(rate_before: float, *, before: int, now: int) -> float:
    """Calls a second from which on a trial has brought something."""
    if rate_before <= 0:
        return 1e-9  # none was completed before: any is more
    return rate_before * (1 + (now - before) / before / GAIN_SHARE)


def _after_no_line(
    state: Sizing, sample: ThreadSample, *, now_us: int, bounds: SizeBounds
) -> Sizing:
    if state.measured_from is not None or state.tried_from is not None:
        # A trial after which nobody waits any more was a good one, or is no longer needed.
        state = replace(state, measured_from=None, tried_from=None)
    if sample.borrowed * 2 > state.total or state.total <= bounds.threads_min:
        return state if state.idle_since_us is None else replace(state, idle_since_us=None)
    if state.idle_since_us is None:
        return replace(state, idle_since_us=now_us)
    if now_us - state.idle_since_us < bounds.idle_us:
        return state
    total = max(bounds.threads_min, state.total - max(1, state.total // 5))
    return replace(state, total=total, idle_since_us=now_us)
