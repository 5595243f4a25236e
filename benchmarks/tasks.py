"""What a job of the task queue costs, beside what one would write by hand.

    python -m benchmarks.tasks
    python -m benchmarks.tasks --requests 20000 --rounds 3 --loop asyncio

Each row enqueues so many jobs on one loop and runs them to the last: by a hand-written heap with
workers and a timeout for each, by a task of asyncio for each, by the queue.  CPU time of the
process.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import itertools
import platform
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
from perf_middleware.tasks.queue import QueueLimits, TaskQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Case = Callable[[int], Awaitable[None]]

BASELINE: Final = "heap, workers, asyncio.timeout"
QUEUE: Final = "queue: enqueue and run"
JOBS: Final = 100_000
WORKERS: Final = 16
DRAIN_S: Final = 3_600.0


async def nothing() -> None:
    """A job that does nothing."""


async def by_heap(count: int) -> None:
    """What one writes in twenty lines: an order, workers, a timeout."""
    heap: list[tuple[int, int, Callable[[], Awaitable[None]]]] = []
    numbers = itertools.count()
    is_there, all_done = asyncio.Event(), asyncio.Event()
    done = 0

    async def work() -> None:
        nonlocal done
        while True:
            while not heap:
                is_there.clear()
                await is_there.wait()
            _, _, call = heapq.heappop(heap)
            async with asyncio.timeout(30):
                await call()
            done += 1
            if done == count:
                all_done.set()

    workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
    for _ in range(count):
        heapq.heappush(heap, (2, next(numbers), nothing))
        is_there.set()
    await all_done.wait()
    for worker in workers:
        worker.cancel()


async def by_task(count: int) -> None:
    """A task of asyncio for each job."""
    await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(count)])


def by_queue(call: Callable[..., Any], *args: object, **options: Any) -> Case:
    """The queue, with room for all of them."""

    async def run(count: int) -> None:
        limits = QueueLimits(workers=WORKERS, backlog_max=count, drain_s=DRAIN_S)
        async with TaskQueue(limits) as queue:
            task = queue.task(**options)(call)
            enqueue = task.enqueue
            for _ in range(count):
                await enqueue(*args)
        counts = queue.status()["tasks"][task.name]
        if counts["succeeded"] != count:
            raise AssertionError(f"not all have run: {counts}")

    return run


CASES: Final[dict[str, Case]] = {
    BASELINE: by_heap,
    "a task of asyncio each": by_task,
    QUEUE: by_queue(nothing),
    "... with retries": by_queue(nothing, retries=3),
    "... that waits once": by_queue(asyncio.sleep, 0),
}


async def measured(plan: Plan, now_ns: Callable[[], int]) -> dict[str, list[float]]:
    """Microseconds for each job of each case in each round."""
    rounds: dict[str, list[float]] = {name: [] for name in CASES}
    until_ns = perf_counter_ns() + round(plan.seconds_max * 1e9)
    for _ in range(plan.rounds):
        for name, case in CASES.items():
            gc.collect()
            began_ns = now_ns()
            await case(plan.requests)
            rounds[name].append((now_ns() - began_ns) / plan.requests / 1000)
        if perf_counter_ns() >= until_ns:
            break
    return rounds


def run(plan: Plan) -> Report:
    """The table of this machine."""
    rounds = on_loop(plan.loop, measured(plan, process_time_ns))
    return Report(
        title="jobs of the task queue", baseline=BASELINE, peer=None,
        rounds=len(rounds[BASELINE]), requests=plan.requests, loop=plan.loop,
        python=platform.python_version(), costs=costs(rounds, baseline=BASELINE),
    )  # fmt: skip


def tables(report: Report) -> str:
    """The report as text: the ratios, and jobs in a second."""
    lines = [ratio_table(report, unit="us/job", ratio="x heap"), "", "jobs in a second of CPU:"]
    lines += [
        f"{cost.name:38}{1_000_000 / cost.request_us.median:>11,.0f}" for cost in report.costs
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    chosen = plan_arguments(
        __doc__, defaults=Plan(rounds=5, requests=JOBS, seconds_max=120)
    ).parse_args()
    report = run(plan_of(chosen))
    print(tables(report))
    write_json(chosen.json, [report])


if __name__ == "__main__":
    main()
