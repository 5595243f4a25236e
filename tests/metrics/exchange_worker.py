"""A worker process for the tests: counts, and answers commands, one JSON line for each.

add N      count N jobs, N seconds and N observations    -> N
scrape     the combined figures                          -> {name{labels}: value}
turn       one turn of the keeper                        -> status
fork       a child that outlives this process            -> its pid
starve     no byte may be written any more               -> 0
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import anyio
import anyio.to_thread

from perf_middleware.families import (
    NO_LABELS,
    Distribution,
    Family,
    LabelSet,
    Value,
    counter,
    gauge,
)
from perf_middleware.metrics.stores.shared import WorkerExchange


class Figures:
    def __init__(self) -> None:
        self.count = 0

    def families(self) -> list[Family]:
        jobs = LabelSet([("route", "/jobs")])
        return [
            counter("jobs", "h", [Value(jobs, self.count)]),
            gauge("in_progress", "h", [Value(NO_LABELS, 1)]),
            gauge("up", "h", [Value(NO_LABELS, 1)], across="each"),
            Family(
                name="took_seconds", kind="histogram", help="h", unit="seconds", bounds=(1.0,),
                points=[Distribution(jobs, [self.count, self.count], self.count * 0.1)],
            ),
        ]  # fmt: skip


def flat(families) -> dict[str, float]:
    found = {}
    for family in families:
        for point in family.points:
            if isinstance(point, Distribution):
                found[f"{family.name}_count"] = point.cumulative[-1]
                found[f"{family.name}_sum"] = point.sum
            else:
                text = point.labels.text
                found[f"{family.name}{{{text}}}" if text else family.name] = point.value
    return found


class Tasks:
    def __init__(self, group) -> None:
        self.group = group

    def start(self, name, run) -> None:
        self.group.start_soon(run, name=name)


async def answer(exchange, figures, command: str, argument: str):
    match command:
        case "add":
            figures.count += int(argument)
            return int(argument)
        case "scrape":
            return flat(await exchange.combined())
        case "turn":
            await exchange._keep_once(exchange._place)
            return exchange.status()
        case "fork":
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            return child
        case "starve":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return 0
        case "feed":
            limit = resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return 0
    raise ValueError(command)


async def main(directory: str, interval_s: float) -> None:
    figures = Figures()

    def own():
        return [*figures.families(), *exchange.families()]

    exchange = WorkerExchange(Path(directory), service="test", own=own, interval_s=interval_s)
    async with anyio.create_task_group() as group:
        await exchange.open(Tasks(group))
        print(json.dumps(os.getpid()), flush=True)
        # Until the pipe is closed or the process is told to go.
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            group.start_soon(until_told, signals, exchange, group.cancel_scope)
            while line := await anyio.to_thread.run_sync(
                sys.stdin.readline, abandon_on_cancel=True
            ):
                command, _, argument = line.strip().partition(" ")
                print(json.dumps(await answer(exchange, figures, command, argument)), flush=True)
        await exchange.close()
        group.cancel_scope.cancel()


async def until_told(signals, exchange, scope) -> None:
    async for _ in signals:
        await exchange.close()
        scope.cancel()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], float(sys.argv[2]), backend=sys.argv[3])
    os._exit(0)  # a thread may still wait for a line
