"""What follows a commit: its tags are purged everywhere before the commit returns to its caller.

    announced -> COMMIT -> tags -> purgers, one after the other -> all have heard -> its caller
                           ^ commits that come meanwhile gather, and are one purge   goes on

What is announced is purged by others where this process cannot, because it is killed for one.

Where the commit is decides how it waits: on an async engine as SQLAlchemy itself does, in a thread
for the event loop, for some seconds at most.  On the event loop's own thread a sync engine cannot
wait: memory is purged at once, and the response of the request waits for the rest (`settle`).
A purge that is begun is finished, whoever is cancelled; one that fails never fails the commit.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio.from_thread

from perf_middleware.database.tables.touched import write_tags
from perf_middleware.families import NO_LABELS, Family, Value, counter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from typing import TypeAlias

    from perf_middleware.database.tables.touched import Tables
    from perf_middleware.fleet.announcing import Announced

    Tags: TypeAlias = frozenset[str]
    Purge: TypeAlias = Callable[[Tags], Awaitable[object]]
    PurgeAtOnce: TypeAlias = Callable[[Tags], object]

logger = logging.getLogger("perf_middleware.database")

THREAD_WAITS_S: Final = 5.0  # a loop that answers later is blocked, perhaps by this very thread
SETTLE_S: Final = 30.0  # purgers have time limits themselves, below that in all


@dataclass(frozen=True, slots=True)
class Purger:
    """One that forgets by tags; `at_once` is its part that needs no waiting, `owe` remembers the
    rest for later.
    """

    purge: Purge
    at_once: PurgeAtOnce | None
    owe: PurgeAtOnce | None
    is_last: bool


@dataclass(slots=True)
class Batch:
    """The tags of commits that are purged together."""

    tags: set[str] = field(default_factory=set)
    announced: list[Announced] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class CommitPurges:
    """Called with the written tables where a commit was; waits for its purgers."""

    def __init__(
        self,
        *,
        is_in_a_request: Callable[[], bool] = lambda: False,
        thread_waits_s: float = THREAD_WAITS_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._is_in_a_request = is_in_a_request
        self._thread_waits_s = thread_waits_s
        self._settle_s = settle_s
        self._purgers: list[Purger] = []
        self._afterwards: list[Callable[[], Awaitable[object]]] = []
        self.lift: Callable[[Collection[Announced]], Awaitable[object]] | None = None
        """Takes back what was announced of commits, once it is purged."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._gathering: Batch | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._unawaited: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()
        self.reset_counts()

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.rounds = 0
        self.failures = 0
        self.unawaited = 0

    def add(
        self,
        purge: Purge,
        *,
        at_once: PurgeAtOnce | None = None,
        owe: PurgeAtOnce | None = None,
        is_last: bool = False,
    ) -> None:
        """Await `purge(tags)` at each commit that writes, after those added before.

        `at_once(tags)` is called where nobody can wait: it forgets in memory; `owe(tags)` behind it
        where no event loop would make up for the rest.
        `is_last`: after all that are not.  What is made of other kept things is to be purged after
        them, or it is made of the old ones again.
        """
        self._purgers.append(Purger(purge, at_once, owe, is_last))
        self._purgers.sort(key=lambda purger: purger.is_last)

    def then(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Await this after the purges of each round: until all processes have heard of them."""
        self._afterwards.append(wait)

    def bind(self) -> None:
        """What is purged belongs to the event loop that runs now."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._turn, self._gathering = asyncio.Lock(), None
            self._running, self._unawaited = set(), set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """What is purged belongs to this one, where it runs."""
        loop = self._loop
        return None if loop is None or loop.is_closed() or not loop.is_running() else loop

    @property
    def are_any(self) -> bool:
        """Whether there is anything to purge."""
        return bool(self._purgers)

    # --- where a commit was -----------------------------------------------------------------------

    def __call__(self, written: Tables, announced: Announced | None = None) -> None:
        """Purge what depends on `written`, and wait for it as far as this place allows."""
        from sqlalchemy.util.concurrency import await_only, in_greenlet

        if not self._purgers:
            return
        tags = write_tags(written)
        if in_greenlet():
            await_only(self.purged(tags, announced))
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._from_a_thread(tags, announced)
        else:
            self._on_the_loop(tags)

    async def purged(self, tags: Iterable[str], announced: Announced | None = None) -> None:
        """Return when `tags` are purged; cancelled, it goes on without its caller."""
        await self._there(lambda: asyncio.shield(self._begun(tags, announced)))

    async def purge_for_others(self, tags: Iterable[str]) -> None:
        """Purge what a writer of another process has announced and not done; nobody is waited for.

        Raises what a purger raises.
        """
        await self._there(lambda: self._purged_for_others(frozenset(tags)))

    async def settle(self) -> None:
        """Wait for what could not be waited for where it was committed: what was before this, and
        for so long at most; what takes longer goes on, and is told.
        """
        unawaited = list(self._unawaited)
        if not unawaited:
            return
        _, pending = await asyncio.wait(unawaited, timeout=self._settle_s)
        if pending:
            self._tell_unawaited(
                "settle", f"a response has waited {self._settle_s:g} s for the purge of what its "
                "request has changed, and goes on: other processes hear of it later",
            )  # fmt: skip

    @property
    def is_settled(self) -> bool:
        """Whether `settle` would not wait."""
        return not self._unawaited

    # --- within -----------------------------------------------------------------------------------

    async def _there(self, do: Callable[[], Awaitable[None]]) -> None:
        async def done() -> None:
            await do()

        loop = self.loop
        if loop is None:  # none, or one that stands still and would never answer
            self.bind()
        elif loop is not asyncio.get_running_loop():
            future = asyncio.run_coroutine_threadsafe(done(), loop)
            await asyncio.shield(asyncio.wrap_future(future))
            return
        await do()

    async def _purged_for_others(self, tags: Tags) -> None:
        async with self._turn:
            for purger in self._purgers:
                await purger.purge(tags)

    def _from_a_thread(self, tags: Tags, announced: Announced | None = None) -> None:
        loop = self.loop
        if loop is None:
            self._without_a_loop(tags)
            return
        future = asyncio.run_coroutine_threadsafe(self.purged(tags, announced), loop)
        try:
            future.result(self._thread_waits_s)
        except concurrent.futures.TimeoutError:
            self._tell_unawaited(
                "thread", f"a commit in a thread has waited {self._thread_waits_s:g} s for the "
                "event loop, and goes on: what it has changed is purged later",
            )  # fmt: skip

    def _on_the_loop(self, tags: Tags) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop.is_closed():
            self.bind()
        if self._loop is not loop:
            self._from_a_thread(tags)
            return
        self._at_once(tags)
        task = self._begun(tags)
        self._unawaited.add(task)
        task.add_done_callback(self._unawaited.discard)
        if not self._is_in_a_request():
            self._tell_unawaited(
                "loop", "a sync engine has committed on the event loop's own thread, which cannot "
                "wait: other processes hear of it a moment later",
            )  # fmt: skip

    def _without_a_loop(self, tags: Tags) -> None:
        try:
            anyio.from_thread.run_sync(self._at_once, tags, True)
        except RuntimeError:  # no thread of anyio's: nobody else is there
            self._at_once(tags, True)

    def _at_once(self, tags: Tags, is_owed: bool = False) -> None:
        for purger in self._purgers:
            for do in (purger.at_once, purger.owe if is_owed else None):
                if do is None:
                    continue
                try:
                    do(tags)
                except Exception as error:  # noqa: BLE001 - the commit stands, whatever fails
                    self._failed(error)

    def _begun(self, tags: Iterable[str], announced: Announced | None = None) -> asyncio.Task[None]:
        batch = self._gathering
        if batch is None:
            batch = self._gathering = Batch()
            batch.task = asyncio.create_task(self._round(batch), name="perf_middleware: purge")
            self._running.add(batch.task)
            batch.task.add_done_callback(self._running.discard)
        batch.tags.update(tags)
        if announced is not None:
            batch.announced.append(announced)
        assert batch.task is not None  # noqa: S101 - made with it
        return batch.task

    async def _round(self, batch: Batch) -> None:
        async with self._turn:
            self._gathering = None
            self.rounds += 1
            tags = frozenset(batch.tags)
            for purger in self._purgers:
                await self._tried(purger.purge(tags))
        waits = [wait() for wait in self._afterwards]  # the next round need not wait for this
        if batch.announced and self.lift is not None:
            waits.append(self.lift(batch.announced))
        await asyncio.gather(*map(self._tried, waits))

    async def _tried(self, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the commit stands, whatever fails
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        logger.error("a purge after a commit failed; the commit itself is done", exc_info=error)

    def _tell_unawaited(self, kind: str, text: str) -> None:
        self.unawaited += 1
        if kind not in self._told:
            self._told.add(kind)
            logger.warning("%s", text)

    # --- what operators see -----------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {"rounds": self.rounds, "failures": self.failures, "unawaited": self.unawaited}

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        yield counter(
            "perf_database_purge_rounds",
            "Purges after commits; commits at the same time share one.",
            [Value(NO_LABELS, self.rounds)],
        )
        yield counter(
            "perf_database_purge_failures",
            "Purgers that failed after a commit.",
            [Value(NO_LABELS, self.failures)],
        )
        yield counter(
            "perf_database_purges_unawaited",
            "Commits that went on before all processes had heard of them.",
            [Value(NO_LABELS, self.unawaited)],
        )
