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
    from perf_middleware.errors import (
        ConfigurationError,
        DeadlineExceededError,
        MetricUseError,
        PerfMiddlewareError,
        RequestRejectedError,
        ResourceStartError,
        SettingsError,
        StoreRefusedError,
        StoreUnavailableError,
        UnkeyableArgumentError,
        UnpackableValueError,
    )
    from perf_middleware.events import OverloadChanged, ResourceChanged, SheddingChanged
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
    from perf_middleware.metrics.middleware import MetricsMiddleware
    from perf_middleware.metrics.settings import MetricsSettings, RuntimeSettings
    from perf_middleware.metrics.watching.blocks import LoopBlock
    from perf_middleware.perf import Perf
    from perf_middleware.resource import Background, Resource
    from perf_middleware.serialisation.responses import OrjsonResponse, StreamingJSONResponse
    from perf_middleware.settings import LifespanSettings, Settings

__all__ = [
    "Background",
    "BackpressureMiddleware",
    "BackpressureSettings",
    "CacheRule",
    "CacheSettings",
    "CallersSettings",
    "Compression",
    "CompressionMiddleware",
    "CompressionRule",
    "CompressionSettings",
    "ConfigurationError",
    "DashboardSettings",
    "DeadlineExceededError",
    "DeadlineMiddleware",
    "DeadlineRule",
    "DeadlineSettings",
    "LifespanSettings",
    "Limits",
    "LoopBlock",
    "MemoSettings",
    "MetricUseError",
    "MetricsMiddleware",
    "MetricsSettings",
    "OrjsonResponse",
    "OverloadChanged",
    "OverloadSettings",
    "Perf",
    "PerfMiddlewareError",
    "ProbeLane",
    "QuotaSetting",
    "RateLimitMiddleware",
    "RateLimitSettings",
    "RateRule",
    "RedisSettings",
    "RequestDeadline",
    "RequestDecodingMiddleware",
    "RequestLimitsMiddleware",
    "RequestRejectedError",
    "Resource",
    "ResourceChanged",
    "ResourceStartError",
    "ResponseCache",
    "ResponseCacheMiddleware",
    "RuntimeSettings",
    "Settings",
    "SettingsError",
    "SheddingChanged",
    "StoreRefusedError",
    "StoreUnavailableError",
    "StreamingJSONResponse",
    "ThreadSettings",
    "UndecodableBodyError",
    "UnkeyableArgumentError",
    "UnpackableValueError",
    "ValueCache",
    "__version__",
    "body_limit",
    "cache_response",
    "criticality",
    "current_deadline",
    "hide_length",
    "install",
    "no_compression",
    "rate_limit",
    "timeout",
]

_HOME_OF = {
    "Background": "perf_middleware.resource",
    "BackpressureMiddleware": "perf_middleware.limits.concurrency.middleware",
    "BackpressureSettings": "perf_middleware.limits.concurrency.settings",
    "CacheRule": "perf_middleware.caching.settings",
    "CacheSettings": "perf_middleware.caching.settings",
    "CallersSettings": "perf_middleware.limits.settings",
    "Compression": "perf_middleware.compression.runtime",
    "CompressionMiddleware": "perf_middleware.compression.middleware.responses",
    "CompressionRule": "perf_middleware.compression.settings",
    "CompressionSettings": "perf_middleware.compression.settings",
    "ConfigurationError": "perf_middleware.errors",
    "DashboardSettings": "perf_middleware.dashboard.settings",
    "DeadlineExceededError": "perf_middleware.errors",
    "DeadlineMiddleware": "perf_middleware.limits.deadlines.middleware.timeouts",
    "DeadlineRule": "perf_middleware.limits.deadlines.settings",
    "DeadlineSettings": "perf_middleware.limits.deadlines.settings",
    "LifespanSettings": "perf_middleware.settings",
    "Limits": "perf_middleware.limits.runtime",
    "LoopBlock": "perf_middleware.metrics.watching.blocks",
    "MemoSettings": "perf_middleware.caching.values.settings",
    "MetricUseError": "perf_middleware.errors",
    "MetricsMiddleware": "perf_middleware.metrics.middleware",
    "MetricsSettings": "perf_middleware.metrics.settings",
    "OrjsonResponse": "perf_middleware.serialisation.responses",
    "OverloadChanged": "perf_middleware.events",
    "OverloadSettings": "perf_middleware.limits.overload.settings",
    "Perf": "perf_middleware.perf",
    "PerfMiddlewareError": "perf_middleware.errors",
    "ProbeLane": "perf_middleware.limits.threads.middleware",
    "QuotaSetting": "perf_middleware.limits.rate.settings",
    "RateLimitMiddleware": "perf_middleware.limits.rate.middleware",
    "RateLimitSettings": "perf_middleware.limits.rate.settings",
    "RateRule": "perf_middleware.limits.rate.settings",
    "RedisSettings": "perf_middleware.fleet.settings",
    "RequestDeadline": "perf_middleware.limits.deadlines.runtime",
    "RequestDecodingMiddleware": "perf_middleware.compression.middleware.requests",
    "RequestLimitsMiddleware": "perf_middleware.limits.deadlines.middleware.bodies",
    "RequestRejectedError": "perf_middleware.errors",
    "Resource": "perf_middleware.resource",
    "ResourceChanged": "perf_middleware.events",
    "ResourceStartError": "perf_middleware.errors",
    "ResponseCache": "perf_middleware.caching.runtime",
    "ResponseCacheMiddleware": "perf_middleware.caching.middleware",
    "RuntimeSettings": "perf_middleware.metrics.settings",
    "Settings": "perf_middleware.settings",
    "SettingsError": "perf_middleware.errors",
    "SheddingChanged": "perf_middleware.events",
    "StoreRefusedError": "perf_middleware.errors",
    "StoreUnavailableError": "perf_middleware.errors",
    "StreamingJSONResponse": "perf_middleware.serialisation.responses",
    "ThreadSettings": "perf_middleware.limits.threads.settings",
    "UndecodableBodyError": "perf_middleware.compression.middleware.requests",
    "UnkeyableArgumentError": "perf_middleware.errors",
    "UnpackableValueError": "perf_middleware.errors",
    "ValueCache": "perf_middleware.caching.values.runtime",
    "body_limit": "perf_middleware.limits.deadlines.decorators",
    "cache_response": "perf_middleware.caching.decorators",
    "criticality": "perf_middleware.limits.concurrency.decorators",
    "current_deadline": "perf_middleware.limits.deadlines.runtime",
    "hide_length": "perf_middleware.compression.decorators",
    "no_compression": "perf_middleware.compression.decorators",
    "rate_limit": "perf_middleware.limits.rate.decorators",
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
