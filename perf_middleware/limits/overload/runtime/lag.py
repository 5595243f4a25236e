"""By how much the turns of the event loop are late, as a sampler's own sleep tells.

A late sleep alone proves little: one call that blocks, or one collection of garbage, is over when
it is seen.  So a late loop is looked at once more, and the smaller of both counts:

    sleep ... late by 0.4 s, look: the next turn at once      0      it was blocked once
    sleep ... late by 0.4 s, look: the next turn after 0.4 s  0.4    it has more to do than time

A loop may also be kept from its turns by threads that hold the interpreter lock.  Each turn then
waits for it, 5 ms for each of them (`sys.setswitchinterval`), and a request takes many turns: half
a second of latency, and hardly a lag.  So one turn is looked at by itself: what it took on the wall
and not of this thread's processor time, while other threads of this process used theirs.
"""

from __future__ import annotations

from sys import getswitchinterval
from time import process_time_ns, thread_time_ns
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from perf_middleware.clock import Clock

US_PER_S: Final = 1_000_000
# Of a turn that is looked at.  One that does not sleep lets go of the lock for so short a time that
# on some systems nobody takes it.
TURN_US: Final = 1_000
STARVED_SWITCHES: Final = 2  # of one turn, twice in a row: several threads hold the lock in turn
LOOK_AGAIN_US: Final = 20_000  # what held the loop once is over by then


class LoopLag:
    """Measures while somebody awaits `measure`; from `doubted_s` on it looks twice."""

    def __init__(
        self,
        *,
        doubted_s: float,
        clock: Clock,
        thread_ns: Callable[[], int] = thread_time_ns,
        process_ns: Callable[[], int] = process_time_ns,
    ) -> None:
        self._doubted_us = round(doubted_s * US_PER_S)
        self._clock = clock
        self._due_us: int | None = None
        self._newest_us = 0
        self._thread_ns = thread_ns
        self._process_ns = process_ns
        self.is_starved = False
        """Whether other threads kept the loop from its turns when that was looked at last."""

    async def measure(self, sleep_s: float) -> None:
        """Sleep, and know how late that ended."""
        late_us = await self._late_by(anyio.sleep(sleep_s), round(sleep_s * US_PER_S))
        if late_us >= self._doubted_us:
            late_us = min(late_us, await self._late_by(self._look_again(), LOOK_AGAIN_US))
        self._newest_us = late_us
        self.is_starved = await self._is_turn_starved() and await self._is_turn_starved()

    async def _is_turn_starved(self) -> bool:
        began_us, thread_ns, process_ns = self._clock(), self._thread_ns(), self._process_ns()
        await _turn()
        own_ns = self._thread_ns() - thread_ns
        waited_us = self._clock() - began_us - own_ns // 1_000 - TURN_US
        others_us = (self._process_ns() - process_ns - own_ns) // 1_000
        return (
            waited_us >= STARVED_SWITCHES * getswitchinterval() * US_PER_S
            and others_us * 2 >= waited_us
        )

    def read_s(self) -> float:
        """Seconds of the newest measurement, or by which one that goes on is late; any thread."""
        due_us = self._due_us
        overdue_us = 0 if due_us is None else self._clock() - due_us
        return max(self._newest_us, overdue_us) / US_PER_S

    def forget(self) -> None:
        """What was measured so far, and a sleep that has begun, count as nothing."""
        self._due_us = None
        self._newest_us = 0
        self.is_starved = False

    async def _late_by(self, waited: Awaitable[object], waited_us: int) -> int:
        due_us: int | None = self._clock() + waited_us
        self._due_us = due_us
        await waited
        due_us, self._due_us = self._due_us, None
        return 0 if due_us is None else max(0, self._clock() - due_us)

    async def _look_again(self) -> None:
        """Takes LOOK_AGAIN_US on a loop that turns again, and one turn on a loop that is full."""
        until_us = self._clock() + LOOK_AGAIN_US
        await anyio.lowlevel.checkpoint()
        left_us = until_us - self._clock()
        if left_us > 0:
            await anyio.sleep(left_us / US_PER_S)


async def _turn() -> None:
    await anyio.sleep(TURN_US / US_PER_S)
