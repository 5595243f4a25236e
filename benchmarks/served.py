"""Requests per second over uvicorn on loopback: apps in processes of their own, loaded in turns.

    this process                                    one uvicorn process for each app
    a few keep-alive connections, each with     ->  one worker; only one of them has work at a time
    its next request when the answer is whole

The client is as small as it can be, so that the server is what is saturated.  As in runner.py the
rounds are short and interleaved, and what is compared is compared within a round.

    python -m benchmarks.served raw             # serve one of the apps, its port on standard output
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import psutil
import uvicorn

from benchmarks.cache_apps import (
    PATH,
    PREBUILT,
    Calls,
    Replay,
    app_of,
    fastapi_layers,
    hand_written,
    hand_written_around,
    ours,
    ours_around,
    ours_in_front,
    ours_in_starlette,
    ours_without_telemetry,
)
from benchmarks.figures import Spread, spread
from benchmarks.installed_apps import accepting
from benchmarks.layers import LARGE_BYTES
from benchmarks.runner import CheckError, on_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.cache_apps import Route
    from benchmarks.runner import LoopName
    from perf_middleware.asgi import ASGIApp

RAW = "raw"
CONNECTIONS = 8  # enough that the server never waits for the client
SETTLE_SHARE = 10  # of each round's requests one in so many runs untimed first
START_S = 30.0
KEPT_ALIVE_S = 600  # a connection has no work while the other servers have theirs
ROOT: Final = Path(__file__).parents[1]
READ_BYTES_MAX = 1 << 18
HEAD_END: Final = b"\r\n\r\n"


def _raw(route: Route, calls: Calls) -> ASGIApp:
    return Replay(ours(route, calls))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One app to serve; a `hit` names the age of its answer, and nothing else does."""

    name: str
    build: Callable[[Route, Calls], ASGIApp]
    hit: bool = True


SERVERS: Final[Mapping[str, Server]] = {
    RAW: Server(name="raw ASGI callable, same bytes", build=_raw),
    "layers": Server(name="FastAPI's own layers around it", build=fastapi_layers),
    "minimum": Server(name="hand-written minimum: hit", build=hand_written),
    "minimum-around": Server(
        name="hand-written minimum around FastAPI: hit", build=hand_written_around
    ),
    "ours": Server(name="perf_middleware: hit", build=ours),
    "ours-in-front": Server(name='perf_middleware, position "outer": hit', build=ours_in_front),
    "ours-around": Server(name="perf_middleware around FastAPI: hit", build=ours_around),
    "ours-without-telemetry": Server(
        name="perf_middleware, FastAPI's telemetry off: hit", build=ours_without_telemetry
    ),
    "ours-in-starlette": Server(name="perf_middleware in Starlette: hit", build=ours_in_starlette),
    "bare": Server(name="bare app", build=app_of, hit=False),
}
OURS = ("ours", "ours-in-front", "ours-around", "ours-without-telemetry", "ours-in-starlette")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is asked: requests of each round and app, over so many connections."""

    rounds: int = 15
    requests: int = 4000
    connections: int = CONNECTIONS
    seed: int = 1
    loop: LoopName = "uvloop"

    def __post_init__(self) -> None:
        if min(self.rounds, self.requests, self.connections) < 1:
            raise ValueError(f"rounds, requests and connections must be positive: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What one app reached; `of_raw` is its requests per second as a share of the raw callable's.

    `server_us` is the CPU time of its process per request, over all rounds.
    """

    key: str
    name: str
    requests_per_s: Spread
    of_raw: float
    server_us: float


def measured(keys: Sequence[str], load: Load) -> list[Served]:
    """Load these servers in turns, `raw` among them.

    Raises CheckError for one that answers wrongly or is no hit.
    """
    with ExitStack() as running:
        started = [running.enter_context(_starting(key, load.loop)) for key in keys]
        ports = {key: _port_of(server) for key, server in zip(keys, started, strict=True)}
        for key, port in ports.items():
            check(SERVERS[key], port)
        before = [_cpu_s(server) for server in started]
        rates = on_loop(load.loop, _rates(ports, load))
        spent = [_cpu_s(server) - s for server, s in zip(started, before, strict=True)]
    sent = load.rounds * (load.requests + _settle(load))
    return [
        Served(
            key=key,
            name=SERVERS[key].name,
            requests_per_s=spread(rates[key]),
            of_raw=median(rate / raw for rate, raw in zip(rates[key], rates[RAW], strict=True)),
            server_us=cpu_s / sent * 1_000_000,
        )
        for key, cpu_s in zip(keys, spent, strict=True)
    ]


def table(served: Sequence[Served], load: Load) -> str:
    """The figures as Markdown."""
    asked = f"{load.rounds} rounds x {load.requests} requests, {load.connections} connections"
    lines = [
        f"### Over uvicorn ({load.loop}, httptools, one worker): {asked}",
        "",
        "| | requests/s | quartiles | x raw | server us/request |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in served:
        rate = row.requests_per_s
        lines.append(
            f"| {row.name} | {rate.median:,.0f} | {rate.low:,.0f} .. {rate.high:,.0f} "
            f"| {row.of_raw:.3f} | {row.server_us:.1f} |"
        )
    return "\n".join(lines)


# --- the client ---------------------------------------------------------------------------------


def request_of(coding: str = "identity") -> bytes:
    """What a client sends that takes this coding."""
    fields = b"".join(b"%s: %s\r\n" % field for field in accepting(coding.encode()))
    return b"GET %s HTTP/1.1\r\n%s\r\n" % (PATH.replace("{item}", "17").encode(), fields)


class Connection(asyncio.BufferedProtocol):
    """One keep-alive connection that asks again when the answer is whole.

    It reads into one buffer, over and over: the client must cost less than the server.  Every
    answer must be a 200; the length of its body is that of the route's, which was checked.
    """

    def __init__(self, request: bytes | None = None, body_bytes: int = len(LARGE_BYTES)) -> None:
        self._request = request_of() if request is None else request
        self._body_bytes = body_bytes
        self._transport: Any = None
        self._take: Callable[[], bool] = lambda: False
        self._buffer = bytearray(READ_BYTES_MAX)
        self._view = memoryview(self._buffer)
        self._read = 0  # bytes of the answer, until its head is whole
        self._missing = -1  # bytes of the answer; -1 while the head is not whole
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask_while(self, take: Callable[[], bool]) -> asyncio.Future[None]:
        """Ask as long as `take` gives requests; done when the last is answered."""
        self._take = take
        self._done = asyncio.get_running_loop().create_future()
        self._next()
        return self._done

    def _next(self) -> None:
        self._read, self._missing = 0, -1
        if self._take():
            self._transport.write(self._request)
        elif self._done is not None:
            self._done.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._read :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing < 0:
            self._read += nbytes
            end = self._buffer.find(HEAD_END, 0, self._read)
            if end < 0:
                return
            if not self._buffer.startswith(b"HTTP/1.1 200 "):
                self._fail(f"answered {bytes(self._view[:100])!r}")
                return
            self._missing = end + len(HEAD_END) + self._body_bytes - self._read
            self._read = 0
        else:
            self._missing -= nbytes
        if self._missing == 0:
            self._next()
        elif self._missing < 0:
            self._fail("sent more than the answer")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"closed the connection ({exc})")

    def _fail(self, how: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(CheckError(f"the server {how}"))

    def close(self) -> None:
        self._transport.close()


async def _rates(ports: Mapping[str, int], load: Load) -> dict[str, list[float]]:
    loop = asyncio.get_running_loop()
    connections = {
        name: [
            (await loop.create_connection(Connection, "127.0.0.1", port))[1]
            for _ in range(load.connections)
        ]
        for name, port in ports.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in ports}
    order = list(ports)
    shuffle = random.Random(load.seed).shuffle
    try:
        for _ in range(load.rounds):
            shuffle(order)
            for name in order:
                await _ask(connections[name], _settle(load))
                seconds = await _ask(connections[name], load.requests)
                rates[name].append(load.requests / seconds)
    finally:
        for opened in connections.values():
            for connection in opened:
                connection.close()
    return rates


def _settle(load: Load) -> int:
    return max(1, load.requests // SETTLE_SHARE)


async def _ask(connections: Sequence[Connection], requests: int) -> float:
    """Seconds for so many requests over these connections."""
    left = requests

    def take() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    began_s = perf_counter()
    await asyncio.gather(*(connection.ask_while(take) for connection in connections))
    return perf_counter() - began_s


def check(server: Server, port: int) -> None:
    """Two answers: the body must be the route's, and the second of a cache must have an age."""
    name = server.name
    head = b""
    with socket.create_connection(("127.0.0.1", port), timeout=START_S) as connection:
        for _ in range(2):
            connection.sendall(request_of())
            answer = b""
            while len(answer.partition(HEAD_END)[2]) < len(LARGE_BYTES):
                received = connection.recv(1 << 16)
                if not received:
                    raise CheckError(f"{name}: closed the connection after {answer[:200]!r}")
                answer += received
            head, _, body = answer.partition(HEAD_END)
            if not head.startswith(b"HTTP/1.1 200 ") or body != LARGE_BYTES:
                raise CheckError(f"{name}: answered {answer[:200]!r}")
    if (b"\r\nage: " in head.lower()) != server.hit:
        raise CheckError(f"{name}: is {'no' if server.hit else 'a'} hit: {head!r}")


# --- the servers --------------------------------------------------------------------------------


@contextmanager
def _starting(key: str, loop: LoopName) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.served", key, "--loop", loop]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.terminate()


def _port_of(server: subprocess.Popen[str]) -> int:
    line = server.stdout.readline() if server.stdout else ""
    if not line.strip().isdigit():
        raise CheckError(f"a server did not start: {server.args!r} said {line!r}")
    return int(line)


def _cpu_s(server: subprocess.Popen[str]) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system


def main() -> None:
    """Serve one app on a free port of loopback, and tell that."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("app", choices=list(SERVERS))
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    options = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        SERVERS[options.app].build(PREBUILT, Calls()),
        loop=options.loop,
        http="httptools",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEPT_ALIVE_S,
    )
    print(listening.getsockname()[1], flush=True)  # it listens: who connects now will be served
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
