"""Backpressure over a real server: work that never waits, clients that leave, streams."""

import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from perf_middleware.limits.concurrency.middleware import BackpressureMiddleware
from tests.http.servers import Gates, Journal, Server, serving
from tests.http.wire import eventually, http_request

gates = Gates()
WORK_S = 0.02


class Stage:
    """An app behind the layer; `/release/{key}` stands outside of it."""

    def __init__(self, **settings):
        self.journal = Journal()
        routes = [
            Route("/burn", self.burn),
            Route("/thread", self.thread),
            Route("/wait/{key}", self.wait),
            Route("/events/{key}", self.events),
            Route("/read", self.read, methods=["POST"]),
        ]
        self.layer = BackpressureMiddleware(Starlette(routes=routes), **settings)
        self.pressure = self.layer.backpressure
        self.waiting_seen = 0
        self.server = Server(self.app, interface="asgi3")

    async def app(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/release/"):
            gates.release(scope["path"].rpartition("/")[2])
            return await Response(status_code=204)(scope, receive, send)
        self.waiting_seen = max(self.waiting_seen, self.pressure.waiting)
        return await self.layer(scope, receive, send)

    async def burn(self, request):
        """All of its work in one piece: no other task runs meanwhile."""
        until = time.perf_counter() + WORK_S
        while time.perf_counter() < until:
            pass
        self.journal.note("burnt", self.pressure.waiting)
        return PlainTextResponse("burnt")

    def thread(self, request):
        time.sleep(WORK_S)
        return PlainTextResponse("slept")

    async def wait(self, request):
        key = request.path_params["key"]
        self.journal.note("begun", key)
        await gates.wait(key)
        return PlainTextResponse(key)

    async def events(self, request):
        key = request.path_params["key"]

        async def parts():
            yield "data: 1\n\n"
            await gates.wait(key)

        return StreamingResponse(parts(), media_type="text/event-stream")

    async def read(self, request):
        return PlainTextResponse(await request.body())


def burst(server, path, count):
    """The status line of each answer to `count` requests that are sent at once."""
    wires = [server.connect() for _ in range(count)]
    statuses = []
    lock = threading.Lock()
    ready = threading.Barrier(count)

    def ask(wire):
        ready.wait()
        wire.send(http_request("GET", path))
        status = int(wire.read_to_end()[9:12])
        with lock:
            statuses.append(status)

    threads = [threading.Thread(target=ask, args=(wire,)) for wire in wires]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for wire in wires:
        wire.close()
    return statuses


@pytest.mark.parametrize("path", ["/burn", "/thread"])
def test_a_burst_is_shed_and_the_line_keeps_its_bound(path):
    limit = 10 if path == "/burn" else 1
    stage = Stage(adaptive="off", limit_first=limit, waiting_max=5)
    with serving(stage.server):
        statuses = burst(stage.server, path, 40)
        assert set(statuses) == {200, 503}
        assert stage.waiting_seen <= 5
        assert statuses.count(200) == sum(stage.pressure.figures.admitted)
        eventually(lambda: stage.pressure.in_flight == 0, what="every permit")
        assert stage.pressure.waiting == 0
        assert burst(stage.server, path, 1) == [200], "and then it is well again"
    if path == "/burn":
        assert max(stage.journal.about("burnt")) > 0, "while one burns, the others are in the line"


def test_without_a_budget_of_turns_such_work_is_not_seen():
    """What the budget is for: each finds nobody in flight."""
    stage = Stage(adaptive="off", limit_first=10, waiting_max=5, turn_budget_s=None)
    with serving(stage.server):
        assert set(burst(stage.server, "/burn", 20)) == {200}


def test_a_client_that_leaves_while_it_waits_never_reaches_the_app():
    stage = Stage(adaptive="off", limit_first=1, wait_max_s=30, wait_target_s=30)
    with serving(stage.server), stage.server.connect() as first:
        first.send(http_request("GET", f"/wait/first-{stage.server.port}"))
        stage.journal.wait("begun")
        for kind in ("abort", "close"):
            gone = stage.server.connect()
            gone.send(http_request("GET", f"/wait/{kind}"))
            eventually(lambda: stage.pressure.waiting == 1, what="one that waits")
            getattr(gone, kind)()
            eventually(lambda: stage.pressure.waiting == 0, what="its place")
        stage.server.release(f"first-{stage.server.port}")
        assert first.read_to_end().startswith(b"HTTP/1.1 200 ")
        eventually(lambda: stage.pressure.in_flight == 0, what="every permit")
    assert len(stage.journal.about("begun")) == 1
    assert stage.pressure.figures.totals()["shed"] == {"left": 2}


def test_who_has_waited_gets_its_body_read_and_its_connection_kept():
    stage = Stage(adaptive="off", limit_first=1, wait_max_s=30, wait_target_s=30)
    key = f"held-{stage.server.port}"
    body = b"b" * 300_000
    with serving(stage.server), stage.server.connect() as first, stage.server.connect() as second:
        first.send(http_request("GET", f"/wait/{key}"))
        stage.journal.wait("begun")
        length = str(len(body))
        head = f"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
        second.send(head + body)
        eventually(lambda: stage.pressure.waiting == 1, what="one that waits")
        stage.server.release(key)
        for _ in range(2):
            assert second.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            assert second.read_exactly(len(body)) == body
            second.send(head + body)


def test_event_streams_hold_no_permit():
    stage = Stage(adaptive="off", limit_first=1, waiting_max=0)
    key = f"events-{stage.server.port}"
    with serving(stage.server):
        wires = [stage.server.connect() for _ in range(3)]
        for wire in wires:
            wire.send(http_request("GET", f"/events/{key}"))
            assert b"data: 1" in wire.read_until(b"data: 1\n\n")
        assert stage.pressure.in_flight == 0
        assert stage.pressure.figures.event_streams == 3
        for _ in wires:
            stage.server.release(key)
        for wire in wires:
            wire.read_to_end()
            wire.close()


def test_a_refused_request_leaves_its_connection_usable():
    stage = Stage(adaptive="off", limit_first=1, waiting_max=0)
    key = f"full-{stage.server.port}"
    with serving(stage.server), stage.server.connect() as first, stage.server.connect() as second:
        first.send(http_request("GET", f"/wait/{key}"))
        stage.journal.wait("begun")
        for status in (b"503", b"503"):
            second.send(b"GET /burn HTTP/1.1\r\nHost: x\r\n\r\n")
            head = second.read_until(b"\r\n\r\n")
            assert head[9:12] == status
            assert b"retry-after: " in head
            second.read_exactly(len(stage.pressure.refusals.body))
        stage.server.release(key)
        first.read_to_end()
        eventually(lambda: stage.pressure.in_flight == 0, what="the permit")
        second.send(http_request("GET", "/burn"))
        assert second.read_to_end().startswith(b"HTTP/1.1 200 ")
