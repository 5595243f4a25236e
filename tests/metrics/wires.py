"""The server's side of a request or a websocket, played with plain ASGI messages."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from perf_middleware.families import Distribution, Value

REQUEST = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


class Wire:
    """Hands out `incoming` (then the disconnect), keeps what is sent.

    After `breaks_after` sent messages the client is gone and sending raises OSError.  Like a
    server's own object for a request it holds the scope.
    """

    def __init__(self, scope, *incoming, breaks_after=None, last=GONE):
        self.scope = scope
        self.sent: list[Any] = []
        self._incoming = deque(incoming)
        self._breaks_after = breaks_after
        self._last = last

    async def receive(self):
        return self._incoming.popleft() if self._incoming else self._last

    async def send(self, message):
        if self._breaks_after is not None and len(self.sent) >= self._breaks_after:
            raise OSError("the client is gone")
        self.sent.append(message)

    async def serve(self, app):
        """Let `app` serve this; its exception comes out."""
        await app(self.scope, self.receive, self.send)


def http(path="/", method="GET", headers=(), **more):
    """The scope of an HTTP request as a server makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
    } | more


def websocket(path="/", **more):
    """The scope of a websocket as a server makes it."""
    scope = http(path) | {"type": "websocket", "scheme": "ws", "subprotocols": []} | more
    del scope["method"]
    return scope


def request(app, path="/", method="GET", *incoming, backend="asyncio", **more):
    """One request served by `app`; the messages that it sent."""
    wire = Wire(http(path, method, **more), *(incoming or (REQUEST,)))
    anyio.run(wire.serve, app, backend=backend)
    return wire.sent


def run(function: Callable[[], Awaitable[Any]], backend="asyncio"):
    return anyio.run(function, backend=backend)


def at_once(awaitable):
    """The result of an awaitable that never waits, without an event loop and its own garbage."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def values(families):
    """{family: {label values: number}}, of counters and gauges."""
    return {
        family.name: {
            tuple(value for _, value in point.labels.pairs): point.value
            for point in family.points
            if isinstance(point, Value)
        }
        for family in families
        if family.kind != "histogram"
    }


def totals(families):
    """{family: {label values: (count, sum)}}, of histograms."""
    return {
        family.name: {
            tuple(value for _, value in point.labels.pairs): (point.cumulative[-1], point.sum)
            for point in family.points
            if isinstance(point, Distribution)
        }
        for family in families
        if family.kind == "histogram"
    }


async def answer(send, status=200, body=b"hello", headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def hello(scope, receive, send):
    """A raw ASGI app."""
    await answer(send)
