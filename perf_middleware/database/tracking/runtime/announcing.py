"""What comes before a commit: what it will purge is announced, so that others can where it cannot.

    written tables -> tags -> announced in Redis -> COMMIT (-> purged, lifted: purges.py)
                              `- not possible: COMMIT all the same, or refused

An announcement is waited for with the transaction open: one round trip, and where Redis is known to
be away nothing.  One that is answered late says little about what is true by then: it is made anew.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from typing import TYPE_CHECKING, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.database.tables.touched import write_tags
from perf_middleware.errors import (
    StoreRefusedError,
    StoreUnavailableError,
    UnannouncedWriteError,
)
from perf_middleware.families import NO_LABELS, Value, counter
from perf_middleware.fleet.drivers.port import STORE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from perf_middleware.clock import Clock
    from perf_middleware.database.tables.touched import Tables
    from perf_middleware.database.tracking.runtime.purges import CommitPurges
    from perf_middleware.families import Family
    from perf_middleware.fleet.announcing import Announced

logger = logging.getLogger("perf_middleware.database")

TIMES_MAX: Final = 3
WAITS_S: Final = 1.0  # who refuses gives Redis so long to come back; a thread its event loop
LOOK_AGAIN_S: Final = 0.02
RETRY_AFTER_S: Final = 5


class CommitAnnouncements:
    """Called with the written tables right before their COMMIT; does nothing before `announce_by`.

    `refuses`: raise UnannouncedWriteError where it could not be announced, so that nothing is
    committed.
    """

    def __init__(self, purges: CommitPurges, *, refuses: bool, clock: Clock = monotonic_us) -> None:
        self._purges = purges
        self._refuses = refuses
        self._clock = clock
        self._announce: Callable[[Iterable[str]], Awaitable[Announced]] | None = None
        self._let_go: Callable[[Announced], object] | None = None
        self._lifting: set[asyncio.Task[None]] = set()
        self._is_told = False
        self.reset_counts()

    def reset_counts(self) -> None:
        """The count back to zero."""
        self.unannounced = 0

    def announce_by(
        self,
        announce: Callable[[Iterable[str]], Awaitable[Announced]],
        let_go: Callable[[Announced], object],
    ) -> None:
        """From now on commits are announced by this, which raises StoreUnavailableError and
        StoreRefusedError.  What is `let_go` is purged by whoever finds it overdue.
        """
        self._announce, self._let_go = announce, let_go

    def __call__(self, written: Tables) -> Announced | None:
        """What is to be lifted when it is purged; None where nothing is announced."""
        if self._announce is None or not self._purges.are_any:
            return None
        tags = write_tags(written)
        try:
            for _ in range(TIMES_MAX):
                announced = self._waited_for(tags)
                if self._clock() < announced.good_until_us:
                    return announced
                self.withdraw(announced)
            why = "this process was stopped again and again"
        except (StoreUnavailableError, StoreRefusedError) as error:
            why = str(error)
        self.unannounced += 1
        if self._refuses:
            raise UnannouncedWriteError(why, RETRY_AFTER_S)
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "a commit goes on that could not be announced: if this process is killed or cut "
                "off before it has purged, others answer what was before (told once): %s", why,
            )  # fmt: skip
        return None

    def withdraw(self, announced: Announced) -> None:
        """Nothing was committed; from any thread."""
        loop = self._purges.loop
        if loop is not None:
            loop.call_soon_threadsafe(self._lift_soon, announced)

    def leave_open(self, announced: Announced) -> None:
        """The database may commit it yet: let it be purged again in a while; from any thread."""
        if self._let_go is not None:
            self._let_go(announced)

    def _lift_soon(self, announced: Announced) -> None:
        async def lift() -> None:
            if self._purges.lift is not None:
                await self._purges.lift((announced,))

        task = asyncio.create_task(lift(), name="perf_middleware: nothing was committed")
        self._lifting.add(task)
        task.add_done_callback(self._lifting.discard)

    # --- waiting, where the commit is -------------------------------------------------------------

    def _waited_for(self, tags: frozenset[str]) -> Announced:
        from sqlalchemy.util.concurrency import await_only, in_greenlet

        if in_greenlet():
            announced: Announced = await_only(self._announced(tags))
            return announced
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._from_a_thread(tags)
        raise StoreUnavailableError(STORE, "a sync engine on the event loop's thread cannot wait")

    def _from_a_thread(self, tags: frozenset[str]) -> Announced:
        loop = self._purges.loop
        if loop is None:
            raise StoreUnavailableError(STORE, "no event loop runs")
        future = asyncio.run_coroutine_threadsafe(self._announced(tags), loop)
        try:
            return future.result(2 * WAITS_S)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise StoreUnavailableError(STORE, "the event loop is blocked") from None

    async def _announced(self, tags: frozenset[str]) -> Announced:
        assert self._announce is not None  # noqa: S101 - or nobody came here
        until_us = self._clock() + round(WAITS_S * 1e6)
        while True:
            try:
                return await self._announce(tags)
            except StoreUnavailableError:
                if not self._refuses or self._clock() >= until_us:
                    raise
            await asyncio.sleep(LOOK_AGAIN_S)

    # --- what operators see -----------------------------------------------------------------------

    def families(self) -> Iterable[Family]:
        """The figure, for a scrape."""
        yield counter(
            "perf_database_commits_unannounced",
            "Commits of which Redis could not be told before; with refuse_unannounced none.",
            [Value(NO_LABELS, self.unannounced)],
        )
