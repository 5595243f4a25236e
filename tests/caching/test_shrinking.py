"""Both caches give memory back when they are asked to, and do not take it again meanwhile."""

import threading
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from perf_middleware.caching.runtime import PURGED_AT_ONCE, ResponseCache
from perf_middleware.caching.values.runtime import ValueCache
from tests.caching.entries import entry
from tests.caching.stage import BACKENDS, run

COUNT = 2_000


def filled(count=COUNT):
    cache = ResponseCache(clock=lambda: 0)
    for number in range(count):
        assert cache.keep(entry(b"/%d" % number, body=b"x" * 1_000, tags=("t",)), cache.clock())
    return cache


def value_of(cache, name):
    [family] = [family for family in cache.families() if family.name == name]
    [point] = family.points
    return point.value


@BACKENDS
@pytest.mark.parametrize("share", [0.1, 0.5, 1])
def test_the_response_cache_lets_go_of_a_share_of_what_it_holds(backend, share):
    async def main():
        cache = filled()
        before_bytes = cache.store.size_bytes
        freed_bytes = await cache.shrink(share)
        assert freed_bytes == before_bytes - cache.store.size_bytes
        assert share <= freed_bytes / before_bytes < share + 0.01
        assert len(cache.store.of_tag("t")) == cache.store.responses

    run(main, backend)


@BACKENDS
def test_the_loop_has_its_turns_while_many_responses_leave(backend):
    async def main():
        cache = filled()
        left = []

        async def look():
            while True:
                left.append(cache.store.responses)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await anyio.lowlevel.checkpoint()
            await cache.shrink(1)
            tasks.cancel_scope.cancel()
        # trio runs what is ready in any order: now and then one of us comes twice.
        gone = [more - fewer for more, fewer in pairwise(left)]
        assert max(gone) <= 4 * PURGED_AT_ONCE < COUNT

    run(main, backend)


def test_what_comes_in_while_it_shrinks_takes_the_place_of_others():
    async def main():
        cache = filled()
        before_bytes = cache.store.size_bytes

        async def store():
            for number in range(10_000):
                cache.keep(entry(b"/new/%d" % number, body=b"x" * 1_000), cache.clock())
                if not number % 100:
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store)
            await anyio.lowlevel.checkpoint()
            await cache.shrink(0.5)
        assert cache.store.size_bytes <= before_bytes
        assert cache.store.size_bytes <= cache.store.room_bytes

    run(main)


def test_operators_see_the_room_that_there_is_now():
    async def main():
        cache = filled()
        assert value_of(cache, "perf_cache_bytes_max") == 64 << 20
        await cache.shrink(0.5)
        assert value_of(cache, "perf_cache_bytes_max") == cache.store.size_bytes
        assert cache.status()["bytes_max"] == cache.store.size_bytes
        assert cache.status()["evictions"] == COUNT - cache.status()["entries"] >= COUNT // 2
        cache.grow_back()
        assert value_of(cache, "perf_cache_bytes_max") == 64 << 20

    run(main)


def test_the_value_cache_shrinks_in_a_thread_while_functions_of_other_threads_use_it():
    cache = ValueCache(clock=lambda: 0)

    @cache.cached(ttl=60, tags=("t",))
    def load(number):
        return "x" * 500

    for number in range(COUNT):
        load(number)
    before_bytes = cache.status()["bytes"]
    failures = []

    def use():
        try:
            for number in range(3 * COUNT):
                assert load(number % 100) == "x" * 500
        except Exception as error:  # noqa: BLE001 - asserted below
            failures.append(error)

    users = [threading.Thread(target=use) for _ in range(2)]
    for user in users:
        user.start()
    freed_bytes = cache.shrink(0.5)
    for user in users:
        user.join(20)
    assert not failures
    assert freed_bytes >= 0.49 * before_bytes
    status = cache.status()
    assert status["bytes"] <= status["bytes_max"] <= 0.51 * before_bytes
    cache.grow_back()
    assert cache.status()["bytes_max"] == 32 << 20


def test_a_value_cache_that_is_given_other_bounds_has_all_of_its_room():
    cache = ValueCache(clock=lambda: 0)
    cache.shrink(1)
    cache.adjust(entries_max=10)
    assert cache.status()["bytes_max"] == 32 << 20


@pytest.mark.parametrize("share", [0, -0.5, 1.1, float("nan")])
def test_only_a_share_can_be_let_go_of(share):
    with pytest.raises(ValueError, match="share must be"):
        ValueCache().shrink(share)
    with pytest.raises(ValueError, match="share must be"):
        run(lambda: ResponseCache().shrink(share))
