"""`perf.cache.explain`: what is stored of a URL, what a request would get; nothing changes."""

import asyncio

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from perf_middleware import CacheRule, ResponseCacheMiddleware, cache_response
from perf_middleware.caching.runtime import ResponseCache
from tests.caching.stage import App, Clock, ask, cached, run, scope_of, verdict


async def plain(request):
    return PlainTextResponse("nothing is said")


async def kept(request):
    return PlainTextResponse("kept", headers={"cache-control": "max-age=60", "etag": '"a"'})


async def varied(request):
    headers = {"cache-control": "max-age=60", "vary": "accept-language"}
    return PlainTextResponse(request.headers.get("accept-language", ""), headers=headers)


@cache_response(ttl=30, tags=("items", "item:{id}"), shared=True, name="items")
async def item(request):
    return PlainTextResponse("an item")


@pytest.fixture
def client():
    rule = CacheRule(path="/never/*", bypass=True)
    app = Starlette(
        routes=[Route("/plain", plain), Route("/kept", kept), Route("/varied", varied),
                Route("/items/{id}", item), Route("/never/{x}", kept), Route("/é", kept)],
    )  # fmt: skip
    cache = ResponseCache(rules=[(rule.pattern(), rule.policy())])
    return TestClient(ResponseCacheMiddleware(app, cache)), cache


def explained(cache, *args, **kwargs):
    told = asyncio.run(cache.explain(*args, **kwargs))
    assert orjson.dumps(told)
    return told


@pytest.mark.parametrize(
    ("asked", "path", "verdict"),
    [
        pytest.param([], "/kept", "miss: nothing is stored", id="nothing yet"),
        pytest.param(["/kept"], "/kept", "fresh", id="a stored response"),
        pytest.param(["/kept?a=1"], "/kept?a=1", "fresh", id="with its query"),
        pytest.param(["/kept?a=1"], "/kept", "miss", id="another query is another URL"),
        pytest.param(["/é"], "/é", "fresh", id="a path that has to be escaped"),
        pytest.param(["/plain"], "/plain", "miss", id="an answer that says nothing"),
        pytest.param(["/never/1"], "/never/1", "bypass: the rule /never/*", id="a rule says never"),
        pytest.param(["/items/5"], "/items/5", "fresh", id="by a rule on the endpoint"),
    ],
)
def test_the_verdict_is_what_a_request_would_get(client, asked, path, verdict):
    http, cache = client
    for url in asked:
        http.get(url)
    assert explained(cache, f"http://testserver{path}")["verdict"].startswith(verdict)


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        pytest.param({"Cookie": "a=b"}, "bypass: credentials: cookie", id="credentials"),
        pytest.param({"Cache-Control": "no-cache"}, "the app is asked first", id="no-cache"),
        pytest.param({"Content-Length": "5"}, "bypass: precondition or body", id="a body"),
    ],
)
def test_what_the_request_says_counts(client, headers, verdict):
    http, cache = client
    http.get("/kept")
    assert explained(cache, "http://testserver/kept", headers=headers)["verdict"] == verdict


def test_variants_are_told_apart(client):
    http, cache = client
    http.get("/varied", headers={"accept-language": "de"})
    told = [
        explained(cache, "http://testserver/varied", headers={"accept-language": language})
        for language in ("de", "en")
    ]
    assert told[0]["verdict"].startswith("fresh")
    assert told[1]["verdict"].startswith("miss")
    assert [len(each["stored"]) for each in told] == [1, 1]


def test_what_is_stored_is_told_with_its_rule_and_tags(client):
    http, cache = client
    http.get("/items/5")
    told = explained(cache, "http://testserver/items/5")
    assert told["rule"] == {"name": "items", "ttl_s": 30, "shared": True}
    (entry,) = told["stored"]
    assert entry["tags"] == ["items", "item:5"]
    assert entry["route"] == "/items/{id}"
    assert entry["age_s"] == 0
    assert 29 <= entry["ttl_s"] <= 30


def test_the_reason_of_the_last_refusal_is_remembered(client):
    http, cache = client
    http.get("/plain")
    assert explained(cache, "http://testserver/plain")["last_refusal"] == "no-freshness"


@pytest.mark.parametrize("collapse", [True, False])
def test_it_is_the_last_one_also_where_the_answers_of_its_url_were_refused_before(collapse):
    """A status without a lifetime of its own, where others have one by default."""

    async def act():
        app = App((b"cache-control", b"private"))
        layer = cached(app, default_ttl_s=15, collapse=collapse)
        told = []
        for headers, status in ((app.headers, 200), ([(b"x-a", b"1")], 500)):
            app.headers, app.status = headers, status
            await ask(layer, "/")
            told.append((await layer.cache.explain("http://example.test/"))["last_refusal"])
        return told

    assert run(act) == ["private", "no-freshness"]


def test_what_one_client_was_refused_is_told_until_something_is_stored():
    async def act():
        app = App(status=429)
        layer = cached(app)
        told = []
        for status in (429, 200):
            app.status = status
            await ask(layer, "/")
            told.append((await layer.cache.explain("http://example.test/"))["last_refusal"])
        return told

    assert run(act) == ["status", None]


def test_a_path_alone_is_one_of_any_host(client):
    http, cache = client
    http.get("/kept")
    told = explained(cache, "/kept")
    assert len(told["stored"]) == 1
    assert told["verdict"].startswith("fresh")


def test_a_request_can_be_explained_as_it_came(client):
    http, cache = client
    http.get("/kept")
    scope = {
        "type": "http", "method": "GET", "scheme": "http", "path": "/kept", "query_string": b"",
        "headers": [(b"host", b"testserver")],
    }  # fmt: skip
    assert explained(cache, Request(scope))["verdict"].startswith("fresh")


def test_a_request_that_a_middleware_found_a_user_of_is_explained_so(client):
    http, cache = client
    http.get("/kept")
    scope = {
        "type": "http", "method": "GET", "scheme": "http", "path": "/kept", "query_string": b"",
        "headers": [(b"host", b"testserver")], "session": {"user": 5},
    }  # fmt: skip
    assert explained(cache, Request(scope))["verdict"] == "bypass: session"


def test_a_path_without_a_host_is_told_as_it_was_asked(client):
    _, cache = client
    assert explained(cache, "/kept?a=b")["url"] == "/kept?a=b"
    assert explained(cache, "http://testserver/kept")["url"] == "http://testserver/kept"


def test_other_methods_are_never_answered_from_the_store(client):
    _, cache = client
    assert "never" in explained(cache, "/kept", method="POST")["verdict"]


RULES = [
    {"path": "/query", "ttl": 60, "query": ["page"]},
    {"path": "/own", "ttl": 60, "private_by": "cookie:session"},
    {"path": "/all", "ttl": 60, "shared": True},
    {"path": "/never", "bypass": True},
    {"path": "/stale", "ttl": 10, "stale_while_revalidate": 500},
]
COOKIE, ONLY = (b"cookie", b"session=1"), (b"cache-control", b"only-if-cached")
LANGUAGE = (b"vary", b"accept-language")


@pytest.mark.parametrize("directives", [True, False], ids=["directives", "no directives"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("only", [False, True], ids=["any", "only-if-cached"])
@pytest.mark.parametrize("age_s", [0, 30, 90])
@pytest.mark.parametrize(
    ("stored", "url", "fields", "state"),
    [
        pytest.param([], "/a", [], {}, id="nothing is stored"),
        pytest.param(["/a"], "/a", [], {}, id="it is stored"),
        pytest.param(["/a"], "/a", [COOKIE], {}, id="credentials"),
        pytest.param(["/a"], "/a", [COOKIE], {"session": {"a": 1}}, id="and a session"),
        pytest.param(["/a"], "/a", [], {"session": {"a": 1}}, id="a session"),
        pytest.param(["/a"], "/a", [], {"session": {}}, id="an empty session"),
        pytest.param(["/a"], "/a", [(b"if-match", b"*")], {}, id="a precondition"),
        pytest.param(["/a"], "/a", [(b"host", b"example.test")], {}, id="two hosts"),
        pytest.param(["/a"], "/a", [(b"pragma", b"no-cache")], {}, id="pragma"),
        pytest.param(["/vary"], "/vary", [(b"accept-language", b"de")], {}, id="another variant"),
        pytest.param(["/vary"], "/vary", [], {}, id="its variant"),
        pytest.param(["/vary"], "/vary", [COOKIE], {}, id="a variant by another field"),
        pytest.param(["/query?page=1"], "/query?page=1&x=2", [], {}, id="the query that counts"),
        pytest.param(["/query?page=1"], "/query?page=2", [], {}, id="another query"),
        pytest.param(["/query?page=1", "/query?page=2"], "/query?page=2", [], {}, id="of several"),
        pytest.param(["/query?page=1"], "/query", [], {}, id="no query"),
        pytest.param(["/own"], "/own", [COOKIE], {}, id="another's"),
        pytest.param(["/own"], "/own", [], {}, id="nobody's"),
        pytest.param(["/own"], "/own", [(b"authorization", b"a")], {}, id="other credentials"),
        pytest.param(["/all"], "/all", [COOKIE], {"session": {"a": 1}}, id="everybody's"),
        pytest.param(["/never"], "/never", [COOKIE], {"session": {"a": 1}}, id="never"),
        pytest.param(["/stale"], "/stale", [], {}, id="to be used stale"),
    ],
)
def test_what_is_explained_is_what_a_request_gets(
    stored, url, fields, state, age_s, only, method, directives
):
    async def act():
        clock = Clock()
        app = App((b"cache-control", b"max-age=60"), (b"etag", b'"1"'))
        layer = cached(app, clock, rules=RULES, request_directives=directives)
        for each in stored:
            app.headers = app.headers[:2] + [LANGUAGE] * each.startswith("/vary")
            await ask(layer, each)
        clock.pass_s(age_s)
        sent = [*fields, *[ONLY] * only]
        scope = scope_of(url, *sent, method=method, **state)
        words = (await layer.cache.explain(Request(scope)))["verdict"]
        calls = app.calls
        answer = await ask(layer, url, *sent, method=method, **state)
        told = verdict(answer)
        if answer.status == 504:
            assert words.startswith("504")
            assert app.calls == calls
        elif told.startswith("hit"):
            assert "answered from the store" in words
            assert ("behind" in words) == (app.calls > calls)
        elif told.startswith("fwd=bypass"):
            assert words.startswith("bypass")
            reason = told.partition('detail="')[2].rstrip('"').rpartition("; ")[2]
            assert reason in words
        elif "miss" in told:
            assert words.startswith("miss")
        else:
            assert words == "the app is asked first"

    run(act)


@pytest.mark.parametrize(
    ("stored", "url", "count", "words"),
    [
        pytest.param(["/query?page=1"], "/query?page=1&x=2", 1, "fresh", id="by what counts"),
        pytest.param(["/query?page=1"], "/query?page=2", 1, "miss", id="another page"),
        pytest.param(["/query?page=1"], "/query", 1, "miss", id="no page"),
        pytest.param(["/query?page=1", "/query?page=2"], "/query?page=2", 2, "fresh",
                     id="one of several"),
        pytest.param(["/vary"], "/vary", 1, "fresh", id="a variant"),
    ],
)  # fmt: skip
def test_a_path_alone_is_explained_by_the_rule_and_the_variant(stored, url, count, words):
    async def act():
        layer = cached(App((b"cache-control", b"max-age=60"), LANGUAGE), rules=RULES)
        for each in stored:
            await ask(layer, each)
        for asked in (url, f"http://example.test{url}"):
            told = await layer.cache.explain(asked)
            assert len(told["stored"]) == count
            assert told["verdict"].startswith(words)

    run(act)


def test_a_path_alone_that_several_hosts_have_is_no_one_s():
    async def act():
        layer = cached(App())
        for host in ("a.test", "b.test"):
            await ask(layer, "/a", host=host)
        told = await layer.cache.explain("/a")
        assert len(told["stored"]) == 2
        assert told["verdict"].startswith("miss")

    run(act)


def test_asking_changes_nothing(client):
    http, cache = client
    http.get("/kept")
    before = cache.status()
    explained(cache, "http://testserver/kept")
    assert cache.status() == before


@pytest.mark.parametrize(
    "url", ["kept", "", "?a=b", "ftp://testserver/kept", "ws://testserver/kept", "http:///kept",
            "http://[", "//[\ud800"],
)  # fmt: skip
def test_what_is_no_url_is_refused(client, url):
    _, cache = client
    with pytest.raises(ValueError, match="neither a path"):
        explained(cache, url)


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        pytest.param({"Accept": "€5"}, "'Accept' must have a value in Latin-1", id="not Latin-1"),
        pytest.param({"X-A": "\ud800"}, "'X-A' must have a", id="half a character"),
        pytest.param({"X-A": "5\nb: c"}, "'X-A' must .* without CR, LF and NUL", id="a line feed"),
        pytest.param({"X-A": "5\r"}, "'X-A' must .* without CR, LF and NUL", id="a return"),
        pytest.param({"X-A": "5\0"}, "'X-A' must .* without CR, LF and NUL", id="a NUL"),
        pytest.param({"X A": "5"}, "'X A' is no name of a header", id="a name with a space"),
        pytest.param({"Größe": "5"}, "'Größe' is no name of a header", id="a name in unicode"),
        pytest.param({"": "5"}, "'' is no name of a header", id="no name"),
    ],
)
def test_a_header_that_no_client_can_send_is_refused_by_its_name(client, headers, complaint):
    _, cache = client
    with pytest.raises(ValueError, match=complaint) as caught:
        explained(cache, "/kept", headers=headers)
    assert "5" not in str(caught.value)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("method", ["", "GET ", "GE T", "GET\n", "Straße", "\ud800"], ids=ascii)
def test_a_method_that_is_no_token_is_refused(client, method):
    _, cache = client
    with pytest.raises(ValueError, match="is no method: it must be a token"):
        explained(cache, "/kept", method=method)
