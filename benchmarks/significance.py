"""Is head slower than base?  Pure: paired log ratios in, a verdict out.

    pair of processes      1      2      3     ...      12        each launched anew
    log(head / base)    +.021  -.004  +.013           +.010       a median of many short rounds

What is independent is a pair of launched processes, not a round: a process keeps its memory layout
and the order of its hashes to its end, so that two launches of one and the same code differ by
some percent, however many rounds each of them runs (Kalibera, Jones, "Rigorous Benchmarking in
Reasonable Time", ISMM 2013; Mytkowicz and others, "Producing Wrong Data Without Doing Anything
Obviously Wrong!", ASPLOS 2009).  Hence the pairs are the sample, and it is a small one.

- Test: Wilcoxon's signed ranks (1945), two-sided, from the exact distribution.  A bootstrap of ten
  values covers too little, a t test lets one outlier decide, and Mann-Whitney would forget what
  ran beside what.
- Estimate and interval: Hodges and Lehmann's median of the Walsh averages, and those of them that
  the same test does not refuse (Hollander, Wolfe, Chicken, "Nonparametric Statistical Methods",
  3rd ed., sections 3.1 to 3.3).
- Several cases: Holm's step-down adjustment (1979): the chance of any false alarm is `alpha`.
- A regression is significant and, by the lower end of its interval, larger than matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Outcome = Literal["slower", "faster", "same"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What counts: `alpha` for all cases together; `threshold` is the ratio's excess over 1."""

    alpha: float = 0.05
    threshold: float = 0.03

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.threshold < 0:
            raise ValueError(f"alpha is a probability, threshold not negative: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one case came to.  `ratio` is head / base, `low` and `high` its interval at 1 - alpha.

    `p` is the case's own, `p_holm` adjusted for all of them.
    """

    ratio: float
    low: float
    high: float
    p: float
    p_holm: float
    outcome: Outcome


def verdicts(log_ratios: Mapping[str, Sequence[float]], bar: Bar) -> dict[str, Verdict]:
    """Judge every case by its pairs' log(head / base).  Raises ValueError for one without any."""
    ps = {name: signed_rank_p(values) for name, values in log_ratios.items()}
    adjusted = dict(zip(ps, holm([*ps.values()]), strict=True))
    result = {}
    for name, values in log_ratios.items():
        low, high = interval(values, alpha=bar.alpha)
        result[name] = Verdict(
            ratio=math.exp(hodges_lehmann(values)),
            low=math.exp(low),
            high=math.exp(high),
            p=ps[name],
            p_holm=adjusted[name],
            outcome=_outcome(low, high, adjusted[name], bar),
        )
    return result


def _outcome(low: float, high: float, p_holm: float, bar: Bar) -> Outcome:
    if p_holm > bar.alpha:
        return "same"
    if low > math.log1p(bar.threshold):
        return "slower"
    if high < -math.log1p(bar.threshold):
        return "faster"
    return "same"


def pairs_min(alpha: float, cases: int) -> int:
    """The fewest pairs with which any of so many cases can be found significant."""
    pairs = 1
    while 2.0 ** (1 - pairs) * cases > alpha:
        pairs += 1
    return pairs


def signed_rank_p(values: Sequence[float]) -> float:
    """How likely ranks so one-sided are where the values lie evenly around zero.

    Zeros say nothing and are left out; equal sizes share their ranks' mean.
    """
    sizes = sorted((abs(value), value > 0) for value in values if value)
    if not sizes:
        return 1.0
    doubled = _doubled_ranks([size for size, _ in sizes])
    above = sum(rank for rank, (_, is_above) in zip(doubled, sizes, strict=True) if is_above)
    least = min(above, sum(doubled) - above)
    ways = _ways(doubled)
    return min(1.0, sum(ways[: least + 1]) / 2.0 ** (len(doubled) - 1))


def hodges_lehmann(values: Sequence[float]) -> float:
    """The centre of the values: the median of all pairs' means."""
    return median(_walsh(values))


def interval(values: Sequence[float], *, alpha: float) -> tuple[float, float]:
    """The centres that the test does not refuse at `alpha`; infinite where there are too few."""
    averages = _walsh(values)
    ways = _ways([2 * rank for rank in range(1, len(values) + 1)])
    total, tail, below = 2.0 ** len(values), 0.0, 0
    for rank_sum in range(len(averages)):
        tail += ways[2 * rank_sum] / total
        if tail > alpha / 2:
            break
        below = rank_sum + 1
    if not below:
        return -math.inf, math.inf
    return averages[below - 1], averages[-below]


def holm(ps: Sequence[float]) -> list[float]:
    """Each p adjusted for their number, in the order given."""
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, ps[index] * (len(ps) - place)))
        adjusted[index] = largest
    return adjusted


def _walsh(values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError("no pair was measured")
    return sorted(
        (value + other) / 2 for place, value in enumerate(values) for other in values[place:]
    )


def _doubled_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the rank of each of the sorted sizes: whole numbers, also where some are equal."""
    first = {size: place for place, size in reversed([*enumerate(sizes, start=1)])}
    last = {size: place for place, size in enumerate(sizes, start=1)}
    return [first[size] + last[size] for size in sizes]


def _ways(ranks: Sequence[int]) -> list[int]:
    """How many of the choices of signs give each sum of the ranks that are above zero."""
    ways = [1] + [0] * sum(ranks)
    for rank in ranks:
        for reached in range(len(ways) - 1, rank - 1, -1):
            ways[reached] += ways[reached - rank]
    return ways
