"""Additive increase, multiplicative decrease."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.limits.concurrency.aimd import Aimd, AimdState
from perf_middleware.limits.concurrency.estimate import Window

AIMD = Aimd(limit_min=2, limit_first=20, limit_max=40, latency_us_max=50_000)


def window(at=1, *, samples=100, latency_us=10_000, in_flight_max=20, dropped=0, is_starved=False):
    return Window(
        started_us=at * 200_000 - 200_000,
        ended_us=at * 200_000,
        samples=samples,
        latency_sum_us=samples * latency_us,
        latency_min_us=latency_us,
        in_flight_max=in_flight_max,
        dropped=dropped,
        waiting_max=0,
        is_starved=is_starved,
    )


def cut(limit):
    return AimdState(limit=limit, was_cut=True)


@pytest.mark.parametrize(
    ("state", "seen", "limit"),
    [
        pytest.param(AIMD.first(), window(), 30, id="half as much again, until the first cut"),
        pytest.param(cut(20), window(), 21, id="then one more"),
        pytest.param(cut(20), window(latency_us=60_000), 18, id="too slow: a tenth less"),
        pytest.param(cut(20), window(dropped=5), 18, id="drops: the same"),
        pytest.param(cut(20), window(dropped=1), 21, id="one drop in a hundred is noise"),
        pytest.param(cut(20), window(samples=0, dropped=3), 18, id="all dropped"),
        pytest.param(cut(20), window(in_flight_max=9), 20, id="not half of it in use"),
        pytest.param(cut(20), window(in_flight_max=12), 20, id="never above what was in use"),
        pytest.param(cut(20), window(in_flight_max=0, samples=0), 20, id="no traffic"),
        pytest.param(cut(40), window(in_flight_max=40), 40, id="the maximum"),
        pytest.param(cut(2), window(in_flight_max=2, latency_us=60_000), 2, id="the minimum"),
        pytest.param(AIMD.first(), window(is_starved=True), 10, id="a starved loop: half"),
        pytest.param(cut(5), window(is_starved=True), 4, id="down to four"),
        pytest.param(cut(2), window(is_starved=True), 2, id="which does not raise it"),
        pytest.param(cut(3), window(in_flight_max=3, dropped=9), 2, id="a small one falls by one"),
    ],
)
def test_one_window_moves_the_limit(state, seen, limit):
    assert AIMD.after(state, seen).limit == limit


def test_without_a_latency_only_drops_cut():
    aimd = Aimd(limit_max=40)
    assert aimd.after(cut(20), window(latency_us=10_000_000, at=100)).limit == 21


def test_a_change_is_given_one_latency_to_show():
    slow = Aimd(limit_first=20, latency_us_max=300_000)
    state = slow.after(slow.first(), window(at=10, latency_us=900_000))
    assert state.limit == 18
    assert slow.after(state, window(at=11, latency_us=900_000)) == state
    assert slow.after(state, window(at=15, latency_us=900_000)).limit == 16


@given(
    st.lists(
        st.tuples(
            st.integers(0, 500), st.integers(0, 10**8), st.integers(0, 300), st.integers(0, 500)
        )
    )
)
def test_the_limit_is_always_within_its_bounds(windows):
    state = AIMD.first()
    for at, (samples, latency_us, in_flight_max, dropped) in enumerate(windows, 1):
        before = state.limit
        seen = window(
            at,
            samples=samples,
            latency_us=latency_us,
            in_flight_max=in_flight_max,
            dropped=dropped,
        )
        state = AIMD.after(state, seen)
        assert AIMD.limit_min <= state.limit <= AIMD.limit_max
        if in_flight_max * 2 < before and not dropped and latency_us <= 50_000:
            assert state.limit == before


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"limit_min": 0}, "limit_min"),
        ({"limit_first": 300}, "limit_first <= limit_max"),
        ({"backoff": 1.0}, "backoff between 0 and 1"),
        ({"step": 0}, "step >= 1"),
        ({"dropped_share_max": 1.0}, "a share"),
        ({"latency_us_max": 0}, "latency_us_max"),
        ({"window_us": 0}, "window_us"),
    ],
)
def test_wrong_parameters_are_said(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Aimd(**fields)
