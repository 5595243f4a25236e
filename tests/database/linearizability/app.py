"""The app of the check: versioned rows, read through a cache and written in all ways.

`LINEAR_MODES` says which caches there are, each with its own paths before the same tables:
`none` (no cache), `ttl` (nothing is purged), `late` (purged, but behind the writer's answer),
`tracked` (the product: answers that are kept) and `queries` (the same, made of queries that are
kept).  Every answer names its process in `x-worker`.

A request may ask for a `x-pause`, in milliseconds: a reader pauses between the database and its
answer, a writer within its transaction, between COMMIT and what follows it, and before its answer.
`x-die: committed` ends the process with SIGKILL right after COMMIT.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fastapi import BackgroundTasks, FastAPI, Header, HTTPException
from sqlalchemy import Table, delete, insert, update
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.util import await_only

from perf_middleware import Settings, cache_response, install
from tests.database.linearizability.tables import GROUPS_MADE, Group, Rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MODES = os.environ.get("LINEAR_MODES", "none").split(",")
TTL_S = 60
PAUSE_MS_MAX = 50
LATE_S = 0.05

# --- between COMMIT and what follows it -----------------------------------------------------------

AFTER_COMMIT: ContextVar[tuple[str, float]] = ContextVar("after_commit", default=("", 0.0))


def _commit(dialect: Any, connection: Any) -> None:
    """On the class, so that whatever the product puts around a commit comes after this."""
    connection.commit()
    do, pause_s = AFTER_COMMIT.get()
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if pause_s:
        await_only(asyncio.sleep(pause_s))


PGDialect_asyncpg.do_commit = _commit  # type: ignore[method-assign]


async def pause(most_ms: int) -> None:
    if most_ms:
        await asyncio.sleep(random.uniform(0, min(most_ms, PAUSE_MS_MAX) / 1_000))


# --- the log: by the clock of the clients, so that it can be laid beside what they saw ------------


class MonotonicFormatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return f"{time.monotonic():.6f}"


_handler = logging.StreamHandler()
_handler.setFormatter(MonotonicFormatter("%(asctime)s %(process)d %(name)s: %(message)s"))
logging.getLogger("perf_middleware").addHandler(_handler)
logging.getLogger("perf_middleware").setLevel(logging.INFO)

# --- the app --------------------------------------------------------------------------------------

app = FastAPI()
perf = install(app, Settings())


def query_hits() -> int:
    """Of the query cache; 0 without one."""
    return perf.database.queries.status()["hits"] if "queries" in MODES else 0


async def served(scope: Any, receive: Any, send: Any) -> None:
    """The app, with the name of this process and what its cache has done on every answer."""

    async def telling(message: Any) -> None:
        if message["type"] == "http.response.start":
            rows = perf.cache.figures.by_route.values()
            hits, shared = sum(row.hits for row in rows), sum(row.shared_hits for row in rows)
            message["headers"] = [
                *message["headers"],
                (b"x-worker", b"%d" % os.getpid()),
                (b"x-hits", b"%d %d %d" % (hits, shared, query_hits())),
            ]
        await send(message)

    await app(scope, receive, telling)


@app.get("/hello")
async def hello() -> str:
    return "hello"


async def uncached_rows(session: Any, statement: Any) -> Any:
    return (await session.execute(statement)).all()


async def queried_rows(session: Any, statement: Any) -> Any:
    """Through the query cache."""
    return (await perf.database.queries.execute(session, statement)).all()


class Mode:
    """One kind of cache: how answers are marked, how pages are read, what follows a write."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows_of: Callable[[Any, Any], Awaitable[Any]] = (
            queried_rows if name == "queries" else uncached_rows
        )

    def cached(self, endpoint: Any) -> Any:
        match self.name:
            case "none":
                return endpoint
            case "ttl":
                return cache_response(ttl=TTL_S)(endpoint)
            case "late":
                return cache_response(ttl=TTL_S, tags=["late:{g}"])(endpoint)
            case "tracked" | "queries":
                return cache_response(ttl=TTL_S, tracked=True)(endpoint)  # type: ignore[call-arg]
        raise ValueError(f"LINEAR_MODES: {self.name!r} is none")

    def after(self, group: Group, tasks: BackgroundTasks) -> None:
        async def purge() -> None:
            await asyncio.sleep(LATE_S)
            await perf.cache.purge(tags=[f"late:{group.number}"])

        if self.name == "late":
            tasks.add_task(purge)


def add_views(mode: Mode) -> None:
    async def answer(x_pause: int, rows: Rows) -> dict[str, Any]:
        await pause(x_pause)
        return {"rows": rows}

    @app.get(f"/{mode.name}/{{g}}/book/{{n}}")
    @mode.cached
    async def book(g: int, n: int, x_pause: int = Header(0)) -> dict[str, Any]:
        group = GROUPS_MADE[g]
        async with perf.database.session() as session:
            found = await session.get(group.Book, n)
        rows = [] if found is None else [(found.id, found.version, found.op)]
        return await answer(x_pause, group.rows("b", rows))

    @app.get(f"/{mode.name}/{{g}}/books")
    @mode.cached
    async def books(g: int, x_pause: int = Header(0)) -> dict[str, Any]:
        group = GROUPS_MADE[g]
        async with perf.database.session() as session:
            found = await uncached_rows(session, group.all_books)
        return await answer(x_pause, group.rows("b", found))

    @app.get(f"/{mode.name}/{{g}}/totals")
    @mode.cached
    async def totals(g: int, x_pause: int = Header(0)) -> dict[str, Any]:
        group = GROUPS_MADE[g]
        async with perf.database.session() as session:
            found = await uncached_rows(session, group.totals)
        loans = group.rows("l", [(row[0], row[3], row[4]) for row in found])
        return await answer(x_pause, group.rows("b", found) + loans)

    async def both(group: Group, session: Any) -> Rows:
        books = await mode.rows_of(session, group.all_books)
        loans = await mode.rows_of(session, group.all_loans)
        return group.rows("b", books) + group.rows("l", loans)

    @app.get(f"/{mode.name}/{{g}}/page")
    async def page(g: int, x_pause: int = Header(0)) -> dict[str, Any]:
        """Made of two queries, and not kept itself."""
        async with perf.database.session() as session:
            rows = await both(GROUPS_MADE[g], session)
        return await answer(x_pause, rows)

    @app.get(f"/{mode.name}/{{g}}/report")
    @mode.cached
    async def report(g: int, x_pause: int = Header(0)) -> dict[str, Any]:
        """The same, kept: it depends on what the queries that were kept depend on."""
        async with perf.database.session() as session:
            rows = await both(GROUPS_MADE[g], session)
        return await answer(x_pause, rows)

    @app.post(f"/{mode.name}/{{g}}/{{how}}/{{n}}")
    async def write(
        g: int, how: str, n: int, op: int, tasks: BackgroundTasks,
        x_pause: int = Header(0), x_die: str = Header(""),
    ) -> dict[str, Any]:  # fmt: skip
        group = GROUPS_MADE[g]
        after_commit_s = random.choice([0, x_pause]) / 2_000
        AFTER_COMMIT.set(("die" if x_die == "committed" else "", after_commit_s))
        writing = Writing(group, n, op, x_pause, lambda session: both(group, session))
        try:
            async with perf.database.session() as session:
                await WRITERS[how](writing, session)
                await pause(x_pause)
        except NotThereError:
            raise HTTPException(409, "not there") from None
        except TakenBackError:
            await pause(x_pause)
            raise HTTPException(409, "rolled back") from None
        mode.after(group, tasks)
        await pause(x_pause)
        return {"wrote": writing.wrote, "replaced": writing.replaced}


class NotThereError(Exception):
    """The row is gone, or has come back: nothing is written."""


class TakenBackError(Exception):
    """The transaction is rolled back as it was asked for."""


class Writing:
    """One write: of which row, and which versions it has made."""

    def __init__(
        self, group: Group, n: int, op: int, pause_ms: int,
        look: Callable[[Any], Awaitable[Rows]],
    ) -> None:  # fmt: skip
        self.group = group
        self.n = n
        self.op = op
        self.pause_ms = pause_ms
        self.look = look
        self.wrote: list[tuple[str, int, bool]] = []
        self.replaced: list[tuple[str, int, int]] = []

    def note(self, kind: str, version: int | None, *, is_there: bool = True) -> None:
        if version is None:
            raise NotThereError
        self.wrote.append((f"{self.group.number}{kind}{self.n}", version, is_there))

    async def update(self, session: Any, table: Table) -> int | None:
        """Core's: the new version."""
        statement = (
            update(table)
            .where(table.c.id == self.n)
            .values(version=table.c.version + 1, op=self.op)
            .returning(table.c.version)
        )
        found: int | None = (await session.execute(statement)).scalar()
        return found


async def by_orm(writing: Writing, session: Any) -> None:
    book = await session.get(writing.group.Book, writing.n, with_for_update=True)
    if book is None:
        raise NotThereError
    book.version += 1
    book.op = writing.op
    await session.flush()
    writing.note("b", book.version)


async def by_core(writing: Writing, session: Any) -> None:
    writing.note("b", await writing.update(session, writing.group.books))


async def by_text(writing: Writing, session: Any) -> None:
    number = writing.group.number
    found = await session.execute(
        sql(f"UPDATE loans{number} SET version = version + 1, op = :op WHERE id = :n "
            "RETURNING version"),
        {"op": writing.op, "n": writing.n},
    )  # fmt: skip
    writing.note("l", found.scalar())


async def of_two_tables(writing: Writing, session: Any) -> None:
    writing.note("b", await writing.update(session, writing.group.books))
    await pause(writing.pause_ms)
    writing.note("l", await writing.update(session, writing.group.loans))


async def taken_back(writing: Writing, session: Any) -> None:
    """Looks at its own rows before they go: nobody else may see them."""
    writing.note("b", await writing.update(session, writing.group.books))
    await writing.look(session)
    await pause(writing.pause_ms)
    raise TakenBackError


async def to_savepoint(writing: Writing, session: Any) -> None:
    """The book is taken back, the loan stays."""
    savepoint = await session.begin_nested()
    await writing.update(session, writing.group.books)
    await writing.look(session)
    await savepoint.rollback()
    writing.note("l", await writing.update(session, writing.group.loans))


async def as_new_row(writing: Writing, session: Any) -> None:
    books = writing.group.books
    found = await session.execute(
        delete(books).where(books.c.id == writing.n).returning(books.c.version)
    )
    version = found.scalar()
    if version is None:
        raise NotThereError
    await pause(writing.pause_ms)
    await session.execute(insert(books).values(id=writing.n, version=version + 1, op=writing.op))
    writing.note("b", version + 1)


async def away(writing: Writing, session: Any) -> None:
    books = writing.group.books
    found = await session.execute(
        delete(books).where(books.c.id == writing.n).returning(books.c.version)
    )
    version = found.scalar()
    if version is None:
        raise NotThereError
    graves = writing.group.graves
    await session.execute(insert(graves).values(id=writing.n, version=version + 1, op=writing.op))
    writing.note("b", version + 1, is_there=False)


async def back(writing: Writing, session: Any) -> None:
    graves, books = writing.group.graves, writing.group.books
    found = await session.execute(
        delete(graves).where(graves.c.id == writing.n).returning(graves.c.version, graves.c.op)
    )
    row = found.first()
    if row is None:
        raise NotThereError
    await session.execute(
        insert(books).values(id=writing.n, version=row.version + 1, op=writing.op)
    )
    writing.note("b", row.version + 1)
    writing.replaced.append((writing.wrote[0][0], row.version, row.op))


WRITERS: dict[str, Callable[[Writing, Any], Awaitable[None]]] = {
    "orm": by_orm,
    "core": by_core,
    "text": by_text,
    "two": of_two_tables,
    "taken_back": taken_back,
    "savepoint": to_savepoint,
    "new_row": as_new_row,
    "away": away,
    "back": back,
}

for _name in MODES:
    add_views(Mode(_name))
