"""What is counted of requests stays bounded and reads as it will stand on the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.metrics.requests.figures import EXCEPTIONS_MAX, METHODS, RequestFigures
from perf_middleware.metrics.requests.sockets import SERIES_MAX, SocketFigures
from tests.metrics.wires import totals, values


def figures(series_max=100):
    return RequestFigures(buckets_s=(0.1, 1.0), series_max=series_max)


@pytest.mark.parametrize(
    ("method", "status", "labels"),
    [
        pytest.param("GET", 200, ("GET", "/", "200"), id="as it came"),
        pytest.param("QUERY", 200, ("QUERY", "/", "200"), id="a young method"),
        pytest.param("get", 200, ("other", "/", "200"), id="methods are case-sensitive"),
        pytest.param("BREW", 418, ("other", "/", "418"), id="no method of HTTP"),
        pytest.param("G\u00cbT", 200, ("other", "/", "200"), id="not ASCII"),
        pytest.param("M" * 10_240, 200, ("other", "/", "200"), id="ten kilobytes"),
        pytest.param("", 200, ("other", "/", "200"), id="empty"),
        pytest.param("GET", 100, ("GET", "/", "100"), id="the lowest status"),
        pytest.param("GET", 999, ("GET", "/", "999"), id="the highest status"),
        pytest.param("GET", 99, ("GET", "/", "other"), id="below"),
        pytest.param("GET", 1000, ("GET", "/", "other"), id="above"),
        pytest.param("GET", -5, ("GET", "/", "other"), id="negative"),
        pytest.param("GET", 10**30, ("GET", "/", "other"), id="absurd"),
        pytest.param("GET", "200 OK", ("GET", "/", "other"), id="text"),
        pytest.param("GET", None, ("GET", "/", "other"), id="nothing"),
        pytest.param("GET", 200.5, ("GET", "/", "other"), id="a fraction"),
    ],
)
def test_methods_and_statuses_that_no_one_defined_are_other(method, status, labels):
    counted = figures()
    counted.series(method, "/", status).count += 1
    assert values(counted.families())["http_requests"] == {labels: 1}


def test_a_series_is_one_object_however_it_is_asked_for():
    counted = figures()
    assert counted.series("BREW", "/", 200) is counted.series("other", "/", 200)
    assert counted.series("GET", "/", 5) is counted.series("GET", "/", 0)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param("/" + "x" * 300 + "a", "/" + "x" * 300 + "b", id="cut to the same length"),
        pytest.param("/\ud800", "/\udfff", id="two lone surrogates"),
    ],
)
def test_routes_that_look_alike_on_the_page_are_one_series(one, two):
    counted = figures()
    for route in (one, two, one):
        counted.series("GET", route, 200).count += 1
    (count,) = values(counted.families())["http_requests"].values()
    assert count == 3


@given(
    st.lists(
        st.tuples(st.sampled_from(["GET", "PUT", "X"]), st.integers(0, 50), st.integers(0, 1100)),
        max_size=200,
    )
)
def test_no_request_is_lost_and_the_table_is_bounded(requests):
    counted = figures(series_max=20)
    for method, route, status in requests:
        counted.series(method, f"/{route}", status).count += 1
    assert counted.totals()[0] == len(requests)
    routes = {route for _, route, _ in counted.by_key}
    others = [key for key in counted.by_key if key[1] == "other"]
    assert len(counted.by_key) - len(others) <= 20
    apart = sum(s.count for (_, route, _), s in counted.by_key.items() if route != "other")
    assert counted.overflowed == len(requests) - apart
    assert len(routes) <= 21


def test_a_route_known_before_the_bound_goes_on_being_counted_apart():
    counted = figures(series_max=1)
    counted.series("GET", "/known", 200).count += 1
    counted.series("GET", "/late", 200).count += 1
    counted.series("GET", "/known", 200).count += 1
    told = values(counted.families())
    assert told["http_requests"] == {("GET", "/known", "200"): 2, ("GET", "other", "200"): 1}
    assert told["perf_metrics_overflow"] == {(): 1}


def test_exception_classes_made_at_run_time_are_bounded():
    counted = figures()
    timing = counted.series("GET", "/", 500).timing
    for number in range(EXCEPTIONS_MAX + 50):
        counted.count_exception(timing, f"Made{number}Error")
    told = values(counted.families())["perf_request_exceptions"]
    assert len(told) == EXCEPTIONS_MAX + 1
    assert told["other", "other", "other"] == 50


def test_totals_count_what_the_server_failed():
    counted = figures()
    for status in (200, 404, 499, 500, 503, 999, 1000, 0):
        counted.series("GET", "/", status).count += 1
    assert counted.totals() == (8, 3)


def test_reset_begins_anew_and_leaves_what_is_in_progress():
    counted = figures()
    counted.in_progress = 2
    series = counted.series("GET", "/", 200)
    series.count += 1
    series.timing.durations[0] += 1
    series.timing.duration_sum_ns += 5
    counted.count_exception(series.timing, "ValueError")
    counted.reset()
    told = values(counted.families())
    assert told["http_requests"] == {}
    assert told["http_requests_in_progress"] == {(): 2}
    assert told["perf_request_exceptions"] == {}
    assert totals(counted.families())["http_request_duration_seconds"] == {}
    counted.series("GET", "/", 200).count += 1
    assert values(counted.families())["http_requests"] == {("GET", "/", "200"): 1}


def test_every_method_of_http_is_known():
    assert {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} <= METHODS


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        pytest.param(None, "rejected", id="never accepted"),
        pytest.param(1000, "1000", id="closed"),
        pytest.param(1015, "1015", id="the last code of the protocol"),
        pytest.param(1016, "other", id="a code to come"),
        pytest.param(3000, "3xxx", id="a registered code"),
        pytest.param(3999, "3xxx", id="the last registered code"),
        pytest.param(4999, "4xxx", id="a code of the app"),
        pytest.param("1000", "other", id="text"),
        pytest.param([1000], "other", id="a list"),
        pytest.param(999, "other", id="below all codes"),
        pytest.param(5000, "other", id="above all codes"),
        pytest.param(-1, "other", id="negative"),
    ],
)
def test_websocket_outcomes_are_close_codes(code, outcome):
    sockets = SocketFigures()
    sockets.count("/ws", code, received=2, sent=3, open_ns=1_500_000_000)
    told = values(sockets.families())
    assert told["perf_websocket_connections"] == {("/ws", outcome): 1}
    assert told["perf_websocket_messages_received"] == {("/ws",): 2}
    assert told["perf_websocket_messages_sent"] == {("/ws",): 3}
    assert told["perf_websocket_open_seconds"] == {("/ws",): 1.5}


def test_clients_cannot_fill_the_table_with_close_codes():
    sockets = SocketFigures()
    for code in range(6_000):
        sockets.count("/feed", code, received=0, sent=0, open_ns=0)
    sockets.count("/chat", 1000, received=0, sent=0, open_ns=0)
    told = values(sockets.families())["perf_websocket_connections"]
    assert told["/chat", "1000"] == 1
    assert len(told) == 16 + 2 + 1 + 1  # protocol, 3xxx and 4xxx, other; /chat


def test_websocket_routes_that_look_alike_on_the_page_are_one_series():
    sockets = SocketFigures()
    for end in ("a", "b"):
        sockets.count("/" + "v" * 220 + end, 1000, received=1, sent=1, open_ns=1)
    for family in sockets.families():
        assert len({point.labels for point in family.points}) == len(list(family.points)) <= 1


def test_websocket_routes_are_bounded_and_nothing_is_lost():
    sockets = SocketFigures()
    for number in range(SERIES_MAX + 30):
        sockets.count(f"/{number}", 1000, received=1, sent=0, open_ns=0)
    told = values(sockets.families())
    assert told["perf_websocket_connections"]["other", "other"] == 30
    assert sum(told["perf_websocket_messages_received"].values()) == SERIES_MAX + 30
    assert len(told["perf_websocket_messages_received"]) == SERIES_MAX + 1
