"""What worker threads and processes have counted, and the families of all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perf_middleware.families import Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

US_PER_S: Final = 1_000_000

COUNTED: Final = (
    ("calls", "Calls that a worker has begun."),
    ("failed", "Calls that raised."),
    ("waits", "Calls that had to wait for a free worker."),
    ("timeouts", "Calls that found no worker, or were not done, in time."),
    ("refused", "Calls for which too many waited already."),
    ("abandoned", "Calls in threads that went on after nobody waited for them any more."),
    ("died", "Worker processes that died under a call."),
)


class WorkerCounts:
    """Plain counters of one set of workers, of all its event loops."""

    __slots__ = (*(name for name, _ in COUNTED), "run_us", "wait_us")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.calls = self.failed = self.waits = self.timeouts = self.refused = 0
        self.abandoned = self.died = self.run_us = self.wait_us = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersReading:
    """One set of workers at one moment; `limit` is that of each event loop."""

    name: str
    limit: int
    in_progress: int
    waiting: int
    counts: WorkerCounts


def worker_families(readings: Sequence[WorkersReading]) -> Iterable[Family]:
    """The families for a scrape, with the points of every set; names should differ."""
    labels = {each.name: LabelSet([("workers", each.name)]) for each in readings}
    for name, help_text in (
        ("limit", "Workers that may run at once in each event loop."),
        ("in_progress", "Workers that run a call."),
        ("waiting", "Calls that wait for a free worker."),
    ):
        yield gauge(
            f"perf_workers_{name}",
            help_text,
            [Value(labels[each.name], getattr(each, name)) for each in readings],
        )
    for name, help_text in COUNTED:
        yield counter(
            f"perf_workers_{name}",
            help_text,
            [Value(labels[each.name], getattr(each.counts, name)) for each in readings],
        )
    for name, help_text in (
        ("wait", "Time spent waiting for a free worker, all calls together."),
        ("run", "Time that calls took, all together."),
    ):
        yield counter(
            f"perf_workers_{name}_seconds",
            help_text,
            [
                Value(labels[each.name], getattr(each.counts, f"{name}_us") / US_PER_S)
                for each in readings
            ],
            unit="seconds",
        )
