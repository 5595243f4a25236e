r"""Brings accepted entries into the task queue, and their ends into the journal.

    accept, claim -> ready -> queue -> begin -> the task -> end -> removed, or buried
                       \-> suspects: one at a time

What is ready or in the queue is bounded: the rest stays in the file until there is room.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.cancellation import is_being_cancelled
from perf_middleware.error_text import told
from perf_middleware.errors import PerfMiddlewareError
from perf_middleware.task_errors import (
    JobCancelledError,
    QueueClosedError,
    QueueFullError,
    TaskArgumentsError,
)
from perf_middleware.tasks.journal.arguments import check_fit, unpacked
from perf_middleware.tasks.journal.entries import Entry, end_of, is_poison, is_suspect
from perf_middleware.tasks.queue.runtime.job import MADE_BY

if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Signature

    from perf_middleware.tasks.journal.entries import JournalLimits
    from perf_middleware.tasks.journal.runtime.writer import Writer
    from perf_middleware.tasks.journal.stores.sqlite import Step
    from perf_middleware.tasks.queue.decorators import Task
    from perf_middleware.tasks.queue.runtime import TaskQueue
    from perf_middleware.tasks.queue.runtime.job import Job

logger = logging.getLogger("perf_middleware.tasks")

LOADED_MAX: Final = 1_000  # entries in memory: those that are ready, and those in the queue
ROOM_WAIT_S: Final = 5.0  # the queue is full: how long to wait for room, before waiting again
RETRY_S: Final = 1.0  # after the journal could not be written


class Held:
    """An entry that this process has in its queue."""

    __slots__ = ("entry", "has_begun", "is_over", "is_suspect")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.has_begun = False
        self.is_over = False
        self.is_suspect = is_suspect(entry.starts)


class Feeder:
    """Feeds one queue from one journal, while `run` runs."""

    def __init__(
        self,
        queue: TaskQueue,
        writer: Writer,
        limits: JournalLimits,
        *,
        signature_of: Callable[[Task[..., Any, Any]], Signature],
        look_every_s: float,
    ) -> None:
        self._queue = queue
        self._writer = writer
        self._limits = limits
        self._signature_of = signature_of
        self._look_every_s = look_every_s
        self._ready: deque[Entry] = deque()
        self._suspects: deque[Entry] = deque()
        self._held: set[Held] = set()
        self._suspect_runs = False
        self._known: set[tuple[str, int]] = set()  # loaded, and not written to be over
        self._owner = ""
        self._last_loaded = self._last_accepted = 0
        self._has_more = False
        self._is_stopped = False
        self._wakes = asyncio.Event()
        self._look_s = 0.0
        self._unregistered_since: dict[str, float] = {}
        self.unregistered: dict[str, int] = {}
        self.goes_on_in_thread: list[int] = []
        self.reset_counts()

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.removed = self.buried = self.taken_over = 0

    def add(self, entry: Entry) -> None:
        """This process has accepted `entry`."""
        if entry.owner != self._owner:  # a file that was begun anew counts from 1 again
            self._owner, self._last_loaded = entry.owner, 0
        self._last_accepted = entry.number
        if self._has_more or self._loaded() >= LOADED_MAX:
            self._has_more = True  # it comes back from the file, in its order
            return
        self._last_loaded = entry.number
        self._take([entry])
        self._wakes.set()

    def stop(self) -> None:
        """Nothing more enters the queue."""
        self._is_stopped = True
        self._wakes.set()

    def look_now(self) -> None:
        """There may be an entry that has nobody."""
        self._look_s = 0.0
        self._wakes.set()

    async def run(self) -> None:
        """Feed until stopped."""
        while not self._is_stopped:
            try:
                await self._feed()
            except Exception:
                # Else what is accepted from now on would run at the next start only.
                logger.exception("feeding durable tasks failed; it is tried again")
                await asyncio.sleep(RETRY_S)

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        self._wakes.clear()
        if loop.time() >= self._look_s and self._loaded() < LOADED_MAX:
            self._look_s = loop.time() + self._look_every_s
            await self._claim()
        if self._has_more and not self._ready and self._loaded() < LOADED_MAX:
            await self._load()
        entry = self._next()
        if entry is not None:
            try:
                await self._submit(entry)
            except Exception as exc:
                # Whatever is wrong with one, the others run.
                logger.exception("the accepted task %s could not be begun", entry.task)
                self._bury(entry, told(exc), is_told=True)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._look_s - loop.time()) or RETRY_S):
                await self._wakes.wait()

    def _loaded(self) -> int:
        return len(self._ready) + len(self._suspects) + len(self._held)

    def _next(self) -> Entry | None:
        if self._suspects and not self._suspect_runs:
            return self._suspects.popleft()
        while self._ready:
            entry = self._ready.popleft()
            if not (is_suspect(entry.starts) and self._suspect_runs):
                return entry
            self._suspects.append(entry)
        return None

    async def _claim(self) -> None:
        limit, known = LOADED_MAX - self._loaded(), self._queue.names()
        wanted = [*known, *self._nobodys()]
        try:
            claimed, others = await self._writer.ask(
                lambda store: (store.claim(limit, wanted), store.unclaimed(known))
            )
        except PerfMiddlewareError:
            return  # told by the journal, which asks again
        self._note_unregistered(others)
        self.taken_over += len(claimed)
        if claimed:
            logger.info("%d accepted tasks that had nobody any more are run here", len(claimed))
        self._take(claimed)

    def _nobodys(self) -> list[str]:
        """Tasks for whose entries nobody came in time: they are claimed to be buried."""
        before_s = asyncio.get_running_loop().time() - self._limits.unregistered_s
        return [task for task, s in self._unregistered_since.items() if s <= before_s]

    def _note_unregistered(self, others: dict[str, int]) -> None:
        """Another service may share the file, or another version of this one, and know them."""
        since, now_s = self._unregistered_since, asyncio.get_running_loop().time()
        self.unregistered = others
        for task, count in others.items():
            if task not in since:
                logger.warning(
                    "%d accepted tasks are of %s, which is not registered here: they are left to a "
                    "process that knows it, and dead letters in %g s",
                    count, task, self._limits.unregistered_s,
                )  # fmt: skip
        self._unregistered_since = {task: since.get(task, now_s) for task in others}

    async def _load(self) -> None:
        after, limit = self._last_loaded, LOADED_MAX - self._loaded()
        try:
            own: list[Entry] = await self._writer.ask(lambda store: store.own_after(after, limit))
        except PerfMiddlewareError:
            await asyncio.sleep(RETRY_S)
            return
        if own:
            self._last_loaded = own[-1].number
        self._has_more = len(own) >= limit or self._last_accepted > self._last_loaded
        self._take([entry for entry in own if (entry.owner, entry.number) not in self._known])

    def _take(self, entries: list[Entry]) -> None:
        self._known.update((entry.owner, entry.number) for entry in entries)
        self._ready.extend(entries)

    # --- into the queue -------------------------------------------------------------------------

    async def _submit(self, entry: Entry) -> None:
        if is_poison(entry.starts, self._limits):
            self._bury(
                entry,
                f"its process ended {entry.starts} times while it ran, without telling its end",
            )
            return
        task = self._queue.named(entry.task)
        if task is None:
            self._bury(entry, "no task of this name is registered any more")
            return
        try:
            args, kwargs = unpacked(entry.task, entry.arguments)
            check_fit(entry.task, self._signature_of(task), args, kwargs)
        except TaskArgumentsError as exc:
            self._bury(entry, str(exc))
            return
        held = Held(entry)
        prepared = task.around(self._marking(held, task)).options(wait_s=ROOM_WAIT_S)
        self._held.add(held)
        self._suspect_runs = self._suspect_runs or held.is_suspect
        MADE_BY.set(entry.made_by or None)
        while True:
            try:
                job = await prepared.enqueue(*args, **kwargs)
            except QueueFullError:
                continue
            except QueueClosedError:
                self._is_stopped = True  # it stays in the file, for the next start
                return
            except BaseException:
                self._let_go(held)
                raise
            break
        job.when_finished(partial(self._finished, held))

    def _marking(self, held: Held, task: Task[..., Any, Any]) -> Callable[..., Any]:
        """The task's function, which the journal knows to have begun before it does."""
        call = task.plan.call
        if task.plan.is_threaded:

            def begun_in_thread(*args: Any, **kwargs: Any) -> Any:
                if not held.has_begun:
                    held.has_begun = True
                    # Its job may be over before a thread was free: then it is somebody else's.
                    if held.is_over:
                        raise JobCancelledError(task.name, str(held.entry.number), "handed_back")
                    self._writer.ask_from_thread(lambda store: store.begin(held.entry))
                try:
                    return call(*args, **kwargs)
                except asyncio.CancelledError as exc:
                    raise _own_cancellation(task.name) from exc

            return begun_in_thread

        async def begun(*args: Any, **kwargs: Any) -> Any:
            if not held.has_begun:
                held.has_begun = True
                # Where it cannot be written the task runs all the same: it was accepted.
                with suppress(PerfMiddlewareError):
                    await self._writer.ask(lambda store: store.begin(held.entry))
            try:
                return await call(*args, **kwargs)
            except asyncio.CancelledError as exc:
                if is_being_cancelled():
                    raise
                raise _own_cancellation(task.name) from exc

        return begun

    # --- out of the queue -----------------------------------------------------------------------

    def _finished(self, held: Held, job: Job[Any]) -> None:
        held.is_over = True
        self._let_go(held)
        self._wakes.set()
        end = end_of(job.status, is_unwanted=job.is_unwanted)
        entry = held.entry
        if end == "gone":
            self.removed += 1
            self._write(entry, lambda store: store.remove(entry))
        elif end == "dead":
            assert job.error is not None  # noqa: S101 - it has failed
            self._bury(entry, told(job.error), is_told=True)
        elif job.is_threaded and held.has_begun:
            # A thread cannot be stopped: nobody else may have it while this process lives.
            self.goes_on_in_thread.append(entry.number)

    def _let_go(self, held: Held) -> None:
        self._held.discard(held)
        if held.is_suspect:
            self._suspect_runs = False

    def _bury(self, entry: Entry, reason: str, *, is_told: bool = False) -> None:
        self.buried += 1
        if not is_told:  # the queue has told of a job that failed
            logger.error(
                "the accepted task %s (entry %d%s) is a dead letter: %s",
                entry.task, entry.number, f" of {entry.made_by}" if entry.made_by else "", reason,
            )  # fmt: skip
        self._write(entry, lambda store: store.bury(entry, reason))

    def _write(self, entry: Entry, step: Step) -> None:
        """`entry` is over.  Until it is written: else a task that has run would run again."""

        def tell(_value: Any, error: PerfMiddlewareError | None) -> None:
            if error is None:
                self._known.discard((entry.owner, entry.number))
            elif not self._is_stopped:
                asyncio.get_running_loop().call_later(RETRY_S, self._write, entry, step)

        self._writer.put(step, tell)


def _own_cancellation(task: str) -> RuntimeError:
    """For a task that raised CancelledError itself, of something that it waited for.

    What is cancelled from outside is left to the next start: this would be, for ever and untold.
    """
    return RuntimeError(f"{task} raised CancelledError, and nobody had cancelled it")
