"""What `lend()` returns: an object for one block, given back however that ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from perf_middleware.memory_watch.pools.runtime.async_pool import AsyncObjectPool
    from perf_middleware.memory_watch.pools.runtime.sync_pool import ObjectPool

T = TypeVar("T")


class Loan(Generic[T]):
    """One object of a pool for threads, for one `with`."""

    __slots__ = ("_pool", "_thing", "_timeout_s")

    def __init__(self, pool: ObjectPool[T], timeout_s: float | None) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._thing: T | None = None

    def __enter__(self) -> T:
        thing = self._thing = self._pool.acquire(timeout_s=self._timeout_s)
        return thing

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        thing, self._thing = self._thing, None
        self._pool.release(thing, suspect=error is not None)  # type: ignore[arg-type]


class AsyncLoan(Generic[T]):
    """One object of a pool for async code, for one `async with`."""

    __slots__ = ("_pool", "_thing", "_timeout_s")

    def __init__(self, pool: AsyncObjectPool[T], timeout_s: float | None) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._thing: T | None = None

    async def __aenter__(self) -> T:
        thing = self._thing = await self._pool.acquire(timeout_s=self._timeout_s)
        return thing

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        thing, self._thing = self._thing, None
        if kind is GeneratorExit:
            self._pool.let_go(thing)  # type: ignore[arg-type]
            return
        await self._pool.release(thing, suspect=error is not None)  # type: ignore[arg-type]
