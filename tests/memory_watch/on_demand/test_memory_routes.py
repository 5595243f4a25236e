"""The operators' endpoints of the memory watch: what they tell, what they refuse and how."""

import tracemalloc

import anyio
import pytest

from perf_middleware.dashboard.access import TokenGate
from perf_middleware.dashboard.routes import Endpoint, OperatorEndpoints
from perf_middleware.memory_watch.on_demand.routes import memory_routes
from perf_middleware.memory_watch.on_demand.runtime import MemoryInspection
from perf_middleware.memory_watch.tracing.runtime import AllocationTracer
from tests.driving import ask, get, http_scope

PREFIX = "/_perf"
BEARER = [("Authorization", "Bearer s3cret")]


async def no_app(scope, receive, send):
    raise AssertionError("the app was asked")


def operators(inspection=None, status=None):
    """The endpoints behind the operators' door, as `install` puts them."""
    inspection = inspection or MemoryInspection()
    endpoints = {
        f"{PREFIX}{route.path}": Endpoint(route.answer, route.methods, TokenGate("s3cret"))
        for route in memory_routes(inspection, status)
    }
    return OperatorEndpoints(no_app, endpoints=endpoints)


def call(app, method, path, query=""):
    return get(
        app, PREFIX + path, method=method, headers=BEARER, query_string=query.encode("latin-1")
    )


def test_the_picture_of_now_is_told_to_who_has_the_token():
    app = operators()
    assert get(app, f"{PREFIX}/memory").status == 401
    answer = call(app, "GET", "/memory")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.header("cache-control") == "no-store"
    assert answer.json()["readings"]["rss_bytes"] > 1_000_000
    assert call(app, "HEAD", "/memory").body == b""
    assert call(operators(status=lambda: {"share": 0.5}), "GET", "/memory").json() == {"share": 0.5}


def test_two_snapshots_are_compared():
    app = operators()
    a, b = (call(app, "POST", "/memory/snapshot").json()["id"] for _ in range(2))
    kept = [row["id"] for row in call(app, "GET", "/memory").json()["snapshots"]]
    assert kept == [a, b]
    told = call(app, "GET", "/memory/compare", f"a={a}&b={b}&top=3").json()
    assert (told["a"], told["b"]) == (a, b)
    assert {"before", "after", "change"} == set(told["readings"]["rss_bytes"])
    assert len(told["types"]) <= 6


def test_objects_are_counted_by_type():
    told = call(operators(), "GET", "/memory/objects", "top=7").json()
    assert len(told["types"]) == 7
    assert told["total"] >= sum(row["count"] for row in told["types"])
    assert {"name", "count"} == set(told["types"][0])


def test_garbage_is_collected_by_post():
    told = call(operators(), "POST", "/memory/collect").json()
    assert told["objects"] >= 0
    assert told["seconds"] > 0


def test_allocations_are_traced_for_the_time_asked_for_and_then_off():
    told = call(operators(), "POST", "/memory/trace", "seconds=1&frames=2").json()
    assert 1 <= told["seconds"] < 10
    assert (told["ended_early"], told["frames"]) == ("", 2)
    assert isinstance(told["sites"], list)
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/memory/snapshot"),
        ("GET", "/memory/collect"),
        ("HEAD", "/memory/collect"),
        ("GET", "/memory/trace"),
        ("POST", "/memory/objects"),
        ("DELETE", "/memory"),
    ],
)
def test_what_changes_something_is_never_a_get(method, path):
    answer = call(operators(), method, path)
    assert answer.status == 405
    assert answer.header("allow") in {"POST", "GET, HEAD"}


TRACE_S = "a number of seconds from 1 to 30"


@pytest.mark.parametrize(
    ("method", "path", "query", "said"),
    [
        ("POST", "/memory/trace", "seconds=0.5", f"seconds must be {TRACE_S}."),
        ("POST", "/memory/trace", "seconds=31", f"seconds must be {TRACE_S}."),
        ("POST", "/memory/trace", "seconds=nan", f"seconds must be {TRACE_S}."),
        ("POST", "/memory/trace", "seconds=", f"seconds must be {TRACE_S}."),
        ("POST", "/memory/trace", "seconds=2&seconds=3", "seconds is given twice."),
        ("POST", "/memory/trace", "frames=26", "frames must be a whole number from 1 to 25."),
        ("POST", "/memory/snapshot", "t=2", f"unknown parameter; allowed: trace_s ({TRACE_S})."),
        ("POST", "/memory/snapshot", "trace_s=99", f"trace_s must be {TRACE_S}."),
        ("POST", "/memory/collect", "x=1", "no parameter is allowed."),
        ("GET", "/memory/objects", "top=0", "top must be a whole number from 1 to 200."),
        ("GET", "/memory/objects", "top=201", "top must be a whole number from 1 to 200."),
        ("GET", "/memory/objects", "top=²", "top must be a whole number from 1 to 200."),
        ("GET", "/memory/objects", "top=1e1", "top must be a whole number from 1 to 200."),
        ("GET", "/memory/compare", "a=1-1", "b must be the id of a snapshot."),
        ("GET", "/memory/compare", f"a={'1' * 41}&b=2", "a must be the id of a snapshot."),
        ("GET", "/memory/objects", "x" * 501, "a query has at most 500 bytes."),
    ],
)
def test_a_wrong_parameter_is_told_what_is_allowed(method, path, query, said):
    answer = call(operators(), method, path, query)
    assert (answer.status, answer.header("content-type")) == (400, "application/problem+json")
    assert answer.json() == {"status": 400, "detail": said}
    assert not tracemalloc.is_tracing()


def test_a_snapshot_that_is_not_kept_is_not_found():
    answer = call(operators(), "GET", "/memory/compare", "a=1-1&b=1-2")
    assert answer.status == 404
    assert "no snapshot 1-1 is kept in this process" in answer.json()["detail"]


def test_a_second_trace_at_the_same_time_is_a_conflict():
    inspection = MemoryInspection(tracer=AllocationTracer(containers=False))
    app = operators(inspection)

    def request(query):
        path = f"{PREFIX}/memory/trace"
        return http_scope(path, method="POST", headers=BEARER, query_string=query)

    async def main():
        answers = []

        async def first():
            answers.append(await ask(app, request(b"seconds=30")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            while not inspection.tracer.is_tracing:
                await anyio.sleep(0.01)
            refused = await ask(app, request(b"seconds=1"))
            inspection.close()
        return refused, answers[0]

    refused, traced = anyio.run(main)
    assert refused.status == 409
    assert refused.json()["detail"].startswith("memory is being looked at already")
    assert traced.status == 200
    assert traced.json()["ended_early"] == "it was stopped"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("path", ["/memory/trace?seconds=30", "/memory/snapshot?trace_s=30"])
def test_a_trace_ends_when_its_client_leaves(path, backend):
    inspection = MemoryInspection(tracer=AllocationTracer(containers=False))
    app, sent = operators(inspection), []
    path, _, query = path.partition("?")
    scope = http_scope(
        PREFIX + path, method="POST", headers=BEARER, query_string=query.encode()
    )  # fmt: skip
    incoming = [{"type": "http.request", "body": b"x", "more_body": False}]

    async def receive():
        if incoming:
            return incoming.pop()
        while not tracemalloc.is_tracing():
            await anyio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def main():
        with anyio.fail_after(120):
            await app(scope, receive, send)

    anyio.run(main, backend=backend)
    assert sent == []
    assert not tracemalloc.is_tracing()
    assert not inspection.tracer.is_tracing
    assert inspection.snapshot()
