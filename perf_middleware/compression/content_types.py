"""Which media types are worth compressing: a table, the user's patterns, nothing else.

    text/*        every subtype of a type
    */*+json      every type with a structured syntax suffix (RFC 6838 §4.2.8)
    font/ttf      one type

What is in no pattern is not compressed: most of what a table does not know is packed already.
Anchors: the `compressible` types of jshttp/mime-db 1.54 and Cloudflare's default list ("Content
compression"), without what only contains other things (octet-stream, tar, disk images), with what
APIs have sent since (NDJSON and JSON text sequences, MessagePack, CBOR, protobuf, OpenMetrics).
woff and woff2 are not here, they are compressed inside; ttf, otf and eot are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PATTERNS: Final = (
    "text/*",
    "*/*+json",
    "*/*+json-seq",
    "*/*+xml",
    "*/*+yaml",
    "application/cbor",
    "application/ecmascript",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/json-seq",
    "application/json5",
    "application/jsonl",
    "application/jsonlines",
    "application/msgpack",
    "application/ndjson",
    "application/openmetrics-text",
    "application/postscript",
    "application/protobuf",
    "application/rtf",
    "application/sql",
    "application/toml",
    "application/vnd.apple.mpegurl",
    "application/vnd.google.protobuf",
    "application/vnd.msgpack",
    "application/wasm",
    "application/x-javascript",
    "application/x-jsonlines",
    "application/x-mpegurl",
    "application/x-msgpack",
    "application/x-ndjson",
    "application/x-ns-proxy-autoconfig",
    "application/x-protobuf",
    "application/x-sh",
    "application/x-www-form-urlencoded",
    "application/x-yaml",
    "application/xml",
    "application/xml-dtd",
    "application/yaml",
    # Fonts without compression of their own, under the names they are served by
    "application/font-sfnt",
    "application/vnd.ms-fontobject",
    "application/vnd.ms-opentype",
    "application/x-font-opentype",
    "application/x-font-otf",
    "application/x-font-truetype",
    "application/x-font-ttf",
    "font/collection",
    "font/otf",
    "font/sfnt",
    "font/ttf",
    # Images and models that are plain arrays of numbers
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
    "image/x-ms-bmp",
    "message/rfc822",
    "model/gltf-binary",
)
EVENT_STREAM: Final = b"text/event-stream"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - of RFC 9110 §5.6.2
_MEDIA_TYPE: Final = re.compile(
    rf"[ \t]*({_TOKEN}/{_TOKEN})[ \t]*(?:;.*)?".encode(), re.ASCII | re.DOTALL
)
_PATTERN: Final = re.compile(
    r"(?P<type>[a-z0-9][a-z0-9.-]*)/\*"
    r"|\*/\*(?P<suffix>\+[a-z0-9.-]+)"
    r"|(?P<exact>[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9!#$&^_.+-]*)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class CompressibleTypes:
    """What the patterns stand for, ready to be asked."""

    types: frozenset[bytes]
    suffixes: frozenset[bytes]
    exact: frozenset[bytes]

    @classmethod
    def of(cls, patterns: Iterable[str] = DEFAULT_PATTERNS) -> CompressibleTypes:
        """Raises ValueError for what is none of the three forms."""
        found: dict[str, set[bytes]] = {"type": set(), "suffix": set(), "exact": set()}
        for pattern in patterns:
            match = _PATTERN.fullmatch(pattern.strip().lower())
            if match is None or match.lastgroup is None:
                raise ValueError(
                    f"{pattern!r} is no pattern of media types: text/*, */*+json, font/ttf"
                )
            found[match.lastgroup].add(match[match.lastgroup].encode())
        return cls(
            types=frozenset(found["type"]),
            suffixes=frozenset(found["suffix"]),
            exact=frozenset(found["exact"]),
        )

    def includes(self, content_type: bytes) -> bool:
        """Whether a response with this Content-Type is compressed.

        Case and parameters are no matter; what is no media type is not compressed.
        """
        essence = media_type(content_type)
        if essence is None:
            return False
        kind, _, subtype = essence.partition(b"/")
        _, plus, suffix = subtype.rpartition(b"+")
        return essence in self.exact or kind in self.types or plus + suffix in self.suffixes


def is_event_stream(content_type: bytes) -> bool:
    """Whether it is a stream of server-sent events, which stays open and sends little at a time.

    It is compressible like all text; the caller decides whether, and with which window.
    """
    return media_type(content_type) == EVENT_STREAM


def media_type(content_type: bytes) -> bytes | None:
    """Type and subtype in lower case, without parameters; None where there is none.

    Source: RFC 9110 §8.3.1.
    """
    match = _MEDIA_TYPE.fullmatch(content_type)
    return match[1].lower() if match is not None else None
