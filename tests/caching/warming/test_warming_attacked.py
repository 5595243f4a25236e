"""What hangs, fails, goes on for ever or gets in warming's way, and what must not come of it."""

import contextlib
import threading
from functools import partial
from math import inf

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, cache_response, install
from perf_middleware.caching.warming.asked import WARMING
from perf_middleware.caching.warming.plan import ask_of
from perf_middleware.caching.warming.runtime.asking import ask_app
from perf_middleware.caching.warming.runtime.purged import OVERTAKEN_MAX, Purged
from tests.caching.stage import Clock
from tests.caching.warming.shop import BASE, QUIET, Shop, by_hand, run, until

ASK = ask_of("http://shop.example/a", base=None)


class WordlessError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def shop_of(**warming):
    return Shop(clock=Clock(), warming=warming)


def paths(shop):
    return sorted(path for path, _ in shop.calls)


async def asked_of(app, **more):
    return await ask_app(app, ASK, state={}, timeout_s=600, **more)


# --- the app's functions ------------------------------------------------------------------------


def test_a_function_that_hangs_holds_up_nothing_else_and_is_told():
    shop = shop_of(urls=["/a"], wait_s=0)
    stuck = []

    @shop.cache.warmer
    async def first():
        yield "/of-first"
        stuck.append("first")
        await anyio.sleep_forever()

    @shop.cache.warmer
    async def second():
        return ["/of-second"]

    async def scenario():
        async with shop.perf.running():
            await until(lambda: paths(shop) == ["/a", "/of-first", "/of-second"])
            assert (stuck, shop.figures["runs"]) == (["first"], 0)
            # At its end the run says whom it was waiting for.
            (scope,) = shop.cache.warmer.warming._scopes
            scope.cancel()
            await until(lambda: shop.figures["runs"] == 1)
            last = shop.figures["last_run"]
            assert (last["planned"], last["warmed"], last["failed"]) == (4, 3, 1)
            assert "first: was not over when the run was" in last["problems"][0]

    run(scenario)


def test_a_plain_function_waits_in_a_thread_and_not_on_the_event_loop():
    shop = shop_of(wait_s=0)
    began, goes_on, seen = threading.Event(), threading.Event(), []

    @shop.cache.warmer
    def popular():
        seen.append(threading.current_thread() is threading.main_thread())
        began.set()
        goes_on.wait()
        yield "/b"

    async def scenario():
        async with shop.perf.running():
            await until(began.is_set)  # on the event loop nobody would come to this
            assert (await shop.get("/a")).status == 200
            goes_on.set()
            await until(lambda: shop.figures["runs"] == 1)
            assert (seen, paths(shop)) == ([False], ["/a", "/b"])

    try:
        run(scenario)
    finally:
        goes_on.set()


def test_what_cannot_be_asked_for_takes_nothing_from_the_rest():
    shop = shop_of()

    @shop.cache.warmer
    async def mixed():
        for url in ("/a", "/ä", None, "ftp://a/b", 3, "/b"):
            yield url

    async def scenario():
        async with shop.perf.running():
            last = shop.figures["last_run"]
            assert (paths(shop), last["warmed"], last["failed"]) == (["/a", "/b"], 2, 4)
            assert "escape what is not ASCII" in last["problems"][0]

    run(scenario)


def test_functions_that_never_end_are_listened_to_for_as_long_as_there_is_room():
    shop = shop_of(asks_max=5, concurrency=64)

    @shop.cache.warmer
    async def same():
        while True:
            yield "/same"

    @shop.cache.warmer
    def wrong():
        while True:
            yield "wrong"

    @shop.cache.warmer
    async def ever_more():
        number = 0
        while True:
            number += 1
            yield f"/{number}"

    async def scenario():
        async with shop.perf.running():
            last = shop.figures["last_run"]
            assert (len(shop.calls), last["warmed"]) == (5, 5)
            assert last["failed"] <= 6
            assert len(last["problems"]) <= 5

    run(scenario)


@pytest.mark.parametrize(
    "error", [SystemExit(3), anyio.get_cancelled_exc_class, RuntimeError(), WordlessError], ids=repr
)
def test_no_run_and_no_start_ends_with_what_a_function_raises(error):
    shop = shop_of(urls=["/a"])

    @shop.cache.warmer
    async def broken():
        raise error() if callable(error) else error

    async def scenario():
        async with shop.perf.running():
            assert shop.figures["last_run"]["failed"] == 1
            again = await shop.cache.warmer.run()
            assert (again.fresh, again.failed) == (1, 1)

    run(scenario)


# --- the app itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SystemExit(3), anyio.get_cancelled_exc_class, WordlessError], ids=repr
)
def test_what_an_endpoint_raises_is_a_failure_of_its_request_alone(error):
    async def app(scope, receive, send):
        raise error() if callable(error) else error

    async def scenario():
        assert (await asked_of(app)).outcome == "failed"

    run(scenario)


def test_a_run_in_an_app_that_waits_for_nothing_gives_others_their_turn():
    shop = shop_of(urls=[f"/{number}" for number in range(20)], concurrency=1, wait_s=0)
    turns = []

    async def count():
        while len(shop.calls) < 20:
            turns.append(len(shop.calls))
            await anyio.lowlevel.checkpoint()

    async def scenario():
        async with shop.perf.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await until(lambda: shop.figures["runs"] == 1)
        assert len(set(turns)) >= 10  # between most of the requests

    run(scenario)


def test_what_the_app_does_behind_its_answer_is_not_cut_off():
    left_s = []

    async def behind():
        left_s.append(anyio.current_effective_deadline())

    async def app(scope, receive, send):
        await PlainTextResponse("x", background=BackgroundTask(behind))(scope, receive, send)

    async def scenario():
        with anyio.fail_after(inf):
            await asked_of(app)
            assert left_s == [inf]

    anyio.run(scenario)


def test_the_apps_own_end_finds_no_request_of_warmings_in_the_middle():
    seen = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        seen.append("the end of the app")

    @cache_response(ttl=60)
    async def page(request):
        seen.append("asked")
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("cancelled")

    app = Starlette(routes=[Route("/{path:path}", page)], lifespan=lifespan)
    warming = BASE | {"urls": ["/a", "/b"], "wait_s": 0, "concurrency": 1}
    perf = install(app, Settings(**QUIET, warming=warming))
    to_app, from_app = (anyio.create_memory_object_stream(9) for _ in range(2))

    async def scenario():
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(app, scope, to_app[1].receive, from_app[0].send))
            await to_app[0].send({"type": "lifespan.startup"})
            assert (await from_app[1].receive())["type"] == "lifespan.startup.complete"
            await until(lambda: seen == ["asked"])
            await to_app[0].send({"type": "lifespan.shutdown"})
            assert (await from_app[1].receive())["type"] == "lifespan.shutdown.complete"
        assert seen == ["asked", "cancelled", "the end of the app"]
        last = perf.status()["resources"]["warming"]["detail"]["last_run"]
        assert (last["planned"], last["left"]) == (2, 2)

    run(scenario)
    for stream in (*to_app, *from_app):
        stream.close()


def test_a_way_to_the_login_takes_nothing_from_what_is_stored():
    shop = shop_of(urls=["/a"])

    async def scenario():
        async with shop.perf.running():
            shop.status = 303
            shop.clock.pass_s(59)
            asked = await shop.cache.warmer.warming.ask(ASK, margin_us=5_000_000)
            assert asked.outcome == "unstored"
            assert "; hit; " in (await shop.get("/a")).header("cache-status")

    run(scenario)


@pytest.mark.parametrize("key", ["user", "client"])
def test_quotas_are_for_clients_wherever_they_are_judged(key):
    shop = Shop(
        clock=Clock(),
        warming={"urls": ["/a", "/b", "/c"]},
        ratelimit={"enabled": True, "quotas": [{"limit": "1/minute", "key": key}]},
    )

    async def scenario():
        async with shop.perf.running():
            assert shop.figures["warmed"] == 3
            assert [(await shop.get("/a")).status for _ in range(2)] == [200, 429]

    run(scenario)


# --- purges -------------------------------------------------------------------------------------


def test_an_answer_that_a_purge_has_overtaken_is_asked_for_again():
    shop = shop_of(urls=["/a"], wait_s=0, after_purge_s=0)

    async def scenario():
        shop.gate = anyio.Event()
        async with shop.perf.running():
            await until(lambda: len(shop.calls) == 1)
            await shop.cache.purge(url="/a")
            shop.gate.set()
            await until(lambda: shop.figures["runs"] == 2)
            assert shop.figures["last_run"]["cause"] == "purge"
            assert "; hit; " in (await shop.get("/a")).header("cache-status")

    run(scenario)


def test_what_purges_as_it_is_asked_is_not_asked_for_ever():
    """Two endpoints that purge each other, and one that purges itself."""
    calls = []

    def purging(other):
        @cache_response(ttl=60)
        async def page(request):
            calls.append(request.url.path)
            assert WARMING in request.scope
            await perf.cache.purge(url=other)
            return PlainTextResponse("x")

        return page

    routes = [("/a", "/b"), ("/b", "/a"), ("/self", "/self")]
    app = Starlette(routes=[Route(path, purging(other)) for path, other in routes])
    urls = [path for path, _ in routes]
    warming = BASE | {"urls": urls, "after_purge_s": 0, "concurrency": 1}
    perf = install(app, Settings(**QUIET, warming=warming))

    async def scenario():
        async with perf.running():
            await until(lambda: calls.count("/self") == 1 + OVERTAKEN_MAX)
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            assert calls.count("/self") == 1 + OVERTAKEN_MAX
            assert calls.count("/a") + calls.count("/b") <= 4

    run(scenario)


def test_the_newest_that_was_warmed_is_what_is_followed():
    async def scenario():
        purged = Purged(keys_max=2, quiet_s=0)
        purged.begin()
        asks = [ask_of(f"http://a/{number}", base=None) for number in range(3)]
        for number in (0, 1, 0, 2):
            purged.note_warmed(b"%d" % number, asks[number])
        for number in range(3):
            purged.note_purge(type("Stored", (), {"primary": b"%d" % number}))
        assert await purged.gathered() == [asks[0], asks[2]]

    run(scenario)


def test_an_app_with_nothing_to_warm_pays_for_no_purge():
    perf = install(Starlette(), Settings())
    assert perf.cache._hooks["invalidate"] == []


# --- the turn -----------------------------------------------------------------------------------


class Turn:
    def __init__(self):
        self.mine = True
        self.taken = 0

    async def take(self):
        self.taken += 1
        return self.mine

    async def give_back(self):
        self.mine = False


def test_a_run_ends_as_another_process_takes_the_turn(monkeypatch):
    monkeypatch.setattr("perf_middleware.caching.warming.runtime.TURN_EVERY_S", 0.01)
    shop = shop_of(urls=["/a", "/b", "/c"], wait_s=0, concurrency=1)
    turn = shop.cache.warmer.warming._turn = Turn()

    async def scenario():
        shop.gate = anyio.Event()
        async with shop.perf.running():
            await until(lambda: len(shop.calls) == 1)
            turn.mine = False
            await until(lambda: not shop.figures["turn"])
            shop.gate.set()
            await until(lambda: shop.figures["runs"] == 1)
            last = shop.figures["last_run"]
            assert (last["warmed"], last["left"]) == (1, 2)
            # Who asks for a run here gets one.
            assert (await shop.cache.warmer.run()).warmed == 2

    run(scenario)


def test_the_turn_is_not_taken_again_once_the_server_stops(monkeypatch):
    monkeypatch.setattr("perf_middleware.caching.warming.runtime.TURN_EVERY_S", 0.01)
    shop = shop_of(urls=["/a"])
    turn = shop.cache.warmer.warming._turn = Turn()

    async def scenario():
        async with shop.perf.running():
            await until(lambda: turn.taken >= 3)
            await shop.perf._resources.note_stopping()
            taken = turn.taken
            await anyio.sleep(0.05)
            assert turn.taken <= taken

    run(scenario)


def test_of_all_processes_that_find_it_due_one_renews_it(redis_server):
    settings = {
        "warming": {"refresh_hottest": 5, "refresh_ahead_s": 600},
        "redis": {
            "url": redis_server.url, "timeout_s": 10.0, "connect_timeout_s": 10.0,
            "namespace": "renewals",
        },
    }  # fmt: skip

    async def scenario():
        shops = [Shop(**settings) for _ in range(3)]
        async with contextlib.AsyncExitStack() as stack:
            due = [by_hand(shop.cache.warmer.warming) for shop in shops]
            for shop in shops:
                await stack.enter_async_context(shop.perf.running())
                for _ in range(3):
                    await shop.get("/a")
                await until(lambda: shops[0].cache.shared.stored == 1)
                await shop.cache.warmer.warming.hot.look()
                now = shop.cache.clock
                shop.cache.clock = lambda now=now: now() + 40_000_000
            assert sum(len(shop.calls) for shop in shops) == 1
            shops[0].gate = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(due[0])
                await until(lambda: len(shops[0].calls) == 2)
                for refresh_due in due[1:]:
                    assert await refresh_due() == 0  # the first is at it
                shops[0].gate.set()
            assert shops[0].figures["refreshed"] == 1
            await until(lambda: shops[0].cache.shared.stored == 2)
            for shop, refresh_due in zip(shops[1:], due[1:], strict=True):
                await refresh_due()  # and now it is there for all
                assert (shop.calls, shop.figures["failed"]) == ([], 0)

    run(scenario)


def test_a_client_of_another_process_waits_for_what_is_being_warmed(redis_server, monkeypatch):
    monkeypatch.setattr("perf_middleware.caching.stores.shared.LEASE_MS", 100_000)  # any pause
    redis = {"url": redis_server.url, "timeout_s": 10.0, "connect_timeout_s": 10.0}
    redis["namespace"] = "awaited"

    async def scenario():
        warming, other = Shop(warming={"urls": ["/a"], "wait_s": 0}, redis=redis), Shop(redis=redis)
        for shop in (warming, other):
            await shop.get("/b")  # that the cache knows the rule of the route
        warming.gate = anyio.Event()
        async with warming.perf.running(), other.perf.running():
            await until(lambda: paths(warming) == ["/a", "/b"])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(other.get, "/a")
                await until(lambda: other.cache.shared.leases.waited)
                warming.gate.set()
            assert "/a" not in paths(other)

    run(scenario)
