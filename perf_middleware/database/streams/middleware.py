"""The layer that sees responses begin: innermost, before anything holds a head back.

A request without a session costs one object, one context variable and one comparison a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import find_header
from perf_middleware.database.streams.cases import is_whole
from perf_middleware.database.streams.runtime import CURRENT, Work, begin_response, look
from perf_middleware.database.streams.runtime.giving_back import give_back

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.database.runtime import Database

BODY: Final = "http.response.body"
HEAD: Final = "http.response.start"
FROM_HERE_ON: Final = frozenset(
    ("http.response.pathsend", "http.response.zerocopysend", "websocket.accept")
)


class StreamGuardMiddleware:
    """Connections that a streaming response does not need go back to their pool before it.

    For a websocket once, when it is accepted.  Under `install` it stands by itself; alone:
    `app.add_middleware(StreamGuardMiddleware, database=database)`.
    """

    def __init__(self, app: ASGIApp, *, database: Database | None = None) -> None:
        self.app = app
        self.database = database  # which guards its sessions; the layer itself needs nothing of it

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            return self.app(scope, receive, send)
        # Filled in here: an `__init__` would be 0.1 us of the 0.9 that this layer costs a request.
        response = Response()
        response.scope = scope
        response.sessions = None
        response.passed_on = send
        # Not a coroutine function, and not reset: each request of a server has a context of its
        # own or sets it anew, and what is outside of one finds a response that is over.
        CURRENT.set(response)
        return self.app(scope, receive, response.send)


class Response:
    """One request's response; `sessions` is None until one of its sessions takes a connection."""

    __slots__ = ("passed_on", "scope", "sessions")

    scope: Scope
    sessions: dict[int, Work] | None
    passed_on: Send

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on; first give back what is idle, where the response streams."""
        sessions = self.sessions
        if sessions is None:
            return self.passed_on(message)
        kind = message["type"]
        if kind == BODY:
            if not message.get("more_body"):
                return self.passed_on(message)
        elif kind == HEAD:
            begin_response(sessions)
            headers = message.get("headers", ())
            length = find_header(headers, b"content-length")
            if is_whole(message["status"], length, find_header(headers, b"content-type")):
                return self.passed_on(message)
        elif kind not in FROM_HERE_ON:
            return self.passed_on(message)
        idle = look(sessions, self.scope)
        return self._send_after(idle, message) if idle else self.passed_on(message)

    async def _send_after(self, idle: list[Work], message: Message) -> None:
        await give_back(idle, self.scope)
        await self.passed_on(message)
