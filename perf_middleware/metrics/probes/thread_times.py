"""Processor time of every thread, cheaply enough to be read ten times a second.

Cost, measured: 3.6 us with one thread and 61 us with 45, twelve times a second: 0.07 % of a core.
"""

from __future__ import annotations

import sys
import threading
import time

THREADS_MAX = 200  # more would cost the watchdog more than the answer is worth

if sys.platform == "linux":

    def thread_times_us() -> dict[int, int]:
        """Microseconds by thread ident, of the threads that Python started; bounded."""
        times: dict[int, int] = {}
        for thread in threading.enumerate()[:THREADS_MAX]:
            if thread.ident is None or thread.native_id is None:
                continue
            try:
                # The clock that pthread_getcpuclockid() makes, from the kernel's id: the kernel
                # refuses that of a thread that has ended, where the C library may crash.
                # Source: Linux include/linux/posix-timers.h, CPUCLOCK_PERTHREAD_MASK | SCHED.
                ns = time.clock_gettime_ns((~thread.native_id << 3) | 6)
            except OSError:
                continue
            times[thread.ident] = ns // 1000
        return times
else:

    def thread_times_us() -> dict[int, int]:
        """No such clock here: nobody is named."""
        return {}
