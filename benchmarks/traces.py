"""Requests for keys, drawn from a seed: the traces on which ways to evict are compared.

A trace is the list of keys asked for, what each weighs, and the room that a cache has for them.
Keys are whole numbers; popular ones are spread, so that their order says nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

UNIT_BYTES = 1_000  # of an entry where all weigh the same
KIB = 1024
UNBOUNDED = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The keys asked for, in order, and a cache's room."""

    name: str
    requests: Sequence[int]
    entries_max: int
    bytes_max: int = UNBOUNDED
    sizes: Mapping[int, int] | None = None  # UNIT_BYTES each without

    def size_of(self, key: int) -> int:
        """What the entry of `key` weighs."""
        return UNIT_BYTES if self.sizes is None else self.sizes[key]


@lru_cache(maxsize=8)
def _zipf_cumulative(keys: int, alpha: float) -> list[float]:
    return list(accumulate(rank**-alpha for rank in range(1, keys + 1)))


def zipf(keys: int, alpha: float, requests: int, random: Random) -> list[int]:
    """Keys below `keys`, the one of rank r asked for in proportion to r ** -alpha."""
    cumulative = _zipf_cumulative(keys, alpha)
    named = list(range(keys))
    random.shuffle(named)
    total = cumulative[-1]
    draw = random.random
    return [named[bisect_left(cumulative, draw() * total)] for _ in range(requests)]


def with_scans(
    requests: Sequence[int], random: Random, *, length: int, every: int, first: int
) -> list[int]:
    """`requests` with a scan of `length` new keys, from `first` on, about every so many of them."""
    result: list[int] = []
    for at in range(0, len(requests), every):
        cut = at + random.randrange(every)
        result += requests[at:cut]
        result += range(first, first + length)
        first += length
        result += requests[cut : at + every]
    return result


def loop(keys: int, requests: int) -> list[int]:
    """The same keys in the same order over and over."""
    return [at % keys for at in range(requests)]


def shifting(
    keys: int, alpha: float, requests: int, random: Random, *, shifts: int, overlap: bool
) -> list[int]:
    """Zipf whose ranks are dealt anew `shifts` times; with `overlap` only a half of the keys'."""
    each = requests // (shifts + 1)
    cumulative = _zipf_cumulative(keys, alpha)
    total = cumulative[-1]
    named = list(range(keys))
    random.shuffle(named)
    result: list[int] = []
    for _ in range(shifts + 1):
        draw = random.random
        result += [named[bisect_left(cumulative, draw() * total)] for _ in range(each)]
        if overlap:
            moved = random.sample(range(keys), keys // 2)
            values = [named[at] for at in moved]
            random.shuffle(values)
            for at, value in zip(moved, values, strict=True):
                named[at] = value
        else:
            random.shuffle(named)
    return result


def drifting(
    requests: int, random: Random, *, window: int, every: int, alpha: float = 0.8
) -> list[int]:
    """News: Zipf over the last `window` keys, a new key on top about once in `every` requests."""
    cumulative = _zipf_cumulative(window, alpha)
    total = cumulative[-1]
    newest = window
    result: list[int] = []
    for _ in range(requests):
        if random.random() * every < 1:
            newest += 1
        result.append(newest - bisect_left(cumulative, random.random() * total))
    return result


def stack(
    requests: int, random: Random, *, depth: int, new_share: float, alpha: float
) -> list[int]:
    """What LRU is best at: a key's chance depends only on how many others came since it did.

    The key at position d of the LRU stack is asked for in proportion to d ** -alpha, a new one
    with the chance `new_share`.
    """
    cumulative = _zipf_cumulative(depth, alpha)
    recent: list[int] = []
    new = 0
    result: list[int] = []
    for _ in range(requests):
        if len(recent) < 2 or random.random() < new_share:
            key = new
            new += 1
            if len(recent) >= depth:
                recent.pop(0)
        else:
            below = bisect_right(cumulative, random.random() * cumulative[len(recent) - 1])
            key = recent.pop(max(0, len(recent) - 1 - below))
        recent.append(key)
        result.append(key)
    return result


def twice(requests: int, random: Random, *, apart: int, noise: float = 0.0) -> list[int]:
    """Every key is asked for twice, `apart` requests apart; a share of the keys but once."""
    result: list[int] = []
    due: dict[int, int] = {}
    new = 0
    for at in range(requests):
        key = due.pop(at, None)
        if key is None:
            key = new
            new += 1
            if random.random() >= noise:
                when = at + apart + random.randrange(max(1, apart // 10))
                while when in due:
                    when += 1
                due[when] = key
        result.append(key)
    return result


def mixed_sizes(keys: int, random: Random, *, low: int = 100, high: int = KIB * KIB) -> list[int]:
    """A size for each key, as many in every octave between `low` and `high`."""
    ratio = high / low
    return [round(low * ratio ** random.random()) for _ in range(keys)]


def web_sizes(keys: int, random: Random) -> list[int]:
    """Sizes of answers: lognormal about 6 kB, 100 B to 1 MiB."""
    return [min(KIB * KIB, max(100, round(random.lognormvariate(8.7, 1.4)))) for _ in range(keys)]
