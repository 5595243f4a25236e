"""Deadlines and request limits over a real server: what leaves at once, and what is cut."""

import threading

import anyio
import pytest
from fastapi import Depends, FastAPI
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from perf_middleware.limits.deadlines.middleware.bodies import RequestLimitsMiddleware
from perf_middleware.limits.deadlines.middleware.timeouts import DeadlineMiddleware
from perf_middleware.limits.deadlines.runtime import current_deadline
from perf_middleware.limits.deadlines.settings import DeadlineSettings
from tests.http.servers import Journal, Server, serving
from tests.http.wire import DEADLINE_S, chunk, eventually, http_request

SETTINGS = DeadlineSettings(
    timeout_s=0.05,
    rules=[{"path": "/cut", "timeout_s": 0.05, "covers": "total"},
           {"path": "/read*", "timeout_s": None}, {"path": "/patient/*", "timeout_s": 60}],
    body_bytes_max=100_000,
    body_idle_s=0.2,
    header_count_max=20,
    url_bytes_max=500,
)  # fmt: skip


class Gate:
    """Held by a thread of the app until the test has seen the answer."""

    def __init__(self):
        self._event = threading.Event()

    def wait(self):
        assert self._event.wait(DEADLINE_S)

    def open(self):
        self._event.set()

    def close(self):
        self._event.clear()


def app_with(journal, gate):
    app = FastAPI()

    async def session():
        try:
            yield "session"
        except BaseException as exc:
            journal.note("session", type(exc).__name__)
            raise
        finally:
            await anyio.sleep(0)
            journal.note("session", "closed")

    def sync_session():
        try:
            yield "session"
        finally:
            journal.note("sync session", "closed")

    @app.get("/hangs")
    async def hangs(held: str = Depends(session), sync: str = Depends(sync_session)):
        await anyio.sleep_forever()

    @app.get("/thread")
    def in_a_thread(held: str = Depends(session)):
        gate.wait()
        journal.note("thread", "ended")
        return "late"

    @app.get("/patient/seen")
    def seen_in_a_thread():
        return current_deadline() is not None

    @app.get("/cut")
    async def cut():
        async def parts():
            yield b"part"
            try:
                await anyio.sleep_forever()
            finally:
                journal.note("stream", "closed")

        return StreamingResponse(parts())

    @app.get("/stream")
    async def stream():
        async def parts():
            for _ in range(5):
                yield b"part"
                await anyio.sleep(0.03)

        return StreamingResponse(parts())

    @app.get("/background")
    async def background():
        async def work():
            await anyio.sleep(0.15)
            journal.note("background", current_deadline())

        return PlainTextResponse("answered", background=BackgroundTask(work))

    @app.post("/read")
    async def read(request: Request):
        try:
            return len(await request.body())
        except Exception as exc:
            journal.note("read", type(exc).__name__)
            raise

    @app.post("/read/not")
    async def read_nothing():
        return Response(status_code=204)

    return app


class Inside(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


@pytest.fixture(scope="module", params=["plain", "base inside", "base outside", "h11"])
def server(request):
    journal, gate = Journal(), Gate()
    app = app_with(journal, gate)
    deadlines = SETTINGS.make_deadlines()
    served = Inside(app) if request.param == "base inside" else app
    served = DeadlineMiddleware(served, deadlines)
    if request.param == "base outside":
        served = Inside(served)
    server = Server(
        RequestLimitsMiddleware(served, deadlines),
        journal=journal,
        http="h11" if request.param == "h11" else "httptools",
    )
    server.gate, server.deadlines, server.kind = gate, deadlines, request.param
    with serving(server):
        yield server


def get(server, path, **more):
    return server.exchange(http_request("GET", path, **more))


def test_the_cleanup_of_yield_dependencies_runs(server):
    before = len(server.journal.about("session"))
    sync_before = len(server.journal.about("sync session"))
    answer = get(server, "/hangs")
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"application/problem+json" in answer
    seen = server.journal.wait("session", notes=before + 2)[before:]
    assert seen == ["CancelledError", "closed"]
    server.journal.wait("sync session", notes=sync_before + 1)
    eventually(lambda: not server.deadlines.figures.running_on, what="its end")


def test_504_leaves_at_once_though_the_thread_goes_on(server):
    before = len(server.journal.about("thread"))
    sessions = len(server.journal.about("session"))
    server.gate.close()
    with server.connect() as wire:
        wire.send(http_request("GET", "/thread", keep_alive=True))
        assert wire.read_answer().startswith(b"HTTP/1.1 504 ")
        assert server.deadlines.figures.running_on == 1
        # The connection is free for the next request, the thread still runs.
        wire.send(http_request("GET", "/patient/seen", keep_alive=True))
        assert wire.read_answer().endswith(b"true")
        assert len(server.journal.about("session")) == sessions
        server.gate.open()
    assert server.journal.wait("thread", notes=before + 1)
    server.journal.wait("session", notes=sessions + 1)
    eventually(lambda: not server.deadlines.figures.running_on, what="its end")


def test_a_stream_that_takes_longer_than_the_timeout_is_whole(server):
    assert b"part" * 5 in get(server, "/stream").replace(b"\r\n4\r\n", b"").replace(b"4\r\n", b"")


def test_a_stream_that_is_cut_is_seen_to_be_incomplete(server):
    before = len(server.journal.about("stream"))
    answer = get(server, "/cut")
    if server.kind == "base outside":
        # It ends the body of whatever fails inside of it, as that of any app.
        answer = answer.removesuffix(b"0\r\n\r\n")
    assert answer.endswith(b"4\r\npart\r\n")  # without the last chunk
    assert server.journal.wait("stream", notes=before + 1)


def test_background_tasks_have_all_the_time(server):
    before = len(server.journal.about("background"))
    assert get(server, "/background").endswith(b"answered")
    assert server.journal.wait("background", notes=before + 1)[before:] == [None]


def test_nothing_was_logged_but_the_cuts(server):
    get(server, "/hangs")
    errors = [line for line in server.log.lines() if "ERROR" in line]
    assert all("DeadlineExceededError" in line for line in errors), errors


# --- limits -------------------------------------------------------------------------------------


def test_an_upload_that_is_too_long_is_refused_before_100_continue(server):
    with server.connect() as wire:
        wire.send(
            http_request(
                "POST", "/read", ("Content-Length", "200000"), ("Expect", "100-continue"),
                keep_alive=True,
            )
        )  # fmt: skip
        answer = wire.read_to_end()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_an_upload_that_is_not_too_long_gets_its_100_continue(server):
    with server.connect() as wire:
        head = http_request("POST", "/read", ("Content-Length", "4"), ("Expect", "100-continue"))
        wire.send(head)
        assert wire.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        wire.send(b"body")
        assert wire.read_to_end().endswith(b"4")


@pytest.mark.parametrize("told", [True, False])
def test_a_client_in_the_middle_of_its_upload_sees_413(server, told):
    """It sends more than is read before the connection closes: no reset takes the answer."""
    parts = 40
    piece = b"a" * 20_000
    field = ("Content-Length", str(parts * len(piece))) if told else (
        "Transfer-Encoding", "chunked")  # fmt: skip
    with server.connect() as wire:
        wire.send(http_request("POST", "/read", field, keep_alive=True))
        for _ in range(parts):
            wire.send(piece if told else chunk(piece))
        if not told:
            wire.send(chunk(b""))
        answer = wire.read_to_end()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"detail":"The body may have 100000 bytes."' in answer


def test_a_client_that_stops_in_its_body_gets_408(server):
    with server.connect() as wire:
        wire.send(http_request("POST", "/read", ("Content-Length", "100"), keep_alive=True))
        wire.send(b"a" * 50)
        answer = wire.read_to_end()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_a_body_that_nobody_reads_is_nobodys_matter(server):
    with server.connect() as wire:
        wire.send(http_request("POST", "/read/not", ("Content-Length", "100"), keep_alive=True))
        assert wire.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 204 ")


def test_a_long_url_and_many_headers_are_refused(server):
    assert get(server, "/" + "a" * 600).startswith(b"HTTP/1.1 414 ")
    many = [(f"x-{number}", "a") for number in range(30)]
    answer = server.exchange(http_request("GET", "/stream", *many))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"Request Header Fields Too Large" in answer
