"""What was seen of the memory so far: a fixed number of points, finer for what is recent.

    level 0   14 troughs of  2 s        the last 28 s
    level 1   14 troughs of  8 s        the last 2 min
    level 2   14 troughs of 32 s        ...
    level 6   14 troughs of 2.3 h       the last 32 h

A point is a trough: of each figure the least that was seen in its time, so that a batch that comes
and goes, and what a collection of garbage frees, leave a flat line.  Four points of a level make
one of the next.  A leak that needs hours to be seen is found on the level where it shows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.memory_watch.reading import Witness

POINTS: Final = 14  # of a level: 91 pairs, and three thirds that have a slope of their own
LEVELS: Final = 7
FACTOR: Final = 4  # points of a level in one of the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Trough:
    """The least of each figure in a span of time; `at_us` and `requests` are of its middle.

    Of the bytes those that known caches hold are taken off.  The two `…_max` are the highest of the
    finest level's troughs in it: the height that was reached and left again.
    """

    at_us: int
    anonymous_bytes: int
    blocks: int
    malloc_bytes: int | None
    requests: int | None
    blocks_max: int = 0
    malloc_bytes_max: int | None = None


class History:
    """Keeps troughs of `bucket_us` and longer; not safe for several threads at once."""

    __slots__ = ("_bucket_us", "_levels", "_open", "_waiting")

    def __init__(self, *, bucket_us: int) -> None:
        if bucket_us < 1:
            raise ValueError(f"bucket_us must be >= 1: {bucket_us}")
        self._bucket_us = bucket_us
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._open: list[Trough] = []
        self._waiting: list[list[Trough]] = [[] for _ in range(LEVELS - 1)]
        self._levels: list[deque[Trough]] = [deque(maxlen=POINTS) for _ in range(LEVELS)]

    def break_off(self) -> None:
        """Leave out a time that is over: no trough reaches across it."""
        self._open.clear()

    def add(self, witness: Witness) -> int:
        """How many levels have a new point: 0 for none, 1 for the finest alone, and so on."""
        seen = of_witness(witness)
        if self._open and seen.at_us - self._open[0].at_us >= self._bucket_us:
            closed = at_its_height(trough_of(self._open))
            self._open = [seen]
            return self._keep(closed)
        self._open.append(seen)
        if len(self._open) > POINTS:  # looks that come fast: two are one
            self._open[-2:] = [trough_of(self._open[-2:])]
        return 0

    def _keep(self, point: Trough) -> int:
        for level in range(LEVELS):
            self._levels[level].append(point)
            if level == LEVELS - 1:
                break
            waiting = self._waiting[level]
            waiting.append(point)
            if len(waiting) < FACTOR:
                return level + 1
            point = trough_of(waiting)
            waiting.clear()
        return LEVELS

    def points(self, level: int, *, least: int = POINTS) -> tuple[Trough, ...] | None:
        """The points of a level, oldest first; None while it has less than `least`."""
        points = self._levels[level]
        return tuple(points) if len(points) >= least else None

    def all_points(self) -> list[Trough]:
        """Every point that is kept, of all levels."""
        return [point for level in self._levels for point in level]


def of_witness(witness: Witness) -> Trough:
    """One look, as a point."""
    known, malloc = witness.known_bytes, witness.malloc_bytes
    return Trough(
        at_us=witness.at_us,
        anonymous_bytes=witness.anonymous_bytes - known,
        blocks=witness.blocks,
        malloc_bytes=None if malloc is None else malloc - known,
        requests=witness.requests,
    )


def at_its_height(point: Trough) -> Trough:
    """A trough of the finest level: it is its own height."""
    return replace(point, blocks_max=point.blocks, malloc_bytes_max=point.malloc_bytes)


def trough_of(points: Sequence[Trough]) -> Trough:
    """Several points as one."""
    mallocs = [point.malloc_bytes for point in points if point.malloc_bytes is not None]
    heights = [p.malloc_bytes_max for p in points if p.malloc_bytes_max is not None]
    requests = [point.requests for point in points if point.requests is not None]
    return Trough(
        at_us=sum(point.at_us for point in points) // len(points),
        anonymous_bytes=min(point.anonymous_bytes for point in points),
        blocks=min(point.blocks for point in points),
        # One reading in it is enough: they are rare where they are dear.
        malloc_bytes=min(mallocs, default=None),
        requests=sum(requests) // len(requests) if len(requests) == len(points) else None,
        blocks_max=max(point.blocks_max for point in points),
        malloc_bytes_max=max(heights, default=None),
    )
