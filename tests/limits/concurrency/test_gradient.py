"""The gradient: one window at a time, and what holds for any."""

from dataclasses import replace
from math import isfinite, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.limits.concurrency.estimate import Window
from perf_middleware.limits.concurrency.gradient import Gradient, GradientState

GRADIENT = Gradient()
MS = 1_000
WINDOW_US = 200_000


def window(at, latency_us=10 * MS, *, spread=0.0, **fields):
    """The window that ends `at` windows after the start; `spread` is that of the logarithms."""
    samples = fields.pop("samples", 100)
    mean = log(latency_us)
    return Window(
        **{
            "started_us": (at - 1) * WINDOW_US,
            "ended_us": at * WINDOW_US,
            "samples": samples,
            "latency_sum_us": samples * latency_us,
            "latency_min_us": latency_us,
            "in_flight_max": 20,
            "dropped": 0,
            "waiting_max": 0,
            "latency_log_sum": samples * mean,
            "latency_log_square_sum": samples * (mean * mean + spread * spread),
            **fields,
        }
    )


def known(limit=20, **fields):
    """A baseline of 10 ms that was probed, and is not in doubt for a minute."""
    return GradientState(
        **{
            "limit": limit,
            "estimate": float(limit),
            "baseline_us": 10.0 * MS,
            "is_sure": True,
            "probe_due_us": 60_000_000,
            "probed_us": 1,
            "highest": float(limit),
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("seen", "limit"),
    [
        pytest.param(window(9), 24, id="as fast as unloaded: by the headroom, what was in use"),
        pytest.param(window(9, 12 * MS), 22, id="within the tolerance: up"),
        pytest.param(window(9, 15 * MS), 22, id="at the tolerance: the headroom alone"),
        pytest.param(window(9, 30 * MS), 17, id="three times: down"),
        pytest.param(window(9, 900 * MS, ended_us=10**7), 16, id="no window takes more"),
        pytest.param(window(9, 30 * MS, spread=3.0), 20, id="the less sure, the less"),
        pytest.param(window(9, 60 * MS, spread=3.0), 19, id="and by the smaller a step"),
        pytest.param(window(9, in_flight_max=9), 20, id="not half of it in use: nothing"),
        pytest.param(window(9, in_flight_max=16), 20, id="what was in use, and the headroom"),
        pytest.param(window(9, 90 * MS, in_flight_max=9), 20, id="slow, and unused: nothing"),
        pytest.param(window(9, dropped=50), 18, id="a third dropped"),
        pytest.param(window(9, samples=0, latency_sum_us=0, dropped=9), 18, id="all dropped"),
        pytest.param(window(9, dropped=1), 22, id="one in a hundred dropped: no longer free"),
    ],
)
def test_one_window_moves_the_limit(seen, limit):
    assert GRADIENT.after(known(), seen).limit == limit


def test_no_traffic_changes_nothing():
    nothing = {"samples": 0, "latency_log_sum": 0.0, "latency_log_square_sum": 0.0}
    for state in (GRADIENT.first(), known(), known(baseline_us=0.0)):
        assert GRADIENT.after(state, window(9, in_flight_max=0, **nothing)) is state
        assert GRADIENT.after(state, window(9, **nothing)) is state  # all of them still run


def test_a_change_is_given_one_latency_to_show():
    state = GRADIENT.after(known(baseline_us=400.0 * MS), window(9, 400 * MS))
    assert state.limit == 24
    assert GRADIENT.after(state, window(10, 400 * MS, in_flight_max=24)).limit == 24
    assert GRADIENT.after(state, window(11, 400 * MS, in_flight_max=24)).limit == 28


@pytest.mark.parametrize(
    ("seen", "baseline_ms"),
    [
        pytest.param(window(9, 10_500), 10.05, id="near: slowly"),
        pytest.param(window(9, 8 * MS), 9, id="surely lower: half the way"),
        pytest.param(window(9, 5 * MS), 5, id="far lower: at once"),
        pytest.param(window(9, 8 * MS, spread=2.0), 9.8, id="lower by chance: slowly"),
        pytest.param(window(9, 20 * MS), 10, id="higher under load: a queue"),
        pytest.param(window(9, 20 * MS, in_flight_max=4), 11, id="higher without load: slowly"),
    ],
)
def test_the_baseline_follows_what_is_no_queue(seen, baseline_ms):
    assert GRADIENT.after(known(), seen).baseline_us == pytest.approx(baseline_ms * MS)


def test_a_starved_loop_halves_the_limit_down_to_four_and_teaches_no_baseline():
    limits, state = [], known()
    for at in range(9, 14):
        seen = window(at, 500 * MS, samples=2, is_starved=True)
        state = GRADIENT.after(state, seen)
        limits.append(state.limit)
    assert limits == [10, 5, 4, 4, 4]
    assert state.baseline_us == 10 * MS


@pytest.mark.parametrize(
    ("gradient", "seen", "limit"),
    [
        pytest.param(GRADIENT, {"in_flight_max": 9}, 20, id="few in flight: it is not the limit"),
        pytest.param(Gradient(limit_min=15), {}, 15, id="not below the minimum"),
        pytest.param(GRADIENT, {"samples": 0}, 10, id="also without a sample"),
    ],
)
def test_what_a_starved_loop_does_not_cut(gradient, seen, limit):
    assert gradient.after(known(), window(9, is_starved=True, **seen)).limit == limit


def test_a_probe_of_a_starved_loop_is_given_up():
    state = GRADIENT.after(GRADIENT.first(), window(1, 30 * MS))
    assert state.probe is not None
    state = GRADIENT.after(state, window(2, 30 * MS, is_starved=True))
    assert (state.limit, state.probe) == (10, None)


def test_a_baseline_that_was_lowered_under_load_is_in_doubt():
    state = GRADIENT.after(known(), window(9, 5 * MS))
    assert not state.is_sure
    assert state.probe_due_us == 9 * WINDOW_US + 2_000_000


def folded(state, *windows, gradient=GRADIENT):
    for seen in windows:
        state = gradient.after(state, seen)
    return state


def test_the_first_load_is_probed_at_half_the_limit():
    state = folded(GRADIENT.first(), window(1, 30 * MS))
    assert (state.limit, state.estimate) == (10, 20)
    draining = folded(state, window(2, 30 * MS, in_flight_max=20))
    assert draining.limit == 10
    assert draining.baseline_us == pytest.approx(30 * MS)  # what was in flight before is no measure
    measured = folded(draining, window(3, 10 * MS, in_flight_max=10, samples=50))
    assert (measured.limit, measured.probe, measured.is_sure) == (20, None, True)
    assert measured.baseline_us == pytest.approx(10 * MS)


def test_a_probe_goes_lower_as_long_as_that_costs_no_throughput():
    state = folded(GRADIENT.first(), window(1, 100 * MS))
    limits = [state.limit]
    for at in range(2, 12):
        state = folded(state, window(at, 5 * MS * state.limit, in_flight_max=state.limit))
        limits.append(state.limit)
        if state.probe is None:
            break
    assert limits == [10, 5, 2, 1, 2]
    assert state.baseline_us == pytest.approx(5 * MS)


def test_a_probe_without_an_answer_is_given_up():
    state = folded(GRADIENT.first(), window(1, 30 * MS))
    nothing = {"samples": 0, "latency_log_sum": 0.0, "in_flight_max": 20}
    assert folded(state, window(5, **nothing)).limit == 10
    given_up = folded(state, window(30, **nothing))
    assert (given_up.limit, given_up.probe) == (20, None)
    assert given_up.baseline_us == pytest.approx(30 * MS)


def test_samples_just_after_a_probe_are_those_of_the_fast_ones():
    state = known(probed_us=9 * WINDOW_US, baseline_us=150.0 * MS)
    assert GRADIENT.after(state, window(10, 1 * MS)) is state
    assert GRADIENT.after(state, window(12, 1 * MS)) is not state


FELL = known(highest=40.0)


@pytest.mark.parametrize(
    ("state", "seen", "is_probed"),
    [
        pytest.param(known(probe_due_us=1), window(50, 20 * MS), True, id="due, and slower"),
        pytest.param(known(probe_due_us=1), window(50), False, id="due, and as fast as ever"),
        pytest.param(known(), window(50, 20 * MS), False, id="not due"),
        pytest.param(FELL, window(50, 20 * MS), True, id="not due, but the limit fell"),
        pytest.param(
            replace(FELL, probed_us=45 * WINDOW_US),
            window(50, 20 * MS),
            False,
            id="it fell, and was probed just now",
        ),
        pytest.param(
            known(1, probe_due_us=1), window(50, 20 * MS, in_flight_max=1), False, id="no lower"
        ),
        pytest.param(
            known(probe_due_us=1), window(50, 20 * MS, in_flight_max=9), False, id="unused"
        ),
    ],
)
def test_when_the_baseline_is_probed(state, seen, is_probed):
    assert (GRADIENT.after(state, seen).probe is not None) is is_probed


def test_a_burst_after_idle_time_is_not_probed_with_the_throughput_of_the_idle_time():
    idle = window(3_000, 20 * MS, samples=1, started_us=1_000_000, in_flight_max=40)
    state = GRADIENT.after(known(probe_due_us=1), idle)
    assert (state.limit, state.probe) == (20, None)
    assert GRADIENT.after(state, window(3_001, 20 * MS)).probe is not None


def test_processes_probe_at_different_times():
    dues = [
        Gradient(jitter=jitter).after(known(), window(9)).probe_due_us for jitter in (0, 0.5, 1.0)
    ]
    assert dues == [21_800_000, 24_300_000, 26_800_000]


def test_handlers_that_never_wait_leave_the_limit_where_it_is():
    state = GRADIENT.first()
    for at in range(1, 500):
        state = GRADIENT.after(state, window(at, 5 * MS, in_flight_max=1))
    assert state.limit == GRADIENT.limit_first


def test_dropped_ones_cut_until_they_are_few():
    state = known(100)
    for at in range(9, 200):
        dropped = round(100 * max(1 - 30 / state.limit, 0))
        state = GRADIENT.after(
            state, window(at, in_flight_max=state.limit, samples=100 - dropped, dropped=dropped)
        )
    assert 28 <= state.limit <= 36


@st.composite
def windows_after(draw):
    """How long each lasted, and what it saw: also what no runtime would ever sum."""
    samples = draw(st.integers(0, 3) | st.integers(0, 10_000))
    latency_us = draw(st.integers(1_000, 50_000) | st.integers(0, 10**12))
    mean, spread = log(max(latency_us, 1)), draw(st.floats(0, 10))
    has_logs = draw(st.booleans())
    return draw(st.integers(0, 5_000_000)), {
        "samples": samples,
        "latency_sum_us": samples * latency_us,
        "latency_min_us": latency_us if samples else 0,
        "in_flight_max": draw(st.integers(10, 40) | st.integers(0, 1_000)),
        "dropped": draw(st.just(0) | st.integers(0, 1_000)),
        "waiting_max": draw(st.integers(0, 1_000)),
        "latency_log_sum": samples * mean * has_logs,
        "latency_log_square_sum": samples * (mean * mean + spread * spread) * has_logs,
    }


@st.composite
def parameters(draw):
    low = draw(st.integers(1, 30))
    first = low + draw(st.integers(0, 50))
    return Gradient(
        limit_min=low,
        limit_first=first,
        limit_max=first + draw(st.integers(0, 1_000)),
        tolerance=draw(st.floats(1, 10)),
        smoothing=draw(st.floats(0.01, 1)),
        probe_limit=draw(st.integers(1, 20)),
    )


@given(parameters(), st.lists(windows_after(), max_size=40))
def test_whatever_is_seen_the_limit_is_sane(gradient, windows):
    state, now_us = gradient.first(), 0
    for lasted_us, fields in windows:
        before, started_us, now_us = state, now_us, now_us + lasted_us
        state = gradient.after(state, Window(started_us=started_us, ended_us=now_us, **fields))
        assert gradient.limit_min <= state.limit <= int(state.estimate) <= gradient.limit_max
        assert all(isfinite(one) for one in (state.baseline_us, state.gradient, state.estimate))
        assert state.baseline_us >= 0
        in_use = fields["in_flight_max"] + sqrt(before.estimate)
        assert state.estimate <= max(before.estimate, in_use) + 1e-9
        if not fields["samples"] and not fields["dropped"] and before.probe is None:
            assert state is before


@given(parameters(), st.integers(1, 10**7))
def test_no_probe_holds_the_limit_down_for_good(gradient, latency_us):
    state, longest, held = gradient.first(), 0, 0
    for at in range(1, 300):
        state = gradient.after(state, window(at, latency_us, in_flight_max=state.limit))
        held = held + 1 if state.probe is not None else 0
        longest = max(longest, held)
    assert longest <= 10 * 10_000_000 / WINDOW_US  # ten halvings, each given up after 10 s


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"limit_min": 0}, "limit_min"),
        ({"limit_first": 300}, "limit_first <= limit_max"),
        ({"tolerance": 0.9}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"smoothing": 0.0}, "smoothing"),
        ({"jitter": 1.1}, "jitter"),
        ({"probe_limit": 0}, "probe_limit"),
        ({"probe_interval_us": 0}, "probe_interval_us"),
        ({"window_us": 2_000_000}, "window_us"),
        ({"samples_min": 0}, "samples_min"),
    ],
)
def test_wrong_parameters_are_said(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Gradient(**fields)
