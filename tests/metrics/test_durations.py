import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.families import NO_LABELS, Family
from perf_middleware.metrics.probes.loop import LAG_WINDOW_US
from perf_middleware.metrics.watching.durations import Durations, RollingMax, RollingShare

BOUNDS_S = (0.001, 0.01, 1.0)


@pytest.mark.parametrize(
    ("duration_ns", "cumulative"),
    [
        pytest.param(0, (1, 1, 1, 1), id="nothing at all is in every bucket"),
        pytest.param(1_000_000, (1, 1, 1, 1), id="a bound belongs to its own bucket"),
        pytest.param(1_000_001, (0, 1, 1, 1), id="a nanosecond more does not"),
        pytest.param(2_000_000_000, (0, 0, 0, 1), id="beyond the last bound only +Inf counts it"),
        pytest.param(-5, (1, 1, 1, 1), id="a clock's jitter counts as nothing"),
    ],
)
def test_a_duration_counts_in_every_bucket_that_can_hold_it(duration_ns, cumulative):
    durations = Durations(BOUNDS_S)
    durations.observe(duration_ns)
    assert durations.distribution().cumulative == cumulative
    assert durations.longest_ns == max(0, duration_ns)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**10)))
def test_the_histogram_agrees_with_counting_by_hand(values_ns):
    durations = Durations(BOUNDS_S)
    for value_ns in values_ns:
        durations.observe(value_ns)
    point = durations.distribution(NO_LABELS)
    by_hand = [sum(v <= bound * 1e9 for v in values_ns) for bound in BOUNDS_S]
    assert list(point.cumulative) == [*by_hand, len(values_ns)]
    assert point.sum == pytest.approx(sum(values_ns) / 1e9)
    assert durations.count == len(values_ns)
    Family(name="x_seconds", kind="histogram", help="", points=[point], bounds=durations.bounds_s)


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_do_not_rise_are_refused(bounds):
    with pytest.raises(ValueError, match="rising"):
        Durations(bounds)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 1000)), max_size=30), st.integers(0, 300)
)
def test_the_rolling_maximum_holds_half_a_window_and_forgets_a_whole_one(steps, rest):
    window_us = 100
    rolling = RollingMax(window_us=window_us)
    now, seen = 0, []
    for step, value in steps:
        now += step
        rolling.add(value, now)
        seen.append((now, value))
    now += rest
    surely = max((v for at, v in seen if now - at < window_us // 2), default=0)
    at_most = max((v for at, v in seen if now - at <= window_us), default=0)
    assert surely <= rolling.read(now) <= at_most


@pytest.mark.parametrize("seen_us", range(0, LAG_WINDOW_US, 7_300_000))
def test_the_largest_lag_meets_a_scrape_a_minute_later(seen_us):
    rolling = RollingMax(window_us=LAG_WINDOW_US)
    rolling.add(5, seen_us)
    assert rolling.read(seen_us + 61_000_000) == 5
    assert rolling.read(seen_us + 151_000_000) == 0


def test_a_window_needs_two_halves():
    with pytest.raises(ValueError, match="window_us"):
        RollingMax(window_us=1)


def share_of(*spans, now, window=120, least=10):
    share = RollingShare(window_us=window, least_us=least)
    for taken, end in spans:
        share.add(taken, end)
    return share.read(now)


@pytest.mark.parametrize(
    ("spans", "now", "share"),
    [
        pytest.param([], 0, None, id="nobody watched"),
        pytest.param([(0, 0)], 100, 0.0, id="nothing was taken"),
        pytest.param([(1, 601)], 602, 0.1, id="one span right after the start is not the rule"),
        pytest.param([(0, 600), (9, 620), (9, 630)], 640, 0.45, id="most of a short time"),
        pytest.param([(0, 0), (30, 90)], 120, 0.5, id="the half before is kept"),
        pytest.param([(0, 0), (30, 30)], 119, 30 / 119, id="still remembered"),
        pytest.param([(0, 0), (30, 30)], 180, 0.0, id="forgotten"),
        pytest.param([(0, 0), (40, 70)], 119, 40 / 119, id="across two halves"),
        pytest.param([(0, 0), (40, 70)], 120, 10 / 60, id="…of which one is forgotten"),
        pytest.param([(900, 900)], 900, 1.0, id="longer than the window"),
    ],
)
def test_a_share_is_of_the_last_half_to_whole_window(spans, now, share):
    told = share_of(*spans, now=now)
    assert told == (None if share is None else pytest.approx(share))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=20))
def test_a_share_is_never_more_than_all_of_it(steps):
    share, now = RollingShare(window_us=120, least_us=10), 1_000
    for free, taken in steps:
        now += free + taken
        share.add(taken, now)
        assert 0.0 <= share.read(now) <= 1.0
        assert 0.0 <= share.read(now + free) <= 1.0


@pytest.mark.parametrize("least", [0, 61])
def test_a_share_of_nothing_is_refused(least):
    with pytest.raises(ValueError, match="least_us"):
        RollingShare(window_us=120, least_us=least)
