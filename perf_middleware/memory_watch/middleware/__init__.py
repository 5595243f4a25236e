"""The memory watch as a layer: counts who is in flight, and refuses requests while memory is short.

    arrival -> let in now? -> app
                 | no
                 |-> exempt -> app
                 `-> its class is refused -> 503 problem+json; a websocket's connect: 1013

It stands above backpressure, so that a refused request takes no permit, and below the response
cache: a hit costs no memory.  What already runs, goes on.  The body of a refused request is not
read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import Around, app_path
from perf_middleware.memory_watch.middleware.guard import RequestGuard, guard_of
from perf_middleware.memory_watch.probes.memory import MemoryProbe
from perf_middleware.memory_watch.settings import MemorySettings
from perf_middleware.memory_watch.shedding import CRITICAL_CLASS, NOBODY
from perf_middleware.standing_alone import require_whole, section_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from perf_middleware.asgi import ASGIApp, HoldsApp, Receive, Scope, Send

TRY_AGAIN_LATER: Final = 1013  # RFC 6455 §11.7, as registered
DENIAL: Final = "websocket.http.response"
CLOSE: Final = (b"connection", b"close")
CLOSABLE: Final = ("1.1", "1.0")  # later versions know no such field (RFC 9113 §8.2.2)


class _Refusing(Around):
    """What both layers do beside letting requests in."""

    guard: RequestGuard

    def _refused(self, scope: Scope) -> int | None:
        """The code of the request's class where that is refused."""
        guard = self.guard
        if (app_path(scope) if scope.get("root_path") else scope["path"]) in guard.exempt_paths:
            return None
        criticality = guard.class_of(scope)
        return criticality if guard.refuses(criticality) else None

    async def _refuse(self, criticality: int, scope: Scope, send: Send) -> None:
        guard = self.guard
        guard.figures.shed[criticality] += 1
        head, body = guard.refusals.messages(scope["method"])
        if guard.finishing and scope.get("http_version") in CLOSABLE:
            head["headers"].append(CLOSE)  # the next request goes to a worker that stays
        await send(head)
        await send(body)

    async def _sampled(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """A request that came while no other was there, and whose turn it is to be measured."""
        guard = self.guard
        token = guard.begin_sample(scope)
        try:
            returned = await self.below(scope, receive, send)
        except BaseException:
            guard.drop_sample()
            raise
        guard.end_sample(token, scope)
        return returned

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> Any:
        guard = self.guard
        if guard.refuses(CRITICAL_CLASS):
            guard.figures.websockets_refused += 1
            await receive()  # websocket.connect: it is read before it is answered
            if DENIAL in (scope.get("extensions") or ()):
                for message in guard.refusals.messages("GET", prefix="websocket.http"):
                    await send(message)
            else:
                await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
            return None
        return await self.below(scope, receive, send)


class MemoryWatchMiddleware(_Refusing):
    """Refuses requests with 503 and Retry-After while memory is short.

    Stands alone: `settings` are the fields of MemorySettings (`shed=True, finish=True`), and
    `on_finish` is called instead of the signal.  It looks from the app's start-up to its end, or
    from the first request on where the server tells it of no start-up.  `guard`, given instead of
    them, is one that exists, of a watch that somebody else starts.

    Raises SettingsError, which names each wrong argument, and TypeError for both.
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: RequestGuard | None = None,
        *,
        on_finish: Callable[[], object] | None = None,
        **settings: Any,
    ) -> None:
        self._is_alone = self._is_to_start = guard is None
        if guard is None:
            made = section_of(MemorySettings, settings, call="MemoryWatchMiddleware")
            probe = MemoryProbe(limit_bytes=made.limit_bytes)
            watch = made.make_watch(probe.sample, trim=probe.trim)
            guard = guard_of(made, watch, on_finish=on_finish)
        else:
            if on_finish is not None:
                settings["on_finish"] = on_finish
            require_whole(guard, RequestGuard, settings, call="MemoryWatchMiddleware")
        self.app = app
        self.guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "http":
            return await self._other(scope, receive, send)
        guard = self.guard
        if self._is_to_start:
            self._start()
        if guard.refused_from < NOBODY:
            refused = self._refused(scope)
            if refused is not None:
                return await self._refuse(refused, scope, send)
        guard.in_flight += 1
        try:
            if guard.wants_sample:
                if guard.in_flight == 1:
                    return await self._sampled(scope, receive, send)
                guard.note_company()
            return await self.below(scope, receive, send)
        finally:
            guard.in_flight -= 1

    def _start(self) -> None:
        self._is_to_start = False
        self.guard.watch.start()

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] == "websocket":
            return await self._websocket(scope, receive, send)
        if scope["type"] == "lifespan" and self._is_alone:
            self._start()
            try:
                return await self.below(scope, receive, send)
            finally:
                self.guard.watch.stop()
                self._is_to_start = True
        return await self.below(scope, receive, send)


class MemoryLayer(_Refusing):
    """The layer that `install` stacks, where metrics count who is in flight (`guard.in_progress`).

    While memory suffices and nobody is to be measured it steps aside: the layer above then calls
    the one below, and a request pays nothing.  At the head of a stack whose own layers hold it as
    something else than `app` it stays where it is.
    """

    def __init__(self, app: ASGIApp, guard: RequestGuard) -> None:
        self.app = app
        self.guard = guard
        self._above: HoldsApp | None = None
        guard.layers.append(self)

    def stand_below(self, above: HoldsApp) -> None:
        """`above` is the layer that calls this one, by its `app`."""
        self._above = above
        self.settle()

    def settle(self) -> None:
        """Stand below the layer above, or let it call the one below; from any thread."""
        above, guard = self._above, self.guard
        if above is None:
            return
        above.app = self if guard.needs_layer else self.app
        if guard.needs_layer:  # now, which the watch's thread may have said in between
            above.app = self

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                return self._websocket(scope, receive, send)
            return self.below(scope, receive, send)
        guard = self.guard
        if guard.refused_from < NOBODY:
            return self._judged(scope, receive, send)
        if guard.wants_sample:
            if guard.requests_in_flight() == 1:
                return self._sampled(scope, receive, send)
            guard.note_company()
        return self.below(scope, receive, send)

    async def _judged(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if self.guard.wants_sample:
            self.guard.note_company()
        refused = self._refused(scope)
        if refused is not None:
            return await self._refuse(refused, scope, send)
        return await self.below(scope, receive, send)
