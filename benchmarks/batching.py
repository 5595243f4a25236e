"""What a batched look-up costs, beside a plain call, and what limits and threads cost.

    python -m benchmarks.batching
    python -m benchmarks.batching --requests 20000 --rounds 3 --loop asyncio

Each row looks up so many keys, a hundred at once.  The look-up itself does nothing: a real one goes
to a database and back, and a bulk call saves all of these ways but one.  CPU time of the process.
"""

from __future__ import annotations

import asyncio
import gc
import platform
from time import perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

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
from perf_middleware.tasks.batching import batch_scope, batched
from perf_middleware.tasks.concurrency import WorkerThreads, gather_limited, map_batched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Case = Callable[[int], Awaitable[None]]

PLAIN: Final = "plain call, asyncio.gather"
BATCHED: Final = "batched, asyncio.gather"
AT_ONCE: Final = 100


async def one(key: int) -> int:
    """A look-up without a bulk call."""
    return key


async def bulk(keys: list[int]) -> list[int]:
    """A bulk call that knows all answers."""
    return keys


load = batched(wait_s=0)(bulk)
load_shared = batched(wait_s=0, context="empty")(bulk)
load_remembered = batched(wait_s=0, cache="request")(bulk)
threads = WorkerThreads(limit=4)


def gathered(call: Callable[[int], Awaitable[int]]) -> Case:
    async def look_up(count: int) -> None:
        for first in range(0, count, AT_ONCE):
            await asyncio.gather(*[call(key) for key in range(first, first + AT_ONCE)])

    return look_up


async def by_many(count: int) -> None:
    for first in range(0, count, AT_ONCE):
        await load.many(range(first, first + AT_ONCE))


async def remembered(count: int) -> None:
    with batch_scope():
        await load_remembered(1)
        for _ in range(count):
            await load_remembered(1)


async def limited(count: int) -> None:
    for first in range(0, count, AT_ONCE):
        await gather_limited((one(key) for key in range(first, first + AT_ONCE)), limit=10)


async def mapped(count: int) -> None:
    await map_batched(bulk, range(count), size=AT_ONCE, limit=4)


async def anyio_thread(count: int) -> None:
    for key in range(count // AT_ONCE):
        await anyio.to_thread.run_sync(abs, key)


async def our_thread(count: int) -> None:
    for key in range(count // AT_ONCE):
        await threads.run(abs, key)


CASES: Final[dict[str, Case]] = {
    PLAIN: gathered(one),
    BATCHED: gathered(load),
    "... shared by all (context=empty)": gathered(load_shared),
    "batched, load.many": by_many,
    "batched, remembered in the request": remembered,
    "gather_limited, 10 at once": limited,
    "map_batched": mapped,
}
THREADS: Final[dict[str, Case]] = {
    "anyio.to_thread.run_sync": anyio_thread,
    "to_thread": our_thread,
}


async def measured(
    cases: dict[str, Case], plan: Plan, now_ns: Callable[[], int], *, each: int
) -> dict[str, list[float]]:
    """Microseconds for each of `each` calls of each case in each round."""
    rounds: dict[str, list[float]] = {name: [] for name in cases}
    until_ns = perf_counter_ns() + round(plan.seconds_max * 1e9)
    for _ in range(plan.rounds):
        for name, case in cases.items():
            gc.collect()
            began_ns = now_ns()
            await case(plan.requests)
            rounds[name].append((now_ns() - began_ns) / each / 1000)
        if perf_counter_ns() >= until_ns:
            break
    return rounds


def run(plan: Plan) -> list[Report]:
    """The tables of this machine: look-ups, threads."""
    reports = []
    calls = max(1, plan.requests // AT_ONCE)
    for title, cases, each in (
        ("batched look-ups", CASES, plan.requests),
        ("a call in a thread", THREADS, calls),
    ):
        rounds: Any = on_loop(plan.loop, measured(cases, plan, process_time_ns, each=each))
        baseline = next(iter(cases))
        reports.append(
            Report(
                title=title, baseline=baseline, peer=None, rounds=len(rounds[baseline]),
                requests=each, loop=plan.loop, python=platform.python_version(),
                costs=costs(rounds, baseline=baseline),
            )
        )  # fmt: skip
    return reports


def tables(reports: list[Report]) -> str:
    """The reports as text."""
    return "\n\n".join(ratio_table(report, unit="us/key", ratio="x plain") for report in reports)


def main() -> None:
    """Print the tables."""
    chosen = plan_arguments(
        __doc__, defaults=Plan(rounds=9, requests=20_000, seconds_max=60)
    ).parse_args()
    reports = run(plan_of(chosen))
    print(tables(reports))
    write_json(chosen.json, reports)


if __name__ == "__main__":
    main()
