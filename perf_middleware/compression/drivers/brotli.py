"""br (RFC 7932), by the library of its authors.

Qualities are its own, 0 to 11.  A decoder fills its whole window before it hands anything out: the
largest, of 16 MB, is refused here, for it would take them for a bomb of 200 bytes.  Encoders ask
for it for nothing smaller than 8 MB, and most never do (their default is 4 MB); for zstd, RFC 9659
draws the same line.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.drivers.slices import SlicedDecoder

_SMALL_WINDOW_LOG: Final = 16  # 64 kB
_WINDOW_OF_16_MB: Final = 0b1111  # the first four bits of a stream (RFC 7932 §9.1)


class BrotliCodec:
    """Both ways; raises ImportError where the library is missing or cannot limit its output."""

    name = "br"

    def __init__(self) -> None:
        library: Any = import_module("brotli")
        if not hasattr(library.Decompressor, "can_accept_more_data"):
            raise ImportError("brotli before 1.2 cannot limit what it decodes", name="brotli")
        self._library = library

    def encode(self, body: bytes, *, level: int) -> bytes:
        encoded: bytes = self._library.compress(body, quality=level)
        return encoded

    def encoder(self, *, level: int, small_window: bool = False) -> BrotliEncoder:
        if small_window:
            return BrotliEncoder(self._library.Compressor(quality=level, lgwin=_SMALL_WINDOW_LOG))
        return BrotliEncoder(self._library.Compressor(quality=level))

    def decoder(self) -> SlicedDecoder:
        return SlicedDecoder(self._stream, parts_max=1)

    def _stream(self) -> _Stream:
        return _Stream(self._library)


class BrotliEncoder:
    """One body."""

    __slots__ = ("encode", "finish", "flush")

    def __init__(self, engine: Any) -> None:
        self.encode = engine.process
        self.flush = engine.flush
        self.finish = engine.finish


class _Stream:
    """The one stream of a body.

    The library rounds a limit of output up to its blocks, of which the first has 32 kB: it is asked
    for one block at a time, and what is too much of it waits here.
    """

    __slots__ = ("_engine", "_error", "_has_begun", "_spare", "has_ended", "wants_input")

    unused_bytes = 0  # the library keeps what it has not taken

    def __init__(self, library: Any) -> None:
        self._engine = library.Decompressor()
        self._error: type[Exception] = library.error
        self._has_begun = False
        self._spare = b""
        self.wants_input = True
        self.has_ended = False

    def take(self, slice_: bytes | memoryview, bytes_max: int) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            if slice_[0] & 0b1111 == _WINDOW_OF_16_MB:
                raise CorruptBodyError("it needs a window of 16 MB, 8 MB are the most")
        engine = self._engine
        fresh: bytes = self._spare
        if not fresh:
            try:
                fresh = engine.process(slice_, output_buffer_limit=1)
            except self._error as error:
                # Also what follows the end of the stream within the same slice.
                raise CorruptBodyError(str(error)) from error
        self._spare = fresh[bytes_max:]
        is_finished = engine.is_finished()
        self.has_ended = is_finished and not self._spare
        # All input may be taken while output is waiting inside: then less than a block comes last.
        self.wants_input = not fresh
        return fresh[:bytes_max]
