"""gzip (RFC 1952): zlib-ng for whole bodies and streams, isal at level 1, else the standard zlib.

Levels are zlib's, 1 to 9: one scale, whatever is installed.  zlib-ng takes about half the time at
the same ratio.  Two of its levels are left out: 1 packs badly, where isal is faster and packs
better; 9 takes longer than 8 for nothing.  docs/compression.md has the figures.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import Any, Final

from perf_middleware.compression.drivers.inflating import GZIP, InflatingPart
from perf_middleware.compression.drivers.slices import SlicedDecoder

_ISAL_LEVEL: Final = 2  # its 0 packs badly; 3 takes half as long again for 1 % less
_NG_LOWEST: Final = 2
_NG_HIGHEST: Final = 8
# A window of 8 kB and state to match: 64 kB a stream where zlib-ng takes 252, at the same ratio for
# event streams.
_SMALL_WBITS: Final = 16 + 13
_SMALL_MEM_LEVEL: Final = 6


class GzipCodec:
    """Both ways, with whichever of the libraries are there."""

    name = "gzip"

    def __init__(self) -> None:
        self._ng: Any = _imported("zlib_ng.zlib_ng")
        self._isal: Any = _imported("isal.isal_zlib")

    def encode(self, body: bytes, *, level: int) -> bytes:
        engine, level = self._engine(level)
        encoded: bytes = engine.compress(body, level, GZIP)
        return encoded

    def encoder(self, *, level: int, small_window: bool = False) -> GzipEncoder:
        if small_window:  # the others take most of their memory whatever the window
            return GzipEncoder(
                zlib.compressobj(level, zlib.DEFLATED, _SMALL_WBITS, _SMALL_MEM_LEVEL)
            )
        engine, level = self._engine(level)
        return GzipEncoder(engine.compressobj(level, zlib.DEFLATED, GZIP))

    def decoder(self) -> SlicedDecoder:
        return SlicedDecoder(_member)

    def _engine(self, level: int) -> tuple[Any, int]:
        """The library for one of zlib's levels, and the level that it calls so."""
        if level == 1 and self._isal is not None:
            return self._isal, _ISAL_LEVEL
        if self._ng is not None:
            return self._ng, min(max(level, _NG_LOWEST), _NG_HIGHEST)
        return zlib, level


class GzipEncoder:
    """One body as one gzip member."""

    __slots__ = ("_engine", "encode")

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.encode = engine.compress

    def flush(self) -> bytes:
        flushed: bytes = self._engine.flush(zlib.Z_SYNC_FLUSH)
        return flushed

    def finish(self) -> bytes:
        rest: bytes = self._engine.flush(zlib.Z_FINISH)
        return rest


def _member() -> InflatingPart:
    return InflatingPart(GZIP)


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None
