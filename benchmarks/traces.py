"""Requests for keys, drawn from a seed: the traces on which ways to evict are compared.

A trace is the list of keys asked for, what each weighs, and the room that a cache has for them.
Keys are whole numbers; popular ones are spread, so that their order says nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNIT_BYTES = 1_000  # of an entry where all weigh the same
MIB = 1 << 20
UNBOUNDED = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The keys asked for, in order, and a cache's room."""

    name: str
    requests: Sequence[int]
    entries_max: int
    bytes_max: int = UNBOUNDED
    sizes: Sequence[int] | None = None  # by key; UNIT_BYTES each without

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


def mixed_sizes(keys: int, random: Random, *, low: int = 100, high: int = MIB) -> list[int]:
    """A size for each key, as many in every octave between `low` and `high`."""
    ratio = high / low
    return [round(low * ratio ** random.random()) for _ in range(keys)]


def web_sizes(keys: int, random: Random) -> list[int]:
    """Sizes of answers: lognormal about 6 kB, 100 B to 1 MiB."""
    return [min(MIB, max(100, round(random.lognormvariate(8.7, 1.4)))) for _ in range(keys)]


def suite(keys: int, requests: int) -> Iterator[Trace]:
    """The traces of the tables, made one by one: so many keys, about so many requests each."""
    yield from _popular(keys, requests)
    yield from _scanned_and_looped(keys, requests)
    yield from _changing(keys, requests)
    yield from _recent(keys, requests)
    yield from _of_sizes(keys, requests)


def _popular(keys: int, requests: int) -> Iterator[Trace]:
    for alpha, percents in ((0.7, (10,)), (0.9, (1, 10, 50)), (1.0, (1, 10))):
        drawn = zipf(keys, alpha, requests, Random(f"zipf {alpha}"))
        for percent in percents:
            name = f"Zipf {alpha}, room for {percent} %"
            yield Trace(name=name, requests=drawn, entries_max=keys * percent // 100)
    tiny = zipf(100, 0.9, requests // 4, Random("tiny"))
    for entries in (10, 30, 90):
        name = f"Zipf 0.9, {entries} of 100 keys"
        yield Trace(name=name, requests=tiny, entries_max=entries)
    name = f"Zipf 1.0, 50 of {keys:,} keys"
    drawn = zipf(keys, 1.0, requests // 2, Random("small"))
    yield Trace(name=name, requests=drawn, entries_max=50)


def _scanned_and_looped(keys: int, requests: int) -> Iterator[Trace]:
    drawn = zipf(keys, 1.0, requests, Random("scanned"))
    for percent in (1, 10):
        room = keys * percent // 100
        scans = with_scans(
            drawn, Random("scans"), length=2 * room, every=max(1, 10 * room), first=keys
        )
        name = f"Zipf 1.0 and scans of twice the room, {percent} %"
        yield Trace(name=name, requests=scans, entries_max=room)
    room = keys // 20
    for percent in (95, 110, 200):
        name = f"loop over {percent} % of the room"
        looped = loop(room * percent // 100, requests // 2)
        yield Trace(name=name, requests=looped, entries_max=room)


def _changing(keys: int, requests: int) -> Iterator[Trace]:
    room = keys // 20
    for name, alpha, shifts, overlap in (
        ("Zipf 0.9, ranks dealt anew 8 times", 0.9, 8, False),
        ("Zipf 1.0, ranks dealt anew 60 times", 1.0, 60, False),
        ("Zipf 1.0, half the ranks dealt anew 20 times", 1.0, 20, True),
    ):
        shifted = shifting(keys, alpha, requests, Random(name), shifts=shifts, overlap=overlap)
        yield Trace(name=name, requests=shifted, entries_max=room)
    for name, window, every in (
        ("news, slow", keys, 20),
        ("news", keys // 4, 3),
        ("news, fast", 2 * room, 2),
    ):
        drifted = drifting(requests, Random(name), window=window, every=every)
        yield Trace(name=name, requests=drifted, entries_max=room)
    drawn = zipf(keys, 1.0, requests // 2, Random("by day"))
    again = twice(requests // 2, Random("by night"), apart=room // 2)
    for length in (2, 20):
        phase = length * room
        phases = [
            part
            for at in range(0, requests // 2, phase)
            for part in (drawn[at : at + phase], [keys + key for key in again[at : at + phase]])
        ]
        name = f"Zipf 1.0 and keys asked for twice, every {length} times the room"
        yield Trace(name=name, requests=list(chain(*phases)), entries_max=room)


def _recent(keys: int, requests: int) -> Iterator[Trace]:
    room = keys // 20
    for alpha, depth in ((1.0, 4 * room), (0.5, 2 * room), (0.0, room * 6 // 5)):
        name = f"LRU stack, depth ** -{alpha}"
        drawn = stack(requests, Random(name), depth=depth, new_share=0.05, alpha=alpha)
        yield Trace(name=name, requests=drawn, entries_max=room)
    for percent in (50, 80, 150):
        name = f"twice each, {percent} % of the room apart"
        again = twice(requests, Random(name), apart=room * percent // 100)
        yield Trace(name=name, requests=again, entries_max=room)
    name = "twice each, 10 requests apart, 20 entries"
    again = twice(requests // 4, Random(name), apart=10)
    yield Trace(name=name, requests=again, entries_max=20)
    again = twice(requests // 2, Random("among"), apart=room * 2 // 5)
    drawn = zipf(keys, 1.0, requests // 2, Random("others"))
    mixed = list(chain.from_iterable(zip(drawn, (keys + key for key in again), strict=True)))
    name = "twice each, among as many of Zipf 1.0"
    yield Trace(name=name, requests=mixed, entries_max=room)


def _of_sizes(keys: int, requests: int) -> Iterator[Trace]:
    drawn = zipf(keys, 0.9, requests, Random("sized"))
    for kind, sizes in (
        ("100 B to 1 MiB", mixed_sizes(keys, Random("mixed"))),
        ("sizes of answers", web_sizes(keys, Random("web"))),
    ):
        for percent in (1, 10):
            yield Trace(
                name=f"Zipf 0.9, {kind}, {percent} % of the bytes", requests=drawn,
                entries_max=keys, bytes_max=sum(sizes) * percent // 100, sizes=sizes,
            )  # fmt: skip
    room_bytes = keys // 20 * UNIT_BYTES
    huge = [UNIT_BYTES] * keys + [room_bytes * 4 // 5] * 50
    random = Random("huge")
    often = [
        key for at, key in enumerate(drawn) for key in ((keys, key) if at % 20 == 0 else (key,))
    ]
    rarely = [
        key
        for at, key in enumerate(drawn)
        for key in ((keys + random.randrange(50), key) if at % 1000 == 0 else (key,))
    ]
    for name, asked in (
        ("Zipf 0.9, one of 80 % of the room asked for often", often),
        ("Zipf 0.9, some of 80 % of the room asked for rarely", rarely),
    ):
        yield Trace(name=name, requests=asked, entries_max=keys, bytes_max=room_bytes, sizes=huge)
    few = zipf(20, 0.8, requests // 8, Random("few"))
    yield Trace(
        name="Zipf 0.8, 3 of 20 large", requests=few, entries_max=keys,
        bytes_max=3 * MIB + MIB // 2, sizes=[MIB] * 20,
    )  # fmt: skip
    again = twice(requests // 8, Random("large"), apart=4)
    yield Trace(
        name="twice each, room for 10 large", requests=again, entries_max=keys,
        bytes_max=10 * MIB, sizes=[MIB] * (requests // 8),
    )  # fmt: skip
