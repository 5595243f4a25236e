"""A service whose caches grow past its memory: `python -m tests.memory_watch.survival_app FD JSON`.

It serves on the inherited listening socket FD.  JSON says how it is bounded and if it is watched:
`{"watch": true, "limit_bytes": null, "group": null, "data_bytes": null}`.
"""

import json
import os
import resource
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perf_middleware import Settings, install

PAGE_BYTES = 60_000
NOTE_BYTES = 20_000

notes: dict[str, bytes] = {}


async def page(request: Request) -> Response:
    body = request.path_params["number"].to_bytes(4, "big") * (PAGE_BYTES // 4)
    return Response(body, headers={"cache-control": "max-age=86400"})


async def note(request: Request) -> Response:
    number = request.path_params["number"]
    notes[number] = os.urandom(8) * (NOTE_BYTES // 8)
    return Response(str(len(notes)))


def forget_notes(pressure) -> int:
    gone = list(notes)[: max(1, round(len(notes) * pressure.shrink_share))]
    for number in gone:
        notes.pop(number, None)
    return len(gone) * NOTE_BYTES


def vm_data_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("no VmData")


def main(fd: int, given: dict) -> None:
    app = Starlette(routes=[Route("/pages/{number:int}", page), Route("/notes/{number:int}", note)])
    perf = install(
        app,
        Settings(
            # More than there is: who has set that has not thought of the container.
            cache={"bytes_max": 4 << 30, "entries_max": 1_000_000},
            memory={"enabled": given["watch"], "limit_bytes": given["limit_bytes"]},
            dashboard={"token": "a token of the test"},
        ),
    )
    if given["watch"]:
        perf.memory.on_pressure("notes", forget_notes)
    if given["group"]:
        Path(given["group"], "cgroup.procs").write_text(str(os.getpid()))
    if given["data_bytes"]:
        most = vm_data_bytes() + given["data_bytes"]
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    listener = socket.socket(fileno=fd)
    config = uvicorn.Config(app, http="httptools", loop="asyncio", log_level="info")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
