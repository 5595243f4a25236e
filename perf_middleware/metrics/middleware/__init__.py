"""The outermost layer: times every request and counts it once, when its last byte has left.

One `Exchange` per request stands between the server and the app.  It remembers, it does not decide:
requests/templates.py names the route, requests/figures.py holds the counters.  The hot path is one
object, one context variable, three clock readings and a few additions; no lock, no string is built.
"""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.asgi import Around
from perf_middleware.errors import ConfigurationError
from perf_middleware.metrics.middleware.connection import Connection
from perf_middleware.metrics.middleware.exchange import (
    NO_SCOPE,
    STATUS_CLIENT_LEFT,
    Exchange,
    current_connection,
    current_exchange,
    exchange_of,
    follow_scope,
    name_route,
    note_part,
    reset_current,
    router_scope,
    set_current,
)
from perf_middleware.metrics.middleware.recorder import RequestRecorder
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
    from perf_middleware.families import Family

__all__ = [
    "Exchange",
    "MetricsMiddleware",
    "RequestRecorder",
    "current_connection",
    "current_exchange",
    "follow_scope",
    "name_route",
    "note_part",
    "router_scope",
]


class MetricsMiddleware(Around):
    """Measures HTTP requests and websockets by method, route template and status.

    Stands alone (`app.add_middleware(MetricsMiddleware, registry=my_registry)`): the figures then
    appear in what that prometheus_client registry exposes.  Under `install` it is the outermost
    layer and shares its recorder with `perf.metrics`.

    buckets_s: upper bounds of the exported histograms, seconds, rising.
    series_max: (method, route, status) combinations kept apart; more are counted as `other`.
    server_timing, trace_response: send these response headers.
    trace_context, exemplars: read W3C traceparent; keep sampled trace ids beside their bucket.
    slow_request_s: log requests at least this slow (None: never), at most slow_log_per_minute_max.

    Raises ConfigurationError for bounds that do not rise, and when the registry holds our names
    already.  Adds no exception to a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        registry: CollectorRegistry | None = None,
        buckets_s: Sequence[float] = DEFAULT_BUCKETS_S,
        series_max: int = 10_000,
        server_timing: bool = False,
        trace_context: bool = True,
        trace_response: bool = False,
        exemplars: bool = True,
        slow_request_s: float | None = 1.0,
        slow_log_per_minute_max: int = 60,
    ) -> None:
        self.app = app
        try:
            self.recorder = RequestRecorder(
                buckets_s=buckets_s,
                series_max=series_max,
                server_timing=server_timing,
                trace_context=trace_context,
                trace_response=trace_response,
                exemplars=exemplars,
                slow_request_s=slow_request_s,
                slow_log_per_minute_max=slow_log_per_minute_max,
            )
        except ValueError as exc:
            raise ConfigurationError(f"MetricsMiddleware: {exc}") from exc
        if registry is not None:
            from perf_middleware.metrics.drivers.prometheus import register

            register(registry, self.families)

    @classmethod
    def recording(cls, app: ASGIApp, recorder: RequestRecorder) -> MetricsMiddleware:
        """One that shares its recorder with others."""
        middleware = cls.__new__(cls)
        middleware.app = app
        middleware.recorder = recorder
        return middleware

    def families(self) -> Iterable[Family]:
        """The families of this middleware, for a scrape."""
        figures = self.recorder.figures
        for family in figures.families():
            yield figures.coarsen(family)
        yield from self.recorder.sockets.families()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        kind = scope["type"]
        if kind == "http":
            recorder = self.recorder
            figures = recorder.figures
            figures.in_progress += 1
            exchange = exchange_of(recorder, scope, receive, send)
            below = self.below
            token = set_current(exchange)
            try:
                returned = await below(scope, exchange.receive, exchange.send)
            except BaseException as exc:
                _record_raised(recorder, exchange, exc)
                raise
            else:
                if exchange.recorded is None:
                    _record_unfinished(recorder, exchange)
                return returned
            finally:
                figures.in_progress -= 1
                reset_current(token)
                # A task that the app left running may still hold the exchange; it should not hold
                # all that the framework hung on the scope.
                exchange.scope = NO_SCOPE
        elif kind == "websocket":
            return await Connection(self.recorder, scope, receive, send).run(self.below)
        else:
            return await self.below(scope, receive, send)


def _record_raised(recorder: RequestRecorder, exchange: Exchange, exc: BaseException) -> None:
    """Count a request that ended with an exception; the exception itself goes on to the server."""
    cancelled = _ended_from_outside(exc)
    cause = exc if cancelled else _cause(exchange, exc)
    gone = not cancelled and _tells_of_client(exchange, cause)
    timing = exchange.recorded
    if timing is None:
        left = gone or (exchange.left and not cancelled)
        outcome = "cancelled" if cancelled else "client left" if left else "failed"
        # Where nothing was sent the server answers 500 for an exception, and nobody for the rest.
        status = exchange.status or (STATUS_CLIENT_LEFT if cancelled or left else 500)
        timing = exchange.recorded = recorder.record(exchange, status, perf_counter_ns(), outcome)
        timing.cancelled += cancelled
        timing.disconnects += left
    if not (cancelled or gone):
        recorder.figures.count_exception(timing, type(cause).__name__)


def _record_unfinished(recorder: RequestRecorder, exchange: Exchange) -> None:
    """Count a request whose app returned without completing a response."""
    left = exchange.left
    status = exchange.status or (STATUS_CLIENT_LEFT if left else 500)
    timing = recorder.record(
        exchange, status, perf_counter_ns(), "client left" if left else "incomplete"
    )
    timing.disconnects += left
    exchange.recorded = timing


def _ended_from_outside(exc: BaseException) -> bool:
    """Whether the request was ended, by its server or with the process, and did not fail by itself.

    An app that lets the CancelledError of something else escape has failed: the server answers 500.
    """
    if isinstance(exc, asyncio.CancelledError):
        try:
            task = asyncio.current_task()
        except RuntimeError:  # raised by hand where no asyncio runs
            return False
        return task is not None and task.cancelling() > 0
    if isinstance(exc, (GeneratorExit, KeyboardInterrupt, SystemExit)):
        return True
    return not isinstance(exc, Exception) and type(exc).__module__.startswith("trio")


def _cause(exchange: Exchange, exc: BaseException) -> BaseException:
    """`exc`, or the app's own error in it: a streaming response makes every OSError a disconnect.

    Source: starlette.responses.StreamingResponse, for servers of ASGI 2.4 and above.
    """
    from starlette.requests import ClientDisconnect

    origin = exc.__context__
    if isinstance(exc, ClientDisconnect) and isinstance(origin, OSError) and not exchange.left:
        return origin
    return exc


def _tells_of_client(exchange: Exchange, exc: BaseException) -> bool:
    """Whether `exc` says that the client is gone, and nothing about the app."""
    from starlette.requests import ClientDisconnect

    # OSError is also what a database or a file raises: only that of the server's send counts.
    return isinstance(exc, ClientDisconnect) or (
        isinstance(exc, OSError) and exchange.raised_in_send(exc)
    )
