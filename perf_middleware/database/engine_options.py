"""What settings mean for create_async_engine(), for the driver and for each connection.

             straight to PostgreSQL                       through pgbouncer
    limits   server_settings of the start-up packet       set_config(…, true) in each transaction
    prepared kept by connection, named                    unnamed, none kept
    pool     ours                                         ours: pgbouncer's is the server's

pgbouncer in transaction mode gives each transaction another server connection: what one has
prepared or set is not there for the next, and it refuses start-up parameters that it does not know.
Sources: SQLAlchemy, "Connection Pooling", "asyncpg: Prepared Statement Name with PGBouncer";
asyncpg.connect() and its FAQ on prepared statements; pgbouncer.ini `ignore_startup_parameters`;
PostgreSQL "Client Connection Defaults"; SQLite "PRAGMA" and "Write-Ahead Logging".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.database.urls import DatabaseUrl

# pgbouncer keeps these by client and sets them again on each server connection.
PGBOUNCER_KNOWS: Final = frozenset({"application_name", "TimeZone"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How many connections, and how long one is waited for, made and used."""

    size: int = 10
    overflow_max: int = 5
    pool_wait_s: float = 5.0
    connect_s: float = 5.0
    recycle_s: float | None = 1800.0
    pre_ping: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What holds for each session on PostgreSQL; None and empty: what the server has."""

    application_name: str | None = None
    time_zone: str | None = None
    work_mem: str | None = None
    statement_s: float | None = None
    lock_s: float | None = None
    idle_in_transaction_s: float | None = None
    read_only: bool = False
    further: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, str]:
        """PostgreSQL's names and values; times in milliseconds, its unit where none is given."""
        times = {
            "statement_timeout": self.statement_s,
            "lock_timeout": self.lock_s,
            "idle_in_transaction_session_timeout": self.idle_in_transaction_s,
        }
        texts = {
            "application_name": self.application_name,
            "TimeZone": self.time_zone,
            "work_mem": self.work_mem,
            "default_transaction_read_only": "on" if self.read_only else None,
        }
        given = {name: text for name, text in texts.items() if text is not None}
        # 0 would be no limit: what is shorter than a millisecond is one.
        given |= {n: str(max(1, round(s * 1000))) for n, s in times.items() if s is not None}
        return {**given, **self.further}


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """What holds for each connection to SQLite."""

    busy_s: float = 5.0
    wal: bool = True
    foreign_keys: bool = True
    read_only: bool = False

    def pragmas(self, *, in_memory: bool) -> tuple[str, ...]:
        """The statements for a new connection, in their order.

        The busy time first: changing to WAL needs a lock.  A database in memory has no WAL.
        """
        statements = [f"PRAGMA busy_timeout = {round(self.busy_s * 1000)}"]
        if self.wal and not in_memory:
            # NORMAL cannot corrupt a database in WAL; a loss of power may lose the last commits
            # (SQLite, "Write-Ahead Logging", performance considerations).
            statements += ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"]
        if self.foreign_keys:
            statements.append("PRAGMA foreign_keys = ON")
        if self.read_only:
            statements.append("PRAGMA query_only = ON")
        return tuple(statements)


def engine_arguments(url: DatabaseUrl, pool: PoolOptions) -> dict[str, Any]:
    """Keyword arguments of create_async_engine(), without `poolclass` and `connect_args`.

    A database in memory has one connection: with two of them SQLite's shared cache answers
    SQLITE_LOCKED, for which no busy time counts (SQLite "Shared-Cache Mode").
    """
    return {
        "pool_size": 1 if url.in_memory else pool.size,
        "max_overflow": 0 if url.in_memory else pool.overflow_max,
        "pool_timeout": pool.pool_wait_s,
        # -1 is SQLAlchemy's "never".  A file has nothing that would go stale.
        "pool_recycle": -1 if pool.recycle_s is None or url.dialect == "sqlite" else pool.recycle_s,
        "pool_pre_ping": pool.pre_ping and url.dialect == "postgresql",
        "pool_use_lifo": True,  # what is not needed stays unused, and a server may end it
        "hide_parameters": True,  # values of people's data belong into no log
    }


def asyncpg_arguments(
    pool: PoolOptions, session: SessionOptions, *, behind_pgbouncer: bool
) -> dict[str, Any]:
    """Arguments of asyncpg.connect(), and those of SQLAlchemy's dialect beside them."""
    parameters = session.parameters()
    arguments: dict[str, Any] = {"timeout": pool.connect_s}
    if session.statement_s is not None:
        # The server ends a statement itself; where nothing is heard of the server any more (a
        # network that swallows all), the driver's patience ends a little later.
        arguments["command_timeout"] = session.statement_s + pool.connect_s
    if behind_pgbouncer:
        parameters = {n: v for n, v in parameters.items() if n in PGBOUNCER_KNOWS}
        arguments |= {
            "statement_cache_size": 0,  # of asyncpg: from here on its statements are unnamed
            "prepared_statement_cache_size": 0,  # of SQLAlchemy's dialect
            "prepared_statement_name_func": _no_name,
        }
    return {**arguments, "server_settings": parameters}


def transaction_parameters(session: SessionOptions, *, behind_pgbouncer: bool) -> dict[str, str]:
    """What must be said at the beginning of each transaction; empty straight to the server."""
    if not behind_pgbouncer:
        return {}
    given = session.parameters()
    return {name: value for name, value in given.items() if name not in PGBOUNCER_KNOWS}


def set_config_statement(parameters: Mapping[str, str]) -> str:
    """One statement that sets `parameters` until the end of the transaction."""
    calls = (
        f"set_config({_quoted(name)}, {_quoted(value)}, true)" for name, value in parameters.items()
    )
    return f"SELECT {', '.join(calls)}"


def _quoted(text: str) -> str:
    # With standard_conforming_strings (on since 9.1) a quote is all there is to escape.
    return "'" + text.replace("'", "''") + "'"


def _no_name() -> str:
    # The unnamed statement: the next one takes its place, so that none builds up on a server.
    return ""
