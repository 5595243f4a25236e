"""A request's body through its content codings, never more of it than was asked for.

    Content-Encoding: gzip, br        the sender applied gzip first, so br is undone first

    received --> slices --> br --> gzip --> pieces for the app
                             |       |
                             `-------`-- each one's output is counted and judged

What one coding makes of another's output is bounded like the body itself: a body that decodes to
a gigabyte of empty gzip members, and so to nothing, is a bomb too.
Sources: RFC 9110 §8.4 (the order), §8.4.1.3 (x-gzip), §12.5.3 and §15.5.16 (415).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from perf_middleware.compression.codecs import CorruptBodyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from perf_middleware.compression.codecs import Decoder, DecodingCodec

# Each may hold a window of some megabytes; nobody honest applies a third.
CODINGS_MAX: Final = 2
PIECE_BYTES: Final = 65_536  # what the app gets at once, and what goes in: both bound a step
RATIO_FLOOR_BYTES: Final = 1 << 20  # what is less hurts nobody, however well it was packed

Bound: TypeAlias = Literal["bytes", "ratio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingLimits:
    """What a decoded body may have: bytes, and bytes for each encoded one."""

    decoded_bytes_max: int
    ratio_max: int

    def __post_init__(self) -> None:
        if self.decoded_bytes_max < 1 or self.ratio_max < 1:
            raise ValueError(f"decoded_bytes_max and ratio_max must be >= 1: {self}")


class DecodedTooLargeError(ValueError):
    """A body decodes to more than it may; `bound` is the limit that it met; answered with 413."""

    def __init__(self, bound: Bound) -> None:
        super().__init__(bound)
        self.bound = bound


class UnknownCodingError(ValueError):
    """A body has a coding that is not offered, or too many of them; answered with 415."""


def codings_of(
    lines: Iterable[bytes], offered: Mapping[str, DecodingCodec]
) -> tuple[DecodingCodec, ...]:
    """What undoes the codings of all Content-Encoding lines, the one applied last first.

    Empty where only identity is named, or nothing.  Raises UnknownCodingError.
    """
    found: list[DecodingCodec] = []
    for line in lines:
        for element in line.split(b","):
            name = element.strip(b" \t").lower().decode("latin-1")
            if name in ("", "identity"):
                continue
            codec = offered.get("gzip" if name == "x-gzip" else name)
            if codec is None or len(found) >= CODINGS_MAX:
                raise UnknownCodingError
            found.append(codec)
    return tuple(reversed(found))


class DecodingChain:
    """One body on its way through its decoders, the one applied last first."""

    __slots__ = ("_decoded_bytes", "_decoders", "_limits", "_waiting", "encoded_bytes")

    def __init__(self, decoders: Sequence[Decoder], limits: DecodingLimits) -> None:
        if not decoders:
            raise ValueError("a chain needs a decoder")
        self._decoders = tuple(decoders)
        self._limits = limits
        self._decoded_bytes = [0] * len(decoders)
        self._waiting = memoryview(b"")
        self.encoded_bytes = 0
        """Those that went in."""

    @property
    def decoded_bytes(self) -> int:
        """Those that came out."""
        return self._decoded_bytes[-1]

    @property
    def is_hungry(self) -> bool:
        """Nothing more comes out before the next piece goes in."""
        return not self._waiting and all(decoder.is_hungry for decoder in self._decoders)

    def give(self, piece: bytes) -> None:
        """The next piece of the encoded body; behind what waits, where two readers brought some."""
        self._waiting = memoryview(bytes(self._waiting) + piece if self._waiting else piece)

    def decode(self) -> bytes:
        """One bounded step: the next bytes for the app, PIECE_BYTES at most.

        May be empty though it is not hungry: then it is to be asked again.
        Raises CorruptBodyError and DecodedTooLargeError.
        """
        decoders = self._decoders
        stage = len(decoders) - 1
        piece = b""
        while decoders[stage].is_hungry:  # what is nearest to the app goes first
            if stage == 0:
                piece = self._slice()
                break
            stage -= 1
        decoded = self._stage(stage, piece)
        while decoded and stage < len(decoders) - 1:
            stage += 1
            decoded = self._stage(stage, decoded)
        return decoded

    def end(self) -> None:
        """The encoded body has ended.  Raises CorruptBodyError where it may not end yet.

        No body at all has nothing to decode: whatever its head says, it is empty.
        """
        if self.encoded_bytes and not all(decoder.is_complete for decoder in self._decoders):
            raise CorruptBodyError("the coded body ends too early")

    def _slice(self) -> bytes:
        slice_ = bytes(self._waiting[:PIECE_BYTES])
        self._waiting = self._waiting[PIECE_BYTES:]
        self.encoded_bytes += len(slice_)
        return slice_

    def _stage(self, stage: int, piece: bytes) -> bytes:
        limits = self._limits
        decoded = self._decoders[stage].decode(piece, PIECE_BYTES)
        so_far = self._decoded_bytes[stage] = self._decoded_bytes[stage] + len(decoded)
        if so_far > limits.decoded_bytes_max:
            raise DecodedTooLargeError("bytes")
        if so_far > RATIO_FLOOR_BYTES and so_far > limits.ratio_max * self.encoded_bytes:
            raise DecodedTooLargeError("ratio")
        return decoded
