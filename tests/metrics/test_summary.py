"""The summary's numbers are right for known input, its rows sorted and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.metrics.requests.figures import RequestFigures
from perf_middleware.metrics.requests.summary import ROUTES_MAX, STEP_POINTS_MAX, Summary
from perf_middleware.metrics.requests.window import SAMPLES_MAX, Recent, Window
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S

MS = 1_000_000


def summarise(*figures):
    summary = Summary(figures[0].scale)
    for each in figures:
        for _ in summary.read(each.families()):
            pass
    return summary.result()


def recorded(requests):
    """Figures of `requests`: (method, route, status, milliseconds)."""
    figures = RequestFigures(buckets_s=DEFAULT_BUCKETS_S, series_max=100_000)
    for method, route, status, ms in requests:
        series = figures.series(method, route, status)
        series.count += 1
        timing = series.timing
        bucket = next(
            (i for i, bound in enumerate(figures.scale.fine_ns) if ms * MS <= bound),
            len(figures.scale.fine_ns),
        )
        timing.durations[bucket] += 1
        timing.duration_sum_ns += ms * MS
        timing.first_bytes[0] += 1
    return figures


def test_nothing_known_is_none_and_not_zero():
    assert summarise(recorded([])) == {
        "requests": 0, "failed": 0, "in_progress": 0, "p50_s": None, "p95_s": None, "p99_s": None,
        "routes": [], "routes_left_out": 0,
    }  # fmt: skip


def test_the_numbers_of_a_few_requests():
    figures = recorded(
        [
            ("GET", "/fast", 200, 1),
            ("GET", "/fast", 200, 1),
            ("GET", "/fast", 304, 1),
            ("POST", "/fast", 201, 5),
            ("GET", "/slow", 200, 1_000),
            ("GET", "/slow", 503, 3_000),
            ("BREW", "/slow", 7, 1),
        ]
    )
    figures.in_progress = 4
    timing = figures.series("GET", "/slow", 200).timing
    timing.request_bytes, timing.response_bytes, timing.disconnects = 11, 22, 3
    figures.count_exception(timing, "ValueError")
    figures.count_exception(timing, "KeyError")
    told = summarise(figures)
    assert (told["requests"], told["failed"], told["in_progress"]) == (7, 1, 4)
    assert [(row["method"], row["route"]) for row in told["routes"]] == [
        ("GET", "/slow"), ("POST", "/fast"), ("GET", "/fast"), ("other", "/slow"),
    ]  # fmt: skip
    slow, _, fast, odd = told["routes"]
    assert slow["requests"] == 2
    assert slow["statuses"] == {"200": 1, "503": 1}
    assert (slow["mean_s"], slow["total_s"]) == (2.0, 4.0)
    assert slow["p99_s"] == pytest.approx(3.0, rel=0.2)
    assert slow["first_byte_p95_s"] is not None
    assert (slow["request_bytes"], slow["response_bytes"]) == (11, 22)
    assert (slow["client_disconnects"], slow["exceptions"]) == (3, 2)
    assert (fast["requests"], fast["statuses"]) == (3, {"200": 2, "304": 1})
    assert fast["p50_s"] <= 0.001
    assert odd["statuses"] == {"other": 1}
    assert "exceptions" not in fast
    assert told["p50_s"] == pytest.approx(0.001, rel=0.2)
    assert told["p99_s"] == pytest.approx(3.0, rel=0.2)


@pytest.mark.parametrize(
    ("status", "failed"),
    [(499, 0), (500, 1), (599, 1), (999, 1), (0, 0), (1_000, 0)],
)
def test_failed_is_what_the_server_failed(status, failed):
    figures = recorded([("GET", "/", status, 1)])
    assert summarise(figures)["failed"] == failed == figures.totals()[1]


def test_after_a_reset_there_are_no_rows():
    figures = recorded([("GET", "/", 200, 1)])
    figures.reset()
    told = summarise(figures)
    assert (told["requests"], told["p50_s"]) == (0, None)
    assert told["routes"] == []


def test_the_rows_are_bounded_and_the_slowest_stay():
    routes = ROUTES_MAX + 7
    told = summarise(recorded([("GET", f"/{n}", 200, n + 1) for n in range(routes)]))
    assert len(told["routes"]) == ROUTES_MAX
    assert told["routes_left_out"] == 7
    assert told["routes"][0]["route"] == f"/{routes - 1}"
    assert told["requests"] == routes


def test_a_long_summary_is_read_in_small_steps():
    figures = recorded([("GET", f"/{n}", 200, 1) for n in range(1_000)])
    taken = 0

    def counting(points):
        nonlocal taken
        for point in points:
            taken += 1
            yield point

    families = list(figures.families())
    for family in families:
        object.__setattr__(family, "points", counting(family.points))
    steps = []
    for _ in Summary(figures.scale).read(families):
        steps.append(taken)
        taken = 0
    assert sum(steps) >= 5_000
    assert max(steps) <= STEP_POINTS_MAX


def test_figures_of_two_processes_add_up():
    one = recorded([("GET", "/", 200, 1), ("GET", "/", 500, 1)])
    two = recorded([("GET", "/", 200, 1)])
    one.in_progress = two.in_progress = 1
    told = summarise(one, two)
    assert (told["requests"], told["failed"], told["in_progress"]) == (3, 1, 2)
    (row,) = told["routes"]
    assert row["statuses"] == {"200": 2, "500": 1}


def test_a_process_with_other_bounds_adds_its_requests_and_no_durations():
    one = recorded([("GET", "/", 200, 1)])
    two = RequestFigures(buckets_s=(0.123, 4.56), series_max=10)
    two.series("GET", "/", 200).count += 1
    told = summarise(one, two)
    assert told["requests"] == 2
    assert told["routes"][0]["total_s"] == 0.001


# --- the window of recent totals ----------------------------------------------------------------


def test_the_window_tells_what_came_since_its_oldest_sample_within_reach():
    window = Window()
    for second, total in [(0, 0), (10, 100), (20, 150), (30, 160)]:
        window.sample(float(second), (total, total // 10))
    assert window.recent(30.0, (170, 20), seconds=20) == Recent(20.0, 70, 10)
    assert window.recent(30.0, (170, 20), seconds=300) == Recent(30.0, 170, 20)
    assert window.recent(100.0, (170, 20), seconds=20) == Recent(0.0, 0, 0)


def test_an_empty_window_tells_nothing():
    recent = Window().recent(5.0, (10, 1), seconds=60)
    assert (recent.requests, recent.rate_per_s, recent.failed_share) == (0, 0.0, None)


def test_after_a_reset_only_what_came_since_counts():
    window = Window()
    window.sample(0.0, (1_000, 500))
    window.sample(5.0, (0, 0))  # a reset notes the totals at once
    assert window.recent(15.0, (20, 5), seconds=60) == Recent(10.0, 20, 5)
    assert window.recent(15.0, (20, 5), seconds=60).rate_per_s == 2.0
    assert window.recent(15.0, (20, 5), seconds=60).failed_share == 0.25


def test_a_reset_that_nobody_noted_is_seen_by_the_totals():
    window = Window()
    window.sample(0.0, (1_000, 0))
    window.sample(5.0, (30, 0))
    assert window.recent(10.0, (50, 0), seconds=60) == Recent(5.0, 50, 0)
    # Also when there have been more since than before.
    assert window.recent(20.0, (5_000, 0), seconds=60) == Recent(15.0, 5_000, 0)


def test_a_request_right_after_the_start_is_no_storm():
    window = Window()
    window.sample(0.0, (0, 0))
    assert window.recent(0.001, (3, 0), seconds=60).rate_per_s == 3.0


def test_the_ring_is_bounded():
    window = Window()
    for number in range(1_000):
        window.sample(float(number), (number, 0))
    assert len(window._samples) == SAMPLES_MAX


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=80))
def test_the_window_never_tells_more_than_there_was(steps):
    window, now_s, requests, failed = Window(), 0.0, 0, 0
    for came, more_failed in steps:
        now_s += 5
        requests += came
        failed += min(came, more_failed)
        window.sample(now_s, (requests, failed))
    recent = window.recent(now_s, (requests, failed), seconds=300)
    assert 0 <= recent.failed <= recent.requests <= requests
    assert recent.seconds <= 300
