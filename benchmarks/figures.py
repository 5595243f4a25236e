"""From measured rounds to the figures that are shown: pure, numbers in, numbers out.

Every round measures every case once, one right after the other.  What is compared is compared
within a round, where the machine was equally busy for all, and only then summed up over rounds:

    round      bare   ours   peer      ours - bare    (ours - bare) / (peer - bare)
      1         50     58     82            8                 0.25
      2         90     99    126            9                 0.25         (a busy moment)
      3         51     59     84            8                 0.24
                                  median:   8                 0.25
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some measurements, and the quartiles around it."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one case took: microseconds per request.

    `added_us` and `ratio` compare it with the baseline; `peer_share` compares what it adds with
    what the peer adds, None without a peer or where the peer added nothing.
    """

    name: str
    request_us: Spread
    added_us: Spread
    ratio: float
    peer_share: float | None


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of a single value, that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(low, middle, high)


def costs(
    rounds: Mapping[str, Sequence[float]], *, baseline: str, peer: str | None = None
) -> tuple[Cost, ...]:
    """The cost of each case; `rounds` holds its mean of each round, in microseconds per request.

    Raises ValueError where the cases have not the same number of rounds.
    """
    base = rounds[baseline]
    peer_added = None if peer is None else _differences(rounds[peer], base)
    result = []
    for name, means in rounds.items():
        added = _differences(means, base)
        result.append(
            Cost(
                name=name,
                request_us=spread(means),
                added_us=spread(added),
                ratio=median(mean / of for mean, of in zip(means, base, strict=True)),
                peer_share=None if peer_added is None else _share(added, peer_added),
            )
        )
    return tuple(result)


def _differences(means: Sequence[float], base: Sequence[float]) -> list[float]:
    return [mean - of for mean, of in zip(means, base, strict=True)]


def _share(added: Sequence[float], peer_added: Sequence[float]) -> float | None:
    shares = [ours / theirs for ours, theirs in zip(added, peer_added, strict=True) if theirs > 0]
    return median(shares) if shares else None
