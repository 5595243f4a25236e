"""A database that is busy, in apps of every kind: 503 with Retry-After, and not a word more."""

import anyio
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import (
    DatabaseBusyError,
    PerfMiddlewareError,
    RequestRejectedError,
    Settings,
    install,
)
from perf_middleware.limits.deadlines.runtime import current_deadline
from tests.driving import ask, http_scope

# In memory there is one connection: whoever wants a second one waits for the first.
BUSY = {"database": {"url": "sqlite://", "pool_wait_s": 0.01}}


async def use_two(perf):
    async with perf.database.session() as first, perf.database.session() as second:
        await first.execute(text("select 1"))
        await second.execute(text("select 2"))


def fastapi_app():
    app = FastAPI()
    perf = install(app, Settings(**BUSY))

    @app.api_route("/", methods=["GET", "HEAD"])
    async def endpoint() -> None:
        await use_two(perf)

    return app, perf


def starlette_app():
    async def endpoint(request):
        await use_two(request.state.perf)

    app = Starlette(routes=[Route("/", endpoint)])
    return app, install(app, Settings(**BUSY))


def by_hand():
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await use_two(scope["state"]["perf"])

    perf = install(app, Settings(**BUSY))
    return perf, perf


def in_a_middleware():
    app = FastAPI()
    perf = install(app, Settings(**BUSY))

    @app.middleware("http")
    async def authenticate(request, call_next):
        await use_two(perf)
        return await call_next(request)

    return app, perf


def in_a_mounted_app():
    inner, outer = FastAPI(), FastAPI()
    perf = install(outer, Settings(**BUSY))

    @inner.get("/")
    async def endpoint() -> None:
        await use_two(perf)

    outer.mount("/", inner)
    return outer, perf


def answer_of(app, perf, path="/", **request):
    async def main():
        async with perf.running():
            return await ask(app, http_scope(path, **request))

    return anyio.run(main)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("build", [fastapi_app, starlette_app, by_hand, in_a_middleware])
def test_a_busy_database_is_answered_with_503_and_when_to_come_again(build, method):
    app, perf = build()
    answer = answer_of(app, perf, method=method)
    assert answer.status == 503
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("retry-after") == "1"
    assert answer.header("cache-control") == "no-store"
    if method == "GET":
        assert answer.json() == {
            "status": 503, "title": "Service Unavailable", "detail": "The database is busy.",
        }  # fmt: skip
    assert perf.database.status()["main"]["lent"] == 0


def test_an_app_mounted_in_it_answers_in_its_own_form_and_as_honestly():
    answer = answer_of(*in_a_mounted_app())
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert "main" not in answer.body.decode()


async def own_answer(_request, error):
    return JSONResponse({"own": type(error).__name__}, 503)


@pytest.mark.parametrize(
    "kind", [HTTPException, 503, DatabaseBusyError, RequestRejectedError, PerfMiddlewareError]
)
@pytest.mark.parametrize("build", [fastapi_app, starlette_app])
def test_an_app_that_answers_such_errors_itself_goes_on_doing_so(build, kind):
    app, perf = build()
    app.add_exception_handler(kind, own_answer)
    answer = answer_of(app, perf)
    assert (answer.status, answer.json()) == (503, {"own": "NoConnectionError"})


def test_other_refusals_in_the_apps_code_get_their_own_status():
    app = FastAPI()
    perf = install(app)
    before = dict(app.exception_handlers)

    @app.get("/")
    async def endpoint() -> None:
        raise RequestRejectedError(429, 7)

    answer = answer_of(app, perf)
    assert (answer.status, answer.header("retry-after")) == (429, "7")
    assert answer.json()["detail"] == "The request was refused."
    assert app.exception_handlers == before


def test_a_deadline_is_answered_by_its_own_layer():
    app = FastAPI()
    perf = install(app, Settings(deadlines={"timeout_s": 30}, **BUSY))

    @app.get("/")
    async def endpoint() -> None:
        current_deadline().require(60)

    assert answer_of(app, perf).status == 504


def test_an_answer_that_has_begun_is_cut_and_not_finished_as_another():
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await use_two(scope["state"]["perf"])

    perf = install(app, Settings(**BUSY))
    with pytest.raises(DatabaseBusyError):
        answer_of(perf, perf)


@pytest.mark.parametrize(
    ("build", "stands"), [(fastapi_app, False), (by_hand, True), (in_a_middleware, True)]
)
def test_a_layer_stands_only_where_no_handler_reaches(build, stands):
    _, perf = build()
    assert ("rejections" in [row.name for row in perf.describe()]) == stands


class Passing:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


async def plain(request):
    return PlainTextResponse("")


def test_without_a_database_no_layer_stands():
    app = Starlette(routes=[Route("/", plain)], middleware=[Middleware(Passing)])
    perf = install(app)
    assert "rejections" not in [row.name for row in perf.describe()]
    assert "rejections" not in [row.name for row in install(plain_app).describe()]


async def plain_app(scope, receive, send):
    return None
