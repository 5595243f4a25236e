"""Purges while warming is under way, and what is asked for again after them."""

import anyio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, cache_response, install
from perf_middleware.caching.warming.asked import WARMING
from perf_middleware.caching.warming.plan import VARIANTS_MAX, ask_of
from perf_middleware.caching.warming.runtime.purged import OVERTAKEN_MAX, Purged
from tests.caching.warming.shop import BASE, QUIET, run, shop_of, until


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


def test_what_purges_may_take_is_bounded_whatever_a_function_names():
    async def scenario():
        purged = Purged(keys_max=2, quiet_s=0)
        purged.begin()
        asks = [ask_of(f"http://a/?now={number}", base=None) for number in range(VARIANTS_MAX + 3)]
        for ask in asks:  # all of one key: its rule leaves the parameter out
            purged.note_warmed(b"a", ask)
            purged.note_overtaken(ask)
        assert (await purged.gathered())[-1] == asks[-1]
        assert len(purged._overtaken) == 2
        purged.note_purge(type("Stored", (), {"primary": b"a"}))
        assert await purged.gathered() == asks[-VARIANTS_MAX:]

    run(scenario)


def test_an_app_with_nothing_to_warm_pays_for_no_purge():
    perf = install(Starlette(), Settings())
    assert perf.cache._hooks["invalidate"] == []
