"""What requests that run alone leave behind, by route."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.leaks import route_growth
from perf_middleware.memory_watch.leaks.route_growth import (
    DROPPED,
    OTHER,
    SAMPLES_MIN,
    RouteGrowth,
    trimmed_mean,
)


def sampled(deltas, *, routes=None, **options):
    """A tally of one sample for each (route, blocks, bytes)."""
    left = [1_000, 1_000_000]
    growth = routes or RouteGrowth(
        in_use=lambda: (left[0], left[1]), route_of=lambda scope: scope["route"], **options
    )
    for route, blocks, bytes_ in deltas:
        scope = {"route": route}
        token = growth.begin(scope)
        left[0] += blocks
        left[1] = None if bytes_ is None or left[1] is None else left[1] + bytes_
        assert growth.end(token, scope)
        assert growth.begin(scope) is None
    return growth


def test_a_route_that_keeps_something_is_told_with_its_mean():
    growth = sampled([("/orders", 1, 1_024), ("/items", 0, 0)] * 60)
    [orders] = growth.growing()
    assert (orders.route, orders.samples, orders.blocks, orders.bytes) == ("/orders", 60, 1, 1_024)
    assert growth.samples == 120
    growth.clear()
    assert growth.routes() == []


def test_the_first_samples_and_outliers_do_not_count():
    growth = sampled([("/items", 90_000, 9_000_000)] * DROPPED + [("/items", 0, 0)] * 40)
    assert growth.growing() == []
    growth = sampled([("/items", 0, 0)] * 40 + [("/items", 5_000, 800_000)] * 2)
    assert growth.growing() == []


def test_a_leak_of_every_third_request_is_seen():
    growth = sampled([("/orders", number % 3 == 0, 0) for number in range(120)])
    [orders] = growth.growing()
    assert orders.blocks == pytest.approx(1 / 3, abs=0.1)


def test_few_samples_tell_nothing():
    assert sampled([("/orders", 1, 1_024)] * (DROPPED + SAMPLES_MIN - 1)).routes() == []


def test_without_malloc_blocks_tell():
    growth = sampled([("/orders", 2, None)] * 40)
    [orders] = growth.growing()
    assert (orders.blocks, orders.bytes) == (2, None)


def test_later_routes_are_one():
    growth = sampled(
        [(f"/{number % 5}", 1, 0) for number in range(200)],
        routes_max=2,
    )
    assert sorted(route.route for route in growth.routes()) == ["/0", "/1", OTHER]


def test_what_cannot_be_afforded_is_left_out():
    growth = RouteGrowth(in_use=lambda: (1, 1), route_of=str, may_read=lambda: False)
    assert growth.begin({}) is None


def test_a_bound_is_one_at_least():
    with pytest.raises(ValueError, match="routes_max"):
        sampled([], routes_max=0)


def test_real_allocations_are_seen():
    told = subprocess.run(
        [sys.executable, "-m", "tests.memory_watch.leaks.growing_routes"],
        capture_output=True, check=True, text=True, cwd=Path(__file__).parents[3],
    ).stdout  # fmt: skip
    routes = json.loads(told)
    blocks, bytes_ = routes["/orders"]
    assert 0.9 <= blocks <= 1.5
    assert bytes_ is None or 1_000 <= bytes_ <= 1_200
    assert -0.5 <= routes["/items"][0] <= 0.5
    assert "/nothing" not in routes  # each of them closes the sample of the one before


def test_what_a_reading_keeps_is_read_again_where_malloc_is_left_out():
    state = {"blocks": 1_000, "malloc": 5_000, "kept": 3}

    def in_use():
        state["blocks"] += state["kept"]
        return state["blocks"], state["malloc"]

    growth = RouteGrowth(in_use=in_use, route_of=lambda scope: "/items")

    def request():
        token = growth.begin({})
        if token is not None:
            growth.end(token, {})

    for _ in range(60):
        request()
    state["malloc"], state["kept"] = None, 1  # it was dear three times
    for _ in range(120):
        request()
    assert [route.blocks for route in growth.routes()] == [0]
    assert growth.growing() == []


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=60))
def test_a_trimmed_mean_lies_among_its_values(values):
    mean, error = trimmed_mean(values)
    assert min(values) <= mean + 1e-6
    assert mean - 1e-6 <= max(values)
    assert error >= 0


def test_the_error_is_that_of_the_mean():
    chance = random.Random(3)
    hits = 0
    for _ in range(300):
        mean, error = trimmed_mean([chance.gauss(5, 2) for _ in range(100)])
        hits += abs(mean - 5) <= 1.96 * error
    assert hits >= 0.9 * 300


def test_nothing_has_no_mean():
    assert trimmed_mean([]) == (0, 0)
    assert trimmed_mean([7]) == (7, 0)


def test_a_scrape_reckons_only_what_is_new(monkeypatch):
    left = [0, 0]
    routes = RouteGrowth(in_use=lambda: tuple(left), route_of=lambda scope: scope["path"])

    def sample(path):
        token = routes.begin({"path": path})
        left[0] += 1
        routes.end(token, {"path": path})
        routes.begin({"path": path})

    for _ in range(20):
        for path in ("/a", "/b", "/c"):
            sample(path)
    reckoned = []
    means = route_growth.trimmed_mean
    monkeypatch.setattr(
        route_growth, "trimmed_mean", lambda values: reckoned.append(1) or means(values)
    )
    before = routes.growing()
    count = len(reckoned)
    assert (count > 0, routes.growing() == before, len(reckoned)) == (True, True, count)
    sample("/b")
    assert {route.route: route.samples for route in routes.growing()} == {
        "/a": 20,
        "/b": 21,
        "/c": 20,
    }
    assert count < len(reckoned) <= 2 * count - 2
