"""The line before a pool: who is judged late leaves it at once, on arrival or while it waits.

What a request may expect changes while it waits: loans that last longer than they did, others that
leave.  So the line is judged at each arrival, and every LOOK_S while anybody in it has a deadline.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.holding.admission import (
    Kind,
    Lengths,
    Running,
    Waiter,
    judge_line,
    retry_after_s,
    shortest_us,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock

LOOK_S: Final = 0.02
US_PER_S: Final = 1_000_000


class Place:
    """The place in line of one who waits: until `until_us` of its clock, None without a deadline.

    `is_late`: it was judged so.
    """

    __slots__ = ("alarm", "is_late", "kind", "until_us")

    def __init__(self, kind: Kind, until_us: int | None) -> None:
        self.kind = kind
        self.until_us = until_us
        self.is_late = False
        self.alarm: asyncio.Timeout | None = None


class WaitingLine:
    """Who waits for a pool of asyncio; `running` and `connections` are asked about it."""

    def __init__(
        self,
        *,
        running: Callable[[], list[Running]],
        connections: Callable[[], int],
        lengths: Lengths,
        clock: Clock,
    ) -> None:
        self._running = running
        self._connections = connections
        self._lengths = lengths
        self._clock = clock
        self._places: dict[Place, None] = {}  # in the order of their arrival
        self._next_look: asyncio.TimerHandle | None = None

    def is_late(self, newcomer: Place) -> bool:
        """Whether one who comes now would be too late at the end of the line."""
        if newcomer.until_us is None:
            return False
        self._judge([*self._places, newcomer])
        return newcomer.is_late

    async def take(self, queue: asyncio.Queue[Any], place: Place, *, wait_us: int) -> Any:
        """What comes into `queue`.  Raises TimeoutError after `wait_us`, or once it is late."""
        self._places[place] = None
        if self._next_look is None and place.until_us is not None:
            self._next_look = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        try:
            async with asyncio.timeout(wait_us / US_PER_S) as place.alarm:
                return await queue.get()
        finally:
            del self._places[place]
            if not self._places and self._next_look is not None:
                self._next_look.cancel()
                self._next_look = None

    def retry_after_s(self) -> int:
        """When one who comes now could have a connection, whole seconds from 1 to 60."""
        running = self._running()
        line = judge_line(
            running,
            [Waiter(place.kind, None) for place in self._places],
            connections=self._connections(),
            taken_us=self._lengths.expected_us(running),
        )
        return retry_after_s(line.next_start_us)

    def _look(self) -> None:
        self._next_look = None
        places = list(self._places)
        if any(place.until_us is not None for place in places):
            self._next_look = asyncio.get_running_loop().call_later(LOOK_S, self._look)
            self._judge(places)

    def _judge(self, places: list[Place]) -> None:
        running, now_us = self._running(), self._clock()
        line = judge_line(
            running,
            [
                Waiter(place.kind, None if place.until_us is None else place.until_us - now_us)
                for place in places
            ],
            connections=self._connections(),
            taken_us=shortest_us(self._lengths.expected_us(running)),
        )
        for number in line.too_late:
            place = places[number]
            place.is_late = True
            alarm = place.alarm
            if alarm is not None and not alarm.expired():
                alarm.reschedule(asyncio.get_running_loop().time())
