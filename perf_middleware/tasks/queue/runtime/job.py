"""One enqueued call: what it is, how it does, what came of it."""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from perf_middleware.error_text import told
from perf_middleware.task_errors import JobCancelledError, JobUnfinishedError
from perf_middleware.tasks.queue.order import PRIORITIES
from perf_middleware.tasks.queue.states import CANCELLED, FAILED, FINISHED, HANDED_BACK, QUEUED

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from perf_middleware.tasks.queue.options import Plan
    from perf_middleware.tasks.queue.runtime.workers import Worker
    from perf_middleware.tasks.queue.states import Status

R = TypeVar("R")
US_PER_S: Final = 1_000_000
NO_CONTEXT: Final = Context()
_BEGINNING: Final = Lock()
MADE_BY: ContextVar[str | None] = ContextVar("perf_middleware.made_by", default=None)
"""The request that a job was made by, as the log names it: its method and route."""


class Owner(Protocol):
    """What a job asks of its queue."""

    def cancel(self, job: Job[Any]) -> bool: ...


class Job(Generic[R]):
    """One enqueued call.

    `id` is text that nobody can guess; `status` one of queued, scheduled, running, succeeded,
    failed, cancelled, handed_back; `attempts` how often it was begun; `error` what the last attempt
    raised; `is_unwanted` whether `cancel()` was asked for.  Used on the queue's event loop; `wait`
    on any.
    """

    __slots__ = (
        "__weakref__", "_owner", "_raised", "_told", "_value", "_waiters", "args", "attempts",
        "context", "due_us", "enqueued_us", "error", "finished_us", "id", "is_threaded",
        "is_unwanted", "kept_bytes", "kwargs", "plan", "rank", "retries", "started_us", "status",
        "ticket", "timeout_us", "unique_key", "worker",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        job_id: str,
        plan: Plan,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        rank: int,
        retries: int,
        timeout_us: int | None,
        unique_key: str | None,
        kept_bytes: int,
        now_us: int,
    ) -> None:
        self._owner = owner
        self._value: Any = None
        self._raised: tuple[TracebackType | None, BaseException | None] = (None, None)
        self._waiters: list[asyncio.Future[None]] | None = None
        self._told: list[Callable[[Job[Any]], None]] | None = None
        self.is_unwanted = False
        self.id = job_id
        self.plan = plan
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.rank = rank
        self.is_threaded = plan.is_threaded
        self.retries = retries
        self.timeout_us = timeout_us
        self.unique_key = unique_key
        self.kept_bytes = kept_bytes
        self.status: Status = QUEUED
        self.attempts = 0
        self.error: BaseException | None = None
        self.enqueued_us = now_us
        self.due_us = now_us
        self.started_us = 0
        self.finished_us = 0
        self.ticket = 0
        self.worker: Worker | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.plan.name}: {self.status}>"

    @property
    def name(self) -> str:
        """The name of its task."""
        return self.plan.name

    @property
    def priority(self) -> str:
        """Its class."""
        return PRIORITIES[self.rank]

    @property
    def is_finished(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in FINISHED

    async def wait(self, timeout_s: float | None = None) -> Job[R]:
        """This job, as soon as it is finished, however that was.

        Raises TimeoutError after `timeout_s`; the job goes on, also where the waiter is cancelled.
        """
        if self.status in FINISHED:
            return self
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters
        if waiters is None:
            with _BEGINNING:  # several threads may be the first
                waiters = self._waiters
                if waiters is None:
                    waiters = self._waiters = []
        waiters.append(waiter)
        if self.status in FINISHED:  # meanwhile: one may wait on the loop of another thread
            return self
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        finally:
            if waiter in waiters:
                waiters.remove(waiter)
        return self

    def result(self) -> R:
        """What the call returned.

        Raises what it raised; TaskTimeoutError where it took too long, JobCancelledError where it
        was cancelled or handed back, JobUnfinishedError where it has not finished.
        """
        status = self.status
        if status not in FINISHED:
            raise JobUnfinishedError(self.plan.name, self.id, status)
        if status in {CANCELLED, HANDED_BACK}:
            raise JobCancelledError(self.plan.name, self.id, status)
        error = self.error
        if status == FAILED and error is not None:
            try:
                # Each who asks would add his frames, with all that they hold, to the one traceback.
                traceback, error.__context__ = self._raised
                raise error.with_traceback(traceback)
            finally:
                del error, self  # no cycle of the error, its traceback and this frame
        value: R = self._value
        return value

    def cancel(self) -> bool:
        """Whether it will not run to its end for this; False where it has finished.

        What waits is cancelled at once, what runs gets CancelledError at its next `await`, and may
        end well for all that.  A function in a thread goes on there; its job is cancelled.
        """
        was_unwanted, self.is_unwanted = self.is_unwanted, True
        if self._owner.cancel(self):
            return True
        self.is_unwanted = was_unwanted
        return False

    def when_finished(self, tell: Callable[[Job[Any]], None]) -> None:
        """Call `tell` with this job as it finishes, or at once where it has; it must not raise."""
        if self.status in FINISHED:
            tell(self)
        elif self._told is None:
            self._told = [tell]
        else:
            self._told.append(tell)

    def describe(self) -> dict[str, Any]:
        """What an operator reads of it, JSON-able: without its arguments and its value."""
        seconds = {
            "waited_s": (self.started_us or self.finished_us or None, self.enqueued_us),
            "ran_s": (self.finished_us or None, self.started_us or None),
        }
        return {
            "id": self.id,
            "task": self.plan.name,
            "status": self.status,
            "priority": self.priority,
            "attempts": self.attempts,
            "retries": self.retries,
            "unique_key": self.unique_key,
            "error": None if self.error is None else told(self.error),
            **{
                name: None if end is None or start is None else (end - start) / US_PER_S
                for name, (end, start) in seconds.items()
            },
        }

    def settle(self, status: Status, value: Any, error: BaseException | None, now_us: int) -> None:
        """It is finished: whoever waits for it goes on."""
        self.status = status
        self._value = value
        self.error = error
        if error is not None:
            self._raised = error.__traceback__, error.__context__
        self.finished_us = now_us
        self.context = NO_CONTEXT  # with all that it holds of a request
        waiters = self._waiters
        if waiters is not None:
            self._waiters = None
            for waiter in waiters:
                loop = waiter.get_loop()
                if not loop.is_closed():  # it may be that of a thread: one may wait from anywhere
                    loop.call_soon_threadsafe(_set, waiter)
        told = self._told
        if told is not None:
            self._told = None
            for tell in told:
                tell(self)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
