"""Which parts of a stored body are sent, and the responses that carry them."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perf_middleware.caching.partial import (
    Parts,
    Unsatisfiable,
    Whole,
    decide_range,
    partial_content,
    range_not_satisfiable,
)
from perf_middleware.caching.syntax.etags import EntityTag
from perf_middleware.caching.syntax.ranges import RANGES_MAX

BODY = bytes(range(256)) * 40
LENGTH = len(BODY)
LAST = LENGTH - 1


@pytest.mark.parametrize(
    ("range_value", "expected"),
    [
        pytest.param(None, Whole(), id="no Range"),
        pytest.param(b"bytes=0-499", Parts(((0, 499),)), id="the start"),
        pytest.param(b"bytes=9000-", Parts(((9000, LAST),)), id="an open end"),
        pytest.param(b"bytes=-500", Parts(((LENGTH - 500, LAST),)), id="a suffix"),
        pytest.param(b"bytes=9999-99999", Parts(((9999, LAST),)), id="past the end"),
        pytest.param(b"bytes=0-", Parts(((0, LAST),)), id="everything, as players ask"),
        pytest.param(b"bytes=-99999", Parts(((0, LAST),)), id="a suffix longer than the body"),
        pytest.param(b"bytes=%d-" % LAST, Parts(((LAST, LAST),)), id="the last byte"),
        pytest.param(b"bytes=%d-" % LENGTH, Unsatisfiable(), id="right after the end"),
        pytest.param(b"bytes=-0", Unsatisfiable(), id="a suffix of nothing"),
        pytest.param(b"bytes=99999-, -0", Unsatisfiable(), id="nothing of several"),
        pytest.param(b"bytes=99999-, 5-6", Parts(((5, 6),)), id="one of several"),
        pytest.param(b"bytes=5-4", Whole(), id="not valid"),
        pytest.param(b"items=0-5", Whole(), id="another unit"),
        pytest.param(b"bytes=100-109,0-9", Parts(((100, 109), (0, 9))), id="two, in their order"),
        pytest.param(b"bytes=0-9,5-19", Parts(((0, 19),)), id="overlapping"),
        pytest.param(b"bytes=10-19,0-9", Parts(((0, 19),)), id="touching"),
        pytest.param(b"bytes=0-9,11-19", Parts(((0, 9), (11, 19))), id="a byte apart"),
        pytest.param(b"bytes=0-99,20-29", Parts(((0, 99),)), id="one in the other"),
        pytest.param(b"bytes=100-199,500-599,150-249,0-9",
                     Parts(((100, 249), (500, 599), (0, 9))), id="made one in the first's place"),
        pytest.param(b"bytes=5-5,5-5", Parts(((5, 5),)), id="the same twice"),
        pytest.param(b"bytes=0-,0-", Whole(), id="everything twice"),
        pytest.param(b"bytes=0-9000,100-9000", Whole(), id="more bytes than there are"),
        pytest.param(b"bytes=0-,-1", Whole(), id="all and its end"),
        pytest.param(b"bytes=0-5000,5002-10200", Whole(), id="all but a byte or two"),
        pytest.param(b"bytes=" + b",".join(b"%d-%d" % (at * 300, at * 300 + 249)
                                           for at in range(RANGES_MAX)),
                     Whole(), id="more envelope than it saves"),
        pytest.param(b"bytes=" + b"1-1," * (RANGES_MAX + 1), Whole(), id="absurdly many"),
    ],
)  # fmt: skip
def test_what_was_asked_for_is_sent_where_that_is_less(range_value, expected):
    assert decide_range(range_value, body_bytes=LENGTH) == expected


@pytest.mark.parametrize("range_value", [b"bytes=0-", b"bytes=0-0", b"bytes=-5", b"bytes=-0"])
def test_an_empty_body_is_sent_whole(range_value):
    assert decide_range(range_value, body_bytes=0) == Whole()


def test_a_coded_body_is_never_put_into_an_envelope():
    assert decide_range(b"bytes=0-9,90-99", body_bytes=LENGTH, coded=True) == Whole()
    assert decide_range(b"bytes=0-9", body_bytes=LENGTH, coded=True) == Parts(((0, 9),))
    assert decide_range(b"bytes=0-9,9-20", body_bytes=LENGTH, coded=True) == Parts(((0, 20),))


TAG = EntityTag(b'"v1"')
CHANGED = b"Sun, 06 Nov 1994 08:49:37 GMT"
CHANGED_S = 784_111_777
DATED = {"last_modified": CHANGED, "last_modified_s": CHANGED_S, "date_s": CHANGED_S + 1}


@pytest.mark.parametrize(
    ("if_range", "stored", "holds"),
    [
        pytest.param(b'"v1"', {"etag": TAG}, True, id="the same tag"),
        pytest.param(b' "v1" ', {"etag": TAG}, True, id="in white space"),
        pytest.param(b'"v2"', {"etag": TAG}, False, id="another tag"),
        pytest.param(b'W/"v1"', {"etag": TAG}, False, id="a weak tag"),
        pytest.param(b'"v1"', {"etag": EntityTag(b'"v1"', weak=True)}, False, id="weak in store"),
        pytest.param(b'W/"v1"', {"etag": EntityTag(b'"v1"', weak=True)}, False, id="both weak"),
        pytest.param(b'"v1"', DATED, False, id="a tag, none in store"),
        pytest.param(b'"v1", "v2"', {"etag": TAG}, False, id="two tags"),
        pytest.param(b"*", {"etag": TAG}, False, id="a star"),
        pytest.param(b"v1", {"etag": TAG}, False, id="no quotes"),
        pytest.param(b"", {"etag": TAG, **DATED}, False, id="empty"),
        pytest.param(CHANGED, DATED, True, id="the same date"),
        pytest.param(CHANGED, {**DATED, "etag": TAG}, True, id="the date beside a tag in store"),
        pytest.param(CHANGED, {"etag": TAG}, False, id="a date, none in store"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:38 GMT", DATED, False, id="a later date"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:36 GMT", DATED, False, id="an earlier date"),
        pytest.param(b"Sun Nov  6 08:49:37 1994", DATED, False, id="the date in other words"),
        pytest.param(CHANGED, {**DATED, "date_s": CHANGED_S}, False,
                     id="sent in the second of the change: weak"),
        pytest.param(CHANGED, {**DATED, "date_s": CHANGED_S - 60}, False, id="sent before it"),
        pytest.param(CHANGED, {**DATED, "date_s": None}, False, id="sent nobody knows when"),
        pytest.param(b"lately", {**DATED, "last_modified": b"lately", "last_modified_s": None},
                     False, id="the same, but no date"),
    ],
)  # fmt: skip
def test_parts_are_sent_only_of_the_representation_that_the_client_has(if_range, stored, holds):
    verdict = decide_range(b"bytes=0-9", body_bytes=LENGTH, if_range=if_range, **stored)
    assert verdict == (Parts(((0, 9),)) if holds else Whole())


def test_a_changed_representation_is_sent_whole_where_the_old_range_is_beyond_its_end():
    beyond = b"bytes=99999-"
    assert decide_range(beyond, body_bytes=LENGTH, if_range=b'"v0"', etag=TAG) == Whole()
    assert decide_range(beyond, body_bytes=LENGTH, if_range=b'"v1"', etag=TAG) == Unsatisfiable()


HEADERS = [
    (b"date", b"Sun, 06 Nov 1994 08:49:38 GMT"),
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % LENGTH),
    (b"etag", b'"v1"'),
    (b"vary", b"accept"),
    (b"vary", b"cookie"),
    (b"cache-control", b"max-age=60"),
    (b"content-digest", b"sha-256=:AA==:"),
    (b"content-security-policy", b"default-src 'self'"),
]


def test_one_part_has_its_place_in_the_head():
    headers, pieces = partial_content(HEADERS, BODY, [(2, 9)])
    assert b"".join(pieces) == BODY[2:10]
    assert headers == [
        (b"date", b"Sun, 06 Nov 1994 08:49:38 GMT"),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"etag", b'"v1"'),
        (b"vary", b"accept"),
        (b"vary", b"cookie"),
        (b"cache-control", b"max-age=60"),
        (b"content-security-policy", b"default-src 'self'"),
        (b"content-range", b"bytes 2-9/%d" % LENGTH),
        (b"content-length", b"8"),
    ]


def test_several_parts_are_a_multipart_body_with_their_places():
    headers, pieces = partial_content(HEADERS, BODY, [(100, 104), (0, 1)])
    body = b"".join(pieces)
    (content_type,) = [value for name, value in headers if name == b"content-type"]
    boundary = content_type.removeprefix(b"multipart/byteranges; boundary=")
    assert re.fullmatch(rb"[0-9a-z]{1,70}", boundary)  # RFC 2046 §5.1.1
    assert body == (
        b"--%(b)s\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Range: bytes 100-104/%(n)d\r\n\r\n"
        b"defgh\r\n"
        b"--%(b)s\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Range: bytes 0-1/%(n)d\r\n\r\n"
        b"\x00\x01\r\n"
        b"--%(b)s--\r\n"
    ) % {b"b": boundary, b"n": LENGTH}
    assert [value for name, value in headers if name == b"content-length"] == [b"%d" % len(body)]
    assert b"content-range" not in dict(headers)
    assert b"content-digest" not in dict(headers)
    assert (b"etag", b'"v1"') in headers


def test_parts_of_an_unknown_type_have_none():
    _, pieces = partial_content([], BODY, [(0, 1), (4, 5)])
    assert b"content-type" not in b"".join(pieces).lower()


def test_the_boundary_is_the_same_for_the_same_parts_and_never_in_them():
    parts = [(0, 99), (300, 999)]
    (first, _), (again, _) = (partial_content(HEADERS, BODY, parts) for _ in range(2))
    assert first == again
    boundary = dict(first)[b"content-type"].partition(b"=")[2]
    planted = b"\r\n--" + boundary + b"--\r\n" + BODY
    headers, pieces = partial_content(HEADERS, planted, parts)
    fresh = dict(headers)[b"content-type"].partition(b"=")[2]
    assert b"".join(pieces).count(b"--" + fresh) == len(parts) + 1


def test_the_stored_headers_are_left_as_they_are():
    before = list(HEADERS)
    partial_content(HEADERS, BODY, [(0, 1)])[0].clear()
    partial_content(HEADERS, BODY, [(0, 1), (5, 6)])[0].clear()
    range_not_satisfiable(HEADERS, body_bytes=LENGTH).clear()
    assert before == HEADERS


def test_a_416_tells_the_length_and_cannot_be_taken_for_the_representation():
    cdn = (b"cdn-cache-control", b"max-age=60")
    assert range_not_satisfiable([*HEADERS, cdn], body_bytes=LENGTH) == [
        (b"date", b"Sun, 06 Nov 1994 08:49:38 GMT"),
        (b"vary", b"accept"),
        (b"vary", b"cookie"),
        (b"content-security-policy", b"default-src 'self'"),
        (b"content-range", b"bytes */%d" % LENGTH),
        (b"content-length", b"0"),
    ]


POSITIONS = st.integers(0, 2_500)
SPECS = st.one_of(
    st.tuples(POSITIONS, st.integers(0, 300)).map(lambda pair: (pair[0], sum(pair))),
    st.tuples(POSITIONS, st.none()),
    st.tuples(st.none(), st.integers(0, 300)),
)


def asked_positions(specs, length):
    """What the ranges mean, byte by byte."""
    asked = set()
    for first, last in specs:
        if first is None:
            asked |= set(range(length)[max(length - last, 0) :])
        else:
            asked |= set(range(length)[first : None if last is None else last + 1])
    return asked


def sent_parts(headers, body, length):
    """The positions and bytes of a 206, read as a client reads it."""
    content_range = re.compile(rb"bytes ([0-9]+)-([0-9]+)/%d" % length)
    named = dict(headers)
    assert int(named[b"content-length"]) == len(body)
    if b"content-range" in named:
        first, last = map(int, content_range.fullmatch(named[b"content-range"]).groups())
        return [(first, last, body)]
    delimiter = b"--" + named[b"content-type"].partition(b"boundary=")[2]
    opening, *framed, closing = (b"\r\n" + body).split(b"\r\n" + delimiter)
    assert (opening, closing) == (b"", b"--\r\n")
    found = []
    for part in framed:
        head, _, content = part.partition(b"\r\n\r\n")
        assert b"Content-Type: text/plain" in head
        found.append((*map(int, content_range.search(head).groups()), content))
    return found


@settings(deadline=None)
@given(st.lists(SPECS, min_size=1, max_size=5), st.integers(1, 3_000))
@example(specs=[(296, None), (0, 38)], length=298)  # an envelope that was larger than the body
def test_the_parts_together_are_what_a_client_asked_for(specs, length):
    body = BODY[:length]
    written = ",".join(
        "-".join("" if position is None else str(position) for position in spec) for spec in specs
    )
    asked = asked_positions(specs, length)
    match decide_range(b"bytes=" + written.encode(), body_bytes=length):
        case Unsatisfiable():
            assert not asked
        case Whole():
            assert len(specs) > 1
            assert asked
        case Parts(parts):
            headers, pieces = partial_content([(b"content-type", b"text/plain")], body, parts)
            found = sent_parts(headers, b"".join(pieces), length)
            assert [(first, last) for first, last, _ in found] == list(parts)
            for first, last, content in found:
                assert content == body[first : last + 1]
            positions = [at for first, last, _ in found for at in range(first, last + 1)]
            assert len(positions) == len(set(positions))
            assert set(positions) == asked
            assert len(b"".join(pieces)) <= length


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 100))
def test_no_bytes_make_the_decision_raise(range_value, if_range, length):
    decide_range(b"bytes=" + range_value, body_bytes=length, if_range=if_range, etag=TAG, **DATED)
    decide_range(range_value, body_bytes=length)
