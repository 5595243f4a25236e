"""Processes that share a cache: one warms, one renews, the others wait for it."""

import contextlib

import anyio

from tests.caching.warming.shop import Shop, by_hand, paths, run, shop_of, until


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
