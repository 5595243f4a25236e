"""One run of the load, from meeting all workers to the verdict."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.database.linearizability.faults import Faults
from tests.database.linearizability.history import Read
from tests.database.linearizability.judge import Verdict, judge
from tests.database.linearizability.load import Counts, Load, Pace
from tests.database.linearizability.wire import Wire

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from tests.database.linearizability.history import History
    from tests.database.linearizability.judge import Violation
    from tests.database.linearizability.service import Service, Truth

MEETINGS_MAX = 4_000
TOLD_MAX = 3
LOG_S = 4.0


@dataclass
class Run:
    """What a run did, what was seen, and what is wrong with it."""

    history: History
    counts: Counts
    verdict: Verdict
    wire: Wire
    first_workers: list[int]
    faults: Counter[str]
    dead: int
    """Workers that have ended."""

    def told(self) -> str:
        """In a few lines: whether it was a real test, and how far behind reads were."""
        hits = {worker: tuple(hits) for worker, hits in self.wire.hits.items() if any(hits)}
        unanswered = {write.op for write in self.history.writes if write.outcome == "unknown"}
        left, beside = [0], [0]
        for found in self.verdict.of("backwards"):
            (left if _newer_op(found) in unanswered else beside).append(found.behind_us)
        outcomes = sum(write.outcome == "unknown" for write in self.history.writes)
        return (
            f"{dict(self.counts.asked)}, written {sum(self.counts.written.values())} "
            f"{dict(self.counts.written)}, of unknown outcome {outcomes}, "
            f"lost {dict(self.counts.lost)}, faults {dict(self.faults)}, {self.dead} dead\n"
            f"hits by view {dict(self.counts.hits)}; by worker, from Redis, of queries: {hits}\n"
            f"answered {dict(self.wire.answered)}\n"
            f"found {dict(self.verdict.counts())}, backwards beside a write {len(beside) - 1}, "
            f"by {max(beside) / 1_000:.1f} ms at most; after one that was never answered "
            f"{len(left) - 1}, by {max(left) / 1_000:.1f} ms at most"
        )

    def failure(self, log: str = "") -> str:
        """The violations that must not be, the longest behind first, with what was around them.

        Of the workers' `log` what they said shortly before.
        """
        broken = sorted(self.verdict.broken, key=lambda found: -found.behind_us)
        told = [self.told(), f"{len(broken)} violations, the first of them:"]
        for violation in broken[:TOLD_MAX]:
            begun_s, ended_s = (
                violation.operation.begun_us / 1e6,
                violation.operation.ended_us / 1e6,
            )
            told.append(violation.told(self.history))
            told += [line for line in log.splitlines()
                     if begun_s - LOG_S <= _said_at_s(line) <= ended_s + 1.0]  # fmt: skip
        return "\n".join(told)


def _newer_op(found: Violation) -> int | None:
    """Whose version the earlier read has shown."""
    assert isinstance(found.against, Read)
    return next(seen.op for seen in found.against.seen if seen.key == found.key)


def _said_at_s(line: str) -> float:
    """When a line of the log was written, by the clock of the clients; 0 where it does not say."""
    try:
        return float(line.partition(" ")[0])
    except ValueError:
        return 0.0


async def run_load(
    service: Service, truth: Truth, mode: str, pace: Pace, *, workers: int, seed: int,
    with_faults: bool = False, lacks: Callable[[Load, Wire, set[int]], object] | None = None,
) -> Run:  # fmt: skip
    """Load one mode of the app for as long as `pace` says, and judge what was seen.

    Longer while it `lacks` something, told from the load, the wire and the first workers.
    """
    wire = Wire(service.port, random.Random(seed))
    try:
        met: set[int] = set()
        for _ in range(MEETINGS_MAX):
            met.add((await wire.meet()).worker)
            if len(met) == workers:
                break
            await asyncio.sleep(0.01)
        service.note(met)
        load = Load(wire, mode, pace, await truth.begun(), seed)
        if lacks is not None:
            load.lacks = lambda: lacks(load, wire, met)
        faults = Faults(service, wire, load, seed)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run())
            if with_faults:
                tasks.create_task(faults.run(pace.seconds))
        await truth.end(load.history)
        service.note(wire.answered)
        dead = len(service.dead())
    finally:
        service.note(wire.answered)
        wire.close()
    verdict = judge(load.history)
    return Run(load.history, load.counts, verdict, wire, sorted(met), faults.done, dead)
