"""perf_middleware: one `install(app, settings)` makes an ASGI app fast, protected and observable.

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Not lazy: a submodule has the same name, and importing that must not take the function's place.
from perf_middleware.install import install
from perf_middleware.public_names import HOME_OF

if TYPE_CHECKING:
    from perf_middleware.caching.decorators import cache_response
    from perf_middleware.caching.middleware import ResponseCacheMiddleware
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.settings import CacheRule, CacheSettings
    from perf_middleware.caching.values.runtime import ValueCache
    from perf_middleware.caching.values.settings import MemoSettings
    from perf_middleware.compression.decorators import hide_length, no_compression
    from perf_middleware.compression.middleware.requests import (
        RequestDecodingMiddleware,
        UndecodableBodyError,
    )
    from perf_middleware.compression.middleware.responses import CompressionMiddleware
    from perf_middleware.compression.runtime import Compression
    from perf_middleware.compression.settings import CompressionRule, CompressionSettings
    from perf_middleware.dashboard.settings import DashboardSettings
    from perf_middleware.database.outside.settings import OutsideSettings
    from perf_middleware.database.retry.settings import RetrySettings
    from perf_middleware.database.settings import DatabaseSettings
    from perf_middleware.database.statements import StatementSettings, allow_repeats
    from perf_middleware.errors import (
        CommitOutcomeUnknownError,
        ConfigurationError,
        DatabaseBusyError,
        DatabaseUnavailableError,
        DeadlineExceededError,
        MetricUseError,
        OutsideWritesError,
        PerfMiddlewareError,
        PoolClosedError,
        PoolLineFullError,
        PoolTimeoutError,
        RequestRejectedError,
        ResourceStartError,
        SettingsError,
        StoreRefusedError,
        StoreUnavailableError,
        TracingBusyError,
        UnannouncedWriteError,
        UncacheableQueryError,
        UnkeyableArgumentError,
        UnpackableValueError,
    )
    from perf_middleware.events import (
        MemoryCleaned,
        MemoryStepChanged,
        MemoryVerdict,
        OverloadChanged,
        RepeatedStatements,
        ResourceChanged,
        RetryBudgetChanged,
        SheddingChanged,
        WorkerFinishing,
    )
    from perf_middleware.fleet.settings import RedisSettings
    from perf_middleware.limits.concurrency.decorators import criticality
    from perf_middleware.limits.concurrency.middleware import BackpressureMiddleware
    from perf_middleware.limits.concurrency.settings import BackpressureSettings
    from perf_middleware.limits.deadlines.decorators import body_limit, timeout
    from perf_middleware.limits.deadlines.middleware.bodies import RequestLimitsMiddleware
    from perf_middleware.limits.deadlines.middleware.timeouts import DeadlineMiddleware
    from perf_middleware.limits.deadlines.runtime import RequestDeadline, current_deadline
    from perf_middleware.limits.deadlines.settings import DeadlineRule, DeadlineSettings
    from perf_middleware.limits.overload.settings import OverloadSettings
    from perf_middleware.limits.rate.decorators import rate_limit
    from perf_middleware.limits.rate.middleware import RateLimitMiddleware
    from perf_middleware.limits.rate.settings import QuotaSetting, RateLimitSettings, RateRule
    from perf_middleware.limits.runtime import Limits
    from perf_middleware.limits.settings import CallersSettings
    from perf_middleware.limits.threads.middleware import ProbeLane
    from perf_middleware.limits.threads.settings import ThreadSettings
    from perf_middleware.memory_watch.cleanup import Pressure
    from perf_middleware.memory_watch.collector.runtime import GarbageCollection
    from perf_middleware.memory_watch.collector.settings import GcSettings
    from perf_middleware.memory_watch.functions.decorators import FunctionMemory
    from perf_middleware.memory_watch.leaks.settings import LeakSettings
    from perf_middleware.memory_watch.memory import Memory
    from perf_middleware.memory_watch.middleware import MemoryWatchMiddleware
    from perf_middleware.memory_watch.on_demand.runtime import MemoryInspection
    from perf_middleware.memory_watch.pools import AsyncObjectPool, ObjectPool, pool_families
    from perf_middleware.memory_watch.reading import MemoryReading
    from perf_middleware.memory_watch.settings import MemorySettings
    from perf_middleware.memory_watch.structures import (
        AsyncLazyValue,
        ChunkedList,
        CompressedJSONStore,
        LazyValue,
        LRUCache,
        StoreFullError,
        WeakCache,
        structure_families,
    )
    from perf_middleware.memory_watch.tracing.runtime import AllocationTracer
    from perf_middleware.memory_watch.tracing.sites import TraceReport
    from perf_middleware.metrics.middleware import MetricsMiddleware
    from perf_middleware.metrics.settings import MetricsSettings, RuntimeSettings
    from perf_middleware.metrics.watching.blocks import LoopBlock
    from perf_middleware.perf import Perf
    from perf_middleware.resource import Background, Resource
    from perf_middleware.serialisation.responses import OrjsonResponse, StreamingJSONResponse
    from perf_middleware.settings import LifespanSettings, Settings
    from perf_middleware.task_errors import (
        JobCancelledError,
        JobUnfinishedError,
        JournalFullError,
        JournalUnavailableError,
        QueueClosedError,
        QueueFullError,
        TaskArgumentsError,
        TaskTimeoutError,
    )
    from perf_middleware.tasks.background.responses import BackgroundTasks, background_tasks
    from perf_middleware.tasks.batching import (
        BatchCancelledError,
        BatchLineFullError,
        BatchResultError,
        BatchScopeMiddleware,
        BatchTimeoutError,
        MissingResultError,
        batch_scope,
        batched,
    )
    from perf_middleware.tasks.concurrency import (
        WorkerDiedError,
        WorkerProcesses,
        WorkersBusyError,
        WorkersTimeoutError,
        WorkerThreads,
        gather_limited,
        map_batched,
        to_process,
        to_thread,
    )
    from perf_middleware.tasks.failures import Failed
    from perf_middleware.tasks.queue.options import QueueLimits
    from perf_middleware.tasks.queue.runtime import TaskQueue
    from perf_middleware.tasks.queue.runtime.job import Job
    from perf_middleware.tasks.runtime import Tasks
    from perf_middleware.tasks.settings import TaskSettings
    from perf_middleware.tasks.watched import Watched

__all__ = [
    "AllocationTracer",
    "AsyncLazyValue",
    "AsyncObjectPool",
    "Background",
    "BackgroundTasks",
    "BackpressureMiddleware",
    "BackpressureSettings",
    "BatchCancelledError",
    "BatchLineFullError",
    "BatchResultError",
    "BatchScopeMiddleware",
    "BatchTimeoutError",
    "CacheRule",
    "CacheSettings",
    "CallersSettings",
    "ChunkedList",
    "CommitOutcomeUnknownError",
    "CompressedJSONStore",
    "Compression",
    "CompressionMiddleware",
    "CompressionRule",
    "CompressionSettings",
    "ConfigurationError",
    "DashboardSettings",
    "DatabaseBusyError",
    "DatabaseSettings",
    "DatabaseUnavailableError",
    "DeadlineExceededError",
    "DeadlineMiddleware",
    "DeadlineRule",
    "DeadlineSettings",
    "Failed",
    "FunctionMemory",
    "GarbageCollection",
    "GcSettings",
    "Job",
    "JobCancelledError",
    "JobUnfinishedError",
    "JournalFullError",
    "JournalUnavailableError",
    "LRUCache",
    "LazyValue",
    "LeakSettings",
    "LifespanSettings",
    "Limits",
    "LoopBlock",
    "MemoSettings",
    "Memory",
    "MemoryCleaned",
    "MemoryInspection",
    "MemoryReading",
    "MemorySettings",
    "MemoryStepChanged",
    "MemoryVerdict",
    "MemoryWatchMiddleware",
    "MetricUseError",
    "MetricsMiddleware",
    "MetricsSettings",
    "MissingResultError",
    "ObjectPool",
    "OrjsonResponse",
    "OutsideSettings",
    "OutsideWritesError",
    "OverloadChanged",
    "OverloadSettings",
    "Perf",
    "PerfMiddlewareError",
    "PoolClosedError",
    "PoolLineFullError",
    "PoolTimeoutError",
    "Pressure",
    "ProbeLane",
    "QueueClosedError",
    "QueueFullError",
    "QueueLimits",
    "QuotaSetting",
    "RateLimitMiddleware",
    "RateLimitSettings",
    "RateRule",
    "RedisSettings",
    "RepeatedStatements",
    "RequestDeadline",
    "RequestDecodingMiddleware",
    "RequestLimitsMiddleware",
    "RequestRejectedError",
    "Resource",
    "ResourceChanged",
    "ResourceStartError",
    "ResponseCache",
    "ResponseCacheMiddleware",
    "RetryBudgetChanged",
    "RetrySettings",
    "RuntimeSettings",
    "Settings",
    "SettingsError",
    "SheddingChanged",
    "StatementSettings",
    "StoreFullError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "StreamingJSONResponse",
    "TaskArgumentsError",
    "TaskQueue",
    "TaskSettings",
    "TaskTimeoutError",
    "Tasks",
    "ThreadSettings",
    "TraceReport",
    "TracingBusyError",
    "UnannouncedWriteError",
    "UncacheableQueryError",
    "UndecodableBodyError",
    "UnkeyableArgumentError",
    "UnpackableValueError",
    "ValueCache",
    "Watched",
    "WeakCache",
    "WorkerDiedError",
    "WorkerFinishing",
    "WorkerProcesses",
    "WorkerThreads",
    "WorkersBusyError",
    "WorkersTimeoutError",
    "__version__",
    "allow_repeats",
    "background_tasks",
    "batch_scope",
    "batched",
    "body_limit",
    "cache_response",
    "criticality",
    "current_deadline",
    "gather_limited",
    "hide_length",
    "install",
    "map_batched",
    "no_compression",
    "pool_families",
    "rate_limit",
    "structure_families",
    "timeout",
    "to_process",
    "to_thread",
]


def __getattr__(name: str) -> Any:
    home = HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
