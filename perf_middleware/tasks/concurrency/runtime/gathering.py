"""`gather_limited`: as asyncio.gather, a bounded number at once, on asyncio and trio."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Collection
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

import anyio

from perf_middleware.tasks.failures import Failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

T = TypeVar("T")

Asked: TypeAlias = "Awaitable[T] | Callable[[], Awaitable[T]]"


@overload
async def gather_limited(
    asked: Iterable[Asked[T]], *, limit: int, cancel_rest: bool = True
) -> list[T]: ...
@overload
async def gather_limited(
    asked: Iterable[Asked[T]], *, limit: int, return_failures: Literal[True]
) -> list[T | Failed]: ...
async def gather_limited(
    asked: Iterable[Any], *, limit: int, cancel_rest: bool = True, return_failures: bool = False
) -> Any:
    """The results of `asked` in its order, at most `limit` in progress.

    `asked` are awaitables, or functions without arguments that give one; it is read as places
    become free, so a generator makes each only when its turn comes.  Each runs in a task with a
    copy of the caller's contextvars.  The first error cancels the rest, waits for their end and is
    raised as it is; with `cancel_rest` false the rest is done first.  With `return_failures` each
    Exception is a Failed in its place.  Cancelled, it cancels all and waits for their end.

    Raises ValueError for a limit below 1, TypeError for what is neither.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    if isinstance(asked, AsyncIterable):
        raise TypeError("gather_limited keeps all results: for an async iterable use map_batched")
    left = iter(asked)
    gathering = _Gathering(left, limit=limit, cancel_rest=cancel_rest and not return_failures)
    try:
        await gathering.run()
    finally:
        if isinstance(asked, Collection):  # else it makes them one by one, perhaps without an end
            for one in left:
                _close(one)
    results, error = gathering.results, gathering.first_error
    if gathering.exit is not None:
        error = gathering.exit
    elif return_failures or error is None:
        return results
    try:
        raise error
    finally:
        results.clear()
        gathering.first_error = gathering.exit = None
        del error, gathering  # no cycle of the error, its traceback and these frames


class _Gathering:
    """One call of gather_limited."""

    def __init__(self, asked: Iterator[Any], *, limit: int, cancel_rest: bool) -> None:
        self._asked = asked
        self._places = anyio.Semaphore(limit, fast_acquire=True)
        self._cancel_rest = cancel_rest
        self.results: list[Any] = []
        self.first_error: BaseException | None = None
        self.exit: BaseException | None = None
        """What is no Exception, SystemExit say: it ends the rest, and is nobody's value."""

    async def run(self) -> None:
        """Until all have ended; errors of `asked` itself are raised."""
        # An error of the iterable must come out as it is, not in a group.
        broken: Exception | None = None
        async with anyio.create_task_group() as tasks:
            scope = tasks.cancel_scope
            while True:
                await self._places.acquire()
                if scope.cancel_called:
                    break
                try:
                    one = next(self._asked)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - raised below
                    broken = error
                    scope.cancel()
                    break
                self.results.append(None)
                tasks.start_soon(self._run_one, len(self.results) - 1, one, scope)
        if broken is not None:
            raise broken

    async def _run_one(self, index: int, one: Any, scope: anyio.CancelScope) -> None:
        if scope.cancel_called:  # in the turn in which it was to begin
            _close(one)
            return
        try:
            if not inspect.isawaitable(one):
                one = _begun(one)
            self.results[index] = await one
        except Exception as error:  # noqa: BLE001 - a value
            self._fail(index, error, scope)
        except GeneratorExit:  # the loop is gone
            raise
        except anyio.get_cancelled_exc_class() as error:
            if not scope.cancel_called:  # from elsewhere; or the caller is, who learns of no error
                self._fail(index, error, scope)
            raise
        except BaseException as error:  # noqa: BLE001 - raised by gather_limited, in no group
            self.exit = self.exit or error
            scope.cancel()
        finally:
            self._places.release()

    def _fail(self, index: int, error: BaseException, scope: anyio.CancelScope) -> None:
        self.results[index] = Failed(error, index)
        if self.first_error is None:
            self.first_error = error
        if self._cancel_rest:
            scope.cancel()


def _close(one: Any) -> None:
    """What has not begun: Python would complain that nobody awaited it."""
    if inspect.iscoroutine(one):
        one.close()


def _begun(one: Any) -> Awaitable[Any]:
    made = one() if callable(one) else None
    if not inspect.isawaitable(made):
        raise TypeError(
            f"gather_limited takes awaitables, and functions that give one, not {one!r}"
        )
    return made
