"""Two installs in one event loop stand for two processes: they share nothing but Redis."""

import re
from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from perf_middleware import (
    CacheRule,
    ResponseCacheMiddleware,
    Settings,
    SettingsError,
    cache_response,
    install,
)
from tests.driving import DEADLINE_S, ask, http_scope

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Shop:
    """An app whose answers tell which of them it is, and which process made it."""

    def __init__(self, name):
        self.name = name
        self.asked = []
        self.truth = 0

    def answer(self, request):
        self.asked.append(request.url.path)
        return {"by": self.name, "number": len(self.asked), "truth": self.truth}

    def app(self):
        @cache_response(ttl=60, tags=["item:{number}", "items"])
        async def item(request):
            return JSONResponse(self.answer(request))

        @cache_response(ttl=60, vary=["accept-language", "x-tenant"])
        async def page(request):
            return JSONResponse(self.answer(request))

        @cache_response(ttl=60, query=["page"], tags=["list"])
        async def listed(request):
            return JSONResponse(self.answer(request))

        @cache_response(ttl=60, private_by="cookie:user")
        async def mine(request):
            return PlainTextResponse(f"{request.cookies.get('user')} by {self.name}")

        async def plain(request):
            return JSONResponse(self.answer(request))

        async def tagged(request):
            headers = {"cache-control": "max-age=60, stale-if-error=60", "etag": '"1"'}
            if request.headers.get("if-none-match") == '"1"':
                return Response(status_code=304, headers=headers)
            return JSONResponse(self.answer(request), headers=headers)

        async def write(request):
            return PlainTextResponse("written", headers={"location": "/listed"})

        return Starlette(
            routes=[
                Route("/items/{number}", item),
                Route("/items/{number}", write, methods=["PUT"]),
                Route("/page", page),
                Route("/listed", listed),
                Route("/mine", mine),
                Route("/plain", plain),
                Route("/tagged", tagged),
            ]
        )


class Process:
    """One install, and requests to it."""

    def __init__(self, shop, perf, app):
        self.shop = shop
        self.perf = perf
        self._app = app

    @property
    def shared(self):
        return self.perf.cache.shared

    async def get(self, path, *, method="GET", **headers):
        path, _, query = path.partition("?")
        fields = [("host", "h"), *((name.replace("_", "-"), at) for name, at in headers.items())]
        scope = http_scope(path, method=method, headers=fields, query_string=query.encode())
        answer = await ask(self._app, scope)
        await self.shared.outbox.emptied()
        return answer


@asynccontextmanager
async def two_processes(server, namespace, **cache):
    async with anyio.create_task_group() as tasks:
        processes = []
        for name in ("A", "B"):
            shop = Shop(name)
            app = shop.app()
            perf = install(
                app,
                Settings(
                    redis={"url": server.url, "namespace": namespace, "timeout_s": 5.0},
                    cache=cache,
                    metrics={"workers": False},
                    runtime={"enabled": False},
                    dashboard={"enabled": False},
                ),
            )
            processes.append(Process(shop, perf, app))
        first, second = processes
        async with first.perf.running(), second.perf.running():
            await until(lambda: first.shared.is_up and second.shared.is_up)
            yield first, second
        tasks.cancel_scope.cancel()


async def until(is_so):
    with anyio.fail_after(DEADLINE_S):
        while not is_so():
            await anyio.sleep(0.005)


@pytest.fixture
async def pair(redis_server, request):
    namespace = f"t{abs(hash(request.node.name)) % 10**9}"
    async with two_processes(redis_server, namespace) as both:
        yield both


async def forgotten(process, path):
    """Wait until the memory of `process` has nothing of this path."""
    await until(lambda: not process.perf.cache.store.of_path(path))


async def test_what_one_has_stored_the_other_gives(pair):
    first, second = pair
    made = await first.get("/items/5")
    given = await second.get("/items/5")
    assert given.body == made.body
    assert "; hit; " in given.header("cache-status")
    assert given.header("age") is not None
    assert second.shop.asked == []
    assert (await second.get("/items/5")).body == made.body
    status = second.perf.cache.status()
    assert (status["hits"], status["shared_hits"], status["shared"]["found"]) == (2, 1, 1)


async def test_an_answer_that_may_not_be_stored_is_in_no_store(pair):
    first, second = pair
    await first.get("/plain")
    await second.get("/plain")
    assert (len(first.shop.asked), len(second.shop.asked)) == (1, 1)


async def test_variants_are_told_apart_in_each(pair):
    first, second = pair
    for language in ("de", "en"):
        await first.get("/page", accept_language=language)
    for language, number in (("de", 1), ("en", 2)):
        given = await second.get("/page", accept_language=language)
        assert given.json()["number"] == number
    assert second.shop.asked == []
    await second.get("/page", accept_language="fr")
    await second.get("/page", accept_language="de", x_tenant="other")
    assert len(second.shop.asked) == 2


@pytest.mark.parametrize(
    ("what", "path"),
    [
        pytest.param({"tags": "item:5"}, "/items/5", id="by tag"),
        pytest.param({"tags": ["none", "items"]}, "/items/5", id="by any tag"),
        pytest.param({"url": "/items/5"}, "/items/5", id="by path"),
        pytest.param({"url": "http://h/items/5"}, "/items/5", id="by origin and path"),
        pytest.param({"url": "/listed?page=1&x=2"}, "/listed?page=1", id="by a query that counts"),
        pytest.param({"pattern": "/items/*"}, "/items/5", id="by pattern"),
        pytest.param({"pattern": "/li*"}, "/listed?page=1", id="by a pattern without its query"),
        pytest.param({"everything": True}, "/items/5", id="everything"),
    ],
)
async def test_a_purge_in_one_reaches_the_other_and_redis(pair, what, path):
    first, second = pair
    await first.get(path)
    await second.get(path)
    await first.perf.cache.purge(**what)
    await forgotten(second, path.encode())
    await forgotten(second, path.partition("?")[0].encode())
    assert (await second.get(path)).json()["by"] == "B"
    assert (await first.get(path)).json()["by"] == "B"


@pytest.mark.parametrize(
    "what",
    [
        pytest.param({"tags": "item:6"}, id="another tag"),
        pytest.param({"url": "/items/6"}, id="another path"),
        pytest.param({"url": "https://h/items/5"}, id="another scheme"),
        pytest.param({"url": "http://other/items/5"}, id="another host"),
        pytest.param({"pattern": "/list*"}, id="another pattern"),
    ],
)
async def test_a_purge_reaches_nothing_else(pair, what):
    first, second = pair
    await first.get("/items/5")
    assert await first.perf.cache.purge(**what) == 0
    assert (await second.get("/items/5")).json()["by"] == "A"


async def test_a_soft_purge_makes_it_stale_for_all(pair):
    first, second = pair
    await first.get("/tagged")
    await second.get("/tagged")
    assert await first.perf.cache.purge(url="/tagged", soft=True) == 1
    await until(lambda: all(
        entry.fresh_until_us <= second.perf.cache.clock()
        for entry in second.perf.cache.store.of_path(b"/tagged")
    ))  # fmt: skip
    # Given once more, while the app is asked behind it; what that says is shared again.
    assert "; hit; ttl=0" in (await second.get("/tagged")).header("cache-status")
    await until(lambda: first.shared.purges.overwrites)
    first.perf.cache.store.clear()
    told = (await first.get("/tagged")).header("cache-status")
    assert 0 < int(re.search(r"; hit; ttl=(\d+)", told)[1]) <= 60
    assert (first.shop.asked, second.shop.asked) == (["/tagged"], [])


async def test_a_write_in_one_is_known_in_the_other_before_its_client_hears_of_it(pair):
    first, second = pair
    for path in ("/items/5", "/listed"):
        await first.get(path)
        await second.get(path)
    await first.get("/items/5", method="PUT")
    assert (await first.get("/items/5")).json() == {"by": "A", "number": 3, "truth": 0}
    await forgotten(second, b"/listed")
    assert (await second.get("/listed")).json()["by"] == "B"


async def test_what_one_has_replaced_leaves_the_memory_of_the_other(pair):
    first, second = pair
    await first.get("/items/5")
    await second.get("/items/5")
    first.perf.cache.store.clear()
    await first.get("/items/5", cache_control="no-cache")
    await forgotten(second, b"/items/5")
    assert (await second.get("/items/5")).json()["number"] == 2


async def test_what_was_begun_before_a_purge_elsewhere_is_not_stored_after_it(pair):
    first, second = pair
    entered, leave = anyio.Event(), anyio.Event()
    answer = first.shop.answer

    def slowly(request):
        told = answer(request)
        entered.set()
        return told

    first.shop.answer = slowly
    real_share = first.shared.share

    def held(stored, lines, *, purges_seen):
        # As if the answer had taken until after the purge; not heard of yet here.
        first.shared.outbox.put(leave.wait)
        real_share(stored, lines, purges_seen=purges_seen)

    first.shared.share = held
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.get, "/items/5")
        await entered.wait()
        await until(lambda: len(first.shared.outbox) > 1)
        await second.perf.cache.purge(tags="item:5")
        leave.set()
    assert first.shared.outdated == 1
    await second.get("/items/5")
    assert second.shop.asked == ["/items/5"]


async def test_no_user_gets_what_is_anothers_from_redis(pair):
    first, second = pair
    await first.get("/mine", cookie="user=ann")
    await first.get("/mine", cookie="user=ann")
    for user, by in (("ann", "A"), ("bob", "B")):
        for _ in range(3):  # the rule is learnt with the first answer
            given = await second.get("/mine", cookie=f"user={user}")
        assert given.body.decode() in {f"{user} by A", f"{user} by B"}, by
    assert (await second.get("/mine")).body == b"None by B"


async def test_no_key_in_redis_tells_a_secret(pair, redis_server):
    first, _ = pair
    for _ in range(2):
        await first.get("/mine", cookie="user=s3cret")
        await first.get("/page", x_tenant="s3cret")
    keys = await first.perf.cache.shared._records._link.command("KEYS", "*")
    assert any(b"/page" in key for key in keys)
    assert not any(b"s3cret" in key for key in keys)


async def test_explain_tells_what_redis_has(pair):
    first, second = pair
    await first.get("/items/5")
    told = await second.perf.cache.explain("http://h/items/5")
    assert told["stored"] == []
    assert told["shared"] == {"up": True, "stored": True}
    told = await second.perf.cache.explain("http://h/items/6")
    assert told["shared"] == {"up": True, "stored": False}


async def test_services_with_other_names_share_nothing(redis_server):
    async with (
        two_processes(redis_server, "one") as (first, _),
        two_processes(redis_server, "other") as (second, _),
    ):
        await first.get("/items/5")
        await second.get("/items/5")
        assert second.shop.asked == ["/items/5"]


async def test_without_sharing_each_keeps_its_own(redis_server):
    async with two_processes_apart(redis_server) as perf:
        assert perf.cache.shared is None
        assert perf.status()["cache"]["shared"] is None


@asynccontextmanager
async def two_processes_apart(server):
    settings = Settings(
        redis={"url": server.url}, cache={"share": False}, metrics={"workers": False}
    )
    perf = install(Shop("A").app(), settings)
    async with perf.running():
        yield perf


async def test_the_layer_alone_shares_through_redis(redis_server):
    shops = [Shop("A"), Shop("B")]
    layers = [
        ResponseCacheMiddleware(
            shop.app(), rules=[CacheRule(path="/plain", ttl=60)],
            redis={"url": redis_server.url, "namespace": "alone", "timeout_s": 5.0},
        )
        for shop in shops
    ]  # fmt: skip
    first, second = layers
    await ask(first, http_scope("/items/1"))  # connects
    await ask(second, http_scope("/items/2"))
    await until(lambda: first.cache.shared.is_up and second.cache.shared.is_up)
    await ask(first, http_scope("/plain"))
    await first.cache.shared.outbox.emptied()
    given = await ask(second, http_scope("/plain"))
    assert given.json()["by"] == "A"
    for layer in layers:
        await layer._own_fleet.close()


def test_the_layer_alone_refuses_a_wrong_url():
    with pytest.raises(SettingsError, match="must begin with redis://"):
        ResponseCacheMiddleware(Shop("A").app(), redis="http://h")
