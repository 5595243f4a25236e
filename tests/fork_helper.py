"""`python -m tests.fork_helper FD`: imports the libraries, then forks for each job over FD.

A job is its length, its descriptors and JSON:  {"command": ["-m", "uvicorn", ...], "environment":
..., "directory": ..., "numbers": [0, 1, 2, ...]}, the numbers that the descriptors get; answered
with the number of the process.  {"ended": number} is answered with what `waitpid` says, or NOT_YET.

A fork leads a session of its own, has the environment, the directory and the descriptors of its job
and no others, and signals as at a start; then it does what Python does with `-m module`, `script`
or `-c code`.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import sys
import types
from pathlib import Path
from typing import Any

LENGTH = struct.Struct("!I")
ANSWER = struct.Struct("!q")
NOT_YET = -1
DESCRIPTORS_MAX = 16

LIBRARIES = (
    "aiosqlite", "anyio._backends._asyncio", "asyncpg", "fastapi.testclient", "httptools", "httpx2",
    "ormsgpack", "prometheus_client", "psutil", "pydantic_settings", "redis.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg", "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio", "uvicorn", "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto", "uvloop",
)  # fmt: skip
OURS = (
    "perf_middleware.assembly", "perf_middleware.bundle", "perf_middleware.database.runtime",
    "perf_middleware.database.streams.middleware", "perf_middleware.settings",
)  # fmt: skip


def read(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or none where the other side has gone."""
    found = b""
    while len(found) < count:
        more = connection.recv(count - len(found))
        if not more:
            return b""
        found += more
    return found


def next_job(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """In a fork: what it is to do.  None where nobody asks for anything any more."""
    while True:
        head, fds, _, _ = socket.recv_fds(connection, LENGTH.size, DESCRIPTORS_MAX)
        if not head:
            return None
        head += read(connection, LENGTH.size - len(head))
        job = json.loads(read(connection, LENGTH.unpack(head)[0]))
        if "ended" in job:
            ended, status = os.waitpid(job["ended"], os.WNOHANG)
            answer = status if ended else NOT_YET
        else:
            answer = os.fork()
            if answer == 0:
                return job, fds
        for fd in fds:
            os.close(fd)
        connection.sendall(ANSWER.pack(answer))


def place(fds: list[int], numbers: list[int]) -> None:
    """These descriptors, under these numbers."""
    beyond = max(numbers) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(moved, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)


def settle(job: dict[str, Any], fds: list[int], *, path: list[str]) -> None:
    """As if it had been started so; `path` is that of every start."""
    place(fds, job["numbers"])
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["directory"])
    named = os.environ.get("PYTHONPATH", "")
    own = [place for place in named.split(os.pathsep) if place and place not in path]
    sys.path[:] = [*own, *path]


def execute(command: list[str]) -> None:
    match command:
        case ["-m", module, *arguments]:
            sys.path.insert(0, str(Path.cwd()))
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *arguments]:
            sys.path.insert(0, "")
            sys.argv = ["-c", *arguments]
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), main.__dict__)
        case [script, *arguments] if not script.startswith("-"):
            sys.path.insert(0, str(Path(script).absolute().parent))
            sys.argv = [script, *arguments]
            runpy.run_path(script, run_name="__main__")
        case _:
            raise ValueError(f"only -m, -c or a script can be run in a fork: {command}")


def main(connection: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with who has started it
    for name in LIBRARIES + OURS:
        importlib.import_module(name)
    tasks = Path("/proc/self/task")
    assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "a fork would lose its threads"
    path = sys.path[1:]
    gc.freeze()  # else each fork would look at it all once more, at its end at the latest
    job = next_job(connection)
    connection.close()
    if job is not None:
        settle(*job, path=path)
        execute(job[0]["command"])


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
