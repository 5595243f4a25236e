"""Server-Timing goes out only when asked for, is valid whatever the parts are called, adds only."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware import MetricsMiddleware, Settings, install
from perf_middleware.metrics.requests.server_timing import PARTS_MAX, server_timing
from tests.metrics.wires import Wire, at_once, hello, http, request

METRIC = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+;dur=\d+\.\d")


@pytest.mark.parametrize(
    ("total_ns", "parts_ns", "value"),
    [
        pytest.param(12_400_000, None, b"total;dur=12.4", id="no parts"),
        pytest.param(0, {}, b"total;dur=0.0", id="nothing"),
        pytest.param(
            12_400_000, {"db": 3_100_000, "app": 99}, b"total;dur=12.4, db;dur=3.1, app;dur=0.0",
            id="parts in their order",
        ),
        pytest.param(
            0, {"a b;dur=9, x": 0, "gr\u00f6\u00dfe": 0, "": 0, "\r\n": 0},
            b"total;dur=0.0, a_b_dur_9_x;dur=0.0, gr_e;dur=0.0, _;dur=0.0, _;dur=0.0",
            id="names become tokens",
        ),
        pytest.param(3_600 * 10**9, None, b"total;dur=3600000.0", id="an hour"),
    ],
)  # fmt: skip
def test_the_value_reads_as_the_specification_says(total_ns, parts_ns, value):
    assert server_timing(total_ns, parts_ns) == (b"server-timing", value)


@given(st.dictionaries(st.text(st.characters(exclude_categories=())), st.integers(0, 10**12)))
def test_any_names_make_a_valid_field_of_bounded_length(parts_ns):
    _, value = server_timing(10**9, parts_ns)
    metrics = value.decode("ascii").split(", ")
    assert len(metrics) == 1 + min(len(parts_ns), PARTS_MAX)
    assert all(METRIC.fullmatch(metric) for metric in metrics)


def test_it_is_sent_only_when_asked_for():
    for asked in (True, False):
        sent = request(MetricsMiddleware(hello, server_timing=asked))
        assert (b"server-timing" in dict(sent[0]["headers"])) is asked


def test_total_is_the_time_to_the_head(clock):
    async def app(scope, receive, send):
        clock.pass_s(0.25)
        await hello(scope, receive, send)

    wire = Wire(http())
    at_once(wire.serve(MetricsMiddleware(app, server_timing=True)))
    assert wire.sent[0]["headers"] == [(b"server-timing", b"total;dur=250.0")]


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_the_app_s_own_header_is_kept_and_its_message_untouched(kind):
    own = (b"server-timing", b"app;dur=5")
    headers = kind([own])
    message = {"type": "http.response.start", "status": 200, "headers": headers, "trailers": True}
    before = dict(message)

    async def app(scope, receive, send):
        await send(message)
        await send({"type": "http.response.body"})

    wire = Wire(http())
    at_once(wire.serve(MetricsMiddleware(app, server_timing=True, trace_response=True)))
    names = [name for name, _ in wire.sent[0]["headers"]]
    assert names == [b"server-timing", b"server-timing", b"traceresponse"]
    assert wire.sent[0]["headers"][0] == own
    assert wire.sent[0]["trailers"] is True
    assert message == before
    assert message["headers"] is headers
    assert kind is iter or list(headers) == [own]


def test_a_head_that_is_sent_again_and_again_does_not_grow():
    message = {"type": "http.response.start", "status": 200, "headers": []}

    async def app(scope, receive, send):
        await send(message)
        await send({"type": "http.response.body"})

    middleware = MetricsMiddleware(app, server_timing=True)
    for _ in range(3):
        assert len(request(middleware)[0]["headers"]) == 1


def test_what_the_app_times_appears_in_it():
    app = FastAPI()
    perf = install(app, Settings(runtime={"enabled": False}, metrics={"server_timing": True}))

    @perf.metrics.track("render", category="templates")
    def render():
        return "page"

    @app.get("/async")
    async def in_the_loop():
        with perf.metrics.timer("one", category="db"):
            pass
        with perf.metrics.timer("two", category="db"):
            return render()

    @app.get("/sync")
    def in_a_thread():
        with perf.metrics.timer("one", category="db"):
            return render()

    @app.get("/none")
    def untimed():
        return ""

    with perf.metrics.timer("outside", category="db"), TestClient(app) as client:
        named = {
            path: re.findall(r"([^ ;,]+);dur", client.get(path).headers["server-timing"])
            for path in ("/async", "/sync", "/none")
        }
    assert named == {
        "/async": ["total", "db", "templates"],
        "/sync": ["total", "templates", "db"],
        "/none": ["total"],
    }
