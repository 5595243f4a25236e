"""Whom a stack blames: a table of stacks as they are met, innermost line first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.code_roots import CodeRoots
from perf_middleware.metrics.watching.blame import Tally, judge
from perf_middleware.metrics.watching.stacks import StackLine

SITE = "/venv/lib/python3.11/site-packages"
LIB = "/py/lib/python3.11"
ROOTS = CodeRoots(
    machinery=(f"{LIB}/", "/py/", "/venv/", "/venv/bin/"),
    projects=("/app/",),
    ours=("/src/perf_middleware/",),
    interrupting=("/src/perf_middleware/metrics/probes/gc.py",),
)

GC = StackLine("GcProbe._collecting", "/src/perf_middleware/metrics/probes/gc.py", 70)
OBSERVE = StackLine("Durations.observe", "/src/perf_middleware/metrics/watching/durations.py", 3)
LAYER = StackLine("MetricsMiddleware.__call__", "/src/perf_middleware/metrics/middleware.py", 120)
SEND = StackLine("Recording.send", "/src/perf_middleware/metrics/middleware.py", 80)
PAGE = StackLine("render", "/src/perf_middleware/metrics/exposition/page.py", 9)

JSON = StackLine("JSONEncoder.encode", f"{LIB}/json/encoder.py", 200)
ENCODER = StackLine("jsonable_encoder", f"{SITE}/fastapi/encoders.py", 321)
SERIALIZE = StackLine("serialize_response", f"{SITE}/fastapi/routing.py", 369)
FAST_APP = StackLine("get_request_handler.<locals>.app", f"{SITE}/fastapi/routing.py", 784)
RUN_ENDPOINT = StackLine("run_endpoint_function", f"{SITE}/fastapi/routing.py", 300)
RENDER = StackLine("JSONResponse.render", f"{SITE}/starlette/responses.py", 190)
RESPONSE = StackLine("Response.__init__", f"{SITE}/starlette/responses.py", 47)
RESPOND = StackLine("Response.__call__", f"{SITE}/starlette/responses.py", 150)
ROUTER = StackLine("Router.__call__", f"{SITE}/starlette/routing.py", 683)
STARLETTE = StackLine("Starlette.__call__", f"{SITE}/starlette/applications.py", 96)
RUN_ASGI = StackLine("RequestResponseCycle.run_asgi", f"{SITE}/uvicorn/protocols/http/h11.py", 4)
UVICORN_SEND = StackLine("RequestResponseCycle.send", f"{SITE}/uvicorn/protocols/http/h11.py", 9)
SERVE = StackLine("Server.serve", f"{SITE}/uvicorn/server.py", 70)
DRIVER = StackLine("execute", f"{SITE}/driver/api.py", 3)
OTHER_LAYER = StackLine("Limiter.__call__", f"{SITE}/limiter/asgi.py", 3)

HANDLE = StackLine("Handle._run", f"{LIB}/asyncio/events.py", 80)
RUNNER = StackLine("Runner.run", f"{LIB}/asyncio/runners.py", 118)
CREATE_TASK = StackLine("create_task", f"{LIB}/asyncio/tasks.py", 380)
TRIO = StackLine("unrolled_run", f"{SITE}/trio/_core/_run.py", 2800)
CLICK = StackLine("Context.invoke", f"{SITE}/click/core.py", 911)
SPAWN = StackLine("BaseProcess.run", f"{LIB}/multiprocessing/process.py", 108)
SCRIPT = StackLine("<module>", "/venv/bin/uvicorn", 6)
MAIN = StackLine("<module>", "/app/main.py", 42)
SERVING = StackLine("main", "/app/main.py", 30)

OWN = StackLine("items", "/app/views.py", 7)
OWN_LAYER = StackLine("Stopwatch.__call__", "/app/layers.py", 7)
OWN_SEND = StackLine("Stopwatch.send", "/app/layers.py", 12)

OUTER = [LAYER, STARLETTE, RUN_ASGI]
INNER = [FAST_APP, ROUTER]
REQUEST = [*INNER, *OUTER]
BIG = [ENCODER, ENCODER, SERIALIZE]
LOOP = [HANDLE, RUNNER, CLICK, SCRIPT]

OWN_LINES = {
    "own line": [OWN, RUN_ENDPOINT, *REQUEST, *LOOP],
    "far inside": [JSON, DRIVER, OWN, *REQUEST, *LOOP],
    "it calls the loop": [CREATE_TASK, OWN, *REQUEST, *LOOP],
    "it sends": [UVICORN_SEND, RESPOND, OWN, *REQUEST, *LOOP],
    "a bare app": [OWN, RUN_ASGI, *LOOP],
    "on trio": [OWN, TRIO, SCRIPT],
    "alone": [OWN],
    "in an unknown loop": [OWN, SPAWN, MAIN],
    "in a collection": [GC, OWN, *REQUEST, *LOOP],
}
BIG_ANSWERS = {
    "console script": [*BIG, *REQUEST, *LOOP],
    "uvloop, python -m": [*BIG, *REQUEST, RUNNER, CLICK],
    "worker processes": [*BIG, *REQUEST, HANDLE, SPAWN, MAIN],
    "uvicorn.run in own code": [*BIG, *REQUEST, RUNNER, MAIN],
    "server.serve() in own code": [*BIG, *REQUEST, SERVE, SERVING, RUNNER, MAIN],
    "a loop that shows no lines": [*BIG, *REQUEST, SERVE, MAIN],
    "in our gc callback": [GC, *BIG, *REQUEST, *LOOP],
    "below our gc callback": [OBSERVE, GC, *BIG, *REQUEST, *LOOP],
    "an own middleware only waits": [*BIG, *INNER, OWN_LAYER, *OUTER, *LOOP],
    "somebody's middleware only waits": [*BIG, *INNER, OTHER_LAYER, *OUTER, *LOOP],
}


def finding_of(*stacks):
    tally = Tally(ROOTS)
    for stack in stacks:
        tally.add(stack)
    finding = tally.finding()
    assert finding is not None
    return finding


@pytest.mark.parametrize("stack", OWN_LINES.values(), ids=OWN_LINES)
def test_the_innermost_own_line_that_worked_is_to_blame(stack):
    finding = finding_of(stack)
    assert (finding.line, finding.origin, finding.caller) == (OWN, "own", None)


@pytest.mark.parametrize("stack", BIG_ANSWERS.values(), ids=BIG_ANSWERS)
def test_a_large_answer_is_the_frameworks_work_and_says_who_called_for_it(stack):
    finding = finding_of(stack)
    assert (finding.line, finding.caller) == (ENCODER, SERIALIZE)
    assert (finding.origin, finding.call) == ("machinery", ENCODER)


@pytest.mark.parametrize(
    ("stack", "line", "caller"),
    [
        pytest.param(
            [OWN_SEND, RESPOND, *INNER, OWN_LAYER, *OUTER, *LOOP],
            OWN_SEND,
            None,
            id="an own middleware works",
        ),
        pytest.param(
            [JSON, RENDER, RESPONSE, *REQUEST, *LOOP], RENDER, RESPONSE, id="the answer's JSON"
        ),
        pytest.param(
            [JSON, DRIVER, OTHER_LAYER, *OUTER, *LOOP],
            DRIVER,
            OTHER_LAYER,
            id="somebody's middleware works",
        ),
        pytest.param([JSON, ROUTER, *OUTER, *LOOP], ROUTER, None, id="the router itself"),
        pytest.param([HANDLE, RUNNER, MAIN], HANDLE, None, id="the loop itself"),
        pytest.param([PAGE, LAYER, RUN_ASGI, *LOOP], PAGE, None, id="really ours"),
    ],
)
def test_other_stacks_blame_the_innermost_line_that_worked(stack, line, caller):
    finding = finding_of(stack)
    assert (finding.line, finding.caller) == (line, caller)


@pytest.mark.parametrize(
    ("in_ours", "elsewhere", "line"),
    [
        pytest.param(2, 8, RESPOND, id="met in passing: excused"),
        pytest.param(5, 5, RESPOND, id="half: excused"),
        pytest.param(6, 4, SEND, id="most samples: really ours"),
    ],
)
def test_we_are_accused_only_by_most_samples(in_ours, elsewhere, line):
    passing = [SEND, RESPOND, *REQUEST, *LOOP]
    assert finding_of(*[passing] * in_ours, *[passing[1:]] * elsewhere).line == line


def test_an_own_line_leads_also_where_it_waits_in_our_code():
    finding = finding_of([SEND, OWN, *REQUEST, *LOOP])
    assert (finding.line, finding.call, finding.origin) == (OWN, SEND, "own")


def test_a_launcher_is_not_blamed_though_the_roots_know_nothing():
    blind = CodeRoots(machinery=(f"{LIB}/",))
    stack = [*BIG, *REQUEST, *LOOP]
    assert stack[judge(stack, blind).guilty] == ENCODER


ANY_LINE = st.sampled_from(
    [GC, LAYER, SEND, JSON, ENCODER, FAST_APP, RESPOND, RUN_ASGI, DRIVER, HANDLE, SCRIPT, MAIN, OWN]
)


@given(st.lists(ANY_LINE, min_size=1, max_size=30))
def test_any_stack_has_a_verdict_inside_it(stack):
    verdict = judge(stack, ROOTS)
    for one in (verdict, verdict.excused or verdict):
        assert 0 <= one.call <= one.guilty < len(stack)
        assert one.caller is None or one.guilty < one.caller < len(stack)
