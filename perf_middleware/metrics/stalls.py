"""Was it the loop that stood still, or everything?  The watchdog's own lateness tells.

The watchdog sleeps for short, known times.  Where it wakes late itself, something kept it from
running, and the loop may have been kept by the same thing:

    who worked meanwhile?     lock waits   cause
    the loop's thread         many         none: it held the interpreter lock, a block like another
    another thread            many         interpreter_lock: a C function elsewhere held the lock
    nobody                    many         none: the loop waited in C and held the lock
    nobody, or no one of us   few          not_running: stopped, suspended, or given no processor

A thread that waits for the interpreter lock wakes every switch interval to ask for it (CPython's
`take_gil`), and each time is a voluntary context switch that the kernel counts; a process that is
stopped does not wake at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

StallCause: TypeAlias = Literal["not_running", "interpreter_lock"]
STALL_CAUSES: tuple[StallCause, ...] = ("not_running", "interpreter_lock")

LOCK_WAITS_SHARE = 4  # a loaded machine wakes a waiter late: a quarter of the wake-ups is enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """How the watchdog slept: it asked for `waited_us` and woke `late_us` after that.

    The processor times and the lock waits cover the whole sleep; None where the platform has no
    such count.
    """

    waited_us: int
    late_us: int
    process_cpu_us: int
    loop_cpu_us: int | None
    lock_waits: int | None
    switch_us: int


def cause_of(sleep: Lateness, *, least_us: int) -> StallCause | None:
    """Why the whole process did not run for `late_us`, or None where it did.

    Less than `least_us` is a machine's ordinary jitter.
    """
    if sleep.late_us < least_us:
        return None
    half_us = sleep.late_us // 2
    # Work done before the watchdog was due says nothing about the time after it.
    if sleep.loop_cpu_us is not None and sleep.loop_cpu_us - sleep.waited_us >= half_us:
        return None
    others_us = sleep.process_cpu_us - (sleep.loop_cpu_us or 0) - sleep.waited_us
    if sleep.lock_waits is None:
        if others_us < half_us:
            return "not_running"
        # Without the loop's own time the work may have been the loop's: let the sample speak.
        return None if sleep.loop_cpu_us is None else "interpreter_lock"
    if sleep.lock_waits * sleep.switch_us * LOCK_WAITS_SHARE < sleep.late_us:
        return "not_running"
    return "interpreter_lock" if others_us >= half_us else None


def overlap_us(a: tuple[int, int], b: tuple[int, int]) -> int:
    """How long the spans `a` and `b` (start, end) were both going on."""
    return max(0, min(a[1], b[1]) - max(a[0], b[0]))
