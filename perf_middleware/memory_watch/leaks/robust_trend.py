"""The slope of a series that outliers do not move, with a confidence interval.

The slope is the median of the slopes between all pairs of points (Theil 1950).  Its interval comes
from the distribution of Kendall's tau: the C slopes next to the median on each side, where C is z
standard deviations of Kendall's S (Sen 1968, section 3; Hollander and Wolfe 1999, chapter 9.3).
Up to 29 % of the points may be anything.  The interval takes the points for independent: of memory
they are not (it wanders), so that it alone proves no leak; verdict.py asks for more.

Sources: H. Theil, A rank-invariant method of linear and polynomial regression analysis (1950);
P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63 (1968).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

POINTS_MAX: Final = 64  # 2,016 pairs: about a millisecond
Z_95: Final = 1.96


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope between the bounds of its interval, in units of y for one of x."""

    slope: float
    low: float
    high: float

    @property
    def is_rising(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low > 0

    def times(self, factor: float) -> Trend:
        """The trend in another unit; `factor` is above 0."""
        return Trend(self.slope * factor, self.low * factor, self.high * factor)


def robust_trend(xs: Sequence[float], ys: Sequence[float], *, z: float = Z_95) -> Trend | None:
    """The trend of `ys` over `xs`; None with fewer than three points or where x stands still.

    Pairs at the same x say nothing and are left out.  Of more than POINTS_MAX points every k-th is
    taken.
    """
    if len(xs) != len(ys):
        raise ValueError(f"one y for each x: {len(xs)} and {len(ys)}")
    if len(xs) > POINTS_MAX:
        step = -(-len(xs) // POINTS_MAX)
        xs, ys = xs[::step], ys[::step]
    count = len(xs)
    if count < 3:
        return None
    slopes = []
    for i in range(count - 1):
        x, y = xs[i], ys[i]
        slopes += [(ys[j] - y) / run for j in range(i + 1, count) if (run := xs[j] - x)]
    if not slopes:
        return None
    slopes.sort()
    pairs = len(slopes)
    middle = pairs // 2
    slope = slopes[middle] if pairs % 2 else (slopes[middle - 1] + slopes[middle]) / 2
    spread = z * sqrt(kendall_variance(xs, ys))
    # Ranks from 1, rounded outwards: the interval is rather too wide.
    below = int((pairs - spread) / 2)
    above = int((pairs + spread) / 2) + 2
    return Trend(
        slope,
        slopes[below - 1] if below >= 1 else -inf,
        slopes[above - 1] if above <= pairs else inf,
    )


def kendall_variance(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The variance of Kendall's S where nothing depends on anything, ties in x and in y heeded.

    Source: M. G. Kendall, Rank Correlation Methods (1975), chapter 4.
    """
    n = len(xs)
    ties_x, ties_y = _ties(xs), _ties(ys)
    variance = (
        n * (n - 1) * (2 * n + 5)
        - sum(t * (t - 1) * (2 * t + 5) for t in ties_x)
        - sum(t * (t - 1) * (2 * t + 5) for t in ties_y)
    ) / 18
    if ties_x and ties_y:
        variance += (
            sum(t * (t - 1) * (t - 2) for t in ties_x)
            * sum(t * (t - 1) * (t - 2) for t in ties_y)
            / (9 * n * (n - 1) * (n - 2))
        )
        variance += (
            sum(t * (t - 1) for t in ties_x) * sum(t * (t - 1) for t in ties_y) / (2 * n * (n - 1))
        )
    return max(0.0, variance)


def _ties(values: Sequence[float]) -> list[int]:
    counts: dict[float, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return [count for count in counts.values() if count > 1]
