"""The value cache before a store outside of the process: packed values, failures, races."""

from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware import StoreUnavailableError, UnpackableValueError, ValueCache
from perf_middleware.caching.values.classes import Classes
from perf_middleware.caching.values.envelope import STORES_OWN, opened, sealed
from perf_middleware.caching.values.kept import NEVER_US, Terms
from perf_middleware.caching.values.packing import Packer
from tests.caching.values.distant import DistantStore
from tests.caching.values.stage import BACKENDS, Calls, Clock, Gate, run, settled


@dataclass
class User:
    id: int
    born: datetime


def distant_cache():
    clock = Clock()
    store = DistantStore(clock)
    memo = ValueCache(store=store, clock=clock)
    store.packer = memo.packer
    return memo, store, clock


@BACKENDS
def test_what_a_function_returns_comes_back_from_bytes_as_it_was(backend):
    async def main():
        memo, _, clock = distant_cache()
        calls = Calls()

        @memo.cached(ttl=60, tags="user:{user_id}")
        async def load(user_id) -> list[User]:
            calls(user_id)
            return [User(user_id, datetime(2026, 1, 1, tzinfo=UTC))]

        first, again = await load(5), await load(5)
        assert first == again == [User(5, datetime(2026, 1, 1, tzinfo=UTC))]
        assert first is not again
        assert (len(calls), load.stats().hits, load.stats().misses) == (1, 1, 1)
        clock.pass_s(61)
        await load(5)
        assert await memo.purge(tags="user:5") == 1
        await load(5)
        assert len(calls) == 3

    run(main, backend)


def test_many_calls_ask_the_store_once():
    async def main():
        memo, store, _ = distant_cache()

        @memo.cached(ttl=60)
        async def load(user_id):
            return [user_id]

        await load(5)
        before, got = store.asked, []

        async def call():
            got.append(await load(5))

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(call)
        assert store.asked == before + 1
        assert got == [[5]] * 100
        assert len({id(value) for value in got}) == 100

    run(main)


def test_where_the_store_is_away_the_function_is_asked():
    async def main():
        memo, store, _ = distant_cache()
        calls = Calls()

        @memo.cached(ttl=60)
        async def load(user_id):
            return calls(user_id)

        store.is_away = True
        assert [await load(5), await load(5)] == [1, 2]
        assert memo._core.figures.store_errors == 4
        with pytest.raises(StoreUnavailableError):
            await memo.get("k")
        store.is_away = False
        assert [await load(5), await load(5)] == [3, 3]

    run(main)


def test_what_cannot_be_packed_is_returned_and_told_once(caplog):
    async def main():
        memo, _, _ = distant_cache()

        @memo.cached(ttl=60)
        async def load(user_id):
            return object()

        assert type(await load(5)) is type(await load(5)) is object
        assert load.stats().uncached == 2
        assert len(caplog.records) == 1
        assert "register() it" in caplog.text
        with pytest.raises(UnpackableValueError):
            await memo.set("k", object(), ttl=60)

    run(main)


def test_a_stale_value_of_the_store_stands_in_for_an_error():
    async def main():
        memo, _, clock = distant_cache()
        results = ["fine"]

        @memo.cached(ttl=10, stale_if_error=60)
        async def load(user_id):
            return results.pop()

        await load(5)
        clock.pass_s(11)
        assert await load(5) == "fine"
        assert load.stats().stale == 1
        clock.pass_s(60)
        with pytest.raises(IndexError):
            await load(5)

    run(main)


def test_what_is_purged_while_it_is_on_its_way_is_not_kept():
    async def main():
        memo, store, _ = distant_cache()
        calls = Calls()

        @memo.cached(ttl=60, tags="t")
        async def load(user_id):
            return calls(user_id)

        async def purge():
            if calls and not store.is_away:
                store.on_way = None
                await memo.purge(tags="t")

        store.on_way = purge
        assert await load(5) == 1
        assert store.rows == {}
        assert await load(5) == 2

    run(main)


def test_who_waits_gets_the_value_where_the_leader_leaves_while_it_is_stored():
    async def main():
        memo, store, _ = distant_cache()
        calls, gate, got = Calls(), Gate(), []

        @memo.cached(ttl=60)
        async def load(user_id):
            await settled()
            return calls(user_id)

        async def hold():
            if calls:
                await gate.wait()

        async def call():
            got.append(await load(5))

        store.on_way = hold
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as first:
                first.start_soon(call)
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(call)
                while not gate.came:
                    await anyio.lowlevel.checkpoint()
                first.cancel_scope.cancel()
            gate.open.set()
        assert (got, len(calls)) == ([1], 1)

    run(main)


def test_a_sync_function_beside_a_store_without_memory_is_called_each_time():
    memo, store, _ = distant_cache()
    calls = Calls()

    @memo.cached(ttl=60)
    def load(user_id):
        return calls(user_id)

    assert [load(5), load(5)] == [1, 2]
    assert store.asked == 0


KEEP = Terms(ttl_us=60_000_000, stale_us=5_000_000, tags=("a", "é"), took_us=7, early=1.0)


@pytest.mark.parametrize("value", [5, -(2**63), 2**63, True, "5", None, [1, (2,)]])
def test_a_value_comes_out_of_its_envelope_as_it_went_in(value):
    packer = Packer(Classes())
    content = sealed(packer, "k", value, KEEP, server_ms=1_000_000)
    kept = opened(packer, "k", content, now_us=500, server_ms=1_010_000)
    assert (kept.give(), type(kept.give())) == (value, type(value))
    assert (kept.tags, kept.took_us) == (("a", "é"), 7)
    assert kept.fresh_until_us == 500 + 50_000_000
    assert kept.ends_us == kept.fresh_until_us + 5_000_000
    assert opened(packer, "k", content, now_us=500, server_ms=1_065_000) is None


def test_a_value_without_end_has_none_in_another_process():
    packer = Packer(Classes())
    content = sealed(packer, "k", 1, Terms(ttl_us=None), server_ms=1)
    assert opened(packer, "k", content, now_us=0, server_ms=10**15).ends_us == NEVER_US


def test_tags_without_bound_are_refused():
    with pytest.raises(UnpackableValueError, match="its tags take"):
        sealed(
            Packer(Classes()), "k", 1, Terms(ttl_us=None, tags=("x" * 70_000,)), server_ms=1
        )  # fmt: skip


@given(st.binary(max_size=60), st.sampled_from([b"", b"I", b"P"]))
def test_any_bytes_of_a_store_are_a_value_or_none(stored, kind):
    packer = Packer(Classes())
    opened(packer, "k", bytes(STORES_OWN) + kind + stored, now_us=0, server_ms=0)
    whole = sealed(packer, "k", [1], KEEP, server_ms=0)
    opened(packer, "k", whole[:40] + stored, now_us=0, server_ms=0)
