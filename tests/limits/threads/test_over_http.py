"""Health checks over a real server while every thread is taken: counted, not timed."""

import threading
from contextlib import ExitStack, asynccontextmanager

import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI

from perf_middleware.limits.threads.middleware import ProbeLane
from perf_middleware.limits.threads.runtime import ThreadOffload
from perf_middleware.resource import LifespanPlugin, Resources
from tests.http.servers import Server, serving
from tests.http.wire import eventually, http_request

SLOW = 45  # more than anyio's 40 threads


class SlowApp:
    """Sync endpoints that hold their threads until the test lets them go."""

    def __init__(self):
        self.hold = threading.Event()
        self.running = 0
        self.waiting = None
        self.total = None
        lock = threading.Lock()

        @asynccontextmanager
        async def lifespan(_):
            self.total = anyio.to_thread.current_default_thread_limiter().total_tokens
            yield

        self.app = FastAPI(lifespan=lifespan)

        @self.app.get("/slow")
        def slow():
            with lock:
                self.running += 1
            self.hold.wait(30)
            return "slow"

        @self.app.get("/line")
        async def line():
            limiter = anyio.to_thread.current_default_thread_limiter()
            return limiter.statistics().tasks_waiting

        def checked():
            return "alive"

        @self.app.get("/healthz")
        def healthz(state: str = Depends(checked)):
            return state


def answer(server, path):
    return server.exchange(http_request("GET", path))


@pytest.mark.parametrize("opened", [True, False], ids=["with a lifespan", "without"])
@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_sync_health_check_is_answered_while_every_thread_is_taken(opened, http):
    slow = SlowApp()
    threads = ThreadOffload()
    slow.app.add_middleware(ProbeLane, threads=threads)
    server = Server(LifespanWrapped(slow.app, threads) if opened else slow.app, http=http)
    with serving(server), ExitStack() as wires:
        try:
            if not opened:
                assert b"alive" in answer(server, "/healthz")  # the first one puts the lane on
            held = [wires.enter_context(server.connect()) for _ in range(SLOW)]
            for wire in held:
                wire.send(http_request("GET", "/slow"))
            eventually(lambda: slow.running == 40, what="all threads taken")
            eventually(lambda: answer(server, "/line").endswith(b"5"), what="five in line")
            for _ in range(3):
                assert b'"alive"' in answer(server, "/healthz")
            assert slow.running == 40  # none of the slow ones has ended meanwhile
            assert threads.counts.reserved_used == 6  # the endpoint and its dependency
        finally:
            slow.hold.set()
        assert all(b"slow" in wire.read_to_end() for wire in held)
    assert slow.running == SLOW


class LifespanWrapped:
    """An app with its resources, as install does."""

    def __init__(self, app, *resources):
        self.app = app
        self.lifespan = LifespanPlugin(app, resources=Resources(resources))

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.lifespan(scope, receive, send)
        return await self.app(scope, receive, send)
