"""Gives the idle connections of a response back: asked about, rolled back, into their pool again.

A session may be on several engines: then all of its connections are given back or dropped,
whatever becomes of one of them.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.runtime.sessions import run_to_the_end
from perf_middleware.database.streams.cases import Case

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.asgi import Scope
    from perf_middleware.database.streams.runtime import Work

logger = logging.getLogger("perf_middleware.database")

HAS_WRITTEN: Final = "SELECT txid_current_if_assigned() IS NOT NULL"  # PostgreSQL 10 and later


async def give_back(idle: Iterable[Work], scope: Scope) -> None:
    """Give their connections back; one that fails is dropped, and the response goes on.

    Raises CancelledError after it is done.
    """
    for work in idle:
        guard = work.guarded.guard
        try:
            await run_to_the_end(
                _give_back(work, scope),
                within_s=guard.finish_s,
                from_now=True,
                leaving=guard.leaving,
            )
        except Exception as error:  # noqa: BLE001 - the response has nothing to do with it
            work.guarded.counts.failures += 1
            logger.info("a connection was not given back in order: %r", error)


async def _give_back(work: Work, scope: Scope) -> None:
    from sqlalchemy.util import greenlet_spawn

    guarded = work.guarded
    if guarded.is_postgresql:
        # What functions of the server have written inside a SELECT, only the server knows.
        work.running += 1
        try:
            for held in work.connections():
                if await greenlet_spawn(_has_written, held[0]):
                    work.has_written = True
        except Exception:
            work.is_doubtful = True
            raise
        finally:
            work.running -= 1
        case = work.case()
        if case is not Case.RELEASE:
            if case is not Case.NOTHING:
                guarded.guard.keep(work, case, scope)
            return
    async with AsyncExitStack() as each:
        for connection in work.take():
            guarded.counts.releases += 1
            each.push_async_callback(greenlet_spawn, _close, connection)


def _close(connection: Any) -> None:
    try:
        connection.close()
    except BaseException:
        connection.invalidate()  # it could not be rolled back: nobody may have it again
        raise


def _has_written(connection: Any) -> bool:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(HAS_WRITTEN)
        return bool(cursor.fetchone()[0])
    except asyncio.CancelledError:
        connection.invalidate()  # in the middle of a statement: nobody can go on with it
        raise
    finally:
        cursor.close()
