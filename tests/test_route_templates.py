"""The route label is the full template, whatever framework routed, and never the raw path."""

import re
import uuid
from functools import partial

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from perf_middleware import MetricsMiddleware, Settings, install
from perf_middleware.route_templates import REMEMBERED_MAX, UNMATCHED, RouteTemplates
from tests.metrics.wires import Wire, at_once, hello, http

QUIET = {"runtime": {"enabled": False}, "metrics": {"default_registry": False}}


class HexConvertor(Convertor[int]):
    """A path convertor of the app's own: the text `ff` is the value 255."""

    regex = "[0-9a-f]+"

    def convert(self, value):
        return int(value, 16)

    def to_string(self, value):
        return f"{value:x}"


class OddValue:
    def __str__(self):
        return "odd"

    def __eq__(self, other):
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


class OddConvertor(Convertor[OddValue]):
    """A convertor whose values can be compared with nothing."""

    regex = "odd-[a-z]+"

    def convert(self, value):
        return OddValue()


@pytest.fixture(autouse=True)
def _own_convertors(monkeypatch):
    monkeypatch.setitem(CONVERTOR_TYPES, "hex", HexConvertor())
    monkeypatch.setitem(CONVERTOR_TYPES, "odd", OddConvertor())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    (directory / "index.html").write_text("<p>hello")
    return directory


async def page(request):
    return PlainTextResponse("page")


def api_page():
    return "page"


class Instance:
    """An ASGI app that is an object and names no routes."""

    async def __call__(self, scope, receive, send):
        await hello(scope, receive, send)


class Endpoint(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("page")


def routes_seen(perf):
    return [route for (_, route, _), series in perf.metrics.recorder.figures.by_key.items()
            if series.count]  # fmt: skip


def told(app, url, method="GET", settings=None, **client):
    """The route label of one request to `app` with the bundle installed, and the status."""
    perf = install(app, settings or Settings(**QUIET))
    served = app if isinstance(app, Starlette) else perf
    answer = TestClient(served, follow_redirects=False, raise_server_exceptions=False, **client)
    status = answer.request(method, url).status_code
    (route,) = routes_seen(perf)
    return route, status


def opaque(app):
    """A middleware that is a function: nothing tells what it stands before."""

    async def middleware(scope, receive, send):
        await app(scope, receive, send)

    return middleware


def dispatched(app):
    """A dispatcher by tenant, that takes a segment of the path and names no parameter."""

    async def dispatcher(scope, receive, send):
        root = scope["root_path"]
        tenant = scope["path"].removeprefix(root).split("/")[1]
        scope["root_path"] = f"{root}/{tenant}"
        await app(scope, receive, send)

    return dispatcher


# --- Starlette ----------------------------------------------------------------------------------


def starlette():
    inner = [Route("/users/{id:int}", page), Route("/", page)]
    return Starlette(
        routes=[
            Route("/", page),
            Route("/items/{id}", page, methods=["GET", "POST"]),
            Route("/slash/", page),
            Route("/class/{name}", Endpoint),
            Route("/partial/{name}", partial(page)),
            Route("/instance/{name}", Instance()),
            Route("/file/{path:path}", page),
            Route("/report-{year}-{month}.csv", page),
            Mount("/v1", routes=[*inner, Mount("/deep", routes=inner)]),
            Mount("/t/{tenant}", routes=inner),
            Mount("/same/{id}", routes=[*inner, Mount("/in/{id}", routes=inner)]),
            Mount("/n/{number:int}", routes=inner),
            Mount("/f/{number:float}", routes=inner),
            Mount("/u/{id:uuid}", routes=[Route("/x/{other}", page)]),
            Mount("/h/{number:hex}", routes=inner),
            Mount("/o/{odd:odd}", routes=inner),
            Mount("/between/{a}-{b}", routes=inner),
            Mount("/p/{rest:path}/k/{key}", routes=inner),
            Mount("/raw", Instance()),
            Mount("/raw-t/{tenant}", hello),
            Mount("/guarded", routes=inner, middleware=[Middleware(CORSMiddleware)]),
            Host("by-name.test", Starlette(routes=[Mount("/hu/{id}", routes=inner)])),
            Host("{sub}.example.test", Router([Mount("/api", routes=inner), Route("/{x}", page)])),
            Mount("/router", Router(inner)),
            Mount("/unnamed/{id}", routes=[Mount("/in/{id}", routes=[Route("/", page)])]),
            Mount("/wide/{id:path}/e", routes=inner),
            Mount("/wide-in/{a}", routes=[Mount("/d/{id:path}/e", routes=inner)]),
            Mount("/zip/{id}", GZipMiddleware(Starlette(routes=[Mount("/b/{id}", routes=inner)]))),
            Mount("/opaque/{id}", opaque(Starlette(routes=[Mount("/b/{id}", routes=inner)]))),
            Mount("/dispatched", dispatched(Router(inner))),
        ]
    )


STARLETTE = [
    pytest.param("/", "/", 200, id="the root"),
    pytest.param("/items/5", "/items/{id}", 200, id="a route"),
    pytest.param("/items/5?q=1", "/items/{id}", 200, id="no query string"),
    pytest.param("/items/", UNMATCHED, 404, id="an empty segment is no id"),
    pytest.param("/nothing/here", UNMATCHED, 404, id="nothing matches"),
    pytest.param("/slash", UNMATCHED, 307, id="a redirect to the slash"),
    pytest.param("/class/5", "/class/{name}", 200, id="an HTTPEndpoint"),
    pytest.param("/partial/5", "/partial/{name}", 200, id="a partial"),
    pytest.param("/instance/5", "/instance/{name}", 200, id="an ASGI object as endpoint"),
    pytest.param("/file/a/b/c", "/file/{path}", 200, id="a path"),
    pytest.param("/report-1-11.csv", "/report-{year}-{month}.csv", 200, id="parts of a segment"),
    pytest.param("/v1/users/5", "/v1/users/{id}", 200, id="in a mount"),
    pytest.param("/v1/", "/v1/", 200, id="the root of a mount"),
    pytest.param("/v1/none", UNMATCHED, 404, id="nothing in the mount"),
    pytest.param("/v1/deep/users/5", "/v1/deep/users/{id}", 200, id="in a mount in a mount"),
    pytest.param("/t/acme/users/5", "/t/{tenant}/users/{id}", 200, id="a mount with a parameter"),
    pytest.param("/same/a/users/5", "/same/{id}/users/{id}", 200, id="two of one name"),
    pytest.param(
        "/same/a/in/b/users/5", "/same/{id}/in/{id}/users/{id}", 200, id="three of one name"
    ),
    pytest.param("/t/5/users/5", "/t/{tenant}/users/{id}", 200, id="twice the same value"),
    pytest.param("/n/007/users/5", "/n/{number}/users/{id}", 200, id="7 written as 007"),
    pytest.param("/f/1.50/users/5", "/f/{number}/users/{id}", 200, id="1.5 written as 1.50"),
    pytest.param(
        "/u/6F9619FF8B86D011B42D00C04FC964FF/x/5", "/u/{id}/x/{other}", 200,
        id="a UUID in capitals without dashes",
    ),
    pytest.param("/h/ff/users/5", "/h/{number}/users/{id}", 200, id="a convertor of the app"),
    pytest.param("/between/1-21/users/5", "/between/{a}-{b}/users/{id}", 200, id="ambiguous parts"),
    pytest.param("/between/x-y/users/5", "/between/{a}-{b}/users/{id}", 200, id="clear parts"),
    pytest.param("/p/a/b/k/7/users/5", "/p/{rest}/k/{key}/users/{id}", 200, id="path, then key"),
    pytest.param("/raw/any/thing", "/raw/{path}", 200, id="a mounted app without routes"),
    pytest.param("/raw-t/acme/any", "/raw-t/{tenant}/{path}", 200, id="that with a parameter"),
    pytest.param("/guarded/users/5", "/guarded/users/{id}", 200, id="a mount with middleware"),
    pytest.param("/guarded/none", UNMATCHED, 404, id="nothing in that"),
    pytest.param("http://eu.example.test/api/users/5", "/api/users/{id}", 200, id="by host"),
    pytest.param("http://api.example.test/5", "/{x}", 200, id="by host, without a mount"),
    pytest.param("http://by-name.test/hu/a/users/5", "/hu/{id}/users/{id}", 200, id="app by host"),
    pytest.param("/unnamed/a/in/b/", "/unnamed/{id}/in/{id}/", 200, id="one name in two mounts"),
    pytest.param(
        "/wide/a/b/e/users/5", "/wide/{id}/e/users/{id}", 200, id="a mount over several segments"
    ),
    pytest.param(
        "/wide-in/x/d/a/b/e/users/5", "/wide-in/{a}/d/{id}/e/users/{id}", 200,
        id="a mount over several segments in a mount",
    ),
    pytest.param(
        "/zip/a/b/c/users/5", "/zip/{id}/b/{id}/users/{id}", 200, id="seen through a middleware"
    ),
    pytest.param(
        "/opaque/a/b/c/users/5", "/opaque/{id}/{prefix}/users/{id}", 200,
        id="what cannot be seen is hidden",
    ),
    pytest.param(
        "/dispatched/acme/users/5", "/dispatched/{prefix}/users/{id}", 200,
        id="a dispatcher that is no router",
    ),
    pytest.param(
        "/dispatched/acme/", "/dispatched/{prefix}/", 200,
        id="that, to a route without a parameter",
    ),
    pytest.param(
        "/dispatched/acme/none", "/dispatched/{prefix}/{path}", 404, id="that, to nothing"
    ),
    pytest.param("/router/users/5", "/router/users/{id}", 200, id="a mounted Router"),
    pytest.param("/router/none", UNMATCHED, 404, id="nothing in the Router"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "route", "status"), STARLETTE)
def test_starlette_routes_have_their_full_template(url, route, status):
    assert told(starlette(), url) == (route, status)


def test_a_value_that_nothing_can_be_compared_with_harms_nobody():
    route, status = told(starlette(), "/o/odd-one/users/5")
    assert (route, status) == ("/o/{odd}/users/{id}", 200)


# --- FastAPI ------------------------------------------------------------------------------------


def fastapi(files):
    app = FastAPI()
    app.get("/items/{id}")(api_page)
    app.add_route("/plain/{id}", page)
    app.add_route("/r-{a}-{b}", page)
    app.add_route("/twice/{x}", page)
    app.router.routes.append(Route("/instance/{name}", Instance()))

    leaf = APIRouter(prefix="/leaf")
    leaf.get("/{id}")(api_page)
    leaf.get("/")(api_page)
    leaf.add_route("/plain/{id}", page)
    leaf.mount("/files", StaticFiles(directory=files))
    branch = APIRouter(prefix="/branch")
    branch.include_router(leaf)
    app.include_router(branch, prefix="/v1")
    app.include_router(branch, prefix="/v2")
    app.include_router(leaf)

    inner = FastAPI()
    inner.get("/users/{id}")(api_page)
    inner.add_route("/plain/{id}", page)
    inner.mount("/raw", Instance())
    app.mount("/sub", inner)
    app.mount("/t/{tenant}", inner)
    app.mount("/starlette", Starlette(routes=[Route("/users/{id}", page)]))
    app.mount("/files", StaticFiles(directory=files))
    app.mount("/function", hello)
    only_router = APIRouter()
    only_router.add_route("/hidden/{id}", page)
    app.mount("/only-router", only_router)
    carrier = APIRouter()
    carrier.mount("/carried", inner)
    carrier.mount("/tenants/{id}", inner)
    app.include_router(carrier, prefix="/c")
    nested = APIRouter(prefix="/outer")
    nested.include_router(carrier, prefix="/{org}")
    app.include_router(nested)
    app.mount("/d/{id:path}/e", inner)
    return app


FASTAPI = [
    pytest.param("GET", "/items/5", "/items/{id}", 200, id="direct"),
    pytest.param("DELETE", "/items/5", "/items/{id}", 405, id="a method that it lacks"),
    pytest.param("GET", "/items/5/", UNMATCHED, 307, id="a redirect from the slash"),
    pytest.param("GET", "/none", UNMATCHED, 404, id="nothing matches"),
    pytest.param("GET", "/docs", "/docs", 200, id="the docs"),
    pytest.param("GET", "/plain/5", "/plain/{id}", 200, id="a plain Route"),
    pytest.param("GET", "/plain/plain", "/plain/{id}", 200, id="a value equal to a segment"),
    pytest.param("PUT", "/plain/5", "/plain/{id}", 405, id="a plain Route, another method"),
    pytest.param("GET", "/r-1-21", "/r-{a}-{b}", 200, id="a plain Route with parts of a segment"),
    pytest.param("GET", "/twice/5", "/twice/{x}", 200, id="one function at several paths"),
    pytest.param("GET", "/instance/5", "/instance/{name}", 200, id="an ASGI object as endpoint"),
    pytest.param("GET", "/leaf/5", "/leaf/{id}", 200, id="included"),
    pytest.param("GET", "/v1/branch/leaf/5", "/v1/branch/leaf/{id}", 200, id="nested"),
    pytest.param("GET", "/v2/branch/leaf/5", "/v2/branch/leaf/{id}", 200, id="included twice"),
    pytest.param("GET", "/v2/branch/leaf/", "/v2/branch/leaf/", 200, id="the included root"),
    pytest.param("PUT", "/v1/branch/leaf/5", "/v1/branch/leaf/{id}", 405, id="included, 405"),
    pytest.param(
        "GET", "/v1/branch/plain/5", "/v1/branch/plain/{id}", 200, id="included plain Route"
    ),
    pytest.param(
        "GET", "/v1/branch/files/index.html", "/v1/branch/files/{path}", 200,
        id="included StaticFiles",
    ),
    pytest.param("GET", "/sub/users/5", "/sub/users/{id}", 200, id="a mounted FastAPI"),
    pytest.param("GET", "/sub/plain/5", "/sub/plain/{id}", 200, id="a plain Route in it"),
    pytest.param("GET", "/sub/docs", "/sub/docs", 200, id="its docs"),
    pytest.param("GET", "/sub/none", UNMATCHED, 404, id="nothing in it"),
    pytest.param("GET", "/sub/raw/a/b", "/sub/raw/{path}", 200, id="an app mounted in it"),
    pytest.param("GET", "/t/5/users/5", "/t/{tenant}/users/{id}", 200, id="mounted by tenant"),
    pytest.param("GET", "/t/5/plain/5", "/t/{tenant}/plain/{id}", 200, id="a plain Route there"),
    pytest.param("GET", "/starlette/users/5", "/starlette/users/{id}", 200, id="a Starlette"),
    pytest.param("GET", "/starlette/none", UNMATCHED, 404, id="nothing in the Starlette"),
    pytest.param("GET", "/files/index.html", "/files/{path}", 200, id="StaticFiles"),
    pytest.param("GET", "/files/no/such", "/files/{path}", 404, id="no such file"),
    pytest.param("GET", "/function/any/thing", "/function/{path}", 200, id="a mounted function"),
    pytest.param(
        "GET", "/only-router/hidden/5", "/only-router/{path}", 200, id="a router that is no app"
    ),
    pytest.param("GET", "/only-router/none", UNMATCHED, 404, id="nothing in that router"),
    pytest.param(
        "GET", "/c/carried/users/5", "/c/carried/users/{id}", 200, id="an app that a router mounts"
    ),
    pytest.param(
        "GET", "/c/carried/plain/5", "/c/carried/plain/{id}", 200, id="a plain Route in that"
    ),
    pytest.param(
        "GET", "/c/tenants/a/users/5", "/c/tenants/{id}/users/{id}", 200,
        id="mounted in a router with one name twice",
    ),
    pytest.param(
        "GET", "/outer/a/tenants/b/users/5", "/outer/{org}/tenants/{id}/users/{id}", 200,
        id="mounted in a nested router with one name twice",
    ),
    pytest.param(
        "GET", "/d/a/b/e/users/5", "/d/{id}/e/users/{id}", 200,
        id="mounted over several segments with one name twice",
    ),
    pytest.param("GET", "/c/carried/none", UNMATCHED, 404, id="nothing in that"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "url", "route", "status"), FASTAPI)
def test_fastapi_routes_have_their_full_template(files, method, url, route, status):
    assert told(fastapi(files), url, method) == (route, status)


@pytest.mark.parametrize("url", ["/index.html", "/no/such/file", "/"])
def test_static_files_at_the_root_of_fastapi_never_show_the_raw_path(files, url):
    app = FastAPI()
    app.mount("/", StaticFiles(directory=files, html=True))
    assert told(app, url)[0] == "/{path}"


@pytest.mark.parametrize(
    ("url", "route"),
    [
        pytest.param("/index.html", "/{path}", id="at the root"),
        pytest.param("/no/such", "/{path}", id="at the root, not found"),
        pytest.param("/v1/ui/app", "/v1/ui/app/{path}", id="included, its index"),
        pytest.param("/v1/ui/app/no/such", "/v1/ui/app/{path}", id="included, not found"),
        pytest.param("/items/5", "/items/{id}", id="a route beside it"),
    ],
)
def test_fastapi_frontends_are_one_template_each(files, url, route):
    app = FastAPI()
    app.get("/items/{id}")(api_page)
    ui = APIRouter(prefix="/ui")
    ui.frontend("/app", directory=files)
    app.include_router(ui, prefix="/v1")
    app.frontend("/", directory=files)
    assert told(app, url)[0] == route


def test_a_fastapi_in_a_starlette_keeps_its_templates():
    inner = FastAPI()
    inner.get("/users/{id}")(api_page)
    inner.add_route("/plain/{id}", page)
    for path, route in [
        ("/users/5", "/api/users/{id}"),
        ("/plain/5", "/api/plain/{id}"),
        ("/docs", "/api/docs"),
        ("/none", UNMATCHED),
    ]:
        app = Starlette(routes=[Mount("/api", inner)])
        assert told(app, f"/api{path}")[0] == route


@pytest.mark.parametrize(
    ("url", "route"),
    [
        pytest.param("/prefix/v1/users/5", "/v1/users/{id}", id="in the path, as ASGI says"),
        pytest.param("/items/5", "/items/{id}", id="a proxy took it out"),
    ],
)
@pytest.mark.parametrize("make", [starlette, lambda: FastAPI(routes=starlette().routes)])
def test_the_root_path_of_the_server_is_not_in_the_template(make, url, route):
    assert told(make(), url, root_path="/prefix") == (route, 200)


@pytest.mark.filterwarnings("ignore:.*root_path.*is deprecated")
def test_the_root_path_of_fastapi_is_not_in_the_template():
    app = FastAPI(root_path="/prefix")
    app.get("/items/{id}")(api_page)
    assert told(app, "/items/5") == ("/items/{id}", 200)


class CopiesScope:
    """A user's middleware that hands on a scope of its own."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(dict(scope), receive, send)


@pytest.mark.parametrize("make", [starlette, lambda: FastAPI(routes=starlette().routes)])
def test_a_middleware_that_copies_the_scope_hides_no_route(make):
    app = make()
    app.add_middleware(CopiesScope)
    assert told(app, "/v1/users/5") == ("/v1/users/{id}", 200)


def test_one_function_in_two_apps_has_the_template_of_each():
    outer, inner = FastAPI(), FastAPI()
    outer.add_route("/y/{q}", page)
    inner.add_route("/x/{p}", page)
    outer.mount("/", inner)
    perf = install(outer, Settings(**QUIET))
    client = TestClient(outer)
    client.get("/y/1")
    client.get("/x/1")
    assert routes_seen(perf) == ["/y/{q}", "/x/{p}"]


@pytest.mark.parametrize("app", [hello, Instance()], ids=["a function", "an object"])
def test_an_app_without_a_router_is_unmatched(app):
    assert told(app, "/any/thing") == (UNMATCHED, 200)


# --- websockets ---------------------------------------------------------------------------------


async def socket(websocket: WebSocket):
    await websocket.accept()
    await websocket.close()


def socket_apps(files):
    app = fastapi(files)
    app.websocket("/ws/{room}")(socket)
    app.router.routes.insert(0, WebSocketRoute("/ws-plain/{room}", socket))
    inner = FastAPI()
    inner.websocket("/ws/{room}")(socket)
    inner.router.routes.insert(0, WebSocketRoute("/ws-plain/{room}", socket))
    app.mount("/m/{tenant}", inner)
    included = APIRouter(prefix="/r")
    included.websocket("/ws/{room}")(socket)
    app.include_router(included, prefix="/v1")
    app.mount("/s", Starlette(routes=[WebSocketRoute("/ws/{room}", socket)]))
    return app


@pytest.mark.parametrize(
    ("url", "route"),
    [
        pytest.param("/ws/5", "/ws/{room}", id="direct"),
        pytest.param("/ws-plain/5", "/ws-plain/{room}", id="plain"),
        pytest.param("/m/5/ws/5", "/m/{tenant}/ws/{room}", id="mounted"),
        pytest.param("/m/5/ws-plain/5", "/m/{tenant}/ws-plain/{room}", id="mounted, plain"),
        pytest.param("/v1/r/ws/5", "/v1/r/ws/{room}", id="included"),
        pytest.param("/s/ws/5", "/s/ws/{room}", id="in a mounted Starlette"),
    ],
)
def test_websocket_routes_have_their_full_template(files, url, route):
    app = socket_apps(files)
    perf = install(app, Settings(**QUIET))
    with TestClient(app).websocket_connect(url):
        pass
    families = {f.name: list(f.points) for f in perf.metrics.recorder.sockets.families()}
    (point,) = families["perf_websocket_connections"]
    assert dict(point.labels.pairs)["route"] == route


# --- without install, and what an attacker may try ----------------------------------------------


def label_of(app, scope):
    middleware = MetricsMiddleware(app)
    at_once(Wire(scope).serve(middleware))
    ((_, route, _),) = middleware.recorder.figures.by_key
    return route


@pytest.mark.parametrize(
    "path",
    ["/\x00\n\x1b[31m", "/\ud800\udfff", "/" + "a" * 10_240, "//", "", "/%2e%2e/"],
    ids=["control", "surrogates", "ten kilobytes", "slashes", "empty", "escaped"],
)
@pytest.mark.parametrize("kind", ["starlette", "fastapi", "raw"])
def test_odd_paths_are_unmatched(kind, path):
    app = {"starlette": Starlette(), "fastapi": FastAPI(), "raw": hello}[kind]
    assert label_of(app, http(path)) == UNMATCHED


segments = st.text(
    st.characters(exclude_characters="/", exclude_categories=()), min_size=1, max_size=12
)


@given(st.lists(segments, min_size=3, max_size=3))
def test_no_value_of_a_parameter_makes_a_label_of_its_own(parts):
    first, second, third = parts
    app = Starlette(
        routes=[
            Mount("/<{one}>", routes=[Mount("/<{two}>", routes=[Route("/<{three}>", page)])]),
        ]
    )
    label = label_of(app, http(f"/<{first}>/<{second}>/<{third}>"))
    left = re.sub(r"\{\w+\}", "", label)
    assert label == UNMATCHED or set(left) <= set("/<>"), label


@given(st.text(alphabet="0123456789", min_size=1, max_size=6), st.uuids())
def test_every_way_to_write_a_number_is_one_label(digits, identity):
    route = Route("/x/{a}", page)
    app = Starlette(
        routes=[Mount("/i/{n:int}", routes=[Mount("/u/{u:uuid}", routes=[route])])]
    )  # fmt: skip
    for text in (str(identity), identity.hex, str(identity).upper()):
        label = label_of(app, http(f"/i/{digits}/u/{text}/x/1"))
        assert label == "/i/{n}/u/{u}/x/{a}"
    assert uuid.UUID(identity.hex) == identity


def test_the_root_path_that_a_client_may_choose_fills_no_memory():
    templates = RouteTemplates()
    route = Route("/items/{id}", page)
    for number in range(20_000):
        scope = {
            "type": "http", "path": "/items/5", "root_path": f"/forwarded-{number}",
            "route": route, "path_params": {"id": "5"}, "endpoint": page,
        }  # fmt: skip
        assert templates.template_of(scope, f"/forwarded-{number}") == "/items/{id}"
    assert len(templates.known) == 1


def test_routes_made_for_each_request_fill_no_memory():
    templates = RouteTemplates()

    class Made:
        path_format = "/made/{id}"
        endpoint = page
        param_convertors = ("id",)

    for _ in range(100_000):
        scope = {"path": "/made/5", "root_path": "", "route": Made(), "path_params": {"id": "5"}}
        assert templates.template_of(scope, "") == "/made/{id}"
    assert len(templates.known) == REMEMBERED_MAX


def test_an_id_used_again_by_another_route_brings_no_wrong_template():
    templates = RouteTemplates()
    for number in range(1_000):  # each route is gone before the next is made, were it not kept
        route = Route(f"/r{number}/{{id}}", page)
        scope = {"path": "/", "root_path": "", "route": route, "path_params": {"id": "5"}}
        assert templates.template_of(scope, "") == f"/r{number}/{{id}}"


@pytest.mark.parametrize(
    "left",
    [
        pytest.param({"route": object()}, id="a route of a kind that we do not know"),
        pytest.param({"route": None, "endpoint": None}, id="nothing"),
        pytest.param({"fastapi": {}}, id="an empty note of FastAPI"),
        pytest.param({"fastapi": {"effective_route_context": object()}}, id="another FastAPI"),
        pytest.param({"fastapi": "text"}, id="something else under FastAPI's name"),
        pytest.param({"endpoint": 5, "app": 7}, id="numbers"),
        pytest.param({"endpoint": page, "path_params": {"id": "/"}}, id="an endpoint alone"),
    ],
)
def test_what_an_unknown_router_leaves_fails_no_request(left):
    async def app(scope, receive, send):
        scope.update(left)
        await hello(scope, receive, send)

    wire = Wire(http("/secret/path"))
    middleware = MetricsMiddleware(app)
    at_once(wire.serve(middleware))
    assert len(wire.sent) == 2
    ((_, route, _),) = middleware.recorder.figures.by_key
    assert "secret" not in route
