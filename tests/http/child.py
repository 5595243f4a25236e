"""A server process of its own: `python -m tests.http.child (bare|installed) FD`.

It serves on the inherited listening socket FD until it is told to stop by SIGTERM.
"""

import hashlib
import socket
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from perf_middleware import Settings, install

PART = 65_536


async def upload(request: Request) -> Response:
    digest, size = hashlib.sha256(), 0
    async for part in request.stream():
        digest.update(part)
        size += len(part)
    return JSONResponse({"size": size, "sha256": digest.hexdigest()})


async def download(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(int(request.query_params["parts"])):
            yield bytes([number % 256]) * PART  # a new object each: what is kept is seen

    return StreamingResponse(parts(), media_type="application/octet-stream")


def main(kind: str, fd: int) -> None:
    app = Starlette(
        routes=[Route("/upload", upload, methods=["POST"]), Route("/download", download)]
    )
    if kind == "installed":
        install(app, Settings())
    listener = socket.socket(fileno=fd)
    config = uvicorn.Config(app, http="httptools", loop="asyncio", log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
