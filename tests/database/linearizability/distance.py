"""Redis from near and far: what it says takes a while, to one worker longer than to another.

On one machine a purge is everywhere within a millisecond, and a cache that does not wait for it is
wrong too seldom to be caught.  And the way of one worker can be cut: then it hears nothing, and has
to know that by itself.  This runs in a thread: the workers need it from their start.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DELAYS_S = (0.0, 0.002, 0.008, 0.02)  # of connections, one after the other
OPEN_S_MAX = 10.0


class _Answers(asyncio.Protocol):
    """What the server says, passed on `delay_s` later and in its order."""

    def __init__(self, client: asyncio.Transport, delay_s: float, *, is_cut: bool) -> None:
        self._client = client
        self._delay_s = delay_s
        self._waiting: deque[bytes] = deque()
        self._due = 0
        self.is_cut = is_cut
        self.port: int = client.get_extra_info("peername")[1]

    def data_received(self, data: bytes) -> None:
        self._waiting.append(data)
        asyncio.get_running_loop().call_later(self._delay_s, self._pass_on)

    def mend(self) -> None:
        self.is_cut = False
        while self._due:
            self._due -= 1
            self._client.write(self._waiting.popleft())

    def _pass_on(self) -> None:
        if self.is_cut:
            self._due += 1
        else:
            self._client.write(self._waiting.popleft())

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.abort()


class _Questions(asyncio.Protocol):
    """What one client says, passed on at once."""

    def __init__(self, upstream: int, make: Callable[[asyncio.Transport], _Answers]) -> None:
        self._upstream = upstream
        self._make = make
        self._early: list[bytes] = []
        self._server: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._client = transport
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            server, _ = await asyncio.get_running_loop().create_connection(
                lambda: self._make(self._client), "127.0.0.1", self._upstream
            )
        except OSError:
            self._client.abort()
            return
        self._server = server
        server.writelines(self._early)
        if self._client.is_closing():
            server.abort()

    def data_received(self, data: bytes) -> None:
        if self._server is None:
            self._early.append(data)
        else:
            self._server.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._server is not None:
            self._server.abort()


class Distance:
    """The way to Redis; `port` is where it begins."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._delays = itertools.cycle(DELAYS_S)
        self._ways: weakref.WeakSet[_Answers] = weakref.WeakSet()
        self._is_open = threading.Event()
        self._is_over = threading.Event()
        self._is_cut = False
        self.port = 0

    def cut(self, ports: set[int]) -> None:
        """Whoever asks from these ports hears nothing more, nor who comes anew, until `mend`."""
        self._loop.call_soon_threadsafe(self._cut, ports)

    def mend(self) -> None:
        """All that was said meanwhile is heard."""
        self._loop.call_soon_threadsafe(self._mend)

    def end(self) -> None:
        self._is_over.set()

    def run(self) -> None:
        """To be run in a thread."""
        asyncio.run(self._serve())

    def wait_until_open(self) -> None:
        assert self._is_open.wait(OPEN_S_MAX)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await self._loop.create_server(
            lambda: _Questions(self._upstream, self._way), "127.0.0.1", 0
        )
        self.port = server.sockets[0].getsockname()[1]
        self._is_open.set()
        await asyncio.to_thread(self._is_over.wait)
        server.close()

    def _way(self, client: asyncio.Transport) -> _Answers:
        way = _Answers(client, next(self._delays), is_cut=self._is_cut)
        self._ways.add(way)
        return way

    def _cut(self, ports: set[int]) -> None:
        self._is_cut = True
        for way in self._ways:
            way.is_cut = way.port in ports

    def _mend(self) -> None:
        self._is_cut = False
        for way in self._ways:
            way.mend()


@contextmanager
def from_near_and_far(upstream: int) -> Iterator[Distance]:
    """A way to the Redis on port `upstream`."""
    distance = Distance(upstream)
    thread = threading.Thread(target=distance.run, name="distance")
    thread.start()
    try:
        distance.wait_until_open()
        yield distance
    finally:
        distance.end()
        thread.join()
