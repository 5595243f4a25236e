"""`OutsideWrites`: listens for writes from outside of the app, and hands over their tables.

    connect -> (take the lock) -> LISTEN -> everything once -> each notification, gathered
       ^            | held by another process: ask again, every few seconds
       +--- lost, no answer, cannot listen: wait, and from the beginning

With a shared cache one process listens for all, the one that holds an advisory lock; without one
each listens for itself.  Whoever begins to listen may have missed something, so that everything is
purged once, after LISTEN took effect.  A process that holds the lock and does nothing (stopped, its
network gone) is known by its silence at the server, and its connection is ended by another.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.outside.figures import Counts, families, listed, unheard
from perf_middleware.database.outside.names import FLEET, lock_of, mark_of, marked
from perf_middleware.database.outside.notices import Gathered, Inheritance, read_notice
from perf_middleware.database.outside.runtime.connection import (
    CannotListenError,
    ListenConnection,
)
from perf_middleware.database.outside.triggers import TABLE_KINDS
from perf_middleware.database.tables.touched import ALL_TABLES, AllTables, Tables
from perf_middleware.errors import OutsideWritesError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from perf_middleware.database.outside.triggers import Triggers
    from perf_middleware.database.urls import DatabaseUrl
    from perf_middleware.families import Family
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.database")

AGAIN_FIRST_S: Final = 0.1
STATUS_NAMES_MAX: Final = 50
CLOSED, TRYING, WAITING, LISTENING = "closed", "trying", "waiting", "listening"
AWAY: Final = "Redis is away, so that a purge of this process would not reach the others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long things may take, seconds; the docs say what follows for what may be missed.

    `silent_s` has to be several times `heartbeat_s`.
    """

    heartbeat_s: float = 2.0
    answer_s: float = 3.0
    take_again_s: float = 3.0
    silent_s: float = 10.0
    again_s: float = 5.0
    look_s: float = 60.0
    fold_s: float = 0.005
    failed_s: float = 1.0


class OutsideWrites:
    """A resource.  `on_write` is awaited with the tables that somebody outside has written.

    `shares` is None where each process purges for itself; else it says whether a purge of this
    process reaches all at this moment: only then it listens, and only one process does.
    """

    name = "outside writes"
    required = False

    def __init__(
        self,
        url: DatabaseUrl,
        *,
        triggers: Triggers,
        on_write: Callable[[Tables], Awaitable[object]] | None = None,
        shares: Callable[[], bool] | None = None,
        application_name: str = "perf_middleware: listens",
        connect_s: float = 5.0,
        times: Times | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.triggers = triggers
        self.on_write = on_write
        self.on_change: Callable[[bool, str], None] | None = None
        """Called with (True, "") when it listens or another process does, else (False, why)."""
        self._url = url
        self._shares = shares
        self._application_name = application_name
        self._connect_s = connect_s
        self._times = times or Times()
        self._draw = draw
        self._lock = lock_of(triggers.namespace)
        self._writer = ""
        self._mark_of_fleet = mark_of(triggers.namespace, FLEET)
        self._mark_of_process = ""
        self._is_open = False
        self._state = CLOSED
        self._reason = ""
        self._unheard: tuple[str, ...] = ()
        self._inheritance = Inheritance()
        self._gathered = Gathered()
        self._connection: ListenConnection | None = None
        self._counts = Counts()

    # --- a resource -------------------------------------------------------------------------------

    async def open(self, background: Background) -> None:
        """Begin to listen, or to wait for one's turn.  Raises OutsideWritesError.

        Also then it goes on trying.
        """
        self._writer = secrets.token_hex(8)  # not before: worker processes are forked from one
        self._mark_of_process = mark_of(self.triggers.namespace, self._writer)
        self._is_open = True
        self._known = asyncio.Event()
        self._woken = asyncio.Event()
        background.start("outside writes", self._run)
        background.start("outside writes: purges", self._purge)
        await self._known.wait()
        if self._reason:
            raise OutsideWritesError(self._url.shown, self._reason)

    async def close(self) -> None:
        """Hear nothing more; another process may listen at once."""
        self._is_open = False
        self._state, self._reason = CLOSED, ""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {
            "state": self._state,
            "url": self._url.shown,
            "channel": self.triggers.name,
            "listens_for": "this process" if self._shares is None else "all processes",
            "not_heard": list(self._unheard[:STATUS_NAMES_MAX]),
            "not_heard_count": len(self._unheard),
            **asdict(self._counts),
        }

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        return families(self._counts, listens=self.is_listening, unheard=len(self._unheard))

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self._counts = Counts()

    # --- what others ask --------------------------------------------------------------------------

    @property
    def is_listening(self) -> bool:
        """Whether it is this process that listens."""
        return self._state == LISTENING

    def marked(self, statement: str) -> str:
        """`statement`, which writes and whose purge is ours, so that it is not purged twice.

        For a statement of one's own engines, whose commit purges what depends on it.
        """
        if not self._is_open:
            return statement
        for_all = self._shares is not None and self._shares()
        return marked(statement, self._mark_of_fleet if for_all else self._mark_of_process)

    async def install(self) -> tuple[str, ...]:
        """Make the triggers that are missing; the tables that are not heard even so.

        One short transaction for each table: CREATE TRIGGER makes all its writers wait.
        Raises OutsideWritesError with what PostgreSQL says.
        """

        async def missing(connection: ListenConnection) -> None:
            rows, _ = await connection.look(self.triggers)
            for row in rows:
                if not row["is_heard"] and row["kind"] in TABLE_KINDS:
                    await connection.execute(replace(self.triggers, tables=(row["shown"],)).sql())
            await connection.execute(self.triggers.sql())

        return await self._changed(missing)

    async def drop(self) -> tuple[str, ...]:
        """Remove the triggers; the tables that are not heard now.  Raises as `install`."""
        return await self._changed(lambda c: c.execute(self.triggers.drop_sql()))

    async def _changed(
        self, change: Callable[[ListenConnection], Awaitable[object]]
    ) -> tuple[str, ...]:
        connection: ListenConnection | None = None
        try:
            connection = await self._connect()
            await change(connection)
            rows, _ = await connection.look(self.triggers)
        except Exception as error:
            raise OutsideWritesError(self._url.shown, _in_words(error)) from error
        finally:
            if connection is not None:
                await connection.close()
        return _unheard(rows)

    # --- listening --------------------------------------------------------------------------------

    async def _run(self) -> None:
        wait_s = AGAIN_FIRST_S
        while self._goes_on():
            reached = ""
            try:
                self._connection = connection = await self._connect()
                self._counts.connections += 1
                await connection.examine()
                await self._take_turns(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                if not self._goes_on():
                    return
                reached = self._state
                self._note(TRYING, _in_words(error))
                if isinstance(error, CannotListenError):
                    reached, wait_s = "", self._times.again_s  # what cannot be will not be soon
            finally:
                await self._give_up()
            if reached in {LISTENING, WAITING}:
                wait_s = AGAIN_FIRST_S  # it worked until now, and may do so at once
            await asyncio.sleep(wait_s * (0.5 + self._draw() / 2))
            wait_s = min(2 * wait_s, self._times.again_s)

    def _goes_on(self) -> bool:
        return self._is_open

    async def _connect(self) -> ListenConnection:
        return await ListenConnection.connected(
            self._url,
            application_name=self._application_name,
            connect_s=self._connect_s,
            answer_s=self._times.answer_s,
        )

    async def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _take_turns(self, connection: ListenConnection) -> None:
        """Until the connection is lost, or this process is not the one to listen any more."""
        while True:
            if self._shares is None:
                await self._listen(connection)
            elif not self._shares():
                await connection.heartbeat()
                self._note(WAITING, AWAY)
            elif await self._takes_the_lock(connection):
                await self._listen(connection)
                return  # with the connection goes the lock
            else:
                self._note(WAITING)
            await connection.pause(self._times.take_again_s * (0.75 + self._draw() / 2))

    async def _takes_the_lock(self, connection: ListenConnection) -> bool:
        if await connection.take(self._lock):
            return True
        if await connection.end_a_silent_holder(self._lock, self._times.silent_s):
            self._counts.ousted += 1
        return False

    async def _listen(self, connection: ListenConnection) -> None:
        """Returns when another process should; raises when it cannot go on."""
        await connection.listen(self.triggers.name, self._hear, self._writer)
        await self._look(connection)
        # Now, and not before: what was written until LISTEN took effect nobody has told.
        self._everything()
        self._note(LISTENING)
        looked_s, every_s = 0.0, self._times.heartbeat_s
        while self._shares is None or self._shares():
            await connection.pause(every_s)
            await connection.heartbeat()
            looked_s += every_s
            if looked_s >= self._times.look_s:
                looked_s = 0.0
                await self._look(connection)
        self._note(WAITING, AWAY)

    async def _look(self, connection: ListenConnection) -> None:
        """Which tables have no trigger: told in the log where it has changed."""
        rows, self._inheritance = await connection.look(self.triggers)
        not_heard = _unheard(rows)
        if not_heard and not_heard != self._unheard:
            logger.warning(
                "writes from outside are not heard of %s: see perf.database.triggers()",
                listed(not_heard),
            )
        self._unheard = not_heard

    def _hear(self, payload: str) -> None:
        notice = read_notice(payload)
        self._counts.notifications += 1
        if notice.writer == self._writer:
            self._counts.own += 1
            return
        self._gathered.add(notice.written)
        self._woken.set()

    def _everything(self) -> None:
        self._gathered.add(ALL_TABLES)
        self._woken.set()

    def _note(self, state: str, reason: str = "") -> None:
        changed = (state, reason) != (self._state, self._reason)
        self._state, self._reason = state, reason
        if changed and self._known.is_set():
            if reason:
                logger.warning("writes from outside are not heard: %s", reason)
            else:
                logger.info("writes from outside: %s", state)
        self._known.set()
        if changed and self.on_change is not None:
            self.on_change(not reason, reason)

    # --- purging ----------------------------------------------------------------------------------

    async def _purge(self) -> None:
        """What was heard is handed over in one piece, then again what came meanwhile."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            tables = self._inheritance.with_kin(self._gathered.take())
            if tables and self.on_write is not None:
                try:
                    await self.on_write(tables)
                except Exception:
                    self._counts.failures += 1
                    logger.exception("a purge after a write from outside failed; it is tried again")
                    self._gathered.add(tables)
                    self._woken.set()
                    await asyncio.sleep(self._times.failed_s)
                    continue
                self._counts.purges += 1
                self._counts.everything += isinstance(tables, AllTables)
            await asyncio.sleep(self._times.fold_s)


def _unheard(rows: Iterable[Any]) -> tuple[str, ...]:
    return unheard((row["shown"], row["kind"], row["is_heard"]) for row in rows)


def _in_words(error: BaseException) -> str:
    """What went wrong, in one line; asyncpg's and our errors repeat no password."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(error).split()) or type(error).__name__
