"""Which codecs this installation has: what is not installed is not offered."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from perf_middleware.compression.drivers.brotli import BrotliCodec
from perf_middleware.compression.drivers.deflate import DeflateCodec
from perf_middleware.compression.drivers.gzip import GzipCodec
from perf_middleware.compression.drivers.zstd import ZstdCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from perf_middleware.compression.codecs import Codec, DecodingCodec

T = TypeVar("T")

PREFERENCE: Final = ("zstd", "br", "gzip")
"""Best first by ratio per CPU time."""

DECODED: Final = (*PREFERENCE, "deflate")

_CODECS: Final[Mapping[str, Callable[[], Codec]]] = MappingProxyType(
    {"zstd": ZstdCodec, "br": BrotliCodec, "gzip": GzipCodec}
)
_DECODING_CODECS: Final[Mapping[str, Callable[[], DecodingCodec]]] = MappingProxyType(
    {**_CODECS, "deflate": DeflateCodec}
)


def available_codecs(names: Iterable[str] = PREFERENCE) -> tuple[Codec, ...]:
    """Those of `names` that are installed, in their order; gzip is always there.

    No library of another coding is imported: one that turns the GIL on can be left out.
    Raises ValueError for a name that no codec has.
    """
    return _installed(names, _CODECS)


def available_decoding_codecs(names: Iterable[str] = DECODED) -> tuple[DecodingCodec, ...]:
    """The same for bodies of requests."""
    return _installed(names, _DECODING_CODECS)


def _installed(names: Iterable[str], makers: Mapping[str, Callable[[], T]]) -> tuple[T, ...]:
    found = []
    for name in names:
        if name not in makers:
            raise ValueError(f"{name!r} is no coding: {', '.join(makers)}")
        try:
            found.append(makers[name]())
        except ImportError:
            continue
    return tuple(found)
