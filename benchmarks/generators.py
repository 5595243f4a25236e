"""What loads a server: wrk where it is installed, else the client of served.py.

Both are closed loops over keep-alive connections: a server is at its limit, and latencies are
those at the limit.  How an app stands when more comes than it can do says overload.py.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.installed_apps import accepting
from benchmarks.overload import percentile
from benchmarks.runner import CheckError, on_loop
from benchmarks.served import Connection, request_of
from benchmarks.servers import ASKED_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

# Its own report is for people; bytes and errors are read to see that answers were whole.
WRK_SCRIPT: Final = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "bytes": %d, "errors": %d, ' ..
    '"p50_us": %d, "p90_us": %d, "p99_us": %d}\\n',
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who is asked, and what a whole answer's body has."""

    name: str
    port: int
    coding: str
    body_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What one run reached."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


class Generator(Protocol):
    """Loads one server for some seconds."""

    name: str

    def load(self, asked: Asked, *, seconds: int) -> Reached:
        """Raises CheckError for answers that are none."""


@contextmanager
def generator(connections: int) -> Iterator[Generator]:
    """The best that is there."""
    path = shutil.which("wrk")
    if path is None:
        yield OwnClient(connections)
        return
    with tempfile.TemporaryDirectory(prefix="perf-wrk-") as made:
        script = Path(made, "told.lua")
        script.write_text(WRK_SCRIPT)
        yield Wrk(path, script, connections)


class Wrk:
    """wrk in one thread."""

    def __init__(self, path: str, script: Path, connections: int) -> None:
        self.name = f"wrk, one thread, {connections} connections"
        self._command = [path, "-t1", f"-c{connections}", "--timeout=10s", "-s", str(script)]

    def load(self, asked: Asked, *, seconds: int) -> Reached:
        fields = [
            f"-H{name.decode()}: {value.decode()}"
            for name, value in accepting(asked.coding.encode())
            if name != b"host"  # it names the one it asks
        ]
        url = f"http://127.0.0.1:{asked.port}{ASKED_PATH}"
        command = [*self._command, f"-d{seconds}s", *fields, url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not told:
            raise CheckError(f"wrk failed: {done.stderr or done.stdout}")
        return reached(json.loads(told[-1]), asked)


def reached(told: dict[str, int], asked: Asked) -> Reached:
    """What the script of wrk has told.  Raises CheckError for answers that are none."""
    requests = told["requests"]
    if told["errors"] or not requests:
        raise CheckError(f"{asked.name}: {requests} answers, {told['errors']} of them errors")
    if told["bytes"] < requests * asked.body_bytes:
        raise CheckError(f"{asked.name}: answers are shorter than {asked.body_bytes} bytes")
    return Reached(
        requests=requests,
        requests_per_s=requests / (told["duration_us"] / 1_000_000),
        p50_ms=told["p50_us"] / 1000,
        p90_ms=told["p90_us"] / 1000,
        p99_ms=told["p99_us"] / 1000,
    )


class _Timed(Connection):
    """The client of served.py, with the time that each answer took."""

    def __init__(self, request: bytes, body_bytes: int) -> None:
        super().__init__(request, body_bytes)
        self.took_s: list[float] = []
        self._asked_s = 0.0

    def _next(self) -> None:
        now_s = perf_counter()
        if self._asked_s:
            self.took_s.append(now_s - self._asked_s)
        self._asked_s = now_s
        super()._next()


class OwnClient:
    """The client of served.py: Python, so that a server faster than it is not told apart."""

    def __init__(self, connections: int) -> None:
        self.name = f"the client of served.py, {connections} connections (wrk is not installed)"
        self._connections = connections

    def load(self, asked: Asked, *, seconds: int) -> Reached:
        return on_loop("uvloop", self._load(asked, seconds))

    async def _load(self, asked: Asked, seconds: int) -> Reached:
        loop = asyncio.get_running_loop()
        request = request_of(asked.coding)
        connections = []
        for _ in range(self._connections):
            made = _Timed(request, asked.body_bytes)
            await loop.create_connection(lambda made=made: made, "127.0.0.1", asked.port)  # type: ignore[misc]
            connections.append(made)
        began_s = perf_counter()
        until_s = began_s + seconds
        try:
            await asyncio.gather(
                *(each.ask_while(lambda: perf_counter() < until_s) for each in connections)
            )
            lasted_s = perf_counter() - began_s
        finally:
            for each in connections:
                each.close()
        took_ms = sorted(took_s * 1000 for each in connections for took_s in each.took_s)
        return Reached(
            requests=len(took_ms),
            requests_per_s=len(took_ms) / lasted_s,
            p50_ms=percentile(took_ms, 0.5),
            p90_ms=percentile(took_ms, 0.9),
            p99_ms=percentile(took_ms, 0.99),
        )
