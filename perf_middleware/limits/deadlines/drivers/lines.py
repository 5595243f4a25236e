"""Timers on asyncio: requests with the same timeout stand in one line, and only the first waits.

    line of 2 s     due 10.1   10.4   10.4   11.9     <- new ones join at the end
                         ^ the one timer of this line

Nearly every request leaves its line long before its time: joining and leaving are one step in a
dict each, where a timer of the loop for each request is 2 us, and a heap that grows.
"""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

    from perf_middleware.clock import Clock

LINES_MAX: Final = 1_000  # timeouts come from settings and decorators: far fewer


class Expires(Protocol):
    """Something that is told once when its time has come."""

    def expire(self) -> None: ...


class Line:
    """Those that wait equally long, in the order they came."""

    __slots__ = ("_clock", "_due_us", "_is_alone", "_loop_timer", "_timeout_us")

    def __init__(self, timeout_us: int, clock: Clock, *, is_alone: bool) -> None:
        self._timeout_us = timeout_us
        self._clock = clock
        self._is_alone = is_alone
        self._due_us: dict[Expires, int] = {}
        self._loop_timer: asyncio.TimerHandle | None = None

    def join(self, who: Expires, now_us: int, loop: asyncio.AbstractEventLoop) -> None:
        self._due_us[who] = now_us + self._timeout_us
        if self._loop_timer is None:
            self._wait(self._timeout_us, loop)

    def leave(self, who: Expires) -> None:
        """It needs no timer any more, or has been told."""
        self._due_us.pop(who, None)
        if self._is_alone and self._loop_timer is not None:
            self._loop_timer.cancel()
            self._loop_timer = None

    def _wait(self, wait_us: int, loop: asyncio.AbstractEventLoop) -> None:
        # In an empty context: that of the request which came first is not to be kept.
        self._loop_timer = loop.call_later(wait_us / 1_000_000, self._tell, loop, context=Context())

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop_timer = None
        try:
            while self._due_us:
                first = next(iter(self._due_us))
                wait_us = self._due_us[first] - self._clock()
                if wait_us > 0:
                    break
                del self._due_us[first]
                first.expire()
        finally:
            if self._due_us and self._loop_timer is None:
                wait_us = next(iter(self._due_us.values())) - self._clock()
                self._wait(max(wait_us, 0), loop)


class Lines:
    """The lines of one event loop."""

    __slots__ = ("_by_timeout", "_clock")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_timeout: dict[int, Line] = {}

    def line(self, timeout_us: int) -> Line:
        """For a timeout that many requests have."""
        try:
            return self._by_timeout[timeout_us]
        except KeyError:
            if len(self._by_timeout) >= LINES_MAX:
                return self.alone(timeout_us)
            line = self._by_timeout[timeout_us] = Line(timeout_us, self._clock, is_alone=False)
            return line

    def alone(self, timeout_us: int) -> Line:
        """For a timeout that a caller has chosen."""
        return Line(timeout_us, self._clock, is_alone=True)
