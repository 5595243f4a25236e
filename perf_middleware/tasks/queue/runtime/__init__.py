"""`TaskQueue`: what is accepted, what became of it, and the end of both.

    new --open--> open --drain--> draining --close--> closed --open--> open ...
    accepts       accepts,        accepts nothing,    accepts
    up to its     runs            runs what it has    nothing
    bounds                        until its deadline

Before it is open it accepts, and runs when it is: what an app enqueues while it starts is not lost.
It needs asyncio, and is used on the event loop that opened it.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, Self, TypeVar, overload

from perf_middleware.clock import monotonic_us
from perf_middleware.tasks.queue.decorators import (
    AsyncTask,
    Task,
    function_in,
    is_async,
    name_of,
    yields,
)
from perf_middleware.tasks.queue.figures import families
from perf_middleware.tasks.queue.options import (
    AS_SET,
    NAME_CHARS_MAX,
    AsSet,
    Plan,
    QueueLimits,
    checked_retries,
    checked_retry_on,
    microseconds,
    rank_of,
)
from perf_middleware.tasks.queue.order import PRIORITIES
from perf_middleware.tasks.queue.runtime.engine import Engine
from perf_middleware.tasks.queue.states import FAILED, HANDED_BACK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
    from contextvars import ContextVar
    from types import TracebackType

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.resource import Background
    from perf_middleware.tasks.queue.runtime.job import Job
    from perf_middleware.tasks.queue.states import Status

P = ParamSpec("P")
R = TypeVar("R")
TASKS_TOLD: Final = 20
NAMED_MAX: Final = 10_000  # tasks of an app; those beyond that (made per request) have no name


class Decorator(Protocol):
    """What `queue.task(...)` gives."""

    @overload
    def __call__(self, call: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, call: Callable[P, R], /) -> Task[P, R, R]: ...


class TaskQueue:
    """Accepts calls, runs them by a bounded number of workers, and tells what became of them.

    Used alone as `async with TaskQueue(QueueLimits(workers=4)) as queue`, or as `perf.tasks`.
    `level()` is the overload level (0, 1, 2) that less urgent jobs pause by; `left_out` are context
    variables of the caller that a job must not see, each with the value that it sees instead;
    `trace_id()` names the trace of a context, for the log.
    """

    name = "task queue"
    required = False

    def __init__(
        self,
        limits: QueueLimits | None = None,
        *,
        level: Callable[[], int] | None = None,
        left_out: Sequence[tuple[ContextVar[Any], object]] = (),
        trace_id: Callable[[], str | None] | None = None,
        clock: Clock = monotonic_us,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._engine = Engine(
            limits or QueueLimits(), level=level, left_out=left_out, trace_id=trace_id, clock=clock,
            draw=draw,
        )  # fmt: skip
        self._named: dict[str, Task[..., Any, Any]] = {}
        self._replayed: set[str] = set()

    @property
    def limits(self) -> QueueLimits:
        """The bounds that hold."""
        return self._engine.limits

    # --- decorating and enqueuing ---------------------------------------------------------------

    @overload
    def task(self, call: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, call: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        priority: str = "normal",
        retries: int = 0,
        timeout_s: float | AsSet | None = AS_SET,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> Decorator: ...
    def task(
        self,
        call: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        priority: str = "normal",
        retries: int = 0,
        timeout_s: float | AsSet | None = AS_SET,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> Any:
        """Decorate a function whose calls may be enqueued; others run in threads than async ones.

        Or a classmethod or staticmethod: it stands above those.
        retries: how often a job is tried again after an error of `retry_on`, with a random delay
        that grows.  timeout_s: of each attempt, None for none; left out, as the queue's.
        Raises ValueError for what cannot be, TypeError for what is no function.
        """

        def decorate(given: Any) -> Any:
            function = function_in(given)
            kind = AsyncTask if is_async(function) else Task
            plan = self._plan(function, name, priority, retries, timeout_s, retry_on)
            of_class = isinstance(given, classmethod)
            task: Task[..., Any, Any] = kind(function, plan, self._engine, of_class=of_class)
            if len(self._named) < NAMED_MAX or plan.name in self._named:
                self._named[plan.name] = task
            return staticmethod(task) if isinstance(given, staticmethod) else task

        return decorate if call is None else decorate(call)

    async def submit(
        self,
        call: Callable[[], Awaitable[R] | R],
        *,
        name: str | None = None,
        priority: str = "normal",
        retries: int = 0,
        timeout_s: float | AsSet | None = AS_SET,
        delay_s: float | None = None,
        unique_key: str | None = None,
        wait_s: float | None = None,
    ) -> Job[R]:
        """The job that will run `call()`, which nobody has decorated.

        Raises as `Task.options` and `Task.enqueue` do.
        """
        plan = self._plan(call, name, priority, retries, timeout_s, Exception)
        task: Task[[], Any, R] = Task(call, plan, self._engine)
        prepared = task.options(delay_s=delay_s, unique_key=unique_key, wait_s=wait_s)
        return await prepared.enqueue()

    def _plan(
        self,
        call: Callable[..., Any],
        name: str | None,
        priority: str,
        retries: int,
        timeout_s: float | AsSet | None,
        retry_on: type[Exception] | tuple[type[Exception], ...],
    ) -> Plan:
        if not callable(call):
            raise TypeError(
                f"a task is a function, and its arguments are given beside it: not {call!r:.100}"
            )
        if yields(call):
            raise TypeError(
                f"{name_of(call)} is a generator function: called as a task it would do nothing"
            )
        name = (name or name_of(call))[:NAME_CHARS_MAX]
        if isinstance(timeout_s, AsSet):
            timeout_s = self._engine.limits.timeout_s
        return Plan(
            name=name,
            call=call,
            is_threaded=not is_async(call),
            counts=self._engine.counts.of(name),
            rank=rank_of(priority),
            retries=checked_retries(retries),
            timeout_us=microseconds("timeout_s", timeout_s),
            retry_on=checked_retry_on(retry_on),
        )

    def named(self, name: str) -> Task[..., Any, Any] | None:
        """The task that was decorated last under `name`."""
        return self._named.get(name)

    def names(self) -> list[str]:
        """Of the tasks that `named` finds."""
        return list(self._named)

    # --- looking ----------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job[Any] | None:
        """The job with this id; None where it is unknown, or has finished too long ago."""
        return self._engine.table.get(job_id, self._engine.clock())

    def jobs(
        self, *, status: Status | None = None, task: str | None = None, limit: int = 100
    ) -> list[Job[Any]]:
        """Some of the known jobs, the newest first."""
        return self._engine.table.listed(
            self._engine.clock(), status=status, task=task, limit=limit
        )

    def dead_letters(self, *, limit: int = 100) -> list[Job[Any]]:
        """Jobs that failed for good and may be replayed, the oldest first."""
        return list(islice(self._engine.table.dead, limit))

    async def replay(self, job_id: str) -> Job[Any]:
        """A new job for the call of a dead letter, or of a job that was handed back.

        The old one is forgotten.  Raises KeyError where there is none with this id, or it is being
        replayed, QueueFullError and QueueClosedError as `enqueue` does; then it stays.
        """
        old = self.get(job_id)
        if old is None or old.status not in {FAILED, HANDED_BACK} or job_id in self._replayed:
            raise KeyError(job_id)
        self._replayed.add(job_id)  # while this one waits for room nobody else replays it
        try:
            job = await self._engine.accept_in_time(
                old.plan, old.args, old.kwargs, old.rank, old.retries, old.timeout_us, 0,
                old.unique_key, None,
            )  # fmt: skip
            self._engine.table.take_again(job_id)
        finally:
            self._replayed.discard(job_id)
        return job

    def status(self) -> dict[str, Any]:
        """State, backlog and totals, JSON-able; of the tasks, those that were enqueued most."""
        engine = self._engine
        counts = engine.counts
        most = sorted(counts.all(), key=lambda each: each.enqueued, reverse=True)[:TASKS_TOLD]
        return {
            "state": engine.state,
            "in_progress": sum(engine.order.at_work),
            "backlog": dict(zip(PRIORITIES, engine.order.waiting, strict=True)),
            "backlog_bytes": engine.backlog.bytes,
            "scheduled": len(engine.backlog.due),
            "finished": len(engine.table.finished),
            "dead_letters": len(engine.table.dead),
            "handed_back": len(engine.table.handed_back),
            "tasks": {each.name: each.status() for each in most},
        }

    def families(self) -> Iterable[Family]:
        """The families for a scrape."""
        engine = self._engine
        engine.table.trim(engine.clock())
        return families(
            engine.counts,
            waiting=engine.order.waiting,
            scheduled=len(engine.backlog.due),
            backlog_bytes=engine.backlog.bytes,
            finished=len(engine.table.finished),
            dead=len(engine.table.dead),
            threads=engine.order.threads,
        )

    def reset_counts(self) -> None:
        """Every count back to zero; jobs stay."""
        self._engine.counts.reset()

    # --- its life -------------------------------------------------------------------------------

    async def open(self, background: Background | None = None) -> None:
        """Run what was accepted, and what comes.  Raises RuntimeError where it is open."""
        self._engine.open()

    async def drain(self) -> None:
        """Accept nothing more, run what was accepted until the deadline, end the rest."""
        await self._engine.drain()

    async def close(self) -> None:
        """Drain, and leave nothing behind."""
        await self._engine.close()

    def switch_off(self) -> None:
        """Nobody will open it: it takes no jobs."""
        self._engine.state = "switched off (tasks.enabled)"

    async def __aenter__(self) -> Self:
        self._engine.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._engine.close()
