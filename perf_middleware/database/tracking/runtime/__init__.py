"""`Tracking`: hands over the written tables after each commit, and collects those read.

    flush, bulk, Core, text  ->  execute  ->  pending writes of the connection
                                 COMMIT   ->  on_commit(tables), once, when it is done
                                 ROLLBACK ->  nothing

It sits around the dialect's own `do_execute`, `do_commit` and so on: the one place that each
statement and each end of a transaction passes, of sessions and of bare connections, and the only
one that is reached *after* COMMIT (the events of an engine come before it).
What goes past SQLAlchemy (a driver's COPY, a cursor of one's own) is not seen.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.isolation import level_asked_for
from perf_middleware.database.retry.transient import ended_without_commit
from perf_middleware.database.tables.relations import OWN_STATEMENT
from perf_middleware.database.tables.touched import ALL_TABLES, NO_TABLES, Tables, Touched
from perf_middleware.database.tracking.pending import Pending
from perf_middleware.database.tracking.reads import Reads
from perf_middleware.database.tracking.runtime.not_understood import NotUnderstood
from perf_middleware.database.tracking.runtime.rows import note_written, rows_read
from perf_middleware.families import NO_LABELS, Family, Value, counter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Engine

    from perf_middleware.database.tables.drivers.compiled import StatementTables

__all__ = ("CURRENT_READS", "Reads", "Tracking", "collecting_reads", "pending_of")

logger = logging.getLogger("perf_middleware.database")

PENDING: Final = "perf_middleware.pending"
SINCE: Final = "perf_middleware.since"  # the newest purge as the transaction's first statement came
UNSEEN: Final = "perf_middleware.unseen"  # it began while nothing was tracked
SCHEMA: Final = "perf_middleware.schema"  # it has DDL
EXECUTES: Final = ("do_execute", "do_executemany", "do_execute_no_params")
COMMIT_AS_TEXT: Final = re.compile(r"\s*(?:commit|end)\b", re.IGNORECASE)
DDL_AS_TEXT: Final = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:create|alter|drop|do|call|comment|attach|detach)\b",
    re.IGNORECASE | re.DOTALL,
)

CURRENT_READS: Final[ContextVar[Reads | None]] = ContextVar("perf_middleware.reads", default=None)


@contextmanager
def collecting_reads() -> Iterator[Reads]:
    """Collect what is read in this context: `with collecting_reads() as reads: …`.

    What an outer one collects has it too, at the end.
    """
    reads = Reads()
    outer = CURRENT_READS.get()
    CURRENT_READS.set(reads)
    try:
        yield reads
    finally:
        CURRENT_READS.set(outer)
        if outer is not None:
            outer.include(reads)


class Tracking:
    """Tracks engines; `on_commit` gets the tables that a transaction wrote, after its commit.

    It is called where the commit was, in the commit's context and before its caller goes on.  One
    that fails is counted and logged; the commit stands.  A commit of which nobody knows if it was
    done is handed over as well: better to forget too much.

    `newest_purge` gives the number of the last purge in this process: each transaction is as old as
    that.  While `is_active` is false nothing is looked at, and nothing handed over.
    """

    def __init__(
        self,
        on_commit: Callable[..., object],
        *,
        newest_purge: Callable[[], int] = lambda: 0,
        is_active: bool = True,
    ) -> None:
        self._on_commit = on_commit
        self.newest_purge = newest_purge
        self._tables: list[StatementTables] = []
        self.is_active = is_active
        self.mark: Callable[[str], str] | None = None
        """Adds to a statement of PostgreSQL that writes that its commit is told by us."""
        self.announce: Callable[[Tables], Any] | None = None
        """Called with them right before the COMMIT; what it gives goes to `on_commit` beside them.
        What it raises is raised in place of the COMMIT.
        """
        self.withdraw: Callable[[Any], object] | None = None
        """Called with it in place of `on_commit` where nothing was committed."""
        self.leave_open: Callable[[Any], object] | None = None
        """Called with it beside `on_commit` where it may be committed yet: nobody knows when."""
        self.on_schema_change: Callable[[StatementTables], object] | None = None
        """Called once a transaction with DDL has ended; from any thread."""
        self._not_understood = NotUnderstood()
        name = f"{id(self):x}"  # apps may share an engine: each keeps its own books
        self._pending, self._since = f"{PENDING}.{name}", f"{SINCE}.{name}"
        self._unseen, self._schema = f"{UNSEEN}.{name}", f"{SCHEMA}.{name}"
        self.reset_counts()

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.commits = 0
        self.failures = 0
        for tables in self._tables:
            tables.not_understood = 0

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {
            "commits": self.commits,
            "failures": self.failures,
            "not_understood": sum(tables.not_understood for tables in self._tables),
        }

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        counts = self.status()
        yield counter(
            "perf_database_commits_told",
            "Commits that wrote tables, and were handed over to what depends on them.",
            [Value(NO_LABELS, counts["commits"])],
        )
        yield counter(
            "perf_database_commits_told_failures",
            "Of those, how often what follows a commit has failed.",
            [Value(NO_LABELS, counts["failures"])],
        )
        yield counter(
            "perf_database_statements_not_understood",
            "Statements that were read and mean all tables; each counts when it is read first.",
            [Value(NO_LABELS, counts["not_understood"])],
        )

    def activate(self) -> None:
        """From now on everything is looked at; a transaction that goes on already means all."""
        self.is_active = True

    def watch(self, engine: Engine, tables: StatementTables) -> StatementTables:
        """Track a (sync) engine: `watch(async_engine.sync_engine, …)`; once for each engine.

        Returns the tables that hold: of one that was forgotten, those of the first time.
        """
        dialect: Any = engine.dialect
        trackings = dialect.__dict__.setdefault("perf_trackings", {})
        before: StatementTables | None = trackings.get(self)
        if before is not None:
            if before in self._tables:
                raise ValueError("this engine's writes are tracked already")
            self._tables.append(before)
            return before
        trackings[self] = dialect.perf_tables = tables
        self._tables.append(tables)
        for name in EXECUTES:
            setattr(dialect, name, self._executing(getattr(dialect, name), tables))
        for name in ("do_begin", "do_begin_twophase"):
            setattr(dialect, name, self._beginning(getattr(dialect, name)))
        for name in ("do_commit", "do_commit_twophase"):
            setattr(dialect, name, self._committing(getattr(dialect, name), tables))
        for name in ("do_rollback", "do_rollback_twophase"):
            setattr(dialect, name, self._ending(getattr(dialect, name), tables))
        dialect.do_savepoint = self._after(dialect.do_savepoint, Pending.savepoint)
        dialect.do_release_savepoint = self._after(dialect.do_release_savepoint, Pending.release)
        dialect.do_rollback_to_savepoint = self._after(
            dialect.do_rollback_to_savepoint, Pending.roll_back_to
        )
        return tables

    def has_written(self, info: Any) -> bool:
        """Whether the transaction on a connection with this `info` may have written."""
        pending: Pending | None = info.get(self._pending)
        return self._unseen in info or bool(pending)

    def forget(self, tables: StatementTables) -> None:
        """The engine with these counts no more, and all that it writes means all tables.

        It is looked at as before: a commit that comes late is handed over too.
        """
        if tables in self._tables:
            self._tables.remove(tables)
        tables.forget_relations()

    def watch_copy(self, engine: Engine) -> None:
        """What is read over this (sync) engine may be older than the last commit: a replica."""
        dialect: Any = engine.dialect
        copies = dialect.__dict__.get("perf_copies")
        if copies is None:
            copies = dialect.perf_copies = set()
            for name in EXECUTES:
                setattr(dialect, name, _reading_a_copy(getattr(dialect, name), copies))
        copies.add(self)

    def forget_copy(self, engine: Engine) -> None:
        """It is none any more."""
        engine.dialect.__dict__.get("perf_copies", set()).discard(self)

    # --- around the dialect -----------------------------------------------------------------------

    def _executing(self, execute: Callable[..., Any], tables: StatementTables) -> Any:
        def do(cursor: Any, statement: str, *rest: Any) -> Any:
            context = rest[-1] if rest else None
            was_active = self.is_active
            if not was_active:
                result = execute(cursor, statement, *rest)
                if self.is_active and context is not None:
                    # Since it began: what it has written was not looked at.
                    info = info_of(context.root_connection)
                    pending_of(info, self._pending).add(ALL_TABLES)
                return result
            if context is None or OWN_STATEMENT in context.execution_options:
                return execute(cursor, statement, *rest)
            connection = context.root_connection
            try:
                info = connection.info
            except NotImplementedError:  # what SQLAlchemy asks on an engine's first connection
                return execute(cursor, statement, *rest)
            info.setdefault(self._since, self.newest_purge())
            touched = touched_by(context, statement, tables)
            reads = CURRENT_READS.get()
            if reads is not None:
                self._collect(reads, info, touched, context)
            if touched.writes:
                if reads is not None and tables.knows_relations:
                    is_text = context.compiled is None or context.compiled.isplaintext
                    self._not_understood.look(touched, statement, is_text=is_text)
                # Before it runs: one of many rows may fail when others are written.
                note_written(pending_of(info, self._pending), touched, context)
                if self.on_schema_change is not None and (
                    context.isddl or DDL_AS_TEXT.match(statement)
                ):
                    info[self._schema] = True
                    tables.forget_relations()
            elif not getattr(context.compiled, "isplaintext", True):
                return execute(cursor, statement, *rest)  # no COMMIT that somebody has written
            said = statement
            if touched.writes and self.mark is not None and context.dialect.name == "postgresql":
                said = self.mark(statement)
            if not (is_autocommit(connection) or COMMIT_AS_TEXT.match(statement)):
                return execute(cursor, said, *rest)
            announced = self._announced(info)
            try:
                return execute(cursor, said, *rest)
            finally:
                self._hand_over(connection, tables, announced)

        return do

    def _collect(self, reads: Reads, info: Any, touched: Touched, context: Any) -> None:
        pending: Pending | None = info.get(self._pending)
        if touched.writes or self._unseen in info or pending:
            reads.has_written = True
        rows = None
        if touched.keyed is not None:
            rows = rows_read(touched.keyed, context)
        if rows is None:
            reads.add(touched.reads)
        else:
            reads.add_rows(rows)
        if not is_autocommit(context.root_connection):
            reads.begun_at(info[self._since])

    def _beginning(self, begin: Callable[..., Any]) -> Any:
        def do(connection: Any, *rest: Any) -> Any:
            if not self.is_active:
                info_of(connection)[self._unseen] = True
            return begin(connection, *rest)

        return do

    def _committing(self, commit: Callable[..., Any], tables: StatementTables) -> Any:
        def do(connection: Any, *rest: Any, **options: Any) -> Any:
            announced = self._announced(info_of(connection))
            try:
                result = commit(connection, *rest, **options)
            except BaseException as error:
                is_undone = ended_without_commit(error)
                tell = self.withdraw if is_undone else self.leave_open
                if announced is not None and tell is not None:
                    tell(announced)
                if not is_undone:
                    self._hand_over(connection, tables)
                raise
            self._hand_over(connection, tables, announced)
            return result

        return do

    def _ending(self, roll_back: Callable[..., Any], tables: StatementTables) -> Any:
        def do(connection: Any, *rest: Any, **options: Any) -> Any:
            self._closed(info_of(connection))
            try:
                return roll_back(connection, *rest, **options)
            finally:
                # DDL of SQLite may be done though it was never committed.
                self._tell_schema(info_of(connection), tables)

        return do

    def _after(self, run: Callable[..., Any], note: Callable[[Pending, str], None]) -> Any:
        def do(connection: Any, name: str) -> Any:
            result = run(connection, name)
            note(pending_of(info_of(connection), self._pending), name)
            return result

        return do

    # --- the end of a transaction -----------------------------------------------------------------

    def _announced(self, info: Any) -> Any:
        """The transaction is about to be committed."""
        written = self._written(info)
        if not written or not self.is_active or self.announce is None:
            return None
        return self.announce(written)

    def _written(self, info: Any) -> Tables:
        """What a commit now would bring in."""
        if self._unseen in info:
            return ALL_TABLES
        pending: Pending | None = info.get(self._pending)
        return NO_TABLES if pending is None else pending.written()

    def _closed(self, info: Any) -> Tables:
        """The transaction is over; what it would have brought in."""
        written = self._written(info)
        for name in (self._pending, self._since, self._unseen):
            info.pop(name, None)
        return written

    def _tell_schema(self, info: Any, tables: StatementTables) -> None:
        if info.pop(self._schema, None) and self.on_schema_change is not None:
            self.on_schema_change(tables)

    def _hand_over(self, connection: Any, tables: StatementTables, announced: Any = None) -> None:
        info = info_of(connection)
        written = self._closed(info)
        self._tell_schema(info, tables)
        if not written or not self.is_active:
            return
        self.commits += 1
        try:
            if announced is None:
                self._on_commit(written)
            else:
                self._on_commit(written, announced)
        except Exception:
            self.failures += 1
            logger.exception("what follows a commit failed; the commit itself is done")


def _reading_a_copy(execute: Callable[..., Any], copies: set[Tracking]) -> Any:
    def do(*given: Any) -> Any:
        reads = CURRENT_READS.get()
        if reads is not None and copies:
            reads.is_of_a_copy = True
        return execute(*given)

    return do


def touched_by(context: Any, statement: str, tables: StatementTables) -> Touched:
    """What the statement of an execution context touches."""
    compiled = context.compiled
    if compiled is None:
        return tables.of_text(statement)
    schemas = context.execution_options.get("schema_translate_map")
    return tables.of_compiled(compiled, schema_translate_map=schemas)


def info_of(connection: Any) -> Any:
    """What is kept beside the driver's connection, until that is closed."""
    try:
        return connection.info
    except NotImplementedError:  # the first connection of an engine, before it is in its pool
        return {}


def pending_of(info: Any, key: str) -> Pending:
    """The writes of the transaction on a connection; kept beside the driver's connection."""
    pending: Pending | None = info.get(key)
    if pending is None:
        pending = info[key] = Pending()
    return pending


def is_autocommit(connection: Any) -> bool:
    """Whether each statement on it is its own transaction."""
    return level_asked_for(connection) == "AUTOCOMMIT"
