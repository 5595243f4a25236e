"""Python processes that start with the libraries imported: a second or two less for each of them.

    tests       a command, its environment, directory and descriptors      helper
    start(...)  ------------------------ a socket ----------------------->  libraries imported,
    Process     <----------------- its number, how it ended --------------  one thread: forks

One helper for each process of the test run, started with the first command.  What a command imports
beyond the libraries, sets or breaks, the next one does not see.

Not for what looks at a start: command lines, the memory that a process takes, modules that are
imported late.  Where there is no fork, every process is started anew.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.fork_helper import ANSWER, LENGTH, NOT_YET, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
LOOK_EVERY_S = 0.005


class Process:
    """As far as the tests use it, what `subprocess.Popen` is for a process of its own."""

    def __init__(self, helper: Helper, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self._helper = helper
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None:
                status = self._helper.ask({"ended": self.pid})
                if status != NOT_YET:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        until_s = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if timeout is not None and until_s is not None and time.monotonic() > until_s:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(LOOK_EVERY_S)
        return code

    def send_signal(self, number: int) -> None:
        with self._lock:  # its number is given to nobody else before we have heard of its end
            if self.returncode is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_anew(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """What `start` does, without a fork."""
    return subprocess.Popen([sys.executable, *command], text=True, **options)


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    pass_fds: Sequence[int] = (),
) -> Process | subprocess.Popen[str]:
    """Run these arguments of Python: as `subprocess.Popen`, of whose ways these are the ones used.

    What goes through a PIPE is text.
    """
    if not hasattr(os, "fork"):
        return start_anew(
            command, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds
        )
    theirs: list[int] = []  # closed here once the fork has them
    ours: list[IO[str] | None] = [None, None]

    def descriptor(stream: int | IO[Any] | None, number: int) -> int:
        match stream:
            case None:
                return number
            case subprocess.DEVNULL:
                theirs.append(os.open(os.devnull, os.O_RDWR))
            case subprocess.STDOUT:
                return streams[1]
            case subprocess.PIPE:
                read, write = os.pipe()
                theirs.append(write if number else read)
                ours[number] = os.fdopen(read, "r") if number else os.fdopen(write, "w")
            case int():
                return stream
            case _:
                return stream.fileno()
        return theirs[-1]

    streams: list[int] = []
    try:
        for number, stream in enumerate((stdin, stdout, stderr)):
            streams.append(descriptor(stream, number))
        job = {
            "command": list(command),
            "environment": dict(os.environ if env is None else env),
            "directory": str(cwd or Path.cwd()),
            "numbers": [0, 1, 2, *pass_fds],
        }
        helper = the_helper()
        process = Process(helper, helper.ask(job, [*streams, *pass_fds]))
    finally:
        for fd in theirs:
            os.close(fd)
    process.stdin, process.stdout = ours
    return process


def run(
    command: Sequence[str], *, timeout: float, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with its output captured: read from files, whatever amount it is.

    Raises subprocess.TimeoutExpired.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(command, stdout=out, stderr=err, **options)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(command), code, out.read(), err.read())


class Helper:
    """The process that forks, at the other end of a socket."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.fork_helper", str(theirs.fileno())],
                cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def ask(self, question: Mapping[str, Any], fds: Sequence[int] = ()) -> int:
        told = json.dumps(question).encode()
        with self._lock:
            # Some byte has to go with them.
            socket.send_fds(self._socket, [LENGTH.pack(len(told))], fds)
            self._socket.sendall(told)
            answer = read(self._socket, ANSWER.size)
        assert answer, "the helper has ended"
        return int(ANSWER.unpack(answer)[0])

    def end(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def the_helper() -> Helper:
    helper = Helper()
    atexit.register(helper.end)
    return helper
