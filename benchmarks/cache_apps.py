"""The apps that are measured for the response cache: one route, bare and inside caches.

The route is the 20 kB one of layers.py, with and without FastAPI's own work for it:

    prebuilt     a Response of JSON bytes that are there already
    serialised   a list of dicts, which FastAPI makes into the same bytes

An app counts the calls of its endpoint: a hit that calls it is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Response
from starlette.applications import Starlette
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route as StarletteRoute

from benchmarks.layers import HEADERS, LARGE_BYTES, OFF, SMALL, scopes
from perf_middleware import Settings, install

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send

PATH = "/large/{item}"
LARGE = [SMALL] * 100
TTL_S = 3600  # longer than any run: what expired would be no hit
ENTRIES_MAX = 256  # of a cache that gets another URL with each request
STORE_FOR_AN_HOUR = f"max-age={TTL_S}"

NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False}

plain_scope = scopes(PATH, HEADERS)


@dataclass(slots=True)
class Calls:
    """How often an endpoint ran."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """One of the two ways to make the body."""

    name: str
    serialised: bool


PREBUILT = Route("FastAPI, 20 kB of prebuilt bytes", serialised=False)
SERIALISED = Route("FastAPI, 20 kB from a list that it serialises", serialised=True)
ROUTES = (PREBUILT, SERIALISED)


def app_of(
    route: Route,
    calls: Calls,
    *,
    decorate: Callable[[Any], Any] | None = None,
    cache_control: str | None = None,
    dependencies: Sequence[Any] = (),
    telemetry: bool = True,
) -> FastAPI:
    """The app, fresh: its endpoint inside `decorate`, its answers with this Cache-Control.

    Without `telemetry` it does not ask at each request whether OpenTelemetry is configured.
    """
    app = FastAPI() if telemetry else FastAPI(telemetry=NO_TELEMETRY)
    headers = {} if cache_control is None else {"cache-control": cache_control}

    async def prebuilt(item: str) -> Response:
        calls.count += 1
        return Response(LARGE_BYTES, media_type="application/json", headers=headers)

    async def serialised(item: str) -> list[dict[str, Any]]:
        calls.count += 1
        return LARGE

    async def name_lifetime(response: Response) -> None:
        response.headers.update(headers)

    endpoint: Any = prebuilt
    if route.serialised:
        endpoint = serialised
        dependencies = [*dependencies, *([Depends(name_lifetime)] if headers else [])]
    if decorate is not None:
        endpoint = decorate(endpoint)
    # Named here: a decorator that hides what the endpoint says that it returns would have FastAPI
    # serialise it in Python.
    model = list[dict[str, Any]] if route.serialised else None
    app.get(PATH, dependencies=[*dependencies], response_model=model)(endpoint)
    return app


class HandWritten:
    """The least that caches: the floor under every other.

    It misses what makes a cache a correct one: whether the answer may be stored at all, Vary,
    credentials, conditional and range requests, HEAD, invalidation, a bound in bytes.
    """

    def __init__(self, app: ASGIApp, *, ttl_s: float = TTL_S) -> None:
        self._app = app
        self._ttl_s = ttl_s
        self._stored: dict[tuple[str, str, bytes, bytes], tuple[float, Message, Message]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        coding = b""
        for name, value in scope["headers"]:
            if name == b"accept-encoding":
                coding = value
                break
        key = (scope["method"], scope["path"], scope["query_string"], coding)
        now_s = monotonic()
        found = self._stored.get(key)
        if found is not None and now_s - found[0] < self._ttl_s:
            stored_s, start, body = found
            age = b"%d" % (now_s - stored_s)
            await send({**start, "headers": [*start["headers"], (b"age", age)]})
            await send(body)
            return
        await self._miss(key, scope, receive, send)

    async def _miss(
        self, key: tuple[str, str, bytes, bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        start: Message = {}
        chunks: list[bytes] = []

        async def keep(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = {**message, "headers": [*message["headers"]]}
            else:
                chunks.append(message.get("body", b""))
                if not message.get("more_body", False):
                    if len(self._stored) >= ENTRIES_MAX:
                        self._stored.clear()
                    body = {"type": "http.response.body", "body": b"".join(chunks)}
                    self._stored[key] = (monotonic(), start, body)
            await send(message)

        await self._app(scope, receive, keep)


def hand_written(route: Route, calls: Calls) -> ASGIApp:
    """The app inside the minimum, which is the innermost of its user's middlewares."""
    app = app_of(route, calls)
    app.add_middleware(HandWritten)
    return app


def hand_written_around(route: Route, calls: Calls) -> ASGIApp:
    """The minimum around the whole app: no layer of FastAPI's stands before it."""
    return HandWritten(app_of(route, calls))


def fastapi_layers(route: Route, calls: Calls) -> ASGIApp:
    """FastAPI's own outer layers with a ready answer inside: no cache in there can be faster."""
    app = app_of(route, calls)
    app.add_middleware(lambda _: Replay(hand_written(route, calls)))
    return app


CACHE_ALONE: dict[str, Any] = {
    "cache": {},
    "compression": OFF,
    "metrics": {**OFF, "overhead": False},
    "runtime": OFF,
    "dashboard": OFF,
    "lifespan": OFF,  # none is run in process, so none is missed
}


def ours(route: Route, calls: Calls, *, rule: bool = True) -> ASGIApp:
    """The app with our cache alone, and with a rule that stores its answers or without."""
    from perf_middleware import cache_response

    app = app_of(route, calls, decorate=cache_response(ttl=TTL_S) if rule else None)
    install(app, Settings(**CACHE_ALONE))
    return app


def ours_in_front(route: Route, calls: Calls) -> ASGIApp:
    """Our cache in a FastAPI app, before every middleware in it."""
    app = app_of(route, calls, cache_control=STORE_FOR_AN_HOUR)
    install(app, Settings(**{**CACHE_ALONE, "cache": {"position": "outer"}}))
    return app


def ours_without_telemetry(route: Route, calls: Calls) -> ASGIApp:
    """The same as `ours`, and FastAPI's telemetry off."""
    from perf_middleware import cache_response

    app = app_of(route, calls, decorate=cache_response(ttl=TTL_S), telemetry=False)
    install(app, Settings(**CACHE_ALONE))
    return app


def ours_in_starlette(route: Route, calls: Calls) -> ASGIApp:
    """Our cache, the innermost middleware of a Starlette app: its one endpoint sends the bytes."""

    async def prebuilt(request: Request) -> StarletteResponse:
        calls.count += 1
        headers = {"cache-control": STORE_FOR_AN_HOUR}
        return StarletteResponse(LARGE_BYTES, media_type="application/json", headers=headers)

    app = Starlette(routes=[StarletteRoute(PATH, prebuilt)])
    install(app, Settings(**CACHE_ALONE))
    return app


def ours_around(route: Route, calls: Calls) -> ASGIApp:
    """Our cache around the whole app, as around one that is not Starlette's."""
    app = app_of(route, calls, cache_control=STORE_FOR_AN_HOUR)

    async def any_app(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return install(any_app, Settings(**CACHE_ALONE))


class Replay:
    """The second answer of `model` to a request, recorded and sent as it is: what a hit may reach.

    A raw ASGI callable: it looks at nothing and makes nothing.
    """

    def __init__(self, model: ASGIApp) -> None:
        self._model = model
        self._messages: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._model(scope, receive, send)
            return
        if not self._messages:
            await self._record(receive)
        for message in self._messages:
            await send(message)

    async def _record(self, receive: Receive) -> None:
        async def note(message: Message) -> None:
            self._messages.append(message)

        for _ in range(2):
            self._messages.clear()
            await self._model(plain_scope(), receive, note)
