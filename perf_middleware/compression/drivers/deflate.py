"""deflate, for bodies of requests only: what it means was never agreed on.

The name stands for DEFLATE in the wrapper of zlib (RFC 9110 §8.4.1.2), and many clients send it
without one; every browser reads both.  Nobody should send a response in it.
"""

from __future__ import annotations

from perf_middleware.compression.drivers.inflating import RAW, ZLIB, InflatingPart
from perf_middleware.compression.drivers.slices import SlicedDecoder


class DeflateCodec:
    """Decodes `deflate`."""

    name = "deflate"

    def decoder(self) -> SlicedDecoder:
        return SlicedDecoder(_Stream, parts_max=1)


class _Stream:
    """One stream of DEFLATE whose first byte tells whether it is wrapped."""

    __slots__ = ("_part", "unused_bytes")

    wants_input = True

    def __init__(self) -> None:
        self._part: InflatingPart | None = None
        self.unused_bytes = 0

    @property
    def has_ended(self) -> bool:
        return self._part is not None and self._part.has_ended

    def take(self, slice_: bytes | memoryview, bytes_max: int) -> bytes:
        part = self._part
        if part is None:
            part = self._part = InflatingPart(ZLIB if _is_wrapped(slice_[0]) else RAW)
        fresh = part.take(slice_, bytes_max)
        self.unused_bytes = part.unused_bytes
        return fresh


def _is_wrapped(first: int) -> bool:
    """Whether this is the first byte of a zlib stream: compression method 8 (RFC 1950 §2.2).

    No encoder writes raw DEFLATE that begins so: it would be a stored block with its padding set.
    """
    return first & 0x0F == 8
