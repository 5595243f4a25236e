"""How busy the event loop's thread is: its share of a processor, or how late the loop turns.

Two sides of one thing: a loop that works all the time has a share near 1; one that other processes
or a quota keep from running has a small share and wakes late.
Cost: two clock readings, measured at 0.6 us; ask a few times a second, on the loop.
"""

from __future__ import annotations

from time import monotonic_ns, thread_time_ns
from typing import TYPE_CHECKING, Final

from perf_middleware.metrics.probes.process import cpu_quota

if TYPE_CHECKING:
    from collections.abc import Callable

LAG_FULL_S: Final = 0.25  # a loop that turns so late is as good as stuck
READ_EVERY_NS: Final = 100_000_000  # shorter spans are noise: thread clocks may tick in 10 ms


class LoopBusyness:
    """The share of its processor that the calling thread has used since it last asked.

    `lag_s` tells by how much the event loop's newest turn was late.
    """

    def __init__(
        self,
        *,
        lag_s: Callable[[], float] | None = None,
        thread_ns: Callable[[], int] = thread_time_ns,
        wall_ns: Callable[[], int] = monotonic_ns,
        usable_cpus: Callable[[], float | None] = cpu_quota,
    ) -> None:
        self._lag_s = lag_s
        self._thread_ns = thread_ns
        self._wall_ns = wall_ns
        self._usable_cpus = usable_cpus
        self._one_cpu: float | None = None
        self._asked_ns: int | None = None
        self._used_ns = 0
        self._share = 0.0

    def read(self) -> float:
        """From 0, idle, to 1, as busy as it can be; 0 when it is asked for the first time."""
        now_ns, used_ns = self._wall_ns(), self._thread_ns()
        if self._asked_ns is None or used_ns < self._used_ns:  # another thread asks: a new loop
            self._share = 0.0
            self._asked_ns, self._used_ns = now_ns, used_ns
        elif now_ns - self._asked_ns >= READ_EVERY_NS:
            if self._one_cpu is None:
                self._one_cpu = min(1.0, self._usable_cpus() or 1.0)
            spent = (used_ns - self._used_ns) / (now_ns - self._asked_ns)
            self._share = min(1.0, spent / self._one_cpu)
            self._asked_ns, self._used_ns = now_ns, used_ns
        lag = 0.0 if self._lag_s is None else self._lag_s() / LAG_FULL_S
        return max(self._share, min(1.0, lag))
