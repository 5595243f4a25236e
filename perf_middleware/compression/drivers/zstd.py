"""zstd (RFC 8878), by the standard library from Python 3.14 on, by backports.zstd before.

Levels are its own, 1 to 19: higher ones need windows that no browser accepts.  8 MB is what a
receiver must have at most (RFC 9659 §3); here, too.
"""

from __future__ import annotations

import sys
from importlib import import_module
from threading import local
from typing import Any, Final

from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.drivers.slices import SlicedDecoder

WINDOW_LOG_MAX: Final = 23
_LIBRARY: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"

# A new compressor costs 10 us, which counts beside the 50 us of a cheap level and a short body.
# What is kept grows with the largest body it has seen, so neither high levels nor large bodies
# are encoded by it: at most some 2 MB for each of the levels of a thread.
_KEPT_LEVEL_MAX: Final = 6
_KEPT_BODY_BYTES_MAX: Final = 1 << 18
_KEPT_LEVELS_MAX: Final = 3

# At level 3, 150 kB a stream where the level's own take 870, at the same ratio for event streams.
_SMALL_WINDOW_LOG: Final = 15
_SMALL_TABLE_LOG: Final = 13


class ZstdCodec:
    """Both ways; raises ImportError where the library is missing."""

    name = "zstd"

    def __init__(self) -> None:
        self._library: Any = import_module(_LIBRARY)
        self._kept = local()

    def encode(self, body: bytes, *, level: int) -> bytes:
        """As one frame that tells its content's size."""
        # Given all at once, the library knows the size; after the frame the compressor is as new,
        # and after an error it is reset.
        engine = (
            self._kept_compressor(level)
            if level <= _KEPT_LEVEL_MAX and len(body) <= _KEPT_BODY_BYTES_MAX
            else self._library.ZstdCompressor(level)
        )
        encoded: bytes = engine.compress(body, engine.FLUSH_FRAME)
        return encoded

    def encoder(self, *, level: int, small_window: bool = False) -> ZstdEncoder:
        if not small_window:
            return ZstdEncoder(self._library.ZstdCompressor(level))
        parameter = self._library.CompressionParameter
        return ZstdEncoder(
            self._library.ZstdCompressor(
                options={
                    parameter.compression_level: level,
                    parameter.window_log: _SMALL_WINDOW_LOG,
                    parameter.hash_log: _SMALL_TABLE_LOG,
                    parameter.chain_log: _SMALL_TABLE_LOG,
                }
            )
        )

    def decoder(self) -> SlicedDecoder:
        return SlicedDecoder(self._frame)

    def _frame(self) -> _Frame:
        return _Frame(self._library)

    def _kept_compressor(self, level: int) -> Any:
        kept: dict[int, Any] | None = getattr(self._kept, "by_level", None)
        if kept is None:
            kept = self._kept.by_level = {}
        engine = kept.get(level)
        if engine is None:
            if len(kept) >= _KEPT_LEVELS_MAX:
                del kept[next(iter(kept))]
            engine = kept[level] = self._library.ZstdCompressor(level)
        return engine


class ZstdEncoder:
    """One body as one frame."""

    __slots__ = ("_engine", "encode", "finish")

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.encode = engine.compress
        self.finish = engine.flush

    def flush(self) -> bytes:
        engine = self._engine
        flushed: bytes = engine.flush(engine.FLUSH_BLOCK)
        return flushed


class _Frame:
    """One frame, or one that is to be skipped."""

    __slots__ = ("_engine", "_error", "unused_bytes")

    def __init__(self, library: Any) -> None:
        limits = {library.DecompressionParameter.window_log_max: WINDOW_LOG_MAX}
        self._engine = library.ZstdDecompressor(options=limits)
        self._error: type[Exception] = library.ZstdError
        self.unused_bytes = 0

    @property
    def wants_input(self) -> bool:
        wants: bool = self._engine.needs_input
        return wants

    @property
    def has_ended(self) -> bool:
        ended: bool = self._engine.eof
        return ended

    def take(self, slice_: bytes | memoryview, bytes_max: int) -> bytes:
        engine = self._engine
        try:
            fresh: bytes = engine.decompress(slice_, bytes_max)
        except self._error as error:
            raise CorruptBodyError(str(error)) from error
        self.unused_bytes = len(engine.unused_data) if engine.eof else 0
        return fresh
