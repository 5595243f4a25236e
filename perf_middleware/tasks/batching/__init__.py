"""Single look-ups of the same moment, asked in one call."""

from __future__ import annotations

from perf_middleware.tasks.batching.decorators import Batched, BatchedMethod, batched
from perf_middleware.tasks.batching.figures import BatchReading, batching_families
from perf_middleware.tasks.batching.middleware import BatchScopeMiddleware
from perf_middleware.tasks.batching.runtime.scopes import batch_scope
from perf_middleware.tasks.failures import Failed

__all__ = [
    "BatchReading",
    "BatchScopeMiddleware",
    "Batched",
    "BatchedMethod",
    "Failed",
    "batch_scope",
    "batched",
    "batching_families",
]
