"""Slow requests are logged in one safe line each, at most so many a minute."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import MetricsMiddleware
from perf_middleware.metrics.middleware import current_exchange
from perf_middleware.metrics.requests.slow_requests import MINUTE_NS, SlowLog, SlowRequest
from tests.metrics.wires import REQUEST, Wire, answer, at_once, http

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def slow(**changes):
    return SlowRequest(
        **{
            "method": "GET",
            "route": "/report",
            "path": "/report",
            "status": 200,
            "outcome": "answered",
            "duration_ns": 1_204_000_000,
            "first_byte_ns": 1_203_000_000,
            "response_bytes": 4211,
            "parts_ns": {"db": 1_180_000_000},
            "trace_id": TRACE,
        }
        | changes
    )


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        pytest.param(
            slow(),
            "slow request: GET /report 200 took 1.204 s (first byte 1.203 s, db 1.180 s, "
            f"4211 bytes, trace {TRACE}) at '/report'",
            id="as the documentation shows it",
        ),
        pytest.param(
            slow(first_byte_ns=None, parts_ns=None, trace_id=None, response_bytes=0, status=499,
                 outcome="client left"),
            "slow request: GET /report 499 took 1.204 s (0 bytes, client left) at '/report'",
            id="with nothing known",
        ),
        pytest.param(
            slow(parts_ns=None, trace_id=None, path="/\x1b[31m\n\r\x00\u2028\ud800'\""),
            "slow request: GET /report 200 took 1.204 s (first byte 1.203 s, 4211 bytes) at "
            "'/\\x1b[31m\\n\\r\\x00\\u2028\\ud800\\'\"'",
            id="nothing in the path breaks the line",
        ),
        pytest.param(
            slow(parts_ns=None, trace_id=None, path="/" + "x" * 10_240),
            "slow request: GET /report 200 took 1.204 s (first byte 1.203 s, 4211 bytes) at "
            f"'/{'x' * 199}\\u2026'",
            id="a long path is cut",
        ),
        pytest.param(
            slow(parts_ns={"a\nb": 1_000_000_000}, trace_id=None, method="G\u00cbT\n" * 9,
                 route="/gr\u00f6\u00dfe\n"),
            "slow request: G\\xcbT\\nG\\xcbT\\nG\\xcbT\\nG\\xcbT\\n /gr\u00f6\u00dfe\\n 200 took "
            "1.204 s (first byte 1.203 s, a\\nb 1.000 s, 4211 bytes) at '/report'",
            id="nor in the method, the route or a part",
        ),
    ],
)  # fmt: skip
def test_the_line(request_, line):
    assert request_.line() == line


any_text = st.text(st.characters(exclude_categories=()))


@given(any_text, any_text, any_text, st.dictionaries(any_text, st.integers(0, 10**12), max_size=3))
def test_any_request_is_one_printable_line(method, route, path, parts_ns):
    line = slow(method=method, route=route, path=path, parts_ns=parts_ns).line()
    assert line.isprintable()
    line.encode()


@given(
    st.lists(st.integers(0, 5 * MINUTE_NS), max_size=100).map(sorted),
    st.integers(1, 10),
)
def test_each_minute_has_its_lines_and_no_more(times_ns, per_minute_max):
    log = SlowLog(per_minute_max)
    admitted: dict[int, int] = {}
    for now_ns in times_ns:
        admitted[now_ns // MINUTE_NS] = admitted.get(now_ns // MINUTE_NS, 0) + log.admits(now_ns)
    wanted: dict[int, int] = {}
    for now_ns in times_ns:
        wanted[now_ns // MINUTE_NS] = wanted.get(now_ns // MINUTE_NS, 0) + 1
    assert admitted == {minute: min(n, per_minute_max) for minute, n in wanted.items()}
    assert log.slow == len(times_ns)
    assert log.suppressed == len(times_ns) - sum(admitted.values())


def test_a_reset_forgets_the_counts_but_gives_no_new_lines():
    log = SlowLog(1)
    assert [log.admits(0), log.admits(1)] == [True, False]
    log.reset()
    assert (log.slow, log.suppressed) == (0, 0)
    assert log.admits(2) is False


# --- through the middleware ---------------------------------------------------------------------


def lines_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "perf_middleware.metrics"]


def slow_app(clock, seconds):
    async def app(scope, receive, send):
        clock.pass_s(seconds)
        current_exchange().add_part("db", 500_000_000)
        await answer(send)

    return app


@pytest.mark.parametrize(
    ("threshold_s", "takes_s", "logged"),
    [
        pytest.param(1.0, 0.999, False, id="just below"),
        pytest.param(1.0, 1.0, True, id="at the threshold"),
        pytest.param(1.0, 7.0, True, id="above"),
        pytest.param(None, 7_000.0, False, id="switched off"),
        pytest.param(1e300, 7_000.0, False, id="a number too large for the clock"),
    ],
)
def test_the_threshold(clock, caplog, threshold_s, takes_s, logged):
    middleware = MetricsMiddleware(slow_app(clock, takes_s), slow_request_s=threshold_s)
    at_once(Wire(http()).serve(middleware))
    assert len(lines_of(caplog)) == middleware.recorder.slow_log.slow == logged


def test_the_line_has_route_path_parts_and_trace_but_no_query(clock, caplog):
    async def page(request):
        clock.pass_s(2)
        current_exchange().add_part("db", 1_500_000_000)
        return PlainTextResponse("page")

    middleware = MetricsMiddleware(Starlette(routes=[Route("/users/{id}", page)]))
    traceparent = f"00-{TRACE}-00f067aa0ba902b7-00".encode()
    scope = http(
        "/users/5", query_string=b"password=secret", headers=[(b"traceparent", traceparent)]
    )
    at_once(Wire(scope, REQUEST).serve(middleware))
    (line,) = lines_of(caplog)
    assert line == (
        "slow request: GET /users/{id} 200 took 2.000 s (first byte 2.000 s, db 1.500 s, 4 bytes, "
        f"trace {TRACE}) at '/users/5'"
    )
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        pytest.param(ValueError, "failed", id="an exception"),
        pytest.param(KeyboardInterrupt, "cancelled", id="an end from outside"),
        pytest.param(None, "incomplete", id="no answer"),
    ],
)
def test_the_line_says_how_it_ended_where_it_did_not_end_well(clock, caplog, ending, said):
    async def app(scope, receive, send):
        clock.pass_s(2)
        if ending is not None:
            raise ending

    middleware = MetricsMiddleware(app)
    if ending is None:
        at_once(Wire(http()).serve(middleware))
    else:
        with pytest.raises(ending):
            at_once(Wire(http()).serve(middleware))
    (line,) = lines_of(caplog)
    assert f", {said}, trace " in line


def test_a_stream_is_judged_by_its_whole_duration(clock, caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        clock.pass_s(3)
        await send({"type": "http.response.body"})

    at_once(Wire(http()).serve(MetricsMiddleware(app)))
    (line,) = lines_of(caplog)
    assert "took 3.000 s (first byte 0.000 s" in line


def test_lines_over_the_budget_are_counted_and_not_written(clock, caplog):
    middleware = MetricsMiddleware(slow_app(clock, 1), slow_log_per_minute_max=2)
    clock.now_ns -= clock.now_ns % MINUTE_NS
    for _ in range(5):
        at_once(Wire(http()).serve(middleware))
    assert len(lines_of(caplog)) == 2
    assert middleware.recorder.slow_log.slow == 5
    assert middleware.recorder.slow_log.suppressed == 3
    clock.pass_s(60)
    at_once(Wire(http()).serve(middleware))
    assert len(lines_of(caplog)) == 3


@pytest.mark.parametrize(
    ("before_s", "within_s", "logged"),
    [
        pytest.param(0.1, 3_600.0, False, id="a stream may last"),
        pytest.param(2.0, 0.0, True, id="but must begin in time"),
    ],
)
def test_a_stream_is_judged_by_its_first_byte(clock, caplog, before_s, within_s, logged):
    async def app(scope, receive, send):
        clock.pass_s(before_s)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        clock.pass_s(within_s)
        await send({"type": "http.response.body", "body": b""})

    middleware = MetricsMiddleware(app)
    at_once(Wire(http()).serve(middleware))
    assert len(lines_of(caplog)) == middleware.recorder.slow_log.slow == logged
