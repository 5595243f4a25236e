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
        MetricUseError,
        PerfMiddlewareError,
        ResourceStartError,
        SettingsError,
        StoreRefusedError,
        StoreUnavailableError,
        UnkeyableArgumentError,
        UnpackableValueError,
    )
    from perf_middleware.events import ResourceChanged
    from perf_middleware.fleet.settings import RedisSettings
    from perf_middleware.metrics.middleware import MetricsMiddleware
    from perf_middleware.metrics.settings import MetricsSettings, RuntimeSettings
    from perf_middleware.metrics.watching.blocks import LoopBlock
    from perf_middleware.perf import Perf
    from perf_middleware.resource import Background, Resource
    from perf_middleware.serialisation.responses import OrjsonResponse, StreamingJSONResponse
    from perf_middleware.settings import LifespanSettings, Settings

__all__ = [
    "Background",
    "CacheRule",
    "CacheSettings",
    "Compression",
    "CompressionMiddleware",
    "CompressionRule",
    "CompressionSettings",
    "ConfigurationError",
    "DashboardSettings",
    "LifespanSettings",
    "LoopBlock",
    "MemoSettings",
    "MetricUseError",
    "MetricsMiddleware",
    "MetricsSettings",
    "OrjsonResponse",
    "Perf",
    "PerfMiddlewareError",
    "RedisSettings",
    "RequestDecodingMiddleware",
    "Resource",
    "ResourceChanged",
    "ResourceStartError",
    "ResponseCache",
    "ResponseCacheMiddleware",
    "RuntimeSettings",
    "Settings",
    "SettingsError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "StreamingJSONResponse",
    "UndecodableBodyError",
    "UnkeyableArgumentError",
    "UnpackableValueError",
    "ValueCache",
    "__version__",
    "cache_response",
    "hide_length",
    "install",
    "no_compression",
]

_HOME_OF = {
    "Background": "perf_middleware.resource",
    "CacheRule": "perf_middleware.caching.settings",
    "CacheSettings": "perf_middleware.caching.settings",
    "Compression": "perf_middleware.compression.runtime",
    "CompressionMiddleware": "perf_middleware.compression.middleware.responses",
    "CompressionRule": "perf_middleware.compression.settings",
    "CompressionSettings": "perf_middleware.compression.settings",
    "ConfigurationError": "perf_middleware.errors",
    "DashboardSettings": "perf_middleware.dashboard.settings",
    "LifespanSettings": "perf_middleware.settings",
    "LoopBlock": "perf_middleware.metrics.watching.blocks",
    "MemoSettings": "perf_middleware.caching.values.settings",
    "MetricUseError": "perf_middleware.errors",
    "MetricsMiddleware": "perf_middleware.metrics.middleware",
    "MetricsSettings": "perf_middleware.metrics.settings",
    "OrjsonResponse": "perf_middleware.serialisation.responses",
    "Perf": "perf_middleware.perf",
    "PerfMiddlewareError": "perf_middleware.errors",
    "RequestDecodingMiddleware": "perf_middleware.compression.middleware.requests",
    "Resource": "perf_middleware.resource",
    "ResourceChanged": "perf_middleware.events",
    "ResourceStartError": "perf_middleware.errors",
    "ResponseCache": "perf_middleware.caching.runtime",
    "ResponseCacheMiddleware": "perf_middleware.caching.middleware",
    "RedisSettings": "perf_middleware.fleet.settings",
    "RuntimeSettings": "perf_middleware.metrics.settings",
    "Settings": "perf_middleware.settings",
    "SettingsError": "perf_middleware.errors",
    "StoreRefusedError": "perf_middleware.errors",
    "StoreUnavailableError": "perf_middleware.errors",
    "StreamingJSONResponse": "perf_middleware.serialisation.responses",
    "UndecodableBodyError": "perf_middleware.compression.middleware.requests",
    "UnkeyableArgumentError": "perf_middleware.errors",
    "UnpackableValueError": "perf_middleware.errors",
    "ValueCache": "perf_middleware.caching.values.runtime",
    "cache_response": "perf_middleware.caching.decorators",
    "hide_length": "perf_middleware.compression.decorators",
    "no_compression": "perf_middleware.compression.decorators",
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
