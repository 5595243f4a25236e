"""Snapshots: one worker's families as bytes that another worker can add up.

    preamble   version u8, epoch u64, crc32 of both u32, big endian
    record     length u32, crc32 u32, MessagePack: names of the workers folded into this snapshot
    record*    the same, a frame each

Every record carries its checksum: a torn or altered file is noticed before any of it is added.
Nothing is trusted: bytes become frames or a SnapshotError, never another exception.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ormsgpack

from perf_middleware.families import Across, Exemplar, Family, Kind
from perf_middleware.metrics.workers.frames import (
    Exemplars,
    Frame,
    SnapshotError,
    row_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VERSION = 1
FOLDED_MAX = 1_024
BOUNDS_MAX = 1_024

_PREAMBLE = struct.Struct(">BQ")
_CRC = struct.Struct(">I")
_RECORD = struct.Struct(">II")
PREAMBLE_BYTES = _PREAMBLE.size + _CRC.size

_KINDS: tuple[Kind, ...] = ("counter", "gauge", "histogram")
_ACROSS: tuple[Across, ...] = ("sum", "max", "min", "each")
_NUMBERS = {int, float}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A decoded snapshot.  `folded` names the workers whose figures are already within it."""

    epoch: int
    folded: tuple[str, ...]
    records: tuple[memoryview, ...]

    def frames(self) -> Iterator[Frame]:
        """The frames, decoded one at a time.  Raises SnapshotError."""
        return map(_decode_frame, self.records)


def encode_head(*, epoch: int, folded: Sequence[str] = ()) -> bytes:
    """The beginning of a snapshot; `encode_frame` gives what follows."""
    preamble = _PREAMBLE.pack(VERSION, epoch)
    return preamble + _CRC.pack(zlib.crc32(preamble)) + _record(list(folded))


def encode_frame(frame: Frame) -> bytes:
    """One frame as a record."""
    family = frame.family
    head = [
        family.name,
        _KINDS.index(family.kind),
        family.help,
        family.unit,
        family.bounds,
        _ACROSS.index(family.across),
    ]
    exemplars = [
        [row, bucket, one.trace_id, one.value, one.at_s]
        for row, kept in frame.exemplars.items()
        for bucket, one in kept.items()
    ]
    try:
        return _record([*head, frame.keys, frame.numbers, frame.counts, exemplars])
    except TypeError:  # an integer wider than 64 bits, or an exemplar that is no text and numbers
        numbers = [n if isinstance(n, list) else float(n) for n in frame.numbers]
        return _record([*head, frame.keys, numbers, frame.counts, []])


def _record(value: list[Any]) -> bytes:
    payload = ormsgpack.packb(value)
    return _RECORD.pack(len(payload), zlib.crc32(payload)) + payload


def epoch_of(data: bytes) -> int:
    """The epoch in a snapshot's first PREAMBLE_BYTES bytes.  Raises SnapshotError."""
    if len(data) < PREAMBLE_BYTES:
        raise SnapshotError("cut short")
    version, epoch = _PREAMBLE.unpack_from(data)
    if _CRC.unpack_from(data, _PREAMBLE.size)[0] != zlib.crc32(data[: _PREAMBLE.size]):
        raise SnapshotError("altered")
    if version != VERSION:
        raise SnapshotError(f"version {version}, not {VERSION}")
    return int(epoch)


def decode(data: bytes) -> Snapshot:
    """Check `data` as a whole and cut it into records.  Raises SnapshotError."""
    epoch = epoch_of(data)
    view, at, records = memoryview(data), PREAMBLE_BYTES, []
    while at < len(data):
        if at + _RECORD.size > len(data):
            raise SnapshotError("cut short")
        length, checksum = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        record = view[at : at + length]
        if len(record) != length:
            raise SnapshotError("cut short")
        if zlib.crc32(record) != checksum:
            raise SnapshotError("altered")
        records.append(record)
        at += length
    if not records:
        raise SnapshotError("cut short")
    folded = _unpack(records[0])
    if len(folded) > FOLDED_MAX or not _all(folded, {str}):
        raise SnapshotError("not a list of workers")
    return Snapshot(epoch, tuple(folded), tuple(records[1:]))


def _decode_frame(record: memoryview) -> Frame:
    fields = _unpack(record)
    if len(fields) != 10:
        raise SnapshotError("not a frame")
    name, kind, help_text, unit, bounds, across, keys, numbers, counts, exemplars = fields
    if not (
        _all([name, help_text, unit], {str})
        and _all([kind, across], {int})
        and all(type(column) is list for column in (bounds, keys, numbers, exemplars))
        and 0 <= kind < len(_KINDS)
        and 0 <= across < len(_ACROSS)
        and len(bounds) <= BOUNDS_MAX
        and _all(bounds, {float})
        and _all(keys, {str})
        and len(numbers) == len(keys)
        and (_all(numbers, _NUMBERS) or all(map(_is_number, numbers)))
        and type(counts) is bytes
        and len(counts) == (len(keys) * row_bytes(bounds) if _KINDS[kind] == "histogram" else 0)
    ):
        raise SnapshotError("not a frame")
    try:
        family = Family(
            name=name, kind=_KINDS[kind], help=help_text, points=(), unit=unit,
            bounds=tuple(bounds), across=_ACROSS[across],
        )  # fmt: skip
    except ValueError as error:
        raise SnapshotError(str(error)) from error
    return Frame(family, keys, numbers, counts, _exemplars(exemplars, len(keys), len(bounds)))


def _exemplars(entries: list[Any], rows: int, buckets: int) -> dict[int, Exemplars]:
    found: dict[int, Exemplars] = {}
    for entry in entries:
        if type(entry) is not list or [type(field) for field in entry[:3]] != [int, int, str]:
            raise SnapshotError("not an exemplar")
        row, bucket, trace_id, *numbers = entry
        if len(numbers) != 2 or not _all(numbers, _NUMBERS):
            raise SnapshotError("not an exemplar")
        if not (0 <= row < rows and 0 <= bucket <= buckets):
            raise SnapshotError("an exemplar outside its family")
        found.setdefault(row, {})[bucket] = Exemplar(trace_id, *numbers)
    return found


def _unpack(record: memoryview) -> list[Any]:
    try:
        value = ormsgpack.unpackb(record)
    except ValueError as error:
        raise SnapshotError("not MessagePack") from error
    if type(value) is not list:
        raise SnapshotError("not an array")
    return value


def _all(values: list[Any], types: set[type]) -> bool:
    return set(map(type, values)) <= types


def _is_number(value: object) -> bool:
    """Whether `value` is a number, or the non-empty list of floats whose sum is one."""
    if type(value) is list:
        return 0 < len(value) <= BOUNDS_MAX and _all(value, {float})
    return type(value) in _NUMBERS
