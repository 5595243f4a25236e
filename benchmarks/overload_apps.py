"""The apps that overload.py loads: each has one scarce thing, and the bundle or not.

cpu       async def that burns the event loop's CPU: one at a time is all there is
threads   def that burns CPU in a thread: more at once share one interpreter
pool      async def that holds one of ten connections for 50 ms: ten at a time

python -m benchmarks.overload_apps ours     # serve them, the port on standard output
"""

from __future__ import annotations

import asyncio
import socket
import sys
from time import thread_time
from typing import Final

import uvicorn
from fastapi import FastAPI, Response

from perf_middleware import Settings, install

BURN_S: Final = 0.02
HELD_S: Final = 0.05
POOL: Final = 10
KINDS: Final = ("cpu", "threads", "pool")


def _burn() -> None:
    """CPU time, not time on the wall: threads that share one interpreter take turns."""
    until = thread_time() + BURN_S
    while thread_time() < until:
        sum(range(200))


def make_app(*, with_bundle: bool) -> FastAPI:
    app = FastAPI()
    pool = asyncio.Semaphore(POOL)

    @app.get("/cpu")
    async def cpu() -> Response:
        _burn()
        return Response("done")

    @app.get("/threads")
    def threads() -> Response:
        _burn()
        return Response("done")

    @app.get("/pool")
    async def pooled() -> Response:
        async with pool:
            await asyncio.sleep(HELD_S)
        return Response("done")

    if with_bundle:
        install(app, Settings(backpressure={"enabled": True}))
    return app


def main(arguments: list[str]) -> None:
    """Serve them on a free port of loopback, and tell that."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    config = uvicorn.Config(
        make_app(with_bundle=arguments[0] == "ours"),
        loop="uvloop", http="httptools", log_level="warning", access_log=False, backlog=4096,
    )  # fmt: skip
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1:])
