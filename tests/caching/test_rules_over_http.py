"""Rules on endpoints and in settings, and the neighbours in the stack, through whole apps."""

import contextlib
import json

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse as FastText
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from perf_middleware import Settings, cache_response, install
from tests.caching.stage import ask, run, verdict

pytestmark = pytest.mark.usefixtures("nothing_set", "standing_clock")


class Counter:
    """Numbers the answers of an app."""

    def __init__(self):
        self.calls = 0

    def next(self):
        self.calls += 1
        return str(self.calls)


@contextlib.asynccontextmanager
async def client_of(app):
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://example.test") as client:
        client.cookies.clear()
        yield client


def serve(app, **cache):
    """`install` and what is then to be served."""
    perf = install(app, Settings(cache=cache))
    return (app if isinstance(app, Starlette) else perf), perf


# --- where the decorator may stand ----------------------------------------------------------------

TTL = {"ttl": 60, "tags": ["item-{id}"]}


def fastapi_below(count):
    app = FastAPI()

    @app.get("/items/{id}", response_class=FastText)
    @cache_response(**TTL)
    async def endpoint(id: int):
        return count.next()

    return app


def fastapi_above(count):
    app = FastAPI()

    @cache_response(**TTL)
    @app.get("/items/{id}", response_class=FastText)
    async def endpoint(id: int):
        return count.next()

    return app


def fastapi_sync(count):
    app = FastAPI()

    @app.get("/items/{id}", response_class=FastText)
    @cache_response(**TTL)
    def endpoint(id: int):
        return count.next()

    return app


def fastapi_router(count):
    router = APIRouter()

    @router.get("/{id}", response_class=FastText)
    @cache_response(**TTL)
    async def endpoint(id: int):
        return count.next()

    app = FastAPI()
    app.include_router(router, prefix="/items")
    return app


def fastapi_mounted(count):
    below = FastAPI()

    @below.get("/{id}", response_class=FastText)
    @cache_response(**TTL)
    async def endpoint(id: int):
        return count.next()

    app = FastAPI()
    app.mount("/items", below)
    return app


def starlette_function(count):
    @cache_response(**TTL)
    async def endpoint(request):
        return PlainTextResponse(count.next())

    return Starlette(routes=[Route("/items/{id}", endpoint)])


def starlette_sync(count):
    @cache_response(**TTL)
    def endpoint(request):
        return PlainTextResponse(count.next())

    return Starlette(routes=[Mount("/items", routes=[Route("/{id:int}", endpoint)])])


def starlette_class(count):
    @cache_response(**TTL)
    class Endpoint(HTTPEndpoint):
        async def get(self, request):
            return PlainTextResponse(count.next())

    return Starlette(routes=[Route("/items/{id}", Endpoint)])


def starlette_method(count):
    class Endpoint(HTTPEndpoint):
        @cache_response(**TTL)
        async def get(self, request):
            return PlainTextResponse(count.next())

        async def post(self, request):
            return PlainTextResponse("written")

    return Starlette(routes=[Route("/items/{id}", Endpoint)])


def starlette_sync_method(count):
    class Endpoint(HTTPEndpoint):
        @cache_response(**TTL)
        def get(self, request):
            return PlainTextResponse(count.next())

    return Starlette(routes=[Route("/items/{id}", Endpoint)])


PLACES = [
    fastapi_below, fastapi_above, fastapi_sync, fastapi_router, fastapi_mounted,
    starlette_function, starlette_sync, starlette_class, starlette_method, starlette_sync_method,
]  # fmt: skip


@pytest.mark.parametrize("build", PLACES, ids=lambda build: build.__name__)
def test_a_decorated_endpoint_is_cached_and_purged_by_its_tag(build):
    async def act():
        count = Counter()
        app, perf = serve(build(count))
        async with client_of(app) as client:
            texts = [(await client.get("/items/5")).text for _ in range(3)]
            assert texts == ["1"] * 3
            assert await perf.cache.purge(tags=["item-5"]) == 1
            assert (await client.get("/items/5")).text == "2"
            assert await perf.cache.purge(tags=["item-6"]) == 0

    run(act)


def test_a_method_that_is_not_decorated_invalidates_the_one_that_is():
    async def act():
        app, _ = serve(starlette_method(Counter()))
        async with client_of(app) as client:
            await client.get("/items/5")
            assert (await client.post("/items/5")).text == "written"
            assert (await client.get("/items/5")).text == "2"

    run(act)


def test_a_head_of_a_decorated_method_keeps_its_rule():
    """Starlette answers it by `get`."""

    async def act():
        count = Counter()

        class Endpoint(HTTPEndpoint):
            @cache_response(ttl=60, query=["page"])
            async def get(self, request):
                return PlainTextResponse(count.next())

        app, _ = serve(Starlette(routes=[Route("/items", Endpoint)]))
        async with client_of(app) as client:
            await client.get("/items?page=1")
            await client.head("/items?page=2")
            assert (await client.get("/items?page=1&utm=2")).text == "1"

    run(act)


# --- what a rule says -----------------------------------------------------------------------------


def told_apart(by_rule):
    """A Starlette app of one route, whose rule is a decorator's or a row of the settings."""

    def build(count, **rule):
        async def endpoint(request):
            return PlainTextResponse(count.next(), headers=request.app.state.headers)

        app = Starlette(routes=[Route("/items/{id}", endpoint)])
        app.state.headers = {}
        if by_rule:
            return app, serve(app, rules=[{"path": "/items/{id}", **rule}])[1]
        cache_response(**rule)(endpoint)
        return app, serve(app)[1]

    return build


BOTH = pytest.mark.parametrize(
    "build", [told_apart(False), told_apart(True)], ids=["decorator", "settings"]
)


@BOTH
def test_vary_tells_answers_apart_by_a_request_field(build):
    async def act():
        app, _ = build(Counter(), ttl=60, vary=["Accept-Language"])
        async with client_of(app) as client:
            seen = [
                (await client.get("/items/5", headers={"accept-language": language})).text
                for language in ("de", "en", "de", "en", "fr")
            ]
        assert seen == ["1", "2", "1", "2", "3"]

    run(act)


@BOTH
@pytest.mark.parametrize(
    ("query", "seen"),
    [
        pytest.param(None, "12345", id="all parameters count"),
        pytest.param(["page"], "11123", id="only page counts"),
        pytest.param([], "11111", id="none counts"),
    ],
)
def test_query_names_the_parameters_that_count(build, query, seen):
    async def act():
        app, _ = build(Counter(), ttl=60, query=query)
        async with client_of(app) as client:
            texts = [
                (await client.get("/items/5" + each)).text
                for each in ("?page=1", "?page=1&utm=a", "?utm=b&page=1", "?page=2", "?page=%20")
            ]
        assert "".join(texts) == seen

    run(act)


@pytest.mark.parametrize("sync", [True, False])
def test_a_key_of_ones_own_tells_answers_apart_or_keeps_a_request_out(sync):
    def key(scope):
        tenant = dict(scope["headers"]).get(b"x-tenant")
        if tenant == b"bad":
            raise KeyError(tenant)
        return tenant

    async def act():
        count = Counter()
        app, perf = told_apart(False)(count, ttl=60, key=key)
        async with client_of(app) as client:

            async def get(**headers):
                answer = await client.get("/items/5", headers=headers)
                return answer.text, answer.headers["cache-status"].partition("; ")[2]

            # A function is asked before the app: the route's first answer only tells of it.
            told = 'fwd=uri-miss; detail="cache_response; rule"'
            assert await get(**{"x-tenant": "a"}) == ("1", told)
            assert (await get(**{"x-tenant": "a"}))[0] == "2"
            assert (await get(**{"x-tenant": "b"}))[0] == "3"
            assert await get(**{"x-tenant": "a"}) == ("2", 'hit; ttl=60; detail="cache_response"')
            for number, headers in ((4, {}), (5, {"x-tenant": "bad"}), (6, {"x-tenant": "bad"})):
                text, told = await get(**headers)
                assert (text, told[:10]) == (str(number), "fwd=bypass")
            assert perf.cache.store.responses == 2

    run(act)


PRIVATE = [
    pytest.param("authorization", "authorization", id="a field"),
    pytest.param("cookie:session", "session", id="a cookie"),
    pytest.param(
        lambda scope: next((v for k, v in scope["headers"] if k == b"authorization"), None),
        "authorization",
        id="a function",
    ),
]


@pytest.mark.parametrize(("private_by", "field"), PRIVATE)
def test_private_by_gives_each_user_an_answer_of_their_own(private_by, field):
    async def act():
        count = Counter()
        app, perf = told_apart(False)(count, ttl=60, private_by=private_by)
        async with client_of(app) as client:

            async def get(user):
                if field == "session":
                    headers = {"cookie": f"other=x; session={user}"}
                else:
                    headers = {"authorization": f"Bearer {user}"}
                return (await client.get("/items/5", headers=headers)).text

            if callable(private_by):
                await get("a")  # the route's first answer only tells of the function
                count.calls = 0
            assert [await get(user) for user in "abab"] == ["1", "2", "1", "2"]
            anonymous = (await client.get("/items/5")).text
            assert anonymous == "3"
            assert [await get(user) for user in "ab"] == ["1", "2"]
            keys = b"".join(entry.key for entry in perf.cache.store.all())
            assert b"Bearer" not in keys  # no secrets in keys

    run(act)


@BOTH
def test_private_by_one_credential_does_not_cover_another(build):
    async def act():
        app, _ = build(Counter(), ttl=60, private_by=["cookie:session"])
        async with client_of(app) as client:
            headers = [{"cookie": "session=a", "authorization": f"Bearer {n}"} for n in range(3)]
            seen = [(await client.get("/items/5", headers=each)).text for each in headers]
            assert seen == ["1", "2", "3"]

    run(act)


@BOTH
def test_shared_is_one_answer_for_everybody(build):
    async def act():
        app, _ = build(Counter(), ttl=60, shared=True)
        async with client_of(app) as client:
            seen = [
                (await client.get("/items/5", headers=headers)).text
                for headers in ({}, {"cookie": "a=1"}, {"authorization": "x"}, {"x-api-key": "k"})
            ]
        assert seen == ["1"] * 4

    run(act)


@BOTH
def test_without_that_a_ttl_does_not_share_what_came_with_credentials(build):
    async def act():
        app, _ = build(Counter(), ttl=60)
        async with client_of(app) as client:
            seen = [
                (await client.get("/items/5", headers=headers)).text
                for headers in ({"cookie": "a=1"}, {"cookie": "a=1"}, {}, {"cookie": "a=1"}, {})
            ]
        assert seen == ["1", "2", "3", "4", "3"]

    run(act)


@BOTH
def test_bypass_is_never_cached(build):
    async def act():
        count = Counter()
        app, perf = build(count, bypass=True)
        app.state.headers = {"cache-control": "public, max-age=60"}
        async with client_of(app) as client:
            for number in range(1, 4):
                answer = await client.get("/items/5")
                assert answer.text == str(number)
            assert "fwd=bypass" in answer.headers["cache-status"]
        assert perf.cache.store.responses == 0

    run(act)


@BOTH
def test_tell_clients_is_what_clients_get_and_our_own_lifetime_stays(build):
    async def act():
        app, _perf = build(Counter(), ttl=60, tell_clients="no-cache")
        app.state.headers = {
            "cache-control": "public, max-age=5",
            "expires": "Thu, 01 Jan 2037 00:00:00 GMT",
            "pragma": "x",
        }
        async with client_of(app) as client:
            answers = [await client.get("/items/5") for _ in range(2)]
            answers.append(await client.get("/items/5", headers={"range": "bytes=0-0"}))
            answers.append(await client.head("/items/5"))
            for answer in answers:
                assert answer.headers.get_list("cache-control") == ["no-cache"]
                assert "expires" not in answer.headers
                assert "pragma" not in answer.headers
            assert [answer.headers.get("age") for answer in answers] == [None, "0", "0", "0"]
            assert "hit; ttl=60" in answers[1].headers["cache-status"]

    run(act)


ERRORS = [
    pytest.param(500, {}, id="an error"),
    pytest.param(200, {"cache-control": "private"}, id="private"),
    pytest.param(200, {"cache-control": "no-store"}, id="no-store"),
    pytest.param(200, {"set-cookie": "session=1"}, id="a cookie"),
]


@pytest.mark.parametrize(("status", "headers"), ERRORS)
def test_tell_clients_does_not_make_public_what_is_not_stored(status, headers):
    async def act():
        @cache_response(ttl=60, tell_clients="public, max-age=600")
        async def endpoint(request):
            return PlainTextResponse("for you alone", status_code=status, headers=headers)

        app, _ = serve(Starlette(routes=[Route("/", endpoint)]))
        async with client_of(app) as client:
            answer = await client.get("/")
            assert "public" not in answer.headers.get("cache-control", "")

    run(act)


@BOTH
@pytest.mark.parametrize(
    ("status", "negative_ttl", "hit"),
    [(404, 30, True), (404, None, False), (410, 30, True), (500, 30, False), (302, 30, False)],
)
def test_negative_ttl_is_for_final_errors(build, status, negative_ttl, hit):
    async def act():
        async def endpoint(request):
            return PlainTextResponse("no", status_code=status)

        rule = {"ttl": 60, "negative_ttl": negative_ttl}
        rows = []
        if build is BOTH.args[1][1]:
            rows = [{"path": "/*", **rule}]
        else:
            cache_response(**rule)(endpoint)
        app, _ = serve(Starlette(routes=[Route("/", endpoint)]), rules=rows)
        async with client_of(app) as client:
            await client.get("/")
            told = (await client.get("/")).headers["cache-status"]
        assert ("; hit; ttl=30" in told) == hit

    run(act)


def test_default_ttl_is_for_answers_without_a_word_of_their_own():
    async def act():
        headers = {
            "/silent": {},
            "/own": {"cache-control": "max-age=5"},
            "/no-cache": {"cache-control": "no-cache"},
            "/private": {"cache-control": "private"},
        }

        async def endpoint(request):
            return PlainTextResponse("x", headers=headers.get(request.url.path))

        app, _ = serve(Starlette(routes=[Route("/{name}", endpoint)]), default_ttl=40)
        async with client_of(app) as client:
            told = {}
            for path in headers:
                await client.get(path)
                told[path] = (await client.get(path)).headers["cache-status"].partition("; ")[2]
        assert told["/silent"] == "hit; ttl=40"
        assert told["/own"] == "hit; ttl=5"
        assert told["/no-cache"].startswith("fwd=")
        assert told["/private"].startswith("fwd=")

    run(act)


# --- tags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/items/{item_id}",
        pytest.param(
            "/items/{id}",
        ),
    ],
)
def test_a_tag_in_settings_takes_the_parameters_of_its_own_path(path):
    """`{id} as in the path` of the rule, whatever the route calls it."""

    async def act():
        app = FastAPI()

        @app.get("/items/{item_id}")
        async def endpoint(item_id: int):
            return item_id

        name = path.partition("{")[2].removesuffix("}")
        rules = [{"path": path, "ttl": 60, "tags": [f"item-{{{name}}}"]}]
        app, perf = serve(app, rules=rules)
        async with client_of(app) as client:
            await client.get("/items/5")
        assert await perf.cache.purge(tags=["item-5"]) == 1

    run(act)


def test_a_tag_whose_parameter_is_missing_is_left_out_and_the_answer_is_stored():
    async def act():
        @cache_response(ttl=60, tags=["all", "item-{nothing}", "{", "{id.missing}"])
        async def endpoint(request):
            return PlainTextResponse("x")

        app, perf = serve(Starlette(routes=[Route("/items/{id}", endpoint)]))
        async with client_of(app) as client:
            await client.get("/items/5")
        (stored,) = perf.cache.store.all()
        assert stored.tags == ("all",)

    run(act)


# --- who wins -------------------------------------------------------------------------------------


def test_a_rule_in_settings_takes_the_place_of_the_decorator():
    async def act():
        @cache_response(ttl=60, tags=["of-the-decorator"])
        async def endpoint(request):
            return PlainTextResponse("x")

        routes = [Route("/a", endpoint), Route("/b", endpoint)]
        rules = [{"path": "/a", "ttl": 5}, {"path": "/*", "bypass": True}][:1]
        app, perf = serve(Starlette(routes=routes), rules=rules)
        async with client_of(app) as client:
            for path, lifetime in (("/a", 5), ("/b", 60)):
                for _ in range(2):
                    answer = await client.get(path)
                assert f"; hit; ttl={lifetime};" in answer.headers["cache-status"] + ";"
        assert await perf.cache.purge(tags="of-the-decorator") == 1

    run(act)


def test_of_several_rules_the_first_that_matches_counts():
    async def act():
        async def endpoint(request):
            return PlainTextResponse("x")

        rules = [
            {"path": "/a/b", "bypass": True},
            {"path": "/a/{name}", "ttl": 5},
            {"path": "/*", "ttl": 7},
        ]
        app, _ = serve(Starlette(routes=[Route("/{path:path}", endpoint)]), rules=rules)
        async with client_of(app) as client:
            told = {}
            for path in ("/a/b", "/a/c", "/a/b/c", "/x"):
                for _ in range(2):
                    told[path] = (await client.get(path)).headers["cache-status"]
        assert "fwd=bypass" in told["/a/b"]
        assert "ttl=5" in told["/a/c"]
        assert "ttl=7" in told["/a/b/c"]
        assert "ttl=7" in told["/x"]

    run(act)


@pytest.mark.parametrize("source", ["environment", "toml", "pyproject", "argument"])
def test_rules_may_come_from_any_source_of_settings(source, monkeypatch, tmp_path):
    rules = [{"path": "/a", "ttl": 9, "vary": ["Accept"], "tags": ["t"]}]
    toml = '[[{}cache.rules]]\npath = "/a"\nttl = 9\nvary = ["Accept"]\ntags = ["t"]\n'
    match source:
        case "environment":
            monkeypatch.setenv("PERFORMANCE_CACHE_RULES", json.dumps(rules))
        case "toml":
            (tmp_path / "perf.toml").write_text(toml.format(""))
            monkeypatch.setenv("PERFORMANCE_CONFIG", "perf.toml")
        case "pyproject":
            (tmp_path / "pyproject.toml").write_text(toml.format("tool.perf_middleware."))

    async def act():
        async def endpoint(request):
            return PlainTextResponse("x")

        app = Starlette(routes=[Route("/a", endpoint)])
        perf = install(
            app, Settings(**({"cache": {"rules": rules}} if source == "argument" else {}))
        )
        async with client_of(app) as client:
            for _ in range(2):
                answer = await client.get("/a")
        assert answer.headers["cache-status"] == 'perf_middleware; hit; ttl=9; detail="/a"'
        (stored,) = perf.cache.store.all()
        assert (stored.vary, stored.tags) == ((b"accept",), ("t",))

    run(act)


# --- one path, several endpoints ------------------------------------------------------------------


def hosts(count):
    @cache_response(ttl=60, shared=True)
    async def public(request):
        return PlainTextResponse(f"public {count.next()}")

    async def own(request):
        who = request.cookies.get("user", "nobody")
        return PlainTextResponse(
            f"own of {who} {count.next()}", headers={"cache-control": "max-age=60"}
        )

    return Starlette(
        routes=[
            Host("public.test", Router([Route("/me", public)])),
            Host("own.test", Router([Route("/me", own)])),
        ]
    )


def test_one_path_on_two_hosts_keeps_each_endpoints_own_rule():
    async def act():
        app, _ = serve(hosts(Counter()))
        async with client_of(app) as client:
            for _ in range(3):  # the rule that was learnt for the path is the other's each time
                for user in ("ann", "bob"):
                    headers = {"cookie": f"user={user}"}
                    public = await client.get("http://public.test/me", headers=headers)
                    assert public.text.startswith("public ")
                    own = await client.get("http://own.test/me", headers=headers)
                    assert own.text.startswith(f"own of {user} ")
                nobody = await client.get("http://own.test/me")
                assert nobody.text.startswith("own of nobody")

    run(act)


# --- neighbours -----------------------------------------------------------------------------------


class TokenBackend(AuthenticationBackend):
    async def authenticate(self, conn):
        token = conn.headers.get("x-who")
        return (AuthCredentials(["authenticated"]), SimpleUser(token)) if token else None


class Locked:
    """An authentication of the strict kind: 401 for whoever has no key."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and dict(scope["headers"]).get(b"x-door") != b"right":
            return await JSONResponse({"why": "no key"}, 401)(scope, receive, send)
        return await self.app(scope, receive, send)


def number_app(count, headers=None, **options):
    async def endpoint(request):
        return PlainTextResponse(
            count.next() * 600, headers={"cache-control": "max-age=60"} | (headers or {})
        )

    return Starlette(routes=[Route("/", endpoint)], **options)


@pytest.mark.parametrize("added", ["before install", "after install"])
@pytest.mark.parametrize("position", ["inner", "outer"])
def test_who_may_not_enter_gets_no_hit_unless_the_cache_stands_in_front(position, added):
    async def act():
        app = number_app(Counter())
        if added == "before install":
            app.add_middleware(Locked)
        serve(app, position=position)
        if added == "after install":
            app.add_middleware(Locked)
        async with client_of(app) as client:
            assert (await client.get("/", headers={"x-door": "right"})).status_code == 200
            assert (
                "; hit"
                in (await client.get("/", headers={"x-door": "right"})).headers["cache-status"]
            )
            stranger = await client.get("/")
            assert stranger.status_code == (401 if position == "inner" else 200)

    run(act)


def test_a_refusal_is_not_stored_by_a_cache_in_front():
    async def act():
        app = number_app(Counter())
        serve(app, position="outer", default_ttl=60)
        app.add_middleware(Locked)
        async with client_of(app) as client:
            assert (await client.get("/")).status_code == 401
            assert (await client.get("/", headers={"x-door": "right"})).status_code == 200

    run(act)


def test_users_of_an_authentication_middleware_share_nothing():
    async def act():
        app = number_app(Counter())
        serve(app)
        app.add_middleware(AuthenticationMiddleware, backend=TokenBackend())
        async with client_of(app) as client:

            async def get(who=None):
                answer = await client.get("/", headers={"x-who": who} if who else {})
                return answer.text[0], answer.headers["cache-status"].partition("; ")[2]

            assert await get("ann") == ("1", 'fwd=bypass; detail="user"')
            assert await get("ann") == ("2", 'fwd=bypass; detail="user"')
            assert await get("bob") == ("3", 'fwd=bypass; detail="user"')
            assert await get() == ("4", "fwd=uri-miss; stored")
            assert await get() == ("4", "hit; ttl=60")
            assert await get("bob") == ("5", 'fwd=bypass; detail="user"')

    run(act)


def test_who_has_a_session_shares_nothing_and_neither_who_just_got_one():
    async def act():
        count = Counter()

        async def endpoint(request):
            return PlainTextResponse(
                count.next() + str(dict(request.session)), headers={"cache-control": "max-age=60"}
            )

        async def login(request):
            request.session["user"] = request.query_params["user"]
            return PlainTextResponse("welcome", headers={"cache-control": "public, max-age=60"})

        app = Starlette(routes=[Route("/", endpoint), Route("/login", login)])
        _, perf = serve(app)
        app.add_middleware(SessionMiddleware, secret_key="secret")
        async with client_of(app) as client:
            assert (await client.get("/")).text == "1{}"
            assert (await client.get("/")).text == "1{}"
            for user in ("ann", "bob"):
                client.cookies.clear()
                answer = await client.get("/login?user=" + user)
                assert 'detail="session"' in answer.headers["cache-status"]
                mine = await client.get("/")
                assert mine.text.endswith(str({"user": user}))
                assert (await client.get("/")).text != mine.text
            client.cookies.clear()
            assert (await client.get("/")).text == "1{}"
        assert perf.cache.store.responses == 1

    run(act)


def test_a_rule_may_vouch_for_sessions_and_users():
    async def act():
        count = Counter()

        @cache_response(ttl=60, shared=True)
        async def endpoint(request):
            return PlainTextResponse(count.next())

        app = Starlette(routes=[Route("/", endpoint)])
        serve(app)
        app.add_middleware(AuthenticationMiddleware, backend=TokenBackend())
        async with client_of(app) as client:
            seen = [(await client.get("/", headers={"x-who": who})).text for who in ("ann", "bob")]
            assert seen == ["1", "1"]

    run(act)


@pytest.mark.parametrize("position", ["inner", "outer"])
def test_gzip_stands_on_either_side(position):
    async def act():
        count = Counter()
        app = number_app(count)
        app.add_middleware(GZipMiddleware, minimum_size=100)
        _, perf = serve(app, position=position)
        async with client_of(app) as client:
            for _ in range(2):
                for coding in ("gzip", "identity"):
                    answer = await client.get("/", headers={"accept-encoding": coding})
                    assert answer.headers.get("content-encoding") == (
                        "gzip" if coding == "gzip" else None
                    )
                    assert len(answer.text) == 600
                    assert "accept-encoding" in answer.headers["vary"].lower()
            assert "; hit" in answer.headers["cache-status"]
        assert perf.cache.store.responses == (1 if position == "inner" else 2)
        assert count.calls == perf.cache.store.responses

    run(act)


def test_each_origin_gets_its_own_cors_fields_with_a_shared_body():
    async def act():
        count = Counter()
        app = number_app(count)
        serve(app)
        app.add_middleware(CORSMiddleware, allow_origins=["https://a.test", "https://b.test"])
        async with client_of(app) as client:
            for origin in ("https://a.test", "https://b.test", "https://c.test", "https://a.test"):
                answer = await client.get("/", headers={"origin": origin})
                allowed = answer.headers.get("access-control-allow-origin")
                assert allowed == (origin if origin != "https://c.test" else None)
        assert count.calls == 1

    run(act)


def test_a_raw_app_is_cached_too():
    async def act():
        calls = []

        async def app(scope, receive, send):
            calls.append(scope["path"])
            await PlainTextResponse("x", headers={"cache-control": "max-age=9"})(
                scope, receive, send
            )

        served, perf = serve(app)
        answers = [await ask(served, "/a") for _ in range(2)]
        assert verdict(answers[1]) == "hit; ttl=9"
        assert len(calls) == 1
        assert await perf.cache.purge(url="/a") == 1

    run(act)


def test_a_middleware_class_takes_the_caches_own_arguments():
    """As `app.add_middleware(ResponseCacheMiddleware)`, without `install`."""
    from perf_middleware import ResponseCacheMiddleware

    async def act():
        count = Counter()
        app = number_app(count, middleware=[Middleware(ResponseCacheMiddleware, bytes_max=100_000)])
        async with client_of(app) as client:
            seen = [(await client.get("/")).text[0] for _ in range(3)]
        assert seen == ["1"] * 3

    run(act)


def test_a_cache_that_is_switched_off_is_not_there():
    async def act():
        count = Counter()
        app = number_app(count)
        _, perf = serve(app, enabled=False)
        async with client_of(app) as client:
            answers = [await client.get("/") for _ in range(2)]
        assert [answer.text[0] for answer in answers] == ["1", "2"]
        assert "cache-status" not in answers[1].headers
        assert perf.status()["cache"] is None

    run(act)


@pytest.mark.parametrize(
    ("setting", "verdicts"),
    [
        pytest.param(
            "rfc9111",
            [
                'fwd=bypass; stored; detail="credentials: authorization"',
                "hit; ttl=60",
                "hit; ttl=60",
            ],
            id="as the RFC has it",
        ),
        pytest.param(
            "rule",
            ['fwd=bypass; detail="credentials: authorization"'] * 2 + ["fwd=uri-miss; stored"],
            id="by default",
        ),
    ],
)
def test_what_the_app_calls_public_is_shared_among_those_who_authorize_themselves(
    setting, verdicts
):
    async def act():
        async def page(request):
            return PlainTextResponse("x", headers={"cache-control": "public, max-age=60"})

        app = Starlette(routes=[Route("/", page)])
        serve(app, authorization=setting)
        asked = [(b"authorization", b"Bearer a")], [(b"authorization", b"Bearer b")], []
        assert [verdict(await ask(app, "/", *headers)) for headers in asked] == verdicts

    run(act)


def test_by_the_rfc_too_nothing_is_shared_that_the_app_did_not_permit():
    async def act():
        async def page(request):
            return PlainTextResponse("x", headers={"cache-control": "max-age=60"})

        app = Starlette(routes=[Route("/", page)])
        serve(app, authorization="rfc9111")
        await ask(app)
        told = verdict(await ask(app, "/", (b"authorization", b"Bearer a")))
        assert told == 'fwd=bypass; detail="credentials: authorization"'

    run(act)
