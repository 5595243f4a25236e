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
    from perf_middleware.errors import ConfigurationError, PerfMiddlewareError
    from perf_middleware.metrics.middleware import MetricsMiddleware
    from perf_middleware.perf import Perf
    from perf_middleware.settings import Settings

__all__ = [
    "ConfigurationError",
    "MetricsMiddleware",
    "Perf",
    "PerfMiddlewareError",
    "Settings",
    "__version__",
    "install",
]

_HOME_OF = {
    "ConfigurationError": "perf_middleware.errors",
    "MetricsMiddleware": "perf_middleware.metrics.middleware",
    "Perf": "perf_middleware.perf",
    "PerfMiddlewareError": "perf_middleware.errors",
    "Settings": "perf_middleware.settings",
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
