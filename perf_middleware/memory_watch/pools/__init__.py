"""Objects that are dear to make, kept and lent: a bounded pool for threads, one for async code."""

from __future__ import annotations

from perf_middleware.memory_watch.pools.figures import PoolReading, pool_families
from perf_middleware.memory_watch.pools.runtime.async_pool import AsyncObjectPool
from perf_middleware.memory_watch.pools.runtime.sync_pool import ObjectPool

__all__ = ["AsyncObjectPool", "ObjectPool", "PoolReading", "pool_families"]
