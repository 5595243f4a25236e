"""`map_batched`: a bulk function over any number of items, a bounded number of them in memory.

    items --reader--> portions of `size` --`limit` at once--> results, in the order of the items

A place is taken when a portion is read and given back when the last of its results was handed out:
whoever reads slowly makes the reader wait, so no more than `limit` portions are anywhere.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from perf_middleware.tasks.concurrency.portions import all_failed, placed

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Generator,
        Iterator,
        Sequence,
    )

    from perf_middleware.tasks.failures import Failed

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


class _Portion:
    """A portion whose results are there once `ended` is set."""

    __slots__ = ("ended", "exit", "results")

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.results: list[Any] = []
        self.exit: BaseException | None = None  # what is no Exception is nobody's value


class MapBatched(Generic[I, R]):
    """What `map_batched` gives: to iterate within `async with`, or to be awaited as a list."""

    def __init__(
        self,
        function: Callable[[list[I]], Awaitable[Sequence[R | Exception | Failed]]],
        items: Iterable[I] | AsyncIterable[I],
        *,
        size: int,
        limit: int,
    ) -> None:
        self._function = function
        self._items = items
        self._size = size
        self._places = anyio.Semaphore(limit)
        self._reading = anyio.CancelScope()
        self._portions: deque[_Portion] = deque()
        self._news = anyio.Event()
        self._has_read_all = False
        self._broken: Exception | None = None
        self._unclosed: Exception | None = None
        self._ready: Iterator[Any] = iter(())
        self._holds_place = False
        self._stack: AsyncExitStack | None = None
        self._is_used = False

    async def __aenter__(self) -> AsyncIterator[R | Failed]:
        if self._is_used:
            raise RuntimeError("map_batched goes over its items once: call it again")
        self._is_used = True
        self._stack = AsyncExitStack()
        reader = await self._stack.enter_async_context(anyio.create_task_group())
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        reader.start_soon(self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel what is in progress and wait for its end."""
        stack, self._stack = self._stack, None
        assert stack is not None  # noqa: S101 - entered
        self._reading.cancel()
        self._tasks.cancel_scope.cancel()
        # Not told of an error of the block: that would come out of it in a group.
        await stack.__aexit__(None, None, None)
        if self._unclosed is not None:
            raise self._unclosed

    def __await__(self) -> Generator[Any, Any, list[R | Failed]]:
        return self._all().__await__()

    async def _all(self) -> list[R | Failed]:
        async with self as results:
            return [result async for result in results]

    def __aiter__(self) -> AsyncIterator[R | Failed]:
        if self._stack is None:
            raise RuntimeError(
                "iterate within `async with map_batched(...) as results`: leaving it ends what runs"
            )
        return self

    async def __anext__(self) -> R | Failed:
        while True:
            for result in self._ready:
                return result  # type: ignore[no-any-return]
            if self._holds_place:
                self._holds_place = False
                self._places.release()
            while not self._portions:
                if self._has_read_all:
                    if self._broken is not None:
                        raise self._broken
                    raise StopAsyncIteration
                await self._news.wait()
            portion = self._portions[0]
            await portion.ended.wait()
            if portion.exit is not None:
                raise portion.exit
            self._portions.popleft()
            self._holds_place = True
            self._ready = iter(portion.results)

    async def _read(self) -> None:
        """Read the items as places become free; what they raise comes after the results so far."""
        index = 0
        source = _portions_of(self._items, self._size)
        try:
            with self._reading:
                while True:
                    await self._places.acquire()
                    items = await anext(source, None)
                    if items is None or self._reading.cancel_called:  # who iterates has gone
                        break
                    portion = _Portion()
                    self._portions.append(portion)
                    self._tasks.start_soon(self._run, portion, items, index)
                    index += len(items)
                    self._tell()
        except Exception as error:  # noqa: BLE001 - raised to who iterates
            self._broken = error
        finally:
            # Out of `_reading`: what the generator awaits to clean up is not cancelled with it.
            try:
                await source.aclose()
                if inspect.isasyncgen(self._items):
                    await self._items.aclose()  # read to its end, or by nobody any more
            except Exception as error:  # noqa: BLE001 - raised to who leaves
                self._unclosed = error
        self._has_read_all = True
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def _run(self, portion: _Portion, items: list[I], first_index: int) -> None:
        count = len(items)
        try:
            asked = self._function(items)
            if not inspect.isawaitable(asked):
                raise TypeError(  # noqa: TRY301 - a value, as what it raises
                    f"map_batched takes an async function of a list, and it gave {asked!r:.100}: "
                    "for sync code, let an async function call it by to_thread"
                )
            results = await asked
            portion.results = placed(results, count=count, first_index=first_index)
        except Exception as error:  # noqa: BLE001 - a value
            portion.results = all_failed(error, count=count, first_index=first_index)
        except GeneratorExit:  # the loop is gone
            raise
        except anyio.get_cancelled_exc_class() as error:
            # Cancelled from elsewhere: who iterates is told.  Where it is us, nobody iterates.
            portion.results = all_failed(error, count=count, first_index=first_index)
            raise
        except BaseException as error:  # noqa: BLE001 - raised to who iterates, in no group
            portion.exit = error
        finally:
            portion.ended.set()


async def _portions_of(
    items: Iterable[I] | AsyncIterable[I], size: int
) -> AsyncGenerator[list[I], None]:
    """Lists of `size`, the last one shorter; what the items raise comes after what they gave."""
    next_item = _next_of(items)
    while True:
        portion: list[I] = []
        broken: Exception | None = None
        has_ended = False
        while len(portion) < size and not has_ended:
            try:
                portion.append(await next_item())
            except StopAsyncIteration:
                has_ended = True
            except Exception as error:  # noqa: BLE001 - raised below
                broken, has_ended = error, True
        if portion:
            yield portion
        if broken is not None:
            raise broken
        if has_ended:
            return


def _next_of(items: Iterable[I] | AsyncIterable[I]) -> Callable[[], Awaitable[I]]:
    if isinstance(items, AsyncIterable):
        return aiter(items).__anext__
    left = iter(items)

    async def step() -> I:
        for item in left:
            return item
        raise StopAsyncIteration

    return step


def map_batched(
    function: Callable[[list[I]], Awaitable[Sequence[R | Exception | Failed]]],
    items: Iterable[I] | AsyncIterable[I],
    *,
    size: int,
    limit: int,
) -> MapBatched[I, R]:
    """`function` over portions of `size` items, `limit` at once: the results in the items' order.

    `function` gives a list, one result for each item.  An item that failed is a Failed with its
    index: alone where the list has an Exception or Failed in its place, with its whole portion
    where the call raises or gives something else.  Await it for a list of all, or go over the
    results as they come, with no more than `limit` portions in memory:

        async with map_batched(fetch, ids, size=100, limit=4) as results:
            async for result in results: ...

    What `items` raises is raised after the results of what it gave before.

    Raises ValueError for a size or limit below 1, TypeError for items that are none.
    """
    if size < 1 or limit < 1:
        raise ValueError("size and limit must be at least 1")
    if not isinstance(items, Iterable | AsyncIterable):
        raise TypeError(f"map_batched goes over an iterable, not {items!r:.100}")
    return MapBatched(function, items, size=size, limit=limit)
