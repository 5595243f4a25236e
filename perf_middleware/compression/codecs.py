"""The port of a content coding: what the middlewares ask of gzip, br and zstd.

    Encoder        one body being encoded:  encode(piece)*  flush()?  ...  finish()
    Decoder        one body being decoded:  decode(piece, bytes_max), then decode(b"", bytes_max)
                   until is_hungry, then the next piece
    DecodingCodec  a coding that bodies of requests may have
    Codec          one that responses may have too, and that encodes a whole body at once

Source: RFC 9110 §8.4.1 (content codings).
"""

from __future__ import annotations

from typing import Protocol


class Encoder(Protocol):
    """Encodes one body piece by piece; owned by one response, used by one thread at a time."""

    def encode(self, piece: bytes) -> bytes:
        """The encoded bytes that are ready; often none: the codec gathers."""

    def flush(self) -> bytes:
        """What was given so far, so that its receiver can decode all of it now."""

    def finish(self) -> bytes:
        """The rest and the end of the coded body; nothing may follow."""


class Decoder(Protocol):
    """Decodes one body piece by piece.

    What it holds is a window of 8 MB at most, and 32 kB that were too much for the last call.
    """

    @property
    def is_hungry(self) -> bool:
        """Nothing more comes out before the next piece goes in."""

    @property
    def is_complete(self) -> bool:
        """The coded body has ended where it may end (gzip: at the end of a member)."""

    def decode(self, piece: bytes, bytes_max: int) -> bytes:
        """At most `bytes_max` decoded bytes of `piece` and of what earlier pieces left.

        May be empty though it is not hungry: a call does no more than so much work.
        Raises CorruptBodyError for bytes that are not of this coding.
        """


class DecodingCodec(Protocol):
    """A content coding that can be undone; any thread may use it."""

    @property
    def name(self) -> str:
        """As in Accept-Encoding and Content-Encoding: gzip, br, zstd, deflate."""

    def decoder(self) -> Decoder:
        """For a body of a request."""


class Codec(DecodingCodec, Protocol):
    """One content coding, both ways; each response has its own encoder."""

    def encode(self, body: bytes, *, level: int) -> bytes:
        """A whole body at once, with what this thread keeps for it where that is cheaper."""

    def encoder(self, *, level: int, small_window: bool = False) -> Encoder:
        """For a body that comes in pieces; `small_window` for a stream that stays open for long."""


class CorruptBodyError(ValueError):
    """A body is not what its Content-Encoding says, or ends too early; answered with 400."""
