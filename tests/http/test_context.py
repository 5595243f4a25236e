"""The endpoint runs where it ran before: the server's task, its context, its threads."""

import json

import pytest

from tests.http.servers import Server, Twins
from tests.http.wire import http_request, masked


def json_of(answer: bytes) -> dict:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_an_endpoint_runs_in_the_servers_own_task_and_context(twins: Twins):
    answer = twins.both(lambda server: server.exchange(http_request("GET", "/context")))
    assert json_of(answer) == {
        "own task": True,
        "outside": "set around the app",
        "middleware": "set by a middleware",
    }


def test_a_dependency_shares_task_and_context_with_its_endpoint(fastapi_twins: Twins):
    answer = fastapi_twins.both(lambda server: server.exchange(http_request("GET", "/v1/context")))
    assert json_of(answer) == {
        "own task": True,
        "outside": "set around the app",
        "middleware": "set by a middleware",
        "dependency": "set by a dependency",
    }


def test_what_an_endpoint_sets_is_visible_around_the_app(twins: Twins):
    def look_around(server: Server):
        before = len(server.journal.about("around /context"))
        server.exchange(http_request("GET", "/context"))
        return server.journal.wait("around /context", notes=before + 1)[-1]

    assert twins.both(look_around) == "set by the endpoint"


def test_what_the_router_found_is_visible_around_the_app(twins: Twins, key):
    """Tracers and access logs read the route from the scope after the call."""

    def look_around(server: Server):
        path = f"/upload/{key}"
        server.exchange(http_request("POST", path, body=b"x"))
        return server.journal.wait(f"params {path}")

    # Behind a mount or a copying layer it was not visible before either: both agree either way.
    assert twins.both(look_around) == [{"key": key}]


def test_a_sync_endpoint_runs_in_the_thread_pool_with_its_context(twins: Twins):
    answer = twins.both(lambda server: server.exchange(http_request("GET", "/thread")))
    assert json_of(answer) == {
        "on the loop's thread": False,
        "outside": "set around the app",
        "middleware": "set by a middleware",
    }


def test_background_tasks_run_after_the_answer_in_the_requests_task(twins: Twins, key):
    """The client has the whole answer and uses its connection while the task still waits."""

    def ask(server: Server):
        with server.connect() as wire:
            wire.send(http_request("GET", f"/background/{key}", keep_alive=True))
            answer = masked(wire.read_answer())
            assert server.journal.about(key) == []
            wire.send(http_request("GET", "/text", keep_alive=True))
            assert b"200 OK" in wire.read_answer()
            assert server.journal.about(key) == []
        server.release(key)
        return answer, server.journal.wait(key, notes=2)

    answer, notes = twins.both(ask)
    assert answer.endswith(b"\r\n\r\nanswered")
    assert notes == [
        "first, own task True, context set by the endpoint",
        "second, context set by the endpoint",
    ]


def test_dependencies_close_and_background_tasks_run_in_the_same_order(fastapi_twins: Twins, key):
    def ask(server: Server):
        answer = server.exchange(http_request("GET", f"/v1/resource/{key}"))
        return answer, server.journal.wait(key, notes=2)

    answer, notes = fastapi_twins.both(ask)
    assert answer.endswith(b'{"held":"resource"}')
    assert set(notes) == {"dependency closed, context set by the endpoint", "background"}


def test_a_dependency_sees_the_exception_of_its_endpoint(fastapi_twins: Twins, key):
    def ask(server: Server):
        answer = server.exchange(http_request("GET", f"/v1/refused/{key}"))
        return answer, server.journal.wait(key, notes=2)

    answer, notes = fastapi_twins.both(ask)
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert notes == ["dependency saw 409", "dependency closed"]


@pytest.mark.parametrize("requests_at_once", [20])
def test_requests_at_once_do_not_share_their_context(twins: Twins, key, requests_at_once):
    """All wait inside the app together; each then gets its own answer."""

    def ask(server: Server):
        keys = [f"{key}-{number}" for number in range(requests_at_once)]
        wires = [server.connect() for _ in keys]
        for wire, one in zip(wires, keys, strict=True):
            wire.send(http_request("GET", f"/wait/{one}"))
        for one in keys:
            server.journal.wait(one)
        for one in reversed(keys):
            server.release(one)
        answers = [masked(wire.read_to_end()) for wire in wires]
        for wire in wires:
            wire.close()
        return answers

    answers = twins.both(ask)
    assert [answer.endswith(f"waited {key}-{i}".encode()) for i, answer in enumerate(answers)] == [
        True
    ] * requests_at_once
