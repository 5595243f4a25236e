"""What pools have counted, and the families of all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perf_middleware.families import Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

US_PER_S: Final = 1_000_000

BROKEN: Final = 0
FAILED_CHECK: Final = 1
FAILED_RESET: Final = 2
INTERRUPTED: Final = 3
AGED: Final = 4
USED_UP: Final = 5
IDLE_FOR_LONG: Final = 6
TRIMMED: Final = 7
LOST: Final = 8
POOL_CLOSED: Final = 9
REASONS: Final = (
    "broken", "check", "reset", "interrupted", "age", "uses", "idle", "trim", "lost", "closed",
)  # fmt: skip

STEPS: Final = ("create", "check", "reset", "close")


class PoolCounts:
    """Plain counters of one pool; `removed` by REASONS, `failures` by STEPS."""

    __slots__ = (
        "failures",
        "lends",
        "made",
        "refused",
        "removed",
        "timeouts",
        "wait_us",
        "waits",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.lends = self.waits = self.wait_us = self.timeouts = self.refused = self.made = 0
        self.removed = [0] * len(REASONS)
        self.failures = dict.fromkeys(STEPS, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReading:
    """One pool at one moment."""

    name: str
    size_max: int
    idle: int
    lent: int
    working: int
    waiting: int
    counts: PoolCounts


def pool_families(readings: Sequence[PoolReading]) -> Iterable[Family]:
    """The families for a scrape, with the points of every pool; names should differ."""
    labels = {each.name: LabelSet([("pool", each.name)]) for each in readings}

    def values(field: str) -> list[Value]:
        return [Value(labels[each.name], getattr(each.counts, field)) for each in readings]

    def parted(label: str, of: Iterable[tuple[str, str, float]]) -> list[Value]:
        return [Value(LabelSet([("pool", pool), (label, part)]), value) for pool, part, value in of]

    yield gauge(
        "perf_memory_pool_size_max",
        "How many objects a pool has at most.",
        [Value(labels[each.name], each.size_max) for each in readings],
    )
    yield gauge(
        "perf_memory_pool_objects",
        "Places of a pool that are taken: idle, lent, or being made, checked, reset or closed.",
        parted(
            "state",
            (
                (each.name, state, getattr(each, state))
                for each in readings
                for state in ("idle", "lent", "working")
            ),
        ),
    )
    yield gauge(
        "perf_memory_pool_waiting",
        "Those who wait for an object of a pool.",
        [Value(labels[each.name], each.waiting) for each in readings],
    )
    yield counter("perf_memory_pool_lends", "Objects that a pool has lent.", values("lends"))
    yield counter("perf_memory_pool_waits", "Lends that had to wait in line.", values("waits"))
    yield counter(
        "perf_memory_pool_wait_seconds",
        "Time spent in a pool's line, all waiters together.",
        [Value(labels[each.name], each.counts.wait_us / US_PER_S) for each in readings],
        unit="seconds",
    )
    yield counter(
        "perf_memory_pool_timeouts", "Those who got no object in time.", values("timeouts")
    )
    yield counter(
        "perf_memory_pool_refused", "Those for whom the line was too long.", values("refused")
    )
    yield counter("perf_memory_pool_made", "Objects that were made.", values("made"))
    yield counter(
        "perf_memory_pool_removed",
        "Objects that a pool has let go of, by reason.",
        parted(
            "reason",
            (
                (each.name, reason, count)
                for each in readings
                for reason, count in zip(REASONS, each.counts.removed, strict=True)
            ),
        ),
    )
    yield counter(
        "perf_memory_pool_failures",
        "Calls of create, check, reset and close that failed; a check also by saying no.",
        parted(
            "step",
            (
                (each.name, step, count)
                for each in readings
                for step, count in each.counts.failures.items()
            ),
        ),
    )
