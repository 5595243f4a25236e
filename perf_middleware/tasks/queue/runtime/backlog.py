"""What waits: in the lines of `order`, or until it is due; and whether there is room for more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.tasks.queue.due import Due
from perf_middleware.tasks.queue.order import Order
from perf_middleware.tasks.queue.runtime.room import Room
from perf_middleware.tasks.queue.sizes import JOB_BYTES
from perf_middleware.tasks.queue.states import QUEUED, SCHEDULED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from perf_middleware.clock import Clock
    from perf_middleware.tasks.queue.options import QueueLimits
    from perf_middleware.tasks.queue.runtime.job import Job

US_PER_S: Final = 1_000_000
WAITING_MAX: Final = 10_000  # callers that wait for room; each is a request, say, of its own


class Backlog:
    """Jobs that wait, bounded by number and bytes.

    What is tried again comes back whether there is room or not: it was accepted.  It had left room
    as it began, so no more than there are workers ever wait beyond the bound.
    """

    def __init__(self, limits: QueueLimits, *, clock: Clock) -> None:
        self._jobs_max = limits.backlog_max
        self._bytes_max = limits.backlog_bytes_max
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[], None] = _nobody
        self.order: Order[Job[Any]] = Order(
            workers=limits.workers,
            threads_max=limits.threads_max,
            fair_every=limits.fair_every,
            paused_every_us=round(limits.paused_every_s * US_PER_S),
        )
        self.due: Due[Job[Any]] = Due()
        self.room = Room(WAITING_MAX)
        self.bytes = 0

    @property
    def count(self) -> int:
        """Jobs that wait for a worker, or are not due yet."""
        return self.order.count + len(self.due)

    def has_room(self, size: int) -> bool:
        """Whether a job of `size` bytes may come."""
        count = self.order.count + len(self.due)
        if count >= self._jobs_max:
            return False
        # One that is larger than all that may wait runs alone, or it would never.
        return self.bytes + size <= self._bytes_max or not count

    def push(self, job: Job[Any]) -> None:
        """`job` may begin."""
        self.bytes += job.kept_bytes
        self.order.push(job)
        self._wake()

    def schedule(self, job: Job[Any], due_us: int, now_us: int) -> None:
        """`job` may begin at `due_us`."""
        job.status = SCHEDULED
        job.due_us = due_us
        self.bytes += job.kept_bytes
        self.due.add(job, due_us)
        self._set_timer(now_us)

    def take_out(self, job: Job[Any]) -> None:
        """`job`, which waits, waits no more."""
        if job.status == SCHEDULED:
            self.due.discard(job)
        else:
            self.order.discard(job)
        self.note_begun(job)

    def note_begun(self, job: Job[Any]) -> None:
        """`job` has left: there is room for another."""
        self.bytes -= job.kept_bytes
        if self.room:
            self.room.let_in()

    def let_in(self) -> None:
        """Who was let in has joined another job, or left room: it is the next one's turn."""
        if self.room and self.has_room(JOB_BYTES):
            self.room.let_in()

    def take_later(self, than_us: int) -> list[Job[Any]]:
        """All that are due after `than_us` leave."""
        late = self.due.take_later(than_us)
        for job in late:
            self.bytes -= job.kept_bytes
        return late

    def take_all(self) -> list[Job[Any]]:
        """All leave."""
        left = self.order.take_all()
        for job in left:
            self.bytes -= job.kept_bytes
        return left + self.take_later(-1)

    def open(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        """From now on jobs come due, and `wake()` is told of each that may begin."""
        self._loop = loop
        self._wake = wake
        self.room.forget_others(loop)
        self._set_timer(self._clock())

    def close(self) -> None:
        """Nobody runs them any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop = None
        self._wake = _nobody

    def _set_timer(self, now_us: int) -> None:
        due_us = self.due.next_us()
        if self._loop is None or due_us is None:
            return
        if self._timer is not None:
            if self._timer_us <= due_us:
                return
            self._timer.cancel()
        self._timer_us = due_us
        wait_s = max(0.0, (due_us - now_us) / US_PER_S)
        self._timer = self._loop.call_later(wait_s, self._take_due)

    def _take_due(self) -> None:
        self._timer = None
        now_us = self._clock()
        while (job := self.due.take(now_us)) is not None:
            job.status = QUEUED
            self.order.push(job)
            self._wake()
        self._set_timer(now_us)


def _nobody() -> None:
    """Nobody is there to wake."""
