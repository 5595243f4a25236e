"""A window of samples, and the limit that somebody chose."""

from math import log

import pytest

from perf_middleware.limits.concurrency.estimate import LOG_ERROR_MAX, Fixed, Window


def window(*latencies_us, logs=True, **fields):
    logarithms = [log(max(latency, 1)) for latency in latencies_us] if logs else []
    return Window(
        **{
            "started_us": 0,
            "ended_us": 200_000,
            "samples": len(latencies_us),
            "latency_sum_us": sum(latencies_us),
            "latency_min_us": min(latencies_us, default=0),
            "in_flight_max": 10,
            "dropped": 0,
            "waiting_max": 0,
            "latency_log_sum": sum(logarithms),
            "latency_log_square_sum": sum(one * one for one in logarithms),
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("seen", "mean_us", "typical_us"),
    [
        pytest.param(window(100, 100), 100, 100, id="all alike"),
        pytest.param(window(10, 1_000), 505, 100, id="each weighs by its ratio"),
        pytest.param(window(10, 1_000, logs=False), 505, 505, id="without logarithms the mean"),
        pytest.param(window(), 0, 1, id="no samples"),
        pytest.param(window(0, 0), 0, 1, id="no time at all"),
        pytest.param(window(5, latency_log_sum=1e9), 5, 1.142e26, id="a sum that is absurd"),
        pytest.param(window(5, latency_log_sum=float("nan")), 5, 5, id="a sum that is no number"),
    ],
)
def test_a_window_tells_a_mean_and_what_is_typical(seen, mean_us, typical_us):
    assert seen.mean_us == pytest.approx(mean_us)
    assert seen.typical_us == pytest.approx(typical_us, rel=1e-3)


def test_twice_the_latency_of_everybody_is_twice_what_is_typical():
    mix = (900, 1_100, 1_000, 480_000, 950)
    slower = window(*(2 * latency for latency in mix))
    assert slower.typical_us == pytest.approx(2 * window(*mix).typical_us)


@pytest.mark.parametrize(
    ("seen", "error"),
    [
        pytest.param(window(100, 100, 100), 0, id="they agree"),
        pytest.param(window(100), LOG_ERROR_MAX, id="one sample says nothing of the spread"),
        pytest.param(window(100, 200, logs=False), 0, id="not summed"),
        pytest.param(window(1, 10**9), LOG_ERROR_MAX, id="at most"),
        pytest.param(window(1_000, 1_100), 0.0477, id="two, 10 percent apart"),
    ],
)
def test_how_sure_a_window_is(seen, error):
    assert seen.log_error == pytest.approx(error, abs=1e-3)


def test_a_fixed_limit_learns_nothing():
    fixed = Fixed(limit=7)
    assert fixed.after(fixed.first(), window(100, 100, dropped=50)).limit == 7


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"limit": 0}, "limit must be >= 1"),
        ({"limit": 1, "window_us": 0}, "1 <= window_us"),
        ({"limit": 1, "window_us": 2, "window_us_max": 1}, "1 <= window_us <= window_us_max"),
        ({"limit": 1, "samples_min": 0}, "samples_min"),
    ],
)
def test_what_cannot_be_fixed_is_said(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Fixed(**fields)
