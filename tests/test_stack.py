"""The order of the layers, and the measured twin of the stack."""

from contextlib import suppress
from copy import copy
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from perf_middleware import Perf, Settings, install, stack
from perf_middleware.layer_meter import OUTSIDE, LayerMeter
from perf_middleware.metrics.overhead import Overhead
from perf_middleware.stack import (
    FRONT_CACHE,
    METER,
    METRICS,
    OPERATORS,
    ORDER,
    REQUEST_SCOPE,
    Layer,
    Rank,
    RequestScope,
    composed_measured,
    in_order,
)
from tests.driving import DEADLINE_S, ask, get, http_scope

pytestmark = pytest.mark.usefixtures("nothing_set")

EVERY_REQUEST = {"overhead_sample_every": 1}
NO_REQUEST = {"overhead": False}
OURS = [
    "metrics", "operator endpoints", "compression", "response cache", "memory watch",
    "request scope",
]  # fmt: skip
AROUND = [*OURS[:5], "probe lane"]  # where no routes are known, any path may be a health check
ALL_LIMITS = {
    "ratelimit": {"quotas": ["9/second", {"limit": "9/day", "key": "user", "name": "daily"}]},
    "backpressure": {"enabled": True},
    "deadlines": {"timeout_s": 5.0, "body_bytes_max": 1_000_000},
    "compression": {"decode_requests": True},
}
# Cache-Status is the one field that default settings add: without it every message is the app's.
NO_FIELD_ADDED = {"status_header": False}


class Auth:
    """Refuses whoever does not know the word."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or (b"authorization", b"Token right") in scope["headers"]:
            await self.app(scope, receive, send)
        else:
            await Response(status_code=401)(scope, receive, send)


class CopiesScope:
    """What the router writes into its copy never comes back."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(copy(scope), receive, send)


class MovesRootPath:
    """A tenant in the path: `/acme/items/7` is `/items/7` of the app."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/acme/"):
            scope = {**scope, "root_path": scope["root_path"] + "/acme"}
        await self.app(scope, receive, send)


async def dispatch(request, call_next):
    response = await call_next(request)
    response.headers["x-dispatched"] = "yes"
    return response


AUTHORIZED = ("Authorization", "Token right")
CORS = (CORSMiddleware, {"allow_origins": ["https://elsewhere.test"], "allow_methods": ["PUT"]})
SESSION = (SessionMiddleware, {"secret_key": "secret"})
GZIP = (GZipMiddleware, {"minimum_size": 1})
ALL = [(Auth, {}), CORS, SESSION, GZIP, (CopiesScope, {}), (MovesRootPath, {})]


async def item(request: Request) -> Response:
    if "session" in request.scope:
        request.session["seen"] = True
    return PlainTextResponse(f"item {request.path_params['id']} " * 20)


def build(framework, middlewares, *, installed_after: int | None, **settings) -> Any:
    """An app with `middlewares` (added in this order); `install` comes after so many of them."""
    app = framework(routes=[Route("/items/{id}", item, methods=["GET", "PUT"])])
    for index in range(len(middlewares) + 1):
        if index == installed_after:
            install(app, Settings(metrics=settings))
        if index < len(middlewares):
            middleware, options = middlewares[index]
            app.add_middleware(middleware, **options)
    return app


def routes_counted(perf: Perf) -> dict[tuple[str, int], int]:
    """(route, status) -> how many requests."""
    return {
        (route, status): series.count
        for (_, route, status), series in perf.metrics.recorder.figures.by_key.items()
    }


def chain(head: Any) -> list[str]:
    """The classes from the head of a stack inwards, along `app`."""
    names = []
    while head is not None:
        names.append(type(head).__name__)
        head = getattr(head, "app", None)
    return names


FRAMEWORKS = pytest.mark.parametrize(
    "framework", [Starlette, FastAPI], ids=["starlette", "fastapi"]
)
MOMENTS = pytest.mark.parametrize("installed_after", [0, 1, 3, len(ALL)])


# --- the order ----------------------------------------------------------------------------------


def test_the_table_has_every_rank_exactly_once_with_its_reason():
    ranks = [value for value in vars(stack).values() if isinstance(value, Rank)]
    assert sorted(ranks, key=ORDER.index) == list(ORDER)
    assert len({rank.name for rank in ORDER}) == len(ORDER)
    for rank in ORDER:
        assert rank.sees
        assert rank.why


def test_no_inner_rank_stands_outside_an_outer_one():
    places = [rank.place for rank in ORDER]
    assert places == sorted(places, key=["outer", "inner"].index)


def test_layers_come_in_the_order_of_the_table_whatever_order_they_were_made_in():
    layers = [Layer(rank, lambda app: app) for rank in reversed(ORDER)]
    ordered = [*in_order(layers, "outer"), *in_order(layers, "inner")]
    assert [layer.rank for layer in ordered] == list(ORDER)


@FRAMEWORKS
@MOMENTS
def test_outer_layers_stand_outside_the_users_middlewares_and_inner_ones_inside(
    framework, installed_after
):
    app = build(framework, ALL, installed_after=installed_after)
    users = [middleware.__name__ for middleware, _ in reversed(ALL)]
    get(app)
    built = chain(app.middleware_stack)
    assert built[:5] == [
        "Entrance",
        "MetricsMiddleware",
        "OperatorEndpoints",
        "CompressionLayer",
        "ServerErrorMiddleware",
    ]
    # The memory watch steps aside while memory suffices.
    assert built[built.index(users[0]) :][: len(users) + 4] == [
        *users, "Inner", "CacheLayer", "RequestScope", "ExceptionMiddleware",
    ]  # fmt: skip
    app.state.perf.memory.guard.refused_from = 0
    for layer in app.state.perf.memory.guard.layers:
        layer.settle()
    built = chain(app.middleware_stack)
    assert built[built.index(users[0]) :][: len(users) + 3] == [
        *users, "Inner", "CacheLayer", "MemoryLayer",
    ]  # fmt: skip


@FRAMEWORKS
@MOMENTS
def test_describe_shows_the_users_middlewares_in_their_places(framework, installed_after):
    perf = build(framework, ALL, installed_after=installed_after).state.perf
    users = [middleware.__name__ for middleware, _ in reversed(ALL)]
    rows = perf.describe()
    assert [row.name for row in rows] == [*OURS[:3], *users, *OURS[3:], framework.__name__]
    places = ["outer"] * 3 + ["yours"] * len(users) + ["inner"] * 3 + ["app"]
    assert [row.place for row in rows] == places
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.sees and row.why for row in rows)


def test_describe_around_any_other_app_has_all_layers_in_the_order_of_the_table():
    rows = install(by_hand("answers")).describe()
    assert [row.name for row in rows] == [*AROUND, "function"]


def test_describe_shows_every_layer_that_is_on_in_the_order_of_the_table():
    settings = Settings(**ALL_LIMITS, database={"url": "sqlite://"})
    rows = install(by_hand("answers"), settings).describe()
    # Another place for the cache; nothing in between.
    not_there = (FRONT_CACHE, REQUEST_SCOPE)
    assert [row.name for row in rows[:-1]] == [
        rank.name for rank in ORDER if rank not in not_there
    ]  # fmt: skip


@FRAMEWORKS
def test_the_cache_stands_before_the_users_middlewares_where_a_setting_says_so(framework):
    app = framework(routes=[Route("/items/{id}", item)], middleware=[Middleware(Auth)])
    perf = install(app, Settings(cache={"position": "outer"}, metrics=EVERY_REQUEST))
    assert [(row.name, row.place) for row in perf.describe()] == [
        ("metrics", "outer"),
        ("operator endpoints", "outer"),
        ("compression", "outer"),
        ("response cache in front", "outer"),
        ("Auth", "yours"),
        ("memory watch", "inner"),
        ("request scope", "inner"),
        (framework.__name__, "app"),
    ]
    assert get(app, "/items/7", headers=[AUTHORIZED]).status == 200
    assert list(perf.status()["overhead_us"]) == [
        "metrics", "operator endpoints", "compression", "response cache in front",
        "memory watch", "request scope",
    ]  # fmt: skip
    built = chain(app.middleware_stack)
    assert built.index("CacheLayer") < built.index("Auth") < built.index("Inner")
    assert built.count("CacheLayer") == 1


def test_the_request_scope_is_there_where_a_middleware_stands_between():
    app = Starlette()
    perf = install(app, Settings())
    assert [row.name for row in perf.describe()] == [*OURS[:5], "Starlette"]
    app.add_middleware(Auth)
    assert [row.name for row in perf.describe()] == [*OURS[:3], "Auth", *OURS[3:], "Starlette"]


def test_describe_follows_what_is_added_later():
    app = build(Starlette, [], installed_after=0)
    assert "Auth" not in [row.name for row in app.state.perf.describe()]
    app.add_middleware(Auth)
    assert [row.name for row in app.state.perf.describe()][3] == "Auth"


def test_a_middleware_that_is_a_function_has_a_name_too():
    def logged(app):
        return app

    app = Starlette(middleware=[Middleware(logged)])
    assert "logged" in [row.name for row in install(app).describe()]


@FRAMEWORKS
@MOMENTS
def test_the_users_list_of_middlewares_stays_the_users(framework, installed_after):
    app = build(framework, ALL, installed_after=installed_after)
    before, items = app.user_middleware, list(app.user_middleware)
    get(app)
    assert app.user_middleware is before
    assert app.user_middleware == items


def test_a_stack_that_cannot_be_built_leaves_the_users_list_alone():
    def broken(app):
        raise RuntimeError("broken")

    app = Starlette(middleware=[Middleware(broken)])
    install(app)
    before = app.user_middleware
    with pytest.raises(RuntimeError, match="broken"):
        get(app)
    assert app.user_middleware is before
    assert len(before) == 1


def test_a_layer_calls_what_is_put_in_the_place_of_its_app():
    async def app(scope, receive, send):
        return None

    layer, other = RequestScope(app), RequestScope(app)
    assert layer.below is layer.app is app
    layer.app = other
    assert (layer.app, layer.below) == (other, other.__call__)
    layer.app = app
    assert layer.below is app


def test_the_stack_can_be_followed_from_its_head():
    """A fixed bug: FastAPI's telemetry follows `app` to see whether OpenTelemetry's own middleware
    is in the stack, and makes every span twice when it is and cannot be seen.
    """
    app = build(FastAPI, ALL, installed_after=0)
    get(app)
    built = chain(app.middleware_stack)
    assert built[0] == "Entrance"
    assert {middleware.__name__ for middleware, _ in ALL} <= set(built)
    assert "AsyncExitStackMiddleware" in built, "the innermost of FastAPI"


class Traced:
    """Stands around all that an app has built, and sees its requests."""

    seen: list[str]

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.seen.append(scope["path"])
        await self.app(scope, receive, send)


def instrument(app: Any) -> list[str]:
    """Wrap what builds the app's stack as OpenTelemetry's FastAPIInstrumentor 0.66 does: it takes
    Starlette's outermost layer apart, and leaves alone what does not begin with that one.
    """
    seen: list[str] = []
    build_as_before = app.build_middleware_stack

    def build_middleware_stack():
        built = build_as_before()
        if not isinstance(built, ServerErrorMiddleware):
            return built
        inner = ServerErrorMiddleware(built.app, handler=built.handler, debug=built.debug)
        traced = Traced(inner)
        traced.seen = seen
        return ServerErrorMiddleware(traced)

    app.build_middleware_stack = build_middleware_stack
    return seen


def server_of(app: Any) -> Any:
    """It goes on when an app has failed."""

    async def serve(scope, receive, send):
        with suppress(AppError):
            await app(scope, receive, send)

    return serve


async def fail(request: Request) -> Response:
    raise AppError(request.url.path)


handled: list[str] = []


async def answer_failure(request: Request, error: Exception) -> Response:
    handled.append(request.url.path)
    return PlainTextResponse(f"failed: {error}", 500)


@FRAMEWORKS
@pytest.mark.parametrize("installed_first", [True, False])
def test_who_wraps_the_building_of_the_stack_finds_starlettes_outermost_layer(
    framework, installed_first
):
    """A fixed bug: FastAPIInstrumentor.instrument_app(app) after install(app) traced nothing."""
    app = build(framework, ALL[:2], installed_after=0 if installed_first else None)
    app.add_route("/fail", fail)
    app.add_exception_handler(Exception, answer_failure)
    handled.clear()
    seen = instrument(app)
    perf = app.state.perf if installed_first else install(app, Settings())
    assert get(app, "/items/7", headers=[AUTHORIZED]).status == 200
    answer = get(server_of(app), "/fail", headers=[AUTHORIZED])
    assert (answer.status, answer.body) == (500, b"failed: /fail")
    assert handled == ["/fail"]
    assert seen == ["/items/7", "/fail"]
    assert routes_counted(perf) == {("/items/{id}", 200): 1, ("/fail", 500): 1}
    assert get(app, "/metrics").status == 200


# --- with the user's middlewares, measured and not ----------------------------------------------


@FRAMEWORKS
@pytest.mark.parametrize("metrics", [NO_REQUEST, EVERY_REQUEST], ids=["plain", "measured"])
@pytest.mark.parametrize("installed_after", [0, 1])
class TestWithOneMiddleware:
    """Whichever of the two came first."""

    def test_a_refusal_of_the_app_is_counted_and_operators_get_in(
        self, framework, metrics, installed_after
    ):
        app = build(framework, [(Auth, {})], installed_after=installed_after, **metrics)
        assert get(app, "/items/7").status == 401
        assert get(app, "/items/7", headers=[AUTHORIZED]).status == 200
        assert get(app, "/metrics").status == 200
        assert routes_counted(app.state.perf) == {
            ("unmatched", 401): 1,  # the router has not seen it
            ("/items/{id}", 200): 1,
            ("/metrics", 200): 1,
        }

    def test_a_preflight_is_answered_by_the_apps_cors(self, framework, metrics, installed_after):
        app = build(framework, [CORS], installed_after=installed_after, **metrics)
        origin = ("Origin", "https://elsewhere.test")
        asked = [origin, ("Access-Control-Request-Method", "PUT")]
        answer = get(app, "/items/7", method="OPTIONS", headers=asked)
        assert answer.status == 200
        assert answer.header("access-control-allow-methods") == "PUT"
        answer = get(app, "/items/7", headers=[origin])
        assert answer.header("access-control-allow-origin") == "https://elsewhere.test"
        assert routes_counted(app.state.perf) == {("unmatched", 200): 1, ("/items/{id}", 200): 1}

    def test_a_session_is_set(self, framework, metrics, installed_after):
        app = build(framework, [SESSION], installed_after=installed_after, **metrics)
        assert get(app, "/items/7").header("set-cookie").startswith("session=")

    def test_gzip_packs_what_the_app_says(self, framework, metrics, installed_after):
        app = build(framework, [GZIP], installed_after=installed_after, **metrics)
        answer = get(app, "/items/7", headers=[("Accept-Encoding", "gzip")])
        assert answer.header("content-encoding") == "gzip"
        assert len(answer.body) == int(answer.header("content-length"))

    def test_the_route_is_known_although_the_scope_was_copied(
        self, framework, metrics, installed_after
    ):
        app = build(framework, [(CopiesScope, {})], installed_after=installed_after, **metrics)
        assert get(app, "/items/7").status == 200
        assert get(app, "/none/7").status == 404
        assert routes_counted(app.state.perf) == {("/items/{id}", 200): 1, ("unmatched", 404): 1}

    def test_the_route_is_known_although_root_path_was_moved(
        self, framework, metrics, installed_after
    ):
        app = build(framework, [(MovesRootPath, {})], installed_after=installed_after, **metrics)
        assert get(app, "/acme/items/7").status == 200
        assert get(app, "/items/7").status == 200
        assert routes_counted(app.state.perf) == {("/items/{id}", 200): 2}

    def test_a_dispatch_middleware_works(self, framework, metrics, installed_after):
        app = build(
            framework,
            [(BaseHTTPMiddleware, {"dispatch": dispatch})],
            installed_after=installed_after,
            **metrics,
        )
        assert get(app, "/items/7").header("x-dispatched") == "yes"
        assert routes_counted(app.state.perf) == {("/items/{id}", 200): 1}


# --- scopes that nobody knows -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lifespan.future", "webtransport", ""])
def test_a_scope_of_an_unknown_type_reaches_the_app_untouched(kind):
    seen = []

    async def app(*arguments):
        seen.append(arguments)

    scope = {"type": kind}
    arguments = (scope, object(), object())

    async def send_it():
        await install(app)(*arguments)

    anyio.run(send_it)
    assert seen == [arguments]
    assert scope == {"type": kind}


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "installed"])
def test_a_framework_answers_an_unknown_scope_as_before(wrapped):
    app = Starlette()
    if wrapped:
        install(app)
    with pytest.raises(AssertionError):
        anyio.run(ask, app, {"type": "webtransport"})


# --- the measured twin --------------------------------------------------------------------------


class AppError(Exception):
    """The app's own."""


ERROR = AppError("the app's own")


def by_hand(behaviour: str) -> Any:
    """An app that notes in `app.notes` what happens to it."""
    notes = []

    async def app(scope, receive, send):
        async def start(*headers):
            await send({"type": "http.response.start", "status": 200, "headers": list(headers)})

        async def part(body, *, more):
            await send({"type": "http.response.body", "body": body, "more_body": more})

        if scope["type"] == "websocket":
            notes.append(await receive())
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4000})
            return
        match behaviour:
            case "answers":
                await start((b"x-mine", b"1"), (b"x-mine", b"2"))
                await part(b"hello", more=False)
            case "streams":
                await start()
                for number in range(3):
                    await part(b"%d" % number, more=True)
                await part(b"", more=False)
            case "echoes":
                await start()
                more = True
                while more:
                    message = await receive()
                    more = message["more_body"]
                    await part(message["body"], more=more)
            case "raises":
                raise ERROR
            case "raises in the middle":
                await start()
                await part(b"first", more=True)
                raise ERROR
            case "raises after the answer":
                await start()
                await part(b"hello", more=False)
                raise ERROR
            case "says nothing":
                pass
            case "waits for the client to leave":
                await start()
                await receive()
                notes.append(await receive())
            case "waits and sends at once":
                await start()

                async def left():
                    await receive()
                    notes.append(await receive())
                    tasks.cancel_scope.cancel()

                async def stream():
                    await part(b"first", more=True)
                    await anyio.sleep_forever()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(left)
                    tasks.start_soon(stream)
            case "is told that its message is wrong":
                try:
                    await send({"type": "wrong"})
                except ValueError as error:
                    notes.append(str(error))
                await start()
                await part(b"", more=False)
        notes.append("returned")

    app.notes = notes
    return app


BEHAVIOURS = [
    "answers", "streams", "echoes", "raises", "raises in the middle", "raises after the answer",
    "says nothing", "waits for the client to leave", "waits and sends at once",
    "is told that its message is wrong",
]  # fmt: skip


def played(app, *, kind: str = "http") -> tuple[list[Any], str]:
    """What a server saw of the app, and how the app ended, when the client leaves in the end."""
    saw: list[Any] = []
    incoming = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"two", "more_body": False},
        {"type": "http.request", "body": b"one", "more_body": True},
    ]
    if kind == "websocket":
        incoming = [{"type": "websocket.connect"}]

    async def receive():
        message = incoming.pop()
        saw.append(("asked for", message["type"]))
        return message

    async def send(message):
        if message["type"] == "wrong":
            raise ValueError("no such message")
        saw.append(message)

    async def run():
        with anyio.fail_after(DEADLINE_S):
            try:
                await app({**http_scope("/items/7"), "type": kind}, receive, send)
            except AppError as error:
                return "raised its own error" if error is ERROR else "raised another error"
            return "returned"

    return saw, anyio.run(run)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("place", ["around", "inside"])
def test_a_measured_request_is_like_any_other(behaviour, place):
    """Same bytes, same exceptions, same disconnects; with the layers, without and bare."""

    def outcome(metrics):
        served = core = by_hand(behaviour)
        if place == "inside":
            served = Starlette(middleware=[Middleware(CopiesScope)])
            served.router.default = core
        if metrics is not None:
            served = install(served, Settings(metrics=metrics, cache=NO_FIELD_ADDED))
        seen = [played(served) for _ in range(2)], core.notes
        if metrics is EVERY_REQUEST:
            in_stack = OURS if place == "inside" else AROUND
            assert list(served.status()["overhead_us"]) == in_stack
        return seen

    bare = outcome(None)
    assert outcome(NO_REQUEST) == bare
    assert outcome(EVERY_REQUEST) == bare


def test_a_websocket_is_never_sampled_and_passes():
    core = by_hand("answers")
    perf = install(core, Settings(metrics=EVERY_REQUEST))
    assert played(perf, kind="websocket") == played(core, kind="websocket")
    assert perf.status()["overhead_us"] == {}


@pytest.mark.parametrize("metrics", [NO_REQUEST, EVERY_REQUEST], ids=["plain", "measured"])
def test_streaming_and_background_tasks_work_in_a_framework(metrics):
    done = []

    async def stream(request):
        async def numbers():
            for number in range(3):
                yield f"{number}\n"

        return StreamingResponse(numbers(), background=BackgroundTask(done.append, "background"))

    app = Starlette(routes=[Route("/", stream)])
    install(app, Settings(metrics=metrics))
    answer = get(app)
    assert [message.get("body") for message in answer.messages[1:]] == [b"0\n", b"1\n", b"2\n", b""]
    assert done == ["background"]


@pytest.mark.parametrize("metrics", [NO_REQUEST, EVERY_REQUEST], ids=["plain", "measured"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancellation_reaches_the_app_and_comes_out_of_it(metrics, backend):
    notes = []

    async def app(scope, receive, send):
        try:
            await receive()
        finally:
            notes.append("cleaned up")

    async def run():
        perf = install(app, Settings(metrics=metrics))
        with anyio.move_on_after(0.01) as scope:
            await perf(http_scope("/"), anyio.sleep_forever, anyio.sleep_forever)
        return scope.cancelled_caught

    assert anyio.run(run, backend=backend)
    assert notes == ["cleaned up"]


# --- which requests are measured, and what is told of them --------------------------------------


def samples(perf: Perf) -> int:
    page = get(perf, "/metrics").body.decode()
    prefix = 'perf_layer_samples_total{layer="metrics"} '
    return next(
        int(float(line.removeprefix(prefix)))
        for line in page.splitlines()
        if line.startswith(prefix)
    )


def test_one_request_in_so_many_is_measured():
    perf = install(by_hand("answers"), Settings(metrics={"overhead_sample_every": 3}))
    for _ in range(8):
        get(perf)
    assert samples(perf) == 2, "the page asked for here is the ninth, and told before it is counted"
    assert samples(perf) == 3


def test_the_first_request_is_not_measured():
    """It pays for caches that are still cold."""
    perf = install(by_hand("answers"), Settings(metrics={"overhead_sample_every": 2}))
    get(perf)
    assert perf.status()["overhead_us"] == {}
    get(perf)
    assert list(perf.status()["overhead_us"]) == AROUND


def test_a_measured_request_that_fails_is_settled_too():
    perf = install(by_hand("raises"), Settings(metrics=EVERY_REQUEST))
    with suppress(AppError):
        get(perf)
    assert list(perf.status()["overhead_us"]) == AROUND


def test_what_the_app_and_the_server_take_is_not_charged_to_our_layers():
    """The app waits, the server waits: each for much longer than any layer works."""
    wait_s = 0.2

    async def app(scope, receive, send):
        await receive()
        await anyio.sleep(wait_s)
        await PlainTextResponse("late")(scope, receive, send)

    async def receive():
        await anyio.sleep(wait_s)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        await anyio.sleep(wait_s)

    framework = Starlette(middleware=[Middleware(CopiesScope)])
    framework.router.default = app
    for perf in (install(app, Settings(metrics=EVERY_REQUEST)),
                 install(framework, Settings(metrics=EVERY_REQUEST))):  # fmt: skip
        anyio.run(perf, http_scope("/"), receive, send)
        for name, mean_us in perf.status()["overhead_us"].items():
            assert mean_us < wait_s * 1e6 / 2, name


class FakeClock:
    """Nanoseconds that pass only where somebody spends them."""

    def __init__(self):
        self.now_ns = 0

    def __call__(self):
        return self.now_ns

    def spend(self, ns):
        self.now_ns += ns


def test_each_layer_is_charged_for_exactly_its_own_work(monkeypatch):
    """server | first | second | app, with a part of a body read and two messages sent."""
    clock = FakeClock()
    monkeypatch.setattr(stack, "perf_counter_ns", clock)

    def busy(way_in, per_receive, per_send, way_out):
        """A layer that spends so much on its way in, before and after each message, and out."""

        def build(app):
            async def layer(scope, receive, send):
                async def receive_through():
                    clock.spend(per_receive)
                    message = await receive()
                    clock.spend(per_receive)
                    return message

                async def send_through(message):
                    clock.spend(per_send)
                    await send(message)
                    clock.spend(per_send)

                clock.spend(way_in)
                await app(scope, receive_through, send_through)
                clock.spend(way_out)

            return layer

        return build

    async def app(scope, receive, send):
        clock.spend(1_000_000)
        await receive()
        for _ in range(2):
            await send({})
            clock.spend(1_000_000)

    async def server(*_):
        clock.spend(1_000_000_000)

    overhead = Overhead(["first", "second"])
    layers = [
        Layer(METRICS, busy(1, 10, 100, 1_000)),
        Layer(OPERATORS, busy(2, 20, 200, 2_000)),
    ]
    measured = composed_measured(layers, app, first=0)
    meter = LayerMeter(overhead, now_ns=clock())
    anyio.run(measured, {METER: meter}, server, server)
    assert meter.spent_ns == [1 + 2 * 10 + 4 * 100 + 1_000, 2 + 2 * 20 + 4 * 200 + 2_000]


@pytest.mark.parametrize("metrics", [NO_REQUEST, EVERY_REQUEST], ids=["plain", "measured"])
def test_what_an_app_returns_is_passed_on(metrics):
    """Servers complain of it."""

    async def app(scope, receive, send):
        return "a response object"

    async def call():
        perf = install(app, Settings(metrics=metrics))
        return await perf(http_scope("/"), anyio.sleep_forever, anyio.sleep_forever)

    assert anyio.run(call) == "a response object"


# --- the meter, with numbers --------------------------------------------------------------------


def test_the_meter_charges_each_region_for_the_time_between_two_crossings():
    """server | 0 | 1 | app: one request with a body and an answer."""
    meter = LayerMeter(Overhead(["outer", "inner"]), now_ns=1_000)
    for region, now_ns in [
        (0, 1_010),  # in: the first 10 are the server's
        (1, 1_030),  # 0 had 20
        (OUTSIDE, 1_035),  # 1 had 5; the app runs
        (1, 1_135),
        (0, 1_137),  # 1 had 2 on the way of a message out
        (OUTSIDE, 1_140),  # 0 had 3; the server sends
        (0, 2_000),
        (1, 2_001),  # 0 had 1
        (OUTSIDE, 2_001),
        (1, 3_000),
        (0, 3_004),  # 1 had 4, on return
        (OUTSIDE, 3_006),  # 0 had 2
    ]:
        meter.cross(region, now_ns)
    assert meter.spent_ns == [20 + 3 + 1 + 2, 5 + 2 + 4]


def test_a_meter_that_crosses_nothing_has_spent_nothing():
    assert LayerMeter(Overhead(["only"]), now_ns=5).spent_ns == [0]


def test_overhead_is_the_mean_over_its_samples():
    overhead = Overhead(["outer", "inner", "absent"])
    assert overhead.mean_us() == {}
    for spent_ns in ([1_000, 500, 0], [3_000, 0, 0]):
        meter = LayerMeter(overhead, now_ns=0)
        meter.spent_ns[:] = spent_ns
        overhead.settle(meter)
    assert overhead.mean_us() == {"outer": 2.0, "inner": 0.25}
    seconds, samples = overhead.families()
    assert [(point.labels.pairs, point.value) for point in seconds.points] == [
        ((("layer", "outer"),), 4e-6),
        ((("layer", "inner"),), 0.5e-6),
    ]
    assert [point.value for point in samples.points] == [2, 2]
    overhead.reset()
    assert overhead.mean_us() == {}
    assert [point for family in overhead.families() for point in family.points] == []


@pytest.mark.parametrize("section", ["none", "all"])
def test_header_fields_may_be_iterables_of_iterables(section):
    """As ASGI says, and as Falcon's test client sends them; the app reads them after everybody."""

    async def app(scope, receive, send):
        seen.append([tuple(field) for field in scope["headers"]])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    seen = []
    limits = {
        "ratelimit": {"quotas": ["10/minute"]},
        "backpressure": {"enabled": True},
        "deadlines": {"timeout_s": 5, "body_bytes_max": 9, "header_count_max": 9},
        "compression": {"decode_requests": True},
    }
    wrapped = install(app, Settings(**(limits if section == "all" else {})))
    fields = [("Accept-Encoding", "gzip"), ("Traceparent", f"00-{'a' * 32}-{'b' * 16}-01")]
    scope = http_scope(headers=fields)
    expected = scope["headers"]
    scope["headers"] = map(iter, expected)
    assert anyio.run(ask, wrapped, scope).body == b"hello"
    assert seen == [expected]
