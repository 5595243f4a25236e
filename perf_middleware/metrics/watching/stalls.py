"""Was it the loop that stood still, or everything?  The watchdog's own lateness tells.

The watchdog sleeps for short, known times.  Where it wakes late itself, something kept it from
running, and the loop may have been kept by the same thing:

    who worked most?    lock waits   cause
    the loop's thread   any          none: it held the interpreter lock, a block like another
    another thread      many         interpreter_lock: a C function elsewhere held the lock
    nobody              many         none: the loop waited in C and held the lock
    not the loop        few          not_running: stopped, suspended, or given no processor

A thread that waits for the interpreter lock wakes every switch interval to ask for it (CPython's
`take_gil`), and each time is a voluntary context switch that the kernel counts; a process that is
stopped does not wake at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from perf_middleware.metrics.watching.stacks import StackLine

StallCause: TypeAlias = Literal["not_running", "interpreter_lock"]
STALL_CAUSES: tuple[StallCause, ...] = ("not_running", "interpreter_lock")

SAID: dict[StallCause, str] = {
    "not_running": "stopped, suspended or given no processor",
    "interpreter_lock": "another thread held the interpreter lock",
}
LOCK_WAITS_SHARE = 4  # a loaded machine wakes a waiter late: a quarter of the wake-ups is enough
OTHERS_SHARE = 20  # a twentieth of the time worked is more than idle threads do


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


def cause_of(sleep: Lateness) -> StallCause | None:
    """Why the whole process did not run for `late_us`, or None where it was the loop's doing."""
    # Work done before the watchdog was due says nothing about the time after it.
    loop_us = max(0, (sleep.loop_cpu_us or 0) - sleep.waited_us)
    others_us = max(0, sleep.process_cpu_us - (sleep.loop_cpu_us or 0) - sleep.waited_us)
    if loop_us >= sleep.late_us // 2:
        return None
    if sleep.lock_waits is None:
        # Somebody worked, perhaps the loop: let the sample speak.
        return None if others_us >= sleep.late_us // 2 else "not_running"
    if sleep.lock_waits * sleep.switch_us * LOCK_WAITS_SHARE < sleep.late_us:
        return "not_running"
    # On a loaded machine who holds the lock may get a small share of a processor only.
    worked = others_us * OTHERS_SHARE >= sleep.late_us
    return "interpreter_lock" if worked and others_us > loop_us else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """One time that the whole process was held.

    `line` is what the thread that held the interpreter lock was running: None where that is not
    known, or no thread did.
    """

    lasted_s: float
    cause: StallCause
    thread: str = ""
    line: StackLine | None = None
    code: str = ""

    def sentence(self) -> str:
        """The stall in one line of a log."""
        said = (
            f"the whole process was held for {self.lasted_s:.2f} s, not by the event loop's own "
            f"code: {SAID[self.cause]}"
        )
        if self.line is None:
            return said
        code = f": `{self.code}`" if self.code else ""
        return f"{said}, thread {self.thread!r} at {self.line}{code}"


def holder_of(before_us: dict[int, int], after_us: dict[int, int], *, late_us: int) -> int | None:
    """The thread that worked most between two readings of processor time, us.

    None where even that one worked less than a thread does that holds the lock for `late_us`.
    """
    worked = {thread: us - before_us.get(thread, us) for thread, us in after_us.items()}
    most = max(worked, key=worked.__getitem__, default=None)
    return most if most is not None and worked[most] * OTHERS_SHARE >= late_us else None


def overlap_us(a: tuple[int, int], b: tuple[int, int]) -> int:
    """How long the spans `a` and `b` (start, end) were both going on."""
    return max(0, min(a[1], b[1]) - max(a[0], b[0]))
