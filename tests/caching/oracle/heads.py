"""The head of an answer: every field as its newest source gave it (RFC 9111 §3.1, §3.2)."""

from __future__ import annotations

import re

from tests.caching.oracle.exchanges import TRACE, Exchanged, Served
from tests.caching.oracle.fields import (
    HOP_BY_HOP,
    connection_fields,
    http_date,
    lines,
    members,
    response_directives,
)

# The cache may write these itself.
ITS_OWN = frozenset({b"age", b"cache-status", b"date", b"via", b"warning", b"server-timing"})
MAY_GO = frozenset({b"cdn-cache-control", b"warning", b"trailer"})


def head_faults(served: Served, sources: list[Exchanged], *, stored: bool) -> list[str]:
    """Every field as its newest source gave it, none lost, none invented."""
    faults = []
    hop = set()
    qualified = set()
    connections = [connection_fields(source.headers) for source in sources]
    for source, connection in zip(sources, connections, strict=True):
        hop |= connection
        rules, _ = response_directives(source.headers)
        qualified |= rules.fields(b"private") | rules.fields(b"no-cache")
    present = {name.lower() for name, _ in served.headers}
    faults += _date(served, sources)
    if stored:
        faults += _kept_out(served, sources, present, hop)
    for name in present - ITS_OWN:
        given = lines(served.headers, name)
        having = [
            source
            for source, connection in zip(sources, connections, strict=True)
            if (source is sources[0] or name not in connection) and lines(source.headers, name)
        ]
        if not name.startswith(b"content-"):
            having = [each for each in having if each is having[-1] or each.overlaps(having[-1])]
        by_source = [lines(source.headers, name) for source in having]
        if any(_same_lines(name, given, each) for each in by_source):
            continue
        if not by_source and name in {b"content-length", b"accept-ranges"}:
            continue  # a cache that knows the whole body knows these; see shapes.py
        if stored and name == b"content-length" and given == [b"%d" % len(sources[0].body)]:
            continue  # that of a 304 is not taken over (RFC 9111 §3.2)
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
        # What is about a body is not taken over from a 304 or a HEAD (RFC 9111 §3.2).
        may_go = may_go | qualified | {b"set-cookie", b"content-length", b"content-range"}
        expected -= {name for name in expected if name.startswith(TRACE)}
    for name in sorted(expected - present - may_go):
        if name == b"content-length" and sources[0].method != served.method:
            continue
        faults.append(f"lost the field {name.decode('latin-1')}")
    return faults


def _date(served: Served, sources: list[Exchanged]) -> list[str]:
    """The Date of a source; without one, a cache may write when it got it (RFC 9110 §6.6.1)."""
    given = lines(served.headers, b"date")
    said = [lines(source.headers, b"date") for source in sources]
    if not given or given in said:
        return []
    end_s = served.answered_s or served.at_s
    date_s = http_date(given[0], served.at_s)
    well_said = any(
        len(each) == 1 and http_date(each[0], served.at_s) is not None for each in said[-1:]
    )
    received = date_s is not None and int(sources[0].at_s) <= date_s <= end_s
    if len(given) > 1 or well_said or not received:
        return [f"changed the field date: {given!r:.80}"]
    return []


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
