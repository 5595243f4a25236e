"""`Tasks`: the queue of an app with its background tasks and its journal, as `perf.tasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from perf_middleware.task_errors import JournalUnavailableError
from perf_middleware.tasks.background.runtime import Origins
from perf_middleware.tasks.journal.runtime import LOOK_EVERY_S, Journal
from perf_middleware.tasks.queue.decorators import Task
from perf_middleware.tasks.queue.runtime import TaskQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from starlette.requests import HTTPConnection

    from perf_middleware.families import Family
    from perf_middleware.resource import Background
    from perf_middleware.tasks.journal.entries import JournalLimits
    from perf_middleware.tasks.queue.options import QueueLimits
    from perf_middleware.tasks.queue.runtime.job import Job

P = ParamSpec("P")
R = TypeVar("R")


class Tasks(TaskQueue):
    """A task queue that knows by which request a job was made, and keeps durable ones in a file.

    `journal_path` is that file's; without it there are no durable tasks.  `background_priority` is
    the class of functions that are no tasks.  Used alone as `async with Tasks(...) as tasks`; what
    else it takes is as TaskQueue says.
    """

    def __init__(
        self,
        limits: QueueLimits | None = None,
        *,
        background_priority: str = "normal",
        journal_path: Path | None = None,
        journal_limits: JournalLimits | None = None,
        journal_is_synced: bool = True,
        journal_look_every_s: float = LOOK_EVERY_S,
        **options: Any,
    ) -> None:
        super().__init__(limits, **options)
        self._background_priority = background_priority
        self._origins = Origins()
        self._journal: Journal | None = None
        if journal_path is not None:
            self._journal = Journal(
                journal_path, self, journal_limits, is_synced=journal_is_synced,
                look_every_s=journal_look_every_s,
            )  # fmt: skip

    def when_journal_changes(self, tell: Callable[[bool, str], None]) -> None:
        """Call `tell(is_up, why)` as durable tasks are accepted no more, and again."""
        if self._journal is not None:
            self._journal.on_change = tell

    @property
    def is_new(self) -> bool:
        """Whether it has never been opened: what it accepts waits until it is."""
        return self._engine.state == "new"

    @property
    def journal(self) -> Journal:
        """Of the durable tasks.  Raises JournalUnavailableError where there is none."""
        if self._journal is None:
            raise JournalUnavailableError(
                "durable tasks need a file: PERFORMANCE_TASKS_JOURNAL_PATH", retry_after_s=None
            )
        return self._journal

    @overload
    async def background(  # type: ignore[overload-overlap]  # durable= is never the function's own
        self,
        request: HTTPConnection[Any] | None,
        call: Callable[..., Any],
        /,
        *args: Any,
        durable: Literal[True],
        **kwargs: Any,
    ) -> int: ...
    @overload
    async def background(
        self,
        request: HTTPConnection[Any] | None,
        call: Callable[P, Awaitable[R] | R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Job[R]: ...
    async def background(  # type: ignore[misc]  # the same
        self,
        request: HTTPConnection[Any] | None,
        call: Callable[..., Any],
        /,
        *args: Any,
        durable: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call `call` behind the answer to `request`; it may begin before that is sent.

        Gives the Job; with `durable` the number of its entry in the journal, as soon as the file
        has it: then it runs at least once, whatever becomes of this process.

        Raises QueueFullError and QueueClosedError as `enqueue` does; durable: as `Journal.accept`.
        """
        if durable:
            return await self.accept_durable(request, call, args, kwargs)
        return await self.enqueue_background(request, call, args, kwargs)

    async def enqueue_background(
        self,
        request: HTTPConnection[Any] | None,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Job[Any]:
        """As `background`, with the arguments apart."""
        task: Task[..., Any, Any]
        if isinstance(call, Task):
            task = call
        else:
            # No timeout: nobody has asked for one, and Starlette's background tasks have none.
            plan = self._plan(call, None, self._background_priority, 0, None, Exception)
            task = Task(call, plan, self._engine)
        with self._origins.making(request) as counts:
            job = await task.enqueue(*args, **kwargs)
        self._origins.follow(counts, job)
        return job

    async def accept_durable(
        self,
        request: HTTPConnection[Any] | None,
        task: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> int:
        """As `background` with `durable`, with the arguments apart."""
        if not isinstance(task, Task):
            raise TypeError(f"only tasks can be durable: decorate {task!r} by @perf.tasks.task")
        made_by = self._origins.name_of(request)
        number = await self.journal.accept(task, args, dict(kwargs), made_by)
        counts = self._origins.counts.of(made_by)
        counts.accepted += 1
        counts.durable += 1
        return number

    def note_in_place(self, request: HTTPConnection[Any] | None) -> None:
        """The queue took none, and the call is made with the response instead."""
        self._origins.counts.of(self._origins.name_of(request)).in_place += 1

    # --- looking --------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """As the queue's, with background tasks by request, and the journal."""
        return super().status() | {
            "background": self._origins.counts.status(),
            "journal": None if self._journal is None else self._journal.status(),
        }

    def families(self) -> Iterable[Family]:
        """The families for a scrape."""
        yield from super().families()
        yield from self._origins.counts.families()
        if self._journal is not None:
            yield from self._journal.families()

    def reset_counts(self) -> None:
        """Every count back to zero; jobs and entries stay."""
        super().reset_counts()
        self._origins.counts.reset()
        if self._journal is not None:
            self._journal.reset_counts()

    # --- its life -------------------------------------------------------------------------------

    async def open(self, background: Background | None = None) -> None:
        """Run what was accepted, also by processes that are gone, and what comes."""
        await super().open(background)
        if self._journal is not None and self._engine.state == "open":
            await self._journal.open()

    async def drain(self) -> None:
        """Accept nothing more but durable tasks, which are left to the next start."""
        if self._journal is not None:
            self._journal.stop_feeding()
        await super().drain()

    async def close(self) -> None:
        """Drain, hand back what has not run, and leave nothing behind."""
        try:
            if self._journal is not None:
                self._journal.stop_feeding()
            await super().close()
        finally:
            if self._journal is not None:
                await self._journal.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
