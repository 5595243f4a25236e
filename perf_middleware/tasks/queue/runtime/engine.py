r"""What the queue does with jobs: accepts, schedules, settles, drains.

accept -> lines (order.py) -> workers -> settle -> table
     \-> due (due.py) -> lines   ^         |
           ^                      +---------+  tried again: due
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.error_text import told
from perf_middleware.task_errors import QueueClosedError, QueueFullError
from perf_middleware.tasks.queue.figures import QueueCounts
from perf_middleware.tasks.queue.runtime.backlog import Backlog
from perf_middleware.tasks.queue.runtime.faults import clear_frames
from perf_middleware.tasks.queue.runtime.job import MADE_BY, Job
from perf_middleware.tasks.queue.runtime.table import JobTable, drawn_ids
from perf_middleware.tasks.queue.runtime.threads import Threads
from perf_middleware.tasks.queue.runtime.workers import Crew
from perf_middleware.tasks.queue.sizes import JOB_BYTES, call_bytes
from perf_middleware.tasks.queue.states import (
    CANCELLED,
    FAILED,
    HANDED_BACK,
    RUNNING,
    SUCCEEDED,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import ContextVar

    from perf_middleware.clock import Clock
    from perf_middleware.tasks.queue.options import Plan, QueueLimits
    from perf_middleware.tasks.queue.outcomes import Outcome
    from perf_middleware.tasks.queue.states import Status

logger = logging.getLogger("perf_middleware.tasks")

US_PER_S: Final = 1_000_000
GRACE_S: Final = 1.0  # what is cancelled at the end of the drain may clean up so long


class Engine:
    """One queue's jobs, on one event loop."""

    def __init__(
        self,
        limits: QueueLimits,
        *,
        level: Callable[[], int] | None,
        left_out: Sequence[tuple[ContextVar[Any], object]],
        trace_id: Callable[[], str | None] | None,
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        self.limits = limits
        self._level = level
        self._left_out = tuple(left_out)
        self._trace_id = trace_id
        self.clock = clock
        self._draw = draw
        self._backoff = limits.backoff()
        self.counts = QueueCounts()
        self.table = JobTable(limits, self.counts)
        self._ids = drawn_ids()
        self.backlog = Backlog(limits, clock=clock)
        self.order = self.backlog.order
        self.note_begun = self.backlog.note_begun
        self.state = "new"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._crew: Crew | None = None
        self._threads: Threads | None = None
        self._is_draining = False
        self._drain_until_us = 0
        self._drained: asyncio.Future[None] | None = None

    # --- accepting ------------------------------------------------------------------------------

    def accept(
        self,
        plan: Plan,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rank: int,
        retries: int,
        timeout_us: int | None,
        delay_us: int,
        unique_key: str | None,
    ) -> Job[Any] | None:
        """The job of this call, or that with its key; None where there is no room.

        Raises QueueClosedError.  `Task.enqueue` is for apps.
        """
        if self.state == "open":
            if self._loop is not asyncio.get_running_loop():
                raise RuntimeError(
                    "the task queue is open on another event loop: from a thread use "
                    "anyio.from_thread.run(task.enqueue, ...)"
                )
        elif self.state != "new":
            plan.counts.rejected += 1
            raise QueueClosedError(self.state)
        if unique_key is not None:
            known = self.table.unique.get(unique_key)
            if known is not None:
                plan.counts.joined += 1
                return known
        size = call_bytes(args, kwargs) if args or kwargs else JOB_BYTES
        if not self.backlog.has_room(size):
            return None
        context = copy_context()
        if self._left_out and len(context):
            context.run(self._leave_out)
        now_us = self.clock()
        job: Job[Any] = Job(
            self, next(self._ids), plan, args, kwargs, context, rank, retries, timeout_us,
            unique_key, size, now_us,
        )  # fmt: skip
        self.table.add(job)
        plan.counts.enqueued += 1
        if delay_us:
            self.backlog.schedule(job, now_us + delay_us, now_us)
        else:
            self.backlog.push(job)
        return job

    async def accept_in_time(
        self,
        plan: Plan,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rank: int,
        retries: int,
        timeout_us: int | None,
        delay_us: int,
        unique_key: str | None,
        wait_us: int | None,
    ) -> Job[Any]:
        """As `accept`, waiting for room so long; None for as long as is set.

        Raises QueueFullError, QueueClosedError.
        """
        room, is_first = self.backlog.room, False
        wait_s = self.limits.full_wait_s if wait_us is None else wait_us / US_PER_S
        until_s: float | None = None
        while True:
            if is_first or not room or unique_key in self.table.unique:
                job = self.accept(
                    plan, args, kwargs, rank, retries, timeout_us, delay_us, unique_key
                )
                if job is not None:
                    if is_first:
                        self.backlog.let_in()
                    return job
            if until_s is None:
                until_s = asyncio.get_running_loop().time() + wait_s
            if room.is_full:
                wait_s = 0.0
            if not wait_s or not await room.wait(until_s, is_first=is_first):
                plan.counts.rejected += 1
                raise QueueFullError(self.backlog.count, wait_s)
            is_first = True

    def _leave_out(self) -> None:
        for variable, value in self._left_out:
            if variable.get(value) is not value:
                variable.set(value)

    def cancel(self, job: Job[Any]) -> bool:
        """As `job.cancel()`."""
        if job.is_finished:
            return False
        if job.worker is not None:
            job.worker.stop("cancel")
            return True
        self.backlog.take_out(job)
        job.plan.counts.cancelled += 1
        self._finish(job, CANCELLED, None, None, self.clock())
        return True

    # --- what the workers tell ------------------------------------------------------------------

    def note_abandoned(self) -> None:
        """An attempt goes on in its thread, whose job is over."""
        self.counts.abandoned += 1

    def settle(
        self, job: Job[Any], verdict: Outcome, value: object, error: BaseException | None, us: int
    ) -> None:
        """An attempt of `job` is over, at `us`."""
        if job.status != RUNNING:
            return  # it did not end when it was told to, and was given up
        counts = job.plan.counts
        if verdict == "succeeded":
            counts.succeeded += 1
            self._finish(job, SUCCEEDED, value, None, us)
            return
        if verdict == "cancelled":
            counts.cancelled += 1
            if error is not None:
                clear_frames(error)
            self._finish(job, CANCELLED, None, error, us)
            return
        if error is None:
            raise AssertionError(verdict)  # the table of outcomes has no such row
        counts.failed += 1
        if verdict == "retried":
            self._try_again(job, error, us)
            return
        counts.dead += 1
        _log(
            logging.ERROR,
            "task %s (job %s%s) failed, attempt %d of %d",
            job.plan.name, job.id, self._trace_of(job), job.attempts, job.retries + 1,
            exc_info=error,
        )  # fmt: skip
        clear_frames(error)
        self._finish(job, FAILED, None, error, us)

    def _try_again(self, job: Job[Any], error: BaseException, us: int) -> None:
        job.plan.counts.retried += 1
        due_us = us + self._backoff.delay_us(job.attempts, self._draw())
        _log(
            logging.INFO,
            "task %s (job %s%s) is tried again in %.3g s, after attempt %d of %d: %s",
            job.plan.name, job.id, self._trace_of(job), (due_us - us) / US_PER_S, job.attempts,
            job.retries + 1, told(error),
        )  # fmt: skip
        clear_frames(error)
        job.error = error
        if self._is_draining and due_us >= self._drain_until_us:
            self._hand_back(job, us)
            return
        self.backlog.schedule(job, due_us, us)

    def _finish(
        self, job: Job[Any], status: Status, value: object, error: BaseException | None, us: int
    ) -> None:
        self.table.finish(job, status, value, error, us)
        if self._drained is not None:
            self._look_whether_drained()

    def _hand_back(self, job: Job[Any], us: int) -> None:
        job.plan.counts.handed_back += 1
        self._finish(job, HANDED_BACK, None, job.error, us)

    def _trace_of(self, job: Job[Any]) -> str:
        made_by = job.context.get(MADE_BY)
        made = f" of {made_by}" if made_by else ""
        if self._trace_id is None:
            return made
        # A copy: a function that took too long goes on in its thread, and in its context.
        trace_id = job.context.copy().run(self._trace_id)
        return f"{made}, trace {trace_id}" if trace_id else made

    # --- the life of the queue ------------------------------------------------------------------

    def open(self) -> bool:
        """Run what was accepted, and what comes; False where this is no event loop of asyncio's.

        Raises RuntimeError where it is open.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio
            self.state = "not open: it needs asyncio, and this is another event loop"
            return False
        if self.state in {"open", "draining"}:
            raise RuntimeError(f"the task queue is {self.state} already")
        self._loop = loop
        self._threads = Threads("perf_middleware task")
        self._crew = Crew(
            self.order, workers_max=self.limits.workers, settling=self, threads=self._threads,
            level=self._level, paused_every_s=self.limits.paused_every_s, clock=self.clock,
        )  # fmt: skip
        self._is_draining = False
        self.state = "open"
        self.backlog.open(loop, self._crew.wake)
        self._crew.wake_all()
        return True

    async def drain(self) -> None:
        """Accept nothing more, run what was accepted until `drain_s` is over, end the rest.

        What runs then is cancelled, what waits is handed back.  Nothing where it is not open.
        """
        crew, loop = self._crew, self._loop
        if self.state != "open" or crew is None or loop is None:
            return
        began_us = self.clock()
        before = [self.counts.total(event) for event in ("succeeded", "dead", "cancelled")]
        self._is_draining = True
        self.state = "draining"
        self.table.forget_handed_back()
        self._drain_until_us = began_us + round(self.limits.drain_s * US_PER_S)
        self.backlog.room.let_all_in()
        waiting = self.backlog.count
        for job in self.backlog.take_later(self._drain_until_us):
            self._hand_back(job, began_us)
        crew.drain()
        self._drained = loop.create_future()
        self._look_whether_drained()
        try:
            async with asyncio.timeout(self.limits.drain_s):
                await self._drained
        except TimeoutError:
            pass  # told below, in numbers
        finally:
            self._drained = None
            tasks = self._end(crew)
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_S)
        self._give_up(crew)
        self._tell_drained(began_us, waiting, before)

    async def close(self) -> None:
        """Drain, and leave nothing behind."""
        try:
            await self.drain()
        finally:
            crew, threads = self._crew, self._threads
            if crew is not None:
                self._end(crew)
                self._give_up(crew)
            if threads is not None:
                threads.close()
            self.order.forget_threads()
            self._crew = self._threads = self._loop = None
            self.state = "closed"

    def _look_whether_drained(self) -> None:
        drained = self._drained
        if drained is None or drained.done():
            return
        if not self.backlog.count and not sum(self.order.at_work):
            drained.set_result(None)

    def _end(self, crew: Crew) -> list[asyncio.Task[None]]:
        """Hand back what waits, cancel what runs; the tasks of the workers, which end now."""
        now_us = self.clock()
        self._drain_until_us = min(self._drain_until_us, now_us)
        for job in self.backlog.take_all():
            self._hand_back(job, now_us)
        self.backlog.close()
        crew.close()
        return crew.stop_all()

    def _give_up(self, crew: Crew) -> None:
        """What has not ended although it was cancelled is over for whoever waits for it."""
        for worker in crew.workers:
            job = worker.job
            if job is not None and job.status == RUNNING:
                self.counts.abandoned += 1
                job.plan.counts.cancelled += 1
                self._finish(job, CANCELLED, None, None, self.clock())

    def _tell_drained(self, began_us: int, waiting: int, before: list[int]) -> None:
        counts = self.counts
        ended = [counts.total(event) for event in ("succeeded", "dead", "cancelled")]
        succeeded, failed, cancelled = (now - was for now, was in zip(ended, before, strict=True))
        handed_back = len(self.table.handed_back)
        if not (waiting or succeeded or failed or cancelled or handed_back):
            return
        logger.log(
            logging.WARNING if cancelled or handed_back else logging.INFO,
            "task queue drained in %.1f s: %d jobs succeeded, %d failed, %d were cancelled, %d "
            "handed back",
            (self.clock() - began_us) / US_PER_S, succeeded, failed, cancelled, handed_back,
        )  # fmt: skip


def _log(level: int, text: str, *args: object, exc_info: BaseException | None = None) -> None:
    """Tell it, where that goes: an app's handler that fails must not keep a job from its end."""
    with suppress(Exception):
        logger.log(level, text, *args, exc_info=exc_info, stacklevel=2)
