"""`install`: what it takes, what it gives back, and what it refuses."""

import copy
import inspect
import pickle
import subprocess
import sys
import time
import wsgiref.simple_server
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, FastAPI, Request
from prometheus_client import REGISTRY, Counter
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

import perf_middleware
from perf_middleware import (
    ConfigurationError,
    Perf,
    PerfMiddlewareError,
    Settings,
    errors,
    install,
    task_errors,
)
from perf_middleware.errors import AlreadyInstalledError, AppAlreadyStartedError, SettingsError
from tests.driving import ask, get, http_scope

pytestmark = pytest.mark.usefixtures("nothing_set")


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def plain(scope, receive, send):
    """An ASGI app by hand."""
    await PlainTextResponse("hello")(scope, receive, send)


class Callable:
    """What other frameworks look like: an instance, some state and attributes of its own."""

    routes = ("not", "starlette's")
    user_middleware = ("neither",)

    async def __call__(self, scope, receive, send):
        await plain(scope, receive, send)


class Wrapper:
    """Not a coroutine function: it returns one."""

    def __call__(self, scope, receive, send):
        return plain(scope, receive, send)


def starlette_app() -> Starlette:
    return Starlette(routes=[Route("/", hello), Route("/items/{id}", hello)])


def fastapi_app() -> FastAPI:
    app = FastAPI()
    app.get("/")(hello)
    app.get("/items/{id}")(hello)
    return app


FRAMEWORKS = [pytest.param(starlette_app, id="starlette"), pytest.param(fastapi_app, id="fastapi")]
OTHERS = [
    pytest.param(plain, id="function"),
    pytest.param(Callable(), id="instance"),
    pytest.param(Wrapper(), id="returns a coroutine"),
    pytest.param(partial(plain), id="partial"),
    pytest.param(Callable().__call__, id="bound method"),
]


def layers_of(perf: Perf) -> list[str]:
    return [layer.name for layer in perf.describe()]


# --- what it takes ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_a_starlette_or_fastapi_app_is_changed_in_place(make):
    app = make()
    perf = install(app)
    assert app.state.perf is perf
    assert get(app).body == b"hello"
    assert perf.metrics.recorder.figures.totals() == (1, 0)


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_the_handle_of_an_app_changed_in_place_may_be_served_too(make):
    perf = install(make())
    assert get(perf).body == b"hello"


@pytest.mark.parametrize("app", OTHERS)
def test_any_other_asgi_callable_is_served_through_the_handle(app):
    perf = install(app)
    assert get(perf).body == b"hello"
    assert get(perf, "/metrics").status == 200
    assert get(app, "/metrics").body == b"hello", "the app itself stays as it was"
    assert perf.metrics.recorder.figures.totals() == (2, 0)


def test_an_app_of_an_unknown_framework_is_described_from_outside():
    last = install(Callable()).describe()[-1]
    assert (last.name, last.place) == ("Callable", "app")
    assert "from outside" in last.why


def test_without_settings_the_defaults_hold():
    assert install(plain).settings == Settings()


def test_settings_come_from_the_environment_when_none_are_given(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_METRICS_PATH", "/figures")
    perf = install(plain)
    assert get(perf, "/figures").header("content-type").startswith("text/plain")
    assert get(perf, "/metrics").body == b"hello"


# --- where the handle is found ------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({}, id="the server gives no state"),
        pytest.param({"state": None}, id="none"),
        pytest.param({"state": {}}, id="empty"),
        pytest.param({"state": {"mine": 1}}, id="filled"),
    ],
)
@pytest.mark.parametrize("make", [*FRAMEWORKS, pytest.param(lambda: None, id="other")])
def test_a_request_finds_the_handle_in_its_state(make, state):
    seen = []

    async def look(scope, receive, send):
        seen.append(dict(scope["state"]))
        await plain(scope, receive, send)

    app = make() or look
    if app is not look:
        app.router.routes.append(Mount("/look", look))
    perf = install(app)
    get(perf, "/look/", **copy.copy(state))
    assert seen == [{**(state.get("state") or {}), "perf": perf}]


@pytest.mark.parametrize("state", [{}, {"state": None}, {"state": {}}], ids=str)
def test_a_websocket_finds_the_handle_in_its_state(state):
    seen = []

    async def look(scope, receive, send):
        seen.append(scope["state"]["perf"])

    perf = install(look)
    anyio.run(ask, perf, {**http_scope("/"), "type": "websocket", **state})
    assert seen == [perf]


def test_the_state_of_the_server_is_the_one_that_is_filled():
    """Servers and middlewares may hold on to it: it must not be exchanged for another."""
    state: dict[str, Any] = {}
    for kind in ("http", "websocket"):
        state.clear()
        anyio.run(ask, install(plain_or_nothing), {**http_scope("/"), "type": kind, "state": state})
        assert isinstance(state["perf"], Perf), kind


async def plain_or_nothing(scope, receive, send):
    if scope["type"] == "http":
        await plain(scope, receive, send)


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_request_state_is_the_frameworks_own(make):
    async def look(request: Request) -> JSONResponse:
        return JSONResponse(
            [request.state.perf is request.app.state.perf, request.state.from_lifespan]
        )

    app = make()
    app.router.add_route("/look", look)
    install(app)
    answer = get(app, "/look", state={"from_lifespan": "yes"})
    assert answer.json() == [True, "yes"]


# --- what it refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_a_second_install_is_refused(make):
    app = make()
    perf = install(app)
    with pytest.raises(AlreadyInstalledError, match=r"use the Perf that the first install\(\)"):
        install(app)
    assert app.state.perf is perf
    assert get(app).body == b"hello"
    assert perf.metrics.recorder.figures.totals() == (1, 0)


@pytest.mark.parametrize("app", [starlette_app(), plain], ids=["in place", "around"])
def test_a_handle_is_not_installed_into(app):
    with pytest.raises(AlreadyInstalledError):
        install(install(app))


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_an_app_that_serves_already_is_refused(make):
    app = make()
    get(app)
    with pytest.raises(AppAlreadyStartedError, match="right after the app is created"):
        install(app)
    assert not hasattr(app.state, "perf")


def wsgi_app(environ, start_response):
    return []


async def two_arguments(scope, receive):
    """ASGI 2, or nearly an app."""


@pytest.mark.parametrize(
    ("app", "problem"),
    [
        pytest.param(None, "None is not callable", id="none"),
        pytest.param("shop:app", "'shop:app' is not callable", id="string"),
        pytest.param(FastAPI, "is a class, not an instance", id="fastapi class"),
        pytest.param(Callable, "is a class, not an instance", id="own class"),
        pytest.param(wsgi_app, "a WSGI app needs an adapter", id="wsgi function"),
        pytest.param(wsgiref.simple_server.demo_app, "a WSGI app needs an adapter", id="wsgi demo"),
        pytest.param(two_arguments, r"cannot be called with \(scope, receive, send\)", id="two"),
        pytest.param(starlette_app, r"cannot be called with \(scope,", id="factory"),
        pytest.param({"x" * 1_000: 1}, r"install\(\) needs an ASGI app: .{,130}$", id="huge repr"),
    ],
)
def test_what_is_no_asgi_app_is_refused_with_one_sentence(app, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        install(app)
    assert str(caught.value).startswith("install() needs an ASGI app: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{}, "settings.toml", Settings], ids=str)
def test_what_is_no_settings_object_is_refused(settings):
    with pytest.raises(ConfigurationError, match=r"install\(\) needs Settings, not "):
        install(starlette_app(), settings)


# --- a wrong setting stops install --------------------------------------------------------------


def test_a_wrong_setting_in_the_environment_stops_install(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_METRICS_PAHT", "/figures")
    app = starlette_app()
    with pytest.raises(SettingsError, match="PERFORMANCE_METRICS_PAHT"):
        install(app)
    assert not hasattr(app.state, "perf")
    assert get(app, "/metrics").status == 404, "nothing was installed half"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        pytest.param(
            {"metrics": {"path": "/_perf/status"}},
            "metrics.path: /_perf/status is an endpoint of dashboard.prefix",
            id="two endpoints at one path",
        ),
        pytest.param(
            {"metrics": {"path": "/ops/reset"}, "dashboard": {"prefix": "/ops"}},
            "metrics.path: /ops/reset is an endpoint of dashboard.prefix",
            id="two endpoints at one path of another prefix",
        ),
        pytest.param(
            {"metrics": {"token": " " * 9}}, "metrics.token: must not be blank", id="blank token"
        ),
        pytest.param(
            {"dashboard": {"token": " " * 8}},
            "dashboard.token: must not be blank",
            id="blank operators' token",
        ),
    ],
)
def test_settings_that_do_not_go_together_stop_install(values, problem):
    app = starlette_app()
    with pytest.raises(SettingsError) as caught:
        install(app, Settings(**values))
    assert caught.value.problems == (problem,)
    assert not hasattr(app.state, "perf")


# --- what is off is absent ----------------------------------------------------------------------

EVERYTHING = [
    "metrics",
    "operator endpoints",
    "compression",
    "response cache",
    "memory watch",
    "Starlette",
]


@pytest.mark.parametrize(
    ("values", "layers", "not_ours", "resources_gone"),
    [
        pytest.param({}, EVERYTHING, [], set(), id="all on"),
        pytest.param(
            {"metrics": {"enabled": False}},
            ["operator endpoints", "compression", "response cache", "Starlette"],
            ["/metrics"],
            {"sampler", "worker exchange"},
            id="metrics off",
        ),
        pytest.param(
            {"dashboard": {"enabled": False}},
            EVERYTHING,  # the metrics path is an operator endpoint too
            ["/_perf/status", "/_perf/summary", "/_perf/reset"],
            {"operator endpoints"},
            id="dashboard off",
        ),
        pytest.param(
            {"metrics": {"enabled": False}, "dashboard": {"enabled": False}},
            ["compression", "response cache", "Starlette"],
            ["/metrics", "/_perf/status", "/_perf/summary", "/_perf/reset"],
            {"sampler", "worker exchange", "operator endpoints"},
            id="both off",
        ),
        pytest.param(
            {"cache": {"enabled": False}},
            ["metrics", "operator endpoints", "compression", "memory watch", "Starlette"],
            [],
            set(),
            id="cache off",
        ),
        pytest.param(
            {"compression": {"enabled": False}},
            ["metrics", "operator endpoints", "response cache", "memory watch", "Starlette"],
            [],
            set(),
            id="compression off",
        ),
        pytest.param(
            {
                name: {"enabled": False}
                for name in ("metrics", "dashboard", "compression", "cache", "memory")
            },
            ["Starlette"],
            ["/metrics", "/_perf/status", "/_perf/summary", "/_perf/reset", "/_perf/memory"],
            {
                "sampler",
                "worker exchange",
                "operator endpoints",
                "memory watch",
                "memory inspection",
            },
            id="all five off",
        ),
        pytest.param(
            {"memory": {"enabled": False}},
            ["metrics", "operator endpoints", "compression", "response cache", "Starlette"],
            ["/_perf/memory"],
            {"memory watch", "memory inspection"},
            id="memory watch off",
        ),
        pytest.param(
            {"leaks": {"enabled": False}},
            ["metrics", "operator endpoints", "compression", "response cache", "Starlette"],
            [],
            set(),
            id="nothing needs the layer of the memory watch",
        ),
        pytest.param(
            {"runtime": {"enabled": False}},
            EVERYTHING,
            [],
            {"event loop probe", "garbage collector probe"},
            id="runtime off",
        ),
        pytest.param(
            {"runtime": {"gc": False}},
            EVERYTHING,
            [],
            {"garbage collector probe"},
            id="gc probe off",
        ),
    ],
)
def test_what_is_off_is_absent(values, layers, not_ours, resources_gone):
    perf = install(starlette_app(), Settings(**values))
    assert layers_of(perf) == layers
    for path in ("/metrics", "/_perf/status", "/_perf/summary", "/_perf/reset"):
        assert (get(perf, path).status == 404) == (path in not_ours), path
    everything = install(starlette_app(), Settings()).status()["resources"]
    assert set(everything) - set(perf.status()["resources"]) == resources_gone
    answer = get(perf)
    assert answer.body == b"hello"
    has_cache = "response cache" in layers
    assert (perf.status()["cache"] is not None) == has_cache
    assert any(f.name.startswith("perf_cache_") for f in perf.metrics.families()) == has_cache
    no_lifetime = 'perf_middleware; fwd=uri-miss; detail="no-freshness"'
    assert answer.header("cache-status") == (no_lifetime if has_cache else None)


def test_runtime_off_leaves_its_families_out():
    def names(values):
        app = starlette_app()
        install(app, Settings(**values))
        with TestClient(app) as client:  # opens the probes: what was not measured is absent
            time.sleep(0.5)
            page = client.get("/metrics").text
        return {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}

    gone = names({}) - names({"runtime": {"enabled": False}})
    watched = ("perf_process_", "perf_system_", "perf_event_loop_", "perf_gc_", "perf_threadpool_")
    assert all(name.startswith(watched) for name in gone)
    assert {
        "perf_process_threads",
        "perf_event_loop_blocked_total",
        "perf_gc_pause_seconds",
    } <= gone


def test_with_the_lifespan_off_the_messages_reach_the_app_alone():
    app = starlette_app()
    perf = install(app, Settings(lifespan={"enabled": False}))
    with TestClient(app) as client:
        assert client.get("/").text == "hello"
        assert perf.status()["lifespan"] == "not running"


def test_with_self_metering_off_no_request_is_sampled():
    perf = install(
        starlette_app(), Settings(metrics={"overhead": False, "overhead_sample_every": 1})
    )
    assert get(perf).body == b"hello"
    assert perf.status()["overhead_us"] == {}
    assert b"perf_layer" not in get(perf, "/metrics").body


@pytest.mark.parametrize("shown", [True, False])
def test_what_the_app_registered_elsewhere_is_shown_unless_refused(shown):
    own = Counter("shop_orders", "Orders.")
    try:
        perf = install(plain, Settings(metrics={"default_registry": shown}))
        assert (b"shop_orders_total 0.0" in get(perf, "/metrics").body) is shown
    finally:
        REGISTRY.unregister(own)


# --- two apps in one process --------------------------------------------------------------------


def test_two_apps_share_nothing():
    one, two = starlette_app(), starlette_app()
    perf_one = install(one, Settings(dashboard={"token": "token-of-one"}))
    perf_two = install(two, Settings(dashboard={"token": "token-of-two"}))
    perf_one.metrics.counter("orders", "Orders.").inc()
    for _ in range(3):
        get(one)
    assert perf_one.metrics.recorder.figures.totals() == (3, 0)
    assert perf_two.metrics.recorder.figures.totals() == (0, 0)
    assert b"orders" not in get(two, "/metrics").body
    bearer = [("Authorization", "Bearer token-of-one")]
    assert get(one, "/_perf/status", headers=bearer).status == 200
    assert get(two, "/_perf/status", headers=bearer).status == 401


def test_one_may_run_while_the_other_does_not():
    perf_one, perf_two = install(starlette_app()), install(starlette_app())

    async def look():
        async with perf_one.running():
            return perf_one.status()["lifespan"], perf_two.status()["lifespan"]

    assert anyio.run(look) == ("running", "not running")


@pytest.mark.parametrize("outer_every", [1, 1_000])
@pytest.mark.parametrize("inner_every", [1, 1_000])
@pytest.mark.parametrize("inner", [{}, {"metrics": {"enabled": False}}], ids=["all", "no metrics"])
def test_an_installed_app_may_be_mounted_in_an_installed_app(outer_every, inner_every, inner):
    """A fixed bug: a sampled request brought its meter into the mounted app, which has other layers
    than the meter has accounts, and failed with IndexError.
    """
    child = starlette_app()
    sampling = {"overhead_sample_every": inner_every, **inner.get("metrics", {})}
    child_perf = install(child, Settings(metrics=sampling))
    parent = Starlette(routes=[Mount("/child", child), Route("/", hello)])
    parent_perf = install(
        parent,
        Settings(
            metrics={"enabled": False, "overhead_sample_every": outer_every},
        ),
    )
    for _ in range(2):
        assert get(parent, "/child/items/7").body == b"hello"
    counted = 0 if inner else 2
    assert child_perf.metrics.recorder.figures.totals() == (counted, 0)
    assert set(parent_perf.status()["overhead_us"]) <= {
        "operator endpoints",
        "compression",
        "response cache",
        "memory watch",
    }


def test_a_mounted_app_has_its_own_handle():
    async def which(request: Request) -> JSONResponse:
        return JSONResponse(request.state.perf is request.app.state.perf)

    child = Starlette(routes=[Route("/which", which)])
    install(child)
    parent = Starlette(routes=[Mount("/child", child), Route("/which", which)])
    install(parent)
    assert get(parent, "/child/which").json() is True
    assert get(parent, "/which").json() is True


# --- errors and imports -------------------------------------------------------------------------

ERRORS = [
    PerfMiddlewareError("text"),
    ConfigurationError("text"),
    SettingsError(("one", "two")),
    errors.MetricUseError("orders", "no such label"),
    AlreadyInstalledError(),
    AppAlreadyStartedError(),
    errors.ResourceStartError("redis", "no answer"),
    errors.UnkeyableArgumentError("load", "user", "object", "has no text"),
    errors.UnpackableValueError("object", "it has no safe form"),
    errors.UncacheableQueryError("the text writes", "use session.execute()"),
    errors.StoreUnavailableError("Redis", "no answer within 0.1 s"),
    errors.StoreRefusedError("Redis", "OOM command not allowed"),
    errors.RequestRejectedError(503, 2),
    errors.DeadlineExceededError(0.2, 1.5),
    errors.DatabaseBusyError("main", 0.25, 2),
    errors.DatabaseUnavailableError("main", "connection refused"),
    errors.CommitOutcomeUnknownError(),
    errors.UnannouncedWriteError("Redis does not answer", 5),
    errors.UncacheableQueryError("FOR UPDATE locks rows", "execute it"),
    errors.OutsideWritesError("postgresql://db/shop", "it is a pooler"),
    errors.TracingBusyError(),
    errors.PoolTimeoutError("pool", "create", 1.5),
    errors.PoolLineFullError("pool", 3),
    errors.PoolClosedError("pool"),
    task_errors.QueueFullError(10, 0.5),
    task_errors.QueueClosedError("draining"),
    task_errors.JobUnfinishedError("send", "4bf92f", "running"),
    task_errors.JobCancelledError("send", "4bf92f", "handed_back"),
    task_errors.TaskTimeoutError("send", 1.5),
    task_errors.TaskArgumentsError("send", "argument 1 (tuple) would not come back"),
    task_errors.JournalFullError(3, 400),
    task_errors.JournalUnavailableError("disk full", None),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) != ""
    assert vars(again) == vars(error)


def test_every_error_is_in_the_table_above():
    own = {
        kind
        for module in (errors, task_errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception)
    }  # fmt: skip
    assert own == {type(error) for error in ERRORS}
    assert all(issubclass(kind, PerfMiddlewareError) for kind in own)


def loaded_by(statement: str) -> set[str]:
    """The top-level packages that a fresh process has after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(ran.stdout.split())


ROOT = perf_middleware.__path__[0].removesuffix("perf_middleware")
HEAVY = {
    "anyio", "asyncio", "orjson", "prometheus_client", "psutil", "pydantic", "pydantic_settings",
    "redis", "sqlalchemy", "starlette", "fastapi",
}  # fmt: skip


def test_importing_the_package_imports_no_library():
    assert not loaded_by("import perf_middleware") & HEAVY


def test_installing_imports_no_client_that_is_not_configured():
    loaded = loaded_by(
        "from perf_middleware import install\n"
        "async def app(scope, receive, send): pass\n"
        "install(app)"
    )
    assert not loaded & {"redis", "sqlalchemy", "prometheus_client", "aiosqlite", "httpx2"}


def test_every_public_name_is_there_and_listed():
    for name in perf_middleware.__all__:
        assert getattr(perf_middleware, name) is not None
    assert set(dir(perf_middleware)) == set(perf_middleware.__all__)
    with pytest.raises(AttributeError, match="'perf_middleware' has no attribute 'Setings'"):
        perf_middleware.Setings  # noqa: B018


def test_install_is_the_function_whatever_is_imported_first():
    for statement in (
        "import perf_middleware.install",
        "import perf_middleware.bundle",
        "from perf_middleware.install import install",
    ):
        code = f"{statement}\nimport perf_middleware\nassert callable(perf_middleware.install)"
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, check=True)


# --- building again -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_an_app_that_builds_its_stack_again_keeps_its_figures(make):
    """Test suites do it to swap middlewares: `app.middleware_stack = None`."""
    app = make()
    perf = install(app)
    get(app)
    app.middleware_stack = None
    get(app)
    assert perf.metrics.recorder.figures.totals() == (2, 0)
    assert layers_of(perf)[:2] == ["metrics", "operator endpoints"]


def test_a_websocket_route_works_under_install():
    async def echo(socket):
        await socket.accept()
        await socket.send_text(type(socket.state.perf).__name__)
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/ws", echo)])
    install(app)
    with TestClient(app) as client, client.websocket_connect("/ws") as socket:
        assert socket.receive_text() == "Perf"


# --- names and paths that the app has taken already -----------------------------------------------


def test_a_handle_of_the_app_s_own_is_not_overwritten():
    app = Starlette()
    app.state.perf = "mine"
    with pytest.raises(ConfigurationError, match="perf is taken by str"):
        install(app, Settings())
    assert app.state.perf == "mine"


def test_a_state_of_the_app_s_own_under_our_name_is_left_alone():
    @asynccontextmanager
    async def lifespan(app):
        yield {"perf": "mine"}

    async def tell(request):
        return PlainTextResponse(str(request.state.perf))

    app = Starlette(routes=[Route("/", tell)], lifespan=lifespan)
    install(app, Settings())
    with TestClient(app) as client:
        assert client.get("/").text == "mine"


def own_page(request):
    return PlainTextResponse("mine")


def with_own_metrics(kind):
    app = FastAPI() if "FastAPI" in kind else Starlette()
    if kind == "FastAPI, included router":
        router = APIRouter(prefix="/metrics")
        router.add_api_route("", own_page, response_class=PlainTextResponse)
        app.include_router(router)
    elif "mount" in kind:
        app.mount("/metrics", Starlette(routes=[Route("/", own_page)]))
    else:
        app.add_route("/metrics", own_page)
    return app


OWN_METRICS = ["Starlette, route", "Starlette, mount", "FastAPI, route", "FastAPI, mount",
               "FastAPI, included router"]  # fmt: skip


@pytest.mark.parametrize("kind", OWN_METRICS)
def test_an_app_that_exposes_its_own_metrics_keeps_them_and_is_told(kind, caplog):
    app = with_own_metrics(kind)
    perf = install(app, Settings(dashboard={"token": "a token of ours"}))
    with TestClient(app) as client:
        ours = "http_requests_total" in client.get("/metrics").text
        summary = client.get("/_perf/summary", headers={"Authorization": "Bearer a token of ours"})
    assert not ours
    assert summary.status_code == 200
    assert "the app answers /metrics itself" in caplog.text
    assert perf.metrics.recorder.figures.totals()[0] >= 2


@pytest.mark.parametrize("kind", OWN_METRICS)
def test_a_path_that_was_set_is_ours(kind):
    app = with_own_metrics(kind)
    install(app, Settings(metrics={"path": "/metrics"}))
    with TestClient(app) as client:
        assert "http_requests_total" in client.get("/metrics").text


def test_a_route_that_would_match_anything_does_not_take_our_path():
    app = Starlette(routes=[Route("/{path:path}", own_page)])
    install(app, Settings())
    with TestClient(app) as client:
        assert "http_requests_total" in client.get("/metrics").text
        assert client.get("/other").text == "mine"


def test_a_route_that_the_app_adds_while_it_starts_is_left_to_it_too(caplog):
    @asynccontextmanager
    async def lifespan(app):
        app.add_route("/metrics", own_page)
        yield

    app = Starlette(lifespan=lifespan)
    install(app, Settings())
    with TestClient(app) as client:
        assert [client.get("/metrics").text for _ in range(2)] == ["mine", "mine"]
    assert caplog.text.count("the app answers /metrics itself") == 1


def test_a_parent_finds_its_own_handle_again_after_a_mounted_app_of_another_bundle():
    seen = []

    class Look:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await self.app(scope, receive, send)
            if scope["type"] == "http":
                seen.append(scope["state"]["perf"])

    async def tell(request):
        seen.append(request.state.perf)
        return PlainTextResponse("child")

    child = Starlette(routes=[Route("/", tell)])
    child_perf = install(child, Settings(service="child"))
    parent = Starlette(routes=[Mount("/child", child)])
    perf = install(parent, Settings())
    parent.add_middleware(Look)
    with TestClient(parent) as client:
        client.get("/child/")
    assert seen == [child_perf, perf]
