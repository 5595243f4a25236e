"""The cache under uvicorn: who leaves, who waits on the same connection, what ends."""

import threading

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from perf_middleware import ResponseCacheMiddleware
from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.runtime import ResponseCache
from tests.caching.stage import Clock
from tests.http.servers import Gates, Server, serving
from tests.http.wire import eventually, http_request

HTTP = pytest.mark.parametrize("http", ["httptools", "h11"])


class Site:
    """A server with a cache on a clock of the test's, and gates that the app waits at."""

    def __init__(self, http, **options):
        self.clock = Clock()
        self.calls = []
        self.gates = Gates()
        self.closed = []

        async def slow(request):
            self.calls.append("slow")
            if len(self.calls) > 1:
                await self.gates.wait("slow")
            headers = {"cache-control": "max-age=10, stale-while-revalidate=60"}
            return PlainTextResponse(f"call {len(self.calls)}", headers=headers)

        async def parts():
            try:
                yield b"first;"
                await self.gates.wait("stream")
                yield b"second;"
                await self.gates.wait("stream")
                yield b"third;"
                self.closed.append("whole")
            finally:
                self.closed.append("closed")

        async def stream(request):
            self.calls.append("stream")
            return StreamingResponse(parts(), headers={"cache-control": "max-age=60"})

        async def release(request):
            self.gates.release(request.path_params["key"])
            return PlainTextResponse(status_code=204)

        app = Starlette(
            routes=[
                Route("/slow", slow),
                Route("/stream", stream),
                Route("/release/{key}", release, methods=["POST"]),
            ]
        )
        self.layer = ResponseCacheMiddleware(
            app,
            ResponseCache(
                clock=self.clock,
                wall_s=self.clock.wall_s,
                options=CacheOptions(**options),
                draw=lambda: 0.0,
            ),
        )
        self.cache = self.layer.cache
        self.server = Server(self.layer, http=http, lifespan="off")


@HTTP
def test_a_connection_does_not_wait_for_the_refresh_behind_its_answer(http):
    site = Site(http)
    with serving(site.server), site.server.connect() as wire:
        wire.send(http_request("GET", "/slow", keep_alive=True))
        assert wire.read_answer().endswith(b"call 1")
        site.clock.pass_s(20)
        for _ in range(3):  # the first of them asks behind itself, and hangs there
            wire.send(http_request("GET", "/slow", keep_alive=True))
            assert wire.read_answer().endswith(b"call 1")
        assert site.calls == ["slow"] * 2
        site.server.release("slow")
        eventually(lambda: not site.cache.refreshing, what="the end of the refresh")
        wire.send(http_request("GET", "/slow", keep_alive=True))
        assert wire.read_answer().endswith(b"call 2")


@HTTP
def test_whoever_comes_while_a_client_aborts_gets_the_whole_answer(http):
    site = Site(http)
    with serving(site.server):
        leader = site.server.connect()
        leader.send(http_request("GET", "/stream", keep_alive=True))
        leader.read_until(b"first;")
        answers = []

        def follow():
            answers.append(site.server.exchange(http_request("GET", "/stream")))

        follower = threading.Thread(target=follow)
        follower.start()
        eventually(lambda: site.cache.flights.waiting == 1, what="one who waits")
        leader.abort()
        site.server.release("stream")
        site.server.release("stream")
        follower.join(10)
        assert answers[0].endswith(b"first;second;third;")
        assert b"collapsed" in answers[0]
        assert site.calls == ["stream"]
        eventually(lambda: site.closed == ["whole", "closed"], what="the end of the stream")
        assert site.cache.storing_bytes == 0


@HTTP
def test_a_stream_whose_client_aborted_ends_when_its_time_is_over(http):
    site = Site(http, outlive_s=0.05)
    with serving(site.server):
        leader = site.server.connect()
        leader.send(http_request("GET", "/stream", keep_alive=True))
        leader.read_until(b"first;")
        leader.abort()
        eventually(lambda: site.closed == ["closed"], what="the end of the stream")
        eventually(lambda: not site.cache.flights.open, what="the end of the flight")
        assert site.cache.storing_bytes == 0
        assert site.cache.store.responses == 0
