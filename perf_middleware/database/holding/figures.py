"""What has been counted of one pool, and its families."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from perf_middleware.families import (
    OTHER,
    Distribution,
    Family,
    LabelSet,
    Value,
    counter,
    gauge,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NS_PER_S: Final = 1_000_000_000
NS_PER_US: Final = 1_000
ROUTES_MAX: Final = 200
NO_ROUTE: Final = "none"  # outside of any request: a task, the start
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BOUNDS_NS: Final = tuple(round(bound * NS_PER_S) for bound in BOUNDS_S)
FIRST_NS: Final = BOUNDS_NS[0]
"""No time up to this needs a search for its place: it is the first."""
REFUSALS: Final = ("deadline", "wait")


_GAUGES: Final = (
    ("size", "Connections that the pool keeps.", "size"),
    ("idle", "Connections that are open and not lent.", "idle"),
    ("checked_out", "Connections that are lent.", "lent"),
    ("overflow", "Open connections beyond the size of the pool.", "overflow"),
    ("waiting", "Who waits for a connection.", "waiting"),
)
_COUNTERS: Final = (
    ("loans", "Connections lent.", "loans"),
    ("connections_made", "Connections opened.", "made"),
    ("held_too_long", "Loans that were longer than `held_s_told`.", "told"),
    ("observer_failures", "Steps of the watch itself that raised.", "observer_failures"),
)


class Times:
    """A histogram of times, ns: a division of each would cost more than all the rest."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_ns = 0

    def add(self, ns: int) -> None:
        """One more."""
        self.counts[bisect_left(BOUNDS_NS, ns)] += 1
        self.sum_ns += ns

    @property
    def sum_us(self) -> int:
        """All of them, us."""
        return self.sum_ns // NS_PER_US

    def distribution(self, labels: LabelSet) -> Distribution:
        """For a scrape."""
        return Distribution(labels, tuple(accumulate(self.counts)), self.sum_ns / NS_PER_S)


class PoolCounts:
    """Loans, waits and refusals of one pool since `since_us`."""

    __slots__ = (
        "held",
        "loans",
        "made",
        "most_lent",
        "most_waiting",
        "observer_failures",
        "refused",
        "since_us",
        "told",
        "waited",
        "waits",
    )

    def __init__(self, now_us: int) -> None:
        self.reset(now_us)

    def reset(self, now_us: int) -> None:
        """Every count back to zero."""
        self.since_us = now_us
        self.loans = self.waits = self.made = self.told = 0
        self.most_lent = self.most_waiting = self.observer_failures = 0
        self.waited = Times()
        self.held: dict[str, Times] = {}
        self.refused = dict.fromkeys(REFUSALS, 0)

    def note_held(self, route: str | None, ns: int) -> None:
        """A connection came back; `held` may be added to in its place, where it has the route."""
        name = route or NO_ROUTE
        times = self.held.get(name)
        if times is None:
            if len(self.held) >= ROUTES_MAX:
                name = OTHER
            times = self.held.setdefault(name, Times())
        times.add(ns)

    def held_us(self) -> dict[str, int]:
        """The time that each route held connections, of loans that are over."""
        return {route: times.sum_us for route, times in self.held.items()}


class PoolNow:
    """A pool at one moment; None where its kind of pool does not know."""

    __slots__ = ("idle", "lent", "overflow", "size", "waiting")

    def __init__(
        self, *, size: int | None, idle: int | None, overflow: int | None, lent: int, waiting: int
    ) -> None:
        self.size = size
        self.idle = idle
        self.overflow = overflow
        self.lent = lent
        self.waiting = waiting


def families(pools: Sequence[tuple[str, PoolNow, PoolCounts]]) -> Iterable[Family]:
    """The families of all pools, each under its name."""
    labelled = [(LabelSet([("database", name)]), now, counts) for name, now, counts in pools]
    for name, says, field in _GAUGES:
        values = [(labels, getattr(now, field)) for labels, now, _ in labelled]
        yield gauge(
            f"perf_database_pool_{name}",
            says,
            [Value(labels, value) for labels, value in values if value is not None],
        )
    for name, says, field in _COUNTERS:
        yield counter(
            f"perf_database_pool_{name}",
            says,
            [Value(labels, getattr(counts, field)) for labels, _, counts in labelled],
        )
    yield counter(
        "perf_database_pool_refused",
        "Who got no connection: the wait was over, or would have been longer than the deadline.",
        [
            Value(LabelSet([*labels.pairs, ("reason", reason)]), count)
            for labels, _, counts in labelled
            for reason, count in counts.refused.items()
        ],
    )
    yield Family(
        name="perf_database_pool_wait_seconds",
        kind="histogram",
        help="How long a connection was waited for where none was free.",
        points=[counts.waited.distribution(labels) for labels, _, counts in labelled],
        unit="seconds",
        bounds=BOUNDS_S,
    )
    yield Family(
        name="perf_database_hold_seconds",
        kind="histogram",
        help="How long a connection was held, by route.",
        points=[
            times.distribution(LabelSet([*labels.pairs, ("route", route)]))
            for labels, _, counts in labelled
            for route, times in list(counts.held.items())
        ],
        unit="seconds",
        bounds=BOUNDS_S,
    )
