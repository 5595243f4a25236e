"""`Journal`: durable tasks of one process, and the dead letters of all that share its file.

    new --open--> open --stop_feeding--> open --close--> closed
                  accepts, feeds         accepts

A file that cannot be written never stops the app: what would be accepted gets
JournalUnavailableError, what was accepted runs, and each look tries again.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.task_errors import JournalUnavailableError
from perf_middleware.tasks.journal.arguments import check_fit, packed
from perf_middleware.tasks.journal.entries import STATES, Entry, JournalLimits
from perf_middleware.tasks.journal.figures import JournalCounts, families
from perf_middleware.tasks.journal.runtime.feeder import Feeder
from perf_middleware.tasks.journal.runtime.writer import Writer
from perf_middleware.tasks.journal.stores.sqlite import SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from inspect import Signature
    from pathlib import Path

    from perf_middleware.errors import PerfMiddlewareError
    from perf_middleware.families import Family
    from perf_middleware.tasks.queue.decorators import Task
    from perf_middleware.tasks.queue.runtime import TaskQueue

logger = logging.getLogger("perf_middleware.tasks")

LOOK_EVERY_S: Final = 5.0  # for entries that have nobody, and at the figures of the file
US_PER_S: Final = 1_000_000


class Journal:
    """Accepts calls for good, and runs them by a task queue; used on its event loop."""

    def __init__(
        self,
        path: Path,
        queue: TaskQueue,
        limits: JournalLimits | None = None,
        *,
        is_synced: bool = True,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._path = path
        self._queue = queue
        self._limits = limits or JournalLimits()
        self._is_synced = is_synced
        self._look_every_s = look_every_s
        self._store: SqliteJournal | None = None
        self._writer: Writer | None = None
        self._feeder: Feeder | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._signatures: dict[str, tuple[Task[..., Any, Any], Signature]] = {}
        self._counts = JournalCounts()
        self._trouble = ""
        self.on_change: Callable[[bool, str], None] = _nobody

    async def accept(
        self,
        task: Task[..., Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        made_by: str = "",
    ) -> int:
        """The number of the entry that keeps this call, which will run at least once.

        Raises TaskArgumentsError for what is no JSON or does not fit, ValueError for a task that
        cannot be found by its name, JournalFullError, JournalUnavailableError.  A caller that is
        cancelled meanwhile does not know whether it was accepted.
        """
        if self._queue.named(task.name) is not task:
            raise ValueError(
                f"{task.name} cannot be found by its name after a restart: durable tasks are "
                "functions of a module, decorated by @perf.tasks.task, each with a name of its own"
            )
        signature = self._signature_of(task)
        arguments = packed(task.name, args, kwargs)
        check_fit(task.name, signature, args, kwargs)
        writer, feeder = self._writer, self._feeder
        if writer is None or feeder is None:
            self._counts.refused_unavailable += 1
            raise JournalUnavailableError("it is not open")
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def tell(entry: Entry | None, error: PerfMiddlewareError | None) -> None:
            if entry is not None:  # also where nobody waits any more: it is in the file
                self._counts.accepted += 1
                feeder.add(entry)
            if isinstance(error, JournalUnavailableError):
                self._counts.refused_unavailable += 1
                self._note(error.reason)
            elif error is not None:
                self._counts.refused_full += 1
            else:
                self._note("")
            if waiter.done():
                return
            if error is None and entry is not None:
                waiter.set_result(entry.number)
            elif error is not None:
                waiter.set_exception(error)

        writer.put(lambda store: store.accept(task.name, arguments, made_by), tell, is_synced=True)
        return await waiter

    def _signature_of(self, task: Task[..., Any, Any]) -> Signature:
        known = self._signatures.get(task.name)
        if known is None or known[0] is not task:
            known = self._signatures[task.name] = (task, inspect.signature(task.plan.call))
        return known[1]

    # --- dead letters ---------------------------------------------------------------------------

    async def dead_letters(self, *, limit: int = 100) -> list[dict[str, Any]]:
        """What will not run by itself, the oldest first: number, task, reason and the like.

        Raises JournalUnavailableError.
        """
        found: list[Entry] = await self._ask(lambda store: store.dead_letters(limit))
        return [
            {
                "number": entry.number, "task": entry.task, "reason": entry.reason,
                "made_by": entry.made_by, "starts": entry.starts, "state": STATES[entry.state],
                "arguments": entry.arguments.decode(errors="replace"),
                "accepted_s": entry.accepted_us / US_PER_S,
            }
            for entry in found
        ]  # fmt: skip

    async def replay(self, number: int) -> None:
        """Run a dead letter once more.  Raises KeyError where there is none of this number."""
        if not await self._ask(lambda store: store.revive(number)):
            raise KeyError(number)
        if self._feeder is not None:
            self._feeder.look_now()

    async def discard(self, number: int) -> None:
        """Forget a dead letter.  Raises KeyError where there is none of this number."""
        if not await self._ask(lambda store: store.discard(number)):
            raise KeyError(number)

    async def _ask(self, step: Any) -> Any:
        if self._writer is None:
            raise JournalUnavailableError("it is not open")
        return await self._writer.ask(step, is_synced=True)

    # --- looking --------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """State and counts, JSON-able; of the file, what was seen at the last look."""
        counts = self._counted()
        return {
            "path": str(self._path),
            "state": self._trouble or ("closed" if self._writer is None else "open"),
            "entries": counts.entries,
            "bytes": counts.kept_bytes,
            "dead_letters": counts.dead,
            "accepted": counts.accepted,
            "removed": counts.removed,
            "taken_over": counts.taken_over,
            "unregistered": {} if self._feeder is None else dict(self._feeder.unregistered),
        }

    def families(self) -> Iterable[Family]:
        """The families for a scrape."""
        return families(self._counted(), is_up=self._writer is not None and not self._trouble)

    def reset_counts(self) -> None:
        """Every count back to zero; what the file has is no count."""
        was = self._counts
        self._counts = JournalCounts(entries=was.entries, kept_bytes=was.kept_bytes, dead=was.dead)
        if self._feeder is not None:
            self._feeder.reset_counts()
        if self._writer is not None:
            self._writer.batches = self._writer.failures = 0

    def _counted(self) -> JournalCounts:
        counts, feeder, writer = self._counts, self._feeder, self._writer
        if feeder is not None:
            counts.removed, counts.buried = feeder.removed, feeder.buried
            counts.taken_over = feeder.taken_over
            counts.unregistered = sum(feeder.unregistered.values())
        if writer is not None:
            counts.batches, counts.failures = writer.batches, writer.failures
        return counts

    # --- its life -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Feed the queue with what the file has and what comes."""
        loop = asyncio.get_running_loop()
        self._store = SqliteJournal(self._path, self._limits, is_synced=self._is_synced)
        self._writer = Writer(self._store, loop)
        self._writer.start()
        self._feeder = Feeder(
            self._queue,
            self._writer,
            self._limits,
            signature_of=self._signature_of,
            look_every_s=self._look_every_s,
        )
        await self._look()
        for name, run in (("journal", self._feeder.run), ("journal looks", self._look_on)):
            self._tasks.append(loop.create_task(run(), name=f"perf_middleware: {name}"))

    def stop_feeding(self) -> None:
        """Nothing more enters the queue; what is accepted now is for the next start."""
        if self._feeder is not None:
            self._feeder.stop()

    async def close(self) -> None:
        """Hand back what has not run, to another process or the next start."""
        store, writer, feeder = self._store, self._writer, self._feeder
        if store is None or writer is None or feeder is None:
            return
        self._counted()
        self._store = self._writer = None
        feeder.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        in_threads = tuple(feeder.goes_on_in_thread)
        if store.is_open:
            with suppress(JournalUnavailableError):
                handed_back = await writer.ask(lambda file: file.hand_back(in_threads))
                self._counts.handed_back += handed_back
                if handed_back:
                    logger.warning("%d accepted tasks are left to the next start", handed_back)
        await writer.stop()
        store.close(keep_owner=bool(in_threads))
        self._feeder = None

    async def _look_on(self) -> None:
        self._tell()  # once more: what is not open yet has no state of its own that could change
        while True:
            await asyncio.sleep(self._look_every_s)
            await self._look()

    async def _look(self) -> None:
        if self._writer is None:
            return
        try:
            # Where the disk is full one can still read: that is no sign that it is over.
            picture = await self._writer.ask(
                SqliteJournal.tried if self._trouble else SqliteJournal.picture
            )
        except JournalUnavailableError as exc:
            self._note(exc.reason)
            return
        self._note("")
        counts = self._counts
        counts.entries, counts.kept_bytes, counts.dead = picture

    def _note(self, trouble: str) -> None:
        """Say it once for each change."""
        before, self._trouble = self._trouble, trouble
        if bool(trouble) == bool(before):
            return
        if trouble:
            logger.error("durable tasks are not accepted: %s", trouble)
        else:
            logger.info("durable tasks are accepted again")
        self._tell()

    def _tell(self) -> None:
        why = f"durable tasks are not accepted: {self._trouble}" if self._trouble else ""
        self.on_change(not self._trouble, why)


def _nobody(_is_up: bool, _why: str) -> None:
    """Nobody has asked to hear of it."""
