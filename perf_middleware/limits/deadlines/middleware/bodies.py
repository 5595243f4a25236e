"""Request limits as a layer: what is too long or comes too slowly is refused before it costs much.

    by its head   414, 431, and 413 where Content-Length tells: nothing is read, no 100 is sent
    as it comes   413 and 408 out of the app's receive: answered here, raised there

A server sends `100 Continue` when the body is asked for first: who expects it and is refused has
sent none.  Where a body is on its way, the answer is whole at once, and the connection is closed
once the rest was read for a moment: closed at once, it would be reset, and the answer lost with it.
Sources: RFC 9110 §10.1.1 (100-continue), §15.5.9 (408), §15.5.14 (413), §15.5.15 (414); RFC 6585 §5
(431); RFC 9112 §9.6 (closing in stages).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
from starlette.exceptions import HTTPException

from perf_middleware.asgi import Around, header_pairs
from perf_middleware.errors import RequestRejectedError, SettingsError
from perf_middleware.limits.deadlines.heads import (
    UNTOLD,
    body_bytes_of,
    header_bytes,
    url_bytes,
)
from perf_middleware.limits.deadlines.runtime import Deadlines
from perf_middleware.limits.deadlines.settings import OF_TIMEOUTS, DeadlineSettings
from perf_middleware.problem import send_problem
from perf_middleware.refusal import comes_from
from perf_middleware.standing_alone import require_whole, section_of

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.limits.deadlines.figures import Reason
    from perf_middleware.limits.deadlines.pace import Pace

TITLES: Final = {
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
}
CLOSE: Final = (b"connection", b"close")
DISCONNECT: Final = "http.disconnect"
LINGER_S: Final = 1.0  # in which the rest of a refused body is read and thrown away
LINGER_BYTES_MAX: Final = 1 << 20  # of it: what is on its way, not what is still to come
TOO_SLOW: Final = "The body came too slowly."


class BodyRefusedError(RequestRejectedError, HTTPException):
    """A request's body is too large, or comes too slowly.

    Raised out of `receive`: the app cannot take the body for complete.  The client has its answer
    already, or its connection is cut where the app had begun one; what the app answers to this
    error goes nowhere.  An HTTPException, so that frameworks let it pass.
    """

    def __init__(self, status: int, detail: str) -> None:
        RequestRejectedError.__init__(self, status)
        HTTPException.__init__(self, status, detail)
        self.args = (status, detail)

    def __str__(self) -> str:
        return f"{self.status}: {self.detail}"


class RequestLimitsMiddleware(Around):
    """Refuses requests whose URL, headers or body are too long, or whose body is too slow.

    Stands alone: `settings` are the fields of DeadlineSettings for it (`body_bytes_max=1_000_000`,
    `body_idle_s=10`, `rules=[…]`).  `deadlines`, given instead of them, are those that exist.

    Raises SettingsError, which names each wrong argument, and TypeError for both.
    """

    def __init__(self, app: ASGIApp, deadlines: Deadlines | None = None, **settings: Any) -> None:
        if deadlines is None:
            for name in sorted(settings.keys() & (OF_TIMEOUTS | {"enabled"})):
                by = "install" if name == "enabled" else "DeadlineMiddleware"
                raise SettingsError((f"RequestLimitsMiddleware({name}=…): only {by} does that",))
            made = section_of(DeadlineSettings, settings, call="RequestLimitsMiddleware")
            deadlines = made.make_deadlines()
        else:
            require_whole(deadlines, Deadlines, settings, call="RequestLimitsMiddleware")
        self.app = app
        self.deadlines = deadlines
        self._rules = deadlines.bodies
        self._pace = deadlines.pace
        self._url_bytes_max = deadlines.url_bytes_max
        self._header_bytes_max = deadlines.header_bytes_max
        self._header_count_max = deadlines.header_count_max
        self._limits_heads = (
            self._url_bytes_max is not None
            or self._header_bytes_max is not None
            or self._header_count_max is not None
        )

    # A coroutine function: by that uvicorn knows an app of ASGI 3.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "http":
            return await self.below(scope, receive, send)
        headers = scope["headers"]
        if type(headers) is not list:
            headers = scope["headers"] = header_pairs(headers)
        if self._limits_heads:
            refused = self._refused_head(scope, headers)
            if refused is not None:
                return await self._refuse(scope, receive, send, *refused)
        choice = self._rules.rule_for(scope) if self._rules.has_any else None
        if choice is None:
            choice = self.deadlines.default_body
        elif choice.is_exempt:
            return await self.below(scope, receive, send)
        bytes_max, pace = choice.bytes_max, self._pace
        if bytes_max is None and pace is None:
            return await self.below(scope, receive, send)
        told = body_bytes_of(scope)
        if told == 0:
            return await self.below(scope, receive, send)
        if bytes_max is not None and told > bytes_max:
            detail = f"The body may have {bytes_max} bytes."
            return await self._refuse(scope, receive, send, 413, "body", detail)
        if told != UNTOLD:
            if pace is None:
                return await self.below(scope, receive, send)
            bytes_max = None  # no server hands over more than was told
        return await self._limited(scope, receive, send, bytes_max)

    def _refused_head(
        self, scope: Scope, headers: list[tuple[bytes, bytes]]
    ) -> tuple[int, Reason, str] | None:
        bound = self._url_bytes_max
        if bound is not None and url_bytes(scope) > bound:
            return 414, "url", f"Path and query may have {bound} bytes."
        bound = self._header_count_max
        if bound is not None and len(headers) > bound:
            return 431, "header", f"There may be {bound} header fields."
        bound = self._header_bytes_max
        if bound is not None and header_bytes(headers) > bound:
            return 431, "header", f"All header fields may have {bound} bytes."
        return None

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, status: int, reason: Reason, detail: str
    ) -> None:
        self.deadlines.figures.refused[reason] += 1
        if body_bytes_of(scope) == 0:
            await send_problem(scope, send, status, detail, title=TITLES[status])
            return
        refusal = _Refusal(scope, receive, send)
        await refusal.answer(status, detail)
        # Who expects a 100 sends nothing before; asked for its body now, it might get one.
        expects = any(name == b"expect" for name, _ in scope["headers"])
        await refusal.close(lingers=not expects)

    async def _limited(
        self, scope: Scope, receive: Receive, send: Send, bytes_max: int | None
    ) -> Any:
        body = _LimitedBody(scope, receive, send, self.deadlines, bytes_max, self._pace)
        try:
            result = await self.below(scope, body.receive, body.send)
        except Exception as exc:
            if body.answer is None or not comes_from(exc, body.error):
                raise
            result = None
        if body.answer is not None:
            await body.answer.close(lingers=body.has_more_to_come)
        elif body.error is not None:
            # The app has ended an answer that it may have made of half a body: the server is to
            # cut the connection, as for any app that fails in the middle.
            raise body.error
        return result


class _Refusal:
    """An answer whose connection is not used again."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        # Of HTTP/1 alone: later ones end the one stream, and allow no such field (RFC 9113 §8.2.2).
        self._closes = scope.get("http_version", "1.1").startswith("1")

    async def answer(self, status: int, detail: str) -> None:
        """All of the answer, by its Content-Length; to the server it is not at its end."""
        headers = (CLOSE,) if self._closes else ()
        send = self._send_open if self._closes else self._send
        await send_problem(self._scope, send, status, detail, headers, title=TITLES[status])

    async def close(self, *, lingers: bool) -> None:
        """Its end, after which the server closes."""
        if self._closes:
            if lingers:
                await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_open(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            message["more_body"] = True
        await self._send(message)

    async def _linger(self) -> None:
        thrown_away = 0
        with anyio.move_on_after(LINGER_S):
            while thrown_away <= LINGER_BYTES_MAX:
                message = await self._receive()
                if not message.get("more_body", False):
                    return
                thrown_away += len(message.get("body", b""))


class _LimitedBody:
    """One request: its body as the app sees it, and its answer as far as that matters here."""

    __slots__ = ("_body_bytes", "_bytes_max", "_deadlines", "_has_all", "_has_begun", "_pace",
                 "_receive", "_scope", "_send", "_waited_us", "answer", "error")  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        deadlines: Deadlines,
        bytes_max: int | None,
        pace: Pace | None,
    ) -> None:
        self.error: BodyRefusedError | None = None
        self.answer: _Refusal | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._deadlines = deadlines
        self._bytes_max = bytes_max
        self._pace = pace
        self._body_bytes = 0
        self._waited_us = 0
        self._has_all = False
        self._has_begun = False

    @property
    def has_more_to_come(self) -> bool:
        """Whether the refused client is still sending, as far as one knows."""
        return not self._has_all and self.error is not None and self.error.status == 413

    async def receive(self) -> Message:
        """The next piece of the body; behind its end, what the server tells."""
        if self.error is not None:
            return {"type": DISCONNECT}
        if self._has_all:
            return await self._receive()
        message = await self._next_piece()
        if message["type"] == "http.request" and not self._has_all:
            self._has_all = not message.get("more_body", False)
            self._body_bytes += len(message.get("body", b""))
            bytes_max = self._bytes_max
            if bytes_max is not None and self._body_bytes > bytes_max:
                raise await self._refuse(413, "body", f"The body may have {bytes_max} bytes.")
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the app answers, unless its request was refused."""
        if self.error is None:
            self._has_begun = self._has_begun or message["type"] == "http.response.start"
            await self._send(message)

    async def _next_piece(self) -> Message:
        # An app that answers already may listen for a client that leaves, and not for its body.
        if self._pace is None or self._has_begun:
            return await self._receive()
        wait_us = self._pace.wait_us(waited_us=self._waited_us, body_bytes=self._body_bytes)
        if wait_us is None:
            return await self._receive()
        message: Message | None = None
        clock = self._deadlines.clock
        began_us = clock()
        with anyio.move_on_after(wait_us / 1_000_000):
            message = await self._receive()
        self._waited_us += clock() - began_us
        if message is not None:
            return message
        if self._is_too_late_to_refuse():
            return await self._receive()
        raise await self._refuse(408, "slow", TOO_SLOW)

    def _is_too_late_to_refuse(self) -> bool:
        return self._has_begun or self._has_all  # by others, while this one waited

    async def _refuse(self, status: int, reason: Reason, detail: str) -> BodyRefusedError:
        """Answer with `status` where nothing was answered yet; returns what is to be raised."""
        self._deadlines.figures.refused[reason] += 1
        self.error = error = BodyRefusedError(status, detail)
        if not self._has_begun:
            self.answer = _Refusal(self._scope, self._receive, self._send)
            await self.answer.answer(status, detail)
        return error
