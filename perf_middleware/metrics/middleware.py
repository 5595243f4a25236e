"""The outermost layer: times every request and counts it once, when its last byte has left.

One `Exchange` per request stands between the server and the app.  It remembers, it does not decide:
templates.py names the route, requests.py holds the counters.  The hot path is one object, one
context variable, two clock readings and a few additions; no lock, no string is built.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from contextvars import ContextVar
from random import getrandbits
from time import perf_counter_ns, time
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import EXCHANGE, find_header
from perf_middleware.metrics.families import Exemplar
from perf_middleware.metrics.requests import RequestFigures, RouteTiming
from perf_middleware.metrics.server_timing import server_timing
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S
from perf_middleware.metrics.slow_requests import SlowLog, SlowRequest
from perf_middleware.metrics.sockets import SocketFigures
from perf_middleware.metrics.templates import RouteTemplates
from perf_middleware.metrics.trace import TraceContext, take_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.metrics.families import Family

logger = logging.getLogger("perf_middleware.metrics")

STATUS_CLIENT_LEFT: Final = 499  # nginx's name for a client that left before any answer
EXEMPLAR_EVERY_NS: Final = 50_000_000  # at most 20 a second and route: enough, and off the hot path

_NO_SCOPE: Scope = {}
_current: ContextVar[Exchange | None] = ContextVar("perf_middleware.exchange", default=None)


def current_exchange() -> Exchange | None:
    """The exchange that the running code serves, or None outside a request."""
    return _current.get()


class RequestRecorder:
    """Where finished exchanges go: the counters, and what is to be done beside counting."""

    __slots__ = (
        "exemplars", "figures", "server_timing", "slow_log", "slow_request_ns", "sockets",
        "templates", "trace_context", "trace_response",
    )  # fmt: skip

    def __init__(
        self,
        *,
        buckets_s: Sequence[float] = DEFAULT_BUCKETS_S,
        series_max: int = 10_000,
        server_timing: bool = False,
        trace_context: bool = True,
        trace_response: bool = False,
        exemplars: bool = True,
        slow_request_s: float | None = 1.0,
        slow_log_per_minute_max: int = 60,
    ) -> None:
        self.figures = RequestFigures(buckets_s=buckets_s, series_max=series_max)
        self.sockets = SocketFigures()
        self.templates = RouteTemplates()
        self.server_timing = server_timing
        self.trace_context = trace_context
        self.trace_response = trace_context and trace_response
        self.exemplars = trace_context and exemplars
        # Without a threshold nothing reaches it: one comparison instead of a test for None.
        self.slow_request_ns = 1 << 62 if slow_request_s is None else round(slow_request_s * 1e9)
        self.slow_log = SlowLog(slow_log_per_minute_max)

    def record(self, exchange: Exchange, status: int, ended_ns: int, outcome: str) -> RouteTiming:
        """Count a finished request under its route."""
        figures = self.figures
        scope = exchange.scope
        route = exchange.route or self.templates.template_of(scope, exchange.root_path)
        method: str = scope["method"]
        series = figures.by_key.get((method, route, status))
        if series is None:
            series = figures.series(method, route, status)
        series.count += 1
        timing = series.timing
        duration_ns = ended_ns - exchange.started_ns
        scale = figures.scale.fine_ns
        bucket = bisect_left(scale, duration_ns)
        timing.durations[bucket] += 1
        timing.duration_sum_ns += duration_ns
        if exchange.first_byte_ns:
            first_byte_ns = exchange.first_byte_ns - exchange.started_ns
            timing.first_bytes[bisect_left(scale, first_byte_ns)] += 1
            timing.first_byte_sum_ns += first_byte_ns
        timing.response_bytes += exchange.response_bytes
        timing.request_bytes += exchange.request_bytes
        if self.exemplars and ended_ns >= timing.exemplar_due_ns:
            self._keep_exemplar(exchange, timing, bucket, duration_ns)
            timing.exemplar_due_ns = ended_ns + EXEMPLAR_EVERY_NS
        if duration_ns >= self.slow_request_ns:
            self._log_slow(exchange, route, status, ended_ns, outcome)
        return timing

    def _keep_exemplar(
        self, exchange: Exchange, timing: RouteTiming, bucket: int, duration_ns: int
    ) -> None:
        trace = exchange.incoming_trace()
        if trace is not None and trace.sampled:
            timing.exemplars[bucket] = Exemplar(trace.trace_id, duration_ns / 1e9, time())

    def _log_slow(
        self, exchange: Exchange, route: str, status: int, ended_ns: int, outcome: str
    ) -> None:
        if not self.slow_log.admits(ended_ns):
            return
        scope = exchange.scope
        trace = exchange.trace() if self.trace_context else None
        first_byte_ns = exchange.first_byte_ns
        logger.warning(
            "%s",
            SlowRequest(
                method=scope["method"],
                route=route,
                path=scope["path"],
                status=status,
                outcome=outcome,
                duration_ns=ended_ns - exchange.started_ns,
                first_byte_ns=first_byte_ns - exchange.started_ns if first_byte_ns else None,
                response_bytes=exchange.response_bytes,
                parts_ns=exchange.parts_ns,
                trace_id=trace.trace_id if trace else None,
            ).line(),
        )


class Exchange:
    """One request and its response, while they pass.

    Inner layers find it in the scope under EXCHANGE; they may set `route` (an answer given before
    any routing), `scope` and `root_path` (as the router will see them) and add to `parts_ns`.
    """

    __slots__ = (
        "_receive", "_recorder", "_send", "_trace", "first_byte_ns", "head", "headers", "left",
        "parts_ns", "recorded", "request_bytes", "response_bytes", "root_path", "route", "scope",
        "started_ns", "status",
    )  # fmt: skip

    def __init__(
        self, recorder: RequestRecorder, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._recorder = recorder
        self._receive = receive
        self._send = send
        self.scope = scope
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.root_path: str = scope.get("root_path") or ""
        self.route: str | None = None
        self.status = 0
        self.first_byte_ns = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.parts_ns: dict[str, int] | None = None
        self.recorded: RouteTiming | None = None
        self.left = False
        self._trace: TraceContext | None = None
        self.started_ns = perf_counter_ns()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.request_bytes += len(message.get("body", b""))
        elif message["type"] == "http.disconnect":
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            self.response_bytes += len(message.get("body", b""))
            await self._send(message)
            if not message.get("more_body"):
                self._completed()
        elif kind == "http.response.start":
            self.first_byte_ns = perf_counter_ns()
            self.status = message["status"]
            self.head = message
            recorder = self._recorder
            if recorder.server_timing or recorder.trace_response:
                message = self._with_headers(message)
            await self._send(message)
        else:
            await self._send(message)
            if kind == "http.response.zerocopysend":
                self.response_bytes += message.get("count") or 0
                if not message.get("more_body"):
                    self._completed()
            elif kind == "http.response.pathsend":
                self.response_bytes += self._announced_bytes()
                self._completed()

    def add_part(self, name: str, elapsed_ns: int) -> None:
        """Add to the breakdown that Server-Timing and the slow-request line show."""
        parts = self.parts_ns
        if parts is None:
            parts = self.parts_ns = {}
        parts[name] = parts.get(name, 0) + elapsed_ns

    def trace(self) -> TraceContext:
        """This request's place in its trace, one that starts here if none came in."""
        if self._trace is None:
            self._trace = take_part(self.headers, random_bits=getrandbits(192))
        return self._trace

    def incoming_trace(self) -> TraceContext | None:
        """The trace that came in with the request, or None."""
        if self._trace is None:
            for name, _ in self.headers:
                if name == b"traceparent":
                    break
            else:
                return None
        trace = self.trace()
        return trace if trace.parent_id else None

    def _announced_bytes(self) -> int:
        """Content-Length of the response: the server sends a file that never comes by here."""
        length = find_header(self.head.get("headers", ()), b"content-length")
        return int(length) if length is not None and length.isdigit() else 0

    def _with_headers(self, message: Message) -> Message:
        # A new message and a new list: the app may send the same ones again for the next request.
        headers = list(message.get("headers", ()))
        if self._recorder.server_timing:
            elapsed_ns = self.first_byte_ns - self.started_ns
            headers.append((b"server-timing", server_timing(elapsed_ns, self.parts_ns)))
        if self._recorder.trace_response:
            headers.append((b"traceresponse", self.trace().traceparent.encode()))
        return {**message, "headers": headers}

    def _completed(self) -> None:
        # Recorded here and not when the app returns: background tasks run after the response, and a
        # client that has its answer may scrape at once.
        if self.recorded is None:
            self.recorded = self._recorder.record(self, self.status, perf_counter_ns(), "answered")


class MetricsMiddleware:
    """Measures HTTP requests and websockets by method, route template and status.

    Stands alone (`app.add_middleware(MetricsMiddleware, registry=my_registry)`): the figures then
    appear in what that prometheus_client registry exposes.  Under `install` it is the outermost
    layer and shares its recorder with `perf.metrics`.

    buckets_s: upper bounds of the exported histograms, seconds, rising.
    series_max: (method, route, status) combinations kept apart; more are counted as `other`.
    server_timing, trace_response: send these response headers.
    trace_context, exemplars: read W3C traceparent; keep sampled trace ids beside their bucket.
    slow_request_s: log requests at least this slow (None: never), at most slow_log_per_minute_max.

    Raises ConfigurationError when the registry holds our names already.  Never raises in a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        registry: CollectorRegistry | None = None,
        recorder: RequestRecorder | None = None,
        **options: Any,
    ) -> None:
        self._app = app
        self.recorder = recorder or RequestRecorder(**options)
        if registry is not None:
            from perf_middleware.metrics.drivers.prometheus import register

            register(registry, self.families)

    def families(self) -> Iterable[Family]:
        """The families of this middleware, for a scrape."""
        yield from self.recorder.figures.families()
        yield from self.recorder.sockets.families()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            recorder = self.recorder
            exchange = Exchange(recorder, scope, receive, send)
            scope[EXCHANGE] = exchange
            figures = recorder.figures
            figures.in_progress += 1
            token = _current.set(exchange)
            try:
                await self._app(scope, exchange.receive, exchange.send)
                if exchange.recorded is None:
                    _record_unfinished(recorder, exchange)
            except BaseException as exc:
                _record_raised(recorder, exchange, exc)
                raise
            finally:
                figures.in_progress -= 1
                _current.reset(token)
                # The scope holds the exchange: a cycle would leave both, and all that the
                # framework hung on the scope, to the garbage collector (4 us a request).
                exchange.scope = _NO_SCOPE
        elif kind == "websocket":
            await Connection(self.recorder, scope, receive, send).run(self._app)
        else:
            await self._app(scope, receive, send)


def _record_raised(recorder: RequestRecorder, exchange: Exchange, exc: BaseException) -> None:
    """Count a request that ended with an exception; the exception itself goes on to the server."""
    timing = exchange.recorded
    cancelled = not isinstance(exc, Exception)
    left = not cancelled and (exchange.left or isinstance(exc, OSError) or _says_client_left(exc))
    if timing is None:
        outcome = "cancelled" if cancelled else "client left" if left else "failed"
        # Where nothing was sent the server answers 500 for an exception, and nobody for the rest.
        status = exchange.status or (STATUS_CLIENT_LEFT if cancelled or left else 500)
        timing = exchange.recorded = recorder.record(exchange, status, perf_counter_ns(), outcome)
        if cancelled:
            timing.cancelled += 1
            return
        if left:
            timing.disconnects += 1
            return
    if not cancelled:
        recorder.figures.count_exception(timing, type(exc).__name__)


def _record_unfinished(recorder: RequestRecorder, exchange: Exchange) -> None:
    """Count a request whose app returned without completing a response."""
    left = exchange.left
    status = exchange.status or (STATUS_CLIENT_LEFT if left else 500)
    timing = recorder.record(
        exchange, status, perf_counter_ns(), "client left" if left else "incomplete"
    )
    timing.disconnects += left
    exchange.recorded = timing


def _says_client_left(exc: BaseException) -> bool:
    from starlette.requests import ClientDisconnect

    return isinstance(exc, ClientDisconnect)


class Connection:
    """One websocket, while it is open."""

    __slots__ = (
        "_receive", "_recorder", "_send", "accepted", "code", "got", "root_path", "scope", "sent",
    )  # fmt: skip

    def __init__(
        self, recorder: RequestRecorder, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._recorder = recorder
        self._receive = receive
        self._send = send
        self.scope = scope
        self.root_path: str = scope.get("root_path") or ""
        self.accepted = False
        self.code: int | None = None
        self.got = 0
        self.sent = 0

    async def run(self, app: ASGIApp) -> None:
        sockets = self._recorder.sockets
        self.scope[EXCHANGE] = self
        started_ns = perf_counter_ns()
        sockets.open += 1
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:
            if self.code is None:
                self.code = 1011  # what a server sends for an app that failed (RFC 6455 §7.4.1)
            raise
        finally:
            sockets.open -= 1
            sockets.count(
                self._recorder.templates.template_of(self.scope, self.root_path),
                (self.code or 1000) if self.accepted else None,
                received=self.got,
                sent=self.sent,
                open_ns=perf_counter_ns() - started_ns,
            )
            self.scope = _NO_SCOPE  # no cycle with the scope, as for requests

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self.got += 1
        elif message["type"] == "websocket.disconnect" and self.code is None:
            self.code = message.get("code", 1005)
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        kind = message["type"]
        if kind == "websocket.send":
            self.sent += 1
        elif kind == "websocket.accept":
            self.accepted = True
        elif kind == "websocket.close" and self.code is None:
            self.code = message.get("code", 1000)


def note_part(category: str, elapsed_ns: int) -> None:
    """Add a timed block to the breakdown of the request that it ran in, if it ran in one."""
    exchange = _current.get()
    if exchange is not None:
        exchange.add_part(category, elapsed_ns)
