"""docs/cache.md tells every directive, every bound and every word of Cache-Status, as they hold."""

import json
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from perf_middleware import CacheSettings, Settings, cache_response, install
from perf_middleware.caching.rules import CachePolicy
from perf_middleware.caching.syntax.directives import RequestDirectives, ResponseDirectives

PAGE = (Path(__file__).parents[2] / "docs" / "cache.md").read_text("utf-8")


def section(title):
    """The text below the heading `title`, up to the next one of any level."""
    return re.split(r"^#+ ", PAGE.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def words(text):
    """What stands in the first column of the tables, between backticks."""
    first = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    return " ".join(re.findall(r"`([^`]*)`", " ".join(first)))


@pytest.mark.parametrize(
    ("title", "directives"),
    [
        pytest.param("Directives of the app", ResponseDirectives, id="response"),
        pytest.param("Directives of the client", RequestDirectives, id="request"),
    ],
)
def test_every_directive_that_the_cache_reads_has_a_row(title, directives):
    read = {field.name.removesuffix("_fields").replace("_", "-") for field in fields(directives)}
    named = set(re.findall(r"[a-z-]+", words(section(title))))
    assert read - named == set()


def test_every_part_of_a_rule_has_a_row():
    parts = {each.name.removesuffix("_s") for each in fields(CachePolicy) if each.init} - {
        "failures",
        "on_endpoint",
        "pattern",
    }
    assert parts - set(re.findall(r"\w+", words(section("Rules")))) == set()


def test_every_setting_of_the_cache_is_named():
    named = re.findall(r"`(\w+)(?: = [^`]*)?`|\bcache\.(\w+)", PAGE)
    assert set(CacheSettings.model_fields) - {word for words in named for word in words} == set()


def test_the_toml_and_the_environment_make_the_same_rules(monkeypatch):
    in_toml = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])["cache"]
    (export,) = re.findall(r"^export (PERFORMANCE_CACHE_RULES=.*)$", PAGE, re.MULTILINE)
    name, _, text = shlex.split(export)[0].partition("=")
    monkeypatch.setenv(name, text)
    untagged = [{key: rule[key] for key in rule if key != "tags"} for rule in in_toml["rules"]]
    assert json.loads(text) == untagged
    assert Settings().cache.rules == CacheSettings(rules=untagged).rules
    assert CacheSettings(**in_toml).rules[0].tags == ("item:{item_id}",)


def answers(**headers):
    async def endpoint(request):
        return Response("x", headers={name.replace("_", "-"): headers[name] for name in headers})

    return endpoint


async def status(request):
    code = request.path_params["code"]
    return Response("" if code == 304 else "x", code, headers={"cache-control": "max-age=3600"})


async def login(request):
    request.session["user"] = 1
    return Response("x", headers={"cache-control": "max-age=3600"})


async def events(request):
    return StreamingResponse(iter([b"x"]), media_type="text/event-stream", headers=FOR_AN_HOUR)


FOR_AN_HOUR = {"cache-control": "max-age=3600"}


@pytest.fixture(scope="module")
def client():
    routes = [
        Route("/silent", answers()),
        Route("/hour", answers(cache_control="max-age=3600")),
        Route("/no-store", answers(cache_control="no-store")),
        Route("/private", answers(cache_control="private, max-age=3600")),
        Route("/no-cache", answers(cache_control="no-cache")),
        Route("/understood", answers(cache_control="must-understand, max-age=3600")),
        Route("/varies", answers(cache_control="max-age=3600", vary="*")),
        Route("/by-language", answers(cache_control="max-age=3600", vary="accept-language")),
        Route("/sets", answers(cache_control="max-age=3600", set_cookie="a=b")),
        Route("/large", answers(cache_control="max-age=3600", content_length="2000000")),
        Route("/length", answers(cache_control="max-age=3600", content_length="one")),
        Route("/status/{code:int}", status),
        Route("/login", login),
        Route("/events", events),
        Route("/never", cache_response(bypass=True)(answers())),
    ]
    session = Middleware(SessionMiddleware, secret_key="no secret")
    app = Starlette(routes=routes, middleware=[session])
    install(app, Settings())
    with TestClient(app) as client:
        client.get("/hour")
        client.get("/by-language")
        client.cookies.clear()
        yield client


@pytest.mark.parametrize(
    ("path", "headers", "told"),
    [
        ("/silent", {}, 'fwd=uri-miss; detail="no-freshness"'),
        ("/hour", {}, "hit; ttl=3600"),
        ("/hour", {"If-Match": "*"}, 'fwd=bypass; detail="precondition"'),
        ("/hour", {"Cookie": "a=1"}, 'fwd=bypass; detail="credentials: cookie"'),
        ("/hour", {"Authorization": "a"}, 'fwd=bypass; detail="credentials: authorization"'),
        ("/hour", {"Cache-Control": "no-cache"}, "fwd=request; stored"),
        ("/silent", {"Cache-Control": "only-if-cached"}, 'detail="only-if-cached"'),
        ("/by-language", {"Accept-Language": "eo"}, "fwd=vary-miss; stored"),
        ("/never", {}, 'fwd=uri-miss; detail="cache_response; rule"'),
        ("/hour?1", {"Cache-Control": "no-store"}, 'fwd=uri-miss; detail="request-no-store"'),
        ("/no-store", {}, 'fwd=uri-miss; detail="no-store"'),
        ("/private", {}, 'fwd=uri-miss; detail="private"'),
        ("/no-cache", {}, 'fwd=uri-miss; detail="already-stale"'),
        ("/varies", {}, 'fwd=uri-miss; detail="vary"'),
        ("/sets", {}, 'fwd=uri-miss; detail="set-cookie"'),
        ("/events", {}, 'fwd=uri-miss; detail="event-stream"'),
        ("/login", {}, 'fwd=uri-miss; detail="session"'),
        ("/status/206", {}, 'fwd=uri-miss; detail="partial"'),
        ("/status/304", {}, 'fwd=uri-miss; detail="not-final"'),
        ("/status/412", {}, 'fwd=uri-miss; detail="conditional"'),
        ("/status/429", {}, 'fwd=uri-miss; detail="status"'),
        ("/large", {}, 'fwd=uri-miss; detail="too-large"'),
        ("/length", {}, 'fwd=uri-miss; detail="content-length"'),
    ],
)
def test_cache_status_tells_what_the_tables_say(client, path, headers, told):
    answer = client.get(path, headers=headers)
    client.cookies.clear()
    # Of an hour some minutes may have passed.
    said = re.sub(r"\bttl=3[3-6]\d\d\b", "ttl=3600", answer.headers["cache-status"])
    assert said == f"perf_middleware; {told}"
    documented = words(section("A request")) + " " + words(section("An answer"))
    for word in re.findall(r"fwd=[a-z-]+|hit|stored", told):
        assert word in documented + " stored"
    for detail in re.findall(r'detail="(?:cache_response; )?([a-z-]+)', told):
        assert detail in re.findall(r"[a-z-]+", documented)


def test_a_head_that_no_get_went_before_is_told_so(client):
    answer = client.head("/hour?2")
    assert answer.headers["cache-status"] == 'perf_middleware; fwd=uri-miss; detail="head"'


def test_a_bypassing_rule_is_told_so_once_it_is_known(client):
    client.get("/never")
    answer = client.get("/never")
    assert answer.headers["cache-status"] == (
        'perf_middleware; fwd=bypass; detail="cache_response; rule"'
    )
