"""The default thread limiter of an event loop, watched: who waits how long, and a probes' reserve.

    a sync endpoint  ->  limiter.acquire_on_behalf_of  ->  free: as ever
                                                           full: waits in line, its wait is measured
    a probe (mark.py)                                      full: takes one of the reserve, if one is
                                                           free; waits in line otherwise, as ever

Nothing private is read or written.  anyio's limiter on asyncio has slots: it is given a subclass of
its class, which overrides two public methods.  Where the limiter takes attributes (trio's, and that
of older anyio), the same two methods are set on the object.  Several bundles on one event loop
share one lane; the last that leaves takes it off, once no probe holds a reserve.
Cost, measured: see docs/overload.md.
"""

from __future__ import annotations

import sys
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
from anyio.to_thread import current_default_thread_limiter

from perf_middleware.clock import monotonic_us
from perf_middleware.limits.threads.drivers.mark import is_probe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from perf_middleware.clock import Clock

LANE: Final = "perf_middleware_lane"  # where a watched limiter has its lane
_HOOKED: Final = ("acquire_on_behalf_of", "release_on_behalf_of")


class UnexpectedLimiterError(Exception):
    """The event loop's limiter is not of the shape that is known here; no client sees it."""


class QueueCounts:
    """What one bundle has counted of the waits for a thread."""

    __slots__ = ("acquired", "queue_us", "queue_us_max", "queued", "reserved_max", "reserved_used")

    def __init__(self, *, reserved_max: int) -> None:
        self.reserved_max = reserved_max
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.acquired = 0
        self.queued = 0
        self.queue_us = 0
        self.queue_us_max = 0
        self.reserved_used = 0


class ThreadLane:
    """One watched limiter; `bundles` are the counts of those that watch it.

    On its event loop only.
    """

    def __init__(self, limiter: Any, *, clock: Clock = monotonic_us) -> None:
        self.limiter = limiter
        self.bundles: list[QueueCounts] = []
        self.sizer: object | None = None  # the one bundle that may change the number of threads
        self.released = 0
        self._clock = clock
        self._waiting: dict[object, int] = {}  # since when, in the order of arrival
        self._reserve: set[object] = set()
        self._reserved_max = 0
        self._acquire: Callable[[object], Awaitable[None]] = limiter.acquire_on_behalf_of
        self._acquire_nowait: Callable[[object], None] = limiter.acquire_on_behalf_of_nowait
        self._release: Callable[[object], None] = limiter.release_on_behalf_of
        self._would_block = _would_block_of(limiter)
        self._plain_class: type | None = None

    # --- what the limiter's own methods do now ----------------------------------------------------

    def acquire(self, borrower: object) -> Awaitable[None]:
        """As `acquire_on_behalf_of`: at once where a thread is free, without a step of ours."""
        for counts in self.bundles:
            counts.acquired += 1
        if self.limiter.available_tokens >= 1:
            return self._acquire(borrower)
        if self._reserved_max and is_probe():
            return self._acquire_reserved(borrower)
        return self._wait(borrower)

    def release(self, borrower: object) -> None:
        """As `release_on_behalf_of`."""
        self.released += 1
        if borrower in self._reserve:
            self._reserve.remove(borrower)
            if not self.bundles:
                self._take_off()
            return
        self._release(borrower)

    async def _acquire_reserved(self, borrower: object) -> None:
        await anyio.lowlevel.checkpoint()
        try:
            self._acquire_nowait(borrower)  # raises RuntimeError for one that holds a token
        except self._would_block:
            if borrower in self._reserve or len(self._reserve) >= self._reserved_max:
                return await self._wait(borrower)
            self._reserve.add(borrower)
            for counts in self.bundles:
                counts.reserved_used += 1
        return None

    async def _wait(self, borrower: object) -> None:
        began_us = self._waiting[borrower] = self._clock()
        try:
            await self._acquire(borrower)
        finally:
            self._waiting.pop(borrower, None)
            waited_us = max(0, self._clock() - began_us)
            for counts in self.bundles:
                counts.queued += 1
                counts.queue_us += waited_us
                counts.queue_us_max = max(counts.queue_us_max, waited_us)

    # --- what is asked about it -------------------------------------------------------------------

    @property
    def reserve_in_use(self) -> int:
        return len(self._reserve)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def oldest_wait_us(self) -> int:
        """How long the first in line has waited by now; 0 where nobody waits."""
        for began_us in self._waiting.values():
            return max(0, self._clock() - began_us)
        return 0

    # --- on and off -------------------------------------------------------------------------------

    async def join(self, counts: QueueCounts) -> None:
        """Watch the limiter for one more bundle.

        Raises UnexpectedLimiterError where it does not come through here; nothing is changed then.
        """
        if not self.bundles and getattr(self.limiter, LANE, None) is not self:
            self._put_on()
        self.bundles.append(counts)
        self._reserved_max = max(bundle.reserved_max for bundle in self.bundles)
        try:
            await self._try_out(counts)
        except BaseException:
            self.leave(counts)
            raise

    def leave(self, counts: QueueCounts) -> None:
        """Watch it no more for this bundle; the last one leaves the limiter as it was."""
        if counts in self.bundles:
            self.bundles.remove(counts)
        self._reserved_max = max((bundle.reserved_max for bundle in self.bundles), default=0)
        if not self.bundles and not self._reserve:
            self._take_off()

    async def _try_out(self, counts: QueueCounts) -> None:
        """Whether taking and giving back a token comes through here, as far as one is free."""
        if self.limiter.available_tokens < 1:
            return
        acquired, released = counts.acquired, self.released
        async with self.limiter:
            pass
        if counts.acquired == acquired or self.released == released:
            raise UnexpectedLimiterError("its tokens are taken by another way")
        for each in self.bundles:  # it was no endpoint's
            each.acquired -= 1
        self.released -= 1

    def _put_on(self) -> None:
        limiter = self.limiter
        if not iscoroutinefunction(limiter.acquire_on_behalf_of):
            raise UnexpectedLimiterError("acquire_on_behalf_of is no coroutine function")
        if hasattr(limiter, "__dict__"):
            limiter.acquire_on_behalf_of = self.acquire
            limiter.release_on_behalf_of = self.release
            setattr(limiter, LANE, self)
            return

        plain: Any = type(limiter)
        try:
            limiter.__class__ = _watched_class(plain, self)
        except TypeError as exc:
            raise UnexpectedLimiterError(str(exc)) from None
        self._plain_class = plain
        self._acquire = plain.acquire_on_behalf_of.__get__(limiter)
        self._acquire_nowait = plain.acquire_on_behalf_of_nowait.__get__(limiter)
        self._release = plain.release_on_behalf_of.__get__(limiter)

    def _take_off(self) -> None:
        """As it was; where somebody has put their own thing on top of ours, that stays."""
        limiter = self.limiter
        if self._plain_class is not None:
            if vars(type(limiter)).get(LANE) is self:
                limiter.__class__ = self._plain_class
            return
        own = vars(limiter)
        if own.get(LANE) is self and own.get(_HOOKED[0]) == self.acquire:
            for name in (*_HOOKED, LANE):
                own.pop(name, None)


def _watched_class(plain: Any, lane: ThreadLane) -> type:
    """A class below `plain`, of the same layout and name, whose tokens go through `lane`."""

    class WatchedLimiter(plain):  # type: ignore[misc]
        __slots__ = ()

        def acquire_on_behalf_of(self, borrower: object) -> Awaitable[None]:
            return lane.acquire(borrower)

        def release_on_behalf_of(self, borrower: object) -> None:
            lane.release(borrower)

    WatchedLimiter.__name__, WatchedLimiter.__qualname__ = plain.__name__, plain.__qualname__
    setattr(WatchedLimiter, LANE, lane)
    return WatchedLimiter


def lane_here(*, clock: Clock = monotonic_us) -> ThreadLane:
    """The lane of the running event loop's default limiter; a new one is not put on yet.

    Raises UnexpectedLimiterError where this limiter cannot be watched.
    """
    limiter = _limiter_in_use()
    lane = getattr(limiter, LANE, None)
    if isinstance(lane, ThreadLane):
        return lane
    missing = [name for name in _needed() if not hasattr(limiter, name)]
    if missing:
        raise UnexpectedLimiterError(f"it has no {', '.join(missing)}")
    return ThreadLane(limiter, clock=clock)


def _needed() -> Iterator[str]:
    yield from _HOOKED
    yield from ("acquire_on_behalf_of_nowait", "available_tokens", "total_tokens")


def _limiter_in_use() -> Any:
    """The object that threads take their tokens from: on trio that is trio's own, not anyio's."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            return trio.to_thread.current_default_thread_limiter()
        except RuntimeError:  # imported, and another loop runs
            pass
    return current_default_thread_limiter()


def _would_block_of(limiter: Any) -> type[Exception]:
    trio = sys.modules.get("trio")
    if trio is not None and isinstance(limiter, trio.CapacityLimiter):
        would_block: type[Exception] = trio.WouldBlock
        return would_block
    return anyio.WouldBlock
