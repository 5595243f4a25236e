"""One websocket, while it is open."""

from __future__ import annotations

import logging
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.metrics.middleware.exchange import CURRENT, NO_SCOPE
from perf_middleware.metrics.requests.sockets import SERIES_MAX

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.metrics.middleware.recorder import RequestRecorder

logger = logging.getLogger("perf_middleware.metrics")


class Connection:
    """Counts a websocket's messages and how it ended."""

    __slots__ = (
        "_receive", "_recorder", "_send", "accepted", "code", "got", "root_path", "route", "scope",
        "sent",
    )  # fmt: skip

    def __init__(
        self, recorder: RequestRecorder, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._recorder = recorder
        self._receive = receive
        self._send = send
        self.scope = scope
        self.root_path: str = scope.get("root_path") or ""
        self.route: str | None = None  # once it is over, for tasks that it has left
        self.accepted = False
        self.code: object = None  # what the server or the app wrote into a message
        self.got = 0
        self.sent = 0

    async def run(self, app: ASGIApp) -> Any:
        sockets = self._recorder.sockets
        token = CURRENT.set(self)
        started_ns = perf_counter_ns()
        sockets.open += 1
        try:
            return await app(self.scope, self.receive, self.send)
        except BaseException:
            if self.code is None:
                self.code = 1011  # what a server sends for an app that failed (RFC 6455 §7.4.1)
            raise
        finally:
            sockets.open -= 1
            CURRENT.reset(token)
            self.route = self._recorder.route_of(self.scope, self.root_path)
            sockets.count(
                self.route,
                (self.code or 1000) if self.accepted else None,
                received=self.got,
                sent=self.sent,
                open_ns=perf_counter_ns() - started_ns,
            )
            if sockets.overflowed and not sockets.overflow_told:
                sockets.overflow_told = True
                logger.warning(
                    "%d combinations of websocket route and outcome are counted apart; "
                    "further ones count under the route `other`",
                    SERIES_MAX,
                )
            self.scope = NO_SCOPE

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self.got += 1
        elif message["type"] == "websocket.disconnect" and self.code is None:
            self.code = message.get("code", 1005)
        return message

    async def send(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:
            if self.code is None:
                self.code = 1006  # the client is gone without a word (RFC 6455 §7.1.5)
            raise
        kind = message["type"]
        if kind == "websocket.send":
            self.sent += 1
        elif kind == "websocket.accept":
            self.accepted = True
        elif kind == "websocket.close" and self.code is None:
            self.code = message.get("code", 1000)
