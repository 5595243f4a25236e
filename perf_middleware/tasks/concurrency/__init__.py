"""Many things at once, and never too many: tasks, bulks, worker threads, worker processes."""

from __future__ import annotations

from perf_middleware.tasks.concurrency.errors import (
    WorkerDiedError,
    WorkersBusyError,
    WorkersTimeoutError,
)
from perf_middleware.tasks.concurrency.figures import WorkersReading, worker_families
from perf_middleware.tasks.concurrency.runtime.gathering import gather_limited
from perf_middleware.tasks.concurrency.runtime.mapping import MapBatched, map_batched
from perf_middleware.tasks.concurrency.runtime.processes import WorkerProcesses, to_process
from perf_middleware.tasks.concurrency.runtime.threads import WorkerThreads, to_thread
from perf_middleware.tasks.failures import Failed

__all__ = [
    "Failed",
    "MapBatched",
    "WorkerDiedError",
    "WorkerProcesses",
    "WorkerThreads",
    "WorkersBusyError",
    "WorkersReading",
    "WorkersTimeoutError",
    "gather_limited",
    "map_batched",
    "to_process",
    "to_thread",
    "worker_families",
]
