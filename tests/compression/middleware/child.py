"""A server process of its own that decodes requests: `python -m ….child FD BYTES_MAX RATIO_MAX`.

`/whole` holds the body at once, `/stream` piece by piece; both answer with its size.
"""

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, install


async def whole(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def stream(request: Request) -> PlainTextResponse:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return PlainTextResponse(str(size))


def main(fd: int, bytes_max: int, ratio_max: int) -> None:
    app = Starlette(
        routes=[
            Route("/whole", whole, methods=["POST"]),
            Route("/stream", stream, methods=["POST"]),
        ]
    )
    install(
        app,
        Settings(
            compression={
                "decode_requests": True,
                "decoded_bytes_max": bytes_max,
                "decoded_ratio_max": ratio_max,
            }
        ),
    )
    listener = socket.socket(fileno=fd)
    config = uvicorn.Config(app, http="httptools", loop="asyncio", log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
