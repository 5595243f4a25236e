"""What the value cache did, counted by function, and offered at scrape time.

Each call of a cached function ends as one of: a hit, a miss, stale, collapsed, bypassed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import NO_LABELS, OTHER, Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator

FUNCTIONS_MAX: Final = 1_000  # beyond, functions count together as `other`
_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStats:
    """What became of the calls of one function."""

    calls: int
    hits: int
    misses: int
    stale: int
    collapsed: int
    bypassed: int
    errors: int
    uncached: int
    saved_s: float

    @property
    def hit_ratio(self) -> float | None:
        """The share of the calls that did not run the function; None before the first one."""
        return (self.hits + self.stale + self.collapsed) / self.calls if self.calls else None


class FunctionCounts:
    """Plain counters of one function; a hit touches two of them."""

    __slots__ = (
        "bypassed", "collapsed", "errors", "hits", "misses", "saved_us", "stale", "uncached",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.hits = 0
        self.misses = 0
        self.stale = 0
        self.collapsed = 0
        self.bypassed = 0
        self.errors = 0
        self.uncached = 0
        self.saved_us = 0

    @property
    def calls(self) -> int:
        return self.hits + self.misses + self.stale + self.collapsed + self.bypassed

    @property
    def saved_s(self) -> float:
        return self.saved_us / _US_PER_S

    def stats(self) -> FunctionStats:
        return FunctionStats(
            calls=self.calls,
            hits=self.hits,
            misses=self.misses,
            stale=self.stale,
            collapsed=self.collapsed,
            bypassed=self.bypassed,
            errors=self.errors,
            uncached=self.uncached,
            saved_s=self.saved_s,
        )


class ValueFigures:
    """The counters of one value cache."""

    def __init__(self) -> None:
        self.by_function: dict[str, FunctionCounts] = {}
        self.invalidated = 0
        self.store_errors = 0

    def of(self, function: str) -> FunctionCounts:
        """The counts of a function; after FUNCTIONS_MAX, those that all further ones share."""
        counts = self.by_function.get(function)
        if counts is None:
            if len(self.by_function) >= FUNCTIONS_MAX:
                function = OTHER
            counts = self.by_function.setdefault(function, FunctionCounts())
        return counts

    def reset(self) -> None:
        """Every count back to zero, in place: functions hold on to theirs."""
        for counts in self.by_function.values():
            counts.reset()
        self.invalidated = 0
        self.store_errors = 0

    def totals(self) -> dict[str, Any]:
        """The sums over all functions, JSON-able."""
        rows = self.by_function.values()
        calls = sum(row.calls for row in rows)
        spared = sum(row.hits + row.stale + row.collapsed for row in rows)
        return {
            "calls": calls,
            "hits": sum(row.hits for row in rows),
            "misses": sum(row.misses for row in rows),
            "stale": sum(row.stale for row in rows),
            "collapsed": sum(row.collapsed for row in rows),
            "errors": sum(row.errors for row in rows),
            "invalidated": self.invalidated,
            "saved_s": round(sum(row.saved_s for row in rows), 3),
            "hit_ratio": round(spared / calls, 4) if calls else None,
        }

    def families(
        self, *, entries: int, size_bytes: int, bytes_max: int, evictions: int, waiting: int
    ) -> Iterator[Family]:
        """Everything that /metrics tells of a value cache with these sizes."""
        rows = [(LabelSet([("function", name)]), row) for name, row in self.by_function.items()]

        def each(name: str, text: str, of: str, unit: str = "") -> Family:
            points = tuple(Value(label, getattr(row, of)) for label, row in rows)
            return counter(name, text, points, unit=unit)

        yield each("perf_memo_calls", "Calls of cached functions.", "calls")
        yield each("perf_memo_hits", "Those answered from what was kept.", "hits")
        yield each("perf_memo_misses", "Those that ran the function.", "misses")
        yield each("perf_memo_stale", "Those answered stale, as the function failed.", "stale")
        yield each("perf_memo_collapsed", "Those answered by another's run.", "collapsed")
        yield each("perf_memo_bypassed", "Those that were not looked up.", "bypassed")
        yield each("perf_memo_errors", "Runs of the function that failed.", "errors")
        yield each("perf_memo_uncached", "Results that could not be kept.", "uncached")
        yield each(
            "perf_memo_saved_seconds", "What running the functions would have taken.", "saved_s",
            unit="seconds",
        )  # fmt: skip
        for name, text, count in (
            ("perf_memo_invalidated", "Values purged.", self.invalidated),
            ("perf_memo_store_errors", "Times the shared store failed.", self.store_errors),
            ("perf_memo_evictions", "Values let go for room.", evictions),
        ):
            yield counter(name, text, (Value(NO_LABELS, count),))
        for name, text, number in (
            ("perf_memo_entries", "Values in memory.", entries),
            ("perf_memo_bytes", "What they take, about.", size_bytes),
            ("perf_memo_bytes_max", "Room for them.", bytes_max),
            ("perf_memo_waiting", "Calls that wait for another's run.", waiting),
        ):
            yield gauge(name, text, (Value(NO_LABELS, number),))
