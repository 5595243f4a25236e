"""Frames: the points of metric families as columns, so that adding many of them is cheap.

A family's points become label texts, numbers and bucket counts in step.  Two workers' label sets
are the same exactly when their texts are, so a text is the key by which points are added; it is
taken apart only where a worker has never seen it.  Bucket counts are words of 64 bits in this
machine's order: a whole row of them is one integer, and adding two rows is one addition.  A frame
is short, so that whoever shares a thread with an event loop can stop between two frames.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from perf_middleware.errors import PerfMiddlewareError
from perf_middleware.families import (
    Distribution,
    Exemplar,
    Family,
    LabelSet,
    Point,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# About 0.3 ms of work in each direction: short enough between two pauses.
FRAME_POINTS = 256
FRAME_COUNTS = 4_096
COUNT_BYTES = 8

_NUMBERS = {int, float}
_PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,(?=.)|$)', re.DOTALL)
_ESCAPED = re.compile(r'\\([\\"n])')

Number: TypeAlias = int | float | list[float]
"""A number; or the floats whose exact, unrounded sum it is (see `merge`)."""

Exemplars: TypeAlias = dict[int, Exemplar]


class SnapshotError(PerfMiddlewareError):
    """Bytes are no snapshot of this version: cut short, altered, or written by another release.

    Raised by `decode` and `labels_of`.  The exchange counts it and goes on without that snapshot.
    """


@dataclass(frozen=True, slots=True)
class Frame:
    """Some points of one family, as columns.

    `family` has no points of its own; `keys` are rendered label sets; `numbers` are values, or the
    sums of a histogram, whose cumulative bucket counts stand row after row in `counts` (see words).
    `exemplars` maps a row to its exemplars.  `labels` goes with `keys`, in a worker's own frames.
    """

    family: Family
    keys: list[str]
    numbers: list[Number]
    counts: bytes
    exemplars: dict[int, Exemplars]
    labels: list[LabelSet] | None = None


def frames_of(families: Iterable[Family]) -> Iterator[Frame]:
    """Cut families into frames, reading their points lazily; a family without points has one frame.

    Raises ValueError where a point does not fit its family.
    """
    for family in families:
        header = replace(
            family,
            points=(),
            help=family.help.encode("utf-8", "replace").decode(),
            bounds=tuple(map(float, family.bounds)),
        )
        points_max = frame_points_max(header)
        points = iter(family.points)
        batch = list(islice(points, points_max))
        yield _frame(header, batch)
        while batch := list(islice(points, points_max)):
            yield _frame(header, batch)


def frame_points_max(family: Family) -> int:
    """How many points of `family` make a frame: fewer where each has many buckets."""
    return max(1, min(FRAME_POINTS, FRAME_COUNTS // (len(family.bounds) + 1)))


def _frame(header: Family, points: list[Point]) -> Frame:
    labels = [point.labels for point in points]
    keys = [one.text for one in labels]
    numbers: list[Number]
    counts: list[int] = []
    exemplars: dict[int, Exemplars] = {}
    if header.kind == "histogram":
        width = len(header.bounds) + 1
        numbers = []
        for row, point in enumerate(points):
            if not isinstance(point, Distribution) or len(point.cumulative) != width:
                raise ValueError(f"{header.name}: a point is no distribution of {width} buckets")
            numbers.append(point.sum)
            counts.extend(point.cumulative)
            if point.exemplars:
                exemplars[row] = dict(point.exemplars)
    else:
        numbers = [point.value for point in points if isinstance(point, Value)]
        if len(numbers) != len(points):
            raise ValueError(f"{header.name}: a point is no value")
    if not set(map(type, numbers)) <= _NUMBERS:  # bool, Decimal, numpy scalars
        numbers = [float(number) for number in numbers if not isinstance(number, list)]
    return Frame(header, keys, numbers, words(counts), exemplars, labels)


def words(counts: Iterable[int]) -> bytes:
    """Counts as words of COUNT_BYTES.  Raises ValueError for one that is none."""
    try:
        return array("Q", counts).tobytes()
    except (OverflowError, TypeError) as error:
        raise ValueError(f"not a count: {error}") from error


def row_bytes(bounds: Sequence[float]) -> int:
    """The length of the counts of one distribution."""
    return (len(bounds) + 1) * COUNT_BYTES


def counts_in(row: bytes) -> list[int]:
    """The counts of which `row` is made."""
    return array("Q", row).tolist()


def labels_of(key: str) -> LabelSet:
    """The label set whose text is `key`.  Raises SnapshotError."""
    pairs: list[tuple[str, str]] = []
    end = 0
    while end < len(key):
        match = _PAIR.match(key, end)
        if match is None:
            raise SnapshotError(f"not a label set: {key[:200]!r}")
        name, value, _ = match.groups()
        if "\\" in value:
            value = _ESCAPED.sub(lambda m: "\n" if m[1] == "n" else m[1], value)
        pairs.append((name, value))
        end = match.end()
    return LabelSet(pairs, cut=False)  # cut where it was made, if it is one of ours
