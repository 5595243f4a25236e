"""Backpressure as a layer: at most so many requests in the app, a short line before it, 503 beyond.

    arrival -> exempt? -> class -> permit? ---------------------------> app -> head: a sample
                                     | no                                       last message, or
                                     v                                          its end: permit back
                              line: waits, client heard --> granted --^
                                     `-> shed, left: 503, nothing

The app runs in the server's own task.  Whoever need not wait costs two looks at the clock.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import Around, app_path, find_header
from perf_middleware.limits.concurrency.criticality import CRITICAL, SHEDDABLE_PLUS
from perf_middleware.limits.concurrency.line import GRANTED, LEFT, SHED, WAITING, Ticket
from perf_middleware.limits.concurrency.runtime import Backpressure
from perf_middleware.limits.concurrency.runtime.waiting import (
    Hearing,
    wait_anywhere,
    wait_on_asyncio,
)
from perf_middleware.limits.concurrency.settings import BackpressureSettings
from perf_middleware.standing_alone import require_whole, section_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.limits.concurrency.runtime.gate import Gate

EVENT_STREAM: Final = b"text/event-stream"
TRY_AGAIN_LATER: Final = 1013  # RFC 6455 §11.7, as registered
DENIAL: Final = "websocket.http.response"
FILES: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class BackpressureMiddleware(Around):
    """Lets at most `limit` requests in; others wait for a moment, or get 503 with Retry-After.

    Stands alone: `settings` are the fields of BackpressureSettings (`limit_max=50`).
    `backpressure`, given instead of them, is one that exists.

    Raises SettingsError, which names each wrong argument, and TypeError for both.
    """

    def __init__(
        self, app: ASGIApp, backpressure: Backpressure | None = None, **settings: Any
    ) -> None:
        if backpressure is None:
            made = section_of(
                BackpressureSettings, {"enabled": True, **settings}, call="BackpressureMiddleware"
            )
            backpressure = made.make_backpressure()
        else:
            require_whole(backpressure, Backpressure, settings, call="BackpressureMiddleware")
        self.app = app
        self.backpressure = backpressure
        self._exempt = backpressure.exempt_paths
        self._admitted = backpressure.figures.admitted
        self._clock = backpressure.clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "http":
            if scope["type"] == "websocket" and self.backpressure.websockets_max is not None:
                return await self._websocket(scope, receive, send)
            return await self.below(scope, receive, send)
        if (app_path(scope) if scope.get("root_path") else scope["path"]) in self._exempt:
            return await self.below(scope, receive, send)
        backpressure = self.backpressure
        gate, thread, is_running = backpressure.here
        if thread != get_ident() or not is_running():
            gate = backpressure.gate_here()
        if (
            backpressure.rules.has_any
            or backpressure.trusts is not None
            or backpressure.criticality_of is not None
        ):
            return await self._classed(scope, receive, send, gate)
        clock = self._clock
        now_us = clock()
        if not gate.enter(now_us):
            return await self._waiting(scope, receive, send, gate, Ticket(CRITICAL, now_us))
        self._admitted[CRITICAL] += 1
        admitted = Admitted()  # filled in here: an `__init__` is a call more
        admitted.gate, admitted.passed_on = gate, send
        admitted.granted_us, admitted.partition = now_us, None
        admitted.holds = True
        below = self.below
        try:
            return await below(scope, receive, admitted.send)
        finally:
            if admitted.holds:
                admitted.release()

    async def _classed(self, scope: Scope, receive: Receive, send: Send, gate: Gate) -> Any:
        """Where not all requests are of one class, or some have a partition."""
        backpressure = self.backpressure
        now_us = self._clock()
        treatment = backpressure.rules.rule_for(scope)
        criticality = backpressure.criticality(scope, treatment)
        partition = None if treatment is None else treatment.partition
        ticket = Ticket(criticality, now_us)
        if criticality >= SHEDDABLE_PLUS and backpressure.is_refused(criticality):
            return await self._waiting(scope, receive, send, gate, ticket, partition)
        if partition is not None:
            if not gate.enter_both(partition, ticket, now_us):
                return await self._waiting(scope, receive, send, gate, ticket, partition)
        elif not gate.enter(now_us):
            return await self._waiting(scope, receive, send, gate, ticket)
        return await self._admit(scope, receive, send, gate, ticket, now_us)

    async def _waiting(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        gate: Gate,
        ticket: Ticket,
        partition: str | None = None,
    ) -> Any:
        """For a permit; without one the request is refused here."""
        hearing = await self._wait(scope, receive, gate, ticket, partition)
        if ticket.state != GRANTED:
            if ticket.state != LEFT:
                for message in self.backpressure.refusals.messages(scope["method"]):
                    await send(message)
            return None
        now_us = self._clock()
        gate.begun(now_us)
        if hearing is None:
            return await self._admit(scope, receive, send, gate, ticket, now_us)
        try:
            return await self._admit(scope, hearing.receive, send, gate, ticket, now_us)
        finally:
            hearing.close()

    async def _admit(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        gate: Gate,
        ticket: Ticket,
        now_us: int,
    ) -> Any:
        """Call the app; `__call__` has it written out, which spares most requests a coroutine."""
        self._admitted[ticket.criticality] += 1
        admitted = Admitted()
        admitted.gate, admitted.passed_on = gate, send
        admitted.granted_us, admitted.partition = now_us, ticket.partition
        admitted.holds = True
        try:
            return await self.below(scope, receive, admitted.send)
        finally:
            if admitted.holds:
                admitted.release()

    async def _wait(
        self, scope: Scope, receive: Receive, gate: Gate, ticket: Ticket, partition: str | None
    ) -> Hearing | None:
        """Until the ticket is granted, shed or its client gone; returns who has listened to it."""
        backpressure = self.backpressure
        now_us = ticket.arrived_us
        hearing = None
        try:
            reason = backpressure.refusal_of(scope, ticket, gate)
            if backpressure.dry_run:
                backpressure.note_dry(reason, ticket, gate, partition)
                return None
            if reason is not None:
                ticket.state, ticket.reason = SHED, reason
                backpressure.note_shed(reason, ticket.criticality, now_us)
                gate.give_back_partition(ticket)
                return None
            if find_header(scope["headers"], b"expect") is None:  # to listen is to ask for the body
                hearing = Hearing(receive, gate, ticket, self._clock)
            gate.wait(ticket, partition, now_us)
            if ticket.state != WAITING:
                pass  # shed at once
            elif gate.loop is not None:
                await wait_on_asyncio(ticket, hearing)
            else:
                await wait_anywhere(gate, ticket, hearing, self._clock)
        except BaseException:
            gate.abandon(ticket, self._clock())
            if hearing is not None:
                hearing.close()
            raise
        if ticket.state == GRANTED:
            if hearing is not None and hearing.has_left:
                gate.abandon(ticket, self._clock())
                ticket.state = LEFT
            else:
                backpressure.note_waited(ticket, self._clock())
        if ticket.state == LEFT:
            backpressure.figures.shed["left"][ticket.criticality] += 1
        if ticket.state != GRANTED and hearing is not None:
            hearing.close()
        return hearing

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> Any:
        backpressure = self.backpressure
        most = backpressure.websockets_max
        if most is not None and backpressure.websockets >= most:
            backpressure.figures.websockets_refused += 1
            if not backpressure.dry_run:
                await receive()  # websocket.connect: it is read before it is answered
                if DENIAL in (scope.get("extensions") or ()):
                    for message in backpressure.refusals.messages("GET", prefix="websocket.http"):
                        await send(message)
                else:
                    await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
                return None
        backpressure.websockets += 1
        try:
            return await self.below(scope, receive, send)
        finally:
            backpressure.websockets -= 1


class Admitted:
    """One request that holds a permit, until its last message or its end."""

    __slots__ = ("gate", "granted_us", "holds", "partition", "passed_on")

    gate: Gate
    passed_on: Send
    granted_us: int
    partition: str | None
    holds: bool

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on; the work is done before it is: a client that reads slowly is none.

        Not a coroutine function: no frame of ours stays around the server's.
        """
        if self.holds:
            kind = message["type"]
            if kind == "http.response.body":
                if "more_body" not in message or not message["more_body"]:
                    self.holds = False  # `release`, without a call more
                    self.gate.release(self.partition)
            elif kind == "http.response.start":
                if self.granted_us >= 0:
                    self.gate.note_head(self.granted_us, message.get("status"))
                    self.granted_us = -1  # a second head is no sample
                    if _is_event_stream(message.get("headers")):
                        self.gate.figures.event_streams += 1
                        self.release()
            elif kind in FILES:
                self.release()
        send = self.passed_on
        return send(message)

    def release(self) -> None:
        """Give the permit back; once."""
        self.holds = False
        self.gate.release(self.partition)


def _is_event_stream(headers: Any) -> bool:
    if type(headers) is list or type(headers) is tuple:  # what can be read once is not ours to read
        try:
            for name, value in headers:
                if name == b"content-type" or name == b"Content-Type":
                    return bool(value[:17] == EVENT_STREAM)
        except (TypeError, ValueError):
            return False  # what the server will complain of
    return False
