"""Warming under uvicorn: when the server is ready, and what the app finds."""

import contextlib

import anyio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, cache_response, install
from tests.http.servers import Server, serving
from tests.http.wire import eventually, http_request

QUIET = {"metrics": {"workers": False}, "dashboard": {"enabled": False}}


def site(**warming):
    """An app whose endpoint needs what its lifespan has made, and a gate that it waits at."""
    seen, gate = [], anyio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield {"greeting": "hello"}

    @cache_response(ttl=600)
    async def page(request):
        seen.append((request.state.greeting, request.state.perf is perf, request.client))
        await gate.wait()
        return PlainTextResponse(request.state.greeting)

    app = Starlette(routes=[Route("/page", page)], lifespan=lifespan)
    warming = {"base_url": "http://example.test", "urls": "/page", "wait_s": 240} | warming
    perf = install(app, Settings(**QUIET, warming=warming))
    return app, perf, seen, gate


def test_the_server_is_ready_when_the_first_run_is_over_and_its_first_client_hits():
    app, _, seen, gate = site()
    gate.set()
    server = Server(app)
    with serving(server):
        assert seen == [("hello", True, None)]
        assert b"; hit; " in server.exchange(http_request("GET", "/page"))
        assert len(seen) == 1


def test_an_app_that_hangs_is_served_all_the_same_and_stops_at_once():
    app, perf, seen, _ = site(wait_s=0.05)
    server = Server(app)
    with serving(server):  # ready, though the first run is not over
        eventually(lambda: len(seen) == 1, what="the request of warming's")
        assert perf.status()["resources"]["warming"]["detail"]["runs"] == 0
        assert server.exchange(http_request("GET", "/elsewhere")).startswith(b"HTTP/1.1 404")
