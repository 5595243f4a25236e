"""A slope that outliers do not move, and an interval that holds what it says."""

import random
from math import inf, isclose

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perf_middleware.memory_watch.leaks.robust_trend import (
    POINTS_MAX,
    Trend,
    kendall_variance,
    robust_trend,
)

VALUES = st.integers(-(10**9), 10**9)
SERIES = st.lists(VALUES, min_size=6, max_size=20)


@pytest.mark.parametrize(
    ("ys", "expected"),
    [
        pytest.param([5] * 14, (0, 0, 0), id="what is constant has no slope, surely"),
        pytest.param([3 * x for x in range(14)], (3, 3, 3), id="a line is its slope"),
        pytest.param([0] * 11 + [1_000] * 3, (0, 0, 0), id="one late step is no slope"),
        pytest.param([9 if x in (2, 7, 11) else x for x in range(14)], None, id="outliers"),
    ],
)
def test_the_slope_is_the_middle_one(ys, expected):
    trend = robust_trend(range(len(ys)), ys)
    if expected is None:
        assert 0.8 <= trend.slope <= 1
    else:
        assert trend.slope == expected[0]
        assert trend.low == expected[1]
        assert trend.high >= expected[0]


def test_five_years_of_cloud_seeding():
    """The data of Hollander and Wolfe, table 9.1: the middle of ten slopes."""
    trend = robust_trend([1, 2, 3, 4, 5], [1.26, 1.27, 1.12, 1.16, 1.03])
    assert isclose(trend.slope, -0.05625)
    assert trend.low < trend.slope < trend.high


@pytest.mark.parametrize(
    ("xs", "ys"),
    [
        pytest.param([1, 2], [1, 2], id="two points"),
        pytest.param([4] * 9, list(range(9)), id="no time has passed"),
    ],
)
def test_too_little_has_no_trend(xs, ys):
    assert robust_trend(xs, ys) is None


def test_each_y_needs_its_x():
    with pytest.raises(ValueError, match="one y for each x"):
        robust_trend([1, 2, 3], [1, 2])


def test_few_points_give_an_open_interval():
    assert robust_trend([0, 1, 2], [0, 5, 3]) == Trend(1.5, -inf, inf)


def test_kendalls_variance_of_ten_and_of_ties():
    assert kendall_variance(range(10), range(10)) == 125
    # Hollander and Wolfe (8.19): ties of 2 and 3 take their share.
    assert kendall_variance(range(5), [1, 1, 2, 2, 2]) == (5 * 4 * 15 - 2 * 9 - 3 * 2 * 11) / 18
    assert kendall_variance(range(4), [7] * 4) == 0


def test_many_points_are_thinned_out():
    count = POINTS_MAX * 7 + 3
    assert robust_trend(range(count), [2 * x for x in range(count)]).slope == 2


@given(SERIES, st.integers(-1_000, 1_000), VALUES)
def test_a_line_that_is_added_adds_its_slope(ys, slope, offset):
    xs = range(len(ys))
    plain = robust_trend(xs, ys)
    tilted = robust_trend(xs, [y + slope * x + offset for x, y in zip(xs, ys, strict=True)])
    assert isclose(tilted.slope, plain.slope + slope, rel_tol=1e-9, abs_tol=1e-3)


@given(SERIES, st.integers(1, 1_000))
def test_another_unit_is_the_same_trend(ys, factor):
    plain = robust_trend(range(len(ys)), ys)
    scaled = robust_trend(range(len(ys)), [y * factor for y in ys])
    assert isclose(scaled.slope, plain.slope * factor, rel_tol=1e-9, abs_tol=1e-9)
    assert scaled.is_rising == plain.is_rising


@given(SERIES)
def test_backwards_in_time_it_falls_as_it_rose(ys):
    trend = robust_trend(range(len(ys)), ys)
    back = robust_trend(range(len(ys)), ys[::-1])
    assert isclose(back.slope, -trend.slope, rel_tol=1e-9, abs_tol=1e-9)
    assert trend.low <= trend.slope <= trend.high


@given(SERIES, st.data())
def test_a_fifth_of_the_points_may_be_anything(ys, data):
    count = len(ys)
    line = [10 * x for x in range(count)]
    wild = data.draw(st.sets(st.integers(0, count - 1), max_size=count // 5))
    assume(count >= 10)
    trend = robust_trend(range(count), [ys[x] if x in wild else line[x] for x in range(count)])
    assert trend.slope == 10


def test_the_interval_holds_the_slope_as_often_as_it_says():
    chance = random.Random(1)
    held = 0
    for _ in range(400):
        ys = [0.1 * x + chance.gauss(0, 1) for x in range(14)]
        trend = robust_trend(range(14), ys)
        held += trend.low <= 0.1 <= trend.high
    assert held >= 0.92 * 400
