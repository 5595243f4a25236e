"""`ResponseCacheMiddleware` without `install`."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from perf_middleware import (
    CacheRule,
    CacheSettings,
    ResponseCache,
    ResponseCacheMiddleware,
    SettingsError,
)


async def told(request):
    return PlainTextResponse("told")


def client_of(*args, **options):
    layer = Middleware(ResponseCacheMiddleware, *args, **options)
    return TestClient(Starlette(routes=[Route("/{path:path}", told)], middleware=[layer]))


def verdicts(client, *paths):
    return ["; hit; " in client.get(path).headers["cache-status"] for path in paths]


def test_it_takes_the_settings_of_the_cache_as_arguments():
    rule = CacheRule(path="/never", bypass=True)
    client = client_of(default_ttl=60, rules=[rule, {"path": "/ever", "ttl": 5}])
    assert verdicts(client, "/a", "/a", "/never", "/never", "/ever", "/ever") == [
        False, True, False, False, False, True,
    ]  # fmt: skip


def test_the_environment_is_not_read(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_CACHE_DEFAULT_TTL", "60")
    assert verdicts(client_of(), "/a", "/a") == [False, False]


def test_a_cache_that_exists_can_be_purged_by_the_app():
    cache = CacheSettings(default_ttl=60).make_cache()
    client = client_of(cache)
    assert verdicts(client, "/a", "/a") == [False, True]
    assert client.portal is None
    cache.purging.wanted_here(cache.purging.wanted(["/a"]), soft=False)
    assert verdicts(client, "/a") == [False]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"default_tll": 60}, "(default_tll=…) is not a setting; did you mean default_ttl"),
        ({"enabled": False}, "(enabled=…): only install can do that"),
        ({"default_ttl": "soon"}, "(default_ttl=…) must be a whole number"),
        ({"rules": [{"path": "/a", "tll": 1}]}, "(rules=…), item 1: tll is not a setting of it"),
        ({"bytes_max": 100_000, "entry_bytes_max": 200_000}, "larger than bytes_max"),
    ],
)
def test_a_wrong_argument_is_named(arguments, problem):
    with pytest.raises(SettingsError) as refused:
        ResponseCacheMiddleware(told, **arguments)
    assert problem in str(refused.value)


def test_a_cache_that_exists_has_its_settings():
    with pytest.raises(TypeError, match="default_ttl"):
        ResponseCacheMiddleware(told, ResponseCache(), default_ttl=60)
