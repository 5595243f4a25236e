"""Random bytes that a decoder skips: the length of a coded body tells less of what is in it.

    gzip   a file name of that length in the header            RFC 1952 §2.3.1
    zstd   a skippable frame behind the last one               RFC 8878 §3.1.2
    br     a metadata block in front of the last, empty one    RFC 7932 §9.2

BREACH guesses a secret by how well it packs beside what the attacker chose.  Random lengths hide
that from a few requests and not from thousands, whose mean is as good: it makes the attack long,
not impossible.  Sources: https://www.breachattack.com; "Heal the Breach" (IEEE Access 2022), which
uses the file name of gzip the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from perf_middleware.compression.codecs import Encoder

PADDING_BYTES_MAX: Final = 256  # as far as one byte of length reaches in a block of br

_GZIP_HEADER_BYTES: Final = 10
_GZIP_FLAGS_AT: Final = 3
_GZIP_HAS_NAME: Final = 0x08
_ZSTD_SKIPPABLE: Final = 0x184D2A50
# From the lowest bit: 0 not the last, 11 no data, 0 reserved, 01 one byte tells the length.
_BR_METADATA: Final = 0b01_0_11_0


def padding(coding: str, padding_bytes: int) -> bytes:
    """What br and zstd put at the end of a body: a few bytes of their own and `padding_bytes`."""
    if coding == "zstd":
        return (
            _ZSTD_SKIPPABLE.to_bytes(4, "little")
            + padding_bytes.to_bytes(4, "little")
            + bytes(padding_bytes)
        )
    return (_BR_METADATA | (padding_bytes - 1) << 6).to_bytes(2, "little") + bytes(padding_bytes)


def gzip_named(member: bytes, padding_bytes: int) -> bytes:
    """The begin of a gzip member, its header made longer by a name; it has none of its own."""
    header = bytearray(member[:_GZIP_HEADER_BYTES])
    header[_GZIP_FLAGS_AT] |= _GZIP_HAS_NAME
    return bytes(header) + b"x" * (padding_bytes - 1) + b"\0" + member[_GZIP_HEADER_BYTES:]


class HidingEncoder:
    """An encoder of `coding` whose output is longer by `padding_bytes` and a few."""

    def __init__(self, encoder: Encoder, coding: str, padding_bytes: int) -> None:
        if not 1 <= padding_bytes <= PADDING_BYTES_MAX:
            raise ValueError(f"padding is 1 to {PADDING_BYTES_MAX} bytes, not {padding_bytes}")
        self._encoder = encoder
        self._coding = coding
        self._padding_bytes = padding_bytes
        self._begin: bytes | None = b"" if coding == "gzip" else None

    def encode(self, piece: bytes) -> bytes:
        return self._begun(self._encoder.encode(piece))

    def flush(self) -> bytes:
        return self._begun(self._encoder.flush())

    def finish(self) -> bytes:
        if self._coding == "gzip":
            return self._begun(self._encoder.finish())
        if self._coding == "zstd":
            return self._encoder.finish() + padding("zstd", self._padding_bytes)
        # A block begins anywhere in a byte; behind a flush it begins with one.
        return self._encoder.flush() + padding("br", self._padding_bytes) + self._encoder.finish()

    def _begun(self, output: bytes) -> bytes:
        """`output`, held back until the header of a gzip member is whole and has its name."""
        if self._begin is None:
            return output
        self._begin += output
        if len(self._begin) < _GZIP_HEADER_BYTES:
            return b""
        begin, self._begin = self._begin, None
        return gzip_named(begin, self._padding_bytes)
