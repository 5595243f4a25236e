"""How long a response is fresh and how old it is (RFC 9111 §4.2, §5.1, §5.3; RFC 9213)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.freshness import (
    HEURISTIC_S_MAX,
    HEURISTIC_STATUSES,
    date_s_of,
    directives_of,
    freshness_lifetime_s,
    heuristic_lifetime_s,
    initial_age_us,
)
from perf_middleware.caching.syntax.directives import DELTA_SECONDS_MAX, NO_DIRECTIVES
from tests.caching.entries import NOW_S, S, date

DAY_S = 86_400
CDN = (b"cdn-cache-control",)


def lifetime_s(cache_control, *expires, date_s=NOW_S, targeted=(), **fields):
    lines = {name.replace("_", "-").encode(): values for name, values in fields.items()}
    if cache_control is not None:
        lines[b"cache-control"] = [cache_control]
    if expires:
        lines[b"expires"] = list(expires)
    directives, is_targeted = directives_of(lines, targeted)
    return freshness_lifetime_s(directives, lines, targeted=is_targeted, date_s=date_s)


@pytest.mark.parametrize(
    ("cache_control", "expires", "expected"),
    [
        pytest.param(None, None, None, id="nothing says it"),
        pytest.param(b"public", None, None, id="public says nothing of time"),
        pytest.param(b"max-age=60", None, 60, id="max-age"),
        pytest.param(b"s-maxage=9, max-age=60", None, 9, id="s-maxage wins over max-age"),
        pytest.param(b"max-age=60, s-maxage=900", None, 900, id="also where it is longer"),
        pytest.param(b"s-maxage=0, max-age=60", None, 0, id="s-maxage=0 is said"),
        pytest.param(b"s-maxage=x, max-age=60", None, 0, id="a broken s-maxage is stale"),
        pytest.param(b"max-age=60", 3600, 60, id="max-age wins over Expires"),
        pytest.param(b"max-age=0", 3600, 0, id="max-age=0 wins over Expires"),
        pytest.param(b"max-age=x", 3600, 0, id="a broken max-age wins over Expires, stale"),
        pytest.param(b"s-maxage=9", 3600, 9, id="s-maxage wins over Expires"),
        pytest.param(None, 3600, 3600, id="Expires minus Date"),
        pytest.param(b"public, foo=1", 3600, 3600, id="Expires beside other directives"),
        pytest.param(None, 0, 0, id="Expires at Date is expired"),
        pytest.param(None, -3600, -3600, id="Expires in the past: stale by all of that time"),
        pytest.param(b"max-age=99999999999999", None, 2**31, id="huge is capped"),
    ],
)
def test_the_first_lifetime_that_is_named_counts(cache_control, expires, expected):
    values = [] if expires is None else [date(NOW_S + expires)]
    assert lifetime_s(cache_control, *values) == expected


SOON = date(NOW_S + 60)


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        pytest.param([b"0"], 0, id="0, which is common"),
        pytest.param([b"-1"], 0, id="-1, which is common too"),
        pytest.param([b""], 0, id="nothing"),
        pytest.param([b"soon"], 0, id="no date"),
        pytest.param([SOON.replace(b"GMT", b"CET")], 0, id="another time zone"),
        pytest.param([SOON.replace(b"GMT", b"+0000")], 0, id="an offset"),
        pytest.param([b'"' + SOON + b'"'], 0, id="quoted"),
        pytest.param([SOON + b", " + SOON], 0, id="two dates on one line"),
        pytest.param([SOON, SOON], 60, id="the same on two lines"),
        pytest.param([SOON, date(NOW_S + 90)], 0, id="two lines that differ are stale"),
        pytest.param([date(NOW_S - 9), SOON], -9, id="two lines, the first in the past"),
        pytest.param([SOON, b"x"], 0, id="two lines, one broken"),
        pytest.param([b"x", SOON], 0, id="two lines, the first broken"),
        pytest.param([b" " + SOON + b"\t"], 60, id="white space around it"),
    ],
)
def test_an_expires_in_doubt_has_passed(expires, expected):
    assert lifetime_s(None, *expires) == expected


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        pytest.param(b"Sunday, 06-Nov-94 08:50:37 GMT", 60, id="rfc850"),
        pytest.param(b"Sun Nov  6 08:50:37 1994", 60, id="asctime"),
        pytest.param(b"Sun, 06 Nov 1994 08:50:37 GMT", 60, id="IMF-fixdate"),
        pytest.param(b"Fri, 31 Dec 9999 23:59:59 GMT", DELTA_SECONDS_MAX, id="the end of time"),
    ],
)
def test_expires_may_be_in_any_of_the_three_formats(expires, expected):
    assert lifetime_s(None, expires, date_s=784_111_777) == expected


@pytest.mark.parametrize(
    ("fields", "cache_control", "expected"),
    [
        pytest.param({"cdn_cache_control": [b"max-age=9"]}, b"max-age=60", 9,
                     id="the targeted field wins over Cache-Control"),
        pytest.param({"cdn_cache_control": [b"max-age=9"]}, b"no-store", 9,
                     id="even where that forbids"),
        pytest.param({"cdn_cache_control": [b"s-maxage=5, max-age=9"]}, None, 5,
                     id="s-maxage in it"),
        pytest.param({"cdn_cache_control": [b"no-transform"]}, b"max-age=60", None,
                     id="a targeted field without a lifetime still wins"),
        pytest.param({"cdn_cache_control": [b"no-transform"], "expires": [SOON]}, None, None,
                     id="also over Expires"),
        pytest.param({"cdn_cache_control": [b""], "expires": [SOON]}, None, 60,
                     id="an empty one does not count"),
        pytest.param({"cdn_cache_control": [b"max-age=9; ;"]}, b"max-age=60", 60,
                     id="one that is not valid does not count"),
        pytest.param({"cdn_cache_control": [b"max-age"]}, b"max-age=60", None,
                     id="max-age without a number is passed over"),
        pytest.param({"cdn_cache_control": [b'max-age="9"']}, b"max-age=60", None,
                     id="max-age as a string is passed over"),
        pytest.param({"cdn_cache_control": [b"max-age=5", b"max-age=7"]}, None, 7,
                     id="the last of two lines, as in any dictionary"),
        pytest.param({"surrogate_control": [b"max-age=9"]}, b"max-age=60", 60,
                     id="a field that is none of ours"),
    ],
)  # fmt: skip
def test_a_targeted_field_speaks_in_place_of_cache_control(fields, cache_control, expected):
    assert lifetime_s(cache_control, targeted=CDN, **fields) == expected


def test_the_first_valid_one_of_several_targeted_fields_wins():
    lines = {
        b"example-cache-control": [b"max-age=1"],
        b"cdn-cache-control": [b"max-age=2"],
        b"cache-control": [b"max-age=3"],
    }
    ours = (b"example-cache-control", b"cdn-cache-control")
    assert directives_of(lines, ours)[0].max_age == 1
    assert directives_of(lines, ours[::-1])[0].max_age == 2
    broken = lines | {b"example-cache-control": [b"max-age=1 max-age=1"]}
    assert directives_of(broken, ours)[0].max_age == 2
    assert directives_of(lines) == directives_of(lines, (b"other",))
    assert directives_of({}) == (NO_DIRECTIVES, False)


@pytest.mark.parametrize("status", sorted(HEURISTIC_STATUSES))
def test_a_status_that_is_final_by_itself_may_be_guessed(status):
    lines = {b"last-modified": [date(NOW_S - 1000)]}
    assert heuristic_lifetime_s(status, lines, date_s=NOW_S) == 100


def test_these_are_the_statuses_that_are_cacheable_without_being_told():
    by_rfc_9110 = {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}
    assert by_rfc_9110 - {206} == HEURISTIC_STATUSES


@pytest.mark.parametrize(
    "status", [201, 202, 206, 299, 302, 303, 307, 304, 400, 401, 403, 500, 503]
)
def test_of_any_other_status_nothing_is_guessed(status):
    lines = {b"last-modified": [date(NOW_S - 1000)]}
    assert heuristic_lifetime_s(status, lines, date_s=NOW_S) is None


@pytest.mark.parametrize(
    ("modified", "expected"),
    [
        pytest.param(None, None, id="not told"),
        pytest.param([], None, id="no line"),
        pytest.param([b"yesterday"], None, id="no date"),
        pytest.param([date(NOW_S + 1)], None, id="in the future"),
        pytest.param([date(NOW_S)], 0, id="this moment"),
        pytest.param([date(NOW_S - 9)], 0, id="less than ten seconds ago"),
        pytest.param([date(NOW_S - DAY_S)], DAY_S // 10, id="a tenth of a day"),
        pytest.param([date(0)], HEURISTIC_S_MAX, id="a day at most"),
        pytest.param([date(NOW_S - 100), date(0)], 10, id="the first of two"),
    ],
)
def test_a_tenth_of_the_time_since_it_was_modified(modified, expected):
    lines = {} if modified is None else {b"last-modified": modified}
    assert heuristic_lifetime_s(200, lines, date_s=NOW_S) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param({}, NOW_S, id="missing: the time of receipt"),
        pytest.param({b"date": [b"x"]}, NOW_S, id="broken: the time of receipt"),
        pytest.param({b"date": [b""]}, NOW_S, id="empty: the time of receipt"),
        pytest.param({b"date": [date(NOW_S - 50)]}, NOW_S - 50, id="in the past"),
        pytest.param({b"date": [date(NOW_S + 50)]}, NOW_S + 50, id="in the future"),
        pytest.param({b"date": [date(5), date(9)]}, 5, id="the first of two"),
    ],
)
def test_a_response_is_dated(lines, expected):
    assert date_s_of(lines, now_s=NOW_S) == expected


def test_a_response_of_the_future_expires_when_its_own_clock_says():
    date_s = NOW_S + 3600
    assert lifetime_s(None, date(date_s + 60), date_s=date_s) == 60
    assert initial_age_us({}, date_s=date_s, response_us=NOW_S * S, delay_us=0) == 0


@pytest.mark.parametrize(
    ("age", "date_s", "delay_s", "expected"),
    [
        pytest.param(None, 0, 0, 0, id="just made"),
        pytest.param(None, 0, 3, 3, id="the request took its time"),
        pytest.param([b"5"], 0, 0, 5, id="Age of a cache behind us"),
        pytest.param([b"5"], 0, 3, 8, id="Age and the request's time add up"),
        pytest.param(None, -20, 3, 20, id="the apparent age where it is greater"),
        pytest.param([b"30"], -20, 3, 33, id="the corrected age where it is greater"),
        pytest.param([b"5"], 900, 3, 8, id="a Date in the future makes nothing younger"),
        pytest.param([b"5, 90"], 0, 0, 5, id="the first of several hops"),
        pytest.param([b"5", b"90"], 0, 0, 5, id="the first of several lines"),
        pytest.param([b"x, 90"], 0, 2, 2, id="the first of several is junk"),
        pytest.param([b"-5"], 0, 0, 0, id="negative"),
        pytest.param([b"1.5"], 0, 0, 0, id="a fraction"),
        pytest.param([b'"5"'], 0, 0, 0, id="in quotes"),
        pytest.param([b""], 0, 0, 0, id="empty"),
        pytest.param([b","], 0, 0, 0, id="an empty list"),
        pytest.param([b"\xff"], 0, 0, 0, id="no text"),
        pytest.param([b"9" * 5000], 0, 0, 2**31, id="huge is capped"),
    ],
)
def test_the_initial_age_is_the_greater_of_two_estimates(age, date_s, delay_s, expected):
    lines = {} if age is None else {b"age": age}
    found = initial_age_us(
        lines, date_s=NOW_S + date_s, response_us=NOW_S * S + 7, delay_us=delay_s * S
    )
    assert found // S == expected


fields = st.sampled_from([b"cache-control", b"cdn-cache-control", b"expires", b"date", b"age",
                          b"last-modified"])  # fmt: skip
words = st.sampled_from([b"max-age=5", b"s-maxage=", b"no-store", b",", b'"', SOON, b"7", b"\xff"])
values = st.one_of(st.binary(max_size=30), st.lists(words, max_size=4).map(b",".join))


@given(st.dictionaries(fields, st.lists(values, max_size=3)), st.integers(100, 599))
def test_any_bytes_give_a_lifetime_within_bounds_and_an_age_that_is_not_negative(lines, status):
    directives, targeted = directives_of(lines, CDN)
    date_s = date_s_of(lines, now_s=NOW_S)
    said = freshness_lifetime_s(directives, lines, targeted=targeted, date_s=date_s)
    assert said is None or -DELTA_SECONDS_MAX <= said <= DELTA_SECONDS_MAX
    guessed = heuristic_lifetime_s(status, lines, date_s=date_s)
    assert guessed is None or 0 <= guessed <= HEURISTIC_S_MAX
    assert initial_age_us(lines, date_s=date_s, response_us=NOW_S * S, delay_us=S) >= S
