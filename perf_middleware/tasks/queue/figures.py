"""What a queue has counted, per task, and its families."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import (
    NO_LABELS,
    OTHER,
    Distribution,
    Family,
    LabelSet,
    Value,
    counter,
    gauge,
)
from perf_middleware.tasks.queue.order import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

US_PER_S: Final = 1_000_000
TASKS_MAX: Final = 200  # further names are counted as "other"
BOUNDS_S: Final = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
BOUNDS_US: Final = tuple(round(bound * US_PER_S) for bound in BOUNDS_S)
EVENTS: Final = {
    "enqueued": "Jobs that were accepted.",
    "started": "Attempts that began.",
    "succeeded": "Jobs that ended well.",
    "failed": "Attempts that raised or took too long.",
    "retried": "Failed attempts that are made again.",
    "cancelled": "Jobs that were cancelled.",
    "dead": "Jobs that failed for good: dead letters.",
    "rejected": "Calls that were not accepted: the queue was full or closed.",
    "joined": "Calls that got a job with their unique key, which was there.",
    "handed_back": "Accepted jobs that the queue did not run before it closed.",
}


class TaskCounts:
    """Plain counters of one task; `waits` and `runs` are counts per bucket of BOUNDS_US."""

    __slots__ = (
        "at_work", "cancelled", "dead", "enqueued", "failed", "handed_back", "joined", "name",
        "rejected", "retried", "run_us", "runs", "started", "succeeded", "wait_us", "waits",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.at_work = 0
        self.reset()

    def reset(self) -> None:
        """Every count back to zero; what is at work is no count."""
        self.enqueued = self.started = self.succeeded = self.failed = self.retried = 0
        self.cancelled = self.dead = self.rejected = self.joined = self.handed_back = 0
        self.wait_us = self.run_us = 0
        self.waits = [0] * (len(BOUNDS_US) + 1)
        self.runs = [0] * (len(BOUNDS_US) + 1)

    def begin(self, waited_us: int) -> None:
        """An attempt begins, `waited_us` after it could have."""
        self.started += 1
        self.at_work += 1
        self.wait_us += waited_us
        self.waits[bisect_left(BOUNDS_US, waited_us)] += 1

    def end(self, ran_us: int) -> None:
        """The attempt ended, however."""
        self.at_work -= 1
        self.run_us += ran_us
        self.runs[bisect_left(BOUNDS_US, ran_us)] += 1

    def status(self) -> dict[str, Any]:
        """The counts, JSON-able."""
        told: dict[str, Any] = {name: getattr(self, name) for name in EVENTS}
        told["in_progress"] = self.at_work
        told["mean_run_s"] = round(self.run_us / self.started / US_PER_S, 6) if self.started else 0
        return told


class QueueCounts:
    """The counts of each task of one queue, TASKS_MAX of them and one for the others."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskCounts] = {}
        self.dead_dropped = 0
        self.abandoned = 0

    def of(self, name: str) -> TaskCounts:
        """The counts of the task `name`."""
        counts = self._tasks.get(name)
        if counts is None:
            if len(self._tasks) >= TASKS_MAX:
                name = OTHER
            counts = self._tasks.setdefault(name, TaskCounts(name))
        return counts

    def all(self) -> list[TaskCounts]:
        """Of every task."""
        return list(self._tasks.values())

    def total(self, event: str) -> int:
        """One of EVENTS, of all tasks."""
        return sum(getattr(counts, event) for counts in self._tasks.values())

    def reset(self) -> None:
        """Every count back to zero."""
        self.dead_dropped = self.abandoned = 0
        for counts in self._tasks.values():
            counts.reset()


def families(
    counts: QueueCounts,
    *,
    waiting: Sequence[int],
    scheduled: int,
    backlog_bytes: int,
    finished: int,
    dead: int,
    threads: int,
) -> Iterable[Family]:
    """The families for a scrape."""
    tasks = counts.all()
    labels = {each.name: LabelSet([("task", each.name)]) for each in tasks}

    def values(field: str) -> list[Value]:
        return [Value(labels[each.name], getattr(each, field)) for each in tasks]

    def distributions(of: Callable[[TaskCounts], tuple[list[int], int]]) -> list[Distribution]:
        points = []
        for each in tasks:
            buckets, sum_us = of(each)
            points.append(
                Distribution(labels[each.name], tuple(accumulate(buckets)), sum_us / US_PER_S)
            )
        return points

    for event, told in EVENTS.items():
        yield counter(f"perf_tasks_{event}", told, values(event))
    yield gauge("perf_tasks_in_progress", "Attempts that are running now.", values("at_work"))
    yield Family(
        name="perf_tasks_wait_seconds", kind="histogram", unit="seconds", bounds=BOUNDS_S,
        help="From when a job could have begun (enqueued, or due) to its attempt.",
        points=distributions(lambda each: (each.waits, each.wait_us)),
    )  # fmt: skip
    yield Family(
        name="perf_tasks_run_seconds", kind="histogram", unit="seconds", bounds=BOUNDS_S,
        help="How long attempts took.",
        points=distributions(lambda each: (each.runs, each.run_us)),
    )  # fmt: skip
    yield gauge(
        "perf_tasks_backlog",
        "Jobs that could begin and wait for a worker, by class.",
        [
            Value(LabelSet([("priority", name)]), count)
            for name, count in zip(PRIORITIES, waiting, strict=True)
        ],
    )
    for name, told, value in (
        ("scheduled", "Jobs that are not due yet: delayed, or tried again later.", scheduled),
        ("finished", "Finished jobs that are kept.", finished),
        ("dead_letters", "Dead letters that are kept.", dead),
        ("threads", "Threads at work, also for jobs that are over.", threads),
    ):
        yield gauge(f"perf_tasks_{name}", told, [Value(NO_LABELS, value)])
    yield gauge(
        "perf_tasks_backlog_bytes",
        "About how many bytes the waiting jobs take.",
        [Value(NO_LABELS, backlog_bytes)],
        unit="bytes",
    )
    for name, told, value in (
        ("dead_dropped", "Dead letters that made room for newer ones.", counts.dead_dropped),
        ("abandoned", "Attempts that went on after they were cancelled.", counts.abandoned),
    ):
        yield counter(f"perf_tasks_{name}", told, [Value(NO_LABELS, value)])
