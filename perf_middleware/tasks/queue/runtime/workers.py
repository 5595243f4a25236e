"""The workers: long-lived tasks that run one job after the other.

    push -> an idle worker wakes, or a new one begins -> pick -> attempt -> pick -> ... -> idle

- No task per job: a worker steps the job's coroutine itself (driving.py).
- A turn: what all workers together pick within one pass of the event loop, TURN_US of it at most.
  Jobs that never wait would else hold the loop as long as there are some.  Where a turn is cut the
  next one begins with the next pass, after whatever else the loop has to do.
- Who cancels what: CancelledError out of a job is the job's own end, unless the worker's task was
  cancelled by somebody who is not the queue: then the job and the worker end.
- Timeouts: one timer for all.  It looks at the workers, of which there are few, not at the jobs.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from perf_middleware.task_errors import TaskTimeoutError
from perf_middleware.tasks.queue.order import RANKS, paused_from
from perf_middleware.tasks.queue.outcomes import outcome
from perf_middleware.tasks.queue.runtime.driving import Rest, begin
from perf_middleware.tasks.queue.states import RUNNING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from perf_middleware.clock import Clock
    from perf_middleware.tasks.queue.order import Order
    from perf_middleware.tasks.queue.outcomes import Asked, Outcome
    from perf_middleware.tasks.queue.runtime.job import Job
    from perf_middleware.tasks.queue.runtime.threads import Threads

US_PER_S: Final = 1_000_000
TURN_US: Final = 1_000  # a request that comes meanwhile waits so long, and for one job's step
WOKEN_MAX: Final = 2  # after a cut turn: mostly one is enough, and each wakes more where it must
LOOK_AGAIN_S: Final = 0.05  # after a worker was cancelled from outside, and jobs wait


class Settling(Protocol):
    """The queue, as the workers see it."""

    def note_begun(self, job: Job[Any]) -> None:
        """`job` waits no more."""

    def settle(
        self, job: Job[Any], verdict: Outcome, value: object, error: BaseException | None, us: int
    ) -> None:
        """An attempt of `job` is over, at `us`."""

    def note_abandoned(self) -> None:
        """An attempt goes on in its thread, whose job is over."""


class Worker:
    """One worker, and the attempt that it makes: until when, and whether it was asked to stop."""

    __slots__ = ("asked", "cancelled", "deadline_us", "has_begun", "job", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.job: Job[Any] | None = None
        self.deadline_us = 0
        self.asked: Asked = ""
        self.cancelled = 0  # how often the queue has cancelled the task for this attempt
        self.has_begun = False

    def stop(self, asked: Asked) -> None:
        """Cancel the attempt; once more where it has swallowed that, as asyncio's tasks do."""
        if self.job is not None and self.task is not None:
            self.asked = asked
            self.cancelled += 1
            self.task.cancel()


class Crew:
    """The workers of one queue, from its opening to its close."""

    def __init__(
        self,
        order: Order[Job[Any]],
        *,
        workers_max: int,
        settling: Settling,
        threads: Threads,
        level: Callable[[], int] | None,
        paused_every_s: float,
        clock: Clock,
    ) -> None:
        self._order = order
        self._workers_max = workers_max
        self._settling = settling
        self._threads = threads
        self._level = level
        self._paused_every_s = paused_every_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # workers begin within requests, and must not keep theirs
        self._idle: list[asyncio.Future[None]] = []
        self._woken = 0
        self._turn_until_us = 0
        self._is_cut = False
        self._looks_later: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_us = 0
        self.workers: set[Worker] = set()
        self.is_draining = False
        self.is_closed = False

    # --- who works ------------------------------------------------------------------------------

    def wake(self) -> None:
        """A job may begin: one more worker looks for it."""
        if self._woken >= self._order.count:
            return
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():  # else its worker has just been cancelled
                self._woken += 1
                waiter.set_result(None)
                return
        if len(self.workers) < self._workers_max and not self.is_closed:
            self._woken += 1
            worker = Worker()
            self.workers.add(worker)
            worker.task = self._loop.create_task(
                self._work(worker), name="perf_middleware: task worker", context=self._context
            )
            worker.task.add_done_callback(partial(self._left, worker))

    def wake_all(self) -> None:
        """As many as there are jobs, or workers."""
        for _ in range(min(self._order.count, self._workers_max)):
            self.wake()

    def _left(self, worker: Worker, task: asyncio.Task[None]) -> None:
        self.workers.discard(worker)
        if not worker.has_begun:
            self._woken -= 1
        if not task.cancelled():
            task.exception()  # KeyboardInterrupt and the like: they went up through the loop
        if self._order.count and not self.is_closed and not self._loop.is_closed():
            # Not at once: where the whole loop ends, its tasks are cancelled, and new ones are not.
            self._look_later(LOOK_AGAIN_S)

    async def _work(self, worker: Worker) -> None:
        self._woken -= 1
        worker.has_begun = True
        order, clock = self._order, self._clock
        while True:
            now_us = clock()
            job = self._next(now_us)
            if job is None:
                if not await self._sleep():
                    return
                continue
            self._settling.note_begun(job)
            if order.count and not self._woken:
                self.wake()
            await self._attempt(worker, job, now_us)

    async def _sleep(self) -> bool:
        """Whether there may be something to do; False for a worker that is to go."""
        if self.is_closed:
            return False
        waiter = self._loop.create_future()
        self._idle.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._idle:
                self._idle.remove(waiter)
            elif not waiter.cancelled():
                self._woken -= 1  # woken and cancelled at once: `_left` has another one look
            raise
        self._woken -= 1
        return True

    def _next(self, now_us: int) -> Job[Any] | None:
        if self._turn_until_us and now_us >= self._turn_until_us:
            self._is_cut = True
            return None
        if self.is_closed:
            return None
        level = self._level
        paused = RANKS if level is None or self.is_draining else paused_from(level())
        job = self._order.pick(now_us, paused)
        if job is None:
            if paused < RANKS and self._order.has_paused(paused):
                self._look_later(self._paused_every_s)
            return None
        if not self._turn_until_us:
            self._turn_until_us = now_us + TURN_US
            self._loop.call_soon(self._turn_over)
        return job

    def _turn_over(self) -> None:
        self._turn_until_us = 0
        if self._is_cut:
            self._is_cut = False
            for _ in range(WOKEN_MAX):
                self.wake()

    def _look_later(self, seconds: float) -> None:
        if self._looks_later is None:
            self._looks_later = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._looks_later = None
        self.wake()

    # --- one attempt ----------------------------------------------------------------------------

    async def _attempt(self, worker: Worker, job: Job[Any], now_us: int) -> None:
        plan = job.plan
        job.status = RUNNING
        job.attempts += 1
        job.started_us = now_us
        job.worker = worker
        worker.job = job
        if job.timeout_us is not None:
            worker.deadline_us = now_us + job.timeout_us
            if not self._expiry_us or worker.deadline_us < self._expiry_us:
                self._expire_at(worker.deadline_us, now_us)
        plan.counts.begin(now_us - job.due_us)
        context = job.context
        if job.retries:
            context = context.copy()  # what one attempt leaves in it the next does not see
        value: Any = None
        error: BaseException | None = None
        try:
            if plan.is_threaded:
                value = await self._in_thread(job, context)
            else:
                coroutine = begin(context, plan.call, job.args, job.kwargs)
                try:
                    waited = context.run(coroutine.send, None)
                except StopIteration as end:
                    value = end.value
                else:
                    value = await Rest(coroutine, context, waited)
        except BaseException as exc:  # noqa: BLE001 - judged below; nothing is swallowed
            error = exc
        task = worker.task
        # A job that cancels its own task and returns must not cancel the next job of this worker.
        if error is None and not worker.asked and (task is None or not task.cancelling()):
            worker.job = job.worker = None
            worker.deadline_us = 0
            ended_us = self._clock()
            plan.counts.end(ended_us - now_us)
            self._order.ended(job.rank)
            self._settling.settle(job, "succeeded", value, None, ended_us)
            return
        await self._ended_otherwise(worker, job, value, error)

    async def _ended_otherwise(
        self, worker: Worker, job: Job[Any], value: object, error: BaseException | None
    ) -> None:
        asked, task, cancelled = worker.asked, worker.task, worker.cancelled
        is_cancellation = isinstance(error, asyncio.CancelledError | GeneratorExit)
        worker.job = job.worker = None
        worker.asked = ""
        worker.cancelled = 0
        worker.deadline_us = 0
        if asked == "timeout" and is_cancellation and job.timeout_us is not None:
            timeout = TaskTimeoutError(job.plan.name, job.timeout_us / US_PER_S)
            timeout.__cause__ = error
            error, is_cancellation = timeout, False
        ended_us = self._clock()
        job.plan.counts.end(ended_us - job.started_us)
        self._order.ended(job.rank)
        verdict = outcome(
            error, is_cancellation=is_cancellation, asked=asked, is_threaded=job.is_threaded,
            attempts=job.attempts, retries=job.retries, retry_on=job.plan.retry_on,
        )  # fmt: skip
        if asked and job.is_threaded:
            self._settling.note_abandoned()
        self._settling.settle(job, verdict, value, error, ended_us)
        # Not SystemExit: a command-line function that a job calls must not end the server.
        if isinstance(error, GeneratorExit | KeyboardInterrupt):
            raise error
        if task is None:
            return
        if asked:
            await _forget_cancellation(task, cancelled)
        if task.cancelling():
            raise asyncio.CancelledError

    async def _in_thread(self, job: Job[Any], context: Context) -> Any:
        ended: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        call = partial(context.run, job.plan.call, *job.args, **job.kwargs)

        def tell(value: Any, error: BaseException | None) -> None:
            try:
                self._loop.call_soon_threadsafe(self._thread_ended, ended, value, error)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                _drop(value)

        self._threads.run(call, tell)
        value, error = await ended
        if error is not None:
            raise error
        if asyncio.iscoroutine(value):  # of a lambda, say: it is to be awaited
            coroutine = begin(context, lambda: value, (), {})
            return await Rest(coroutine, context, None)
        return value

    def _thread_ended(
        self,
        ended: asyncio.Future[tuple[Any, BaseException | None]],
        value: Any,
        error: BaseException | None,
    ) -> None:
        if not self.is_closed:
            self._order.thread_ended()
        if not ended.done():
            ended.set_result((value, error))
        else:
            _drop(value)
        self.wake()

    # --- timeouts -------------------------------------------------------------------------------

    def _expire_at(self, at_us: int, now_us: int) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry_us = at_us
        self._expiry = self._loop.call_later(max(0.001, (at_us - now_us) / US_PER_S), self._expire)

    def _expire(self) -> None:
        self._expiry, self._expiry_us = None, 0
        now_us, next_us = self._clock(), 0
        for worker in self.workers:
            if not worker.deadline_us or worker.asked:
                continue
            if worker.deadline_us <= now_us:
                worker.stop("timeout")
            elif not next_us or worker.deadline_us < next_us:
                next_us = worker.deadline_us
        if next_us:
            self._expire_at(next_us, now_us)

    # --- the end --------------------------------------------------------------------------------

    def drain(self) -> None:
        """Nothing pauses any more."""
        self.is_draining = True
        self.wake_all()

    def stop_all(self) -> list[asyncio.Task[None]]:
        """Cancel every attempt and worker; the tasks that have to end."""
        tasks = []
        for worker in self.workers:
            if worker.task is None:
                continue
            tasks.append(worker.task)
            if worker.job is None:
                worker.task.cancel()
            else:
                worker.stop("drain")
        return tasks

    def close(self) -> None:
        """No timer is left, and no job begins."""
        self.is_closed = True
        for timer in (self._looks_later, self._expiry):
            if timer is not None:
                timer.cancel()
        self._looks_later = self._expiry = None


def _drop(value: object) -> None:
    """Nobody will look at what a thread has brought."""
    if asyncio.iscoroutine(value):
        value.close()


async def _forget_cancellation(task: asyncio.Task[None], times: int) -> None:
    """The queue's own cancellations of an attempt are over with it.

    Where the attempt ended without an `await` after it, it would come out of the worker's next one;
    `uncancel` alone forgets it from Python 3.13 on.
    """
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass
    finally:
        for _ in range(times):
            task.uncancel()
