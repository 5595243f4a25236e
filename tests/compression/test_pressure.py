"""Steps by CPU pressure: slow to rise, slower to fall, never by one peak."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.pressure import IDENTITY, LOWER_LEVEL, Pressure, Thresholds, after

US = 1_000_000
BOUNDS = Thresholds(high=0.9, low=0.7, rise_us=2 * US, fall_us=5 * US)


def steps(samples, bounds=BOUNDS):
    """The step after each of `samples`, one a second."""
    state, seen = Pressure(), []
    for second, sample in enumerate(samples):
        state = after(state, sample, now_us=second * US, thresholds=bounds)
        seen.append(state.step)
    return seen


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param([0.1] * 4, [0, 0, 0, 0], id="idle"),
        pytest.param([1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2], id="each step needs its time"),
        pytest.param([1] * 9, [0, 0, 1, 1, 2, 2, 2, 2, 2], id="no further than identity"),
        pytest.param([1, 1, 0.5, 1, 1, 1], [0, 0, 0, 0, 0, 1], id="a pause begins it anew"),
        pytest.param([1, 1, 0.8, 1, 1, 1], [0, 0, 0, 0, 0, 1], id="so does one in between"),
        pytest.param([1] * 3 + [0.8] * 9, [0, 0, 1] + [1] * 9, id="in between it stays"),
        pytest.param([1] * 3 + [0.1] * 8, [0, 0, 1] + [1] * 5 + [0] * 3, id="relief takes longer"),
        pytest.param([0.9] * 3, [0, 0, 1], id="the bound itself is high"),
        pytest.param([7.0] * 3, [0, 0, 1], id="more than there is"),
        pytest.param([float("nan")] * 9, [0] * 9, id="no number"),
    ],
)
def test_the_step_follows_what_lasts(samples, expected):
    assert steps(samples) == expected


def test_the_highest_step_can_be_the_cheap_level():
    assert steps([1] * 20, Thresholds(highest=LOWER_LEVEL))[-1] == LOWER_LEVEL


def test_busy_moments_far_from_each_other_are_no_time_of_pressure():
    """Samples come with answers: of what was between two of them nothing is known."""
    state = Pressure()
    for now_us in range(US, 100 * US, 3_300_000):
        state = after(state, 1.0, now_us=now_us, thresholds=BOUNDS)
        assert state.step == 0


def test_after_a_long_silence_there_is_no_pressure():
    state = Pressure()
    for second in range(10):
        state = after(state, 1.0, now_us=second * US, thresholds=BOUNDS)
    assert state.step == IDENTITY
    assert after(state, 0.1, now_us=3_600 * US, thresholds=BOUNDS).step == 0


@pytest.mark.parametrize("gap_us", [200_000, 1_100_000, 2_000_000, 4_000_000, 60_000_000])
def test_relief_is_seen_however_seldom_answers_come(gap_us):
    state = Pressure(IDENTITY, 1, 0, 0)
    for number in range(1, 100):
        state = after(state, 0.0, now_us=number * gap_us, thresholds=BOUNDS)
    assert state.step == 0


@pytest.mark.parametrize("gap_us", [250_000, 1_100_000, 1_900_000])
def test_a_stalled_loop_is_seen_though_its_answers_come_late(gap_us):
    state = Pressure()
    for number in range(1, 20):
        state = after(state, 1.0, now_us=number * gap_us, thresholds=BOUNDS)
    assert state.step == IDENTITY


@given(st.lists(st.floats(allow_nan=True)))
def test_it_goes_one_step_at_a_time_and_never_out_of_bounds(samples):
    seen = [0, *steps(samples)]
    assert all(abs(a - b) <= 1 for a, b in pairwise(seen))
    assert set(seen) <= set(range(IDENTITY + 1))


@pytest.mark.parametrize(
    "wrong",
    [{"high": 0.5, "low": 0.6}, {"high": 1.1}, {"low": -0.1}, {"rise_us": 0}, {"highest": 3}],
    ids=str,
)
def test_bounds_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(ValueError, match=r"low < high|no step"):
        Thresholds(**wrong)
