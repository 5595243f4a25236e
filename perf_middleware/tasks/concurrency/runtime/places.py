"""The places of workers in one event loop: bounded, first come first served, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from perf_middleware.tasks.concurrency.errors import WorkersBusyError, WorkersTimeoutError
from perf_middleware.tasks.concurrency.figures import WorkerCounts, WorkersReading
from perf_middleware.tasks.drivers.loops import PerLoop

if TYPE_CHECKING:
    from perf_middleware.clock import Clock
    from perf_middleware.tasks.drivers.loops import Loop


class LoopPlaces:
    """`limit` places of one event loop."""

    def __init__(self, loop: Loop, limit: int) -> None:
        self.loop = loop
        self.limiter = anyio.CapacityLimiter(limit)
        self.waiting = 0


class Places:
    """`limit` places in each event loop that uses them, and who waits for one."""

    def __init__(self, *, name: str, limit: int, waiting_max: int, clock: Clock) -> None:
        if limit < 1 or waiting_max < 0:
            raise ValueError(f"{name}: limit must be at least 1, waiting_max 0 or more")
        self.name = name
        self.counts = WorkerCounts()
        self._limit = limit
        self._waiting_max = waiting_max
        self._clock = clock
        self._loops: PerLoop[LoopPlaces] = PerLoop(lambda loop: LoopPlaces(loop, limit), doing=name)

    async def take(self, holder: object, wait_s: float | None) -> LoopPlaces:
        """A place for `holder`, whoever takes it gives it back.

        Raises WorkersBusyError, WorkersTimeoutError.
        """
        here = self._loops.here()
        try:
            here.limiter.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            await self._wait(here, holder, wait_s)
        self.counts.calls += 1
        return here

    async def _wait(self, here: LoopPlaces, holder: object, wait_s: float | None) -> None:
        counts = self.counts
        if here.waiting >= self._waiting_max:
            counts.refused += 1
            raise WorkersBusyError(self.name, self._waiting_max)
        here.waiting += 1
        counts.waits += 1
        began_us = self._clock()
        try:
            with anyio.fail_after(wait_s):
                await here.limiter.acquire_on_behalf_of(holder)
        except TimeoutError as error:
            counts.timeouts += 1
            raise WorkersTimeoutError(self.name, "wait", wait_s or 0.0) from error
        finally:
            here.waiting -= 1
            counts.wait_us += self._clock() - began_us

    def reading(self) -> WorkersReading:
        """The counts, and what runs and waits by now in all event loops."""
        states = self._loops.states()
        return WorkersReading(
            name=self.name,
            limit=self._limit,
            in_progress=sum(int(state.limiter.borrowed_tokens) for state in states),
            waiting=sum(state.waiting for state in states),
            counts=self.counts,
        )
