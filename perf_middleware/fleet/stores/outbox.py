"""What is to be told to the shared store soon: one thing after the other, nobody waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

QUEUED_MAX: Final = 1_000


class Outbox:
    """At most QUEUED_MAX things, of `bytes_max` bytes together; what is too much is dropped."""

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._queue: deque[tuple[int, Callable[[], Awaitable[object]]]] = deque()
        self._bytes = 0
        self._filled: asyncio.Event | None = None
        self._emptied: asyncio.Event | None = None
        self.refused = 0
        """By the store: it is full, or takes no writes."""
        self.dropped = 0
        """For want of room here, or because the store was away."""

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, do: Callable[[], Awaitable[object]], *, size_bytes: int = 0) -> bool:
        """Do it soon; False where there is no room."""
        if len(self._queue) >= QUEUED_MAX or self._bytes + size_bytes > self._bytes_max:
            self.dropped += 1
            return False
        self._queue.append((size_bytes, do))
        self._bytes += size_bytes
        if self._filled is not None:
            self._filled.set()
        return True

    async def run(self) -> None:
        """Do what comes, in its order, until cancelled."""
        filled = self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        while True:
            while self._queue:
                size_bytes, do = self._queue[0]
                try:
                    await do()
                except StoreRefusedError:
                    self.refused += 1
                except StoreUnavailableError:
                    self.dropped += 1
                finally:
                    self._queue.popleft()
                    self._bytes -= size_bytes
            self._emptied.set()
            filled.clear()
            await filled.wait()
            self._emptied.clear()

    async def emptied(self) -> None:
        """Wait until all that is in here now is done."""
        while self._queue:
            if self._emptied is None:
                await asyncio.sleep(0)
            else:
                self._emptied.clear()
                await self._emptied.wait()
