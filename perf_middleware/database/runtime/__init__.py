"""`perf.database`: the engines of an app, its sessions, and who holds their connections.

SQLAlchemy is imported when a database is opened or an engine watched, and not before: that takes
half a second, which an app without a database need not wait.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import anyio

from perf_middleware.clock import monotonic_us
from perf_middleware.database.engine_options import PoolOptions, SessionOptions, SqliteOptions
from perf_middleware.database.holding import figures
from perf_middleware.database.holding.runtime import PoolWatch
from perf_middleware.database.holding.runtime.lines import AppLines
from perf_middleware.database.outside.runtime.asking import TriggersAtHand
from perf_middleware.database.queries.runtime import QueryCache
from perf_middleware.database.retry import figures as retry_figures
from perf_middleware.database.retry.settings import RetrySettings
from perf_middleware.database.runtime.answering import Answering
from perf_middleware.database.runtime.engines import make_databases
from perf_middleware.database.runtime.instruments import Instruments
from perf_middleware.database.runtime.sessions import (
    SessionScope,
    asyncio_or_raise,
    is_dependency,
    run_to_the_end,
    session_steps,
)
from perf_middleware.database.settings import MAIN, REPLICA
from perf_middleware.database.statements.runtime import StatementWatch
from perf_middleware.database.streams import figures as stream_figures
from perf_middleware.database.urls import read_url

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from perf_middleware.clock import Clock
    from perf_middleware.database.retry.runtime import Retry
    from perf_middleware.database.runtime.engines import NamedDatabase
    from perf_middleware.database.streams.runtime import StreamGuard
    from perf_middleware.database.tracking.runtime.engines import TrackedEngines
    from perf_middleware.families import Family
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.database")

Result = TypeVar("Result")

LOOK_S: Final = 1.0  # how often long loans are looked for
_NUMBERS = count(1)  # databases in memory, told apart within the process


class Database(TriggersAtHand):
    """The databases of one app, by name; the first is `main`.  Open between `open` and `close`.

    `urls` may be empty: then there are no sessions, and engines of the app's own can be watched.
    `statements` counts what all of them are asked; without it nobody does.  `make_retry` gives the
    retries of one database, as `RetrySettings.make_retry` does.  On asyncio only, as SQLAlchemy.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        pool: PoolOptions | None = None,
        session: SessionOptions | None = None,
        sqlite: SqliteOptions | None = None,
        pgbouncer: Literal["auto", "on", "off"] = "auto",
        required: bool = True,
        finish_s: float = 5.0,
        held_s_told: float | None = 10.0,
        stream_guard: bool = True,
        route_of: Callable[[], str | None] | None = None,
        left_by: Callable[[], str | None] | None = None,
        remaining_us: Callable[[], int | None] | None = None,
        statements: StatementWatch | None = None,
        make_retry: Callable[..., Retry] | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        number = next(_NUMBERS)
        # An app without a URL may have a resource of that name itself.
        self.name = "database" if urls else "watched engines"
        self.required = required and bool(urls)
        self._finish_s = finish_s
        self._held_s_told = held_s_told
        self._route_of = route_of
        self._left_by = left_by
        self._remaining_us = remaining_us
        self._clock = clock
        self._lines = AppLines()
        self._databases = make_databases(
            {
                name: read_url(url, memory_name=f"perf_{number}_{name}")
                for name, url in urls.items()
            },
            pool=pool or PoolOptions(),
            session=session or SessionOptions(),
            sqlite=sqlite or SqliteOptions(),
            pgbouncer=pgbouncer,
            is_read_only=lambda name: name == REPLICA,
        )
        self.statements = statements or StatementWatch()
        """What the statements of these engines cost: `print(perf.database.statements.table())`."""
        self._watches_statements = statements is not None
        make_retry = make_retry or RetrySettings().make_retry
        self._retries = {
            name: make_retry(database=name, commit=self._commit) for name in self._databases
        }
        self._answering = Answering(self._databases)
        self._leaving: set[asyncio.Task[Any]] = set()
        self.stream_guard: StreamGuard | None = None
        if stream_guard:
            # Here: it imports a module of this package.
            from perf_middleware.database.streams.runtime import StreamGuard

            self.stream_guard = StreamGuard(finish_s=finish_s, leaving=self._leaving)
        self.instruments = Instruments(statements=statements, stream_guard=self.stream_guard)
        """What looks at the engines."""
        for name in self._databases:  # before they open: figures do not come and go
            self.instruments.expect(name, self._watch_for(name, refuses=True))
        self._is_open = False
        self._ends: list[str] = []  # of what is watched, that which ends with the lifespan
        self.queries = QueryCache()
        """What queries gave, kept until a commit; keeps nothing without `install`."""
        self.on_change: Callable[[bool, str], None] | None = None
        """Called with (False, why) when a database answers no more, (True, "") when all do."""

    # --- a resource -------------------------------------------------------------------------------

    async def open(self, background: Background) -> None:
        """Make the engines and ask each database once.  Raises DatabaseUnavailableError.

        Also then the engines are there, and they are asked again: for an app that goes on without.
        """
        self._is_open = True
        background.start("database", self._look)
        if not self._databases:
            return
        asyncio_or_raise()
        for name, database in self._databases.items():
            self.instruments.attach(name, database.make(), is_copy=name == REPLICA)
        errors = await self._answering.ask_all()
        background.start("database answers", self._ask)
        if self.tracked is not None:
            self.tracked.bind()
            await self.tracked.read_unknown()
        if errors:
            raise errors[0]

    async def close(self) -> None:
        """Give up every engine, and what was watched since `open`: what was before stays watched.

        Without an `open` everything ends.
        """
        instruments = self.instruments
        if not self._is_open:
            self._ends = list(instruments.watches)
        self._is_open = False
        ends, self._ends = self._ends, []
        for name in (*ends, *self._databases):
            instruments.detach(name)
        async with AsyncExitStack() as each:
            for database in self._databases.values():
                each.push_async_callback(database.close, within_s=self._finish_s)
            if self.tracked is not None:
                await self.tracked.end()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture: every pool, who holds it for long, what size would do."""
        picture, unanswered = {}, self._answering.unanswered
        for name, watch in self.instruments.watches.items():
            entry = watch.status()
            database = self._databases.get(name)
            if database is not None:
                entry = {
                    "url": database.url.shown,
                    "pgbouncer": database.behind_pgbouncer,
                    "answers": database.engine is not None and name not in unanswered,
                    **entry,
                    "retry": self._retries[name].status(),
                }
            if self.stream_guard is not None:
                entry = {**entry, "streams": self.instruments.streams[name].status()}
            picture[name] = entry
        return picture

    def families(self) -> Iterable[Family]:
        """The figures of every pool, of retries and of statements, for a scrape."""
        watches = self.instruments.watches
        if not watches:
            return
        yield from figures.families([(n, w.now(), w.counts) for n, w in watches.items()])
        if self._retries:
            yield from retry_figures.families([retry.figures for retry in self._retries.values()])
        if self._watches_statements:
            yield from self.statements.families()
        if self.stream_guard is not None:
            yield from stream_figures.families(list(self.instruments.streams.items()))

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.instruments.reset_counts()
        for retry in self._retries.values():
            retry.reset_counts()
        self.statements.reset_counts()

    # --- what an app uses -------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The databases that settings name."""
        return tuple(self._databases)

    @property
    def is_used(self) -> bool:
        """Whether there is any: a database of the settings, or an engine that is watched."""
        return bool(self.instruments.watches)

    @property
    def tracked(self) -> TrackedEngines | None:
        """Who looks at what is read and written over the engines, if somebody does."""
        return self.instruments.tracked

    async def _dependency(self) -> AsyncGenerator[AsyncSession, None]:
        async with self.session() as session:
            yield session

    @is_dependency(_dependency)
    def session(self, name: str | None = None) -> SessionScope:
        """`async with database.session() as session:` and `Depends(database.session)`.

        Commits at the end of the block, rolls back on an error or a cancellation, and gives the
        connection back in any case.  It takes one with its first statement, not before.
        `"replica"` is the main database where no replica is set.

        Raises RuntimeError while nothing is open, ValueError for a name that is not known.
        """
        return SessionScope(self._steps(self.engine(name), self._known(name).name))

    def session_of(self, name: str) -> Callable[[], AsyncGenerator[AsyncSession, None]]:
        """`Depends(database.session_of("replica"))`: the dependency for the database `name`."""
        self._known(name)

        async def session() -> AsyncGenerator[AsyncSession, None]:
            async with self.session(name) as session:
                yield session

        return session

    async def run(
        self,
        unit: Callable[[AsyncSession], Awaitable[Result]],
        name: str | None = None,
        *,
        idempotent: bool = False,
    ) -> Result:
        """What `await unit(session)` returns, once its transaction is committed.

        All of it is done again, in a new session, where a transient error ended it: another
        transaction was first (40001), a deadlock (40P01), a lost connection, a busy SQLite.  Within
        the settings `retry` and the request's deadline.  `idempotent`: doing it twice does no harm.

        Raises what the unit raises; the last transient error, with a note that says why there is no
        further attempt; CommitOutcomeUnknownError; and as `session` does.
        """
        self.engine(name)  # which tells what is wrong with the name, or that nothing is open
        retry = self._retries[self._known(name).name]
        return await retry.run(unit, session=lambda: self.session(name), idempotent=idempotent)

    def engine(self, name: str | None = None) -> AsyncEngine:
        """SQLAlchemy's engine of a database.  Raises as `session` does."""
        engine = self._known(name).engine
        if engine is None:
            raise RuntimeError("the database is not open: the app has not started, or has ended")
        return engine

    async def ping(self, name: str | None = None) -> float:
        """How long one statement takes, seconds, on a connection of the pool.

        Raises DatabaseUnavailableError, and DatabaseBusyError where the pool has none to give.
        """
        self.engine(name)  # which tells what is wrong with the name, or that nothing is open
        begun_us = self._clock()
        await self._known(name).ping()
        return (self._clock() - begun_us) / 1_000_000

    async def read_relations(self, name: str | None = None) -> None:
        """Read anew what the databases do by themselves (cascades, views, triggers), or one of
        them: after a migration that came from elsewhere.

        Raises what the database raises, ValueError for a name that is not known.
        """
        if self.tracked is not None:
            await self.tracked.read_relations(name)

    def watch(
        self, engine: AsyncEngine | Engine, *, name: str = "app", replica: bool = False
    ) -> PoolWatch:
        """Count and tell who holds the pool of an engine that the app has made itself.

        Its statements are counted too, where `statements` are, and its sessions guarded where a
        response streams; what is read and written over it is tracked, where a rule needs that
        (`replica`: it may lag behind).

        It goes on as before: nobody is refused by it.  Watched before the app starts, it stays so
        over each end and start; watched while the app runs, it is no more when that ends.

        Raises ValueError for a name that is taken, or an engine that is watched, TypeError for what
        is none.
        """
        watch = self.instruments.add(
            name, engine, lambda: self._watch_for(name, refuses=False), is_copy=replica
        )
        if self._is_open:
            self._ends.append(name)
        return watch

    # --- within -----------------------------------------------------------------------------------

    def _steps(self, engine: AsyncEngine, name: str) -> AsyncGenerator[AsyncSession, None]:
        from sqlalchemy.ext.asyncio import AsyncSession

        return session_steps(
            # A response is often made from rows after the commit: they stay readable.
            lambda: AsyncSession(engine, expire_on_commit=False),
            finish_s=self._finish_s,
            leaving=self._leaving,
            instead_of=lambda error: self._answering.judge(name, error),
        )

    async def _commit(self, session: AsyncSession) -> None:
        await run_to_the_end(
            session.commit(), within_s=self._finish_s, from_now=False, leaving=self._leaving
        )

    def _known(self, name: str | None) -> NamedDatabase:
        if not self._databases:
            raise RuntimeError("there is no database: set `url` in the section `database`")
        database = self._databases.get(name or MAIN)
        if database is None and name == REPLICA:
            database = self._databases.get(MAIN)
        if database is None:
            known = ", ".join(sorted(self._databases))
            raise ValueError(f"there is no database named {name or MAIN!r}, only {known}")
        return database

    def _watch_for(self, name: str, *, refuses: bool) -> PoolWatch:
        return PoolWatch(
            name,
            refuses=refuses,
            held_s_told=self._held_s_told,
            route_of=self._route_of,
            left_by=self._left_by,
            remaining_us=self._remaining_us,
            lines=self._lines,
            clock=self._clock,
        )

    async def _look(self) -> None:
        while True:
            await anyio.sleep(LOOK_S)
            self.instruments.look()

    async def _ask(self) -> None:  # apart from the loans, as it takes its time
        while True:
            await self._answering.until_due(LOOK_S)
            before = dict(self._answering.unanswered)
            await self._answering.ask_again()
            now = self._answering.unanswered
            if self.tracked is not None and before.keys() - now.keys():
                await self.tracked.read_unknown()
            if before.keys() != now.keys() and self.on_change is not None:
                self.on_change(not now, "; ".join(now.values()))
