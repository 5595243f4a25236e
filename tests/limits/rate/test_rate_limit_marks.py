"""`@rate_limit` on endpoints: functions, classes, included routers, mounts."""

import logging
from functools import partial

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Mount, Route

from perf_middleware import Settings, install
from perf_middleware.limits.callers import Callers
from perf_middleware.limits.rate.decorators import rate_limit
from perf_middleware.limits.rate.middleware import RateLimitLayer
from perf_middleware.limits.rate.runtime import RateLimit
from perf_middleware.limits.rate.specs import RuleSpec
from perf_middleware.path_patterns import PathPattern
from tests.driving import get
from tests.limits.rate.rate_stage import Clock, quota


def endpoint_ahead_of(routes):
    """Stands in for the one of install: asks the routes themselves."""

    def ahead(scope):
        for route in routes:
            found, child = route.matches(scope)
            if found is Match.FULL:
                child = {**scope, **child}
                inner = getattr(route, "routes", None)
                if inner and not hasattr(route, "endpoint"):
                    return endpoint_ahead_of(inner)(child)
                return child.get("endpoint")
        return None

    return ahead


def limited(app, *quotas, ahead=None, **options):
    rate = RateLimit(quotas=quotas, callers=Callers(), clock=Clock(), **options)
    rate.read_endpoints(ahead or endpoint_ahead_of(app.router.routes))
    return RateLimitLayer(app, rate)


def statuses(layer, path, times=3, **request):
    return [get(layer, path, **request).status for _ in range(times)]


async def plain(request):
    return PlainTextResponse("plain")


@rate_limit("1/minute")
async def marked(request):
    return PlainTextResponse("marked")


def test_a_mark_holds_beside_the_quotas_of_the_settings():
    app = Starlette(routes=[Route("/plain", plain), Route("/marked", marked)])
    layer = limited(app, quota("100/minute"))
    assert statuses(layer, "/plain") == [200, 200, 200]
    assert statuses(layer, "/marked") == [200, 429, 429]
    policy = get(layer, "/marked").header("ratelimit-policy")
    assert policy == '"default";q=100;w=60, "marked";q=1;w=60'


def test_a_rule_takes_the_place_of_a_mark():
    app = Starlette(routes=[Route("/marked", marked)])
    rules = [RuleSpec(pattern=PathPattern.of("/marked"), quotas=(quota("2/minute"),))]
    assert statuses(limited(app, rules=rules), "/marked") == [200, 200, 429]


def test_several_marks_stand_on_one_endpoint():
    @rate_limit("2/minute")
    @rate_limit("100/hour", name="hourly", key="global")
    async def twice(request):
        return PlainTextResponse("twice")

    layer = limited(Starlette(routes=[Route("/", twice)]))
    assert statuses(layer, "/") == [200, 200, 429]
    assert '"hourly";q=100;w=3600' in get(layer, "/").header("ratelimit-policy")


def test_the_same_mark_twice_is_one_quota():
    @rate_limit("2/minute", name="once")
    @rate_limit("2/minute", name="once")
    async def twice(request):
        return PlainTextResponse("twice")

    assert statuses(limited(Starlette(routes=[Route("/", twice)])), "/") == [200, 200, 429]


def test_endpoints_that_name_one_quota_share_it():
    @rate_limit("2/minute", name="shared")
    async def one(request):
        return PlainTextResponse("one")

    @rate_limit("2/minute", name="shared")
    async def other(request):
        return PlainTextResponse("other")

    @rate_limit("5/minute", name="shared")
    async def third(request):
        return PlainTextResponse("asks for another limit")

    layer = limited(Starlette(routes=[Route("/1", one), Route("/2", other), Route("/3", third)]))
    assert [get(layer, path).status for path in ("/1", "/2", "/1", "/2", "/3")] == [
        200, 200, 429, 429, 200,
    ]  # fmt: skip
    assert list(layer.rate.status()["quotas"]) == ["shared", "shared 5/minute"]


def test_an_exempt_endpoint_has_no_quota():
    @rate_limit(exempt=True)
    async def free(request):
        return PlainTextResponse("free")

    layer = limited(Starlette(routes=[Route("/", free)]), quota("1/minute"))
    assert statuses(layer, "/") == [200, 200, 200]


def test_classes_and_their_methods_carry_marks():
    class Thing(HTTPEndpoint):
        @rate_limit("1/minute")
        async def get(self, request):
            return PlainTextResponse("get")

        async def post(self, request):
            return PlainTextResponse("post")

    @rate_limit("1/minute")
    class Whole(HTTPEndpoint):
        async def get(self, request):
            return PlainTextResponse("get")

    layer = limited(Starlette(routes=[Route("/thing", Thing), Route("/whole", Whole)]))
    assert [get(layer, "/thing", method=m).status for m in ("GET", "HEAD", "POST", "POST")] == [
        200, 429, 200, 200,
    ]  # fmt: skip
    assert statuses(layer, "/whole", 2) == [200, 429]


def test_fastapi_with_included_routers_and_mounts():
    app, router, mounted = FastAPI(), APIRouter(prefix="/items"), FastAPI()

    @router.get("/{item}")
    @rate_limit("1/minute")
    async def item(item: str):
        return {"item": item}

    @rate_limit("1/minute", key="client+route")
    @mounted.get("/deep")
    async def deep():
        return {}

    app.include_router(router, prefix="/api")
    app.mount("/sub", mounted)
    known = {"/api/items/1": item, "/api/items/2": item, "/sub/deep": deep}
    layer = limited(app, ahead=lambda scope: known.get(scope["path"]))
    assert [get(layer, path).status for path in ("/api/items/1", "/api/items/2")] == [200, 429]
    assert statuses(layer, "/sub/deep", 2) == [200, 429]


def test_a_mounted_endpoint_is_found_below_its_mount():
    app = Starlette(routes=[Mount("/sub", routes=[Route("/marked", marked)])])
    assert statuses(limited(app), "/sub/marked", 2) == [200, 429]


def test_a_key_by_route_tells_endpoints_apart():
    app = Starlette(routes=[Route("/a/{id}", plain), Route("/b", marked)])
    layer = limited(app, quota("1/minute", "client+route"))
    assert [get(layer, path).status for path in ("/a/1", "/a/2", "/b", "/no", "/such")] == [
        200, 429, 200, 404, 429,
    ]  # fmt: skip


def test_a_key_that_raises_is_no_500(caplog):
    @rate_limit("1/minute", key=lambda scope: 1 / 0)
    async def failing(request):
        return PlainTextResponse("fine")

    layer = limited(Starlette(routes=[Route("/", failing)]))
    with caplog.at_level(logging.ERROR):
        assert statuses(layer, "/") == [200, 429, 429]


async def _key(scope):
    return "key"


class _AsyncKey:
    async def __call__(self, scope):
        return "key"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("10/fortnight",), ValueError, "no limit"),
        ((), TypeError, "a limit is a text"),
        ((plain,), TypeError, "needs its limit"),
        (("1/s", {"key": "ip"}), ValueError, "no key"),
        (("1/s", {"key": _key}), TypeError, "not async"),
        (("1/s", {"key": _AsyncKey()}), TypeError, "not async"),
        (("1/s", {"cost": 2}), ValueError, "never pass"),
        (("1/s", {"cost": "2"}), TypeError, "whole number"),
        (("1/s", {"exempt": True}), ValueError, "give no limit"),
        (("1/s", {"place": "middle"}), ValueError, "place"),
        (("1/s", {"name": "a|b"}), ValueError, "name"),
    ],
)
def test_a_wrong_mark_fails_where_it_stands(arguments, error, says):
    options = arguments[-1] if arguments and isinstance(arguments[-1], dict) else {}
    with pytest.raises(error, match=says):
        rate_limit(*(a for a in arguments if not isinstance(a, dict)), **options)


def test_what_can_carry_no_mark_is_told():
    with pytest.raises(TypeError, match="stands on a function or a class"):
        rate_limit("1/s")(object())


# --- whose quota it is --------------------------------------------------------------------------


def made(text, name="read", module="tests.made"):
    """An endpoint that is called like others: of a factory, or of another module."""

    @rate_limit("1/minute")
    async def read(request):
        return PlainTextResponse(text)

    read.__qualname__, read.__module__ = name, module
    return read


def installed(*endpoints, **ratelimit):
    app = Starlette(routes=[Route(f"/{at}", each) for at, each in enumerate(endpoints)])
    install(app, Settings(ratelimit=ratelimit))
    return app


def test_endpoints_that_are_called_alike_have_their_own_quotas(nothing_set):
    app = installed(made("of a factory"), made("of it, too"))
    assert [get(app, path).status for path in ("/0", "/1", "/0", "/1")] == [200, 200, 429, 429]


def test_every_process_calls_a_quota_the_same_whichever_request_comes_first(nothing_set):
    # Their names are in the keys of Redis: else one process would charge another's endpoint.
    def policies(order):
        app = installed(made("items", module="items"), made("users", module="users"))
        told = {path: get(app, path).header("ratelimit-policy") for path in order}
        return [told["/0"], told["/1"]]

    assert policies(["/0", "/1"]) == policies(["/1", "/0"])
    assert len(set(policies(["/0", "/1"]))) == 2


def test_endpoints_that_are_called_alike_are_routes_of_their_own(nothing_set):
    app = installed(
        lambda request: PlainTextResponse("one"),
        lambda request: PlainTextResponse("other"),
        quotas=[{"limit": "1/minute", "key": "client+route"}],
    )
    assert [get(app, path).status for path in ("/0", "/1", "/0", "/1")] == [200, 200, 429, 429]


def test_a_partial_has_the_mark_of_its_function_and_its_own_quota(nothing_set):
    @rate_limit("1/minute")
    def sync(request, text):
        return PlainTextResponse(text)

    app = installed(
        partial(sync, text="one"),
        partial(partial(sync), text="other"),
        rate_limit("2/minute")(partial(lambda request, text: PlainTextResponse(text), text="own")),
    )
    assert [get(app, path).status for path in ("/0", "/1", "/0", "/1")] == [200, 200, 429, 429]
    assert [get(app, "/2").status for _ in range(3)] == [200, 200, 429]


def test_each_method_of_a_class_has_the_quota_of_its_own_mark(nothing_set):
    class Pages(HTTPEndpoint):
        @rate_limit("1/minute")
        def get(self, request):
            return PlainTextResponse("sync")

        @rate_limit("1/minute")
        async def post(self, request):
            return PlainTextResponse("async")

        def put(self, request):
            return PlainTextResponse("free")

    app = installed(Pages)
    methods = ["GET", "HEAD", "POST", "POST", "PUT", "PUT"]
    assert [get(app, "/0", method=each).status for each in methods] == [
        200, 429, 200, 429, 200, 200,
    ]  # fmt: skip


def test_the_marks_of_a_class_and_of_its_method_both_hold(nothing_set):
    @rate_limit("4/minute")
    class Login(HTTPEndpoint):
        async def get(self, request):
            return PlainTextResponse("form")

        @rate_limit("1/minute", place="inner")
        async def post(self, request):
            return PlainTextResponse("welcome")

        @rate_limit(exempt=True)
        async def put(self, request):
            return PlainTextResponse("free")

    app = installed(Login)
    methods = ["POST", "POST", "GET", "GET", "GET", "PUT"]
    assert [get(app, "/0", method=each).status for each in methods] == [
        200, 429, 200, 200, 429, 200,
    ]  # fmt: skip


def test_an_endpoint_under_two_prefixes_has_one_quota(nothing_set):
    app, router = FastAPI(), APIRouter()

    @router.get("/x")
    @rate_limit("1/minute")
    def shared() -> str:
        return "shared"

    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    install(app, Settings())
    assert [get(app, path).status for path in ("/v1/x", "/v2/x")] == [200, 429]


def test_a_preflight_and_a_wrong_method_draw_nothing_from_a_mark(nothing_set):
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"])

    @app.get("/")
    @rate_limit("1/minute")
    def limited() -> str:
        return "limited"

    install(app, Settings(ratelimit={"quotas": ["4/minute"]}))
    asks = [("origin", "https://a.test"), ("access-control-request-method", "GET")]
    preflight = get(app, "/", method="OPTIONS", headers=asks)
    assert (preflight.status, preflight.header("ratelimit")) == (200, '"default";r=3;t=15')
    assert get(app, "/", method="POST").status == 405
    assert [get(app, "/").status for _ in range(3)] == [200, 429, 429]
    # Those of the settings were drawn from by all four.
    assert get(app, "/", method="OPTIONS", headers=asks).status == 200
    assert get(app, "/", method="OPTIONS", headers=asks).status == 429
