"""One level out of several signals: quick to rise, slow to fall, deaf to a peak."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.limits.overload.level import (
    BUSY,
    NORMAL,
    OVERLOADED,
    LevelState,
    Signal,
    after,
    is_rising,
)

US = 1_000_000
STEP_US = US // 4
LAG = Signal(name="lag", busy_at=0.1, overloaded_at=0.3, relief=0.7)
WAIT = Signal(name="wait", busy_at=1.0, overloaded_at=5.0)
CPU = Signal(name="cpu", busy_at=0.9, smoothing="mean", mean_us=US)
FALL_US = 1 * US


def states(rows, *, signals=(LAG,), step_us=STEP_US, fall_us=FALL_US, state=None):
    """The state after each of `rows`: samples by name, or numbers of the lag."""
    state, seen = state or LevelState(), []
    for number, row in enumerate(rows, start=1):
        samples = row if isinstance(row, dict) else {"lag": row}
        state = after(state, samples, now_us=number * step_us, signals=signals, fall_us=fall_us)
        seen.append(state)
    return seen


def levels(rows, **options):
    return [state.level for state in states(rows, **options)]


@pytest.mark.parametrize(
    ("lags", "expected"),
    [
        pytest.param([0.0] * 3, [0, 0, 0], id="idle"),
        pytest.param([0.2, 0.2], [0, 1], id="busy at the second late sample"),
        pytest.param([0.1, 0.1], [0, 1], id="the bound itself counts"),
        pytest.param([9, 9], [0, 2], id="overloaded at once, not over busy"),
        pytest.param([0, 9, 0, 0], [0, 0, 0, 0], id="one pause of any length is no state"),
        pytest.param([0, 9, 0.1, 0], [0, 0, 1, 1], id="a pause with a wake is busy at most"),
        pytest.param([0.1, 0.1, 0.1, 0.1, 0.1], [0, 1, 1, 1, 1], id="it stays"),
        pytest.param([9, 9] + [0] * 8, [0, 2, 2, 2, 2, 2, 1, 1, 1, 1], id="one level at a time"),
        pytest.param([9, 9] + [0] * 9, [0, 2, 2, 2, 2, 2, 1, 1, 1, 1, 0], id="down to normal"),
        pytest.param([9, 9] + [0.22] * 9, [0] + [2] * 10, id="above the relief it is held"),
        pytest.param([9, 9, 0, 0, 0, 9, 9, 0, 0, 0], [0, 2, 2, 2, 2, 2, 2, 2, 2, 2], id="relapse"),
        pytest.param([9, 9] + [0.15] * 6, [0, 2, 2, 2, 2, 2, 1, 1], id="to the level that is left"),
    ],
)
def test_the_level_follows_what_lasts(lags, expected):
    assert levels(lags) == expected


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), float("-inf"), "absent"])
def test_what_is_no_number_counts_as_nothing(nothing):
    rows = [{} if nothing == "absent" else {"lag": nothing}] * 4
    assert levels(rows) == [0] * 4
    assert levels([9, 9, *rows, *rows, *rows])[-1] == NORMAL  # and holds no level either


def test_the_worst_signal_is_the_level_and_the_reason():
    rows = [
        {"lag": 0.0, "wait": 0.0},
        {"lag": 0.2, "wait": 0.0},
        {"lag": 0.2, "wait": 6.0},
        {"lag": 0.2, "wait": 6.0},
        {"lag": 0.2, "wait": 0.0},
    ]
    seen = states(rows + [{"lag": 0.2, "wait": 0.0}] * 4, signals=(LAG, WAIT))
    assert [(state.level, state.reason) for state in seen] == [
        (0, ""), (0, ""), (1, "lag"), (2, "wait"), (2, "wait"), (2, "wait"), (2, "wait"),
        (2, "wait"), (1, "lag"),
    ]  # fmt: skip


def test_a_signal_without_the_bound_never_says_overloaded():
    assert set(levels([{"cpu": 1.0}] * 50, signals=(CPU,))) == {BUSY}


def test_a_mean_needs_its_time():
    quiet = [{"cpu": 0.2}] * 4
    assert levels([*quiet, {"cpu": 1.0}, *quiet], signals=(CPU,)) == [0] * 9
    assert levels([*quiet, *[{"cpu": 1.0}] * 12], signals=(CPU,))[-1] == BUSY


def test_a_mean_does_not_depend_on_how_often_it_is_asked():
    often = states([{"cpu": 1.0}] + [{"cpu": 0.0}] * 100, signals=(CPU,), step_us=10_000)
    seldom = states([{"cpu": 1.0}, {"cpu": 0.0}], signals=(CPU,), step_us=1_000_000)
    assert often[-1].smoothed["cpu"].value == pytest.approx(seldom[-1].smoothed["cpu"].value)


def test_the_next_sample_is_asked_sooner_while_one_may_rise():
    first, second, third = states([0.0, 9.0, 9.0])
    assert [is_rising(state, (LAG,)) for state in (first, second, third)] == [False, True, False]


lags = st.lists(
    st.one_of(st.floats(0, 2), st.sampled_from([0.0, 0.07, 0.1, 0.21, 0.3, 9.0]), st.none()),
    max_size=80,
)


@given(lags)
def test_it_is_left_once_in_its_time_and_one_level_at_a_time(samples):
    seen = levels(samples)
    falls = [at for at, (a, b) in enumerate(pairwise([0, *seen])) if b < a]
    assert all(a - b <= 1 for a, b in pairwise([0, *seen]))
    assert all((b - a) * STEP_US >= FALL_US for a, b in pairwise(falls))


@given(
    st.sampled_from([(NORMAL, 0.0, 0.0999), (BUSY, 0.0701, 0.2999), (OVERLOADED, 0.2101, 99.0)]),
    st.data(),
)
def test_between_a_bound_and_its_relief_nothing_changes(case, data):
    level, low, high = case
    samples = data.draw(st.lists(st.floats(low, high), max_size=40))
    start = {NORMAL: [], BUSY: [0.2, 0.2], OVERLOADED: [9, 9]}[level]
    # A least has seen the one before, too: both of them lie between.
    assert set(levels([*start, *samples])[max(1, len(start)) - 1 :]) <= {level}


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_signal_that_swings_around_a_bound_cannot_make_the_level_flap(high, low):
    swings = ([0.12] * high + [0.05] * low) * 10
    seen = [0, *levels(swings)]
    changes = sum(a != b for a, b in pairwise(seen))
    assert changes <= 2 + 2 * (len(swings) * STEP_US) // FALL_US
    if low * STEP_US < FALL_US:
        assert changes <= 1  # it never rests long enough to fall


@given(lags, lags)
def test_another_signal_never_lowers_the_level(one, other):
    rows = [{"lag": a, "wait": b} for a, b in zip(one, other, strict=False)]
    together = levels(rows, signals=(LAG, WAIT))
    alone = levels(rows, signals=(LAG,))
    # The longer hold may keep the pair higher, never lower.
    assert all(a >= b for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"busy_at": 0.0}, {"busy_at": -1.0}, {"busy_at": 2.0, "overloaded_at": 1.0},
        {"busy_at": float("nan")}, {"busy_at": float("inf")}, {"busy_at": 1.0, "relief": 1.0},
        {"busy_at": 1.0, "relief": 0.0}, {"busy_at": 1.0, "mean_us": 0},
    ],
    ids=str,
)  # fmt: skip
def test_bounds_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(ValueError, match=r"busy_at|relief"):
        Signal(name="x", **wrong)
