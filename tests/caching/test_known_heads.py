"""What is known of heads like one before is what the judge says of each."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.judgement import Judge, Keep
from perf_middleware.caching.known_heads import (
    FIELDS_MAX,
    KNOWN_MAX,
    VALUES_BYTES_MAX,
    KnownHeads,
    age_without_date_us,
)
from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.rules import CachePolicy
from perf_middleware.caching.stored import StoredResponse
from tests.caching.entries import NOW_S, S, date

JSON = (b"content-type", b"application/json")
LASTING = (b"cache-control", b"max-age=60")
POOL = [
    JSON, LASTING, (b"Cache-Control", b"max-age=0"), (b"cache-control", b"no-store"),
    (b"cache-control", b'max-age=9, private="etag"'), (b"cache-control", b"no-cache, max-age=5"),
    (b"cache-control", b"stale-while-revalidate=7, max-age=0"), (b"cache-control", b"public"),
    (b"cdn-cache-control", b"max-age=3"), (b"cdn-cache-control", b"no-store"),
    (b"Content-Type", b"text/event-stream"), (b"content-length", b"5"), (b"content-length", b"6"),
    (b"etag", b'"1"'), (b"ETag", b'W/"2"'), (b"etag", b"broken"), (b"set-cookie", b"a=b"),
    (b"last-modified", date(NOW_S - 50_000)), (b"last-modified", date(NOW_S + 9)),
    (b"vary", b"accept"), (b"Vary", b"*"), (b"vary", b"cookie, accept"), (b"age", b"30"),
    (b"date", date(NOW_S - 40)), (b"expires", date(NOW_S + 90)), (b"expires", b"0"),
    (b"connection", b"x-a"), (b"x-a", b"1"), (b"X-A", b"2"), (b"te", b"x"),
    (b"cache-groups", b'"a"'), (b"ratelimit", b"1"), (b"cache-status", b"x"), (b"", b""),
]  # fmt: skip
RULES = [
    None,
    CachePolicy(name="/a", ttl_s=60),
    CachePolicy(name="/a", negative_ttl_s=5, stale_if_error_s=9),
    CachePolicy(name="/a", ttl_s=0, vary=(b"accept-language",), shared=True),
    CachePolicy(name="/a", ttl_s=7, tell_clients=b"no-cache"),
    CachePolicy(name="/a", tracked=True),
]
OPTIONS = [
    CacheOptions(),
    CacheOptions(default_ttl_s=5, targeted=()),
    CacheOptions(heuristic=True, authorization_by_rfc=True),
]
HEADS = {number: KnownHeads(Judge(options)) for number, options in enumerate(OPTIONS)}
"""Kept from one example to the next: what one has taught is what the next is answered by."""


def said(judge, status, sent, rule, *, delay_us=0, wall_us=NOW_S * S):
    return judge.judge(
        status, judge.collect(sent), credentials=frozenset(), no_store=False, rule=rule,
        sent_us=0, now_us=delay_us, wall_us=wall_us,
    )  # fmt: skip


def stored_of(keep, headers, lines):
    return StoredResponse(
        primary=b"p", key=b"p", target=b"t", status=200, headers=headers, lines=lines, body=b"body",
        lifetimes=keep.lifetimes, initial_age_us=0, produced_us=0, now_us=0, vary=keep.vary,
        tags=(), route="/a", rule=None,
    )  # fmt: skip


@given(
    st.lists(st.sampled_from(POOL), max_size=6), st.sampled_from([200, 204, 206, 304, 404, 500]),
    st.sampled_from(RULES), st.sampled_from(sorted(HEADS)),
    st.integers(0, S + 5), st.integers(NOW_S * S, (NOW_S + 2) * S),
)  # fmt: skip
def test_a_head_that_is_known_is_judged_as_if_it_were_not(
    sent, status, rule, number, delay_us, wall_us
):
    judge = Judge(OPTIONS[number])
    found = HEADS[number].of(status, sent, rule)
    age_us = age_without_date_us(sent_us=0, now_us=delay_us, wall_us=wall_us)
    if found is None or age_us is None:
        return
    known, values = found
    expected = said(judge, status, sent, rule, delay_us=delay_us, wall_us=wall_us)
    if not isinstance(expected, Keep):
        assert (known.keep, known.why) == (None, expected)
        return
    assert known.why is None
    assert replace(expected, lines={}) == replace(known.keep, initial_age_us=age_us)
    lifetimes = expected.lifetimes
    usable_us = (lifetimes.fresh_s + lifetimes.stale_while_revalidate_s) * S
    assert known.is_for_others == (not lifetimes.must_validate and age_us < usable_us)
    headers = known.headers_with(values)
    assert headers == expected.headers(sent, None)
    first, mine = (stored_of(known.keep, headers, known) for _ in range(2))
    theirs = stored_of(expected, headers, expected.lines)
    # Its names and lines are those of all heads like it: the first has paid for them.
    assert mine.size_bytes <= first.size_bytes <= theirs.size_bytes
    assert mine.size_bytes < theirs.size_bytes
    own_bytes = sum(len(values[at]) for at in known.shape.own_at)
    assert mine.size_bytes > 1_000 + len(b"body") + own_bytes
    assert (mine.etag, mine.last_modified) == (theirs.etag, theirs.last_modified)
    assert mine.lines == theirs.lines


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([LASTING, (b"date", date(NOW_S))], id="tells a time"),
        pytest.param([LASTING, (b"connection", b"x")], id="has a field that is not stored"),
        pytest.param([LASTING, (b"content-length", b"1"), (b"content-length", b"2")],
                     id="two lengths"),
        pytest.param([LASTING, (b"x", bytearray(b"1"))], id="a value that may still change"),
        pytest.param([LASTING, (bytearray(b"x"), b"1")], id="a name that may"),
        pytest.param([LASTING, (b"x", b"1", b"2")], id="no pairs"),
        pytest.param([LASTING, None], id="nothing"),
        pytest.param([LASTING, {b"x": b"1"}], id="a mapping"),
        pytest.param([LASTING, ("x", b"1")], id="a name that is no bytes"),
        pytest.param([LASTING, (b"x" * 3_000, b"1")], id="names too long to be remembered"),
        pytest.param([LASTING] + [(b"x", b"1")] * FIELDS_MAX, id="many fields"),
    ],
)  # fmt: skip
def test_the_judge_looks_at_a_head_that(sent):
    heads = KnownHeads(Judge(CacheOptions()))
    assert heads.of(200, sent, None) is None
    assert heads.of(200, sent, None) is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param(b"cache-control", (b"max-age=60", b"max-age=61", b"no-store"), id="lifetime"),
        pytest.param(b"cdn-cache-control", (b"max-age=5", b"no-store"), id="a targeted field"),
        pytest.param(b"vary", (b"accept", b"cookie", b"*"), id="what tells variants apart"),
        pytest.param(b"content-type", (b"text/html", b"text/event-stream"), id="a stream"),
    ],
)
def test_another_value_of_what_decides_is_another_verdict(name, values):
    judge = Judge(CacheOptions())
    heads = KnownHeads(judge)
    for value in values:
        for rule in RULES[:3]:
            for status in (200, 404, 206):
                sent = [LASTING, (name, value)]
                known, _ = heads.of(status, sent, rule)
                expected = said(judge, status, sent, rule, wall_us=0)
                if isinstance(expected, Keep):
                    assert known.keep == replace(expected, lines={})
                else:
                    assert known.why == expected


def test_what_an_answer_has_of_its_own_is_nothing_new():
    heads = KnownHeads(Judge(CacheOptions()))
    first = heads.of(200, [LASTING, (b"etag", b'"1"'), (b"content-length", b"1")], None)
    second = heads.of(200, [LASTING, (b"etag", b'"2"'), (b"content-length", b"22")], None)
    assert first[0] is second[0]
    assert second[1] == [b"max-age=60", b'"2"', b"22"]


def test_what_is_known_is_bounded():
    heads = KnownHeads(Judge(CacheOptions()))
    for number in range(KNOWN_MAX * 2):
        heads.of(200, [(b"cache-control", b"max-age=%d" % number)], None)
        assert len(heads._known) <= KNOWN_MAX
    before = len(heads._known)
    heads.of(200, [(b"cache-control", b"max-age=1, x=" + b"y" * VALUES_BYTES_MAX)], None)
    assert len(heads._known) == before
