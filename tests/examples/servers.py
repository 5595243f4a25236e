"""Servers in processes of their own: the real thing, from the first log line to the last signal.

`serving(command)` starts one, waits until its log says that it is ready, and ends it: SIGTERM, then
SIGKILL after a deadline.  Only the process that it started is ever sent a signal.  `is_forked` says
that the start itself is not looked at: then it is a fork of one that has the libraries imported.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests import forked

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
# Who waits for them has failed already: ten times what a busy machine takes.
START_S_MAX = 150.0
STOP_S_MAX = 60.0
EVENTUALLY_S_MAX = 60.0
LOOK_EVERY_S = 0.02

READY = re.compile(r"Application startup complete")
ADDRESS = re.compile(r"https?://[\w.]+:[1-9]\d*")


def eventually(look: Callable[[], T], *, what: str, within_s: float = EVENTUALLY_S_MAX) -> T:
    """What `look()` says as soon as it is truthy; AssertionError after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(LOOK_EVERY_S)


class ServerProcess:
    """A running server: where it answers, what it logs, how it ends."""

    def __init__(self, process: forked.Process | subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.url = ""

    def log(self) -> str:
        """All that it has written so far, both streams."""
        return self._log.read_text(errors="replace")

    def wait_until_ready(self, *, starts: int, within_s: float = START_S_MAX) -> None:
        """Wait until `starts` processes of it have started up; its address is known then."""

        def ready() -> bool:
            if self._process.poll() is not None:
                raise AssertionError(f"ended with {self._process.returncode}:\n{self.log()}")
            return len(READY.findall(self.log())) >= starts and bool(ADDRESS.search(self.log()))

        eventually(ready, what="the server is ready", within_s=within_s)
        address = ADDRESS.search(self.log())
        assert address is not None
        self.url = address[0]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code; killed where it does not end in time, which -9 tells."""
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()


@contextmanager
def serving(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    starts: int = 1,
    is_forked: bool = False,
    starts_within_s: float = START_S_MAX,
) -> Iterator[ServerProcess]:
    """Run `command` (arguments for this Python) and end it after the block.

    Nothing of the caller's own settings reaches it: `env` alone adds to a clean environment.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PERFORMANCE_", "EXAMPLE_"))
    }
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "log")
        with log.open("wb") as output:
            process = (forked.start if is_forked else forked.start_anew)(
                command, cwd=ROOT, env={**inherited, "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        server = ServerProcess(process, log)
        try:
            server.wait_until_ready(starts=starts, within_s=starts_within_s)
            yield server
        finally:
            server.stop()


@contextmanager
def serving_app(
    app: str, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run the ASGI app `module:name` under uvicorn on a free port, in a fork."""
    command = ["-m", "uvicorn", app, "--port", "0", *options]
    with serving(command, env=env, is_forked=True) as server:
        yield server
