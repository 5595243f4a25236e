"""Durations folded into a histogram with fixed bounds, and the largest of a while.

Whole nanoseconds: a collection of the youngest generation lasts a few microseconds, and rounding
each of them down would show in the sum.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from perf_middleware.metrics.families import NO_LABELS, Distribution, LabelSet

if TYPE_CHECKING:
    from collections.abc import Sequence

NS_PER_S = 1_000_000_000


class Durations:
    """How many durations fell under each bound; `bounds_s` are upper bounds that belong to theirs.

    One thread writes, any may read: a reader sees a duration at most once, perhaps one late.
    """

    __slots__ = ("_bounds_ns", "_counts", "bounds_s", "longest_ns", "sum_ns")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        if not bounds_s or any(a >= b for a, b in pairwise(bounds_s)):
            raise ValueError(f"bounds must be rising: {bounds_s}")
        self.bounds_s = tuple(bounds_s)
        self._bounds_ns = [round(bound_s * NS_PER_S) for bound_s in bounds_s]
        self._counts = [0] * (len(bounds_s) + 1)
        self.sum_ns = 0
        self.longest_ns = 0

    @property
    def count(self) -> int:
        """How many durations there were."""
        return sum(self._counts)

    def observe(self, duration_ns: int) -> None:
        """Count one duration; a negative one is a clock's jitter and counts as none."""
        duration_ns = max(duration_ns, 0)
        self._counts[bisect_left(self._bounds_ns, duration_ns)] += 1
        self.sum_ns += duration_ns
        if duration_ns > self.longest_ns:
            self.longest_ns = duration_ns

    def distribution(self, labels: LabelSet = NO_LABELS) -> Distribution:
        """The point that a histogram family carries, seconds."""
        return Distribution(labels, tuple(accumulate(self._counts)), self.sum_ns / NS_PER_S)


class RollingMax:
    """The largest value of the last half to whole window, in two numbers and no history."""

    __slots__ = ("_half_us", "_older", "_slot", "_young")

    def __init__(self, *, window_us: int) -> None:
        if window_us < 2:
            raise ValueError(f"window_us must be >= 2: {window_us}")
        self._half_us = window_us // 2
        self._slot = 0
        self._young = 0
        self._older = 0

    def add(self, value: int, now_us: int) -> None:
        """Remember `value`, seen at `now_us`."""
        self._turn(now_us)
        self._young = max(self._young, value)

    def read(self, now_us: int) -> int:
        """The largest value that is not too old at `now_us`; 0 where there is none."""
        slot = now_us // self._half_us
        if slot == self._slot:
            return max(self._young, self._older)
        return self._young if slot == self._slot + 1 else 0

    def _turn(self, now_us: int) -> None:
        slot = now_us // self._half_us
        if slot != self._slot:
            self._older = self._young if slot == self._slot + 1 else 0
            self._young = 0
            self._slot = slot
