"""Durations folded into a histogram with fixed bounds, and the largest of a while.

Whole nanoseconds: a collection of the youngest generation lasts a few microseconds, and rounding
each of them down would show in the sum.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from perf_middleware.families import NO_LABELS, Distribution, LabelSet

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


class RollingShare:
    """Which share of the last half to whole window was taken up, in a few numbers.

    The time watched begins with the first span; a share of less than `least_us` is one of
    `least_us`: right after a start one long span is not yet the rule.
    """

    __slots__ = ("_half_us", "_least_us", "_older_us", "_since_us", "_slot", "_young_us")

    def __init__(self, *, window_us: int, least_us: int) -> None:
        if not 1 <= least_us <= window_us // 2:
            raise ValueError(f"least_us must be 1 to half of window_us: {least_us}, {window_us}")
        self._half_us = window_us // 2
        self._least_us = least_us
        self._slot = 0
        self._older_us = 0
        self._young_us = 0
        self._since_us: int | None = None

    def add(self, taken_us: int, now_us: int) -> None:
        """Remember a span of `taken_us` that ends at `now_us`; 0 says only that we watch."""
        if self._since_us is None:
            self._since_us = now_us - taken_us
        slot = now_us // self._half_us
        if slot != self._slot:
            self._older_us = self._young_us if slot == self._slot + 1 else 0
            self._young_us = 0
            self._slot = slot
        # What was before this half of the window belongs to the other one.
        inside_us = min(taken_us, now_us - slot * self._half_us)
        self._young_us += inside_us
        self._older_us = min(self._half_us, self._older_us + taken_us - inside_us)

    def read(self, now_us: int) -> float | None:
        """0.0 to 1.0 at `now_us`, spans still open not included; None where nobody watched."""
        if self._since_us is None:
            return None
        slot = now_us // self._half_us
        kept = {self._slot: (self._older_us, self._young_us), self._slot + 1: (self._young_us, 0)}
        taken_us = sum(kept.get(slot, (0, 0)))
        watched_us = now_us - max(self._since_us, (slot - 1) * self._half_us)
        return min(1.0, taken_us / max(watched_us, self._least_us))
