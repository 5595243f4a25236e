"""Conditional requests, 304 and HEAD answers (RFC 9110 §13, RFC 9111 §3.2, §4.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.fields import HOP_BY_HOP
from perf_middleware.caching.syntax.etags import parse_etag
from perf_middleware.caching.validation import (
    OF_THE_BODY,
    confirms,
    etag_is,
    head_confirms,
    is_not_modified,
    updated_headers,
)
from tests.caching.entries import NOW_S, date, entry

NOTHING = frozenset()
OLD, THEN, LATER = date(NOW_S - 500), date(NOW_S - 100), date(NOW_S - 50)


def stored_with(etag=None, modified=None, dated=None, **kept):
    named = [(b"etag", etag), (b"last-modified", modified), (b"date", dated)]
    return entry(b"/a", *[(name, value) for name, value in named if value is not None], **kept)


def not_modified(stored, **fields):
    request = {name.replace("_", "-").encode(): values for name, values in fields.items()}
    return is_not_modified(stored, request, now_s=NOW_S)


@pytest.mark.parametrize(
    ("etag", "if_none_match", "expected"),
    [
        pytest.param(b'"1"', [b'"1"'], True, id="the same"),
        pytest.param(b'"1"', [b'"2"'], False, id="another"),
        pytest.param(b'W/"1"', [b'"1"'], True, id="weakly the same: ours is weak"),
        pytest.param(b'"1"', [b'W/"1"'], True, id="weakly the same: theirs is weak"),
        pytest.param(b'W/"1"', [b'W/"1"'], True, id="both weak"),
        pytest.param(b'"1"', [b'"0", "1", "2"'], True, id="one of several"),
        pytest.param(b'"1"', [b'"0"', b'"1"'], True, id="on several lines"),
        pytest.param(b'"a,b"', [b'"a,b"'], True, id="a comma in the tag"),
        pytest.param(b'"a"', [b'"a,b"'], False, id="a part of a tag"),
        pytest.param(b'"A"', [b'"a"'], False, id="tags have case"),
        pytest.param(b'"1"', [b"1"], False, id="unquoted is no tag"),
        pytest.param(b'"1"', [b'junk, "1"'], True, id="junk beside it"),
        pytest.param(b'"1"', [b""], False, id="empty"),
        pytest.param(b'"1"', [b"*"], True, id="a star matches what there is"),
        pytest.param(None, [b"*"], True, id="a star, without a tag of ours"),
        pytest.param(None, [b'"1"'], False, id="no tag of ours"),
        pytest.param(b"broken", [b"broken"], False, id="ours is no tag"),
    ],
)
def test_if_none_match_compares_weakly(etag, if_none_match, expected):
    assert not_modified(stored_with(etag), if_none_match=if_none_match) is expected


@pytest.mark.parametrize(
    ("modified", "dated", "since", "expected"),
    [
        pytest.param(THEN, None, [THEN], True, id="not since"),
        pytest.param(THEN, None, [LATER], True, id="long before"),
        pytest.param(THEN, None, [OLD], False, id="modified since"),
        pytest.param(THEN, LATER, [THEN], True, id="Last-Modified counts, not Date"),
        pytest.param(None, THEN, [THEN], True, id="Date without Last-Modified"),
        pytest.param(None, THEN, [OLD], False, id="Date is later"),
        pytest.param(None, None, [THEN], False, id="nothing to compare with"),
        pytest.param(None, b"broken", [THEN], False, id="nor with a broken Date"),
        pytest.param(b"broken", THEN, [THEN], False, id="a broken Last-Modified"),
        pytest.param(THEN, None, [b"broken"], False, id="no date"),
        pytest.param(THEN, None, [b""], False, id="empty"),
        pytest.param(THEN, None, [b"*"], False, id="a star is no date"),
        pytest.param(THEN, None, [THEN, THEN], False, id="several lines are not valid"),
        pytest.param(THEN, None, [THEN + b", " + THEN], False, id="nor is a list"),
        pytest.param(THEN, None, [THEN.replace(b"GMT", b"UTC")], False, id="another zone name"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT", None, [b"Sun Nov  6 08:49:37 1994"], True,
                     id="another format of the date"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT", None, [b"Sunday, 06-Nov-94 08:49:36 GMT"],
                     False, id="a second less in rfc850"),
    ],
)  # fmt: skip
def test_if_modified_since_compares_dates(modified, dated, since, expected):
    stored = stored_with(modified=modified, dated=dated)
    assert not_modified(stored, if_modified_since=since) is expected


@pytest.mark.parametrize(
    ("modified", "dated", "since", "expected"),
    [
        pytest.param(None, None, THEN, True, id="received then"),
        pytest.param(None, None, LATER, True, id="received before"),
        pytest.param(None, None, OLD, False, id="received since"),
        pytest.param(None, LATER, THEN, False, id="its Date counts before"),
        pytest.param(None, b"broken", THEN, True, id="a broken Date is none"),
        pytest.param(LATER, None, THEN, False, id="Last-Modified counts first"),
        pytest.param(b"broken", None, THEN, False, id="also a broken one"),
    ],
)
def test_without_any_date_if_modified_since_is_compared_with_the_receipt(
    modified, dated, since, expected
):
    stored = stored_with(modified=modified, dated=dated)
    stored.received_s = NOW_S - 100
    assert not_modified(stored, if_modified_since=[since]) is expected


@pytest.mark.parametrize(
    ("if_none_match", "since", "expected"),
    [
        pytest.param([b'"2"'], LATER, False, id="the tag differs, the date would match"),
        pytest.param([b'"1"'], OLD, True, id="the tag matches, the date would not"),
        pytest.param([b"junk"], LATER, False, id="a broken If-None-Match is still one"),
        pytest.param([], LATER, False, id="so is one without lines"),
    ],
)
def test_if_none_match_wins_over_if_modified_since(if_none_match, since, expected):
    stored = stored_with(b'"1"', THEN)
    found = not_modified(stored, if_none_match=if_none_match, if_modified_since=[since])
    assert found is expected


@pytest.mark.parametrize("status", [203, 204, 301, 404, 410, 500, 599])
def test_only_a_200_is_answered_with_304(status):
    stored = stored_with(b'"1"', THEN, status=status)
    assert not not_modified(stored, if_none_match=[b'"1"'])
    assert not not_modified(stored, if_none_match=[b"*"])
    assert not not_modified(stored, if_modified_since=[LATER])


def test_a_request_without_conditions_wants_the_body():
    assert not not_modified(stored_with(b'"1"', THEN))


def lines_of(etag=None, modified=None, length=None):
    named = [(b"etag", etag), (b"last-modified", modified), (b"content-length", length)]
    return {name: [value] for name, value in named if value is not None}


@pytest.mark.parametrize(
    ("kept", "told", "expected"),
    [
        pytest.param((b'"1"', None), (b'"1"', None), True, id="the strong tag"),
        pytest.param((b'"1"', None), (b'"2"', None), False, id="another tag"),
        pytest.param((b'W/"1"', None), (b'"1"', None), False,
                     id="a strong tag speaks of strong ones"),
        pytest.param((b'"1"', None), (b'W/"1"', None), False,
                     id="a weak tag does not vouch for a strong one's bytes"),
        pytest.param((b'W/"1"', None), (b'W/"1"', None), True, id="both weak"),
        pytest.param((None, THEN), (b'"1"', None), False, id="a tag where we have none"),
        pytest.param((b'"1"', None), (b"broken", None), False, id="a broken tag"),
        pytest.param((b'"1"', THEN), (b'"1"', LATER), False, id="the tag, another date"),
        pytest.param((b'"1"', THEN), (b'"1"', THEN), True, id="the tag and the date"),
        pytest.param((b'"1"', THEN), (b'"2"', THEN), False, id="the date, another tag"),
        pytest.param((b'"1"', THEN), (None, THEN), True, id="the date, without a tag"),
        pytest.param((None, THEN), (None, THEN), True, id="the date alone"),
        pytest.param((None, THEN), (None, LATER), False, id="another date"),
        pytest.param((None, THEN), (None, b"broken"), False, id="a broken date"),
        pytest.param((b'"1"', None), (None, THEN), False, id="a date where we have none"),
        pytest.param((b'"1"', THEN), (None, None), True, id="none: it answers our question"),
        pytest.param((None, None), (None, None), True, id="none, and none to name"),
        pytest.param((None, b"Sun, 06 Nov 1994 08:49:37 GMT"), (None, b"Sun Nov  6 08:49:37 1994"),
                     True, id="the date in another format"),
    ],
)  # fmt: skip
def test_a_304_speaks_of_the_response_whose_validators_it_names(kept, told, expected):
    assert confirms(stored_with(*kept), lines_of(*told), now_s=NOW_S) is expected


@pytest.mark.parametrize(
    ("kept", "told", "expected"),
    [
        pytest.param((b'"1"', None), (b'"1"', None, None), True, id="the tag"),
        pytest.param((b'"1"', None), (b'"1"', None, b"4"), True, id="the tag and the length"),
        pytest.param((b'"1"', None), (b'"1"', None, b"5"), False, id="the tag, another length"),
        pytest.param((b'"1"', None), (b'"2"', None, b"4"), False, id="another tag"),
        pytest.param((b'"1"', None), (b'W/"1"', None, None), False, id="a weaker tag"),
        pytest.param((b'"1"', None), (b"broken", None, None), False, id="a broken tag"),
        pytest.param((b'"1"', THEN), (b'"1"', THEN, None), True, id="tag and date"),
        pytest.param((b'"1"', THEN), (b'"1"', LATER, None), False, id="the tag, another date"),
        pytest.param((b'"1"', THEN), (b'"2"', THEN, None), False, id="the date, another tag"),
        pytest.param((None, THEN), (None, THEN, b"4"), True, id="the date"),
        pytest.param((None, THEN), (None, LATER, None), False, id="another date"),
        pytest.param((b'"1"', None), (b'"1"', THEN, None), False, id="a date that we lack"),
        pytest.param((None, None), (None, None, b"4"), None, id="nothing but the length"),
        pytest.param((None, None), (None, None, b"x"), False, id="a broken length"),
        pytest.param((None, None), (None, None, None), None, id="nothing to compare, nothing lost"),
        pytest.param((b'"1"', None), (None, None, b"4"), False, id="it lacks our validator"),
    ],
)  # fmt: skip
def test_a_head_answer_describes_what_agrees_with_all_that_it_tells(kept, told, expected):
    assert head_confirms(stored_with(*kept), lines_of(*told), now_s=NOW_S) is expected


@pytest.mark.parametrize(
    ("coding", "told", "expected"),
    [
        pytest.param(None, None, True, id="none, and none told"),
        pytest.param(None, [b"gzip"], False, id="a coded form of what is stored as it is"),
        pytest.param(b"gzip", [b"gzip"], True, id="the same"),
        pytest.param(b"gzip", [b"br"], False, id="another"),
        pytest.param(b"gzip", None, True, id="not told"),
    ],
)
def test_a_head_answer_of_another_coding_is_about_another_body(coding, told, expected):
    tag = (b"etag", b'"1"')
    stored = entry(b"/a", tag, *([] if coding is None else [(b"content-encoding", coding)]))
    lines = {b"etag": [tag[1]]} | ({} if told is None else {b"content-encoding": told})
    assert head_confirms(stored, lines, now_s=NOW_S) is expected


@pytest.mark.parametrize(
    ("etag", "expected"),
    [
        pytest.param(b'"1"', True, id="the same"),
        pytest.param(b'W/"1"', False, id="of another strength"),
        pytest.param(b'"2"', False, id="another"),
        pytest.param(b"1", False, id="no tag"),
    ],
)
def test_a_tag_is_the_same_in_letter_and_strength(etag, expected):
    assert etag_is(parse_etag(etag), stored_with(b'"1"')) is expected


KEPT = [(b"content-type", b"a/b"), (b"x", b"1"), (b"content-length", b"4"), (b"x", b"2")]


@pytest.mark.parametrize(
    ("newer", "without", "expected"),
    [
        pytest.param([], NOTHING, KEPT, id="nothing new"),
        pytest.param([(b"y", b"3")], NOTHING, [*KEPT, (b"y", b"3")], id="a field more"),
        pytest.param([(b"X", b"3")], NOTHING, [KEPT[0], KEPT[2], (b"x", b"3")],
                     id="all lines of a field make way for one"),
        pytest.param([(b"x", b"3"), (b"X", b"4")], NOTHING,
                     [KEPT[0], KEPT[2], (b"x", b"3"), (b"x", b"4")], id="or for several"),
        pytest.param([(b"x", b"")], NOTHING, [KEPT[0], KEPT[2], (b"x", b"")],
                     id="an empty field replaces too"),
        pytest.param([(b"Content-Type", b"c/d"), (b"content-length", b"0"),
                      (b"Content-Encoding", b"br"), (b"content-range", b"bytes 0-1/2")],
                     NOTHING, KEPT, id="what describes the stored body stays"),
        pytest.param([(b"Content-Type", b"A/B ; charset=utf-8")], NOTHING,
                     [*KEPT[1:], (b"content-type", b"A/B ; charset=utf-8")],
                     id="its media type may be told more exactly"),
        pytest.param([(b"content-type", b"a/b"), (b"content-type", b"a/b;q=1")], NOTHING, KEPT,
                     id="not on several lines"),
        pytest.param([(b"content-type", b"A/B")], NOTHING, KEPT, id="nor where it tells no more"),
        pytest.param([(b"content-type", b"a/b;q=1")], frozenset({b"content-type"}), KEPT,
                     id="nor what may not be stored of it"),
        pytest.param([(b"connection", b"content-type"), (b"content-type", b"a/b;q=1")], NOTHING,
                     KEPT, id="nor of the connection"),
        pytest.param([(b"ETag", b'W/"1"')], NOTHING, KEPT, id="so does its tag"),
        pytest.param([(name, b"z") for name in sorted(HOP_BY_HOP)], NOTHING, KEPT,
                     id="what belongs to the connection is not taken"),
        pytest.param([(b"Connection", b"close, X"), (b"x", b"3")], NOTHING, KEPT,
                     id="nor what Connection names"),
        pytest.param([(b"x", b"3"), (b"connection", b"y"), (b"Connection", b"x")], NOTHING, KEPT,
                     id="on any of its lines, wherever it comes"),
        pytest.param([(b"X", b"3"), (b"y", b"4")], frozenset({b"x"}), [*KEPT, (b"y", b"4")],
                     id="nor what may not be stored"),
    ],
)  # fmt: skip
def test_a_304_replaces_fields_line_by_line(newer, without, expected):
    assert updated_headers(KEPT, newer, without=without) == expected


@pytest.mark.parametrize("newer", [b"a/b; charset=utf-8", b"a/b", b"A/B;charset=shift_jis", b""])
@pytest.mark.parametrize("kept", [b"a/b; charset=shift_jis", b"a/b;boundary=x", b"", b";"])
def test_no_304_overwrites_or_loses_what_the_stored_body_is_read_by(kept, newer):
    merged = updated_headers([(b"content-type", kept)], [(b"content-type", newer)], without=NOTHING)
    assert merged == [(b"content-type", kept)]


def test_these_fields_say_how_to_read_the_body():
    assert {b"content-encoding", b"content-type", b"content-range", b"content-length"} < OF_THE_BODY


names = st.sampled_from([b"X", b"y", b"Content-Type", b"Connection", b"ETag", b"TE", b"Age"])
values = st.binary(max_size=6) | st.sampled_from([b"a/b", b"A/B", b"a/b;q=1", b"A/B ;r=2"])
fields = st.lists(st.tuples(names, values), max_size=6)


@given(fields, fields, st.frozensets(st.just(b"y")))
def test_no_field_is_lost_or_mixed_from_old_and_new(old, newer, without):
    stored = [(name.lower(), value) for name, value in old]
    merged = updated_headers(stored, newer, without=without)
    for name in {name for name, _ in stored}:
        was = [value for key, value in stored if key == name]
        told = [value for key, value in newer if key.lower() == name]
        now = [value for key, value in merged if key == name]
        assert now in (was, told)
        if name in without | OF_THE_BODY - {b"content-type"} | HOP_BY_HOP:
            assert now == was
        if name == b"content-type" and now != was:
            assert len(was) == 1
            assert b";" not in was[0]


tags = st.sampled_from([None, b'"1"', b'W/"1"', b'"2"', b"1", b"*", b"\xff"])
dates = st.sampled_from([None, THEN, LATER, b"x", b""])


@given(tags, dates, st.lists(st.binary(max_size=10), max_size=2), tags, dates)
def test_any_bytes_get_an_answer(etag, modified, noise, told, told_date):
    stored = stored_with(etag, modified)
    lines = lines_of(told, told_date)
    assert {
        confirms(stored, lines, now_s=NOW_S), head_confirms(stored, lines, now_s=NOW_S),
        not_modified(stored, if_none_match=noise), not_modified(stored, if_modified_since=noise),
    } <= {True, False, None}  # fmt: skip
