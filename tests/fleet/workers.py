"""Workers that share nothing but Redis, and a client that notes what it sees of them.

Each worker is a uvicorn process of its own.  Whatever the client sends is noted with its start and
end on this process's clock: the history that `consistency.judge` looks at.
"""

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest

from tests import forked
from tests.examples.servers import ROOT, ServerProcess
from tests.fleet.consistency import Read, Verdict, Write, expected_after_soft, judge
from tests.fleet.servers import RedisServer

ANSWER_S_MAX = 120.0
COMMAND = ("-m", "uvicorn", "tests.fleet.worker_app:app", "--port", "0",
           "--timeout-keep-alive", "300", "--no-access-log")  # fmt: skip


class LostError(Exception):
    """No answer: the connection ended before it."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_hit(self) -> bool:
        return "; hit" in self.headers.get("cache-status", "")


class Worker:
    """One process at a time, started anew at will; requests to it go over kept connections."""

    def __init__(self, redis: RedisServer, directory: Path, name: str) -> None:
        self.name = name
        self._log = directory / name
        self._env = {
            **{key: value for key, value in os.environ.items()
               if not key.startswith("PERFORMANCE_")},
            "PYTHONUNBUFFERED": "1",
            "PERFORMANCE_REDIS_URL": redis.url,
            "TRUTH_URL": redis.url.removesuffix("/0") + "/1",
        }  # fmt: skip
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._server: ServerProcess | None = None
        self.starts = 0
        self.is_up = False

    def start(self) -> None:
        """Start a process; it is not there before `wait_until_ready`."""
        self.starts += 1
        log = self._log.with_suffix(f".{self.starts}.log")
        with log.open("wb") as output:
            process = forked.start(
                COMMAND, cwd=ROOT, env=self._env, stdout=output, stderr=subprocess.STDOUT
            )
        self._server = ServerProcess(process, log)

    def wait_until_ready(self) -> None:
        assert self._server is not None
        self._server.wait_until_ready(starts=1)
        self.is_up = True

    def log(self) -> str:
        return "" if self._server is None else self._server.log()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; what is on its way to it is lost."""
        self.is_up = False
        if self._server is not None:
            self._server.stop(how)

    def hang_up(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def ask(self, method: str, path: str, **headers: str) -> Answer:
        """Raises LostError where the connection ends before the answer has."""
        assert self._server is not None
        url, starts = urlsplit(self._server.url), self.starts
        lines = [f"{method} {path} HTTP/1.1", "host: fleet.test", "content-length: 0"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                if self._idle:
                    reader, writer = self._idle.pop()
                else:
                    reader, writer = await asyncio.open_connection(url.hostname, url.port)
                try:
                    writer.write("\r\n".join([*lines, "", ""]).encode())
                    answer = await _read_answer(reader)
                except BaseException:
                    writer.close()
                    raise
        except TimeoutError:
            pytest.fail(f"{self.name} hangs: {method} {path}\n{self.log()}")
        except (OSError, EOFError) as error:
            raise LostError(f"{self.name}: {method} {path}: {error!r}") from error
        if self.is_up and starts == self.starts:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return answer

    async def figures(self) -> Counter[str]:
        return Counter(json.loads((await self.ask("GET", "/figures")).body))


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(head[0].split()[1]), headers, body)


@contextmanager
def workers(redis: RedisServer, count: int):
    """That many of them, ready; ended behind the block."""
    with tempfile.TemporaryDirectory() as directory:
        made = [Worker(redis, Path(directory), f"worker{n}") for n in range(count)]
        try:
            for worker in made:
                worker.start()
            for worker in made:
                worker.wait_until_ready()
            yield made
        finally:
            for worker in made:
                worker.stop(signal.SIGKILL)


@dataclass
class History:
    """What was sent and what came of it."""

    writes: list[Write] = field(default_factory=list)
    soft: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """What must not happen: an answer of 5xx, or none from a worker that nobody has ended."""

    def judged(self, *, bound_s: float) -> tuple[Verdict, Verdict]:
        """Of everything that is to be seen by all at once; and of soft purges."""
        soft = judge(*expected_after_soft(self.soft, self.reads, bound_s=bound_s), bound_s=bound_s)
        return judge(self.writes, self.reads, bound_s=bound_s), soft


PLACES = ("/items/{n}", "/items/{n}/words en", "/items/{n}/words de", "/pages/{n}?page=1",
          "/pages/{n}?page=2")  # fmt: skip
PURGED_BY = {
    "tag": PLACES,
    "soft": PLACES,
    "url": ("/items/{n}", "/pages/{n}?page=1"),
    "pattern": ("/items/{n}/words en", "/items/{n}/words de"),
}


class Client:
    """Sends to one worker or another, and notes it."""

    def __init__(self) -> None:
        self.history = History()

    async def read(self, worker: Worker, place: str) -> Read | None:
        path, _, language = place.partition(" ")
        headers = {"accept_language": language} if language else {}
        by, start_s = f"{worker.name}.{worker.starts}", monotonic()
        answer = await self._ask(worker, "GET", path, **headers)
        if answer is None:
            return None
        told = json.loads(answer.body)
        self.history.counts["hits" if answer.is_hit else "misses"] += 1
        read = Read(place, told["version"], start_s, monotonic(), by=by)
        self.history.reads.append(read)
        return read

    async def put(self, worker: Worker, n: int) -> Write:
        writes = self.history.writes
        return await self._write(worker, "PUT", f"/items/{n}", ("/items/{n}",), n, writes)

    async def touch(self, worker: Worker, n: int, by: str) -> Write:
        path, writes = f"/items/{n}/touch?by={by}", self.history.writes
        if by == "soft":
            writes = self.history.soft
        return await self._write(worker, "POST", path, PURGED_BY[by], n, writes)

    async def _write(
        self, worker: Worker, method: str, path: str, places: tuple[str, ...], n: int,
        writes: list[Write],
    ) -> Write:  # fmt: skip
        start_s = monotonic()
        answer = await self._ask(worker, method, path)
        write = Write(
            frozenset(place.format(n=n) for place in places),
            0 if answer is None else json.loads(answer.body)["version"],
            start_s, monotonic(), certain=answer is not None, what=f"{method} {path} {worker.name}",
        )  # fmt: skip
        writes.append(write)
        return write

    async def _ask(self, worker: Worker, method: str, path: str, **headers: str) -> Answer | None:
        starts, history = worker.starts, self.history
        history.counts[method] += 1
        try:
            answer = await worker.ask(method, path, **headers)
        except LostError as error:
            history.counts["lost"] += 1
            if worker.is_up and worker.starts == starts:
                history.faults.append(str(error))
            return None
        if answer.status != 200:
            history.faults.append(f"{worker.name}: {method} {path}: {answer.status}")
            return None
        return answer


@asynccontextmanager
async def hung_up(running: list[Worker]):
    """No connection outlives the event loop of the block."""
    try:
        yield
    finally:
        for worker in running:
            worker.hang_up()
