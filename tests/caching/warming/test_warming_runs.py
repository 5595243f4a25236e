"""Runs of warming, through the whole stack of an installed app."""

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse

from perf_middleware import Settings, install
from perf_middleware.caching.warming.plan import ask_of
from perf_middleware.limits.concurrency.criticality import CRITICAL
from tests.caching.stage import Clock
from tests.caching.warming.shop import BASE, Shop, by_hand, run, until


def test_what_is_warmed_before_the_start_is_over_is_a_hit_of_the_first_client():
    shop = Shop(clock=Clock(), warming={"urls": ["/a", "/b"]})

    async def scenario():
        async with shop.perf.running():
            assert sorted(shop.calls) == [("/a", None), ("/b", None)]
            answer = await shop.get("/a")
            assert "; hit; " in answer.header("cache-status")
            assert answer.header("age") == "0"
            assert len(shop.calls) == 2
            figures = shop.figures
            assert (figures["warmed"], figures["failed"], figures["runs"]) == (2, 0, 1)
            assert figures["last_run"]["cause"] == "start"

    run(scenario)


def test_each_variant_is_asked_for():
    shop = Shop(
        clock=Clock(), warming={"urls": "/lang", "vary": {"accept-language": ["de", "en", ""]}}
    )

    async def scenario():
        async with shop.perf.running():
            assert {language for _, language in shop.calls} == {"de", "en", None}
            for headers in ([("accept-language", "de")], [("accept-language", "en")], []):
                answer = await shop.get("/lang", *headers)
                assert "; hit; " in answer.header("cache-status")

    run(scenario)


def test_the_coded_forms_of_a_variant_are_made_ahead_too():
    shop = Shop(clock=Clock(), warming={"urls": "/a", "vary": {"accept-encoding": ["gzip"]}})

    async def scenario():
        async with shop.perf.running():
            (stored,) = shop.cache.store.all()
            answer = await shop.get("/a", ("accept-encoding", "gzip"))
            assert answer.header("content-encoding") == "gzip"
            assert stored.hits == 1

    run(scenario)


def test_warming_counts_as_no_client_anywhere():
    shop = Shop(
        clock=Clock(),
        warming={"urls": ["/a", "/b", "/c"]},
        ratelimit={"enabled": True, "quotas": ["1/minute"]},
    )

    async def scenario():
        async with shop.perf.running():
            assert shop.figures["warmed"] == 3
            assert shop.perf.status()["requests"]["total"] == 0
            totals = shop.cache.status()
            assert (totals["hits"], totals["misses"]) == (0, 0)

    run(scenario)


def test_a_second_run_leaves_alone_what_is_fresh_and_counts_no_hit():
    shop = Shop(clock=Clock(), warming={"urls": ["/a", "/b"]})

    async def scenario():
        async with shop.perf.running():
            shop.clock.pass_s(30)
            again = await shop.cache.warmer.run()
            assert (again.fresh, again.warmed) == (2, 0)
            assert [stored.hits for stored in shop.cache.store.all()] == [0, 0]
            shop.clock.pass_s(31)
            third = await shop.cache.warmer.run()
            assert (third.fresh, third.warmed) == (0, 2)
            assert len(shop.calls) == 4

    run(scenario)


def test_functions_name_urls_or_warm_values_themselves_and_one_that_fails_harms_no_other():
    shop = Shop(clock=Clock())
    warmed = []

    @shop.cache.warmer
    async def popular():
        yield "/a"
        yield "http://shop.example/b"

    @shop.cache.warmer
    async def broken():
        raise KeyError("no such table")

    @shop.cache.warmer
    async def values():
        warmed.append("values")

    @shop.cache.warmer
    def listed():
        return ["/c"]

    async def scenario():
        async with shop.perf.running():
            assert sorted(path for path, _ in shop.calls) == ["/a", "/b", "/c"]
            assert warmed == ["values"]
            last = shop.figures["last_run"]
            assert (last["warmed"], last["failed"]) == (3, 1)
            assert "broken" in last["problems"][0]
            assert "no such table" in last["problems"][0]

    run(scenario)


def test_failures_are_counted_and_told_in_one_line_and_nothing_fails_by_them(caplog):
    shop = Shop(clock=Clock(), warming={"urls": ["/a", "/b", "/never"]})
    shop.failing = True

    async def scenario():
        async with shop.perf.running():
            figures = shop.figures
            assert (figures["failed"], figures["unstored"], figures["warmed"]) == (2, 1, 0)

    run(scenario)
    lines = [record for record in caplog.records if record.getMessage().startswith("warming (")]
    assert len(lines) == 1
    assert "RuntimeError: the shop is closed" in lines[0].getMessage()
    assert "/never: unstored" in lines[0].getMessage()


def test_the_start_waits_no_longer_than_it_is_told_and_the_run_goes_on_behind_it():
    shop = Shop(clock=Clock(), warming={"urls": ["/a"], "wait_s": 0.02})

    async def scenario():
        shop.gate = anyio.Event()
        async with shop.perf.running():  # would never be reached otherwise
            assert shop.figures["runs"] == 0
            shop.gate.set()
            await until(lambda: shop.figures["runs"] == 1)
            assert shop.figures["warmed"] == 1

    run(scenario)


def test_a_run_ends_at_its_bound_and_tells_what_is_left():
    shop = Shop(
        clock=Clock(), warming={"urls": ["/a", "/b", "/c"], "run_s": 0.05, "concurrency": 1}
    )

    async def scenario():
        shop.gate = anyio.Event()
        async with shop.perf.running():
            last = shop.figures["last_run"]
            assert (last["planned"], last["left"]) == (3, 3)
            assert len(shop.calls) <= 1

    run(scenario)


def test_no_more_are_asked_at_once_than_allowed():
    shop = Shop(
        clock=Clock(), warming={"urls": [f"/{n}" for n in range(8)], "concurrency": 3, "wait_s": 0}
    )

    async def scenario():
        shop.gate = anyio.Event()
        async with shop.perf.running():
            await until(lambda: len(shop.calls) == 3)
            await anyio.wait_all_tasks_blocked()
            assert len(shop.calls) == 3
            shop.gate.set()
            await until(lambda: shop.figures["runs"] == 1)
            assert shop.figures["warmed"] == 8

    run(scenario)


def test_warming_stands_aside_while_clients_keep_the_app_busy(monkeypatch):
    monkeypatch.setattr("perf_middleware.caching.warming.runtime.PAUSE_S", 0.01)
    shop = Shop(clock=Clock(), warming={"urls": ["/a"], "wait_s": 0})
    busy = True
    shop.cache.warmer.warming.is_busy = lambda: busy

    async def scenario():
        nonlocal busy
        async with shop.perf.running():
            await until(lambda: shop.figures["paused_s"] > 0)
            assert shop.calls == []
            busy = False
            await until(lambda: shop.figures["warmed"] == 1)

    run(scenario)


def test_warming_takes_no_permit_that_a_client_would_have_to_wait_for():
    """It would be shed with the clients, and among them: counted with theirs, and failed."""
    one = {"enabled": True, "adaptive": "off", "limit_first": 1, "limit_min": 1, "limit_max": 1}
    shop = Shop(clock=Clock(), backpressure=one)
    backpressure = shop.perf.limits.backpressure

    @shop.cache.warmer
    async def popular():
        return ["/a"]

    async def scenario():
        async with shop.perf.running(), anyio.create_task_group() as tasks:
            await shop.cache.purge(everything=True)
            shop.calls.clear()
            shop.gate = anyio.Event()
            tasks.start_soon(shop.get, "/held")
            await until(lambda: backpressure.in_flight == 1)
            tasks.start_soon(shop.cache.warmer.run)
            await until(lambda: shop.figures["paused_s"] > 0)
            assert [path for path, _ in shop.calls] == ["/held"]
            shop.gate.set()
            await until(lambda: shop.figures["runs"] == 2)
            assert shop.figures["last_run"]["warmed"] == 1
            assert backpressure.status()["shed"] == {}

    run(scenario)


def test_warming_stands_aside_a_while_after_somebody_was_shed():
    shop = Shop(clock=Clock(), warming={"urls": ["/a"]}, backpressure={"enabled": True})
    backpressure, is_busy = shop.perf.limits.backpressure, shop.cache.warmer.warming.is_busy
    backpressure.clock = clock = Clock()
    assert not is_busy()
    backpressure.note_shed("full", CRITICAL, clock())
    assert is_busy()
    clock.pass_s(1)
    assert not is_busy()
    backpressure.note_shed("full", CRITICAL, clock())
    backpressure.dry_run = True  # nobody is: it would have been
    assert not is_busy()


def test_what_a_purge_has_taken_of_the_warmed_is_asked_for_again():
    shop = Shop(clock=Clock(), warming={"urls": ["/a", "/b"], "after_purge_s": 0.01})

    async def scenario():
        async with shop.perf.running():
            await shop.get("/other")
            assert await shop.cache.purge(url="/other") == 1  # was never warmed
            assert await shop.cache.purge(url="/a") == 1
            await until(lambda: shop.figures["runs"] == 2)
            assert shop.figures["last_run"]["cause"] == "purge"
            assert [path for path, _ in shop.calls].count("/a") == 2
            assert [path for path, _ in shop.calls].count("/b") == 1
            assert [path for path, _ in shop.calls].count("/other") == 1

    run(scenario)


def test_it_runs_again_from_time_to_time():
    shop = Shop(clock=Clock(), warming={"urls": ["/a"], "interval_s": 1})
    warming = shop.cache.warmer.warming
    assert warming._interval_s == 1  # as set; nothing is told by waiting for so long
    warming._interval_s = 0.01

    async def scenario():
        async with shop.perf.running():
            await until(lambda: shop.figures["runs"] >= 2)
            assert shop.figures["last_run"]["cause"] == "interval"

    run(scenario)


@pytest.mark.parametrize("status", [401, 303])  # a refusal, and a way to the login
def test_an_answer_to_nobody_takes_nothing_from_what_is_stored(status):
    """An endpoint that asks for a login refuses warming: what its clients have shared stays."""
    shop = Shop(clock=Clock(), warming={"urls": ["/a"], "wait_s": 0})

    async def scenario():
        async with shop.perf.running():
            await until(lambda: shop.figures["runs"] == 1)
            shop.status = status
            shop.clock.pass_s(59)
            asked = await shop.cache.warmer.warming.ask(
                ask_of(BASE["base_url"] + "/a", base=None), margin_us=5_000_000
            )
            assert asked.outcome == "unstored"
            assert "; hit; " in (await shop.get("/a")).header("cache-status")
            assert len(shop.calls) == 2

    run(scenario)


def test_what_is_hot_is_renewed_before_it_is_stale_and_the_rest_is_not():
    shop = Shop(clock=Clock(), warming={"refresh_hottest": 2, "refresh_ahead_s": 600})

    async def scenario():
        warming = shop.cache.warmer.warming
        refresh_due = by_hand(warming)
        async with shop.perf.running():
            for path, times in (("/a", 5), ("/lang", 3), ("/c", 2), ("/d", 1)):
                for _ in range(times):
                    await shop.get(path, ("accept-language", "de"))
            asked = len(shop.calls)
            await warming.hot.look()
            shop.clock.pass_s(29)
            assert await refresh_due() == 0  # not in the first half of their life
            shop.clock.pass_s(1)
            assert await refresh_due() == 2
            assert sorted(shop.calls[asked:]) == [("/a", None), ("/lang", "de")]
            assert await refresh_due() == 0
            shop.clock.pass_s(29)
            answer = await shop.get("/lang", ("accept-language", "de"))
            assert "; hit; " in answer.header("cache-status")
            assert answer.header("age") == "29"

    run(scenario)


def test_what_could_not_be_renewed_stays_and_is_left_alone_for_a_while():
    shop = Shop(clock=Clock(), warming={"refresh_hottest": 2, "refresh_ahead_s": 600})

    async def scenario():
        warming = shop.cache.warmer.warming
        refresh_due = by_hand(warming)
        async with shop.perf.running():
            for _ in range(3):
                await shop.get("/a")
            await warming.hot.look()
            shop.clock.pass_s(40)
            shop.failing = True
            warming.is_busy = lambda: True
            assert await refresh_due() == 0
            assert len(shop.calls) == 1
            warming.is_busy = lambda: False
            for _ in range(3):
                assert await refresh_due() == 0
                shop.clock.pass_s(2)
            assert len(shop.calls) == 2
            assert shop.figures["failed"] == 1
            assert "; hit; " in (await shop.get("/a")).header("cache-status")

    run(scenario)


def test_a_middleware_of_yours_sees_the_request_and_may_refuse_it():
    seen = []

    class Door(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            seen.append(dict(request.headers))
            if request.url.path == "/closed":
                return PlainTextResponse("no", status_code=401)
            return await call_next(request)

    shop = Shop(clock=Clock(), middleware=[Middleware(Door)], warming={"urls": ["/a", "/closed"]})

    async def scenario():
        async with shop.perf.running():
            figures = shop.figures
            assert (figures["warmed"], figures["unstored"]) == (1, 1)
            assert {fields["user-agent"] for fields in seen} == {"perf_middleware-warming"}
            again = await shop.cache.warmer.run()
            assert (again.fresh, again.unstored) == (1, 1)

    run(scenario)


def test_an_app_with_nothing_to_warm_has_no_such_resource():
    perf = install(Starlette(), Settings())
    assert "warming" not in perf.status()["resources"]
    assert not [family for family in perf.metrics.families() if "warming" in family.name]


def test_without_the_cache_only_functions_are_called():
    shop = Shop(clock=Clock(), warming={"urls": ["/a"]}, cache={"enabled": False})
    called = []
    shop.cache.warmer(lambda: called.append("values"))

    async def scenario():
        async with shop.perf.running():
            assert (shop.calls, called) == ([], ["values"])

    run(scenario)


def test_once_the_server_stops_nothing_is_asked_any_more():
    shop = Shop(clock=Clock(), warming={"urls": ["/a"], "refresh_hottest": 3})

    async def scenario():
        warming = shop.cache.warmer.warming
        refresh_due = by_hand(warming)
        async with shop.perf.running():
            for _ in range(3):
                await shop.get("/a")
            await warming.hot.look()
            shop.clock.pass_s(58)
            await shop.perf._resources.note_stopping()
            assert await refresh_due() == 0
            with pytest.raises(RuntimeError, match="has not started or has stopped"):
                await shop.cache.warmer.run()
            assert len(shop.calls) == 1

    run(scenario)


def test_switched_off_nothing_is_warmed():
    shop = Shop(clock=Clock(), warming={"urls": ["/a"], "enabled": False})

    async def scenario():
        async with shop.perf.running():
            assert shop.calls == []

    run(scenario)
    with pytest.raises(RuntimeError, match="warming is off"):
        anyio.run(shop.cache.warmer.run)
