"""Latency histograms: fine inside, coarse outside.

Requests fall into fine buckets, each about a fifth wider than the one before, so that p50, p95 and
p99 are known within a few per cent.  The exported bounds are among the fine ones, so a scrape only
adds neighbours up and is exact at every exported bound:

    fine      | | | | | | | | | | | | | | |  about 90 from 50 us to 100 s
    exported  |         |           |     |  `le` of the histogram that scrapers see

Counting is one bisection (in C) and one addition.  Nanoseconds, whole: no float drifts.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NS_PER_S = 1_000_000_000
_FINEST_NS = 50_000
_COARSEST_NS = 100 * NS_PER_S
_GROWTH = 1.2


def _fine_bounds_ns() -> list[int]:
    bounds: list[int] = []
    bound = float(_FINEST_NS)
    while bound < _COARSEST_NS:
        bounds.append(round(bound))
        bound *= _GROWTH
    bounds.append(_COARSEST_NS)
    return bounds


class Scale:
    """The fine bounds of a family of histograms, and where the exported bounds stand among them.

    Raises ValueError for exported bounds that are not positive, finite and rising.
    """

    __slots__ = ("_exported_at", "exported_s", "fine_ns", "fine_s")

    def __init__(self, exported_s: Sequence[float]) -> None:
        rising = all(a < b for a, b in pairwise(exported_s))
        longest_ns = exported_s[-1] * NS_PER_S if exported_s else 0.0
        if not exported_s or not rising or exported_s[0] <= 0 or not isfinite(longest_ns):
            raise ValueError(f"bounds must be positive, finite and rising: {exported_s}")
        exported_ns = [round(bound * NS_PER_S) for bound in exported_s]
        self.exported_s = tuple(exported_s)
        self.fine_ns: list[int] = sorted({*_fine_bounds_ns(), *exported_ns})
        self.fine_s = tuple(bound / NS_PER_S for bound in self.fine_ns)
        self._exported_at = [bisect_left(self.fine_ns, bound) for bound in exported_ns]

    def empty(self) -> list[int]:
        """Counts of a histogram that saw nothing: one for each fine bound, one above them all."""
        return [0] * (len(self.fine_ns) + 1)

    def coarsened(self, cumulative: Sequence[int]) -> list[int]:
        """Fine cumulative counts as counts at each exported bound, and the total last (+Inf)."""
        return [*(cumulative[at] for at in self._exported_at), cumulative[-1]]

    def exported_bucket(self, fine_bucket: int) -> int:
        """The index of the exported bucket in which a fine one lies."""
        return bisect_left(self._exported_at, fine_bucket)

    def quantile_s(self, cumulative: Sequence[int], q: float) -> float | None:
        """The value below which the share `q` of the observations lies, in seconds.

        None where nothing was observed.  Interpolated inside a fine bucket, so it is off by at most
        that bucket's width (a fifth of the value); above the last bound, that bound.
        """
        total = cumulative[-1]
        if not total:
            return None
        rank = q * total
        index = bisect_left(cumulative, rank)
        if index >= len(self.fine_ns):
            return self.fine_ns[-1] / NS_PER_S
        low = self.fine_ns[index - 1] if index else 0
        below = cumulative[index - 1] if index else 0
        within = cumulative[index] - below
        share = (rank - below) / within if within else 1.0
        return (low + (self.fine_ns[index] - low) * share) / NS_PER_S
