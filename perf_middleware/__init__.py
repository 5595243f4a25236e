"""perf_middleware: one `install(app, settings)` makes an ASGI app fast, protected and observable.

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Not lazy: a submodule has the same name, and importing that must not take the function's place.
from perf_middleware.install import install

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
    from perf_middleware.tasks.queue.options import QueueLimits
    from perf_middleware.tasks.queue.runtime import TaskQueue
    from perf_middleware.tasks.queue.runtime.job import Job
    from perf_middleware.tasks.runtime import Tasks
    from perf_middleware.tasks.settings import TaskSettings

__all__ = [
    "AllocationTracer",
    "AsyncLazyValue",
    "AsyncObjectPool",
    "Background",
    "BackgroundTasks",
    "BackpressureMiddleware",
    "BackpressureSettings",
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
    "WeakCache",
    "WorkerFinishing",
    "__version__",
    "allow_repeats",
    "background_tasks",
    "body_limit",
    "cache_response",
    "criticality",
    "current_deadline",
    "hide_length",
    "install",
    "no_compression",
    "pool_families",
    "rate_limit",
    "structure_families",
    "timeout",
]

_HOME_OF = {
    "AllocationTracer": "perf_middleware.memory_watch.tracing.runtime",
    "AsyncLazyValue": "perf_middleware.memory_watch.structures",
    "AsyncObjectPool": "perf_middleware.memory_watch.pools",
    "Background": "perf_middleware.resource",
    "BackgroundTasks": "perf_middleware.tasks.background.responses",
    "BackpressureMiddleware": "perf_middleware.limits.concurrency.middleware",
    "BackpressureSettings": "perf_middleware.limits.concurrency.settings",
    "CacheRule": "perf_middleware.caching.settings",
    "CacheSettings": "perf_middleware.caching.settings",
    "CallersSettings": "perf_middleware.limits.settings",
    "ChunkedList": "perf_middleware.memory_watch.structures",
    "CommitOutcomeUnknownError": "perf_middleware.errors",
    "CompressedJSONStore": "perf_middleware.memory_watch.structures",
    "Compression": "perf_middleware.compression.runtime",
    "CompressionMiddleware": "perf_middleware.compression.middleware.responses",
    "CompressionRule": "perf_middleware.compression.settings",
    "CompressionSettings": "perf_middleware.compression.settings",
    "ConfigurationError": "perf_middleware.errors",
    "DashboardSettings": "perf_middleware.dashboard.settings",
    "DatabaseBusyError": "perf_middleware.errors",
    "DatabaseSettings": "perf_middleware.database.settings",
    "DatabaseUnavailableError": "perf_middleware.errors",
    "DeadlineExceededError": "perf_middleware.errors",
    "DeadlineMiddleware": "perf_middleware.limits.deadlines.middleware.timeouts",
    "DeadlineRule": "perf_middleware.limits.deadlines.settings",
    "DeadlineSettings": "perf_middleware.limits.deadlines.settings",
    "FunctionMemory": "perf_middleware.memory_watch.functions.decorators",
    "GarbageCollection": "perf_middleware.memory_watch.collector.runtime",
    "GcSettings": "perf_middleware.memory_watch.collector.settings",
    "Job": "perf_middleware.tasks.queue.runtime.job",
    "JobCancelledError": "perf_middleware.task_errors",
    "JobUnfinishedError": "perf_middleware.task_errors",
    "JournalFullError": "perf_middleware.task_errors",
    "JournalUnavailableError": "perf_middleware.task_errors",
    "LRUCache": "perf_middleware.memory_watch.structures",
    "LazyValue": "perf_middleware.memory_watch.structures",
    "LeakSettings": "perf_middleware.memory_watch.leaks.settings",
    "LifespanSettings": "perf_middleware.settings",
    "Limits": "perf_middleware.limits.runtime",
    "LoopBlock": "perf_middleware.metrics.watching.blocks",
    "MemoSettings": "perf_middleware.caching.values.settings",
    "Memory": "perf_middleware.memory_watch.memory",
    "MemoryCleaned": "perf_middleware.events",
    "MemoryInspection": "perf_middleware.memory_watch.on_demand.runtime",
    "MemoryReading": "perf_middleware.memory_watch.reading",
    "MemorySettings": "perf_middleware.memory_watch.settings",
    "MemoryStepChanged": "perf_middleware.events",
    "MemoryVerdict": "perf_middleware.events",
    "MemoryWatchMiddleware": "perf_middleware.memory_watch.middleware",
    "MetricUseError": "perf_middleware.errors",
    "MetricsMiddleware": "perf_middleware.metrics.middleware",
    "MetricsSettings": "perf_middleware.metrics.settings",
    "ObjectPool": "perf_middleware.memory_watch.pools",
    "OrjsonResponse": "perf_middleware.serialisation.responses",
    "OutsideSettings": "perf_middleware.database.outside.settings",
    "OutsideWritesError": "perf_middleware.errors",
    "OverloadChanged": "perf_middleware.events",
    "OverloadSettings": "perf_middleware.limits.overload.settings",
    "Perf": "perf_middleware.perf",
    "PerfMiddlewareError": "perf_middleware.errors",
    "PoolClosedError": "perf_middleware.errors",
    "PoolLineFullError": "perf_middleware.errors",
    "PoolTimeoutError": "perf_middleware.errors",
    "Pressure": "perf_middleware.memory_watch.cleanup",
    "ProbeLane": "perf_middleware.limits.threads.middleware",
    "QueueClosedError": "perf_middleware.task_errors",
    "QueueFullError": "perf_middleware.task_errors",
    "QueueLimits": "perf_middleware.tasks.queue.options",
    "QuotaSetting": "perf_middleware.limits.rate.settings",
    "RateLimitMiddleware": "perf_middleware.limits.rate.middleware",
    "RateLimitSettings": "perf_middleware.limits.rate.settings",
    "RateRule": "perf_middleware.limits.rate.settings",
    "RedisSettings": "perf_middleware.fleet.settings",
    "RepeatedStatements": "perf_middleware.events",
    "RequestDeadline": "perf_middleware.limits.deadlines.runtime",
    "RequestDecodingMiddleware": "perf_middleware.compression.middleware.requests",
    "RequestLimitsMiddleware": "perf_middleware.limits.deadlines.middleware.bodies",
    "RequestRejectedError": "perf_middleware.errors",
    "Resource": "perf_middleware.resource",
    "ResourceChanged": "perf_middleware.events",
    "ResourceStartError": "perf_middleware.errors",
    "ResponseCache": "perf_middleware.caching.runtime",
    "ResponseCacheMiddleware": "perf_middleware.caching.middleware",
    "RetryBudgetChanged": "perf_middleware.events",
    "RetrySettings": "perf_middleware.database.retry.settings",
    "RuntimeSettings": "perf_middleware.metrics.settings",
    "Settings": "perf_middleware.settings",
    "SettingsError": "perf_middleware.errors",
    "SheddingChanged": "perf_middleware.events",
    "StatementSettings": "perf_middleware.database.statements",
    "StoreFullError": "perf_middleware.memory_watch.structures",
    "StoreRefusedError": "perf_middleware.errors",
    "StoreUnavailableError": "perf_middleware.errors",
    "StreamingJSONResponse": "perf_middleware.serialisation.responses",
    "TaskArgumentsError": "perf_middleware.task_errors",
    "TaskQueue": "perf_middleware.tasks.queue.runtime",
    "TaskSettings": "perf_middleware.tasks.settings",
    "TaskTimeoutError": "perf_middleware.task_errors",
    "Tasks": "perf_middleware.tasks.runtime",
    "ThreadSettings": "perf_middleware.limits.threads.settings",
    "TraceReport": "perf_middleware.memory_watch.tracing.sites",
    "TracingBusyError": "perf_middleware.errors",
    "UnannouncedWriteError": "perf_middleware.errors",
    "UncacheableQueryError": "perf_middleware.errors",
    "UndecodableBodyError": "perf_middleware.compression.middleware.requests",
    "UnkeyableArgumentError": "perf_middleware.errors",
    "UnpackableValueError": "perf_middleware.errors",
    "ValueCache": "perf_middleware.caching.values.runtime",
    "WeakCache": "perf_middleware.memory_watch.structures",
    "WorkerFinishing": "perf_middleware.events",
    "allow_repeats": "perf_middleware.database.statements",
    "background_tasks": "perf_middleware.tasks.background.responses",
    "body_limit": "perf_middleware.limits.deadlines.decorators",
    "cache_response": "perf_middleware.caching.decorators",
    "criticality": "perf_middleware.limits.concurrency.decorators",
    "current_deadline": "perf_middleware.limits.deadlines.runtime",
    "hide_length": "perf_middleware.compression.decorators",
    "no_compression": "perf_middleware.compression.decorators",
    "pool_families": "perf_middleware.memory_watch.pools",
    "rate_limit": "perf_middleware.limits.rate.decorators",
    "structure_families": "perf_middleware.memory_watch.structures",
    "timeout": "perf_middleware.limits.deadlines.decorators",
}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
