"""The stopwatch of one sampled request, handed from layer to layer in its scope.

What it is read for, and how, says metrics/overhead.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from perf_middleware.metrics.overhead import Overhead

OUTSIDE: Final = -1  # the server, the user's middlewares and the app
METER: Final = "perf_middleware.meter"  # the scope's key of a sampled request's LayerMeter


class LayerMeter:
    """One sampled request: which region is running, since when, and what each has spent so far.

    `overhead` is where it will be settled: the stack that these regions are in.  A layer that waits
    for something else than the app goes over to OUTSIDE meanwhile, and back to its `region`.
    """

    __slots__ = ("_since_ns", "overhead", "region", "spent_ns")

    def __init__(self, overhead: Overhead, *, now_ns: int) -> None:
        self.overhead = overhead
        self.spent_ns = [0] * len(overhead)
        self.region = OUTSIDE
        self._since_ns = now_ns

    def cross(self, region: int, now_ns: int) -> None:
        """Control goes over to `region` (a layer's index, or OUTSIDE)."""
        if self.region != OUTSIDE:
            self.spent_ns[self.region] += now_ns - self._since_ns
        self.region = region
        self._since_ns = now_ns
