"""What every store of the value cache does: one suite for each of them.

A store that is new adds a line to STORES: an async context manager of a store and its clock.
"""

import socket
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count
from os import getpid

import anyio
import pytest

from perf_middleware.caching.values.classes import Classes
from perf_middleware.caching.values.decorators.flights import Flights
from perf_middleware.caching.values.kept import Terms
from perf_middleware.caching.values.packing import Packer
from perf_middleware.caching.values.stores.memory import MemoryStore
from perf_middleware.caching.values.stores.redis import RedisStore
from perf_middleware.caching.values.stores.tiered import TieredStore
from perf_middleware.clock import monotonic_us
from perf_middleware.fleet.runtime import Fleet
from tests.fleet.servers import RedisServer

US = 1_000_000
KEEP = Terms(ttl_us=60 * US)


class Clock:
    def __init__(self):
        self.us = 5 * US

    def __call__(self):
        return self.us

    async def pass_s(self, seconds):
        """Time goes by; a store with a clock of its own would sleep here."""
        self.us += round(seconds * US)


class RealClock:
    """Of a store whose values end by a server's clock."""

    def __call__(self):
        return monotonic_us()

    async def pass_s(self, seconds):
        await anyio.sleep(seconds)


@asynccontextmanager
async def memory(server):
    clock = Clock()
    yield MemoryStore(bytes_max=1 << 20, entries_max=1000, clock=clock), clock


@asynccontextmanager
async def in_redis(server):
    clock = RealClock()
    fleet = Fleet(server.url, namespace=f"contract-{next(NUMBERS)}-{getpid()}", timeout_s=5.0)
    store = RedisStore(fleet, Packer(Classes()), clock=clock)
    fleet.ensure_kept()
    with anyio.fail_after(120):
        while not fleet.is_up:
            await anyio.sleep(0.005)
    try:
        yield store, clock
        async for keys in fleet.link.scan(b"{%b:" % fleet.namespace.encode()):
            await fleet.link.command("UNLINK", *keys)  # counters too: it may not be our server
    finally:
        await fleet.close()


@asynccontextmanager
async def tiered(server):
    async with in_redis(server) as (far, clock):
        near = MemoryStore(bytes_max=1 << 20, entries_max=1000, clock=clock)
        yield TieredStore(near, far, Flights(waiting_max=10), clock=clock), clock


NUMBERS = count()
STORES = {"memory": memory, "redis": in_redis, "tiered": tiered}


def of_this_machine():
    """The Redis that answers on the standard port, if one does: another server, another version."""
    try:
        with socket.create_connection(("127.0.0.1", 6379), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


class StandardRedis:
    url = "redis://127.0.0.1:6379/0"


RUNS = ["memory", "redis", "tiered", *(["redis of this machine"] if of_this_machine() else [])]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield started
    started.stop()


@pytest.fixture(params=RUNS)
def run(request, server):
    """Run `test(store, clock)` with a fresh store, on an event loop."""
    name, _, other = request.param.partition(" ")

    def run(test):
        async def main():
            async with STORES[name](StandardRedis if other else server) as (store, clock):
                await test(store, clock)

        anyio.run(main)

    return run


def given(kept):
    return None if kept is None else kept.give()


@pytest.mark.parametrize(
    "value", [None, 0, "", False, "text", b"\x00", 1.5, Decimal("1.10"), [1, [2]], {"a": (1, {2})}]
)
def test_what_is_put_comes_back(run, value):
    async def test(store, clock):
        assert await store.put("k", value, KEEP)
        kept = await store.get("k")
        assert kept is not None
        assert (kept.give(), type(kept.give())) == (value, type(value))
        assert await store.exists("k")
        if store.memory is not None:
            assert store.memory.look("k").give() == value

    run(test)


def test_what_was_never_put_is_not_there(run):
    async def test(store, clock):
        assert await store.get("k") is None
        assert not await store.exists("k")
        assert await store.get_many(["k", "l"]) == {}
        assert await store.drop(["k"]) == 0
        assert await store.purge(["t"]) == 0
        assert await store.clear("k*") == 0
        assert await store.clear(None) == 0

    run(test)


def test_a_value_has_an_end(run):
    async def test(store, clock):
        await store.put("short", 1, Terms(ttl_us=1 * US))
        await store.put("long", 2, Terms(ttl_us=60 * US))
        await store.put("for ever", 3, Terms(ttl_us=None))
        await clock.pass_s(1.05)
        assert await store.get("short") is None
        assert not await store.exists("short")
        assert given(await store.get("long")) == 2
        assert given(await store.get("for ever")) == 3
        assert await store.get_many(["short", "long"]) != {}

    run(test)


def test_a_value_has_a_stale_time_after_its_end(run):
    async def test(store, clock):
        await store.put("k", 1, Terms(ttl_us=1 * US, stale_us=1 * US))
        await clock.pass_s(1.05)
        kept = await store.get("k")
        assert given(kept) == 1
        assert kept.fresh_until_us <= clock() < kept.ends_us
        assert not await store.exists("k")
        await clock.pass_s(1.0)
        assert await store.get("k") is None

    run(test)


def test_a_value_knows_how_long_it_took(run):
    async def test(store, clock):
        await store.put("k", 1, Terms(ttl_us=60 * US, took_us=2 * US, early=1.0))
        kept = await store.get("k")
        assert kept.took_us == 2 * US
        assert kept.early_from_us == pytest.approx(clock() + 46 * US, abs=US // 10)

    run(test)


def test_a_value_takes_the_place_of_another_with_all_it_had(run):
    async def test(store, clock):
        await store.put("k", 1, Terms(ttl_us=1 * US, tags=("old",)))
        await store.put("k", 2, Terms(ttl_us=60 * US, tags=("new",)))
        assert await store.purge(["old"]) == 0
        await clock.pass_s(1.05)
        assert given(await store.get("k")) == 2
        assert await store.purge(["new"]) == 1
        assert await store.get("k") is None

    run(test)


def test_several_are_put_and_got_at_once(run):
    async def test(store, clock):
        assert await store.put_many({"a": 1, "b": [2]}, Terms(ttl_us=60 * US, tags=("t",))) == 2
        found = await store.get_many(["b", "c", "a"])
        assert {key: kept.give() for key, kept in found.items()} == {"a": 1, "b": [2]}
        assert await store.put_many({}, KEEP) == 0
        assert await store.get_many([]) == {}
        assert await store.purge(["t"]) == 2

    run(test)


def test_keys_are_dropped_and_counted(run):
    async def test(store, clock):
        await store.put_many({"a": 1, "b": 2, "c": 3}, KEEP)
        assert await store.drop(["a", "b", "x"]) == 2
        assert await store.drop([]) == 0
        assert set(await store.get_many(["a", "b", "c"])) == {"c"}

    run(test)


def test_tags_purge_what_has_any_of_them(run):
    async def test(store, clock):
        await store.put("a", 1, Terms(ttl_us=60 * US, tags=("x", "y")))
        await store.put("b", 2, Terms(ttl_us=None, tags=("y",)))
        await store.put("c", 3, Terms(ttl_us=60 * US, tags=("z",)))
        await store.put("d", 4, KEEP)
        assert await store.purge(["x", "y", "nothing"]) == 2
        assert set(await store.get_many(["a", "b", "c", "d"])) == {"c", "d"}
        assert await store.purge([]) == 0
        assert await store.purge(["x"]) == 0

    run(test)


PATTERNS = [
    ("users:*", {"users:1", "users:2", "users:[a]"}),
    ("*:1", {"users:1", "items:1"}),
    ("users:1", {"users:1"}),
    ("u*s*1", {"users:1"}),
    ("users:[a]", {"users:[a]"}),
    ("users:?", set()),
    ("*", {"users:1", "users:2", "items:1", "users:[a]", "a\\*"}),
    ("a\\*", {"a\\*"}),
    ("sers:1", set()),
]


@pytest.mark.parametrize(("pattern", "gone"), PATTERNS, ids=[row[0] for row in PATTERNS])
def test_only_a_star_stands_for_more_than_itself(run, pattern, gone):
    async def test(store, clock):
        keys = ["users:1", "users:2", "items:1", "users:[a]", "a\\*"]
        await store.put_many(dict.fromkeys(keys, 1), KEEP)
        assert await store.clear(pattern) == len(gone)
        assert set(await store.get_many(keys)) == set(keys) - gone

    run(test)


def test_everything_is_cleared(run):
    async def test(store, clock):
        keys = [f"k{number}" for number in range(900)]
        await store.put_many(dict.fromkeys(keys, 1), Terms(ttl_us=60 * US, tags=("t",)))
        assert await store.clear(None) == 900
        assert await store.get_many(keys) == {}
        assert await store.purge(["t"]) == 0

    run(test)


def test_a_number_is_counted_up_from_nothing(run):
    async def test(store, clock):
        assert await store.increase("n", 5, ttl_us=None) == 5
        assert await store.increase("n", -7, ttl_us=None) == -2
        assert given(await store.get("n")) == -2
        assert await store.exists("n")
        assert await store.drop(["n"]) == 1
        assert await store.increase("n", 1, ttl_us=None) == 1

    run(test)


def test_a_number_keeps_the_lifetime_it_began_with(run):
    async def test(store, clock):
        await store.increase("n", 1, ttl_us=1 * US)
        await clock.pass_s(0.6)
        assert await store.increase("n", 1, ttl_us=60 * US) == 2
        await clock.pass_s(0.6)
        assert await store.get("n") is None
        assert await store.increase("n", 1, ttl_us=60 * US) == 1

    run(test)


def test_a_number_that_was_put_is_counted_on(run):
    async def test(store, clock):
        await store.put("n", 41, Terms(ttl_us=60 * US, tags=("t",)))
        assert await store.increase("n", 1, ttl_us=None) == 42
        assert given(await store.get("n")) == 42
        assert await store.purge(["t"]) == 1

    run(test)


@pytest.mark.parametrize("value", ["5", True, None, [1]])
def test_what_is_no_number_is_not_counted(run, value):
    async def test(store, clock):
        await store.put("n", value, KEEP)
        with pytest.raises(TypeError, match="no whole number"):
            await store.increase("n", 1, ttl_us=None)
        assert given(await store.get("n")) == value

    run(test)


def test_many_count_at_once_and_none_is_lost(run):
    async def test(store, clock):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(lambda: store.increase("n", 1, ttl_us=None))
        assert given(await store.get("n")) == 50

    run(test)


def test_nobody_changes_what_is_kept(run):
    async def test(store, clock):
        for number, value in enumerate(([1, 2], {"a": 1}, {"a": [1]}, {1, 2}, [[1]])):
            await store.put(f"{number}", value, KEEP)
            value.clear()
            first = given(await store.get(f"{number}"))
            assert first
            first.clear()
            assert given(await store.get(f"{number}"))

    run(test)


def test_a_key_may_hold_any_characters(run):
    async def test(store, clock):
        keys = ["", " ", "é", "\n", "{a}", "a:b", "'", "x" * 201]
        await store.put_many({key: key for key in keys}, KEEP)
        found = await store.get_many(keys)
        assert {key: kept.give() for key, kept in found.items()} == {key: key for key in keys}

    run(test)
