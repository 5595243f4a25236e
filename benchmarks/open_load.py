"""An open-model load generator: requests are sent when they are due, whatever became of the others.

    due      |  |  |  |  |  |  |  |        clients do not wait for each other: a slow server gets
    sent     |  |  |  |  |  |  |  |        more connections, not fewer requests
    answered    |     |        x  |        latency counts from when a request was due

A closed loop (so many workers, each with its next request when the last is answered) slows down
with the server and hides its queue: coordinated omission.  Here a client that has no answer after
`patience_s` gives up and closes its connection, as people and proxies do.

Source: Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale" (NSDI 2006).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import perf_counter
from typing import Final

CONNECTIONS_MAX: Final = 4_000
HEAD_END: Final = b"\r\n\r\n"
GAVE_UP: Final = -1  # as a status: the client's patience was at its end
BROKEN: Final = -2  # the connection was refused or cut
NOT_SENT: Final = -3  # more connections than CONNECTIONS_MAX would have been open


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: when it was due, seconds from the start; until its end; its status."""

    due_s: float
    took_s: float
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """So many requests per second for so long; arrivals are Poisson, from the seed."""

    rate_per_s: float
    seconds: float
    path: str
    seed: int = 1


class _Connection(asyncio.Protocol):
    """One keep-alive connection, with one request at a time."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._answer = b""
        self.due_s = 0.0
        self.is_asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def ask(self, due_s: float) -> None:
        assert self._transport is not None
        self.due_s = due_s
        self.is_asking = True
        self._answer = b""
        self._transport.write(self._load.request)

    def give_up(self) -> None:
        self._end(GAVE_UP)
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        answer = self._answer = self._answer + data
        end = answer.find(HEAD_END)
        if end < 0:
            return
        head = answer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(answer) - end - len(HEAD_END) < length:
            return
        closes = b"connection: close" in head
        self._end(int(answer[9:12]))
        if closes and self._transport is not None:
            self._transport.close()
        elif self._transport is not None and not self._transport.is_closing():
            self._load.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(BROKEN)
        self._transport = None
        self._load.lost(self)

    def _end(self, status: int) -> None:
        if self.is_asking:
            self.is_asking = False
            self._load.note(self, status)


class _Load:
    """The connections and the results of one phase."""

    def __init__(self, port: int, phase: Phase, patience_s: float) -> None:
        self.request = (
            f"GET {phase.path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n\r\n".encode()
        )
        self.free: list[_Connection] = []
        self.sent: list[Sent] = []
        self._port = port
        self._phase = phase
        self._patience_s = patience_s
        self._asking: dict[_Connection, None] = {}
        self._open = 0
        self._started = 0.0
        self._opening: set[asyncio.Task[None]] = set()

    def note(self, connection: _Connection, status: int) -> None:
        self._asking.pop(connection, None)
        took_s = perf_counter() - self._started - connection.due_s
        self.sent.append(Sent(connection.due_s, took_s, status))

    def lost(self, connection: _Connection) -> None:
        self._open -= 1
        if connection in self.free:
            self.free.remove(connection)

    async def run(self) -> list[Sent]:
        loop = asyncio.get_running_loop()
        rng = random.Random(self._phase.seed)
        self._started = perf_counter()
        due_s = 0.0
        while due_s < self._phase.seconds:
            now_s = perf_counter() - self._started
            if due_s > now_s:
                await asyncio.sleep(min(due_s - now_s, 0.01))
                self._lose_patience()
                continue
            self._send(due_s, loop)
            due_s += rng.expovariate(self._phase.rate_per_s)
        while self._asking or self._opening:
            await asyncio.sleep(0.01)
            self._lose_patience()
        for connection in list(self.free):
            if connection._transport is not None:  # noqa: SLF001
                connection._transport.abort()  # noqa: SLF001
        await asyncio.sleep(0.05)
        return self.sent

    def _send(self, due_s: float, loop: asyncio.AbstractEventLoop) -> None:
        if self.free:
            connection = self.free.pop()
            self._asking[connection] = None
            connection.ask(due_s)
        elif self._open >= CONNECTIONS_MAX:
            self.sent.append(Sent(due_s, 0.0, NOT_SENT))
        else:
            self._open += 1
            task = loop.create_task(self._connect(due_s, loop))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self, due_s: float, loop: asyncio.AbstractEventLoop) -> None:
        connection = _Connection(self)
        connection.due_s = due_s
        try:
            async with asyncio.timeout(self._patience_s):
                await loop.create_connection(lambda: connection, "127.0.0.1", self._port)
        except (OSError, TimeoutError) as exc:
            self._open -= 1
            self.note(connection, GAVE_UP if isinstance(exc, TimeoutError) else BROKEN)
            return
        self._asking[connection] = None
        connection.ask(due_s)

    def _lose_patience(self) -> None:
        now_s = perf_counter() - self._started
        for connection in list(self._asking):
            if now_s - connection.due_s < self._patience_s:
                break  # in the order in which they were asked
            connection.give_up()


async def run(port: int, phase: Phase, *, patience_s: float = 2.0) -> list[Sent]:
    """What became of the requests of one phase, in the order of their ends."""
    return await _Load(port, phase, patience_s).run()


async def capacity_per_s(port: int, path: str, *, workers: int, seconds: float) -> float:
    """Answers per second that a closed loop of `workers` gets: the most that the server can do."""
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
    until = perf_counter() + seconds
    done = 0

    async def work() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while perf_counter() < until:
            writer.write(request)
            head = await reader.readuntil(HEAD_END)
            at = head.lower().find(b"content-length:")
            await reader.readexactly(int(head[at + 15 :].split(b"\r\n", 1)[0]))
            done += head[9:12] == b"200"
        writer.close()

    started = perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return done / (perf_counter() - started)
