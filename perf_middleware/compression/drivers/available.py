"""Which codecs this installation has: what is not installed is not offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.compression.drivers.brotli import BrotliCodec
from perf_middleware.compression.drivers.deflate import DeflateCodec
from perf_middleware.compression.drivers.gzip import GzipCodec
from perf_middleware.compression.drivers.zstd import ZstdCodec

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.compression.codecs import Codec, DecodingCodec


def available_codecs() -> tuple[Codec, ...]:
    """For responses and requests, best first by ratio per CPU time; gzip is always there."""
    makers: tuple[Callable[[], Codec], ...] = (ZstdCodec, BrotliCodec, GzipCodec)
    found = []
    for make in makers:
        try:
            found.append(make())
        except ImportError:
            continue
    return tuple(found)


def available_decoding_codecs() -> tuple[DecodingCodec, ...]:
    """For bodies of requests: the same, and deflate."""
    return (*available_codecs(), DeflateCodec())
