"""An app under load whose accepted jobs write lines; served by a real uvicorn in its own process.

argv: port file, journal file, seconds of the drain.
"""

import asyncio
import logging
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from perf_middleware import QueueClosedError, QueueFullError, Settings, install

port_file, journal_file, drain_s = sys.argv[1:]
journal = Path(journal_file).open("a", buffering=1)  # noqa: SIM115 - as long as the process


@asynccontextmanager
async def lifespan(app):
    app.state.is_whole = True
    yield
    app.state.is_whole = False
    print("app ended", file=journal)


async def accept(request):
    try:
        job = await work.enqueue(request.query_params["name"])
    except (QueueClosedError, QueueFullError):
        return JSONResponse({"accepted": False}, status_code=503)
    return JSONResponse({"accepted": True, "id": job.id})


async def ready(request):
    return JSONResponse({})


app = Starlette(routes=[Route("/accept", accept), Route("/ready", ready)], lifespan=lifespan)
perf = install(
    app, Settings(tasks={"drain_s": float(drain_s), "workers": 4}, dashboard={"enabled": False})
)


@perf.tasks.task
async def work(name):
    print(f"begun {name}", file=journal)
    await asyncio.sleep(0.02 if float(drain_s) else 600)
    assert app.state.is_whole
    print(f"done {name}", file=journal)


logging.basicConfig(stream=journal, format="log %(message)s", level=logging.INFO)
logging.getLogger("uvicorn").setLevel(logging.WARNING)
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()  # who comes before the app has started waits
Path(port_file).write_text(str(listening.getsockname()[1]))
uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=60)).run(
    sockets=[listening]
)
