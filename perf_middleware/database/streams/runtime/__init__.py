"""The guard: knows which sessions of a request hold a connection, and takes the idle ones back.

    Session "after_begin"   -> the request's `sessions`, by its context variable
    dialect do_execute      -> has this transaction written?  does a statement or cursor run?
    response begins         -> idle and clean: the connection leaves the session, then the pool

The connection is taken out of the session's transaction in one step without a wait, so that nobody
finds it half taken; rolled back and given back it is after that.  The session's transaction stays
as one that has not said anything yet: loaded rows stay loaded, `async with session.begin()` stays
open, and the next statement takes a connection and begins anew.  A rollback of the session would
expire its rows and end that block; `close` would forget them.
Source: SQLAlchemy, `SessionTransaction._connections`, `_connection_for_bind`, `SessionEvents`.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from perf_middleware.database.isolation import level_asked_for
from perf_middleware.database.own_listeners import own_listener
from perf_middleware.database.streams.cases import Case, Kept, judge
from perf_middleware.database.streams.reads import only_reads
from perf_middleware.database.streams.runtime import beginning
from perf_middleware.database.streams.runtime.dependencies import dependency_of, route_of
from perf_middleware.events import StreamHoldsConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.asgi import Scope
    from perf_middleware.database.holding.runtime import PoolWatch
    from perf_middleware.database.runtime.sessions import Leaving
    from perf_middleware.database.streams.figures import StreamCounts

logger = logging.getLogger("perf_middleware.database")

SESSIONS_MAX: Final = 100  # of one request; further ones are not guarded
TEXTS_MAX: Final = 2_000
TOLD_MAX: Final = 500
GUARDED: Final = "perf_stream_guard"  # on a dialect
WORK: Final = "perf_stream_work"  # on a connection
EXECUTES: Final = ("do_execute", "do_executemany", "do_execute_no_params")
SNAPSHOTS: Final = frozenset(("REPEATABLE READ", "SERIALIZABLE", "SNAPSHOT"))


class CurrentResponse(Protocol):
    """The response that the running code works for."""

    sessions: dict[int, Work] | None
    scope: Scope


CURRENT: Final[ContextVar[CurrentResponse | None]] = ContextVar(
    "perf_middleware.response", default=None
)


class Guarded(NamedTuple):
    """An engine that is guarded, as its dialect knows it."""

    guard: StreamGuard
    watch: PoolWatch
    counts: StreamCounts
    is_async: bool
    is_postgresql: bool


class Work:
    """One transaction of one session: what it has done so far, and whether something runs."""

    __slots__ = (
        "_session", "_transaction", "cursors", "guarded", "has_written", "is_doubtful", "loop",
        "running", "told",
    )  # fmt: skip

    def __init__(self, guarded: Guarded, session: Any, transaction: Any) -> None:
        self.guarded = guarded
        self._session = weakref.ref(session)
        self._transaction = weakref.ref(transaction)
        self.loop = _running_loop()
        self.has_written = False
        self.running = 0
        self.cursors: list[weakref.ref[Any]] = []
        self.told: Case | None = None
        self.is_doubtful = False  # it could not be told whether it has written

    def is_of(self, session: Any, transaction: Any) -> bool:
        return self._session() is session and self._transaction() is transaction

    def session(self) -> Any:
        return self._session()

    def connections(self) -> set[tuple[Any, ...]]:
        """What the session's transaction holds now: (connection, its transaction, …, is ours)."""
        session, transaction = self._session(), self._transaction()
        if session is None or transaction is None:
            return set()
        if session.get_transaction() is not transaction:
            return set()
        return {held for held in transaction._connections.values() if held[3]}  # noqa: SLF001

    def case(self) -> Case:
        """What becomes of its connection now."""
        held = self.connections()
        session: Any = self._session()
        return judge(
            holds=bool(held),
            has_written=bool(
                held and (self.has_written or session.new or session.deleted or session.dirty)
            ),
            is_async=self.guarded.is_async,
            is_in_use=bool(held) and self._is_in_use(session, [entry[0] for entry in held]),
        )

    def _is_in_use(self, session: Any, connections: list[Any]) -> bool:
        if self.running or self.is_doubtful or session.in_nested_transaction() or session.twophase:
            return True
        self.cursors = [cursor for cursor in self.cursors if _is_open(cursor())]
        if self.cursors:
            return True
        if not self.guarded.is_async:
            return False
        if self.loop is not _running_loop():
            return True
        from sqlalchemy.ext.asyncio import AsyncConnection

        for connection in connections:
            # Somebody has asked the session for its connection, and may use it by itself.
            proxy = AsyncConnection._retrieve_proxy_for_target(  # noqa: SLF001
                connection, regenerate=False
            )
            if proxy is not None or _keeps_a_snapshot(connection):
                return True
        return False

    def take(self) -> list[Any]:
        """Its connections, which the session has no more: it begins anew when it needs one."""
        taken = [entry[0] for entry in self.connections()]
        transaction = self._transaction()
        if transaction is not None:
            transaction._connections.clear()  # noqa: SLF001
        for connection in taken:
            connection.__dict__[WORK] = None
        return taken


class StreamGuard:
    """Guards the engines that it watches; `publish` gets the rare event.

    `finish_s`: how long giving back may take before the connection is dropped instead.
    """

    def __init__(self, *, finish_s: float, leaving: Leaving) -> None:
        self.finish_s = finish_s
        self.leaving = leaving
        self.publish: Callable[[object], None] | None = None
        self.has_no_layer = False
        """Set by who puts an app together without the layer that sees its responses."""
        self._dialects: list[Any] = []
        self._only_reads: dict[str, bool] = {}
        self._told: set[tuple[str, str]] = set()

    def watch(self, engine: Any, watch: PoolWatch, counts: StreamCounts) -> None:
        """Guard an engine's sessions from now on; one that is guarded already stays so."""
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        dialect = getattr(engine, "sync_engine", engine).dialect
        if GUARDED in dialect.__dict__:
            return
        dialect.__dict__[GUARDED] = Guarded(
            self, watch, counts, bool(dialect.is_async), dialect.name == "postgresql"
        )
        for name in EXECUTES:
            setattr(dialect, name, self._around(getattr(dialect, name)))
        beginning.count(dialect, WORK)
        if not self._dialects:
            event.listen(Session, "after_begin", self._begun)
        self._dialects.append(dialect)
        if self.has_no_layer:
            logger.warning(
                "%s is watched after the app was put together without its stream guard: watch it "
                "before the app starts, or set PERFORMANCE_DATABASE_STREAM_GUARD=true",
                watch.name,
            )

    def forget(self, engine: Any) -> None:
        """Guard an engine no more; one that is not guarded, or by another guard, is left alone."""
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        dialect = getattr(engine, "sync_engine", engine).dialect
        if dialect not in self._dialects:
            return
        self._dialects.remove(dialect)
        dialect.__dict__.pop(GUARDED, None)
        beginning.count_no_more(dialect)
        for name in EXECUTES:
            ours = dialect.__dict__.get(name)
            # What something else has wrapped since stays, and passes through ours.
            if getattr(ours, "guard", None) is self:
                inner = ours.__wrapped__
                delattr(dialect, name)
                if getattr(dialect, name) != inner:
                    setattr(dialect, name, inner)
        if not self._dialects:
            event.remove(Session, "after_begin", self._begun)

    # --- what SQLAlchemy calls --------------------------------------------------------------------

    @own_listener
    def _begun(self, session: Any, transaction: Any, connection: Any) -> None:
        guarded: Guarded | None = connection.dialect.__dict__.get(GUARDED)
        if guarded is None or guarded.guard is not self:
            return
        response = CURRENT.get()
        if response is None:
            return
        root = session.get_transaction()
        sessions = response.sessions
        if sessions is None:
            sessions = response.sessions = {}
        work = sessions.get(id(session))
        if work is None or not work.is_of(session, root):
            if work is None and len(sessions) >= SESSIONS_MAX:
                for key in [key for key, old in sessions.items() if not old.connections()]:
                    del sessions[key]
                if len(sessions) >= SESSIONS_MAX:
                    return
            work = sessions[id(session)] = Work(guarded, session, root)
        connection.__dict__[WORK] = work

    def _around(self, execute: Callable[..., Any]) -> Any:
        def run(cursor: Any, statement: str, *rest: Any) -> Any:
            context = rest[-1] if rest else None
            if context is None:
                return execute(cursor, statement, *rest)
            marks = context.root_connection.__dict__
            if WORK not in marks:
                return execute(cursor, statement, *rest)
            work: Work | None = marks[WORK]
            if work is None:
                # A statement that another task was just beginning: the next gets a connection.
                from sqlalchemy.exc import ResourceClosedError

                raise ResourceClosedError("given back to the pool: its response began to stream")
            if not work.has_written and not self._reads(statement):
                work.has_written = True
            if context._is_server_side:  # noqa: SLF001 - no other name
                work.cursors.append(weakref.ref(context))
            work.running += 1
            try:
                return execute(cursor, statement, *rest)
            finally:
                work.running -= 1

        run.__wrapped__ = execute  # type: ignore[attr-defined]
        run.guard = self  # type: ignore[attr-defined]
        return run

    def _reads(self, statement: str) -> bool:
        reads = self._only_reads.get(statement)
        if reads is None:
            if len(self._only_reads) >= TEXTS_MAX:
                self._only_reads.clear()
            reads = self._only_reads[statement] = only_reads(statement)
        return reads

    # --- telling ----------------------------------------------------------------------------------

    def keep(self, work: Work, case: Case, scope: Scope) -> None:
        """Count one that stays, once for each transaction, and tell it once for each endpoint."""
        if work.told is case:
            return
        work.told = case
        work.guarded.counts.kept[case] += 1
        route = route_of(scope)
        if case is Case.NEEDED or (route, case.value) in self._told or len(self._told) >= TOLD_MAX:
            return
        self._told.add((route, case.value))
        name = work.guarded.watch.name
        dependency = dependency_of(scope, work.session())
        held = next(iter(work.connections()), None)
        lines = () if held is None else work.guarded.watch.lines_of(record_of(held[0]))
        kept = Kept(case=case, route=route, database=name, dependency=dependency, lines=lines)
        logger.warning("%s", kept)
        if self.publish is not None:
            self.publish(
                StreamHoldsConnection(
                    route=route,
                    database=name,
                    reason="uncommitted" if case is Case.UNCOMMITTED else "thread",
                    dependency=dependency,
                    text=str(kept),
                )
            )


# --- what the layer calls -------------------------------------------------------------------------


def begin_response(sessions: dict[int, Work]) -> None:
    """The response begins: what its sessions hold from now on is no measure of their work."""
    for work in list(sessions.values()):
        for held in work.connections():
            work.guarded.watch.answered(record_of(held[0]))


def look(sessions: dict[int, Work], scope: Scope) -> list[Work]:
    """Those whose connection is idle; those that stay are counted and told."""
    idle = []
    for work in list(sessions.values()):
        case = work.case()
        if case is Case.RELEASE:
            idle.append(work)
        elif case is not Case.NOTHING:
            work.guarded.guard.keep(work, case, scope)
    return idle


def record_of(connection: Any) -> object:
    """Its entry in the pool, as the pool's watch knows it."""
    return getattr(connection._dbapi_connection, "_connection_record", None)  # noqa: SLF001


def _is_open(context: Any) -> bool:
    """Whether a server-side cursor is: adapters let go of the driver's own when it is closed."""
    return context is not None and getattr(context.cursor, "_cursor", None) is not None


def _keeps_a_snapshot(connection: Any) -> bool:
    return level_asked_for(connection) in SNAPSHOTS and connection.dialect.name != "sqlite"


def _running_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
