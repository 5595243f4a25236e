"""What the query cache has to know of connections: since when a transaction goes on, and whether
what it reads may depend on more than the statement.

    BEGIN            -> the number of the newest purge is noted beside the connection
    SET, set_config  -> the engine's answers are not the same for all: nothing of it is kept
    a statement      -> is the run that it belongs to reading what is older than a purge?

It sits around the dialect's own functions, as tracking does, from the first use on; what began
before that is taken for old.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from perf_middleware.database.isolation import level_of
from perf_middleware.database.tables.relations import OWN_STATEMENT
from perf_middleware.database.tracking.runtime import info_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

SINCE: Final = "perf_middleware.queries.since"
ONE_SNAPSHOT: Final = frozenset({"REPEATABLE READ", "SERIALIZABLE", "SNAPSHOT"})
BEFORE_US: Final = -1  # a transaction whose begin was not seen
EXECUTES: Final = ("do_execute", "do_execute_no_params")
# What changes how long, how dear or under what name something runs, and not what it gives.
_HARMLESS: Final = r"""(?:statement_timeout|lock_timeout|idle_\w+|transaction_timeout|work_mem|
    application_name|synchronous_commit|constraints|jit\w*|enable_\w+|max_parallel_\w+|
    client_min_messages|log_\w+|tcp_\w+|random_page_cost|effective_cache_size|hash_mem_multiplier|
    maintenance_work_mem|temp_buffers|cursor_tuple_fraction|deadlock_timeout)\b"""
_SETS: Final = re.compile(
    rf"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*(?:set\s+(?!(?:session\s+|local\s+)?{_HARMLESS})|use\s)",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


class Run:
    """One run of a query: did it read what was old when it began?"""

    __slots__ = ("began", "is_old")

    def __init__(self, began: int) -> None:
        self.began = began
        self.is_old = False


CURRENT_RUN: Final[ContextVar[Run | None]] = ContextVar("perf_middleware.query_run", default=None)


class EngineFacts:
    """What is known of the engines of one dialect; `has_state` once somebody has SET something."""

    __slots__ = ("has_state", "label")

    def __init__(self, label: str) -> None:
        self.label = label
        self.has_state = False


class Watching:
    """The dialects that are watched; `newest_purge` numbers the purges of this process."""

    def __init__(self, newest_purge: Callable[[], int]) -> None:
        self._newest_purge = newest_purge
        self._facts: WeakKeyDictionary[Any, EngineFacts] = WeakKeyDictionary()
        self._since = f"{SINCE}.{id(self):x}"  # apps may share an engine
        self._own = f"{os.getpid()}.{secrets.token_hex(8)}"

    def facts(self, engine: Engine) -> EngineFacts:
        """The facts of an engine, which is watched from here on."""
        dialect: Any = engine.dialect
        facts = self._facts.get(dialect)
        if facts is None:
            from sqlalchemy import event

            facts = self._facts[dialect] = EngineFacts(self._label(engine))
            event.listen(engine, "connect", lambda _, record: self._idle(record.info))
            for name in EXECUTES:
                setattr(dialect, name, self._executing(getattr(dialect, name), facts))
            for name in ("do_begin", "do_begin_twophase"):
                setattr(dialect, name, self._beginning(getattr(dialect, name)))
            for name in (
                "do_commit", "do_rollback", "do_commit_twophase", "do_rollback_twophase",
            ):  # fmt: skip
                setattr(dialect, name, self._ending(getattr(dialect, name)))
        return facts

    def _executing(self, execute: Callable[..., Any], facts: EngineFacts) -> Any:
        def do(cursor: Any, statement: str, *rest: Any) -> Any:
            context = rest[-1] if rest else None
            if context is not None and OWN_STATEMENT not in context.execution_options:
                if not facts.has_state and changes_state(statement):
                    facts.has_state = True
                self._note(context.root_connection)
            return execute(cursor, statement, *rest)

        return do

    def _note(self, connection: Connection) -> None:
        info: Any = info_of(connection)
        since = info.get(self._since, BEFORE_US)
        if since is None:  # an event of the app's executes something at the begin
            since = info[self._since] = self._newest_purge()
        run = CURRENT_RUN.get()
        if run is not None and since < run.began and keeps_one_snapshot(connection):
            run.is_old = True

    def _beginning(self, begin: Callable[..., Any]) -> Any:
        def do(connection: Any, *rest: Any) -> Any:
            info: Any = info_of(connection)
            if info.get(self._since) is None:
                info[self._since] = self._newest_purge()
            return begin(connection, *rest)

        return do

    def _ending(self, end: Callable[..., Any]) -> Any:
        def do(connection: Any, *rest: Any, **options: Any) -> Any:
            try:
                return end(connection, *rest, **options)
            finally:
                self._idle(info_of(connection))

        return do

    def _idle(self, info: Any) -> None:
        info[self._since] = None

    def _label(self, engine: Engine) -> str:
        """A name of the database, the same in all processes that see the same data in it."""
        url = engine.url
        shown = url.render_as_string(hide_password=True)
        if engine.dialect.name != "sqlite":
            return shown
        name = url.database or ""
        if name in ("", ":memory:") or "memory" in shown:
            return f"{self._own} {shown}"
        return f"{platform.node()} {os.path.realpath(name)}"  # a file, on this machine


def changes_state(statement: str) -> bool:
    """Whether a statement may make later ones of its connection give something else."""
    return "set_config" in statement or _SETS.match(statement) is not None


def keeps_one_snapshot(connection: Connection) -> bool:
    """Whether all statements of its transaction see the data as they were at the first."""
    if connection.dialect.name == "sqlite":
        return True  # once BEGIN was sent, which a driver may do when it likes
    return level_of(connection) in ONE_SNAPSHOT
