"""The apps that over_servers.py and growth.py serve: factories that a server imports by name."""

from __future__ import annotations

import os
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.middleware.gzip import GZipMiddleware

from benchmarks import installed_apps
from benchmarks.cache_apps import HandWritten
from benchmarks.installed_apps import EVERYTHING, PLENTY
from benchmarks.stacks import Minimum

if TYPE_CHECKING:
    from fastapi import FastAPI

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send

ANSWER_FILE: Final = "BENCHMARK_ANSWER_FILE"
PEERS: Final = ("prometheus_fastapi_instrumentator", "slowapi", "fastapi_cache")
CALLS_PATH: Final = "/calls"  # how often the endpoint ran: its answers do not say it
HEAD_END: Final = b"\r\n\r\n"
OF_THE_SERVER: Final = frozenset({b"date", b"server", b"connection", b"transfer-encoding"})


def bare() -> FastAPI:
    """The app without anything of ours."""
    return installed_apps.bare()


def miss() -> FastAPI:
    """Everything on; what it answers may not be stored."""
    return installed_apps.with_settings(**EVERYTHING)


def hit() -> FastAPI:
    """Everything on; what it answers is stored, and its gzip form beside it."""
    return installed_apps.hit(**EVERYTHING)


def minimum() -> FastAPI:
    """The least that does the work of all layers, written by hand; it has nothing to store."""
    app = installed_apps.bare()
    app.add_middleware(Minimum)
    return app


def minimum_hit() -> FastAPI:
    """A dict of answers as they were sent, in gzip or not, and nothing else of a stack."""
    app = installed_apps.bare()
    app.add_middleware(GZipMiddleware)
    app.add_middleware(HandWritten)
    return app


def raw() -> ASGIApp:
    """Answers with the bytes of a file, an HTTP/1.1 answer as `hit` gave it; looks at nothing."""
    head, _, body = Path(os.environ[ANSWER_FILE]).read_bytes().partition(HEAD_END)
    fields = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    headers = [(name.lower(), value) for name, value in fields if name.lower() not in OF_THE_SERVER]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    end = {"type": "http.response.body", "body": body}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(start)
            await send(end)

    return app


def have_peers() -> bool:
    """Whether all of the hand-assembled stack is installed."""
    return all(find_spec(module) is not None for module in PEERS)


def peers() -> FastAPI:
    """What is assembled by hand otherwise: instrumentator, GZip, slowapi and fastapi-cache2."""
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.coder import PickleCoder
    from fastapi_cache.decorator import cache
    from prometheus_fastapi_instrumentator import Instrumentator
    from slowapi import Limiter
    from slowapi.middleware import SlowAPIASGIMiddleware
    from slowapi.util import get_remote_address

    FastAPICache.init(InMemoryBackend())
    calls = 0

    def cached(endpoint: Any) -> Any:
        @wraps(endpoint)
        async def counted(item: str) -> Any:
            nonlocal calls
            calls += 1
            return await endpoint(item)

        return cache(expire=installed_apps.TTL_S, coder=PickleCoder)(counted)

    app = installed_apps.bare(cached)

    @app.get(CALLS_PATH)
    async def tell_calls() -> int:
        return calls

    app.state.limiter = Limiter(key_func=get_remote_address, default_limits=[PLENTY])
    app.add_middleware(SlowAPIASGIMiddleware)
    app.add_middleware(GZipMiddleware)
    Instrumentator().instrument(app)
    return app
