"""The form of an answer: is it what the app said, or a right 304, 206, 416 or HEAD of it?"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from tests.caching.oracle.exchanges import TRACE, Exchanged, Headers, Served
from tests.caching.oracle.fields import (
    DELTA_SECONDS_MAX,
    HOP_BY_HOP,
    byte_ranges,
    connection_fields,
    http_date,
    is_tag,
    lines,
    members,
    response_directives,
    strongly_equal,
    tags,
    weak,
)
from tests.caching.oracle.stored import freshness_readings, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

# The cache may write these itself.
ITS_OWN = frozenset({b"age", b"cache-status", b"date", b"via", b"warning", b"server-timing"})
MAY_GO = frozenset({b"cdn-cache-control", b"warning", b"trailer"})
NO_BODY = frozenset({204, 205, 304})
ROUNDING_S = 1
"""Ages are whole seconds of two clocks that may be read a moment apart."""


def protocol(served: Served, sources: Sequence[Exchanged] = ()) -> list[str]:
    """What no answer may have, wherever it is from."""
    faults = list(served.disorder)
    if served.raised is not None and type(served.raised).__name__ != "AppError":
        faults.append(f"raised {served.raised!r}")
    if served.raised is None and not served.complete and not served.cut:
        faults.append("never ended the answer")
    if served.status == 304 and not _asks_a_condition(served.request_headers):
        # An app may send one unasked; then it saw no condition either.
        unasked = any(
            each.status == 304
            and each.number in served.app_calls
            and not _asks_a_condition(each.request_headers)
            for each in sources
        )
        if not unasked:
            faults.append("304 to a request without a condition")
    if len(lines(served.headers, b"age")) > 1 and not served.app_calls:
        faults.append("several Age fields")
    return faults


def silence(served: Served, history: list[Exchanged]) -> list[str]:
    """No head was sent: only because the app raised, for this request or one it waited for."""
    if served.cut:
        return []
    if served.raised is None:
        return ["no answer at all"]
    if type(served.raised).__name__ != "AppError":
        return [f"raised {served.raised!r}"]
    if any(each.raised and each.target == served.target for each in history):
        return []
    return ["raised an error that no call of the app explains"]


def _asks_a_condition(headers: Headers) -> bool:
    names = {name.lower() for name, _ in headers}
    return bool(names & {b"if-none-match", b"if-modified-since"})


# --- from its own call of the app ----------------------------------------------------------------


def first_hand(served: Served, sources: list[Exchanged], now_s: float) -> list[str]:
    """A call of the app for this very request: what it said, or a form of it."""
    base = sources[0]
    faults = _cache_status(served, reused=False)
    if served.request_body != base.request_body and base.method == served.method:
        faults.append("the app got another request body")
    faults += _request_changed(served, base)
    if served.status == base.status and len(sources) == 1:
        faults += _head(served, sources, stored=False)
        if served.others != base.others and not served.cut:
            faults.append("lost or invented an interim or extension message")
        if base.method == served.method or served.method != "HEAD":
            faults += _body_of(served, base)
        elif served.body:
            faults.append("a body for HEAD")
        if served.trailers != base.trailers and not served.cut:
            faults.append("lost or changed trailers")
        if base.raised and served.raised is None and served.complete:
            faults.append("hid that the app broke off")
        return faults
    return faults + _derived(served, sources)


def _body_of(served: Served, base: Exchanged) -> list[str]:
    if served.cut or served.raised is not None:
        return [] if base.body.startswith(served.body) else ["the body is not the app's"]
    return [] if served.body == base.body else ["the body is not the app's"]


_CONDITIONS = frozenset(
    {b"if-none-match", b"if-modified-since", b"if-range", b"range", b"content-length"}
)


def _request_changed(served: Served, base: Exchanged) -> list[str]:
    sent, seen = (
        [(name.lower(), value) for name, value in headers if name.lower() not in _CONDITIONS]
        for headers in (served.request_headers, base.request_headers)
    )
    return [] if sorted(sent) == sorted(seen) else ["the app saw other request fields"]


# --- from stored responses -----------------------------------------------------------------------


def of_stored(
    served: Served, sources: list[Exchanged], strangers: list[Exchanged], now_s: float
) -> list[str]:
    """An answer made of what other requests got, perhaps renewed by this one's 304."""
    base = sources[0]
    validated = len(strangers) < len(sources)
    faults = _cache_status(served, reused=not validated)
    faults += _age(served, sources, now_s, needed=not validated)
    if served.others:
        faults.append("gave another request's interim message")
    if served.status == base.status:
        faults += _head(served, sources, stored=True)
        faults += _full(served, base)
    else:
        faults += _derived(served, sources)
    return faults


def _full(served: Served, base: Exchanged) -> list[str]:
    faults = []
    if served.method == "HEAD":
        if served.body:
            faults.append("a body for HEAD")
    else:
        faults += _body_of(served, base)
        if base.status in NO_BODY and served.body and not base.body:
            faults.append(f"{base.status} with a body")
    if served.trailers not in (None, [], base.trailers):
        faults.append("changed trailers")
    return faults + _content_length(served, base)


def _content_length(served: Served, base: Exchanged) -> list[str]:
    lengths = lines(served.headers, b"content-length")
    if not lengths or base.method == "HEAD":  # then only the app knows
        return []
    size = len(base.body) if served.method == "HEAD" else len(served.body)
    if served.cut or served.raised is not None:
        size = len(base.body)
    if lengths != [b"%d" % size]:
        return [f"Content-Length differs from the body: {lengths!r:.60} for {size}"]
    return []


def _age(served: Served, sources: list[Exchanged], now_s: float, *, needed: bool) -> list[str]:
    """RFC 9111 §4, §5.1."""
    values = lines(served.headers, b"age")
    last = sources[-1]
    waited_for = last.finished_s is None or last.ended is None or last.ended >= served.began
    if not values:
        return ["no Age on a stored response"] if needed and not waited_for else []
    if len(values) > 1 or not re.fullmatch(rb"[0-9]{1,12}", values[0]):
        return [f"an Age that is no number: {values!r:.60}"]
    ages = [age for _, age in freshness_readings(sources, now_s)]
    age_s = int(values[0])
    if needed and age_s < min(math.floor(min(ages)), DELTA_SECONDS_MAX):
        return [f"Age lower than the real age: {age_s} < {min(ages):g}"]
    if age_s > math.ceil(max(ages) + last.at_s - last.asked_s) + ROUNDING_S:
        return [f"Age higher than the real age: {age_s} > {max(ages):g}"]
    return []


def _cache_status(served: Served, *, reused: bool) -> list[str]:
    """RFC 9211 §2: the last member is the nearest cache's; it says hit or why it went forward."""
    values = lines(served.headers, b"cache-status")
    if not values:
        return []
    last = values[-1].rsplit(b",", 1)[-1]
    words = [word.strip(b" ").partition(b"=")[0] for word in last.split(b";")]
    if b"hit" in words and b"fwd" in words:
        return ["Cache-Status says hit and fwd"]
    if b"hit" in words and not reused:
        return ["Cache-Status says hit for an answer of the app"]
    return []


# --- heads ---------------------------------------------------------------------------------------


def _head(served: Served, sources: list[Exchanged], *, stored: bool) -> list[str]:
    """Every field as its newest source gave it, none lost, none invented."""
    faults = []
    hop = set()
    qualified = set()
    for source in sources:
        hop |= connection_fields(source.headers)
        rules, _ = response_directives(source.headers)
        qualified |= rules.fields(b"private") | rules.fields(b"no-cache")
    present = {name.lower() for name, _ in served.headers}
    if stored:
        faults += _kept_out(served, sources, present, hop)
    for name in present - ITS_OWN:
        given = lines(served.headers, name)
        having = [source for source in sources if lines(source.headers, name)]
        if not name.startswith(b"content-"):
            having = [each for each in having if each is having[-1] or each.overlaps(having[-1])]
        by_source = [lines(source.headers, name) for source in having]
        if any(_same_lines(name, given, each) for each in by_source):
            continue
        if not by_source and name == b"content-length":
            continue  # its value is checked beside the body
        if name == b"set-cookie":
            faults.append("merged, lost or invented a Set-Cookie line")
        else:
            what = "changed" if by_source else "invented"
            faults.append(f"{what} the field {name.decode('latin-1')}: {given!r:.80}")
    if served.status == 304 and stored:
        return faults
    expected = {name.lower() for source in sources for name, _ in source.headers}
    may_go = ITS_OWN | MAY_GO | hop
    if stored:
        may_go = may_go | qualified | {b"set-cookie", b"content-length"}
        expected -= {name for name in expected if name.startswith(TRACE)}
    for name in sorted(expected - present - may_go):
        if name == b"content-length" and sources[0].method != served.method:
            continue
        faults.append(f"lost the field {name.decode('latin-1')}")
    return faults


def _kept_out(
    served: Served, sources: list[Exchanged], present: set[bytes], hop: set[bytes]
) -> list[str]:
    """RFC 9111 §3.1, §5.2.2.4, §5.2.2.7: what is not stored, or not reused."""
    faults = []
    for name in sorted(present & hop):
        if name in HOP_BY_HOP:
            faults.append(f"kept a hop-by-hop field: {name.decode('latin-1')}")
        elif not any(
            _is_from(served, name, source) and name not in connection_fields(source.headers)
            for source in sources
        ):
            faults.append(f"kept a field named in Connection: {name.decode('latin-1')}")
    strangers = [each for each in sources if each.number not in served.app_calls]
    for source in strangers:
        rules, _ = response_directives(source.headers)
        validated = len(strangers) < len(sources)
        words = (b"private",) if validated else (b"private", b"no-cache")
        for word in words:
            for name in sorted(rules.fields(word) & present):
                if _is_from(served, name, source):
                    said = name.decode("latin-1")
                    faults.append(f'kept a field named in {word.decode()}="...": {said}')
    if any(
        value in lines(served.headers, b"set-cookie")
        for source in strangers
        for value in lines(source.headers, b"set-cookie")
    ):
        faults.append("Set-Cookie shared")
    return faults


def _is_from(served: Served, name: bytes, source: Exchanged) -> bool:
    given = lines(served.headers, name)
    return given != [] and given == lines(source.headers, name)


def _same_lines(name: bytes, given: list[bytes], said: list[bytes]) -> bool:
    if given == said:
        return True
    if name == b"set-cookie":
        return False
    if name == b"content-length":  # "5, 5" may become 5 (RFC 9110 §8.6)
        return set(members([(name, each) for each in said], name)) == set(given)
    one, other = (re.sub(rb"[ \t]*,[ \t]*", b",", b",".join(each)) for each in (given, said))
    return one == other


# --- 304, 206, 416 -------------------------------------------------------------------------------


def _derived(served: Served, sources: list[Exchanged]) -> list[str]:
    """The cache itself answered a condition or a range from a whole response."""
    base = sources[0]
    if served.status == 304:
        return _head(served, sources, stored=True) + _not_modified(served, sources)
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
    last = sources[-1]
    copies = [http_date(value, served.at_s) for value in lines(head, b"last-modified")]
    if not [copy for copy in copies if copy is not None]:
        copies = [http_date(value, served.at_s) for value in lines(head, b"date")]
        copies += [int(last.at_s)]
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
    faults += [each for each in _head(trimmed, sources, stored=True) if "lost" not in each]
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
