"""Adding up: one worker's live figures, the other workers' snapshots and the figures of the dead.

    Totals   families by name; a worker's own come first and decide kind and bounds
    Ledger   counters and histograms of workers that are gone, by name, kind and bounds

Sums of floats are exact (Shewchuk's partials, rounded once at the end), so the order in which
workers are added, or one of them moves into the ledger, cannot move a total by its last digit.  It
matters: Prometheus takes a `_sum` that falls by one unit in the last place for a restart from zero,
and adds the whole of it to the rate.
Source: J. R. Shewchuk, Adaptive Precision Floating-Point Arithmetic, 1997, §2.4 (GROW-EXPANSION).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from sys import byteorder
from typing import TypeAlias

from perf_middleware.families import (
    OTHER,
    Distribution,
    Family,
    LabelSet,
    Point,
    Value,
)
from perf_middleware.metrics.workers.frames import (
    Exemplars,
    Frame,
    Number,
    SnapshotError,
    counts_in,
    frame_points_max,
    labels_of,
    row_bytes,
)

LABEL_SETS_MAX = 20_000  # per family of the ledger; twice the default bound of one worker
SHAPES_PER_NAME_MAX = 3  # buckets before, during and after a change of settings
SHAPES_MAX = 5_000

Shape: TypeAlias = tuple[str, str, Sequence[float]]


class Totals:
    """What a scrape answers.  Add the own frames first, then those of the others, in any order."""

    def __init__(self) -> None:
        self.refused: set[str] = set()  # families that another worker has in another shape
        self._sums: dict[str, _Sum] = {}

    def add(self, frame: Frame, *, worker: str, alive: bool = True) -> None:
        """Add a frame of `worker`; of one that is gone (`alive` false) the gauges do not count."""
        family = frame.family
        if family.kind == "gauge" and not alive:
            return
        into = self._sums.get(family.name)
        if into is None:
            into = self._sums[family.name] = _Sum(family)
        elif shape_of(into.family) != shape_of(family):
            self.refused.add(family.name)
            return
        into.add(frame, worker)

    def families(self) -> Iterator[Family]:
        """The families, in the order in which they came; their points are read once, lazily."""
        for each in self._sums.values():
            yield replace(each.family, points=each.points())


class Ledger:
    """What dead workers leave behind.  Add the old ledger's frames first, then each dead worker's.

    A family keeps the figures of up to SHAPES_PER_NAME_MAX different kinds or bounds apart, because
    during a deploy with other buckets workers of both sorts die.  A label set more than
    `label_sets_max` is added to the one whose values all are `other`, so that totals stay true.
    """

    def __init__(self, *, label_sets_max: int = LABEL_SETS_MAX) -> None:
        self._label_sets_max = label_sets_max
        self._sums: dict[Shape, _Sum] = {}

    def add(self, frame: Frame) -> None:
        """Add a frame; gauges tell of the present, so the dead have none."""
        if frame.family.kind == "gauge":
            return
        shape = shape_of(frame.family)
        into = self._sums.pop(shape, None) or _Sum(frame.family, self._label_sets_max)
        self._sums[shape] = into  # at the end: the last ones to change are the ones kept
        into.add(frame, "")

    def frames(self) -> Iterator[Frame]:
        """The ledger as frames for its next snapshot."""
        shapes_of: dict[str, int] = {}
        kept = []
        for (name, *_), each in list(reversed(self._sums.items()))[:SHAPES_MAX]:
            shapes_of[name] = shapes_of.get(name, 0) + 1
            if shapes_of[name] <= SHAPES_PER_NAME_MAX:
                kept.append(each)
        for each in reversed(kept):
            yield from each.frames()


def shape_of(family: Family) -> Shape:
    """What must agree before the points of two families may be added."""
    return (family.name, family.kind, family.bounds)


class _Sum:
    """One family's running totals by label text."""

    __slots__ = ("_exemplars", "_labels", "_numbers", "_room", "_rows", "family")

    def __init__(self, family: Family, label_sets_max: int | None = None) -> None:
        self.family = family
        self._room = label_sets_max
        self._numbers: dict[str, Number] = {}
        self._rows: dict[str, int] = {}  # all counts of a row, one word each
        self._exemplars: dict[str, Exemplars] = {}
        self._labels: dict[str, LabelSet] = {}

    def add(self, frame: Frame, worker: str) -> None:
        keys = frame.keys
        if self.family.kind == "gauge" and self.family.across == "each":
            keys = [_beside(key, worker) for key in keys]
        elif frame.labels is not None:
            self._labels.update(zip(keys, frame.labels, strict=True))
        if self._room is not None:
            keys = [self._placed(key) for key in keys]
        if self.family.kind == "gauge" and self.family.across != "sum":
            self._choose(keys, frame.numbers)
        else:
            self._add_numbers(keys, frame.numbers)
        if frame.counts:
            self._add_rows(keys, frame.counts)
        for row, exemplars in frame.exemplars.items():
            self._keep_newest(keys[row], exemplars)

    def _add_numbers(self, keys: list[str], numbers: list[Number]) -> None:
        totals = self._numbers
        for key, number in zip(keys, numbers, strict=True):
            total = totals.get(key)
            if total is None:
                totals[key] = number
            elif type(total) is int and type(number) is int:
                totals[key] = total + number
            else:
                totals[key] = [*_parts(total), *_parts(number)]

    def _add_rows(self, keys: list[str], counts: bytes) -> None:
        rows, width, at = self._rows, row_bytes(self.family.bounds), 0
        for key in keys:
            row = int.from_bytes(counts[at : at + width], byteorder)
            at += width
            rows[key] = rows.get(key, 0) + row

    def _row(self, key: str) -> bytes:
        width = row_bytes(self.family.bounds)
        # Only forged counts grow beyond their word; they must spoil figures, not the scrape.
        return (self._rows.get(key, 0) & ((1 << 8 * width) - 1)).to_bytes(width, byteorder)

    def _choose(self, keys: list[str], numbers: list[Number]) -> None:
        """The greatest or smallest, or for `each` the only one; a NaN gives way to any number."""
        totals, across = self._numbers, self.family.across
        for key, number in zip(keys, numbers, strict=True):
            new, old = _rounded(number), _rounded(totals.get(key, math.nan))
            if math.isnan(old) or (new < old if across == "min" else new > old):
                totals[key] = new

    def _keep_newest(self, key: str, exemplars: Exemplars) -> None:
        kept = self._exemplars.setdefault(key, {})
        for bucket, exemplar in exemplars.items():
            if bucket not in kept or exemplar.at_s > kept[bucket].at_s:
                kept[bucket] = exemplar

    def _placed(self, key: str) -> str:
        """`key`, or where there is no room for another one, its `other`."""
        if key in self._numbers or self._room is None or len(self._numbers) < self._room:
            # Noted at once, so that the next key of the same frame finds the room taken.
            self._numbers.setdefault(key, 0)
            return key
        try:
            return LabelSet((name, OTHER) for name, _ in labels_of(key).pairs).text
        except SnapshotError:
            return f'worker="{OTHER}"'

    def points(self) -> Iterator[Point]:
        for key, number in self._numbers.items():
            labels = self._labels.get(key)
            if labels is None:
                try:
                    labels = labels_of(key)
                except SnapshotError:
                    continue  # only a hand-made snapshot has such a text; no scrape may fail for it
            if self.family.kind == "histogram":
                exemplars = self._exemplars.get(key)
                counts = counts_in(self._row(key))
                yield Distribution(labels, counts, _rounded(number), exemplars)
            else:
                yield Value(labels, _rounded(number))

    def frames(self) -> Iterator[Frame]:
        keys = list(self._numbers)
        points_max = frame_points_max(self.family)
        for at in range(0, len(keys), points_max):
            part = keys[at : at + points_max]
            yield Frame(
                self.family,
                part,
                [_exact(self._numbers[key]) for key in part],
                b"".join(map(self._row, part)) if self._rows else b"",
                {i: self._exemplars[key] for i, key in enumerate(part) if key in self._exemplars},
            )


def _beside(key: str, worker: str) -> str:
    """`key` with the worker's name as one label more."""
    name = "worker_pid" if 'worker="' in key else "worker"
    return f'{key},{name}="{worker}"' if key else f'{name}="{worker}"'


def _parts(number: Number) -> list[float]:
    return number if isinstance(number, list) else [number]


def _rounded(number: Number) -> int | float:
    """The float nearest to the exact sum."""
    if not isinstance(number, list):
        return number
    try:
        return math.fsum(number)
    except (OverflowError, ValueError):  # beyond the largest float, or inf and -inf
        return sum(number)


def _exact(number: Number) -> Number:
    """The same sum in as few floats as hold it exactly; non-finite ones as they come out."""
    if not isinstance(number, list):
        return number
    partials: list[float] = []
    for term in number:
        x, kept = float(term), 0
        for y in partials:
            big, small = (x, y) if abs(x) >= abs(y) else (y, x)
            x = big + small
            if rest := small - (x - big):
                partials[kept] = rest
                kept += 1
        partials[kept:] = [x]
    if not all(map(math.isfinite, partials)):
        return _rounded(number)
    return partials if len(partials) > 1 else partials[0]
