"""Many at once, and no more than the limit; the first error ends the rest."""

import asyncio
import gc
import weakref
from contextvars import ContextVar

import anyio
import pytest

from perf_middleware.tasks.concurrency import Failed, gather_limited
from tests.tasks.any_loop import on_each_loop


class Work:
    """Counts what runs at once, and what was cancelled."""

    def __init__(self):
        self.now = self.most = self.begun = 0
        self.cancelled = []

    async def one(self, number, turns=2):
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
        except BaseException:
            self.cancelled.append(number)
            raise
        finally:
            self.now -= 1
        return number * 10


@on_each_loop
async def test_the_results_are_in_order_and_no_more_run_than_the_limit():
    work = Work()
    asked = (work.one(number, turns=5 - number) for number in range(5))
    assert await gather_limited(asked, limit=2) == [0, 10, 20, 30, 40]
    assert (work.most, work.begun) == (2, 5)
    assert await gather_limited([], limit=1) == []


@on_each_loop
async def test_functions_are_called_when_their_turn_comes():
    work = Work()
    calls = []

    def later(number):
        def begin():
            calls.append((number, work.now))
            return work.one(number)

        return begin

    assert await gather_limited([later(1), later(2), work.one(3)], limit=1) == [10, 20, 30]
    assert calls == [(1, 0), (2, 0)]


class BrokenError(Exception):
    """Fails."""


async def fails():
    await anyio.lowlevel.checkpoint()
    raise BrokenError


@on_each_loop
async def test_the_first_error_cancels_the_rest_and_waits_for_their_end():
    work = Work()
    ended = []

    async def ends_slowly():
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
                ended.append("slowly")

    never_begun = work.one(9)
    asked = [ends_slowly(), fails(), never_begun]
    with pytest.raises(BrokenError) as caught:
        await gather_limited(asked, limit=2)
    assert ended == ["slowly"]
    assert never_begun.cr_frame is None  # closed: nobody complains that it was not awaited
    assert caught.value.__context__ is None


@on_each_loop
async def test_what_has_not_begun_when_the_first_fails_never_begins():
    work = Work()

    async def fails_at_once():
        raise BrokenError

    with pytest.raises(BrokenError):
        await gather_limited([fails_at_once(), work.one(1), work.one(2)], limit=2)
    assert work.begun == 0


@on_each_loop
async def test_the_rest_may_be_done_before_the_error_is_raised():
    work = Work()
    with pytest.raises(BrokenError):
        await gather_limited([fails(), work.one(1), work.one(2)], limit=1, cancel_rest=False)
    assert (work.begun, work.cancelled) == (2, [])


@on_each_loop
async def test_failures_are_values_where_that_is_asked_for():
    work = Work()
    first, failed, last = await gather_limited(
        [work.one(1), fails(), work.one(3)], limit=3, return_failures=True
    )
    assert (first, last) == (10, 30)
    assert isinstance(failed, Failed)
    assert (type(failed.error), failed.index) == (BrokenError, 1)


@on_each_loop
async def test_what_is_no_exception_ends_the_rest_and_comes_out_as_it_is():
    stopped = SystemExit(3)

    async def stops():
        raise stopped

    for options in ({}, {"cancel_rest": False}, {"return_failures": True}):
        work = Work()
        with pytest.raises(SystemExit) as caught:
            await gather_limited([work.one(1, turns=1_000), stops()], limit=2, **options)
        assert caught.value is stopped
        assert work.cancelled == [1]


@on_each_loop
async def test_who_is_cancelled_cancels_all_of_it():
    work = Work()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_after_turns, scope)
            await gather_limited([work.one(number, turns=1_000) for number in (1, 2, 3)], limit=2)
    assert scope.cancelled_caught
    assert sorted(work.cancelled) == [1, 2]
    assert work.now == 0


async def cancel_after_turns(scope):
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


@on_each_loop
async def test_what_the_iterable_raises_comes_out_as_it_is():
    work = Work()

    def asked():
        yield work.one(1, turns=1_000)
        raise BrokenError

    with pytest.raises(BrokenError):
        await gather_limited(asked(), limit=2)
    assert work.now == 0


VALUE = ContextVar("value", default=0)


@on_each_loop
async def test_each_has_a_copy_of_the_callers_contextvars():
    VALUE.set(1)

    async def adds():
        VALUE.set(VALUE.get() + 1)
        return VALUE.get()

    assert await gather_limited([adds() for _ in range(3)], limit=1) == [2, 2, 2]
    assert VALUE.get() == 1


def test_a_task_that_something_else_cancels_is_told_as_that():
    async def main():
        task = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        (told,) = await gather_limited([task], limit=1, return_failures=True)
        assert isinstance(told.error, asyncio.CancelledError)

    asyncio.run(main())


@on_each_loop
async def test_what_gives_no_awaitable_is_refused():
    for wrong in (5, lambda: 5):
        with pytest.raises(TypeError, match="takes awaitables"):
            await gather_limited([wrong], limit=1)
    with pytest.raises(ValueError, match="limit"):
        await gather_limited([], limit=0)


@on_each_loop
async def test_what_never_ends_is_not_gone_through_when_one_has_failed():
    async def fails():
        raise ValueError("the first")

    class Endless:
        read = 0

        def __iter__(self):
            while True:
                Endless.read += 1
                assert Endless.read < 100
                yield fails

    with pytest.raises(ValueError, match="the first"):
        await gather_limited(Endless(), limit=2)


@on_each_loop
async def test_an_error_that_was_handled_leaves_no_garbage():
    class OurError(Exception):
        pass

    async def fails():
        raise OurError

    gc.collect()
    gc.disable()
    try:
        try:
            await gather_limited([fails(), fails()], limit=2)
        except OurError as error:
            seen = weakref.ref(error)
        await anyio.lowlevel.checkpoint()
        assert seen() is None
    finally:
        gc.enable()
