"""One request and its response, while they pass between the server and the app."""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import find_header
from perf_middleware.families import OTHER
from perf_middleware.metrics.middleware.trace_starts import trace_start
from perf_middleware.metrics.requests.server_timing import (
    DATABASE,
    PARTS_MAX,
    QUICK,
    QUICK_NS_MAX,
    STEP_NS,
    server_timing,
)
from perf_middleware.metrics.requests.trace import TraceContext, take_part

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import Message, Receive, Scope, Send
    from perf_middleware.metrics.middleware.connection import Connection
    from perf_middleware.metrics.middleware.recorder import RequestRecorder
    from perf_middleware.metrics.requests.figures import RouteTiming

STATUS_CLIENT_LEFT: Final = 499  # nginx's name for a client that left before any answer
NO_SCOPE: Final[Scope] = {}
NO_HEADERS: Final[list[tuple[bytes, bytes]]] = []
CURRENT: ContextVar[Exchange | Connection | None] = ContextVar(
    "perf_middleware.exchange", default=None
)
"""What the running code serves: how inner layers and timers find it, also below a copied scope."""
set_current, reset_current = CURRENT.set, CURRENT.reset  # found once, not with each request


def current_exchange() -> Exchange | None:
    """The exchange that the running code serves, or None outside an HTTP request."""
    exchange = CURRENT.get()
    return exchange if type(exchange) is Exchange else None


def current_connection() -> Exchange | Connection | None:
    """The same, or the websocket that the running code serves; over where its `scope` is empty."""
    return CURRENT.get()


def name_route(route: str) -> None:
    """Count the current request under `route`: it is answered before any routing."""
    exchange = current_exchange()
    if exchange is not None:
        exchange.route = route


def router_scope(scope: Scope) -> Scope:
    """The scope that the router of the current request saw; `scope` outside of any."""
    exchange = CURRENT.get()
    return exchange.scope if type(exchange) is Exchange else scope


def follow_scope(scope: Scope) -> None:
    """The current request goes on with `scope`, a copy: the router will write into that one."""
    exchange = current_exchange()
    if exchange is not None:
        exchange.scope = scope


def note_part(category: str, elapsed_us: int) -> None:
    """Add a timed block to the breakdown of the request that it ran in, if it ran in one."""
    exchange = current_exchange()
    if exchange is not None:
        exchange.add_part(category, elapsed_us * 1000)


class Exchange:
    """One request and its response, while they pass.

    Inner layers find it by CURRENT; they may set `route` (an answer given before any routing),
    `scope` and `root_path` (as the router will see them) and add to `parts_ns`; `statements` is the
    account of a database's, whose `statements` are their number and `elapsed_ns` their time, from
    the first of them on.
    """

    __slots__ = (
        "first_byte_ns", "head", "headers", "left", "parts_ns", "receives", "recorded", "recorder",
        "request_bytes", "response_bytes", "root_path", "route", "scope", "sends", "started_ns",
        "statements", "status", "streamed", "trace_part", "trace_start",
    )  # fmt: skip

    first_byte_ns: int
    head: Message
    headers: list[tuple[bytes, bytes]]
    left: bool
    parts_ns: dict[str, int] | None
    receives: Receive
    recorded: RouteTiming | None
    recorder: RequestRecorder
    request_bytes: int
    response_bytes: int
    root_path: str
    route: str | None
    scope: Scope
    sends: Send
    started_ns: int
    statements: Any
    status: Any
    """As the app says: the server complains of one that is none."""
    streamed: bool
    trace_part: TraceContext | None
    trace_start: bytes | None

    async def receive(self) -> Message:
        message = await self.receives()
        if message["type"] == "http.request":
            self.request_bytes += len(message.get("body", b""))
        elif message["type"] == "http.disconnect":
            self.left = True
            if not self.first_byte_ns:
                self.status = STATUS_CLIENT_LEFT  # whatever the app will say, nobody hears it
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on to the server.

        Not a coroutine function: only the last message has something to do after it was sent, the
        others cost no frame of ours.  All that a head needs is written out here for that reason.
        """
        kind = message["type"]
        if kind == "http.response.body":
            try:
                body = message["body"]
            except KeyError:  # an app may leave an empty one out; most do not
                body = None
            if body:
                self.response_bytes += len(body)
            if "more_body" not in message or not message["more_body"]:
                return self._send_last(message)
            self.streamed = True
        elif kind == "http.response.start":
            if not self.first_byte_ns:  # a second head never reaches the client
                self.first_byte_ns = perf_counter_ns()
                self.head = message
                if not self.left:
                    self.status = message["status"]
            recorder = self.recorder
            if recorder.adds_headers:
                # New ones: the app may send the same message and list again for the next request.
                headers = [*message.get("headers", ())]
                if recorder.server_timing:
                    total_ns = self.first_byte_ns - self.started_ns
                    if (
                        self.parts_ns is None
                        and self.statements is None
                        and total_ns < QUICK_NS_MAX
                    ):
                        headers.append(QUICK[(total_ns + STEP_NS // 2) // STEP_NS])
                    else:
                        headers.append(self._server_timing(total_ns))
                if recorder.trace_response:
                    for name, _ in self.headers:
                        if name == b"traceparent":
                            value = self.trace().traceparent.encode()
                            break
                    else:
                        # No TraceContext as yet: trace() makes one of this start if it is asked.
                        value = self.trace_start or trace_start()
                        self.trace_start = value
                    headers.append((b"traceresponse", value))
                return self.sends({**message, "headers": headers})
        elif kind == "http.response.zerocopysend":
            count = message.get("count")
            self.response_bytes += self._announced_bytes() if count is None else count
            if not message.get("more_body"):
                return self._send_last(message)
        elif kind == "http.response.pathsend":
            self.response_bytes += self._announced_bytes()
            return self._send_last(message)
        send = self.sends
        return send(message)

    async def _send_last(self, message: Message) -> None:
        send = self.sends
        await send(message)
        # Recorded here and not when the app returns: background tasks run after the response, and a
        # client that has its answer may scrape at once.
        if self.recorded is None:
            if self.left:
                timing = self.recorder.record(self, self.status, perf_counter_ns(), "client left")
                timing.disconnects += 1
                self.recorded = timing
            else:
                self.recorded = self.recorder.record(self, self.status, perf_counter_ns())

    def add_part(self, name: str, elapsed_ns: int) -> None:
        """Add to the breakdown that Server-Timing and the slow-request line show."""
        parts = self.parts_ns
        if parts is None:
            parts = self.parts_ns = {}
        if len(parts) >= PARTS_MAX and name not in parts:
            name = OTHER
        parts[name] = parts.get(name, 0) + elapsed_ns

    def parts(self) -> dict[str, int] | None:
        """The breakdown by now, the time of its statements first."""
        account = self.statements
        if account is None:
            return self.parts_ns
        parts = {DATABASE: account.elapsed_ns}
        for name, ns in list((self.parts_ns or {}).items()):  # a thread of the request may go on
            parts[name] = parts.get(name, 0) + ns
        return parts

    def _server_timing(self, total_ns: int) -> tuple[bytes, bytes]:
        account = self.statements
        return server_timing(total_ns, self.parts(), account.statements if account else 0)

    def trace(self) -> TraceContext:
        """This request's place in its trace, one that starts here if none came in."""
        if self.trace_part is None:
            if self.trace_start is None:
                self.trace_start = trace_start()
            self.trace_part = take_part(self.headers, start=self.trace_start)
        return self.trace_part

    def incoming_trace(self) -> TraceContext | None:
        """The trace that came in with the request, or None."""
        if self.trace_part is None:
            for name, _ in self.headers:
                if name == b"traceparent":
                    break
            else:
                return None
        trace = self.trace()
        return trace if trace.parent_id else None

    def raised_in_send(self, exc: BaseException) -> bool:
        """Whether `exc` came out of the server's own `send`, by the frames that it passed.

        Looked up only after a failure, so that no message pays for a frame that could catch it.
        False for a server whose `send` is not written in Python.
        """
        send: Any = self.sends
        code = getattr(getattr(send, "__func__", send), "__code__", None)
        if code is None:
            code = getattr(type(send).__call__, "__code__", None)
        traceback = exc.__traceback__
        while code is not None and traceback is not None:
            if traceback.tb_frame.f_code is code:
                return True
            traceback = traceback.tb_next
        return False

    def _announced_bytes(self) -> int:
        """Content-Length of the response: the server sends a file that never comes by here."""
        head = self.head if self.first_byte_ns else {}
        length = find_header(head.get("headers", ()), b"content-length")
        return int(length) if length is not None and length.isdigit() else 0


def exchange_of(recorder: RequestRecorder, scope: Scope, receive: Receive, send: Send) -> Exchange:
    """What stands between the server and the app for a request that comes now.

    A function, since the way into an `__init__` and back takes as long as half of the fields.
    """
    exchange = Exchange()
    exchange.recorder = recorder
    exchange.receives = receive
    exchange.sends = send
    exchange.scope = scope
    try:
        exchange.headers = scope["headers"]
        exchange.root_path = scope["root_path"] or ""
    except KeyError:  # a server may leave them out; most do not
        exchange.headers = scope.get("headers", NO_HEADERS)
        exchange.root_path = scope.get("root_path") or ""
    exchange.route = exchange.recorded = None
    exchange.parts_ns = exchange.statements = None
    exchange.trace_part = exchange.trace_start = None
    exchange.status = exchange.first_byte_ns = 0
    exchange.request_bytes = exchange.response_bytes = 0
    exchange.left = exchange.streamed = False
    exchange.started_ns = perf_counter_ns()
    return exchange
