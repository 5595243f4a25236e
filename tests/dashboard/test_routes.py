"""The operator endpoints: answered before the app, to whoever has the token."""

import json
import warnings

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from perf_middleware import Settings, install
from perf_middleware.dashboard.routes import Endpoint, OperatorEndpoints, json_answer
from tests.driving import get

pytestmark = pytest.mark.usefixtures("nothing_set")

TOKEN = "s3cret-t0ken"
BEARER = [("Authorization", f"Bearer {TOKEN}")]
WRONG = [("Authorization", "Bearer guessed-it")]
GUARDED = ["/_perf/status", "/_perf/summary", "/_perf/reset"]


async def hello(request):
    return PlainTextResponse("hello")


class RefusesEverything:
    """The app's own authentication, which knows nothing of operators."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await Response("not you", status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def installed(framework=Starlette, **settings):
    app = framework(routes=[Route("/", hello)])
    install(app, Settings(**{"dashboard": {"token": TOKEN}, **settings}))
    return app


def fields(answer):
    """Every header field that an operator's answer must carry, and may not carry twice."""
    return {name: answer.header(name) for name in ("content-type", "cache-control")}


# --- the door -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    ("headers", "error"),
    [
        pytest.param([], "", id="no token"),
        pytest.param(WRONG, ', error="invalid_token"', id="wrong token"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
def test_without_the_token_there_is_only_a_challenge(path, headers, error, method):
    """Whatever the method: who may not come in does not learn what is behind the door."""
    answer = get(installed(), path, method=method, headers=headers)
    assert answer.status == 401
    assert answer.header("www-authenticate") == f'Bearer realm="perf_middleware"{error}'
    assert fields(answer) == {
        "content-type": "application/problem+json", "cache-control": "no-store",
    }  # fmt: skip
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert answer.json() == {"status": 401, "detail": "A bearer token is needed."}
        assert answer.header("content-length") == str(len(answer.body))


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        pytest.param("/_perf/status", "POST", "GET, HEAD", id="status cannot be posted to"),
        pytest.param("/_perf/summary", "DELETE", "GET, HEAD", id="summary cannot be deleted"),
        pytest.param("/_perf/status", "OPTIONS", "GET, HEAD", id="options"),
        pytest.param("/_perf/reset", "GET", "POST", id="a reset is never a GET"),
        pytest.param("/_perf/reset", "HEAD", "POST", id="nor a HEAD"),
        pytest.param("/metrics", "POST", "GET, HEAD", id="metrics cannot be posted to"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(path, method, allow):
    answer = get(installed(), path, method=method, headers=BEARER)
    assert answer.status == 405
    assert answer.header("allow") == allow
    assert answer.header("content-type") == "application/problem+json"


@pytest.mark.parametrize("path", ["/_perf/status", "/_perf/summary"])
def test_an_answer_is_json_that_nobody_stores(path):
    answer = get(installed(), path, headers=BEARER)
    assert answer.status == 200
    assert fields(answer) == {"content-type": "application/json", "cache-control": "no-store"}
    assert answer.header("content-length") == str(len(answer.body))
    assert isinstance(answer.json(), dict)


def test_what_no_utf8_may_hold_fails_no_picture():
    """An error that is told may repeat what a client has sent."""

    async def picture():
        return {"problems": ["no address \ud800", 1], "\udcff": (None, {2: "fine"})}

    answer = get(json_answer(picture), "/")
    assert answer.status == 200
    assert answer.json() == {
        "problems": ["no address \\ud800", 1],
        "\\udcff": [None, {"2": "fine"}],
    }


@pytest.mark.parametrize("path", ["/_perf/status", "/metrics"])
def test_head_is_a_get_without_its_body(path):
    app = installed()
    answer, head = (get(app, path, method=method, headers=BEARER) for method in ("GET", "HEAD"))
    assert head.status == 200
    assert head.body == b""
    assert [name for name, _ in head.headers] == [name for name, _ in answer.headers]


@pytest.mark.parametrize(
    "path",
    ["/_perf", "/_perf/", "/_perf/status/", "/_perf/no", "/_PERF/status", "/metrics/", "/metric"],
)
def test_every_other_path_is_the_apps(path):
    assert get(installed(), path, headers=BEARER).body == b"Not Found"


def test_a_websocket_at_an_operators_path_is_the_apps():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    scope = {"type": "websocket", "path": "/metrics", "headers": []}
    anyio.run(install(app), scope, None, None)
    assert seen == ["websocket"]


@pytest.mark.parametrize("framework", [Starlette, FastAPI], ids=["starlette", "fastapi"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_operators_get_in_although_the_app_refuses_everybody(framework, moment):
    app = framework(routes=[Route("/", hello)])
    if moment == "before":
        app.add_middleware(RefusesEverything)
    install(app, Settings(dashboard={"token": TOKEN}))
    if moment == "after":
        app.add_middleware(RefusesEverything)
    assert get(app).status == 403
    assert get(app, "/metrics").status == 200
    assert get(app, "/_perf/status", headers=BEARER).status == 200
    assert get(app, "/_perf/reset", method="POST", headers=BEARER).status == 200


# --- below a root path --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root_path", "path", "ours"),
    [
        pytest.param("", "/_perf/status", True, id="no root path"),
        pytest.param("/api", "/api/_perf/status", True, id="the server prepends it (ASGI)"),
        pytest.param("/api", "/_perf/status", True, id="a proxy has stripped it"),
        pytest.param("/api", "/apix/_perf/status", False, id="only a whole segment counts"),
        pytest.param("/api", "/api", False, id="nothing but the root path"),
        pytest.param("", "/api/_perf/status", False, id="no root path, so another path"),
        pytest.param("/_perf", "/_perf/_perf/status", True, id="the same words"),
    ],
)
def test_the_endpoints_stand_below_the_root_path(root_path, path, ours):
    answer = get(installed(), path, root_path=root_path, headers=BEARER)
    assert (answer.status == 200) is ours


def test_fastapis_own_root_path_counts():
    with warnings.catch_warnings(action="ignore"):  # newer ones want it from the server
        app = FastAPI(root_path="/api")
    install(app, Settings(dashboard={"token": TOKEN}))
    assert get(app, "/api/_perf/status", headers=BEARER).status == 200
    assert get(app, "/metrics").status == 200


def test_a_mounted_app_has_its_endpoints_below_its_mount():
    parent = Starlette(routes=[Mount("/child", installed())])
    assert get(parent, "/child/_perf/status", headers=BEARER).status == 200
    assert get(parent, "/child/metrics").status == 200
    assert get(parent, "/metrics").status == 404


# --- the metrics path ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "headers", "status"),
    [
        pytest.param({}, [], 200, id="open, as scrapers expect"),
        pytest.param({}, WRONG, 200, id="open to whatever is sent"),
        pytest.param({"token": "for-scrapers"}, [], 401, id="protected"),
        pytest.param({"token": "for-scrapers"}, BEARER, 401, id="by a token of its own"),
        pytest.param(
            {"token": "for-scrapers"}, [("Authorization", "Bearer for-scrapers")], 200, id="known"
        ),
        pytest.param(
            {"token": " for-scrapers\n"}, [("Authorization", "Bearer for-scrapers")], 200,
            id="read from a file with its last line",
        ),
    ],
)  # fmt: skip
def test_the_metrics_path_is_open_unless_it_has_a_token(metrics, headers, status):
    assert get(installed(metrics=metrics), "/metrics", headers=headers).status == status


def test_the_scrapers_token_opens_nothing_else():
    app = installed(metrics={"token": "for-scrapers"})
    bearer = [("Authorization", "Bearer for-scrapers")]
    assert get(app, "/_perf/status", headers=bearer).status == 401


def test_paths_are_the_settings():
    app = installed(metrics={"path": "/figures"}, dashboard={"prefix": "/a/b", "token": TOKEN})
    assert get(app, "/figures").status == 200
    assert get(app, "/a/b/status", headers=BEARER).status == 200
    assert get(app, "/metrics").status == get(app, "/_perf/status", headers=BEARER).status == 404


# --- what they say ------------------------------------------------------------------------------


def test_status_is_one_picture_of_the_process():
    app = installed(service="shop")
    for _ in range(3):
        get(app)
    said = get(app, "/_perf/status", headers=BEARER).json()
    assert said["service"] == "shop"
    assert said["lifespan"] == "not running"
    assert said["requests"]["total"] == 3
    assert said["requests"]["in_progress"] == 1, "the one that asks"
    assert [layer["name"] for layer in said["layers"]] == [
        "metrics", "operator endpoints", "compression", "response cache",
        "memory watch", "Starlette",
    ]  # fmt: skip
    assert said["cache"] == {
        "hits": 0, "shared_hits": 0, "shared": None, "stale_hits": 0, "misses": 3,
        "bypassed": 0, "collapsed": 0, "revalidated": 0,
        "stored": 0, "invalidated": 0, "hit_ratio": 0.0,
        "entries": 0, "bytes": 0, "bytes_max": 64 << 20, "evictions": 0,
        "tracked": {"in_use": False, "lease": None, "lease_over": 0},
    }  # fmt: skip
    assert set(said["resources"]["event loop probe"]) >= {"state", "required"}
    assert said["health"] == {"score": None, "inputs": []}


def test_status_is_the_same_as_the_handles():
    app = installed()
    said = get(app, "/_perf/status", headers=BEARER).json()
    of_handle = json.loads(json.dumps(app.state.perf.status()))
    for changing in ("requests", "health", "overhead_us", "resources", "memory"):
        assert said.pop(changing).keys() == of_handle.pop(changing).keys()
    assert said == of_handle


def test_summary_tells_of_each_route():
    app = installed()
    get(app)
    said = get(app, "/_perf/summary", headers=BEARER).json()
    assert "/" in json.dumps(said)
    assert said["this_process"]["rate_per_s"] >= 0


def test_operators_requests_are_counted_under_their_path():
    app = installed()
    get(app, "/_perf/status")
    get(app, "/_perf/status", headers=BEARER)
    by_key = app.state.perf.metrics.recorder.figures.by_key
    assert {(route, status) for _, route, status in by_key} == {
        ("/_perf/status", 401), ("/_perf/status", 200),
    }  # fmt: skip


def test_counts_are_reset_by_post_and_token_only():
    app = installed()
    totals = app.state.perf.metrics.recorder.figures.totals
    get(app)
    for method, headers in (("POST", []), ("POST", WRONG), ("GET", BEARER), ("HEAD", BEARER)):
        before = totals()[0]
        assert get(app, "/_perf/reset", method=method, headers=headers).status in {401, 405}
        assert totals()[0] == before + 1
    answer = get(app, "/_perf/reset", method="POST", headers=BEARER)
    assert (answer.status, answer.json()) == (200, {"reset": True})
    assert answer.header("cache-control") == "no-store"
    assert totals()[0] == 1, "the reset itself"


def test_no_answer_and_no_picture_holds_a_token():
    app = installed(metrics={"token": "for-scrapers"})
    scraper = [("Authorization", "Bearer for-scrapers")]
    told = str(app.state.perf.status()) + repr(app.state.perf.describe())
    for path in (*GUARDED, "/metrics"):
        for method in ("GET", "POST", "HEAD"):
            for headers in ([], WRONG, BEARER, scraper):
                answer = get(app, path, method=method, headers=headers)
                told += repr(answer.headers) + answer.body.decode()
    assert TOKEN not in told
    assert "for-scrapers" not in told


def test_a_picture_of_any_values_becomes_json():
    """What resources say of themselves is theirs."""

    async def picture():
        return {1: set, "kind": object, "nan": float("nan"), "ünï": "ünï"}

    endpoints = {"/x": Endpoint(json_answer(picture))}
    answer = get(OperatorEndpoints(hello, endpoints=endpoints), "/x")
    assert answer.json() == {
        "1": "<class 'set'>", "kind": "<class 'object'>", "nan": None, "ünï": "ünï",
    }  # fmt: skip
