"""An app as an operator runs it: its limits are in the environment."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from perf_middleware import install


async def answer(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


async def status(request: Request) -> Response:
    return JSONResponse(request.app.state.perf.limits.rate.status()["store"])


app = Starlette(
    routes=[
        *[Route(path, answer) for path in ("/local", "/open", "/closed")],
        Route("/status", status),
    ]
)
install(app)
