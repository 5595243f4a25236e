"""Whether a function keeps what it takes, told over blocks of its calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.functions.function_figures import (
    BLOCKS,
    CALLS_PER_BLOCK,
    FunctionCounts,
    GrowthTrend,
)

KB = 1_000
ENOUGH = CALLS_PER_BLOCK * (BLOCKS + 1) + 1


def trend_of(calls, *, takes, gives_back, others=0):
    """A trend after calls that take some, of which their callers give some back."""
    trend, rss = GrowthTrend(), 50_000 * KB
    for _ in range(calls):
        trend.add(rss, rss + takes)
        rss += takes - gives_back + others
    return trend


@pytest.mark.parametrize(
    ("takes", "gives_back", "others", "growing"),
    [
        pytest.param(1 * KB, 0, 0, True, id="all is kept"),
        pytest.param(10 * KB, 4 * KB, 0, True, id="more than half of it"),
        pytest.param(1_000 * KB, 1_000 * KB, 0, False, id="a large answer that is used and gone"),
        pytest.param(10 * KB, 8 * KB, 0, False, id="a fifth of it"),
        pytest.param(0, 0, 0, False, id="nothing is taken"),
        pytest.param(0, 0, 5 * KB, False, id="others grow"),
        pytest.param(1 * KB, 0, 9 * KB, False, id="others grow much more"),
        pytest.param(-1 * KB, 0, 0, False, id="it gives memory back"),
    ],
)
def test_a_function_keeps_growing_if_its_calls_keep_what_they_take(
    takes, gives_back, others, growing
):
    trend = trend_of(ENOUGH, takes=takes, gives_back=gives_back, others=others)
    assert trend.keeps_growing is growing


def test_before_there_are_enough_calls_nothing_is_said():
    assert trend_of(ENOUGH - 1, takes=KB, gives_back=0).keeps_growing is None
    assert GrowthTrend().keeps_growing is None


def test_warming_up_is_no_growth():
    trend, rss = GrowthTrend(), 0
    for call in range(ENOUGH + CALLS_PER_BLOCK):
        takes = KB if call < CALLS_PER_BLOCK else 0
        trend.add(rss, rss + takes)
        rss += takes
    assert trend.keeps_growing is False


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=500))
def test_whatever_is_read_sums_only_grow_and_the_largest_is_one_of_them(calls):
    counts = FunctionCounts()
    for before, after in calls:
        counts.add_call(before, after)
    grown = [max(0, after - before) for before, after in calls]
    assert counts.increase_bytes == sum(grown)
    assert counts.increase_bytes_max == max(grown, default=0)
    assert counts.status()["measured"] == len(calls)


def test_traced_calls_count_what_is_left_and_the_most_at_one_time():
    counts = FunctionCounts()
    counts.add_traced(100, 5_000)
    counts.add_traced(-50, 300)
    assert (counts.traced, counts.traced_increase_bytes, counts.traced_peak_bytes) == (
        2,
        100,
        5_000,
    )
    counts.reset()
    assert counts.status() == {**dict.fromkeys(counts.status(), 0), "keeps_growing": None}
