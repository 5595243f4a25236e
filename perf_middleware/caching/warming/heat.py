"""Which of the stored responses are asked for most: their hits, forgotten by half at each look.

    look 1   a 8 hits           a 8
    look 2   a 8 (none since)   a 4      b 6 hits   b 6
    look 3   a 9 (one since)    a 3      b 2: made anew since, 2 hits    b 5

Nothing is counted on the hot path: a stored response knows its hits, and these are read now and
then.  A response that takes the place of another begins with none, its key keeps its score.
"""

from __future__ import annotations

from heapq import nlargest
from operator import itemgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

REMEMBERED: Final = 0.5
SCORE_MIN: Final = 0.5  # below: one hit, and a look without any


class Heat:
    """The scores of at most `keys_max` keys."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._scores: dict[bytes, float] = {}
        self._hits: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._scores)

    def look(self, readings: Iterable[tuple[bytes, int]]) -> None:
        """Take in the keys of all that is stored, with their hits."""
        scores = {key: score * REMEMBERED for key, score in self._scores.items()}
        hits = {}
        for key, count in readings:
            if not count:
                continue
            before = self._hits.get(key, 0)
            since = count - before if count >= before else count
            scores[key] = scores.get(key, 0.0) + since
            hits[key] = count
        best = nlargest(self._keys_max, scores.items(), key=itemgetter(1))
        self._scores = {key: score for key, score in best if score >= SCORE_MIN}
        self._hits = {key: count for key, count in hits.items() if key in self._scores}

    def hottest(self, count: int) -> list[tuple[bytes, float]]:
        """At most `count` keys with their scores, the hottest first."""
        return nlargest(count, self._scores.items(), key=itemgetter(1))


def is_due(*, now_us: int, born_us: int, fresh_until_us: int, ahead_us: int) -> bool:
    """Whether what is fresh until then is to be renewed now: `ahead_us` before, but not before half
    of its life is over.
    """
    lifetime_us = fresh_until_us - born_us
    if lifetime_us <= 0:
        return False
    return fresh_until_us - now_us <= min(ahead_us, lifetime_us // 2)
