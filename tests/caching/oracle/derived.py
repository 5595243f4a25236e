"""Answers that a cache makes of a whole response: 304, 206 and 416."""

from __future__ import annotations

import re

from tests.caching.oracle.exchanges import Exchanged, Headers, Served
from tests.caching.oracle.fields import (
    byte_ranges,
    http_date,
    is_tag,
    lines,
    strongly_equal,
    tags,
    weak,
)
from tests.caching.oracle.heads import head_faults
from tests.caching.oracle.stored import merged


def derived_faults(served: Served, sources: list[Exchanged]) -> list[str]:
    """The cache itself answered a condition or a range from a whole response."""
    base = sources[0]
    if served.status == 304:
        return head_faults(served, sources, stored=True) + _not_modified(served, sources)
    if served.status == 206 and base.status == 200:
        return _partial(served, sources)
    if served.status == 416 and unsatisfiable(served, base):
        return []
    return [f"made a {served.status} of a {base.status}"]


def _not_modified(served: Served, sources: list[Exchanged]) -> list[str]:
    """RFC 9111 §4.3.2, RFC 9110 §13.1.2, §13.1.3, §15.4.5."""
    base, head = sources[0], merged(sources)
    faults = []
    if served.body:
        faults.append("304 with a body")
    if lines(served.headers, b"content-length"):
        faults.append("304 made by the cache carries Content-Length")
    if not 200 <= (base.status or 0) < 300:
        faults.append(f"304 made of a {base.status}")
    if not _unchanged(served, sources, head):
        faults.append("304 although the client's copy is another")
    for name in (b"etag", b"vary", b"content-location", b"cache-control", b"expires"):
        faults += _lacks(served, head, name)
    return faults


def _lacks(served: Served, head: Headers, name: bytes) -> list[str]:
    if lines(head, name) and not lines(served.headers, name):
        return [f"{served.status} without {name.decode()}"]
    return []


def _unchanged(served: Served, sources: list[Exchanged], head: Headers) -> bool:
    names = {name.lower() for name, _ in served.request_headers}
    if b"if-none-match" in names:
        asked = tags(served.request_headers, b"if-none-match")
        own = [weak(tag) for tag in lines(head, b"etag")]
        return b"*" in asked or any(weak(tag) in own for tag in asked)
    since = [
        http_date(value, served.at_s)
        for value in lines(served.request_headers, b"if-modified-since")
    ]
    copies = [http_date(value, served.at_s) for value in lines(head, b"last-modified")]
    if not [copy for copy in copies if copy is not None]:
        copies = [http_date(value, served.at_s) for value in lines(head, b"date")]
        copies += [int(source.at_s) for source in sources]  # received: the body, what renewed it
    known = [copy for copy in copies if copy is not None]
    return any(date is not None and min(known) <= date for date in since)


def _partial(served: Served, sources: list[Exchanged]) -> list[str]:
    """RFC 9110 §14.2, §13.1.5, §15.3.7."""
    base, head = sources[0], merged(sources)
    if served.method != "GET":
        return [f"206 for {served.method}"]
    wanted = byte_ranges(served.request_headers, len(base.body))
    if not wanted:
        return ["206 for no range, a broken one, or one beyond the body"]
    faults = []
    if not _if_range_holds(served, head):
        faults.append("206 although If-Range does not hold")
    for name in (b"etag", b"vary", b"cache-control", b"expires", b"content-location"):
        faults += _lacks(served, head, name)
    kind = b",".join(lines(served.headers, b"content-type"))
    if kind.lower().startswith(b"multipart/byteranges"):
        faults += _multipart(served, base, wanted, kind)
    else:
        ranges = lines(served.headers, b"content-range")
        if served.cut or served.raised is not None:
            return faults
        faults += _slice(served.body, ranges, base, wanted, alone=True)
    rest = {b"content-type", b"content-range", b"content-length"}
    trimmed = Served(
        **{name: getattr(served, name) for name in Served.__slots__}
        | {"headers": [(name, value) for name, value in served.headers if name.lower() not in rest]}
    )
    faults += [each for each in head_faults(trimmed, sources, stored=True) if "lost" not in each]
    lengths = lines(served.headers, b"content-length")
    if lengths not in ([], [b"%d" % len(served.body)]) and not served.cut:
        faults.append("Content-Length differs from the body of the 206")
    return faults


def _if_range_holds(served: Served, head: Headers) -> bool:
    values = lines(served.request_headers, b"if-range")
    if not values:
        return True
    if len(values) > 1:
        return False
    if is_tag(values[0]):
        return any(strongly_equal(values[0], tag) for tag in lines(head, b"etag"))
    date = http_date(values[0], served.at_s)
    return date is not None and date in [
        http_date(value, served.at_s) for value in lines(head, b"last-modified")
    ]


def _slice(
    content: bytes,
    ranges: list[bytes],
    base: Exchanged,
    wanted: list[tuple[int, int]],
    *,
    alone: bool,
) -> list[str]:
    match = re.fullmatch(rb"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", b"".join(ranges))
    if match is None or len(ranges) != 1:
        return [f"206 without a right Content-Range: {ranges!r:.60}"]
    first, last, size = (int(number) for number in match.groups())
    if size != len(base.body) or content != base.body[first : last + 1] or last < first:
        return ["206 bytes differ from the slice"]
    if alone and len(wanted) == 1 and (first, last) != wanted[0]:
        return ["206 with another range than the one asked for"]
    if not min(each[0] for each in wanted) <= first <= last <= max(each[1] for each in wanted):
        return ["206 with bytes that nobody asked for"]
    return []


def _multipart(
    served: Served, base: Exchanged, wanted: list[tuple[int, int]], kind: bytes
) -> list[str]:
    """RFC 9110 §14.6."""
    boundary = re.search(rb'boundary="?([^";, ]+)', kind)
    if boundary is None:
        return ["multipart/byteranges without a boundary"]
    if served.cut or served.raised is not None:
        return []
    faults = []
    if lines(served.headers, b"content-range"):
        faults.append("Content-Range in the head of a multipart 206")
    mark = b"\r\n--" + boundary[1]
    first, *parts = (b"\r\n" + served.body).split(mark)
    if first.strip() or not parts or parts[-1] not in (b"--", b"--\r\n"):
        return [*faults, "a multipart 206 that does not parse"]
    for part in parts[:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        fields = [
            (name.lower().strip(), value.strip())
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n") if line)
        ]
        faults += _slice(content, lines(fields, b"content-range"), base, wanted, alone=False)
        if lines(fields, b"content-type") != lines(base.headers, b"content-type")[:1]:
            faults.append("a part of a multipart 206 with another Content-Type")
    return faults


def unsatisfiable(served: Served, base: Exchanged) -> bool:
    """416 is right: all ranges of a valid Range are beyond this body (RFC 9110 §15.5.17)."""
    told = lines(served.headers, b"content-range")
    return (
        served.method == "GET"
        and base.status == 200
        and byte_ranges(served.request_headers, len(base.body)) == []
        and told in ([], [b"bytes */%d" % len(base.body)])
        and not any(value in base.body and value for value in [served.body])
    )
