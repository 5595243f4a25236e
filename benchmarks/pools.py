"""What an object of a pool costs, beside making one each time.

    python -m benchmarks.pools
    python -m benchmarks.pools --postgres postgresql://user@127.0.0.1/database

Each row is one use of an object: made and thrown away, or lent and given back.  The last table is
of real connections, and counts time on the wall: most of it is the server's.
"""

from __future__ import annotations

import asyncio
import platform
import random
from dataclasses import replace
from time import perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING, Any, Final

from benchmarks.figures import costs
from benchmarks.runner import (
    Plan,
    Report,
    on_loop,
    plan_arguments,
    plan_of,
    ratio_table,
    write_json,
)
from perf_middleware.memory_watch.pools import AsyncObjectPool, ObjectPool

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence

BUFFER_BYTES: Final = 1 << 20
PLAIN: Final = "made each time"


class Small:
    """A plain object: nothing about it is dear."""

    __slots__ = ("__weakref__", "number", "text")

    def __init__(self) -> None:
        self.number = 0
        self.text = ""


def made(create: Callable[[], Any]) -> Callable[[int], Awaitable[None]]:
    async def use(count: int) -> None:
        for _ in range(count):
            create()

    return use


def lent(pool: AsyncObjectPool[Any]) -> Callable[[int], Awaitable[None]]:
    async def use(count: int) -> None:
        for _ in range(count):
            async with pool.lend():
                pass

    return use


def taken(pool: AsyncObjectPool[Any]) -> Callable[[int], Awaitable[None]]:
    async def use(count: int) -> None:
        for _ in range(count):
            await pool.release(await pool.acquire())

    return use


def lent_to_threads(pool: ObjectPool[Any]) -> Callable[[int], Awaitable[None]]:
    async def use(count: int) -> None:
        for _ in range(count):
            with pool.lend():
                pass

    return use


def queued(queue: asyncio.Queue[Any]) -> Callable[[int], Awaitable[None]]:
    async def use(count: int) -> None:
        for _ in range(count):
            queue.put_nowait(await queue.get())

    return use


async def rounds_of(
    cases: dict[str, Callable[[int], Awaitable[None]]], plan: Plan, now_ns: Callable[[], int]
) -> dict[str, list[float]]:
    """Microseconds per use of each case in each round, in an order that changes."""
    rounds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    shuffle = random.Random(plan.seed).shuffle
    until_ns = perf_counter_ns() + round(plan.seconds_max * 1e9)
    for name in order:
        await cases[name](plan.requests)
    for _ in range(plan.rounds):
        shuffle(order)
        for name in order:
            began_ns = now_ns()
            await cases[name](plan.requests)
            rounds[name].append((now_ns() - began_ns) / plan.requests / 1000)
        if perf_counter_ns() >= until_ns:
            break
    return rounds


def report_of(title: str, rounds: dict[str, list[float]], plan: Plan) -> Report:
    return Report(
        title=title, baseline=PLAIN, peer=None, rounds=len(rounds[PLAIN]), requests=plan.requests,
        loop=plan.loop, python=platform.python_version(), costs=costs(rounds, baseline=PLAIN),
    )  # fmt: skip


async def objects(create: Callable[[], Any], plan: Plan) -> dict[str, list[float]]:
    """One kind of object, in each of the ways."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    queue.put_nowait(create())
    named: AsyncObjectPool[Any] = AsyncObjectPool(create, size_max=4, names_holders=True)
    reset: AsyncObjectPool[Any] = AsyncObjectPool(create, size_max=4, reset=_nothing)
    async with AsyncObjectPool(create, size_max=4) as pool, named, reset:
        with ObjectPool(create, size_max=4) as threads:
            cases = {
                PLAIN: made(create),
                "asyncio.Queue: get, put_nowait": queued(queue),
                "AsyncObjectPool: acquire, release": taken(pool),
                "AsyncObjectPool: lend": lent(pool),
                "  with a reset": lent(reset),
                "  with names_holders": lent(named),
                "ObjectPool: lend": lent_to_threads(threads),
            }
            return await rounds_of(cases, plan, process_time_ns)


def _nothing(thing: object) -> None:
    """A reset that has nothing to do."""


async def connections(url: str, plan: Plan) -> dict[str, list[float]]:
    """`select 1` on a connection of its own, of a pool, and of asyncpg's own pool."""
    import asyncpg

    async def connect() -> Any:
        return await asyncpg.connect(url)

    async def each_time(count: int) -> None:
        for _ in range(count):
            connection = await connect()
            await connection.fetchval("select 1")
            await connection.close()

    async def kept(count: int) -> None:
        for _ in range(count):
            await single.fetchval("select 1")

    def pooled(pool: Any) -> Callable[[int], Awaitable[None]]:
        async def use(count: int) -> None:
            for _ in range(count):
                async with pool() as connection:
                    await connection.fetchval("select 1")

        return use

    def pool_of(**options: Any) -> AsyncObjectPool[Any]:
        return AsyncObjectPool(connect, size_max=4, close=lambda c: c.close(), **options)

    reset = pool_of(reset=lambda c: c.reset())
    checked = pool_of(
        reset=lambda c: c.reset(), check=lambda c: c.fetchval("select 1"), check_after_idle_s=0
    )
    single = await connect()
    own = await asyncpg.create_pool(url, min_size=0, max_size=4)
    async with pool_of() as plain, reset, checked:
        cases = {
            PLAIN: each_time,
            "one that is kept, no pool": kept,
            "AsyncObjectPool": pooled(plain.lend),
            "  with a reset": pooled(reset.lend),
            "  and a check each time": pooled(checked.lend),
            "asyncpg's own pool (it resets)": pooled(own.acquire),
        }
        rounds = await rounds_of(cases, plan, perf_counter_ns)
    await own.close()
    await single.close()
    return rounds


def run(plan: Plan, url: str | None = None) -> list[Report]:
    """One report for each table; that of connections where there is a server."""
    kinds = {
        "a small object": Small,
        f"bytearray({BUFFER_BYTES})": lambda: bytearray(BUFFER_BYTES),
    }
    reports = [
        report_of(title, on_loop(plan.loop, objects(create, plan)), plan)
        for title, create in kinds.items()
    ]
    if url is not None:
        few = replace(plan, requests=max(1, plan.requests // 20))
        told = on_loop(plan.loop, connections(url, few))
        reports.append(report_of("select 1 on a PostgreSQL connection", told, few))
    return reports


def tables(reports: Sequence[Report]) -> str:
    """The reports for a terminal."""
    return "\n\n".join(ratio_table(each, unit="us/use", ratio="x made") for each in reports)


def options() -> argparse.Namespace:
    parser = plan_arguments(__doc__, defaults=Plan(rounds=50, requests=200, seconds_max=10))
    parser.add_argument("--postgres", metavar="URL", help="of a server for the last table")
    return parser.parse_args()


def main() -> None:
    """Print every table."""
    chosen = options()
    reports = run(plan_of(chosen), chosen.postgres)
    print(tables(reports))
    write_json(chosen.json, reports)


if __name__ == "__main__":
    main()
