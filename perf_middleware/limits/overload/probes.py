"""How busy this process keeps the processors it may use, from clocks alone.

Two readings of which the larger counts: the whole process against its affinity and quota, and the
thread that asks (the event loop's) against one processor: a loop that works all the time is as
busy as it can be, however many processors lie idle beside it.
Cost: two clock readings, 0.6 us; ask on the loop.
"""

from __future__ import annotations

import os
from time import monotonic_ns, process_time_ns, thread_time_ns
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

READ_EVERY_NS: Final = 50_000_000  # shorter spans are noise: processor clocks may tick in 10 ms
QUOTA_EVERY_NS: Final = 30_000_000_000  # a container may be resized while it runs


def usable_cpus(quota: float | None) -> float:
    """Processors that this process may use: its affinity, or less where `quota` is less."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows have none
        cpus = os.cpu_count() or 1
    return float(cpus) if quota is None or quota <= 0 else min(float(cpus), quota)


class CpuShare:
    """The share of its processors that was in use since it was last asked, from 0 to 1.

    `cpu_quota` gives the processors that the control group allows, None without a limit.
    """

    def __init__(
        self,
        *,
        cpu_quota: Callable[[], float | None] | None = None,
        process_ns: Callable[[], int] = process_time_ns,
        thread_ns: Callable[[], int] = thread_time_ns,
        wall_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._cpu_quota = cpu_quota
        self._process_ns = process_ns
        self._thread_ns = thread_ns
        self._wall_ns = wall_ns
        self._asked_ns: int | None = None
        self._process_used_ns = self._thread_used_ns = 0
        self._cpus = 1.0
        self._quota_due_ns: int | None = None
        self.process: float | None = None
        self.thread: float | None = None

    def read(self) -> float | None:
        """The larger of both shares; None when it is asked for the first time."""
        self._measure()
        if self.process is None or self.thread is None:
            return None
        return max(self.process, self.thread)

    def read_process(self) -> float | None:
        """The share of the whole process alone, with all its threads."""
        self._measure()
        return self.process

    def _measure(self) -> None:
        now_ns, process_ns, thread_ns = self._wall_ns(), self._process_ns(), self._thread_ns()
        if self._quota_due_ns is None or now_ns >= self._quota_due_ns:
            self._quota_due_ns = now_ns + QUOTA_EVERY_NS
            self._cpus = usable_cpus(self._quota())
        if self._asked_ns is None or thread_ns < self._thread_used_ns:  # another thread: a new loop
            self.process = self.thread = None
        elif now_ns - self._asked_ns < READ_EVERY_NS:
            return
        else:
            passed_ns = now_ns - self._asked_ns
            used_cpus = (process_ns - self._process_used_ns) / passed_ns
            thread_cpus = (thread_ns - self._thread_used_ns) / passed_ns
            self.process = min(1.0, used_cpus / self._cpus)
            self.thread = min(1.0, thread_cpus / min(1.0, self._cpus))
        self._asked_ns = now_ns
        self._process_used_ns, self._thread_used_ns = process_ns, thread_ns

    def _quota(self) -> float | None:
        try:
            return None if self._cpu_quota is None else self._cpu_quota()
        except Exception:  # noqa: BLE001 - without a quota the affinity is the better guess
            return None
