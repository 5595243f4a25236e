"""Requests to any of several workers behind one port, each on a connection of a known worker.

Workers share a listening socket: which of them takes a connection is the kernel's choice.  Every
answer names its worker, so a connection belongs to one from its first answer on; for a request a
worker is drawn first, then one of its connections.  New ones are opened until all are known.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

ANSWER_S_MAX = 30.0
IDLE_MAX = 16  # of each worker
AT_ONCE_MAX = 6  # of each worker: one that has stopped holds no more of the clients than that


def now_us() -> int:
    return monotonic_ns() // 1_000


class LostError(Exception):
    """The connection ended before the answer had."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    begun_us: int
    ended_us: int

    @property
    def worker(self) -> int:
        return int(self.headers["x-worker"])

    @property
    def is_hit(self) -> bool:
        return "; hit" in self.headers.get("cache-status", "")


class Hits(NamedTuple):
    """Of one worker so far: answers from the store, those of them from Redis, queries."""

    answers: int
    from_redis: int
    queries: int


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Connections to the workers of one port, by worker."""

    def __init__(self, port: int, draw: random.Random) -> None:
        self._port = port
        self._draw = draw
        self._idle: defaultdict[int, list[Connection]] = defaultdict(list)
        self._at_once: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.hits: dict[int, Hits] = {}
        """What each worker's caches said last."""
        self.gone: set[int] = set()
        self.held: set[int] = set()
        """Those that are asked by name only."""

    @property
    def workers(self) -> list[int]:
        """Those that have a connection now."""
        return [worker for worker, idle in self._idle.items() if idle]

    def forget(self, worker: int) -> None:
        """It has been killed."""
        self.gone.add(worker)
        for _, writer in self._idle.pop(worker, []):
            writer.close()

    def close(self) -> None:
        for worker in list(self._idle):
            self.forget(worker)

    async def ask(
        self, method: str, path: str, headers: Iterable[str] = (), *, worker: int | None = None
    ) -> Answer:
        """An answer of `worker`, or of one that is drawn.  Raises LostError."""
        free = [
            one for one in self.workers if one not in self.held and self._at_once[one] < AT_ONCE_MAX
        ]
        if worker is None and free:
            worker = self._draw.choice(free)
        idle = self._idle.get(worker, [])
        if idle:
            assert worker is not None
            self._at_once[worker] += 1
            try:
                return await self._exchange(idle.pop(), method, path, headers)
            finally:
                self._at_once[worker] -= 1
        return await self._exchange(None, method, path, headers)

    async def meet(self) -> Answer:
        """Open a connection to whichever worker takes it."""
        return await self._exchange(None, "GET", "/hello", ())

    async def _exchange(
        self, connection: Connection | None, method: str, path: str, headers: Iterable[str]
    ) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "host: linear.test", "content-length: 0", *headers]
        said = "\r\n".join([*lines, "", ""]).encode()
        begun_us = now_us()
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = connection
                writer.write(said)
                status, fields, body = await _read(reader)
        except (OSError, EOFError, TimeoutError) as error:
            if writer is not None:
                writer.close()
            raise LostError(f"{method} {path}: {error!r}") from error
        except BaseException:
            if writer is not None:
                writer.close()
            raise
        answer = Answer(status, fields, body, begun_us, now_us())
        self._keep(connection, answer)
        return answer

    def _keep(self, connection: Connection, answer: Answer) -> None:
        worker = answer.worker
        hits = Hits(*map(int, answer.headers["x-hits"].split()))
        self.hits[worker] = max(self.hits.get(worker, hits), hits)
        self.answered[worker] += 1
        if worker in self.gone or len(self._idle[worker]) >= IDLE_MAX:
            connection[1].close()
        else:
            self._idle[worker].append(connection)


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(fields["content-length"]))
    return int(head[0].split()[1]), fields, body
