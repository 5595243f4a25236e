"""One database: its engine, made from options, and what is found out about its server.

Whether a pooler stands between is told from the process id: PostgreSQL says in its start-up answer
which process serves the connection; pgbouncer, which cannot know, says a number of its own there
(protocol message BackendKeyData), so that `pg_backend_pid()` answers with another.
While nothing is known yet, connections are made in the way that works with both.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from perf_middleware.database.engine_options import (
    PoolOptions,
    SessionOptions,
    SqliteOptions,
    asyncpg_arguments,
    engine_arguments,
    set_config_statement,
    transaction_parameters,
)
from perf_middleware.database.holding.runtime.lending import PINGING
from perf_middleware.database.losses import reason_of
from perf_middleware.database.retry.transient import chain, sqlstate_of
from perf_middleware.database.runtime.sqlite import SqliteOpening
from perf_middleware.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from perf_middleware.database.urls import DatabaseUrl

logger = logging.getLogger("perf_middleware.database")

Answer = TypeVar("Answer")

FAREWELL_S_MIN: Final = 0.01  # no time at all is no limit, to asyncpg
# undefined_object, invalid_parameter_value, cant_change_runtime_param (PostgreSQL, Appendix A)
WRONG_PARAMETERS: Final = frozenset(("42704", "22023", "55P02"))
LOCKED_S: Final = 0.01  # until a statement that SQLite refuses is tried again


class NamedDatabase:
    """One database by its name; `engine` is there between `make` and `close`."""

    def __init__(
        self,
        name: str,
        url: DatabaseUrl,
        *,
        pool: PoolOptions,
        session: SessionOptions,
        sqlite: SqliteOptions,
        pgbouncer: Literal["auto", "on", "off"],
    ) -> None:
        self.name = name
        self.url = url
        self.engine: AsyncEngine | None = None
        self._pool = pool
        self._session = session
        self._sqlite = sqlite
        self._keeper: AsyncConnection | None = None
        self._opening = SqliteOpening()
        self._closes_until: float | None = None  # the loop's time, from `close` on
        chosen = {"auto": None, "on": True, "off": False}[pgbouncer]
        self.behind_pgbouncer: bool | None = chosen if url.dialect == "postgresql" else False

    def make(self) -> AsyncEngine:
        """A new engine; nothing connects yet.

        Raises DatabaseUnavailableError where the driver is not installed.
        """
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import AsyncAdaptedQueuePool

        arguments = engine_arguments(self.url, self._pool)
        if self.url.dialect == "sqlite":
            arguments["connect_args"] = {"async_creator_fn": self._opening.connect}
        try:
            engine = create_async_engine(self.url.url, poolclass=AsyncAdaptedQueuePool, **arguments)
        except ModuleNotFoundError as error:
            raise DatabaseUnavailableError(
                f"{self.name} ({self.url.shown})",
                f"{error.name} is not installed (the extra `postgres` of perf-middleware)",
            ) from error
        if self.url.dialect == "postgresql":
            self._stand_around(engine.sync_engine.dialect)
        else:
            event.listen(engine.sync_engine, "connect", self._set_pragmas)
        self.engine, self._closes_until = engine, None
        return engine

    async def find_out(self) -> None:
        """Connect once: it answers, and whether through a pooler is known then.

        Raises DatabaseUnavailableError, with one sentence and no secret.
        """
        if self.engine is None:
            raise RuntimeError("find_out() is for a database that is open")
        if self.url.in_memory and self._keeper is None:
            self._keeper = await self._answering(self._keep())
        was = self.behind_pgbouncer
        self.behind_pgbouncer = await self._answering(self._ask(self.engine))
        if was is None:
            # What was made while it was not known lacks the parameters, or has them twice.
            await self.engine.dispose()

    async def ping(self) -> None:
        """One statement on a connection of the pool.

        Raises DatabaseUnavailableError, and DatabaseBusyError where the pool has none to give.
        """
        if self.engine is None:
            raise RuntimeError("ping() is for a database that is open")
        await self._answering(_select_one(self.engine))

    async def close(self, *, within_s: float = 5.0) -> None:
        """Close what is idle; what is lent is closed when it comes back.

        Connections to a server that says nothing any more are dropped after `within_s`.
        """
        engine, self.engine = self.engine, None
        await self._opening.finish(within_s=within_s)
        keeper, self._keeper = self._keeper, None
        if engine is not None:
            self._closes_until = asyncio.get_running_loop().time() + within_s
            # To its pool, which nobody looks into any more: SQLAlchemy would leave it open there.
            pool: Any = engine.pool
            pool._do_return_conn = _close_returned  # noqa: SLF001
            await engine.dispose()
        if keeper is not None:
            try:
                async with asyncio.timeout(within_s):
                    await keeper.close()
            except TimeoutError:
                logger.warning("%s: the connection that keeps it did not close", self.name)
            await keeper.engine.dispose()

    async def _answering(self, asking: Awaitable[Answer]) -> Answer:
        from sqlalchemy.exc import SQLAlchemyError

        where = f"{self.name} ({self.url.shown})"
        most_s = self._pool.connect_s + self._pool.pool_wait_s
        limit = asyncio.timeout(most_s)
        token = PINGING.set(True)
        try:
            async with limit:
                return await asking
        except TimeoutError:  # ours, or the driver's while it connected
            reason = f"no answer in {most_s if limit.expired() else self._pool.connect_s:g} s"
            raise DatabaseUnavailableError(where, reason) from None
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable(where, error) from error
        except Exception as error:
            # asyncpg raises its own while it connects: a password that is wrong, too many clients.
            if type(error).__module__.partition(".")[0] != "asyncpg":
                raise
            raise _unavailable(where, error) from error
        finally:
            PINGING.reset(token)

    async def _ask(self, engine: AsyncEngine) -> bool:
        if self.url.dialect == "sqlite":
            await _select_one(engine)
            return False
        async with engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            said = driver.get_server_pid()
            answered = (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
        if self.behind_pgbouncer is not None:
            return self.behind_pgbouncer  # was set: what is asked here is only for an answer
        return bool(said != answered)

    async def _keep(self) -> AsyncConnection:
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        return await create_async_engine(self.url.url, poolclass=NullPool).connect()

    def _stand_around(self, dialect: Any) -> None:
        """Say how to connect, and what holds for a transaction.

        Not by the events `do_connect` and `begin`: as soon as an engine or its dialect has one,
        SQLAlchemy prepares all of them for each statement (9 us for listeners that do nothing).
        """
        connect, begin = dialect.connect, dialect.do_begin

        def connect_as_chosen(*given: Any, **arguments: Any) -> Any:
            return connect(*given, **self._chosen(arguments))

        def begin_with_parameters(connection: Any) -> None:
            begin(connection)
            self._begin(connection)

        dialect.connect, dialect.do_begin = connect_as_chosen, begin_with_parameters
        dialect.do_ping, dialect.do_close = self._is_alive, self._say_farewell

    def _is_alive(self, connection: Any) -> bool:
        """The pre-ping: one round trip of the simple protocol, which needs no transaction.

        As long as connecting may take, at most: a statement's own time is much longer.
        """
        from asyncpg import InterfaceError, InternalClientError, PostgresError
        from sqlalchemy.util import await_only

        driver = connection.driver_connection
        try:
            await_only(driver.execute("SELECT 1", timeout=self._pool.connect_s))
        # A timeout is an OSError, and InternalClientError comes between the server's last word and
        # its hanging up.
        except (OSError, PostgresError, InterfaceError, InternalClientError):
            driver.terminate()  # a server that says nothing would not answer a farewell either
            return False
        return True

    def _say_farewell(self, connection: Any) -> None:
        """Close a connection that is idle; all of an engine's in the time that `close` has."""
        from sqlalchemy.util import await_only

        driver, within_s = connection.driver_connection, self._pool.connect_s
        if self._closes_until is not None:
            left_s = self._closes_until - asyncio.get_running_loop().time()
            within_s = max(FAREWELL_S_MIN, left_s)
        try:
            await_only(driver.close(timeout=within_s))
        except Exception:  # noqa: BLE001 - nobody hears it, and nothing is left to be said
            driver.terminate()

    def _chosen(self, arguments: dict[str, Any]) -> dict[str, Any]:
        behind = self.behind_pgbouncer is not False
        return arguments | asyncpg_arguments(self._pool, self._session, behind_pgbouncer=behind)

    def _begin(self, connection: Any) -> None:
        if self.behind_pgbouncer is False:
            return
        given = transaction_parameters(self._session, behind_pgbouncer=True)
        if given:
            cursor = connection.cursor()
            try:
                cursor.execute(set_config_statement(given))
            finally:
                cursor.close()

    def _set_pragmas(self, connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        try:
            for statement in self._sqlite.pragmas(in_memory=self.url.in_memory):
                execute_when_free(cursor, statement, within_s=self._sqlite.busy_s)
        finally:
            cursor.close()


def _close_returned(record: Any) -> None:
    record.close()


class SessionsRefusedError(DatabaseUnavailableError):
    """The server answers, and does not take what the settings want of its sessions."""

    def __str__(self) -> str:
        return (
            f"{self.database} refuses our sessions: {self.reason} (see session_parameters, "
            "time_zone, work_mem of the settings)"
        )


def _unavailable(where: str, error: Exception) -> DatabaseUnavailableError:
    is_refusal = any(sqlstate_of(link) in WRONG_PARAMETERS for link in chain(error))
    kind = SessionsRefusedError if is_refusal else DatabaseUnavailableError
    return kind(where, reason_of(error))


def execute_when_free(cursor: Any, statement: str, *, within_s: float) -> None:
    """Execute one that SQLite refuses at once where another connection is about the same.

    Two that change a new file to WAL are such: no busy time counts for them, for each holds what
    the other one needs.
    """
    from sqlalchemy.util import await_only

    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    while True:
        try:
            cursor.execute(statement)
        except Exception as error:
            if "locked" not in str(error) or loop.time() >= until_s:
                raise
            await_only(asyncio.sleep(LOCKED_S))
        else:
            return


async def _select_one(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")


def make_databases(
    urls: dict[str, DatabaseUrl],
    *,
    pool: PoolOptions,
    session: SessionOptions,
    sqlite: SqliteOptions,
    pgbouncer: Literal["auto", "on", "off"],
    is_read_only: Callable[[str], bool],
) -> dict[str, NamedDatabase]:
    """The databases by name; those that are copies refuse to be written."""
    from dataclasses import replace

    return {
        name: NamedDatabase(
            name,
            url,
            pool=pool,
            session=replace(session, read_only=is_read_only(name)),
            sqlite=replace(sqlite, read_only=is_read_only(name)),
            pgbouncer=pgbouncer,
        )
        for name, url in urls.items()
    }
