"""A hit of the query cache beside the query itself.

    python -m benchmarks.queries
    python -m benchmarks.queries --postgres postgresql+asyncpg://user@127.0.0.1/database

Each row is one call in a session of its own, as in a request: the statement executed, the same from
the cache, and a function that does the same behind a key.  By the clock on the wall: a query waits
for its server, which is what a hit saves.  SQLite is a file, the nearest server there is.
"""

from __future__ import annotations

import gc
import platform
import random
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from benchmarks.figures import costs
from benchmarks.runner import Plan, Report, on_loop, plan_arguments, plan_of, table, write_json
from perf_middleware import ValueCache
from perf_middleware.database.queries.runtime import QueryCache
from perf_middleware.database.tables.drivers.compiled import StatementTables
from perf_middleware.database.tracking.runtime import Tracking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

EXECUTED: Final = "executed"
ORDERS: Final = 100


class Base(DeclarativeBase):
    pass


class Line(Base):
    __tablename__ = "bench_query_lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("bench_query_orders.id"))


class Order(Base):
    __tablename__ = "bench_query_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    amount: Mapped[int]
    lines: Mapped[list[Line]] = relationship(Line)


STATEMENTS: Final = {
    "one object by its key": lambda: select(Order).where(Order.id == 7),
    "ten objects, each with two more": lambda: (
        select(Order).options(selectinload(Order.lines)).limit(10)
    ),
    "a hundred rows of two columns": lambda: select(Order.id, Order.name),
}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[AsyncEngine, QueryCache]]:
    """A database with orders, and a query cache that is told of its commits."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    queries = QueryCache(lambda: [engine.sync_engine])
    tracking = Tracking(lambda _: None)
    tracking.watch(engine.sync_engine, StatementTables(engine.dialect))
    queries.keep_on(ValueCache().asides())
    async with AsyncSession(engine) as session:
        session.add_all(
            [Order(name=f"order {n}", amount=n, lines=[Line(), Line()]) for n in range(ORDERS)]
        )
        await session.commit()
    try:
        yield engine, queries
    finally:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
        await engine.dispose()


def cases_of(
    engine: AsyncEngine, queries: QueryCache, make: Callable[[], Any]
) -> dict[str, Callable[[int], Awaitable[None]]]:
    """The rows of one table."""

    async def executed(count: int) -> None:
        for _ in range(count):
            async with AsyncSession(engine) as session:
                (await session.execute(make())).all()

    async def cached(count: int) -> None:
        for _ in range(count):
            async with AsyncSession(engine) as session:
                (await queries.execute(session, make())).all()

    async def load() -> list[list[Any]]:
        async with AsyncSession(engine) as session:
            return [[str(cell) for cell in row] for row in await session.execute(make())]

    async def named(count: int) -> None:
        for _ in range(count):
            await queries.get_or_execute("orders", load)

    return {EXECUTED: executed, "execute(), a hit": cached, "get_or_execute(), a hit": named}


async def rounds_of(url: str, make: Callable[[], Any], plan: Plan) -> dict[str, list[float]]:
    """Microseconds per call of each case in each round, in an order that changes."""
    async with opened(url) as (engine, queries):
        cases = cases_of(engine, queries, make)
        rounds: dict[str, list[float]] = {name: [] for name in cases}
        order = list(cases)
        shuffle = random.Random(plan.seed).shuffle
        for name in order:
            await cases[name](20)
        until_ns = perf_counter_ns() + round(plan.seconds_max * 1e9)
        for _ in range(plan.rounds):
            shuffle(order)
            for name in order:
                gc.collect()
                began_ns = perf_counter_ns()
                await cases[name](plan.requests)
                rounds[name].append((perf_counter_ns() - began_ns) / plan.requests / 1000)
            if perf_counter_ns() >= until_ns:
                break
        status = queries.status()
        if status["stored"] != 2 or status["bypassed"] or status["unkept"]:
            raise AssertionError(f"these were no hits: {status}")
        return rounds


def reports(plan: Plan, postgres: str | None = None) -> list[Report]:
    """All tables."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        urls = {"SQLite": f"sqlite+aiosqlite:///{Path(directory) / 'bench.db'}"}
        if postgres is not None:
            urls["PostgreSQL"] = postgres
        for server, url in urls.items():
            for title, make in STATEMENTS.items():
                rounds = on_loop(plan.loop, rounds_of(url, make, plan))
                found.append(
                    Report(
                        title=f"{server}, {title}", baseline=EXECUTED, peer=None,
                        rounds=len(rounds[EXECUTED]), requests=plan.requests, loop=plan.loop,
                        python=platform.python_version(),
                        costs=costs(rounds, baseline=EXECUTED),
                    )
                )  # fmt: skip
    return found


def main() -> None:
    defaults = Plan(rounds=20, requests=50, seconds_max=10.0, loop="asyncio")
    parser = plan_arguments(__doc__, defaults=defaults)
    parser.add_argument("--postgres", metavar="URL", help="postgresql+asyncpg://…: of a server")
    options = parser.parse_args()
    found = reports(plan_of(options), options.postgres)
    print("\n\n".join(table(report) for report in found))
    write_json(options.json, found)


if __name__ == "__main__":
    main()
