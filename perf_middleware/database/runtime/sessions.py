"""One session: commit on success, rollback on any error, and the connection back in any case.

    begin (lazily) … the block …  success       commit                     connection back
                                  error         rollback, close            connection back
                                  cancellation  rollback, close, shielded  connection back

A cancelled task is cancelled again at its next await by anyio (every await, until the scope ends)
and may be by asyncio: a rollback that it awaits itself would be left in the middle.  So commit,
rollback and close run in a task of their own, which nobody cancels, and are waited for.
The commit too: one that is cut off may be done or not, and nobody could tell.
Known from SQLAlchemy's issues 6652, 8145 and 12077; its own `close()` does so since 2.1.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from types import TracebackType

    from sqlalchemy.ext.asyncio import AsyncSession

logger = logging.getLogger("perf_middleware.database")

F = TypeVar("F")

CUT_OFF_S: Final = 3.0  # asyncpg gives a connection 2 s to be closed, then drops it

# Tasks that were given up and are being cut off: asyncio itself keeps no strong reference to them.
Leaving = set[asyncio.Task[Any]]


def is_dependency(steps: Callable[..., AsyncGenerator[AsyncSession, None]]) -> Callable[[F], F]:
    """For FastAPI, which looks at `__wrapped__`: a dependency with yield, without parameters."""

    def mark(function: F) -> F:
        function.__wrapped__ = steps  # type: ignore[attr-defined]
        return function

    return mark


def asyncio_or_raise() -> None:
    """Raises RuntimeError on any other event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("a database needs asyncio: SQLAlchemy does not run on trio") from None


async def run_to_the_end(
    work: Coroutine[Any, Any, None], *, within_s: float, from_now: bool, leaving: Leaving
) -> None:
    """Run `work` to its end though the caller is cancelled, whose cancellation is raised after it.

    For `within_s` from now, or from the cancellation on; then it is cancelled itself, and it is
    waited for a moment more: SQLAlchemy drops the connection then, and does not give it back.
    Raises what `work` raises, TimeoutError when it was given up.
    """
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s if from_now else None
    cancelled: asyncio.CancelledError | None = None
    # Nothing else would end this wait but an anyio scope that is cancelled: at each await anew.
    shield: anyio.CancelScope | None = None
    try:
        while not task.done():
            left_s = None if until is None else until - loop.time()
            if left_s is not None and left_s <= 0:
                break
            try:
                await asyncio.wait({task}, timeout=left_s)
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                until = until if until is not None else loop.time() + within_s
                if shield is None:
                    shield = anyio.CancelScope(shield=True)
                    shield.__enter__()
        if not task.done():
            await _cut_off(task, leaving)
    finally:
        if shield is not None:
            shield.__exit__(None, None, None)
    if cancelled is not None:
        if task.done() and not task.cancelled() and task.exception() is not None:
            logger.info("after a cancellation: %r", task.exception())
        raise cancelled
    if not task.done() or task.cancelled():
        raise TimeoutError(f"given up after {within_s:g} s")
    task.result()


async def _cut_off(task: asyncio.Task[Any], leaving: Leaving) -> None:
    task.cancel()
    leaving.add(task)
    task.add_done_callback(leaving.discard)
    task.add_done_callback(_look_at)
    with anyio.CancelScope(shield=True):
        await asyncio.wait({task}, timeout=CUT_OFF_S)


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.info("a session that was given up ended with %r", task.exception())


async def session_steps(
    make: Callable[[], AsyncSession],
    *,
    finish_s: float,
    leaving: Leaving,
    instead_of: Callable[[BaseException], Exception | None],
) -> AsyncGenerator[AsyncSession, None]:
    """Yields one session; what comes at the `yield` decides between commit and rollback.

    `instead_of(error)` is raised from an error that ended it, None where the error stays.
    """
    session = make()
    try:
        yield session
        if session.in_transaction() or session.new or session.dirty or session.deleted:
            await run_to_the_end(
                session.commit(), within_s=finish_s, from_now=False, leaving=leaving
            )
    except BaseException as error:
        instead = instead_of(error)
        await _undo(session, finish_s, leaving, is_expected=instead is not None)
        if instead is not None:
            raise instead from error
        raise
    if session.in_transaction():  # begun by what listens to commits
        await _undo(session, finish_s, leaving)
    else:
        session.sync_session.close()  # holds no connection any more, and so waits for nothing
        _end(session)


async def _undo(
    session: AsyncSession, finish_s: float, leaving: Leaving, *, is_expected: bool = False
) -> None:
    try:
        await run_to_the_end(
            _roll_back_and_close(session), within_s=finish_s, from_now=True, leaving=leaving
        )
    except Exception as error:  # noqa: BLE001 - the error that led here is the one to be raised
        # While a database is away that is so for each request, and is told once, elsewhere.
        level = logging.DEBUG if is_expected else logging.INFO
        logger.log(level, "a rollback failed, and its connection was dropped: %r", error)
    finally:
        _end(session)


def _end(session: AsyncSession) -> None:
    """Let it refuse what comes after its block (InvalidRequestError).

    A background task or a stream that outlives the block would begin a transaction that nobody
    ends: what it writes would be lost in silence, and its connection with it.  Not by
    `close_resets_only=False`: within the block a session may be closed and used again.
    """
    from sqlalchemy.orm.session import _SessionCloseState

    session.sync_session._close_state = _SessionCloseState.CLOSED  # noqa: SLF001 no public name


async def _roll_back_and_close(session: AsyncSession) -> None:
    try:
        await session.rollback()  # its events tell those who listen that nothing was written
    finally:
        await session.close()


class SessionScope:
    """What `database.session()` gives: a block (`async with`), and a dependency's generator.

    FastAPI takes a dependency for one with `yield` where the function behind its `__wrapped__` is
    an async generator function, and then drives what it returns as one.
    """

    __slots__ = ("_block", "_steps")

    def __init__(self, steps: AsyncGenerator[AsyncSession, None]) -> None:
        self._steps = steps
        self._block = asynccontextmanager(lambda: steps)()

    async def __aenter__(self) -> AsyncSession:
        return await self._block.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, traceback)

    def __aiter__(self) -> SessionScope:
        return self

    async def __anext__(self) -> AsyncSession:
        return await anext(self._steps)

    async def athrow(
        self,
        kind: BaseException | type[BaseException],
        error: BaseException | None = None,
        _traceback: TracebackType | None = None,
    ) -> AsyncSession:
        # Until Python 3.11 contextlib gives three arguments, from 3.12 on the error alone.
        raised = kind if error is None else error
        return await self._steps.athrow(raised() if isinstance(raised, type) else raised)

    async def aclose(self) -> None:
        await self._steps.aclose()
