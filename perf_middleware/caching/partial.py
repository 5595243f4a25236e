"""Parts of a complete stored body: which to send for a Range, and the response that carries them.

    body of 10 bytes       Range: bytes=0-1, 1-3, -2      0123......89
                                  |_____|     |
    206 with two parts           0-3         8-9          one part: Content-Range in the head,
                                                          several: multipart/byteranges

Only for GET, and after the other preconditions held (RFC 9110 §13.2.2, §14.2).  To answer with the
whole body is always right; parts are sent where they are exactly what was asked for, and less.
Source: RFC 9110 §8.8.2.2, §13.1.5, §14, §15.3.7, §15.5.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from perf_middleware.caching.syntax.etags import EntityTag, parse_etag, strong_match
from perf_middleware.caching.syntax.ranges import parse_range

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf_middleware.caching.syntax.ranges import RangeSpec

PART_OVERHEAD_BYTES = 192  # a boundary, the two header lines of a part, its share of the end
DATE_STRONG_AFTER_S = 1  # §8.8.2.2: a second later than Last-Modified, nothing else was sent then

# About the bytes of the whole content, which a 206 does not send (RFC 9530 §2; RFC 9110 §14.4).
_OF_WHOLE_CONTENT = frozenset(
    {b"content-length", b"content-range", b"content-digest", b"content-md5"}
)
# What a 416 has nothing of: it must not be stored or validated as the representation.
_OF_REPRESENTATION = _OF_WHOLE_CONTENT | frozenset(
    {b"content-type", b"content-encoding", b"content-language", b"content-location",
     b"content-disposition", b"repr-digest", b"digest", b"etag", b"last-modified", b"expires",
     b"age", b"link", b"surrogate-control"}
)  # fmt: skip

Part: TypeAlias = "tuple[int, int]"
"""First and last position, both inside the body and sent."""

RawHeaderList: TypeAlias = "list[tuple[bytes, bytes]]"


@dataclass(frozen=True, slots=True)
class Whole:
    """Answer as if there were no Range."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Answer 206 with these: disjoint, in the order in which they were asked for."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """Answer 416: all that was asked for is beyond the end of the body."""


RangeVerdict: TypeAlias = "Whole | Parts | Unsatisfiable"

_WHOLE = Whole()
_UNSATISFIABLE = Unsatisfiable()


def decide_range(
    range_value: bytes | None,
    *,
    body_bytes: int,
    if_range: bytes | None = None,
    etag: EntityTag | None = None,
    last_modified: bytes | None = None,
    last_modified_s: int | None = None,
    date_s: int | None = None,
    coded: bool = False,
) -> RangeVerdict:
    """What to send of a stored body of `body_bytes` for a GET with this Range and If-Range.

    The validators and the Date are those of the stored response.  `coded` says that it has a
    Content-Encoding: an envelope around several parts would be taken for coded as well, so that
    such a response is sent in one part or whole.  No part of an empty body can be named: whole.
    Source: RFC 9110 §13.1.5, §14.1.2, §14.2, §15.3.7.2.
    """
    if range_value is None or body_bytes == 0:
        return _WHOLE
    specs = parse_range(range_value)
    if specs is None:
        return _WHOLE
    if if_range is not None and not if_range_holds(
        if_range,
        etag=etag,
        last_modified=last_modified,
        last_modified_s=last_modified_s,
        date_s=date_s,
    ):
        return _WHOLE
    asked = [part for spec in specs if (part := _satisfied(spec, body_bytes)) is not None]
    if not asked:
        return _UNSATISFIABLE
    if len(asked) == 1:
        return Parts((asked[0],))  # also where it is the whole: players ask `0-` to learn of ranges
    parts = _coalesced(asked)
    # Asked for more than there is, in pieces: overlapping on purpose, or not worth the envelope.
    if _bytes_of(asked) >= body_bytes:
        return _WHOLE
    if len(parts) > 1 and (
        coded or _bytes_of(parts) + len(parts) * PART_OVERHEAD_BYTES >= body_bytes
    ):
        return _WHOLE
    return Parts(parts)


def if_range_holds(
    if_range: bytes,
    *,
    etag: EntityTag | None,
    last_modified: bytes | None,
    last_modified_s: int | None,
    date_s: int | None,
) -> bool:
    """Whether the client's parts are of the stored representation, to the byte.

    A tag matches strongly or not at all; a date must be that of Last-Modified byte by byte, and a
    strong validator: sent at least a second after the last change.
    Source: RFC 9110 §13.1.5, §8.8.2.2.
    """
    tag = parse_etag(if_range)
    if tag is not None:
        return etag is not None and strong_match(tag, etag)
    return (
        last_modified is not None
        and last_modified_s is not None
        and date_s is not None
        and if_range.strip(b" \t") == last_modified.strip(b" \t")
        and date_s - last_modified_s >= DATE_STRONG_AFTER_S
    )


def partial_content(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, parts: Sequence[Part]
) -> tuple[RawHeaderList, list[bytes]]:
    """The headers and the pieces of the body of a 206 with `parts`, at least one, of `body`.

    `headers` are those of the stored 200; what is about its whole content is replaced.
    Source: RFC 9110 §15.3.7.1, §15.3.7.2.
    """
    kept = [header for header in headers if header[0] not in _OF_WHOLE_CONTENT]
    if len(parts) == 1:
        first, last = parts[0]
        kept.append((b"content-range", _content_range(parts[0], len(body))))
        kept.append((b"content-length", b"%d" % (last - first + 1)))
        return kept, [body[first : last + 1]]
    content_type = next((value for name, value in kept if name == b"content-type"), None)
    kept = [header for header in kept if header[0] != b"content-type"]
    boundary = _boundary(body, parts)
    pieces = _multipart(body, parts, content_type=content_type, boundary=boundary)
    kept.append((b"content-type", b"multipart/byteranges; boundary=" + boundary))
    kept.append((b"content-length", b"%d" % sum(map(len, pieces))))
    return kept, pieces


def range_not_satisfiable(
    headers: Iterable[tuple[bytes, bytes]], *, body_bytes: int
) -> RawHeaderList:
    """The headers of a 416 without a body: those of the stored 200 that are not about its content.

    Nothing is left that would let another cache store it in the place of the representation.
    Source: RFC 9110 §14.4, §15.5.17.
    """
    kept = [
        (name, value)
        for name, value in headers
        if name not in _OF_REPRESENTATION and not name.endswith(b"cache-control")
    ]
    kept.append((b"content-range", b"bytes */%d" % body_bytes))
    kept.append((b"content-length", b"0"))
    return kept


def _satisfied(spec: RangeSpec, body_bytes: int) -> Part | None:
    """The positions that `spec` means in a body that is not empty; None: nothing of it."""
    first, last = spec
    if first is None:
        return (max(body_bytes - last, 0), body_bytes - 1) if last else None
    if first >= body_bytes:
        return None
    return first, body_bytes - 1 if last is None else min(last, body_bytes - 1)


def _coalesced(asked: list[Part]) -> tuple[Part, ...]:
    """Those that overlap or touch made one, in the place of the first of them (§15.3.7.2)."""
    merged: list[tuple[int, int, int]] = []  # first, last, place
    for first, last, place in sorted((part[0], part[1], at) for at, part in enumerate(asked)):
        if merged and first <= merged[-1][1] + 1:
            before, end, earliest = merged[-1]
            merged[-1] = (before, max(end, last), min(earliest, place))
        else:
            merged.append((first, last, place))
    return tuple((first, last) for first, last, _ in sorted(merged, key=lambda ranged: ranged[2]))


def _bytes_of(parts: Iterable[Part]) -> int:
    return sum(last - first + 1 for first, last in parts)


def _content_range(part: Part, body_bytes: int) -> bytes:
    return b"bytes %d-%d/%d" % (*part, body_bytes)


def _boundary(body: bytes, parts: Sequence[Part]) -> bytes:
    """A digest of what is sent: the same for the same parts, and nobody can plant it in them."""
    content = blake2b(digest_size=20)
    for first, last in parts:
        content.update(memoryview(body)[first : last + 1])
    return content.hexdigest().encode("ascii")


def _multipart(
    body: bytes, parts: Sequence[Part], *, content_type: bytes | None, boundary: bytes
) -> list[bytes]:
    type_line = b"" if content_type is None else b"Content-Type: " + content_type + b"\r\n"
    pieces: list[bytes] = []
    for part in parts:
        delimiter = b"\r\n--" if pieces else b"--"
        content_range = b"Content-Range: " + _content_range(part, len(body))
        pieces.append(delimiter + boundary + b"\r\n" + type_line + content_range + b"\r\n\r\n")
        pieces.append(body[part[0] : part[1] + 1])
    pieces.append(b"\r\n--" + boundary + b"--\r\n")
    return pieces
