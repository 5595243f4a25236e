"""Decoding of DEFLATE in its three wrappers: gzip, zlib and none (RFC 1950, 1951, 1952).

Always by the standard library's zlib, whatever encodes: what clients send may be hostile, and the
faster libraries are younger in just these corners (limits of output, ends of members).
"""

from __future__ import annotations

import zlib
from typing import Final

from perf_middleware.compression.codecs import CorruptBodyError

GZIP: Final = 16 + zlib.MAX_WBITS
ZLIB: Final = zlib.MAX_WBITS
RAW: Final = -zlib.MAX_WBITS


class InflatingPart:
    """One gzip member, or one stream of DEFLATE with or without the wrapper of zlib."""

    __slots__ = ("_engine", "unused_bytes")

    wants_input = True  # what it could not use yet is given back, and comes again

    def __init__(self, wbits: int) -> None:
        self._engine = zlib.decompressobj(wbits)
        self.unused_bytes = 0

    @property
    def has_ended(self) -> bool:
        return self._engine.eof

    def take(self, slice_: bytes | memoryview, bytes_max: int) -> bytes:
        engine = self._engine
        try:
            fresh = engine.decompress(slice_, bytes_max)
        except zlib.error as error:
            raise CorruptBodyError(str(error)) from error
        self.unused_bytes = len(engine.unused_data if engine.eof else engine.unconsumed_tail)
        return fresh
