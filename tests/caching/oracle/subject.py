"""The cache that the fuzz runs and the tests of many users try."""

from typing import Any

from perf_middleware.caching.middleware import ResponseCacheMiddleware


def make_cache(app: Any, clock: Any, wall_s: Any) -> Any:
    """`app` behind the response cache with default settings, on the driver's clocks."""
    return ResponseCacheMiddleware(app, clock=clock, wall_s=wall_s)
