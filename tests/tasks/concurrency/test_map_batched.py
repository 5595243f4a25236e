"""A bulk function over any number of items: in order, lazily, failures as values."""

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.tasks.concurrency import Failed, gather_limited, map_batched
from perf_middleware.tasks.concurrency.portions import placed
from tests.tasks.any_loop import on_each_loop, run_on, until


async def times_ten(items):
    await anyio.lowlevel.checkpoint()
    return [item * 10 for item in items]


async def numbers(count, read=None):
    for number in range(count):
        if read is not None:
            read.append(number)
        yield number


@on_each_loop
async def test_all_results_in_the_items_order():
    calls = []

    async def slower_first(items):
        calls.append(items)
        for _ in range(10 - items[0]):
            await anyio.lowlevel.checkpoint()
        return [item * 10 for item in items]

    assert await map_batched(slower_first, range(7), size=3, limit=2) == [
        0, 10, 20, 30, 40, 50, 60,
    ]  # fmt: skip
    assert calls == [[0, 1, 2], [3, 4, 5], [6]]
    assert await map_batched(times_ten, numbers(4), size=3, limit=1) == [0, 10, 20, 30]
    assert await map_batched(times_ten, [], size=3, limit=1) == []


@on_each_loop
async def test_no_more_is_read_than_the_limit_of_portions():
    read = []
    async with map_batched(times_ten, numbers(100, read), size=5, limit=2) as results:
        await until(lambda: len(read) == 10)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(read) == 10
        got = [await anext(results) for _ in range(5)]
        assert len(read) == 10  # the first portion is handed out; its place is free with the next
        got.append(await anext(results))
        await until(lambda: len(read) == 15)
    assert got == [0, 10, 20, 30, 40, 50]


@on_each_loop
async def test_leaving_cancels_what_runs_and_closes_the_source():
    closed = []

    async def source():
        try:
            for number in range(100):
                yield number
        finally:
            closed.append("source")

    async def waits(items):
        try:
            await anyio.sleep_forever()
        finally:
            closed.append(items)

    async with map_batched(waits, source(), size=1, limit=2):
        await anyio.sleep(0.01)
    assert sorted(map(str, closed)) == ["[0]", "[1]", "source"]


@on_each_loop
async def test_a_failure_is_a_value_with_its_index():
    broken = ValueError("broken")

    async def half(items):
        if 4 in items:
            raise broken
        if 6 in items:
            return []
        return [broken if item == 1 else Failed(broken) if item == 2 else item for item in items]

    results = await map_batched(half, range(8), size=2, limit=3)
    assert results[:6] == [
        0, Failed(broken, 1), Failed(broken, 2), 3, Failed(broken, 4), Failed(broken, 5),
    ]  # fmt: skip
    assert [str(failed.error) for failed in results[6:]] == [
        "2 items had 0 results: one for each item is expected"
    ] * 2


@on_each_loop
async def test_what_the_items_raise_comes_after_what_they_gave():
    async def source():
        yield 1
        yield 2
        yield 3
        raise ValueError("no more")

    got = []

    async def read():
        async with map_batched(times_ten, source(), size=2, limit=2) as results:
            async for result in results:
                got.append(result)  # noqa: PERF401 - what came before the error

    with pytest.raises(ValueError, match="no more"):  # as it is, in no group
        await read()
    assert got == [10, 20, 30]


@on_each_loop
async def test_an_error_of_the_block_comes_out_as_it_is():
    async def read():
        async with map_batched(times_ten, range(9), size=2, limit=2) as results:
            assert await anext(results) == 0
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await read()


@on_each_loop
async def test_what_is_no_exception_comes_out_as_it_is():
    stopped = SystemExit(3)

    async def stops(items):
        if 3 in items:
            raise stopped
        return items

    with pytest.raises(SystemExit) as caught:
        await map_batched(stops, range(10), size=2, limit=2)
    assert caught.value is stopped

    async with map_batched(stops, range(10), size=2, limit=2) as results:
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(SystemExit):
            await anext(results)


@on_each_loop
async def test_who_is_cancelled_within_the_block_cancels_what_runs():
    begun, ended = [], []

    async def waits(items):
        begun.append(items)
        if len(begun) == 2:
            scope.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(items)

    with anyio.CancelScope() as scope:
        await map_batched(waits, range(9), size=1, limit=2)
    assert scope.cancelled_caught
    assert sorted(ended) == [[0], [1]]


@on_each_loop
async def test_it_is_gone_over_once_and_within_its_block():
    mapped = map_batched(times_ten, range(2), size=1, limit=1)
    with pytest.raises(RuntimeError, match="async with map_batched"):
        aiter(mapped)
    assert await mapped == [0, 10]
    with pytest.raises(RuntimeError, match="once"):
        await mapped


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"items": [], "size": 0, "limit": 1}, ValueError),
        ({"items": [], "size": 1, "limit": 0}, ValueError),
        ({"items": 5, "size": 1, "limit": 1}, TypeError),
    ],
)
def test_a_wrong_argument_is_refused_at_the_call(arguments, error):
    with pytest.raises(error):
        map_batched(times_ten, **arguments)


@pytest.mark.parametrize("results", [None, "ab", {1, 2}, iter("ab")])
def test_what_is_no_list_is_refused(results):
    with pytest.raises(TypeError, match="a list of results is expected"):
        placed(results, count=2, first_index=0)


@settings(max_examples=30)
@given(
    turns=st.lists(st.integers(0, 4), max_size=20),
    broken=st.sets(st.integers(0, 20)),
    size=st.integers(1, 4),
    limit=st.integers(1, 4),
    read=st.integers(0, 25),
)
def test_whatever_fails_and_however_long_each_takes_every_item_has_its_own(
    turns, broken, size, limit, read
):
    running = []

    async def bulk(items):
        running.append(items)
        assert len(running) <= limit
        try:
            for _ in range(turns[items[0]]):
                await anyio.lowlevel.checkpoint()
        finally:
            running.remove(items)
        if items[0] in broken:
            raise ValueError(items[0])
        return [item * 10 for item in items]

    def expected(index):
        first = index - index % size
        return ("failed", index, first) if first in broken else index * 10

    async def main():
        got = []
        async with map_batched(bulk, range(len(turns)), size=size, limit=limit) as results:
            async for result in results:
                if len(got) == read:
                    break
                got.append(
                    ("failed", result.index, result.error.args[0])
                    if isinstance(result, Failed)
                    else result
                )
        assert got == [expected(index) for index in range(min(read, len(turns)))]
        assert running == []

    run_on("asyncio", main)


@on_each_loop
async def test_what_a_source_awaits_to_clean_up_is_done():
    """A cursor that is closed over the network, for instance."""
    closed = []

    async def source(error=None):
        try:
            for number in range(100):
                yield number
        finally:
            await anyio.sleep(0.001)
            closed.append(error)
            if error is not None:
                raise error

    async with map_batched(times_ten, source(), size=1, limit=2) as results:
        assert await anext(results) == 0
    assert closed == [None]
    with pytest.raises(ValueError, match="the line broke"):
        async with map_batched(
            times_ten, source(ValueError("the line broke")), size=1, limit=2
        ) as results:
            assert await anext(results) == 0


@on_each_loop
async def test_a_sync_function_is_told_what_to_do():
    (failed,) = await map_batched(lambda items: items, [1], size=1, limit=1)
    assert "async function of a list" in str(failed.error)
    with pytest.raises(TypeError, match="use map_batched"):
        await gather_limited(numbers(1), limit=1)
