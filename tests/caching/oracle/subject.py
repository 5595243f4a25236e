"""The cache that the fuzz runs and the tests of many users try."""

from random import Random
from typing import Any

from perf_middleware.caching.middleware import ResponseCacheMiddleware
from perf_middleware.caching.runtime import ResponseCache


def make_cache(app: Any, clock: Any, wall_s: Any) -> Any:
    """`app` behind the response cache with default settings, on the driver's clocks."""
    # Drawn from a seed: which hit refreshes early is the same at every run.
    return ResponseCacheMiddleware(
        app, ResponseCache(clock=clock, wall_s=wall_s, draw=Random(7).random)
    )
