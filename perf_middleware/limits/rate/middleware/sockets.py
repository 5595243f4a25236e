"""Websockets: refused at the handshake, or ended by a message too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.limits.rate.middleware.answers import refusal_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.asgi import Message, Receive, Scope, Send
    from perf_middleware.limits.rate.gcra import Left
    from perf_middleware.limits.rate.plans import Batch, Entry
    from perf_middleware.limits.rate.runtime import RateLimit

POLICY_VIOLATION: Final = 1008  # RFC 6455 §7.4.1
DENIAL: Final = "websocket.http.response"
REASON: Final = "too many messages"
REASON_BYTES_MAX: Final = 123  # RFC 6455 §5.5: a control frame has 125, two are the code


async def refuse_handshake(
    rate: RateLimit,
    place: int,
    batch: Batch,
    entries: Sequence[Entry],
    left: Sequence[Left],
    scope: Scope,
    send: Send,
) -> None:
    """Answer the handshake with 429 where the server can; else it makes a 403 of a close."""
    if DENIAL in (scope.get("extensions") or {}):
        headers, body = refusal_of(rate, batch, entries, left)
        await send({"type": f"{DENIAL}.start", "status": 429, "headers": headers})
        await send({"type": f"{DENIAL}.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": REASON})


class Conversation:
    """One websocket whose messages are counted; to the app its end is the client's leaving."""

    __slots__ = ("_batch", "_end", "_held", "_rate", "_receive", "_scope", "_send")

    def __init__(
        self, rate: RateLimit, batch: Batch, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._rate = rate
        self._batch = batch
        self._scope = scope
        self._receive = receive
        self._send = send
        self._held: Message | None = None
        self._end: Message | None = None

    async def receive(self) -> Message:
        """The next message of the client; a disconnect in the place of one too many."""
        if self._end is not None:
            return self._end
        message = await self._receive() if self._held is None else self._held
        if message["type"] != "websocket.receive":
            return message
        rate = self._rate
        try:
            if rate.shared is None:
                admitted, entries, left = rate.judge(self._batch, self._scope)
            else:
                # An app that stops waiting meanwhile gets it at its next call.
                self._held = message
                admitted, entries, left = await rate.judge_shared(self._batch, self._scope)
        except Exception as error:  # noqa: BLE001 - fail open
            rate.note_failure("the rate limit", error)
            admitted, entries, left = True, (), ()
        self._held = None
        if admitted:
            return message
        reason = _reason(entries, left)
        told = {"code": POLICY_VIOLATION, "reason": reason}
        self._end = {"type": "websocket.disconnect", **told}
        await self._send({"type": "websocket.close", **told})
        return self._end

    async def send(self, message: Message) -> None:
        """Raises OSError once it is over, as a server does whose client has left (ASGI 2.4)."""
        if self._end is None:
            await self._send(message)
        elif message["type"] != "websocket.close":
            raise OSError("the websocket was closed: too many messages")


def _reason(entries: Sequence[Entry], left: Sequence[Left]) -> str:
    violated = [entry.standing for entry, one in zip(entries, left, strict=True) if one.wait_us]
    names = ", ".join(f"{standing.name} ({standing.limit})" for standing in violated)
    return f"{REASON}: {names}"[:REASON_BYTES_MAX]
