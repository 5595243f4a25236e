"""While Redis does not answer each quota holds by its own word, and nobody notices otherwise."""

import asyncio
import logging

import anyio
import pytest

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet.runtime import Fleet
from perf_middleware.limits.rate.gcra import NEVER, Demand, Left, Outcome, Quota
from perf_middleware.limits.rate.stores.fallback import CLOSED_WAIT_US, STEADY_US, FleetQuotas
from perf_middleware.limits.rate.stores.memory import MemoryQuotas
from perf_middleware.limits.rate.stores.redis import SharedQuotas
from tests.fleet.servers import RedisServer

MINUTE = Quota.per(100, 60)
PAIR = Quota.per(2, 60)
AWAY = StoreUnavailableError("Redis", "gone")
FULL = StoreRefusedError("Redis", "OOM command not allowed")


class Clock:
    def __init__(self):
        self.us = 5_000_000

    def __call__(self):
        return self.us


class Far:
    """Shared quotas of another process's memory, until they fail."""

    def __init__(self, clock):
        self.quotas = MemoryQuotas(clock=clock)
        self.error = None

    async def take(self, demands):
        if self.error is not None:
            raise self.error
        return self.quotas.take(demands)


class Stage:
    def __init__(self):
        self.clock = Clock()
        self.far = Far(self.clock)
        self.kept = 0
        self.quotas = FleetQuotas(
            self.far, MemoryQuotas(clock=self.clock), ensure_kept=self._keep, clock=self.clock
        )

    def _keep(self):
        self.kept += 1

    def take(self, *demands):
        async def main():
            return await self.quotas.take(demands)

        return anyio.run(main, backend="asyncio")


@pytest.fixture
def stage():
    return Stage()


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "perf_middleware.rate_limit")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


# --- by each quota's own word -------------------------------------------------------------------


@pytest.mark.parametrize("error", [AWAY, FULL, OSError("garbage")], ids=["away", "full", "odd"])
@pytest.mark.parametrize(
    ("when_down", "cost", "outcome"),
    [
        pytest.param("local", 1, Outcome(True, (Left(1, 0, 30_000_000),)), id="local"),
        pytest.param("local", 3, Outcome(False, (Left(2, NEVER, 0),)), id="local, too much"),
        pytest.param("open", 1, Outcome(True, (Left(2, 0, 0),)), id="open"),
        pytest.param("open", 3, Outcome(False, (Left(2, NEVER, 0),)), id="open, too much"),
        pytest.param(
            "closed", 1, Outcome(False, (Left(0, CLOSED_WAIT_US, CLOSED_WAIT_US),)), id="closed"
        ),
        pytest.param(
            "closed", 3, Outcome(False, (Left(0, NEVER, CLOSED_WAIT_US),)), id="closed, too much"
        ),
        pytest.param(
            "closed", 0, Outcome(True, (Left(0, 0, CLOSED_WAIT_US),)), id="closed, a look"
        ),
    ],
)
def test_each_quota_holds_by_its_own_word(stage, error, when_down, cost, outcome):
    stage.far.error = error
    assert stage.take(Demand(b"a", PAIR, cost, when_down)) == outcome
    assert stage.quotas.alone == {"local": 0, "open": 0, "closed": 0} | {when_down: 1}
    assert stage.kept == 1


def test_a_local_quota_goes_on_refusing_locally(stage):
    stage.far.error = AWAY
    told = [stage.take(Demand(b"a", PAIR)).admitted for _ in range(3)]
    assert told == [True, True, False]


def test_what_is_refused_by_one_word_is_charged_by_no_other(stage):
    stage.far.error = AWAY
    demands = Demand(b"a", PAIR), Demand(b"b", PAIR, 1, "open"), Demand(b"c", PAIR, 1, "closed")
    for _ in range(5):
        outcome = stage.take(*demands)
        assert not outcome.admitted
        assert [left.wait_us for left in outcome.left] == [0, 0, CLOSED_WAIT_US]
    assert stage.take(*demands[:2]) == Outcome(True, (Left(1, 0, 30_000_000), Left(2, 0, 0)))
    assert stage.quotas.alone == {"local": 6, "open": 6, "closed": 5}


# --- over and back ------------------------------------------------------------------------------


def test_who_was_over_a_quota_gets_no_fresh_burst_when_redis_dies(stage):
    demand = Demand(b"over", PAIR)
    for _ in range(3):
        refused = stage.take(demand)
    stage.far.error = AWAY
    assert stage.take(demand) == refused
    stage.clock.us += 30_000_000
    assert stage.take(demand).admitted, "the time until then is counted"
    assert not stage.take(demand).admitted


def test_who_has_used_less_than_half_of_a_quota_takes_no_memory_here(stage):
    for number in range(100):
        stage.take(Demand(b"light:%d" % number, MINUTE, 50))
    assert len(stage.quotas.local) == 0
    stage.take(Demand(b"heavy", MINUTE, 51))
    assert len(stage.quotas.local) == 1


def test_a_change_is_told_once(stage, said):
    demand = Demand(b"a", MINUTE)
    stage.take(demand)
    assert said() == []
    stage.far.error = AWAY
    for _ in range(5):
        stage.take(demand)
    assert said() == [
        ("WARNING", f"quotas are judged without Redis, by each one's when_down: {AWAY}")
    ]
    assert stage.quotas.status()["reason"] == "Redis is not available: gone"
    assert not stage.quotas.is_shared
    stage.far.error = None
    stage.clock.us += STEADY_US
    stage.take(demand)
    assert said()[1:] == [("INFO", "quotas are judged in Redis again")]
    assert stage.quotas.is_shared


def test_a_store_that_answers_now_and_then_is_no_news_each_time(stage, said):
    for _ in range(50):
        stage.far.error = FULL
        stage.take(Demand(b"a", MINUTE))
        stage.far.error = None
        stage.clock.us += STEADY_US - 1
        assert stage.take(Demand(b"a", MINUTE, 0)).admitted
    assert len(said()) == 1


def test_its_figures(stage):
    stage.take(Demand(b"a", PAIR))
    stage.far.error = AWAY
    stage.take(Demand(b"a", PAIR), Demand(b"b", PAIR, 1, "open"))

    def figures():
        return {
            (family.name, *point.labels.pairs): point.value
            for family in stage.quotas.families()
            for point in family.points
        }

    found = figures()
    assert found["perf_ratelimit_shared",] == 0
    assert found["perf_ratelimit_alone", ("when_down", "local")] == 1
    assert found["perf_ratelimit_alone", ("when_down", "open")] == 1
    assert found["perf_ratelimit_alone", ("when_down", "closed")] == 0
    assert found["perf_ratelimit_buckets",] == 1
    stage.quotas.reset_counts()
    assert figures()["perf_ratelimit_alone", ("when_down", "local")] == 0


def test_a_mistake_in_the_call_is_told(stage):
    for error in (None, AWAY):
        stage.far.error = error
        with pytest.raises(ValueError, match="cost"):
            stage.take(Demand(b"a", PAIR, -1))
        assert stage.quotas.is_shared, "and is no failure of Redis"


# --- a real Redis, really killed ----------------------------------------------------------------


@pytest.fixture
def own_server(tmp_path):
    server = RedisServer(tmp_path / "own").start()
    yield server
    server.stop()


def over(server, test, *, timeout_s=1.0):
    """Run `test` with quotas over `server`, kept by `ensure_kept` alone."""

    async def main():
        fleet = Fleet(server.url, timeout_s=timeout_s, heartbeat_s=0.1)
        quotas = FleetQuotas(
            SharedQuotas(fleet.link), MemoryQuotas(), ensure_kept=fleet.ensure_kept
        )
        try:
            with anyio.fail_after(120):
                await test(quotas, fleet)
        finally:
            await fleet.close()

    anyio.run(main, backend="asyncio")


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_quotas_hold_while_a_server_is_killed_and_comes_back(own_server):
    async def test(quotas, fleet):
        over_it = Demand(b"over", PAIR)
        first = await quotas.take([over_it])  # nothing has connected yet
        assert first.admitted
        await until(lambda: fleet.is_up)
        for _ in range(3):
            refused = await quotas.take([over_it])
        assert not refused.admitted

        fresh = [Demand(b"fresh", PAIR), Demand(b"open", PAIR, 1, "open")]
        closed = [Demand(b"fresh", PAIR, 1, "closed")]
        running, outcomes = True, []

        async def ask():
            while running:
                outcomes.append(await quotas.take([Demand(b"load", MINUTE)]))
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            askers = [tasks.create_task(ask()) for _ in range(5)]
            await asyncio.sleep(0.05)
            own_server.kill()
            await until(lambda: not fleet.is_up)
            assert not (await quotas.take([over_it])).admitted, "no fresh burst"
            told = [(await quotas.take(fresh)).admitted for _ in range(3)]
            assert told == [True, True, False]
            assert not (await quotas.take(closed)).admitted
            assert not quotas.is_shared

            await asyncio.to_thread(own_server.start)
            await until(lambda: fleet.is_up)
            alone = dict(quotas.alone)
            assert (await quotas.take(closed)).admitted, "judged in Redis, with nothing in it"
            assert quotas.alone == alone
            running = False
            await asyncio.gather(*askers)
        # In Redis, here, and in the Redis that had nothing in it: a burst of each at most.
        assert sum(outcome.admitted for outcome in outcomes) <= 3 * (MINUTE.burst + 100)

    over(own_server, test)


def test_what_is_forgotten_is_so_here_and_in_redis(own_server):
    async def test(quotas, fleet):
        over_it = Demand(b"over", PAIR)
        assert not await quotas.forget(b"over"), "Redis is not told"
        await until(lambda: fleet.is_up)
        for _ in range(3):
            await quotas.take([over_it])
        assert len(quotas.local) == 1
        assert await quotas.forget(b"over")
        assert len(quotas.local) == 0
        assert (await quotas.take([over_it])).left[0].remaining == 1

    over(own_server, test)


def test_a_server_that_is_silent_costs_one_timeout_and_not_one_for_each(own_server):
    async def test(quotas, fleet):
        fleet.ensure_kept()
        await until(lambda: fleet.is_up)
        await quotas.take([Demand(b"a", MINUTE)])
        own_server.freeze()
        try:
            for _ in range(100):
                assert (await quotas.take([Demand(b"a", MINUTE, 1, "open")])).admitted
            assert fleet.link.timeouts == 1
            assert quotas.alone["open"] == 100
        finally:
            own_server.thaw()
        await until(lambda: fleet.is_up)
        await quotas.take([Demand(b"a", MINUTE, 1, "open")])
        assert quotas.alone["open"] == 100

    over(own_server, test, timeout_s=0.1)


def test_a_server_without_room_refuses_and_quotas_hold_all_the_same(own_server):
    async def test(quotas, fleet):
        fleet.ensure_kept()
        await until(lambda: fleet.is_up)
        own_server.say("CONFIG", "SET", "maxmemory", "1")
        told = [(await quotas.take([Demand(b"a", PAIR)])).admitted for _ in range(3)]
        assert told == [True, True, False]
        assert quotas.alone["local"] == 3
        assert "maxmemory" in quotas.reason
        assert fleet.is_up
        own_server.say("CONFIG", "SET", "maxmemory", "0")
        await quotas.take([Demand(b"b", PAIR)])
        assert quotas.alone["local"] == 3

    over(own_server, test)


def test_a_server_that_has_become_a_replica_is_left(own_server):
    async def test(quotas, fleet):
        fleet.ensure_kept()
        await until(lambda: fleet.is_up)
        own_server.say("REPLICAOF", "127.0.0.1", "1")
        told = [(await quotas.take([Demand(b"a", PAIR)])).admitted for _ in range(3)]
        assert told == [True, True, False]
        own_server.say("REPLICAOF", "NO", "ONE")

    over(own_server, test)


def test_on_trio_it_goes_on_alone(own_server):
    fleet = Fleet(own_server.url)
    quotas = FleetQuotas(SharedQuotas(fleet.link), MemoryQuotas(), ensure_kept=fleet.ensure_kept)

    async def main():
        return [(await quotas.take([Demand(b"a", PAIR)])).admitted for _ in range(3)]

    assert anyio.run(main, backend="trio") == [True, True, False]


def test_whoever_leaves_is_not_kept(own_server):
    async def test(quotas, fleet):
        fleet.ensure_kept()
        await until(lambda: fleet.is_up)
        own_server.freeze()
        try:
            with anyio.move_on_after(0.05) as scope:
                await quotas.take([Demand(b"a", PAIR)])
            assert scope.cancelled_caught
        finally:
            own_server.thaw()
        assert quotas.alone["local"] == 0

    over(own_server, test, timeout_s=30.0)
