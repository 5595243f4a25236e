"""Which endpoint a request will reach, asked before it is routed: the one that the router takes."""

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from perf_middleware.routing_ahead import RoutingAhead
from tests.driving import ask, http_scope

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def endpoint(name):
    async def answer(request):
        return PlainTextResponse(name)

    answer.__name__ = name
    return answer


class Item(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("Item")


def starlette_app():
    inner = Starlette(routes=[Route("/{id:int}", endpoint("in_app")), Route("/", endpoint("root"))])
    return Starlette(
        routes=[
            Route("/items/special", endpoint("special")),
            Route("/items/{id}", endpoint("read"), methods=["GET"]),
            Route("/items/{id}", endpoint("write"), methods=["PUT", "DELETE"]),
            Route("/class/{id}", Item),
            Host("api.example.test", Router([Route("/hosted", endpoint("by_host"))])),
            Mount("/v1", routes=[Route("/a/{rest:path}", endpoint("in_mount"))]),
            Mount("/app", app=inner, middleware=[Middleware(GZipMiddleware)]),
            Mount("/files", app=PlainTextResponse("files")),
            WebSocketRoute("/items/ws", endpoint("socket")),
            Route("/hosted", endpoint("by_path")),
        ]
    )


def fastapi_app():
    deep, router, app = APIRouter(prefix="/deep"), APIRouter(prefix="/shop"), FastAPI()
    deep.add_api_route("/{x}", fastapi_endpoint("deepest"))
    router.add_api_route("/things/{id}", fastapi_endpoint("thing"), methods=["GET", "PATCH"])
    router.include_router(deep)
    app.include_router(router, prefix="/v2")
    sub = FastAPI()
    sub.add_api_route("/in/{n}", fastapi_endpoint("in_sub"))
    app.mount("/sub", sub)
    app.add_api_route("/plain", fastapi_endpoint("plain"))
    return app


def fastapi_endpoint(name):
    async def answer():
        return PlainTextResponse(name)

    answer.__name__ = name
    return answer


REQUESTS = [
    ("GET", "/items/special"), ("GET", "/items/7"), ("PUT", "/items/7"), ("DELETE", "/items/7"),
    ("HEAD", "/items/7"), ("GET", "/class/1"), ("GET", "/v1/a/b/c"), ("GET", "/app/5"),
    ("GET", "/app/"), ("GET", "/hosted"),
]  # fmt: skip
NOBODYS = [("PATCH", "/items/7"), ("GET", "/nowhere"), ("GET", "/app/x"), ("GET", "/v1/b")]
FASTAPI_REQUESTS = [
    ("GET", "/v2/shop/things/1"), ("PATCH", "/v2/shop/things/1"), ("GET", "/v2/shop/deep/z"),
    ("GET", "/sub/in/3"), ("GET", "/plain"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_the_endpoint_is_the_one_that_starlette_will_take(method, path):
    app = starlette_app()
    found = RoutingAhead(app)(http_scope(path, method=method))
    answer = await ask(app, http_scope(path, method=method))
    assert answer.status == 200
    if method != "HEAD":
        assert found.__name__.encode() == answer.body


@pytest.mark.parametrize(("method", "path"), FASTAPI_REQUESTS)
async def test_the_endpoint_is_the_one_that_fastapi_will_take(method, path):
    app = fastapi_app()
    found = RoutingAhead(app)(http_scope(path, method=method))
    answer = await ask(app, http_scope(path, method=method))
    assert (answer.status, answer.body) == (200, found.__name__.encode())


@pytest.mark.parametrize(("method", "path"), NOBODYS)
def test_what_no_route_takes_has_no_endpoint(method, path):
    assert RoutingAhead(starlette_app())(http_scope(path, method=method)) is None


def test_a_route_by_host_is_taken_for_its_host():
    scope = http_scope("/hosted", headers=[("host", "api.example.test")])
    assert RoutingAhead(starlette_app())(scope).__name__ == "by_host"


def test_a_websocket_meets_its_own_routes_alone():
    scope = {**http_scope("/items/ws"), "type": "websocket"}
    assert RoutingAhead(starlette_app())(scope).__name__ == "socket"


def test_a_mounted_app_without_routes_is_the_endpoint_itself():
    assert isinstance(RoutingAhead(starlette_app())(http_scope("/files/x")), PlainTextResponse)


def test_a_path_below_root_path_is_the_apps_own():
    ahead = RoutingAhead(starlette_app())
    assert ahead(http_scope("/proxy/items/1", root_path="/proxy")).__name__ == "read"


def test_a_route_that_was_added_later_is_found():
    app = starlette_app()
    ahead = RoutingAhead(app)
    assert ahead(http_scope("/late")) is None
    app.router.routes.append(Route("/late", endpoint("late")))
    assert ahead(http_scope("/late")).__name__ == "late"


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_a_mark_is_seen_wherever_its_endpoint_is(make):
    app = make()
    ahead = RoutingAhead(app)
    assert ahead.marks("__mark__") == []
    path = "/app/5" if make is starlette_app else "/v2/shop/deep/z"
    ahead(http_scope(path)).__mark__ = 1
    assert set(ahead.marks("__mark__")) == {1}


async def test_below_a_mount_a_path_that_a_proxy_has_cut_is_nobodys_as_for_the_router():
    app, scope = starlette_app(), http_scope("/app/5", root_path="/proxy")
    assert RoutingAhead(app)(scope) is None
    assert (await ask(app, scope)).status == 404


def test_a_mount_is_seen_through_a_middleware_that_hides_what_is_inside():
    class Opaque:
        def __init__(self, app):
            self._hidden = app

    mount = Mount("/m", routes=[Route("/x", endpoint("inside"))], middleware=[Middleware(Opaque)])
    assert RoutingAhead(Starlette(routes=[mount]))(http_scope("/m/x")).__name__ == "inside"


def test_a_route_that_an_included_router_gets_later_is_found():
    app, router = FastAPI(), APIRouter()
    app.include_router(router, prefix="/v1")
    ahead = RoutingAhead(app)
    assert ahead(http_scope("/v1/late")) is None
    router.add_api_route("/late", fastapi_endpoint("late"))
    assert ahead(http_scope("/v1/late")).__name__ == "late"


def test_several_who_ask_of_one_request_go_through_the_routes_once():
    ahead = RoutingAhead(starlette_app())
    found = ahead(http_scope("/items/1"))
    scope = http_scope("/items/1")
    assert ahead(scope) is found
    ahead._app = None
    assert ahead(dict(scope)) is found
    assert ahead(http_scope("/items/1")) is None


@pytest.mark.parametrize(("make", "has"), [(starlette_app, True), (fastapi_app, False)])
def test_whether_endpoints_depend_on_the_host_is_known(make, has):
    assert RoutingAhead(make()).has_hosts is has
