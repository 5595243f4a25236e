"""Single look-ups of the same moment, asked in one call."""

from __future__ import annotations

from perf_middleware.tasks.batching.decorators import Batched, BatchedMethod, batched
from perf_middleware.tasks.batching.errors import (
    BatchCancelledError,
    BatchLineFullError,
    BatchResultError,
    BatchTimeoutError,
    MissingResultError,
)
from perf_middleware.tasks.batching.figures import BatchReading, batching_families
from perf_middleware.tasks.batching.middleware import BatchScopeMiddleware
from perf_middleware.tasks.batching.runtime.scopes import batch_scope
from perf_middleware.tasks.failures import Failed

__all__ = [
    "BatchCancelledError",
    "BatchLineFullError",
    "BatchReading",
    "BatchResultError",
    "BatchScopeMiddleware",
    "BatchTimeoutError",
    "Batched",
    "BatchedMethod",
    "Failed",
    "MissingResultError",
    "batch_scope",
    "batched",
    "batching_families",
]
