"""A W3C trace that comes in is carried on; nothing that a client sends can break a request."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from perf_middleware import MetricsMiddleware, Settings, install
from perf_middleware.metrics.middleware.trace_starts import BATCH, trace_start, traceparents_of
from perf_middleware.metrics.requests.trace import (
    TRACESTATE_BYTES_MAX,
    TRACESTATE_MEMBERS_MAX,
    join_tracestate,
    parse_traceparent,
    take_part,
)
from tests.metrics.wires import Wire, answer, at_once, hello, http, request

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
UNSAMPLED = f"00-{TRACE}-{SPAN}-00".encode()
START = f"00-{'a' * 32}-{'b' * 16}-02".encode()
QUIET = {"runtime": {"enabled": False}}


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        pytest.param(SAMPLED, (TRACE, SPAN, 1), id="the example of the specification"),
        pytest.param(UNSAMPLED, (TRACE, SPAN, 0), id="not sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-ff", (TRACE, SPAN, 255), id="unknown flags"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01", (TRACE, SPAN, 1), id="a later version"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-what-comes", (TRACE, SPAN, 1), id="that has more"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01.what", None, id="a later version, no dash"),
        pytest.param(f"cc-{TRACE}-{SPAN}-0", None, id="a later version, too short"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-what-comes", None, id="version 00 with more"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-", None, id="version 00 with a dash more"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", None, id="version ff"),
        pytest.param(f"0-{TRACE}-{SPAN}-01", None, id="a short version"),
        pytest.param(f"000-{TRACE}-{SPAN}-01", None, id="a long version"),
        pytest.param(f".0-{TRACE}-{SPAN}-01", None, id="a version that is no hex"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", None, id="trace id of zeros"),
        pytest.param(f"00-{TRACE[:-1]}-{SPAN}-01", None, id="a short trace id"),
        pytest.param(f"00-{TRACE}0-{SPAN}-01", None, id="a long trace id"),
        pytest.param(f"00-.{TRACE[1:]}-{SPAN}-01", None, id="a trace id that is no hex"),
        pytest.param(f"00-{TRACE.upper()}-{SPAN}-01", None, id="a trace id in capitals"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", None, id="parent id of zeros"),
        pytest.param(f"00-{TRACE}-{SPAN[:-1]}-01", None, id="a short parent id"),
        pytest.param(f"00-{TRACE}-{SPAN.upper()}-01", None, id="a parent id in capitals"),
        pytest.param(f"00-{TRACE}-{SPAN}-.0", None, id="flags that are no hex"),
        pytest.param(f"00-{TRACE}-{SPAN}-1", None, id="short flags"),
        pytest.param(f"00-{TRACE}-{SPAN}-001", None, id="long flags"),
        pytest.param(f"00-{TRACE}-{SPAN}", None, id="no flags"),
        pytest.param(f"00_{TRACE}_{SPAN}_01", None, id="other delimiters"),
        pytest.param(f" 00-{TRACE}-{SPAN}-01", None, id="a space before"),
        pytest.param(f"00-{TRACE}-{SPAN}-01\n", None, id="a line feed after"),
        pytest.param("", None, id="empty"),
        pytest.param("x" * 100_000, None, id="huge"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-{'x' * 1000}", None, id="a huge later version"),
        pytest.param(f"00-{TRACE}-{SPAN}-0\u0661".encode(), None, id="digits of another script"),
    ],
)
def test_a_traceparent_is_valid_as_the_specification_says(value, parsed):
    assert parse_traceparent(value if isinstance(value, bytes) else value.encode()) == parsed


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{30,33}-[0-9a-f]{16}-.*"))
def test_any_bytes_are_a_place_in_a_trace_or_none(value):
    parsed = parse_traceparent(value)
    if parsed is not None:
        trace_id, parent_id, flags = parsed
        assert re.fullmatch("[0-9a-f]{32}", trace_id)
        assert set(trace_id) != {"0"}
        assert re.fullmatch("[0-9a-f]{16}", parent_id)
        assert 0 <= flags <= 255


headers = st.lists(
    st.tuples(
        st.sampled_from([b"traceparent", b"tracestate", b"x"]),
        st.binary(max_size=60) | st.just(SAMPLED) | st.just(b"a=1,b=2"),
    ),
    max_size=6,
)


@given(headers)
def test_any_headers_give_a_trace_that_can_be_sent_on(incoming):
    trace = take_part(incoming, start=START)
    sent = trace.headers()
    assert parse_traceparent(sent["traceparent"].encode()) == (
        trace.trace_id, trace.span_id, trace.flags,
    )  # fmt: skip
    assert all(0x20 <= ord(char) <= 0x7E for char in sent.get("tracestate", ""))
    assert trace.span_id == "b" * 16
    single = [value for name, value in incoming if name == b"traceparent"] == [SAMPLED]
    assert trace.sampled <= (trace.parent_id is not None)
    assert not single or (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, SPAN, True)


@given(headers)
def test_any_headers_pass_through_the_middleware(incoming):
    middleware = MetricsMiddleware(hello, trace_response=True, slow_request_s=1e-9)
    wire = Wire(http(headers=incoming))
    at_once(wire.serve(middleware))
    (value,) = [v for name, v in wire.sent[0]["headers"] if name == b"traceresponse"]
    assert parse_traceparent(value) is not None


@pytest.mark.parametrize(
    ("values", "joined"),
    [
        pytest.param([], "", id="none"),
        pytest.param([b"congo=t61rcWkgMzE"], "congo=t61rcWkgMzE", id="one"),
        pytest.param([b"a=1", b"b=2 "], "a=1,b=2", id="two lines, in their order"),
        pytest.param([b" \t", b"a=1", b""], "a=1", id="empty lines"),
        pytest.param([b"a=\xff"], "", id="not ASCII"),
        pytest.param([b"a=\r\nevil: 1"], "", id="a line break"),
        pytest.param([b"a=\x00"], "", id="a NUL"),
        pytest.param([b"a" * TRACESTATE_BYTES_MAX], "a" * TRACESTATE_BYTES_MAX, id="the longest"),
        pytest.param([b"a" * (TRACESTATE_BYTES_MAX + 1)], "", id="too long"),
        pytest.param([b"a=1"] * 300, "", id="too long in all"),
        pytest.param([b"a=1"] * TRACESTATE_MEMBERS_MAX, ",".join(["a=1"] * 32), id="the most"),
        pytest.param([b"a=1"] * (TRACESTATE_MEMBERS_MAX + 1), "", id="too many members"),
    ],
)
def test_tracestate_is_carried_whole_or_not_at_all(values, joined):
    assert join_tracestate(values) == joined


@pytest.mark.parametrize(
    ("incoming", "trace_id", "parent_id", "flags", "tracestate"),
    [
        pytest.param([], "a" * 32, None, 2, "", id="a trace starts here, unsampled"),
        pytest.param([(b"traceparent", SAMPLED)], TRACE, SPAN, 1, "", id="a sampled one"),
        pytest.param([(b"traceparent", UNSAMPLED)], TRACE, SPAN, 0, "", id="an unsampled one"),
        pytest.param(
            [(b"traceparent", f"00-{TRACE}-{SPAN}-ff".encode())], TRACE, SPAN, 3, "",
            id="only flags that are known go on",
        ),
        pytest.param(
            [(b"tracestate", b"a=1"), (b"traceparent", SAMPLED), (b"tracestate", b"b=2")],
            TRACE, SPAN, 1, "a=1,b=2", id="with its state",
        ),
        pytest.param(
            [(b"traceparent", SAMPLED), (b"traceparent", SAMPLED)], "a" * 32, None, 2, "",
            id="two are none",
        ),
        pytest.param(
            [(b"traceparent", b"broken"), (b"tracestate", b"a=1")], "a" * 32, None, 2, "",
            id="a broken one loses its state",
        ),
        pytest.param([(b"tracestate", b"a=1")], "a" * 32, None, 2, "", id="state alone is none"),
    ],
)  # fmt: skip
def test_our_place_in_a_trace(incoming, trace_id, parent_id, flags, tracestate):
    trace = take_part(incoming, start=START)
    assert (trace.trace_id, trace.parent_id, trace.flags) == (trace_id, parent_id, flags)
    assert trace.span_id == "b" * 16 != parent_id
    assert trace.headers().get("tracestate", "") == tracestate


@given(st.lists(st.binary(min_size=24, max_size=24) | st.just(bytes(24)), max_size=3))
def test_random_bytes_always_give_valid_starts(random):
    for start, ids in zip(traceparents_of(b"".join(random)), random, strict=True):
        parsed = parse_traceparent(start)
        assert parsed is not None
        assert parsed[2] == 2, "random, and not sampled"
        assert "".join(parsed[:2]) == ids.hex() or "0" * 16 in b"".join(random).hex()


def test_starts_do_not_repeat_from_batch_to_batch():
    starts = [trace_start() for _ in range(3 * BATCH)]
    assert len({start[3:35] for start in starts}) == len({start[36:52] for start in starts}) == 192


FORKING = """
import os
from perf_middleware.metrics.middleware.trace_starts import BATCH, trace_start

trace_start()  # the parent has a batch ready
if os.fork() == 0:
    print("\\n".join(trace_start().decode() for _ in range(BATCH)), flush=True)
    os._exit(0)
os.wait()
print("\\n".join(trace_start().decode() for _ in range(BATCH)), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no process")
def test_a_forked_worker_starts_traces_of_its_own():
    told = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()
    assert len(told) == len(set(told)) == 2 * BATCH


def test_a_trace_that_starts_here_is_the_start():
    assert take_part([], start=START).traceparent.encode() == START


# --- in a request -------------------------------------------------------------------------------


@contextmanager
def serving(app, **settings):
    perf = install(app, Settings(**QUIET, metrics=settings))
    with TestClient(app) as client:
        yield perf, client


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_outgoing_headers_are_there_in_endpoints_and_background_tasks(kind):
    app = FastAPI()
    told = []

    def note(where):
        told.append((where, app.state.perf.metrics.trace_headers()))

    async def background_async():
        note("background")

    if kind == "async":

        async def endpoint():
            note("endpoint")
            return PlainTextResponse("", background=BackgroundTask(background_async))
    else:

        def endpoint():  # runs in the thread pool
            note("endpoint")
            return PlainTextResponse("", background=BackgroundTask(note, "background"))

    app.get("/")(endpoint)
    with serving(app) as (perf, client):
        client.get("/", headers={"traceparent": SAMPLED.decode(), "tracestate": "a=1"})
        assert perf.metrics.trace_headers() == {}
        assert perf.metrics.trace() is None
    (_, in_endpoint), (_, in_background) = told
    assert in_endpoint == in_background
    trace_id, span_id, flags = parse_traceparent(in_endpoint["traceparent"].encode())
    assert (trace_id, flags, in_endpoint["tracestate"]) == (TRACE, 1, "a=1")
    assert span_id != SPAN


def test_with_trace_context_off_nothing_is_read_and_nothing_offered():
    app = FastAPI()
    told = []
    app.get("/")(lambda: told.append(app.state.perf.metrics.trace_headers()))
    with serving(app, trace_context=False, trace_response=True) as (_, client):
        answered = client.get("/", headers={"traceparent": SAMPLED.decode()})
    assert told == [{}]
    assert "traceresponse" not in answered.headers


def test_every_request_has_ids_of_its_own():
    async def app(scope, receive, send):
        await answer(send)

    middleware = MetricsMiddleware(app, trace_response=True)
    seen = {request(middleware)[0]["headers"][-1][1] for _ in range(50)}
    assert len(seen) == 50


def test_an_app_that_seeds_its_random_numbers_still_has_ids_of_its_own():
    import random

    middleware = MetricsMiddleware(hello, trace_response=True)
    state = random.getstate()
    try:
        seen = set()
        for _ in range(5):
            random.seed(42)
            seen.add(request(middleware)[0]["headers"][-1][1])
    finally:
        random.setstate(state)
    assert len(seen) == 5


def test_traceresponse_is_sent_only_when_asked_for():
    for asked in (True, False):
        sent = request(MetricsMiddleware(hello, trace_response=asked))
        assert (b"traceresponse" in dict(sent[0]["headers"])) is asked


@pytest.mark.parametrize("incoming", [None, SAMPLED.decode()], ids=["started here", "came in"])
def test_traceresponse_tells_the_ids_that_the_app_saw(incoming):
    app = FastAPI()
    told = []
    app.get("/early")(lambda: told.append(app.state.perf.metrics.trace().traceparent))

    def late():
        told.append(app.state.perf.metrics.trace().traceparent)

    app.get("/late")(lambda: PlainTextResponse("", background=BackgroundTask(late)))
    headers = {} if incoming is None else {"traceparent": incoming}
    with serving(app, trace_response=True) as (_, client):
        for path in ("/early", "/late"):
            answered = client.get(path, headers=headers)
            assert answered.headers["traceresponse"] == told.pop()


@pytest.mark.parametrize(
    ("traceparent", "kept"),
    [
        pytest.param(SAMPLED, True, id="a sampled request leaves its trace id"),
        pytest.param(UNSAMPLED, False, id="an unsampled one does not"),
        pytest.param(b"broken", False, id="nor a broken one"),
        pytest.param(None, False, id="nor one without a trace"),
    ],
)
def test_exemplars(traceparent, kept):
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("page"))])
    with serving(app) as (_, client):
        client.get("/", headers={} if traceparent is None else {"traceparent": traceparent})
        page = client.get("/metrics", headers={"accept": "application/openmetrics-text"}).text
        text = client.get("/metrics").text
    exemplars = [
        sample.exemplar.labels
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.exemplar
    ]
    assert exemplars == ([{"trace_id": TRACE}] if kept else [])
    assert TRACE not in text


def test_exemplars_switched_off_are_not_kept():
    middleware = MetricsMiddleware(hello, exemplars=False)
    request(middleware, headers=[(b"traceparent", SAMPLED)])
    (timing,) = middleware.recorder.figures.timings()
    assert timing.exemplars == {}


def test_only_some_requests_in_a_second_are_looked_at_for_an_exemplar(clock):
    middleware = MetricsMiddleware(hello)
    for trace in ("1", "2", "3"):
        headers = [(b"traceparent", f"00-{trace * 32}-{SPAN}-01".encode())]
        at_once(Wire(http(headers=headers)).serve(middleware))
        clock.pass_s(0.03)  # less than the pause between two, two of these are more
    (timing,) = middleware.recorder.figures.timings()
    assert [exemplar.trace_id[0] for exemplar in timing.exemplars.values()] == ["3"]
