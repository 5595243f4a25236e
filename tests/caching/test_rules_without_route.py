"""A configured rule that no route of the app can match is told by name, when the app starts."""

import logging

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.testclient import TestClient

from perf_middleware import CacheRule, Settings, install

QUIET = {"runtime": {"enabled": False}, "metrics": {"default_registry": False}}


async def page(request):
    return PlainTextResponse("page")


def starlette():
    return Starlette(
        routes=[
            Route("/items/{id:int}", page),
            Route("/items/{id:uuid}/parts", page),
            Route("/plain", page),
            Mount("/v1", routes=[Route("/deep/{x}", page)]),
        ]
    )


def fastapi():
    app = FastAPI()
    router = APIRouter(prefix="/items")
    router.get("/{id}")(page)
    router.get("/{id}/parts")(page)
    app.include_router(router)
    app.get("/plain")(page)
    app.mount("/v1", Starlette(routes=[Route("/deep/{x}", page)]))
    return app


def told(app, path, caplog, **cache):
    rule = CacheRule(path=path, ttl=1)
    install(app, Settings(**QUIET, cache={"rules": (rule,), **cache}))
    with caplog.at_level(logging.WARNING, "perf_middleware"), TestClient(app):
        TestClient(app).get("/plain")
    return [record.getMessage() for record in caplog.records if "no route" in record.getMessage()]


@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize(
    ("path", "has_route"),
    [
        pytest.param("/plain", True, id="a literal path"),
        pytest.param("/plane", False, id="a typing error"),
        pytest.param("/items/{id}", True, id="a template"),
        pytest.param("/items/{other}", True, id="the name of a parameter says nothing"),
        pytest.param("/items/{id}/parts", True, id="a parameter in the middle"),
        pytest.param("/items/*", True, id="a star"),
        pytest.param("/item/*", False, id="a star below nothing"),
        pytest.param("/v1/deep/{x}", True, id="below a mount"),
        pytest.param("/v2/deep/{x}", False, id="below no mount"),
        pytest.param("*", True, id="everything"),
    ],
)
def test_a_rule_without_a_route_is_told_at_the_start(make, path, has_route, caplog):
    said = told(make(), path, caplog)
    expected = [] if has_route else [f"cache.rules: no route of the app matches {path}"]
    assert said == expected


def test_an_app_that_routes_by_host_is_not_second_guessed(caplog):
    app = Starlette(routes=[Host("a.test", Router([Route("/x", page)])), Route("/plain", page)])
    assert told(app, "/anything", caplog) == []


def test_with_the_cache_off_nothing_is_said(caplog):
    assert told(starlette(), "/plane", caplog, enabled=False) == []
