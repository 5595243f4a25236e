"""What others put around an app, each as its own documentation shows it, at its defaults.

What they do differs: prometheus-fastapi-instrumentator and starlette_exporter count and time into
prometheus_client, OpenTelemetry makes three spans of each request and four histograms.  The stack
that is put together by hand does what the layers of `install` do, as far as others offer it:

    prometheus-fastapi-instrumentator -> slowapi -> starlette GZipMiddleware -> FastAPI,
    and @cache of fastapi-cache2 on an endpoint whose answers may be stored
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.middleware.gzip import GZipMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastapi import FastAPI

INSTRUMENTATOR: Final = "prometheus-fastapi-instrumentator"
ASSEMBLED: Final = "instrumentator + slowapi + GZip + fastapi-cache2"
LIMIT: Final = "1000000/minute"  # nobody is refused


class StackPeer(NamedTuple):
    """One row; `modules` are what must be there to import, `wrap` puts it around an app."""

    name: str
    distributions: tuple[str, ...]
    modules: tuple[str, ...]
    wrap: Callable[[FastAPI], None]

    @property
    def installed(self) -> bool:
        return all(map(_is_there, self.modules))

    @property
    def label(self) -> str:
        """Its name, and of a single library the version that is measured."""
        if len(self.distributions) > 1:
            return self.name
        return f"{self.distributions[0]} {version(self.distributions[0])}{self.name}"


def _is_there(module: str) -> bool:
    return find_spec(module.partition(".")[0]) is not None and find_spec(module) is not None


def instrumentator(app: FastAPI) -> None:
    """Only the registry is its own: in a shared one the second app of a process counts nothing."""
    Instrumentator(registry=CollectorRegistry()).instrument(app)


def starlette_exporter(app: FastAPI) -> None:
    from starlette_exporter import PrometheusMiddleware, handle_metrics

    app.add_middleware(PrometheusMiddleware)
    app.add_route("/metrics", handle_metrics)


def opentelemetry(app: FastAPI) -> None:
    """Every request is sampled, as by default; what ends is given to an exporter that drops it.

    Each span by itself: a batch would leave by a thread, while another row is timed.
    """
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Drops(SpanExporter):  # type: ignore[misc]  # Any where it is not installed
        def export(self, spans: Sequence[Any]) -> Any:
            return SpanExportResult.SUCCESS

    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(Drops()))
    _opentelemetry(app, tracing)


def opentelemetry_without_traces(app: FastAPI) -> None:
    """Metrics alone."""
    from opentelemetry.trace import NoOpTracerProvider

    _opentelemetry(app, NoOpTracerProvider())


def _opentelemetry(app: FastAPI, tracing: Any) -> None:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    metering = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=tracing, meter_provider=metering)


def assembled(app: FastAPI) -> None:
    """All but the cache, which is a decorator; of slowapi's two middlewares the faster one."""
    from slowapi import Limiter
    from slowapi.middleware import SlowAPIASGIMiddleware
    from slowapi.util import get_remote_address

    app.state.limiter = Limiter(
        key_func=get_remote_address, default_limits=[LIMIT], headers_enabled=True
    )
    app.add_middleware(GZipMiddleware)
    app.add_middleware(SlowAPIASGIMiddleware)
    instrumentator(app)


_OTEL: Final = ("opentelemetry-instrumentation-asgi",)
_OTEL_MODULES: Final = ("opentelemetry.sdk", "opentelemetry.instrumentation.asgi")
STACK: Final = StackPeer(
    ASSEMBLED, ("slowapi", "fastapi-cache2"), ("slowapi", "fastapi_cache"), assembled
)
PEERS: Final = (
    StackPeer("", ("starlette-exporter",), ("starlette_exporter",), starlette_exporter),
    StackPeer(", metrics alone", _OTEL, _OTEL_MODULES, opentelemetry_without_traces),
    StackPeer(", metrics and traces", _OTEL, _OTEL_MODULES, opentelemetry),
    STACK,
)


def installed(peers: Sequence[StackPeer] = PEERS) -> list[StackPeer]:
    """Those that can be measured here; the instrumentator always is: shares are of it."""
    return [peer for peer in peers if peer.installed]
