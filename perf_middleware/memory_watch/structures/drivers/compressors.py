"""Compressors for what is kept in memory: deflate by zlib, or zstd where its library is there.

For short documents of one kind a dictionary is what counts: text that both sides know, so that only
what is new is written.  A document of 220 bytes becomes 180 without and 45 to 57 with one.

Frames are read only by what wrote them: they have no header that could be left out (raw deflate,
RFC 1951; zstd without a dictionary's number, RFC 8878 §3.1.1.1.3).
"""

from __future__ import annotations

import sys
import zlib
from importlib import import_module
from threading import local
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

CodecName: TypeAlias = Literal["zlib", "zstd"]

DEFLATE_DICTIONARY_BYTES_MAX: Final = 32_768  # its window, RFC 1951 §2
ZSTD_DICTIONARY_BYTES: Final = 16_384  # larger ones gained less than 2 % on records of 220 bytes
_ZSTD: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_RAW_DEFLATE: Final = -15
_MEMORY_LEVEL: Final = 5  # its tables are copied for each document: a fifth quicker than with 8
DEFAULT_LEVELS: Final[dict[CodecName, int]] = {"zlib": 6, "zstd": 3}
LEVELS_MAX: Final[dict[CodecName, int]] = {"zlib": 9, "zstd": 19}


class Compressor(Protocol):
    """Both ways, from any thread."""

    name: CodecName

    def encode(self, text: bytes) -> bytes: ...

    def decode(self, frame: bytes | memoryview) -> bytes: ...


class Deflate:
    """Raw deflate, each document by a copy of one prepared compressor."""

    name: CodecName = "zlib"

    def __init__(self, *, level: int, dictionary: bytes = b"") -> None:
        self._dictionary = dictionary[-DEFLATE_DICTIONARY_BYTES_MAX:]
        self._prepared = zlib.compressobj(
            level, zlib.DEFLATED, _RAW_DEFLATE, _MEMORY_LEVEL, zdict=self._dictionary
        )

    def encode(self, text: bytes) -> bytes:
        engine = self._prepared.copy()
        return engine.compress(text) + engine.flush()

    def decode(self, frame: bytes | memoryview) -> bytes:
        engine = zlib.decompressobj(_RAW_DEFLATE, self._dictionary)
        return engine.decompress(frame)


class Zstd:
    """One compressor per thread, for it is as new after each frame."""

    name: CodecName = "zstd"

    def __init__(self, *, level: int, dictionary: bytes = b"") -> None:
        self._library: Any = import_module(_ZSTD)
        parameter = self._library.CompressionParameter
        self._options = {parameter.compression_level: level, parameter.dict_id_flag: 0}
        self._dictionary = self._library.ZstdDict(dictionary) if dictionary else None
        self._kept = local()

    def encode(self, text: bytes) -> bytes:
        engine: Any = getattr(self._kept, "engine", None)
        if engine is None:
            known = self._dictionary
            engine = self._kept.engine = self._library.ZstdCompressor(
                options=self._options, zstd_dict=None if known is None else known.as_digested_dict
            )
        frame: bytes = engine.compress(text, engine.FLUSH_FRAME)
        return frame

    def decode(self, frame: bytes | memoryview) -> bytes:
        text: bytes = self._library.decompress(frame, zstd_dict=self._dictionary)
        return text


def has_zstd() -> bool:
    """Whether zstd's library is there."""
    try:
        import_module(_ZSTD)
    except ImportError:
        return False
    return True


def compressor(name: CodecName, *, level: int | None = None, dictionary: bytes = b"") -> Compressor:
    """The compressor of that name.

    Raises ValueError for a name or level there is none of, ImportError where its library is
    missing.
    """
    if name not in DEFAULT_LEVELS:
        raise ValueError(f"a codec is one of {', '.join(DEFAULT_LEVELS)}: {name!r}")
    level = DEFAULT_LEVELS[name] if level is None else level
    if not 1 <= level <= LEVELS_MAX[name]:
        raise ValueError(f"a level of {name} is from 1 to {LEVELS_MAX[name]}: {level}")
    kind = Deflate if name == "zlib" else Zstd
    return kind(level=level, dictionary=dictionary)


def learned_dictionary(name: CodecName, samples: Sequence[bytes]) -> bytes:
    """A dictionary for documents like `samples`; empty where they do not suffice for one.

    For zstd it is trained (some thousand samples are worth their time).  Deflate looks back at
    plain text, and nearer is cheaper: as many samples as fit, whole.
    """
    if name == "zstd":
        library: Any = import_module(_ZSTD)
        try:
            content: bytes = library.train_dict(samples, ZSTD_DICTIONARY_BYTES).dict_content
        except (library.ZstdError, ValueError):  # too few of them
            return b""
        return content
    parts: list[bytes] = []
    room = DEFLATE_DICTIONARY_BYTES_MAX
    for sample in samples:
        if len(sample) <= room:
            parts.append(sample)
            room -= len(sample)
    return b"".join(reversed(parts))
