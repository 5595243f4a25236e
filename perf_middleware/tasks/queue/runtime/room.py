"""Those who wait for room in a full queue, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

US_PER_S: Final = 1_000_000


class Room:
    """Callers that wait; as many as are let in try again, the others go on waiting."""

    def __init__(self, waiting_max: int) -> None:
        # Thousands may leave at once, in any order: each in O(1).
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._let_in: set[asyncio.Future[None]] = set()
        self._waiting_max = waiting_max

    def __len__(self) -> int:
        """Who waits, or was let in and has not gone on yet: others come after them."""
        return len(self._waiting) + len(self._let_in)

    @property
    def is_full(self) -> bool:
        """Whether as many wait as may."""
        return len(self._waiting) >= self._waiting_max

    async def wait(self, until_s: float, *, is_first: bool) -> bool:
        """Whether there may be room now; False where there was none until then, on the loop's
        clock.

        `is_first`: it was let in before, and somebody else was quicker.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        if is_first:
            self._waiting.move_to_end(waiter, last=False)
        try:
            async with asyncio.timeout_at(until_s):
                await waiter
        except TimeoutError:
            return waiter.done() and not waiter.cancelled()  # its turn came in the same moment
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.let_in()  # it was its turn: now it is the next one's
            raise
        finally:
            self._let_in.discard(waiter)
            if not waiter.done() or waiter.cancelled():
                self._waiting.pop(waiter, None)
        return True

    def let_in(self) -> None:
        """There is room for one more."""
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(None)
                self._let_in.add(waiter)
                return

    def forget_others(self, loop: asyncio.AbstractEventLoop) -> None:
        """The queue opens on `loop`: who waited on another one, which is over, does so no more."""
        for waiter in [waiter for waiter in self._waiting if waiter.get_loop() is not loop]:
            del self._waiting[waiter]
        self._let_in = {waiter for waiter in self._let_in if waiter.get_loop() is loop}

    def let_all_in(self) -> None:
        """Whoever waits tries again: to hear that the queue is closed."""
        for _ in range(len(self._waiting)):
            self.let_in()
