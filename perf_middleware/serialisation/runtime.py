"""Streams items as JSON while they come, no faster than the client takes them.

    source --> Gatherer --> Outlet --> client       a slow client holds the outlet, that the source
       ^                                |
       `-- closed when it is done, when it fails, when the client is gone

The source is iterated by the task of the request, or by one thread of its batches at a time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from anyio.abc import TaskGroup

    from perf_middleware.asgi import Message, RawHeaders, Receive, Send
    from perf_middleware.serialisation.pieces import Gatherer

CLOSE_S: Final = 5.0  # what a source may wait for at its end once its client is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much is gathered before it is sent, and for how long."""

    piece_bytes: int
    piece_wait_s: float

    def __post_init__(self) -> None:
        if self.piece_bytes < 1 or not self.piece_wait_s > 0:
            raise ValueError(f"piece_bytes and piece_wait_s must be positive: {self}")


class Outlet:
    """The way out of one response: pieces in their order, the head before the first of them.

    Raises Starlette's ClientDisconnect where the server tells by `send` that the client is gone.
    """

    def __init__(self, send: Send, *, status: int, headers: RawHeaders) -> None:
        self._send = send
        self._status = status
        self._headers = list(headers)
        self._is_started = False
        # Taking it lets others run each time, also where source and server never wait.
        self._turn = anyio.Lock(fast_acquire=False)

    async def pass_on(self, gatherer: Gatherer) -> None:
        """Send what has been gathered, when it is its turn."""
        async with self._turn:
            if gatherer.size:
                await self._start()
                await self._tell(
                    {"type": "http.response.body", "body": gatherer.take(), "more_body": True}
                )

    async def end(self, gatherer: Gatherer) -> None:
        """Send the rest.  A text that is all in it goes out as an ordinary response."""
        async with self._turn:
            rest = gatherer.end()
            if not self._is_started and not any(
                name == b"content-length" for name, _ in self._headers
            ):
                self._headers.append((b"content-length", b"%d" % len(rest)))
            await self._start()
            await self._tell({"type": "http.response.body", "body": rest})

    async def end_without_body(self) -> None:
        """The answer to HEAD."""
        await self._start()
        await self._tell({"type": "http.response.body", "body": b""})

    async def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            await self._tell(
                {"type": "http.response.start", "status": self._status, "headers": self._headers}
            )

    async def _tell(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # ASGI 2.4: the client is gone
            raise ClientDisconnect from None


async def stream(
    source: AsyncIterable[Any] | Iterable[Any],
    gatherer: Gatherer,
    outlet: Outlet,
    receive: Receive,
    pace: Pace,
) -> None:
    """Send all items; return early when the client is gone.  The source is closed in any case.

    What the source raises is raised.
    """
    async with _tasks() as tasks:
        tasks.start_soon(_cancel_when_gone, receive, tasks)
        if isinstance(source, AsyncIterable):
            await _stream_async(source, gatherer, outlet, pace, tasks)
        else:
            await _stream_in_batches(source, gatherer, outlet, pace)
        tasks.cancel_scope.cancel()


async def close(source: object) -> None:
    """Close a generator that is not iterated to its end; anything else belongs to the app."""
    with anyio.move_on_after(CLOSE_S, shield=True):
        match source:
            case AsyncGenerator():
                await source.aclose()
            case Generator():
                await anyio.to_thread.run_sync(source.close)


async def _stream_async(
    source: AsyncIterable[Any], gatherer: Gatherer, outlet: Outlet, pace: Pace, tasks: TaskGroup
) -> None:
    waiting = _Waiting()
    tasks.start_soon(_send_what_waits, waiting, gatherer, outlet, pace)
    items = aiter(source)
    try:
        async for item in items:
            size = gatherer.add(item)
            now_s = monotonic()
            if size >= pace.piece_bytes or now_s >= waiting.begin(now_s) + pace.piece_wait_s:
                waiting.end()
                await outlet.pass_on(gatherer)
        await outlet.end(gatherer)
    finally:
        await close(items)


class _Waiting:
    """Since when the oldest item waits that was not sent."""

    def __init__(self) -> None:
        self.since_s: float | None = None
        self.begun = anyio.Event()

    def begin(self, now_s: float) -> float:
        if self.since_s is None:
            self.since_s = now_s
            self.begun.set()
        return self.since_s

    def end(self) -> None:
        if self.since_s is not None:
            self.since_s = None
            self.begun = anyio.Event()


async def _send_what_waits(
    waiting: _Waiting, gatherer: Gatherer, outlet: Outlet, pace: Pace
) -> None:
    """Send a piece that is not full when its first item has waited, whatever the source does."""
    while True:
        since_s = waiting.since_s
        if since_s is None:
            await waiting.begun.wait()
        elif (left_s := since_s + pace.piece_wait_s - monotonic()) > 0:
            await anyio.sleep(left_s)
        else:
            waiting.end()
            await outlet.pass_on(gatherer)


async def _stream_in_batches(
    source: Iterable[Any], gatherer: Gatherer, outlet: Outlet, pace: Pace
) -> None:
    items = await anyio.to_thread.run_sync(iter, source)
    try:
        while await anyio.to_thread.run_sync(_gather, items, gatherer, pace):
            await outlet.pass_on(gatherer)
        await outlet.end(gatherer)
    finally:
        await close(items)


def _gather(items: Iterator[Any], gatherer: Gatherer, pace: Pace) -> bool:
    """Gather one piece; False when there are no more items."""
    until_s = monotonic() + pace.piece_wait_s
    for item in items:
        size = gatherer.add(item)
        if size >= pace.piece_bytes or monotonic() >= until_s:
            return True
    return False


async def _cancel_when_gone(receive: Receive, tasks: TaskGroup) -> None:
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass
    tasks.cancel_scope.cancel()


@asynccontextmanager
async def _tasks() -> AsyncIterator[TaskGroup]:
    """A task group that raises a single error as it was: the app's handlers are for that."""
    error: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        error = group.exceptions[0] if len(group.exceptions) == 1 else group
    if error is not None:
        raise error
