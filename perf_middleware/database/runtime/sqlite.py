"""Opening SQLite's files through aiosqlite, so that nothing of a connection is left behind.

aiosqlite opens a file in a thread.  Who is cancelled meanwhile never gets the connection, and
nobody closes it; and a thread whose file could not be opened ends a moment later, when its loop may
be gone (aiosqlite's issue 259).  So opening goes on to its end, and what nobody wants is closed.

SQLite closes a connection when the last of its statements is gone, and until then keeps its
transaction and its locks (sqlite3_close_v2).  Who was cancelled amid a statement leaves one behind,
in a traceback, until garbage is collected.  So what is open is rolled back before it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import Any, Final

THREAD_ENDS_S: Final = 0.2  # it has one step left to do


class RolledBackConnection(sqlite3.Connection):
    """One that holds no lock once it is closed, whoever still has a cursor of it."""

    def close(self) -> None:
        """Roll back what is open, and close."""
        with contextlib.suppress(sqlite3.Error):  # it is closed already, or its file is broken
            self.rollback()
        super().close()


class SqliteOpening:
    """`connect` for SQLAlchemy's `async_creator_fn`; `finish` waits for what was abandoned."""

    def __init__(self) -> None:
        self._closing: set[asyncio.Task[None]] = set()

    async def connect(self, *given: Any, **named: Any) -> Any:
        """An aiosqlite connection that is open."""
        import aiosqlite

        named.setdefault("factory", RolledBackConnection)
        connection: Any = aiosqlite.connect(*given, **named)
        thread = getattr(connection, "_thread", connection)  # before 0.22 it was one itself
        thread.daemon = True  # as SQLAlchemy has it: no process waits for it at its end
        _stop_once(connection)
        opening = asyncio.ensure_future(_opened(connection, thread))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if not opening.cancelled():
                closing = asyncio.ensure_future(_close(opening))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            raise

    async def finish(self, *, within_s: float) -> None:
        """Nothing is being closed any more, or `within_s` is over."""
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=within_s)


def _stop_once(connection: Any) -> None:
    """Let a second `stop` answer as the first.

    SQLAlchemy stops a connection whose closing was cancelled; the closing, which goes on, stops it
    too, and would wait for a thread that is gone, for ever.
    """
    stop = getattr(connection, "stop", None)
    if stop is None:  # before 0.22
        return
    answers: list[Any] = []

    def stop_once() -> Any:
        if not answers:
            answers.append(stop())
        return answers[0]

    connection.stop = stop_once


async def _opened(connection: Any, thread: Any) -> Any:
    try:
        return await connection
    except Exception:
        for _ in range(round(THREAD_ENDS_S * 1000)):
            if not thread.is_alive():
                break
            await asyncio.sleep(0.001)
        raise


async def _close(opening: asyncio.Task[Any]) -> None:
    try:
        connection = await opening
    except Exception:  # noqa: BLE001 - it was not opened, and nobody asks for it any more
        return
    await connection.close()
