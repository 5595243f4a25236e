"""What every store of quotas does: one suite for each of them.

A store that is new adds a line to STORES: an async context manager of its `take` and of a function
that lets microseconds pass.
"""

from contextlib import asynccontextmanager
from itertools import count
from os import getpid

import anyio
import pytest

from perf_middleware.fleet.runtime import Fleet
from perf_middleware.limits.rate.gcra import NEVER, Demand, Left, Outcome, Quota
from perf_middleware.limits.rate.stores.fallback import FleetQuotas
from perf_middleware.limits.rate.stores.memory import MemoryQuotas
from perf_middleware.limits.rate.stores.redis import SharedQuotas
from tests.fleet.servers import RedisServer

NUMBERS = count()
HOUR_US = 3_600_000_000
PAIR = Quota.per(2, 3_600)  # nothing comes back while a test runs
MANY = Quota.per(10, 3_600)
SOON = Quota(interval_us=30_000)


class Clock:
    def __init__(self):
        self.us = 5_000_000

    def __call__(self):
        return self.us


@asynccontextmanager
async def memory(server):
    clock = Clock()
    quotas = MemoryQuotas(clock=clock)

    async def take(demands):
        return quotas.take(demands)

    async def passing(us):
        clock.us += us

    yield take, passing


@asynccontextmanager
async def link_to(server):
    fleet = Fleet(server.url, timeout_s=5.0)
    fleet.ensure_kept()
    with anyio.fail_after(120):
        while not fleet.is_up:
            await anyio.sleep(0.005)
    try:
        yield fleet.link
    finally:
        await fleet.close()


async def sleep_us(us):
    await anyio.sleep(us / 1_000_000 + 0.002)


@asynccontextmanager
async def in_redis(server):
    async with link_to(server) as link:
        yield SharedQuotas(link, namespace=f"contract-{next(NUMBERS)}-{getpid()}").take, sleep_us


@asynccontextmanager
async def with_fallback(server):
    async with link_to(server) as link:
        shared = SharedQuotas(link, namespace=f"contract-{next(NUMBERS)}-{getpid()}")
        quotas = FleetQuotas(shared, MemoryQuotas())
        yield quotas.take, sleep_us
        assert not any(quotas.alone.values())


@asynccontextmanager
async def without_redis(server):
    quotas = FleetQuotas(SharedQuotas(Fleet(server.url).link), MemoryQuotas())
    yield quotas.take, sleep_us


STORES = {
    "memory": memory,
    "redis": in_redis,
    "redis with fallback": with_fallback,
    "fallback alone": without_redis,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield started
    started.stop()


@pytest.fixture(params=STORES)
def run(request, server):
    """Run `test(take, passing)` with a fresh store, on an event loop."""

    def run(test):
        async def main():
            async with STORES[request.param](server) as (take, passing):
                await test(take, passing)

        anyio.run(main, backend="asyncio")

    return run


def test_a_burst_passes_and_no_more(run):
    async def test(take, passing):
        told = [await take([Demand(b"a", PAIR)]) for _ in range(3)]
        assert [outcome.admitted for outcome in told] == [True, True, False]
        assert [outcome.left[0].remaining for outcome in told] == [1, 0, 0]
        assert [outcome.left[0].wait_us > 0 for outcome in told] == [False, False, True]
        assert told[0].left[0].full_us == HOUR_US // 2
        assert (await take([Demand(b"b", PAIR)])).admitted, "another key has its own"

    run(test)


def test_after_the_wait_that_it_tells_it_passes(run):
    async def test(take, passing):
        assert (await take([Demand(b"a", SOON)])).admitted
        for _ in range(3):
            while not (outcome := await take([Demand(b"a", SOON)])).admitted:
                assert 0 < outcome.left[0].wait_us <= SOON.interval_us
                await passing(outcome.left[0].wait_us)

    run(test)


def test_all_demands_pass_or_none_is_charged(run):
    async def test(take, passing):
        assert (await take([Demand(b"b", PAIR, 2)])).admitted
        for _ in range(3):
            outcome = await take([Demand(b"a", MANY, 3), Demand(b"b", PAIR)])
            assert not outcome.admitted
            assert outcome.left[0] == Left(10, 0, 0)
            assert outcome.left[1].wait_us > 0
        outcome = await take([Demand(b"a", MANY, 3), Demand(b"c", PAIR)])
        assert outcome == Outcome(
            True, (Left(7, 0, 3 * MANY.interval_us), Left(1, 0, PAIR.interval_us))
        )

    run(test)


def test_costs_are_charged_as_a_whole(run):
    async def test(take, passing):
        assert (await take([Demand(b"a", MANY, 7)])).left[0].remaining == 3
        refused = await take([Demand(b"a", MANY, 4)])
        assert not refused.admitted
        assert refused.left[0].remaining == 3
        assert (await take([Demand(b"a", MANY, 3)])).left[0].remaining == 0

    run(test)


def test_a_cost_above_the_burst_never_passes_and_says_so(run):
    async def test(take, passing):
        assert await take([Demand(b"a", PAIR, 3)]) == Outcome(False, (Left(2, NEVER, 0),))
        for cost in (10**30, 10**400):
            assert await take([Demand(b"a", PAIR, cost)]) == Outcome(False, (Left(2, NEVER, 0),))
            several = [Demand(b"a", PAIR, cost), Demand(b"b", PAIR)]
            assert (await take(several)).left == (Left(2, NEVER, 0), Left(2, 0, 0))

    run(test)


def test_a_look_charges_nothing(run):
    async def test(take, passing):
        for _ in range(5):
            assert await take([Demand(b"a", PAIR, 0)]) == Outcome(True, (Left(2, 0, 0),))
        await take([Demand(b"a", PAIR, 2)])
        looked = await take([Demand(b"a", PAIR, 0)])
        assert looked.admitted
        assert looked.left[0].remaining == 0

    run(test)


def test_the_same_key_twice_is_charged_twice(run):
    async def test(take, passing):
        twice = [Demand(b"a", MANY, 2), Demand(b"a", MANY, 3)]
        assert await take(twice) == Outcome(True, (Left(5, 0, 5 * MANY.interval_us),) * 2)
        assert (await take(twice)).left[0].remaining == 0
        refused = await take([Demand(b"a", MANY, 6), Demand(b"a", MANY, 5)])
        assert [left.wait_us == NEVER for left in refused.left] == [False, True]

    run(test)


def test_a_quota_that_was_lowered_is_soon_the_new_one(run):
    async def test(take, passing):
        await take([Demand(b"a", MANY, 10), Demand(b"b", MANY, 10)])
        for demands in ([Demand(b"a", SOON)], [Demand(b"b", SOON), Demand(b"c", SOON)]):
            refused = await take(demands)
            assert not refused.admitted
            assert refused.left[0] == Left(0, SOON.interval_us, SOON.window_us)
            await passing(SOON.interval_us)
            assert (await take(demands)).admitted

    run(test)


@pytest.mark.parametrize("key", [b"", b"\x00\r\n {}*?", b"k" * 5_000, bytes(range(256))])
def test_a_key_is_any_bytes(run, key):
    async def test(take, passing):
        assert (await take([Demand(key, PAIR, 2)])).admitted
        assert not (await take([Demand(key, PAIR)])).admitted
        assert (await take([Demand(key + b"x", PAIR)])).admitted

    run(test)


def test_a_request_that_draws_from_nothing_passes(run):
    async def test(take, passing):
        assert await take([]) == Outcome(True, ())

    run(test)


def test_those_who_come_at_once_get_no_more_than_the_burst(run):
    async def test(take, passing):
        told = []

        async def one():
            told.append((await take([Demand(b"a", MANY), Demand(b"b", MANY)])).admitted)

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(one)
        assert (sum(told), len(told)) == (MANY.burst, 100)

    run(test)
