"""Limits as people write them."""

from contextlib import suppress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perf_middleware.limits.rate.limit_texts import FULL_DAYS_MAX, Limit


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100/minute", Limit(100, 60)),
        ("1/s", Limit(1, 1)),
        ("5 per second", Limit(5, 1)),
        ("5/10 seconds", Limit(5, 10)),
        ("5/15m", Limit(5, 900)),
        ("10_000/day", Limit(10_000, 86_400)),
        ("7 / 2 Hours", Limit(7, 7_200)),
        ("10/second;burst=20", Limit(10, 1, 20)),
        ("10/second ; burst = 20", Limit(10, 1, 20)),
        ("1/day", Limit(1, 86_400)),
        ("5/2 mins", Limit(5, 120)),
        ("100000/second", Limit(100_000, 1)),
    ],
)
def test_a_limit_is_read(text, limit):
    assert Limit.of(text) == limit


@pytest.mark.parametrize(
    "text",
    ["", "100", "100/", "/minute", "100/fortnight", "0/minute", "1/0s", "-1/minute", "1.5/minute",
     "10/second;burst=0", "10/second;burst", "10/second;size=2", "1/1000days", "2000000/second",
     "___/minute", "_1/minute", "1/second;burst=_", "1/0.5s", "5/ms", "5/100ms", "1/ds"],
)  # fmt: skip
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ValueError, match=r"limit|burst"):
        Limit.of(text)


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 366 * 86_400), st.none() | st.integers(1, 10**6))
def test_a_limit_is_told_as_it_is_read(count, seconds, burst):
    assume((burst or 0) * seconds <= FULL_DAYS_MAX * 86_400 * count)
    limit = Limit(count, seconds, burst)
    assert Limit.of(str(limit)) == limit


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_limit_or_a_value_error(text):
    with suppress(ValueError):
        Limit.of(text).quota()
