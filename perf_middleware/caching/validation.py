"""Conditional requests: the client's against what is stored, ours against the app.

Sources: RFC 9110 §13.1, §13.2; RFC 9111 §3.2, §4.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.caching.fields import HOP_BY_HOP
from perf_middleware.caching.syntax.dates import parse_http_date
from perf_middleware.caching.syntax.etags import (
    EntityTag,
    parse_etag,
    parse_etag_list,
    weak_match,
)
from perf_middleware.caching.syntax.lists import members

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perf_middleware.caching.fields import Headers, Lines
    from perf_middleware.caching.stored import StoredResponse

OF_THE_BODY: Final = frozenset(
    {b"content-encoding", b"content-length", b"content-range", b"content-type", b"etag"}
)
"""Fields that say how to read the stored body: a 304's own are not taken (RFC 9111 §3.2), but for
the parameters of a Content-Type that has none."""
CONTENT_TYPE: Final = frozenset({b"content-type"})


def is_not_modified(
    stored: StoredResponse, request: Mapping[bytes, Sequence[bytes]], *, now_s: int
) -> bool:
    """Whether the client has what is stored: it is to be answered with 304.

    If-Modified-Since counts only where there is no If-None-Match; a stored response without
    Last-Modified is compared by its Date, without that by the time of its receipt.  Only a 200 is
    conditional.
    Source: RFC 9110 §13.2.2, RFC 9111 §4.3.2.
    """
    if stored.status != 200:
        return False
    if b"if-none-match" in request:
        wanted = parse_etag_list(request[b"if-none-match"])
        if wanted is None:
            return False
        if wanted == "*":
            return True
        etag = stored.etag
        return etag is not None and any(weak_match(etag, tag) for tag in wanted)
    if stored.dependencies and stored.last_modified is None:
        return False  # it may have changed twice within the second of its Date
    since = request.get(b"if-modified-since")
    if not since or len(since) > 1:
        return False
    since_s = parse_http_date(since[0], now_s=now_s)
    own_s = _changed_by_s(stored, now_s=now_s)
    return since_s is not None and own_s is not None and own_s <= since_s


def _changed_by_s(stored: StoredResponse, *, now_s: int) -> int | None:
    """Unix time by which `stored` was what it is now; None where its Last-Modified is no date."""
    if stored.last_modified is not None:
        return parse_http_date(stored.last_modified, now_s=now_s)
    for name, value in stored.headers:
        if name == b"date":
            date_s = parse_http_date(value, now_s=now_s)
            if date_s is not None:
                return date_s
    return stored.received_s


def confirms(stored: StoredResponse, lines: Lines, *, now_s: int) -> bool:
    """Whether a 304 with these lines speaks of `stored` (RFC 9111 §4.3.4).

    Every validator that it names must be the stored one; one that names none answers our question
    as we asked it.
    """
    etags = lines.get(b"etag")
    if etags:
        etag = parse_etag(etags[0])
        if not etag_is(etag, stored):
            return False
    modified = lines.get(b"last-modified")
    if modified:
        own = stored.last_modified
        return own is not None and _same_date(modified[0], own, now_s=now_s)
    return True


def head_confirms(stored: StoredResponse, lines: Lines, *, now_s: int) -> bool | None:
    """Whether the 200 of a HEAD request describes `stored` (RFC 9111 §4.3.5); None: it is unclear.

    Every validator that it has must be the stored one, and so must its Content-Length.  Ours is
    stricter where it tells of another Content-Encoding: that is another representation.  And where
    neither has a validator: an equal length is none (RFC 9110 §8.8), and who asks with HEAD every
    second would keep an old body fresh for ever.
    """
    coding = lines.get(b"content-encoding")
    if coding and coding != [
        value for name, value in stored.headers if name == b"content-encoding"
    ]:
        return False
    length = lines.get(b"content-length")
    if length and length[0].strip() != b"%d" % len(stored.body):
        return False
    if not lines.get(b"etag") and not lines.get(b"last-modified"):
        return None if stored.etag is None and stored.last_modified is None else False
    return confirms(stored, lines, now_s=now_s)


def etag_is(etag: EntityTag | None, stored: StoredResponse) -> bool:
    """Whether `etag` is the stored response's, in letter and strength."""
    return etag is not None and etag == stored.etag


def updated_headers(
    stored: Headers, newer: Sequence[tuple[bytes, bytes]], *, without: frozenset[bytes]
) -> Headers:
    """The stored fields, those that `newer` brings replaced by all of its lines (RFC 9111 §3.2).

    Not replaced: what describes the stored body, what belongs to the connection, `without`.  To a
    Content-Type without parameters those of a newer one are added, a charset mostly; nothing else
    is taken of it: frameworks write one to an answer without a body, and would have an image read
    as JSON, or Shift-JIS as UTF-8.
    """
    named = members(value for name, value in newer if name.lower() == b"connection")
    fresh = [(bytes(name).lower(), bytes(value)) for name, value in newer]
    of_the_body = OF_THE_BODY - CONTENT_TYPE if _says_more(fresh, stored) else OF_THE_BODY
    kept = of_the_body | HOP_BY_HOP | without | {name.lower() for name in named}
    fresh = [pair for pair in fresh if pair[0] not in kept]
    replaced = {name for name, _ in fresh}
    return [pair for pair in stored if pair[0] not in replaced] + fresh


def _says_more(newer: Headers, stored: Headers) -> bool:
    """Whether the Content-Type of `newer` is the stored one, which has no parameters, with some."""
    one, other = (
        [value for name, value in headers if name == b"content-type"] for headers in (stored, newer)
    )
    if len(one) != 1 or len(other) != 1:
        return False
    media_type, semicolon, _ = other[0].partition(b";")
    return bool(one[0] and semicolon) and media_type.strip().lower() == one[0].strip().lower()


def _same_date(one: bytes, other: bytes, *, now_s: int) -> bool:
    date_s = parse_http_date(one, now_s=now_s)
    return date_s is not None and date_s == parse_http_date(other, now_s=now_s)
