"""The one connection that listens, and what is asked on it.

Not one of the pool: it is never lent, has no time limit of statements, and lives as long as it
answers.  Each question has a time of its own, after which the connection counts as lost: a server
that is stopped and a network that swallows everything say nothing.
Sources: PostgreSQL "LISTEN", "Advisory Lock Functions", "pg_locks", "pg_stat_activity".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.outside.names import lock_halves
from perf_middleware.database.outside.notices import Inheritance, probe_of
from perf_middleware.database.outside.triggers import TABLES, VERSION_MIN
from perf_middleware.database.tables.touched import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.database.outside.triggers import Triggers
    from perf_middleware.database.urls import DatabaseUrl

logger = logging.getLogger("perf_middleware.database")

CLOSE_S: Final = 1.0

_FACTS: Final = """
    select pg_backend_pid() as pid, pg_is_in_recovery() as is_copy,
           current_setting('server_version_num')::int / 10000 as version
"""
# Who holds the lock, and for how long it has said nothing, by the server's clock.  Of another
# role's connection the state is not shown, and with track_activities off there is none.
_HOLDER: Final = """
    select a.pid, extract(epoch from clock_timestamp() - a.state_change)::float8 as silent_s
    from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
      and l.database = (select oid from pg_database where datname = current_database())
      and l.classid = $1 and l.objid = $2 and a.state in ('idle', 'active')
"""
_PARTS: Final = """
    select wn.nspname, w.relname, pn.nspname, p.relname from pg_inherits i
    join pg_class w on w.oid = i.inhparent join pg_namespace wn on wn.oid = w.relnamespace
    join pg_class p on p.oid = i.inhrelid join pg_namespace pn on pn.oid = p.relnamespace
    where w.relkind in ('r', 'p') and p.relkind in ('r', 'p', 'f')
"""


class ConnectionLostError(Exception):
    """The connection is gone, or has not answered in time."""


class CannotListenError(Exception):
    """Here nobody can listen; the text says why, and what would help."""


class ListenConnection:
    """One connection to PostgreSQL itself; made by `connected`, ended by `close`."""

    def __init__(self, raw: Any, *, answer_s: float) -> None:
        self._raw = raw
        self._answer_s = answer_s
        self._lost = asyncio.Event()
        raw.add_termination_listener(lambda _connection: self._lost.set())

    @classmethod
    async def connected(
        cls, url: DatabaseUrl, *, application_name: str, connect_s: float, answer_s: float
    ) -> ListenConnection:
        """Connect.  Raises what asyncpg raises, OSError and TimeoutError."""
        import asyncpg
        from sqlalchemy.engine import make_url

        parsed = make_url(url.url)
        _, arguments = parsed.get_dialect()().create_connect_args(parsed)
        async with asyncio.timeout(connect_s):
            raw = await asyncpg.connect(
                **arguments,
                timeout=connect_s,
                statement_cache_size=0,
                server_settings={"application_name": application_name},
            )
        return cls(raw, answer_s=answer_s)

    async def examine(self) -> None:
        """Raises CannotListenError where this is a pooler, a copy, or an old server."""
        async with self._in_time(), self._raw.transaction():  # a pooler changes servers after it
            facts = await self._raw.fetchrow(_FACTS)
        if facts["pid"] != self._raw.get_server_pid():
            raise CannotListenError(
                "it is a pooler such as pgbouncer, through which nobody can listen: "
                "set outside.url to PostgreSQL itself"
            )
        if facts["version"] < VERSION_MIN:
            raise CannotListenError(
                f"it is PostgreSQL {facts['version']}, and {VERSION_MIN} or newer is needed"
            )
        if facts["is_copy"]:
            raise CannotListenError(
                "it is a read-only copy, where PostgreSQL lets nobody listen: "
                "set outside.url to the one that takes writes"
            )

    async def listen(self, channel: str, tell: Callable[[str], object], token: str) -> None:
        """From the return on `tell(payload)` is called for each notification.

        That it hears is tried with one of its own.  Raises CannotListenError where it does not.
        """
        heard = asyncio.Event()
        probe = probe_of(token)

        def hear(_connection: object, _pid: int, _channel: str, payload: str) -> None:
            if payload == probe:
                heard.set()
            else:
                tell(payload)

        async with self._in_time():
            await self._raw.add_listener(channel, hear)
            await self._raw.execute(f"select pg_notify('{channel}', '{probe}')")
        try:
            async with asyncio.timeout(self._answer_s):
                await heard.wait()
        except TimeoutError:
            raise CannotListenError(
                "LISTEN has no effect there, perhaps because of a pooler: "
                "set outside.url to PostgreSQL itself"
            ) from None

    async def take(self, lock: int) -> bool:
        """Hold the advisory lock, if nobody does."""
        return bool(await self._asked("select pg_try_advisory_lock($1)", lock))

    async def end_a_silent_holder(self, lock: int, silent_s: float) -> bool:
        """End the connection that holds `lock` where it has said nothing for so long."""
        async with self._in_time():
            holder = await self._raw.fetchrow(_HOLDER, *lock_halves(lock))
        if holder is None or holder["silent_s"] is None or holder["silent_s"] < silent_s:
            return False
        logger.warning(
            "the process that listens for writes from outside has been silent for %.0f s; its "
            "connection is ended, so that another listens", holder["silent_s"],
        )  # fmt: skip
        return bool(await self._asked("select pg_terminate_backend($1)", holder["pid"]))

    async def heartbeat(self) -> None:
        """It answers.  Raises CannotListenError of a copy, ConnectionLostError without answer."""
        if await self._asked("select pg_is_in_recovery()"):
            raise CannotListenError("it has become a read-only copy")

    async def look(self, triggers: Triggers) -> tuple[list[Any], Inheritance]:
        """The tables that should be heard (rows of TABLES), and which are parts of which."""
        async with self._in_time(times=3):
            rows = await self._raw.fetch(
                TABLES, triggers.tables, list(triggers.tables_except), triggers.name
            )
            parts = await self._raw.fetch(_PARTS)
        return rows, Inheritance(
            (Table(name, schema), Table(part, part_schema))
            for schema, name, part_schema, part in parts
        )

    async def execute(self, sql: str) -> None:
        """Run a statement, however long it takes."""
        await self._raw.execute(sql)

    async def pause(self, seconds: float) -> None:
        """Wait so long.  Raises ConnectionLostError as soon as it is known to be lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        if self._lost.is_set():
            raise ConnectionLostError("the connection was closed by the other side")

    async def close(self) -> None:
        """Say good-bye, for a second at most: its lock is free at once."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._raw.close()
        except Exception as error:  # noqa: BLE001 - it is given up in any case
            logger.debug("closing the connection that listened: %r", error)
        finally:
            if not self._raw.is_closed():
                self._raw.terminate()

    async def _asked(self, sql: str, *values: object) -> Any:
        async with self._in_time():
            return await self._raw.fetchval(sql, *values)

    @contextlib.asynccontextmanager
    async def _in_time(self, times: int = 1) -> Any:
        limit_s = self._answer_s * times
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise ConnectionLostError(f"no answer in {limit_s:g} s") from None
