"""May a stored response be used now?  (RFC 9111 §4.2.4, §5.2.1; RFC 5861)"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.reuse import Reuse, decide_reuse, may_serve_on_error
from perf_middleware.caching.syntax.directives import RequestDirectives, parse_request_directives
from tests.caching.entries import S, entry

FRESH, STALE, REFRESH, VALIDATE = Reuse.FRESH, Reuse.STALE, Reuse.REFRESH, Reuse.VALIDATE


def verdict(stored, cache_control, age_s):
    request = None if cache_control is None else parse_request_directives([cache_control])
    return decide_reuse(stored, request, now_us=int(age_s * S))


@pytest.mark.parametrize("cache_control", [None, b"", b"foo=1"], ids=["none", "empty", "unknown"])
@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        pytest.param(0, FRESH, id="at once"),
        pytest.param(59.9, FRESH, id="a moment before its end"),
        pytest.param(60, REFRESH, id="at its end it is stale: the lifetime must exceed the age"),
        pytest.param(64.9, REFRESH, id="within stale-while-revalidate"),
        pytest.param(65, VALIDATE, id="after it"),
    ],
)
def test_without_wishes_of_the_client_its_time_decides(age_s, expected, cache_control):
    stored = entry(fresh_s=60, stale_while_revalidate_s=5)
    assert verdict(stored, cache_control, age_s) is expected


def test_without_leave_to_be_stale_the_app_is_asked():
    assert verdict(entry(), None, 60) is VALIDATE
    assert verdict(entry(stale_if_error_s=30), None, 60) is VALIDATE


@pytest.mark.parametrize(
    ("cache_control", "age_s", "expected"),
    [
        pytest.param(b"no-cache", 0, VALIDATE, id="no-cache: ask, however fresh"),
        pytest.param(b"no-store", 0, FRESH, id="no-store forbids to store, not to answer"),
        pytest.param(b"only-if-cached", 0, FRESH, id="only-if-cached is content with it"),
        pytest.param(b"max-age=10", 10, FRESH, id="as old as it may be"),
        pytest.param(b"max-age=10", 11, VALIDATE, id="older than the client will have it"),
        pytest.param(b"max-age=10", 10.9, FRESH, id="ages are whole seconds"),
        pytest.param(b"max-age=0", 0, FRESH, id="max-age=0 of what came this second"),
        pytest.param(b"max-age=0", 1, VALIDATE, id="max-age=0, a reload"),
        pytest.param(b"max-age=x", 1, VALIDATE, id="a broken max-age is a reload"),
        pytest.param(b"max-age=999", 61, VALIDATE, id="max-age asks for fresh ones only"),
        pytest.param(b"min-fresh=50", 10, FRESH, id="fresh for just as long as it must be"),
        pytest.param(b"min-fresh=50", 10.1, VALIDATE, id="not fresh long enough"),
        pytest.param(b"min-fresh=61", 0, VALIDATE, id="never fresh so long"),
        pytest.param(b"min-fresh=0", 61, VALIDATE, id="min-fresh=0 is fresh at least"),
        pytest.param(b"min-fresh=x", 0, VALIDATE, id="a broken min-fresh"),
        pytest.param(b"max-stale", 0, FRESH, id="max-stale of a fresh one"),
        pytest.param(b"max-stale", 10**6, STALE, id="any staleness"),
        pytest.param(b"max-stale=30", 90, STALE, id="as stale as it may be"),
        pytest.param(b"max-stale=30", 90.1, VALIDATE, id="staler than that"),
        pytest.param(b"max-stale=0", 60, STALE, id="max-stale=0, the moment it ends"),
        pytest.param(b"max-stale=2", 61, STALE, id="max-stale needs no refresh"),
        pytest.param(b"max-stale=2", 63, VALIDATE, id="staler than the client, not than the app"),
        pytest.param(b"max-stale=x", 70, VALIDATE, id="a broken max-stale permits nothing"),
        pytest.param(b"max-age=70, max-stale=30", 65, STALE, id="max-age and max-stale, within"),
        pytest.param(b"max-age=62, max-stale=30", 65, VALIDATE, id="older than max-age"),
        pytest.param(b"max-age=999, max-stale=1", 63, VALIDATE,
                     id="max-age bounds stale-while-revalidate by max-stale"),
        pytest.param(b"max-stale=30, min-fresh=5", 70, VALIDATE, id="what it says both ways"),
        pytest.param(b"no-cache, max-stale", 70, VALIDATE, id="no-cache wins over max-stale"),
        pytest.param(b"stale-if-error=99", 61, REFRESH, id="stale-if-error says nothing here"),
    ],
)  # fmt: skip
def test_a_client_may_ask_for_more_or_for_less(cache_control, age_s, expected):
    stored = entry(fresh_s=60, stale_while_revalidate_s=5)
    assert verdict(stored, cache_control, age_s) is expected


@pytest.mark.parametrize(
    "cache_control", [None, b"", b"max-stale", b"max-stale=99", b"max-age=99, max-stale"]
)
def test_what_may_not_be_stale_is_not_whatever_the_client_permits(cache_control):
    stored = entry(may_be_stale=False)  # must-revalidate, proxy-revalidate, s-maxage
    assert verdict(stored, cache_control, 59) is FRESH
    assert verdict(stored, cache_control, 60) is VALIDATE


@pytest.mark.parametrize("cache_control", [None, b"", b"max-stale", b"max-age=99"])
def test_no_cache_in_the_response_asks_the_app_each_time(cache_control):
    stored = entry(may_be_stale=False, must_validate=True)
    for age_s in (0, 59, 61):
        assert verdict(stored, cache_control, age_s) is VALIDATE


def test_an_age_from_caches_behind_us_counts():
    stored = entry(initial_age_us=55 * S, now_us=0)
    assert decide_reuse(stored, None, now_us=4 * S) is FRESH
    assert decide_reuse(stored, None, now_us=5 * S) is VALIDATE
    asked = RequestDirectives(max_age=54)
    assert decide_reuse(stored, asked, now_us=0) is VALIDATE


@pytest.mark.parametrize(
    ("lifetimes", "cache_control", "age_s", "expected"),
    [
        pytest.param({}, None, 20, REFRESH, id="may be stale: sent while the app is asked"),
        pytest.param({}, None, 60, VALIDATE, id="not after the end that it had"),
        pytest.param({"stale_while_revalidate_s": 5}, None, 64, REFRESH,
                     id="and for its stale-while-revalidate"),
        pytest.param({}, b"max-age=30", 20, VALIDATE, id="not to who wants a fresh one"),
        pytest.param({}, b"max-stale=5", 25, STALE, id="stale since the purge, not since birth"),
        pytest.param({}, b"max-stale=4", 25, VALIDATE, id="the same, staler than the client says"),
        pytest.param({"may_be_stale": False}, None, 20, VALIDATE, id="never what may not be stale"),
        pytest.param({"may_be_stale": False}, b"max-stale", 20, VALIDATE, id="for no client"),
    ],
)  # fmt: skip
def test_a_soft_purge_leaves_it_to_those_who_may_have_it_stale(
    lifetimes, cache_control, age_s, expected
):
    stored = entry(**lifetimes)
    stored.make_stale(20 * S)
    assert verdict(stored, cache_control, age_s) is expected


@pytest.mark.parametrize(
    ("lifetimes", "cache_control", "age_s", "expected"),
    [
        pytest.param({}, None, 59, True, id="while it is fresh"),
        pytest.param({}, None, 60, False, id="no leave to be stale"),
        pytest.param({"stale_if_error_s": 9}, None, 68, True, id="within stale-if-error"),
        pytest.param({"stale_if_error_s": 9}, None, 69, False, id="after it"),
        pytest.param({"stale_while_revalidate_s": 9}, None, 65, False,
                     id="stale-while-revalidate is not about errors"),
        pytest.param({}, b"stale-if-error=9", 68, True, id="the client's stale-if-error"),
        pytest.param({}, b"stale-if-error=9", 69, False, id="after the client's"),
        pytest.param({}, b"stale-if-error=x", 61, False, id="the client's, broken"),
        pytest.param({}, b"max-stale=30", 61, False, id="max-stale is not about errors"),
        pytest.param({"stale_if_error_s": 30}, b"stale-if-error=9", 80, True,
                     id="the longer of both"),
        pytest.param({"stale_if_error_s": 9}, b"no-cache", 65, False,
                     id="not for who has asked for a fresh one"),
        pytest.param({"stale_if_error_s": 9}, b"max-age=64", 65, False, id="nor a younger one"),
        pytest.param({"stale_if_error_s": 9}, b"max-age=65", 65, True, id="it is young enough"),
        pytest.param({"stale_if_error_s": 9}, b"min-fresh=1", 65, False, id="nor a fresher one"),
        pytest.param({"stale_if_error_s": 9}, b"max-stale=2", 65, True,
                     id="stale-if-error is a leave of its own beside max-stale"),
        pytest.param({}, b"max-stale=2, stale-if-error=9", 65, True,
                     id="also where the client gives both"),
        pytest.param({"may_be_stale": False}, None, 61, False, id="must-revalidate"),
        pytest.param({"may_be_stale": False}, b"stale-if-error=99", 61, False,
                     id="must-revalidate, whatever the client permits"),
        pytest.param({"may_be_stale": False, "must_validate": True}, b"stale-if-error=9", 0, False,
                     id="no-cache"),
    ],
)  # fmt: skip
def test_it_stands_in_for_a_failure_where_that_is_permitted(
    lifetimes, cache_control, age_s, expected
):
    request = None if cache_control is None else parse_request_directives([cache_control])
    stored = entry(**lifetimes)
    assert may_serve_on_error(stored, request, now_us=age_s * S) is expected


def test_a_soft_purge_does_not_shorten_what_stands_in_for_a_failure():
    stored = entry(stale_if_error_s=9)
    stored.make_stale(20 * S)
    assert may_serve_on_error(stored, None, now_us=68 * S)
    assert not may_serve_on_error(stored, None, now_us=69 * S)
    stored = entry(may_be_stale=False)
    stored.make_stale(20 * S)
    assert not may_serve_on_error(stored, None, now_us=21 * S)


@pytest.mark.parametrize(
    ("lifetimes", "cache_control", "expected"),
    [
        pytest.param({}, b"max-stale=5", True, id="as stale as it may be"),
        pytest.param({}, b"max-stale=4", False, id="staler than the client will have it"),
        pytest.param({}, b"max-stale=4, stale-if-error=9", True, id="with leave for errors"),
        pytest.param({}, b"max-stale=4, stale-if-error=2", False, id="with a leave that is over"),
        pytest.param({"stale_if_error_s": 9}, b"max-stale=4", True, id="with the response's"),
    ],
)
def test_after_a_soft_purge_max_stale_bounds_what_no_stale_if_error_permits(
    lifetimes, cache_control, expected
):
    stored = entry(**lifetimes)
    stored.make_stale(20 * S)
    request = parse_request_directives([cache_control])
    assert may_serve_on_error(stored, request, now_us=25 * S) is expected


spans = st.one_of(st.none(), st.integers(0, 100))
wishes = st.builds(
    RequestDirectives, max_age=spans, max_stale=spans, min_fresh=spans, no_cache=st.booleans(),
    stale_if_error=spans,
)  # fmt: skip
kept = st.builds(
    entry,
    fresh_s=st.integers(0, 100), may_be_stale=st.just(False), must_validate=st.booleans(),
)  # fmt: skip


@given(kept, st.one_of(st.none(), wishes), st.integers(0, 200))
def test_nothing_makes_a_response_usable_stale_that_forbids_it(stored, request, age_s):
    now_us = age_s * S
    fresh = now_us < stored.fresh_until_us
    assert decide_reuse(stored, request, now_us=now_us) is VALIDATE or fresh
    assert not may_serve_on_error(stored, request, now_us=now_us)


@given(st.integers(0, 100), st.integers(0, 100), wishes, st.integers(0, 300))
def test_wishes_only_narrow_what_is_sent_unless_they_say_max_stale(fresh_s, swr_s, request, age_s):
    stored = entry(fresh_s=fresh_s, stale_while_revalidate_s=swr_s)
    without = decide_reuse(stored, None, now_us=age_s * S)
    found = decide_reuse(stored, request, now_us=age_s * S)
    assert found in {without, VALIDATE} or (found is STALE and request.max_stale is not None)
