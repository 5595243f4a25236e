"""Decoding in small slices: what every codec here shares, whatever its library keeps for itself.

    piece   |-- slice --|-- slice --|-- sl         a part: a gzip member, a zstd frame,
    parts   |--- part ---|------ part ------             a brotli or zlib stream

A library that stops early, because it may hand out no more or because a part ends, copies what it
has not used.  Over a whole piece that is quadratic work in the hands of an attacker (thousands of
empty members in a megabyte); over a slice it is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from perf_middleware.compression.codecs import CorruptBodyError

if TYPE_CHECKING:
    from collections.abc import Callable

SLICE_BYTES: Final = 4_096

# Empty members and frames have 20 and 9 bytes; beginning a frame of zstd takes 20 us.  Ten thousand
# are 0.2 s at most, and as many blocks of bgzip are 600 MB.
PARTS_MAX: Final = 10_000
PARTS_AT_ONCE: Final = 64  # in one call of decode: a piece full of them must not hold its caller


class Part(Protocol):
    """What ends by itself: one member, frame or stream."""

    @property
    def wants_input(self) -> bool:
        """Whether the next `take` may bring some; False: there is more to hand out first."""

    @property
    def has_ended(self) -> bool:
        """At its end, checksums included."""

    @property
    def unused_bytes(self) -> int:
        """How many of the last bytes that it was given it did not take."""

    def take(self, slice_: bytes | memoryview, bytes_max: int) -> bytes:
        """At most `bytes_max` (at least 1) decoded bytes; raises CorruptBodyError.

        The first slice is not empty.
        """


class SlicedDecoder:
    """A Decoder made of parts, one after the other; where there is only one, `parts_max` is 1."""

    __slots__ = ("_begin", "_buffer", "_has_ended", "_owes", "_part", "_parts_left", "_position")

    def __init__(self, begin: Callable[[], Part], *, parts_max: int = PARTS_MAX) -> None:
        self._begin = begin
        self._parts_left = parts_max
        self._part: Part | None = None
        self._has_ended = False
        self._owes = False
        self._buffer = b""
        self._position = 0

    @property
    def is_hungry(self) -> bool:
        return not self._owes and self._position == len(self._buffer)

    @property
    def is_complete(self) -> bool:
        return self._has_ended and self._position == len(self._buffer)

    def decode(self, piece: bytes, bytes_max: int) -> bytes:
        if piece:
            self._add(piece)
        decoded = []
        room = bytes_max
        view = memoryview(self._buffer)
        until = self._parts_left - PARTS_AT_ONCE
        while room > 0 and not self.is_hungry and self._parts_left > until:
            fresh = self._step(view, room)
            room -= len(fresh)
            decoded.append(fresh)
        return decoded[0] if len(decoded) == 1 else b"".join(decoded)

    def _add(self, piece: bytes) -> None:
        if self.is_hungry:
            self._buffer, self._position = piece, 0
            return
        # A part may still give back bytes of the last slice it was given.
        start = max(self._position - SLICE_BYTES, 0)
        self._buffer = self._buffer[start:] + piece
        self._position -= start

    def _step(self, view: memoryview, room: int) -> bytes:
        part = self._part
        if part is None:
            if self._parts_left == 0:
                raise CorruptBodyError("the coded body goes on after its end")
            self._parts_left -= 1
            part = self._part = self._begin()
            self._has_ended = False
        slice_ = b"" if not part.wants_input else view[self._position :][:SLICE_BYTES]
        fresh = part.take(slice_, room)
        self._position += len(slice_) - part.unused_bytes
        if part.has_ended:
            self._part = None
            self._has_ended = True
            self._owes = False
        else:
            # As much as there was room for: there may be more where that came from.
            self._owes = len(fresh) >= room or not part.wants_input
        return fresh
