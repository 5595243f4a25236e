"""A bounded history: fine where it is recent, troughs everywhere."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.leaks.history import FACTOR, LEVELS, POINTS, History
from perf_middleware.memory_watch.reading import Witness

US = 1_000_000


def witness(at_s, anonymous=0, *, blocks=0, malloc=None, known=0, requests=None):
    return Witness(
        at_us=round(at_s * US),
        anonymous_bytes=anonymous,
        blocks=blocks,
        malloc_bytes=malloc,
        known_bytes=known,
        requests=requests,
    )


def filled(values, *, step_s=1.0, bucket_us=2 * US):
    history = History(bucket_us=bucket_us)
    for number, value in enumerate(values):
        history.add(witness(number * step_s, value))
    return history


def test_a_level_tells_nothing_before_it_is_full():
    history = filled(range(2 * POINTS))
    assert history.points(0) is None
    history.add(witness(2 * POINTS, 0))
    assert len(history.points(0)) == POINTS


def test_a_point_is_the_least_of_its_time():
    history = filled([9, 3, 8, 7, 1, 1] * 10)
    assert {point.anonymous_bytes for point in history.points(0)} == {1, 3, 7}


def test_known_bytes_are_taken_off():
    history = History(bucket_us=2 * US)
    for second in range(40):
        history.add(witness(second, 1_000 * second + 7, known=1_000 * second, malloc=9_000))
    assert {point.anonymous_bytes for point in history.points(0)} == {7}


def test_malloc_may_be_told_by_one_look_of_several():
    history = History(bucket_us=2 * US)
    for second in range(40):
        history.add(witness(second, malloc=None if second % 2 or second == 20 else 5))
    told = [point.malloc_bytes for point in history.points(0)]
    assert told.count(None) == 1
    assert set(told) == {None, 5}


def test_each_level_is_four_times_as_long():
    history = filled(range(2 * POINTS * FACTOR**2 + 60))
    spans = [history.points(level)[-1].at_us - history.points(level)[0].at_us for level in range(3)]
    assert [round(after / before) for before, after in pairwise(spans)] == [FACTOR, FACTOR]


def test_it_tells_which_levels_have_a_new_point():
    history = History(bucket_us=2 * US)
    told = [history.add(witness(second)) for second in range(2 * FACTOR**2 + 2)]
    assert [count for count in told if count] == [1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 3]


def test_no_point_reaches_across_a_break():
    history = filled([5, 5, 5])
    history.break_off()
    for second in range(10, 60):
        history.add(witness(second, 9))
    assert {point.anonymous_bytes for point in history.points(0)} == {9}


def test_a_bucket_is_a_time():
    with pytest.raises(ValueError, match="bucket_us"):
        History(bucket_us=0)


@given(st.lists(st.integers(0, 10_000), max_size=300), st.floats(0.01, 10))
def test_it_is_bounded_and_in_order(values, step_s):
    history = filled(values, step_s=step_s)
    assert len(history.all_points()) <= LEVELS * POINTS
    for level in range(LEVELS):
        points = history.points(level) or ()
        assert all(before.at_us < after.at_us for before, after in pairwise(points))
        assert {point.anonymous_bytes for point in points} <= set(values)
