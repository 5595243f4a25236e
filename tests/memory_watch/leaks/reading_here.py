"""The watch of a child process of these tests, which serves nobody."""

import threading
import time

from perf_middleware.memory_watch.probes.memory import MemoryProbe
from perf_middleware.memory_watch.tracing.runtime import AllocationTracer

trace = AllocationTracer().trace


def watch_from_now(watch, requests) -> None:
    """Let `watch` observe this process once a second, on a thread of its own."""
    probe = MemoryProbe(requests=requests)

    def run() -> None:
        while True:
            watch.observe(probe.witness())
            time.sleep(1)

    threading.Thread(target=run, daemon=True).start()
