"""Two value caches that share nothing but Redis, as those of two processes do."""

import logging
from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.applications import Starlette

from perf_middleware import Settings, StoreUnavailableError, ValueCache, install
from perf_middleware.fleet.runtime import Fleet
from tests.driving import DEADLINE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Process:
    """A value cache, and a function cached in it that counts its runs."""

    def __init__(self, name, fleet):
        self.fleet = fleet
        self.memo = ValueCache()
        self.memo.share(fleet)
        self.runs = []
        self.truth = 0
        memo, runs = self.memo, self.runs

        @memo.cached(ttl=60, name="load", tags=("item:{number}",))
        async def load(number: int) -> dict[str, object]:
            runs.append(number)
            return {"by": name, "truth": self.truth}

        @memo.cached(ttl=60, name="plain")
        def plain(number):
            runs.append(number)
            return name

        @memo.invalidates(tags=("item:{number}",))
        async def write(number):
            return number

        self.load, self.plain, self.write = load, plain, write


async def until(is_so):
    with anyio.fail_after(DEADLINE_S):
        while not is_so():
            await anyio.sleep(0.005)


@asynccontextmanager
async def two(server, namespace, timeout_s=5.0):
    fleets = [Fleet(server.url, namespace=namespace, timeout_s=timeout_s) for _ in range(2)]
    processes = [Process(name, fleet) for name, fleet in zip("AB", fleets, strict=True)]
    for fleet in fleets:
        fleet.ensure_kept()
    await until(lambda: all(fleet.is_up for fleet in fleets))
    try:
        yield processes
    finally:
        for fleet in fleets:
            await fleet.close()


@pytest.fixture
async def pair(redis_server, request):
    async with two(redis_server, f"v{abs(hash(request.node.name)) % 10**9}") as both:
        yield both


async def test_what_one_has_made_the_other_gives(pair):
    first, second = pair
    assert await first.load(5) == {"by": "A", "truth": 0}
    assert await second.load(5) == {"by": "A", "truth": 0}
    assert await second.load(5) == {"by": "A", "truth": 0}
    assert second.runs == []
    assert second.load.stats().hits == 2


FORGET = {
    "invalidate": lambda process: process.load.invalidate(5),
    "a write": lambda process: process.write(5),
    "its tag": lambda process: process.memo.purge(tags="item:5"),
    "several tags": lambda process: process.memo.purge(tags=["other", "item:5"]),
    "its function": lambda process: process.load.clear(),
    "a pattern": lambda process: process.memo.clear(pattern="lo*"),
    "everything": lambda process: process.memo.clear(),
    "its key": lambda process: process.memo.delete(process.load.key(5)),
}


@pytest.mark.parametrize("how", FORGET)
async def test_what_one_forgets_all_forget(pair, how):
    first, second = pair
    await first.load(5)
    await second.load(5)
    key = first.load.key(5)
    await FORGET[how](first)
    await until(lambda: second.memo._core.look(key) is None)
    assert (await second.load(5))["by"] == "B"
    assert (await first.load(5))["by"] == "B"


async def test_a_value_begun_before_a_purge_elsewhere_is_not_kept_after_it(pair):
    first, second = pair
    entered, leave = anyio.Event(), anyio.Event()

    @first.memo.cached(ttl=60, name="slow", tags=("t",))
    async def slow():
        entered.set()
        await leave.wait()
        return "old"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slow)
        await entered.wait()
        await second.memo.purge(tags="t")
        leave.set()
    assert await second.memo.get("slow") is None
    assert first.memo._core.look(slow.key()) is None


async def test_a_refresh_replaces_what_others_have_in_memory(pair):
    first, second = pair
    await first.load(5)
    await second.load(5)
    first.truth = 7
    await first.load.refresh(5)
    await until(lambda: second.memo._core.look(second.load.key(5)) is None)
    assert (await second.load(5))["truth"] == 7


async def test_plain_functions_keep_their_own_and_forget_for_all(pair):
    first, second = pair
    assert (first.plain(1), second.plain(1)) == ("A", "B")
    assert first.plain.invalidate(1)
    await until(lambda: second.memo._core.look(second.plain.key(1)) is None)
    second.plain(1)
    assert second.runs == [1, 1]


async def test_values_by_hand_are_shared(pair):
    first, second = pair
    await first.memo.set("k", {"a": (1, 2)}, ttl=60)
    assert await second.memo.get("k") == {"a": (1, 2)}
    assert await first.memo.set_many({"a": 1, "b": 2}, ttl=None) == 2
    assert await second.memo.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    assert await first.memo.incr("n", 5) == 5
    assert await second.memo.incr("n") == 6
    assert await first.memo.get("n") == 6
    assert await second.memo.exists("k")
    assert await first.memo.delete("k") == 1
    await until(lambda: second.memo._core.look("k") is None)
    assert not await second.memo.exists("k")


async def test_without_redis_each_goes_on_and_makes_up_for_what_it_forgot(own_redis, caplog):
    caplog.set_level(logging.INFO)
    async with two(own_redis, "down", timeout_s=0.5) as (first, second):
        await first.load(5)
        await second.load(5)
        first.fleet.link.give_up("for this test")
        assert (await first.load(5))["by"] == "A"
        assert await first.memo.purge(tags="item:5") == 1
        assert await first.memo.set("k", 1, ttl=60)
        assert await first.memo.get("k") == 1
        await until(lambda: first.fleet.is_up)
        await until(lambda: second.memo._core.look(second.load.key(5)) is None)
        own_redis.kill()
        await until(lambda: not first.fleet.is_up)
        assert (await first.load(6))["by"] == "A"
        assert (await first.load(6))["by"] == "A"
        assert first.runs == [5, 6]
        with pytest.raises(StoreUnavailableError):
            await first.memo.incr("n")


async def test_install_shares_the_values_of_the_app(redis_server):
    memo = ValueCache()
    settings = Settings(
        redis={"url": redis_server.url, "namespace": "installed", "timeout_s": 5.0},
        metrics={"workers": False}, dashboard={"enabled": False},
    )  # fmt: skip
    perf = install(Starlette(), settings, memo=memo)
    async with perf.running(), two(redis_server, "installed") as (other, _):
        await perf.memo.set("k", 1, ttl=60)
        assert await other.memo.get("k") == 1
