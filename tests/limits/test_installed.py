"""The limits as `install` puts them in: settings, decorators, their order, their figures."""

from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from perf_middleware import (
    OverloadChanged,
    Settings,
    SettingsError,
    body_limit,
    cache_response,
    criticality,
    install,
    rate_limit,
    timeout,
)
from tests.driving import ask, http_scope

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(autouse=True)
def _clean(nothing_set):
    """No settings from outside."""


def names(perf):
    return [layer.name for layer in perf.describe()]


async def hello(request):
    return PlainTextResponse("hello")


def decorated_fastapi():
    """The same endpoint directly, in an included router and in a mounted app."""
    app, router, sub = FastAPI(), APIRouter(), FastAPI()

    def add(target, path, name):
        @target.get(path)
        @rate_limit("1/minute", name=name)
        async def limited() -> str:
            return "hello"

    add(app, "/direct/{n}", "direct")
    add(router, "/included/{n}", "included")
    add(sub, "/mounted/{n}", "mounted")
    app.include_router(router, prefix="/v1")
    app.mount("/sub", sub)
    return app


def decorated_starlette():
    def limited(name):
        return rate_limit("1/minute", name=name)(lambda request: PlainTextResponse("hello"))

    return Starlette(
        routes=[
            Route("/direct/{n}", limited("direct")),
            Mount("/v1", routes=[Route("/included/{n}", limited("included"))]),
            Mount("/sub", app=Starlette(routes=[Route("/mounted/{n}", limited("mounted"))])),
        ]
    )


@pytest.mark.parametrize("make", [decorated_fastapi, decorated_starlette])
@pytest.mark.parametrize("path", ["/direct/1", "/v1/included/1", "/sub/mounted/1"])
@pytest.mark.usefixtures("standing_clock")
async def test_a_decorator_limits_from_the_first_request_on_wherever_its_endpoint_is(make, path):
    app = make()
    perf = install(app, Settings())
    first, second = [await ask(app, http_scope(path)) for _ in range(2)]
    assert (first.status, second.status) == (200, 429)
    assert second.json()["quota"] == path.split("/")[-2]
    assert second.header("retry-after") == "60"
    assert "rate limit" in names(perf)


async def test_a_limit_on_an_endpoint_of_one_host_holds_for_that_host_alone():
    limited = rate_limit("1/hour")(lambda request: PlainTextResponse("limited"))
    hosts = {"a.test": limited, "b.test": hello}
    app = Starlette(
        routes=[Host(host, Router([Route("/", asked)])) for host, asked in hosts.items()]
    )
    install(app, Settings())
    statuses = [
        (await ask(app, http_scope("/", headers=[("host", host)]))).status
        for host in ("b.test", "a.test", "a.test", "b.test")
    ]
    assert statuses == [200, 200, 429, 200]


async def test_a_websocket_and_a_request_of_one_path_have_the_limit_of_their_own_endpoint():
    @rate_limit("1/hour")
    async def socket(websocket):
        await websocket.accept()
        await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/", socket), Route("/", hello)])
    install(app, Settings())
    assert (await ask(app, http_scope("/"))).status == 200
    scope = {**http_scope("/"), "type": "websocket", "scheme": "ws", "subprotocols": []}
    del scope["method"]
    outcomes = [(await ask_websocket(app, dict(scope)))[0]["type"] for _ in range(2)]
    assert outcomes == ["websocket.accept", "websocket.close"]
    assert [(await ask(app, http_scope("/"))).status for _ in range(2)] == [200] * 2


async def ask_websocket(app, scope):
    sent = []
    incoming = [{"type": "websocket.disconnect", "code": 1000}, {"type": "websocket.connect"}]

    async def receive():
        return incoming.pop()

    async def send(message):
        sent.append(message)

    with anyio.fail_after(120):
        await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("rule", [
    {"ratelimit": {"rules": [{"path": "/", "methods": ["G T"], "exempt": True}]}},
    {"backpressure": {"rules": [{"path": "/", "methods": ["G T"], "criticality": "sheddable"}]}},
    {"deadlines": {"rules": [{"path": "/", "methods": ["G T"], "timeout_s": 1}]}},
], ids=lambda rule: next(iter(rule)))  # fmt: skip
def test_a_rule_for_what_is_no_method_is_refused_at_the_start(rule):
    with pytest.raises(SettingsError, match="'G T' is no method of HTTP"):
        Settings(**rule)


async def test_without_a_limit_anywhere_no_layer_of_limits_stands():
    app = Starlette(routes=[Route("/", hello)])
    perf = install(app, Settings())
    assert names(perf) == [
        "metrics", "operator endpoints", "compression", "response cache",
        "memory watch", "Starlette",
    ]  # fmt: skip


async def test_a_decorator_that_exempts_takes_its_endpoint_out_of_the_settings_quotas():
    app = FastAPI()

    @app.get("/free")
    @rate_limit(exempt=True)
    async def free() -> str:
        return "free"

    install(app, Settings(ratelimit={"quotas": ["1/minute"]}))
    assert [(await ask(app, http_scope("/free"))).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("place", ["outer", "inner"])
@pytest.mark.parametrize("position", ["outer", "inner"])
@pytest.mark.usefixtures("standing_clock")
async def test_what_a_client_has_left_is_never_told_to_another_from_the_cache(position, place):
    app = FastAPI()

    @app.get("/")
    @cache_response(ttl=60)
    async def read() -> str:
        return "read"

    quotas = [{"limit": "5/minute", "place": place}]
    ratelimit = {"quotas": quotas, "legacy_headers": True}
    install(app, Settings(ratelimit=ratelimit, cache={"position": position}))
    first = await ask(app, http_scope("/", client=("10.0.0.1", 1)))
    assert first.header("ratelimit") == '"default";r=4;t=12'
    await ask(app, http_scope("/", client=("10.0.0.2", 1)))
    hit = await ask(app, http_scope("/", client=("10.0.0.2", 1)))
    assert "; hit" in hit.header("cache-status")
    told = {name for name, _ in hit.headers if b"ratelimit" in name}
    if (position, place) == ("outer", "inner"):
        assert told == set()  # no quota was asked
    else:
        assert hit.header("ratelimit") == '"default";r=3;t=24'
        assert len(told) == 5


async def test_a_hit_of_the_cache_draws_from_the_quota_too():
    calls = 0
    app = FastAPI()

    @app.get("/")
    @cache_response(ttl=60)
    async def read() -> str:
        nonlocal calls
        calls += 1
        return "read"

    install(app, Settings(ratelimit={"quotas": ["3/minute"]}))
    await ask(app, http_scope("/"))
    answers = [await ask(app, http_scope("/")) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert calls == 1
    assert answers[0].header("ratelimit").startswith('"default";r=1')


async def test_the_operators_pages_are_never_limited():
    app = Starlette(routes=[Route("/", hello)])
    install(app, Settings(ratelimit={"quotas": ["1/minute"]}, backpressure={"enabled": True}))
    assert [(await ask(app, http_scope("/metrics"))).status for _ in range(3)] == [200] * 3


async def test_a_quota_by_user_is_judged_behind_the_apps_own_authentication():
    class ByHeader(AuthenticationBackend):
        async def authenticate(self, connection):
            name = connection.headers.get("x-user")
            return None if name is None else (AuthCredentials([]), SimpleUser(name))

    app = Starlette(
        routes=[Route("/", hello)],
        middleware=[Middleware(AuthenticationMiddleware, backend=ByHeader())],
    )
    perf = install(app, Settings(ratelimit={"quotas": [{"limit": "1/minute", "key": "user"}]}))
    assert names(perf).index("rate limit by user") > names(perf).index("AuthenticationMiddleware")
    users = ["ann", "bob", "ann", "bob"]
    answers = [await ask(app, http_scope("/", headers=[("x-user", user)])) for user in users]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]


async def test_a_timeout_by_decorator_answers_504_and_the_endpoint_cleans_up():
    cleaned = []
    app = FastAPI()

    async def connection():
        try:
            yield "connection"
        finally:
            cleaned.append("dependency")

    @app.get("/slow")
    @timeout(0.05)
    async def slow(held: str = Depends(connection)) -> str:
        try:
            await anyio.sleep(30)
        finally:
            cleaned.append("endpoint")
        return held

    perf = install(app, Settings())
    answer = await ask(app, http_scope("/slow"))
    assert (answer.status, answer.header("content-type")) == (504, "application/problem+json")
    assert cleaned == ["endpoint", "dependency"]
    assert "deadline" in names(perf)


async def test_a_decorator_holds_on_the_function_of_a_partial_too():
    @timeout(0.05)
    async def slow(request, seconds):
        await anyio.sleep(seconds)

    app = Starlette(routes=[Route("/", partial(slow, seconds=30))])
    install(app, Settings())
    assert (await ask(app, http_scope("/"))).status == 504


@pytest.mark.parametrize(("trusted", "warns"), [((), True), (("10.0.0.0/8",), False)])
def test_to_follow_deadlines_of_nobody_is_told_at_the_start(caplog, trusted, warns):
    install(FastAPI(), Settings(deadlines={"follow_header": True}, callers={"trusted": trusted}))
    assert ("callers.trusted names nobody" in caplog.text) is warns


async def test_a_504_is_not_stored_and_the_stale_answer_is_given():
    calls = 0
    app = FastAPI()

    @app.get("/")
    @timeout(0.05)
    @cache_response(ttl=0, stale_if_error=60)
    async def read() -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            await anyio.sleep(30)
        return f"read {calls}"

    perf = install(app, Settings())
    bodies = []
    for _ in range(3):
        answer = await ask(app, http_scope("/"))
        bodies.append((answer.status, answer.json()))
    assert bodies == [(200, "read 1"), (200, "read 1"), (200, "read 3")]
    assert perf.limits.status()["deadlines"]["timeouts"]["head"] == 1


def app_with_a_late_route():
    @asynccontextmanager
    async def lifespan(app):
        @app.get("/late")
        @timeout(0.05)
        async def late() -> None:
            await anyio.sleep(0.2)

        yield

    return FastAPI(lifespan=lifespan)


def test_a_decorator_on_a_route_that_was_added_while_the_app_started_holds_where_its_layer_is():
    app = app_with_a_late_route()
    install(app, Settings(deadlines={"timeout_s": 20}))
    with TestClient(app) as client:
        assert client.get("/late").status_code == 504


def test_a_decorator_on_a_route_added_at_the_start_whose_layer_is_not_built_is_told(caplog):
    app = app_with_a_late_route()
    perf = install(app, Settings())
    with TestClient(app) as client:
        assert "@timeout stands on a route that was added while the app started" in caplog.text
        assert client.get("/late").status_code == 200
        assert "deadline" not in names(perf)


async def test_the_apps_code_can_ask_how_long_it_has():
    app = FastAPI()

    @app.get("/asks")
    @timeout(5)
    async def asks() -> float:
        return perf.limits.deadline().remaining_s()

    @app.get("/free")
    async def free() -> bool:
        return perf.limits.deadline() is None

    perf = install(app, Settings())
    assert 4 < (await ask(app, http_scope("/asks"))).json() <= 5
    assert (await ask(app, http_scope("/free"))).json() is True


async def test_a_body_limit_by_decorator_refuses_before_anything_is_read():
    app = FastAPI()

    @app.post("/upload")
    @body_limit(10)
    async def upload() -> str:
        return "taken"

    perf = install(app, Settings())
    scope = http_scope("/upload", method="POST", headers=[("content-length", "11")])
    assert (await ask(app, scope, b"x" * 11)).status == 413
    assert "request limits" in names(perf)


async def test_a_sheddable_endpoint_is_refused_while_the_process_is_overloaded():
    app = FastAPI()
    changes = []

    @app.get("/report")
    @criticality("sheddable")
    async def report() -> str:
        return "report"

    @app.get("/order")
    async def order() -> str:
        return "order"

    perf = install(app, Settings(backpressure={"enabled": True}))
    perf.events.subscribe(OverloadChanged, changes.append)
    async with perf.running():
        assert (await ask(app, http_scope("/report"))).status == 200
        perf.limits.overload.force(2, seconds=60)
        assert perf.limits.level == 2
        shed = await ask(app, http_scope("/report"))
        assert (shed.status, shed.header("cache-control")) == (503, "no-store")
        assert int(shed.header("retry-after")) >= 1
        assert (await ask(app, http_scope("/order"))).status == 200
        assert [change.level for change in changes] == [2]
        perf.limits.overload.release()
        assert (await ask(app, http_scope("/report"))).status == 200


async def test_a_trusted_caller_may_say_how_critical_its_request_is_and_nobody_else():
    app = Starlette(routes=[Route("/", hello)])
    perf = install(app, Settings(backpressure={"enabled": True}, callers={"trusted": "10.0.0.0/8"}))
    async with perf.running():
        perf.limits.overload.force(2, seconds=60)

        async def asked(client):
            headers = [("x-criticality", "sheddable")]
            return (await ask(app, http_scope("/", headers=headers, client=(client, 5)))).status

        assert await asked("10.1.2.3") == 503
        assert await asked("192.0.2.1") == 200


async def test_what_is_stale_is_not_refreshed_while_the_process_is_overloaded():
    calls = 0
    app = FastAPI()

    @app.get("/")
    @cache_response(ttl=0, stale_while_revalidate=60)
    async def read() -> str:
        nonlocal calls
        calls += 1
        return "read"

    perf = install(app, Settings())
    async with perf.running():
        await ask(app, http_scope("/"))
        perf.limits.overload.force(2, seconds=60)
        assert (await ask(app, http_scope("/"))).status == 200
        assert calls == 1
        perf.limits.overload.release()
        await ask(app, http_scope("/"))
        assert calls == 2


async def test_a_stream_goes_on_through_all_limits_as_without_them():
    async def pieces():
        for number in range(3):
            yield f"{number}\n"

    app = Starlette(
        routes=[Route("/", lambda request: StreamingResponse(pieces(), media_type="text/plain"))]
    )
    install(
        app,
        Settings(
            ratelimit={"quotas": ["9/second"]}, backpressure={"enabled": True},
            deadlines={"timeout_s": 5.0, "body_bytes_max": 100, "body_idle_s": 5.0},
        ),
    )  # fmt: skip
    answer = await ask(app, http_scope("/"))
    assert answer.body == b"0\n1\n2\n"


async def test_status_and_metrics_tell_of_every_limit():
    app = Starlette(routes=[Route("/", hello)])
    perf = install(
        app,
        Settings(
            ratelimit={"quotas": ["9/second"]}, backpressure={"enabled": True},
            deadlines={"timeout_s": 5.0},
        ),
    )  # fmt: skip
    async with perf.running():
        await ask(app, http_scope("/"))
        status = perf.status()["limits"]
        page = (await ask(app, http_scope("/metrics"))).body.decode()
    assert set(status) == {"overload", "rate", "backpressure", "deadlines", "threads"}
    assert status["overload"]["level"] == "normal"
    for family in (
        'perf_ratelimit_requests_total{quota="default",outcome="admitted"} 1',
        'perf_backpressure_admitted_total{criticality="critical"} 1',
        "perf_deadline_timeouts_total", "perf_overload_level 0", "perf_threads_limit",
    ):  # fmt: skip
        assert family in page


async def test_the_limit_hears_of_a_starved_loop_from_the_level():
    perf = install(Starlette(), Settings(backpressure={"enabled": True}))
    asked = perf.limits.backpressure.fold.is_starved
    async with perf.running():
        assert asked() is False
        perf.limits.overload._lag.is_starved = True
        assert asked() is True
    alone = install(
        Starlette(), Settings(backpressure={"enabled": True}, overload={"enabled": False})
    )
    assert alone.limits.backpressure.fold.is_starved is None
