"""The order of the layers: one table with the reason for each place, and how they are put together.

    server -> outer layers -> the user's own middlewares -> inner layers -> router, app

Outer layers see what enters and leaves the app as a whole; inner ones see only what got past the
user's middlewares (authentication, sessions, CORS).  The order never depends on whether a
middleware was added before or after `install`: on Starlette and FastAPI the stack is assembled when
the app builds its own, at its start.  Every layer keeps the next one as `app`, as middlewares do:
tools walk a stack along it (FastAPI looks for an OpenTelemetry middleware that way).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Literal

from perf_middleware.asgi import Around, StepsAside, header_pairs
from perf_middleware.layer_meter import METER, OUTSIDE, LayerMeter
from perf_middleware.metrics.middleware.exchange import CURRENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.metrics.overhead import Overhead
    from perf_middleware.perf import Perf

logger = logging.getLogger("perf_middleware")

Place = Literal["outer", "inner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """A place in the stack: what stands there, and why there."""

    name: str
    place: Place
    sees: str
    why: str


METRICS: Final = Rank(
    name="metrics",
    place="outer",
    sees="every request, also the refused and the cached",
    why="one truth about latency and status",
)
OPERATORS: Final = Rank(
    name="operator endpoints",
    place="outer",
    sees="only its own paths",
    why="must answer while the app is overloaded",
)
REQUEST_LIMITS: Final = Rank(
    name="request limits",
    place="outer",
    sees="every request's head and body",
    why="what is too long or too slow is refused before anything is made of it",
)
RATE_LIMIT: Final = Rank(
    name="rate limit",
    place="outer",
    sees="every client's requests and websockets",
    why="fairness holds for cached answers too",
)
COMPRESSION: Final = Rank(
    name="compression",
    place="outer",
    sees="every answer, before it leaves",
    why="what is below sees bodies as the app made them, and a stored one serves every coding",
)
REQUEST_DECODING: Final = Rank(
    name="request decoding",
    place="outer",
    sees="requests with a Content-Encoding",
    why="all inside read the body as it was meant",
)
FRONT_CACHE: Final = Rank(
    name="response cache in front",
    place="outer",
    sees="GET and HEAD, and unsafe methods for invalidation",
    why="cache.position = outer: a hit costs none of your middlewares",
)
USER_RATE_LIMIT: Final = Rank(
    name="rate limit by user",
    place="inner",
    sees="what has passed your authentication",
    why="its quotas are those of the user whom that found",
)
CACHE: Final = Rank(
    name="response cache",
    place="inner",
    sees="GET and HEAD, and unsafe methods for invalidation",
    why="a hit costs nothing below, and has passed your authentication",
)
DEADLINE: Final = Rank(
    name="deadline",
    place="inner",
    sees="requests with a timeout",
    why="what a request waits below counts, and what the cache has needs none",
)
MEMORY: Final = Rank(
    name="memory watch",
    place="inner",
    sees="only what needs the app",
    why="a request is refused while memory is short; a hit takes none",
)
BACKPRESSURE: Final = Rank(
    name="backpressure",
    place="inner",
    sees="only what needs the app",
    why="protects what is scarce; a hit takes no place",
)
PROBE_LANE: Final = Rank(
    name="probe lane",
    place="inner",
    sees="health checks",
    why="a sync one gets a thread though all are busy",
)
REJECTIONS: Final = Rank(
    name="rejections",
    place="inner",
    sees="requests that your code refuses by an error, as of a database that is busy",
    why="they are answered as refused, not with 500",
)
STREAM_GUARD: Final = Rank(
    name="stream guard",
    place="inner",
    sees="responses that begin, in apps with a database",
    why="next to your code: nothing holds the beginning of a stream back before it",
)
REQUEST_SCOPE: Final = Rank(
    name="request scope",
    place="inner",
    sees="the app's own work",
    why="the router's view of the request feeds telemetry",
)

ORDER: Final = (
    METRICS, OPERATORS, RATE_LIMIT, REQUEST_LIMITS, COMPRESSION, REQUEST_DECODING, FRONT_CACHE,
    USER_RATE_LIMIT, CACHE, MEMORY, DEADLINE, BACKPRESSURE, PROBE_LANE, REJECTIONS, STREAM_GUARD,
    REQUEST_SCOPE,
)  # fmt: skip
"""Outermost first; this table decides, not the order of any call."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Layer:
    """A rank with what builds its middleware around the next one.

    `build` may be called more than once (for the measured twin of the stack): what it builds keeps
    its state in objects made before, never in itself.  `stands` is asked when the stack is built,
    for layers that only a decorator on an endpoint calls for.
    """

    rank: Rank
    build: Callable[[ASGIApp], ASGIApp]
    stands: Callable[[], bool] = _always


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One line of `perf.describe()`: `place` is outer, yours (the user's own), inner or app."""

    position: int
    name: str
    place: Literal["outer", "yours", "inner", "app"]
    sees: str
    why: str


class RequestScope(Around):
    """Innermost layer: shows the exchange the scope as the router will see and fill it.

    A middleware in between may have copied the scope or moved root_path; what the router writes
    (the route it matched) is then only in this one.  Where the app has no middleware of its own,
    the outer layers see the same scope, and this one is left out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = CURRENT.get()
        if exchange is not None:
            exchange.scope = scope
            exchange.root_path = scope.get("root_path") or ""
        return self.below(scope, receive, send)


class Boundary:
    """Stands between two layers of a sampled request and tells its meter who is running."""

    def __init__(self, app: ASGIApp, *, outside: int, inside: int) -> None:
        self.app = app
        self._outside = outside
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        meter: LayerMeter = scope[METER]
        outside, inside = self._outside, self._inside

        async def receive_across() -> Message:
            meter.cross(outside, perf_counter_ns())
            try:
                return await receive()
            finally:
                meter.cross(inside, perf_counter_ns())

        async def send_across(message: Message) -> None:
            meter.cross(outside, perf_counter_ns())
            try:
                await send(message)
            finally:
                meter.cross(inside, perf_counter_ns())

        meter.cross(inside, perf_counter_ns())
        try:
            return await self.app(scope, receive_across, send_across)
        finally:
            meter.cross(outside, perf_counter_ns())


def in_order(layers: Sequence[Layer], place: Place) -> list[Layer]:
    """The layers of one place that stand, outermost first."""
    return sorted(
        (layer for layer in layers if layer.rank.place == place and layer.stands()),
        key=lambda layer: ORDER.index(layer.rank),
    )


def composed(layers: Sequence[Layer], app: ASGIApp) -> ASGIApp:
    """`app` inside `layers` (outermost first)."""
    for layer in reversed(layers):
        app = _around(app, layer.build(app))
    return app


def _around(app: Any, above: Any) -> Any:
    """`above`, which calls `app`, or what is below it where that steps aside."""
    if isinstance(app, StepsAside):
        app.stand_below(above)
    return above


def composed_measured(layers: Sequence[Layer], app: ASGIApp, *, first: int) -> ASGIApp:
    """The same with a boundary around each layer; the layers' indexes count from `first`."""
    last = first + len(layers) - 1
    app = Boundary(app, outside=last, inside=OUTSIDE)
    for index in range(last, first - 1, -1):
        layer = layers[index - first].build(app)
        outside = OUTSIDE if index == first else index - 1
        app = _around(layer, Boundary(layer, outside=outside, inside=index))
    return app


class Inner(Around):
    """Head of the inner layers: sampled requests take the measured twin."""

    def __init__(
        self, app: ASGIApp, *, layers: Sequence[Layer], first: int, overhead: Overhead
    ) -> None:
        self.app = composed(layers, app)
        _around(self.app, self)
        self._measured = composed_measured(layers, app, first=first)
        self._overhead = overhead

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # A mounted app of its own bundle also finds the outer app's meter: that one has no room for
        # the layers of this stack.
        if METER in scope and scope[METER].overhead is self._overhead:
            return self._measured(scope, receive, send)
        below = self.below
        return below(scope, receive, send)


class Entrance(Around):
    """Head of the whole stack: the lifespan goes to the plugin, requests to the outer layers.

    Not a coroutine function, so that a request pays no extra frame for passing through.
    Every layer keeps the next one as `app`: FastAPI's telemetry follows that attribute to see if
    OpenTelemetry's own middleware is in the stack, and makes every span twice when it cannot.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        layers: Sequence[Layer],
        lifespan: ASGIApp | None,
        lifespan_ran: Callable[[], bool],
        perf: Perf,
        overhead: Overhead | None,
        sample_every: int,
    ) -> None:
        self._core = app
        self.app = composed(layers, app)
        self._plain = self.below
        self._measured = composed_measured(layers, app, first=0)
        self._lifespan = lifespan
        self._lifespan_ran = lifespan_ran
        self._http: ASGIApp = self._first_request
        self._perf = perf
        self._kind = type(perf)
        self._overhead = overhead
        self._sample_every = sample_every
        # The first request pays for caches that are still cold: it is sampled only if all are.
        self._until_sample = sample_every if overhead is not None else -1

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        kind = scope["type"]
        if kind == "http" or kind == "websocket":
            try:
                headers, state = scope["headers"], scope["state"]
            except KeyError:  # a server may leave them out; most do not
                headers, state = scope.get("headers"), scope.get("state")
            if type(headers) is not list:
                scope["headers"] = header_pairs(headers)
            if state is None:
                scope["state"] = {"perf": self._perf}
            elif "perf" not in state:
                state["perf"] = self._perf
            elif state["perf"] is not self._perf and type(state["perf"]) is self._kind:
                return self._inside_another(scope, receive, send)
            if kind == "websocket":
                return self._plain(scope, receive, send)
            self._until_sample = until_sample = self._until_sample - 1
            if not until_sample:
                return self._sample(scope, receive, send)
            below = self._http
            return below(scope, receive, send)
        if kind == "lifespan" and self._lifespan is not None:
            return self._lifespan(scope, receive, send)
        return self._core(scope, receive, send)

    async def _inside_another(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve an app mounted in one with a bundle of its own, which finds its handle again."""
        if self._http == self._first_request:
            self._say_if_no_lifespan()
        state = scope["state"]
        outer, state["perf"] = state["perf"], self._perf
        try:
            return await self._plain(scope, receive, send)
        finally:
            state["perf"] = outer

    def _first_request(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        self._say_if_no_lifespan()
        return self._plain(scope, receive, send)

    def _say_if_no_lifespan(self) -> None:
        self._http = self._plain
        if self._lifespan is not None and not self._lifespan_ran():
            logger.warning(
                "no lifespan has reached this app, so its probes and other resources are not "
                "running, and jobs of perf.tasks wait for ever: if it is mounted in another app, "
                "enter `async with perf.running():` in that app's lifespan; if the server's "
                "lifespan is switched off, switch it on"
            )

    async def _sample(self, scope: Scope, receive: Receive, send: Send) -> Any:
        self._until_sample = self._sample_every
        if self._http == self._first_request:
            self._say_if_no_lifespan()
        overhead = self._overhead
        assert overhead is not None  # noqa: S101 - only its presence starts the countdown
        scope[METER] = meter = LayerMeter(overhead, now_ns=perf_counter_ns())
        try:
            return await self._measured(scope, receive, send)
        finally:
            overhead.settle(meter)
