"""An app of several routes of which one keeps a kilobyte of every request; default settings."""

import socket

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from perf_middleware import Settings, install

TOKEN = "a token of the test"
history = []


async def orders(request):
    history.append(bytes(1_000))  # the planted leak
    return JSONResponse({"orders": len(history)})


async def clean(request):
    return JSONResponse({"rows": [{"id": row} for row in range(20)]})


app = Starlette(
    routes=[Route("/orders", orders), Route("/items", clean), Route("/users", clean)],
)
install(app, Settings(dashboard={"token": TOKEN}))


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
