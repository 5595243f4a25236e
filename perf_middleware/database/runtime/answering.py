"""Which databases answer: each is asked at the start, and again where a session found it away.

    answers --- a session lost its connection ---> suspected --- asked: none ---> away
       ^                                               |                           |
       +------------------------ answers --------------+----- asked every second --+

One connection that was ended is no database that is away, so a loss alone changes nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio

from perf_middleware.database.holding.runtime.refusals import NoDatabaseError
from perf_middleware.database.losses import cut_a_commit, is_loss, reason_of
from perf_middleware.errors import (
    CommitOutcomeUnknownError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    PerfMiddlewareError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.database.runtime.engines import NamedDatabase

logger = logging.getLogger("perf_middleware.database")

TRY_AGAIN_S: Final = 1.0  # how often a database that does not answer is asked again
PAUSE_S: Final = 0.1  # between two questions, however many sessions fail
RETRY_AFTER_S: Final = 5  # a server that is started again takes some seconds


class Answering:
    """The databases of one app, as they are found to answer."""

    def __init__(self, databases: Mapping[str, NamedDatabase]) -> None:
        self._databases = databases
        self.unanswered: dict[str, str] = {}
        """Those that do not answer, with the reason."""
        self._suspected: set[str] = set()
        self._is_suspected: anyio.Event | None = None
        self._ask_again_s = 0.0

    async def ask_all(self) -> list[PerfMiddlewareError]:
        """Each one once, at the same time: why those that do not answer do not."""
        self.unanswered = dict.fromkeys(self._databases, "")
        self._suspected.clear()
        self._is_suspected = anyio.Event()
        errors: list[PerfMiddlewareError] = []
        async with anyio.create_task_group() as tasks:
            for database in self._databases.values():
                tasks.start_soon(self._find_out, database, errors)
        self._ask_again_s = anyio.current_time() + TRY_AGAIN_S
        return errors

    def judge(self, name: str, error: BaseException) -> Exception | None:
        """What a session raises instead of `error`, None where it stays as it is."""
        if not isinstance(error, Exception) or not is_loss(error):
            return None
        if name not in self.unanswered:
            self._suspected.add(name)
            if self._is_suspected is not None:
                self._is_suspected.set()
        if cut_a_commit(error):
            return CommitOutcomeUnknownError(RETRY_AFTER_S)
        return NoDatabaseError(name, reason_of(error), RETRY_AFTER_S)

    async def until_due(self, seconds: float) -> None:
        """Wait until a database is suspected, `seconds` at most; not at all where one is since
        they were last asked.
        """
        is_suspected = self._is_suspected = self._is_suspected or anyio.Event()
        with anyio.move_on_after(seconds):
            await is_suspected.wait()
            await anyio.sleep(PAUSE_S)

    async def ask_again(self) -> None:
        """Those that are suspected, and every second those that have not answered."""
        suspected, self._suspected = self._suspected, set()
        self._is_suspected = (
            anyio.Event()
        )  # what is told while these are asked is for the next time
        for name in suspected - self.unanswered.keys():
            error = await self._ask_one(name)
            if isinstance(error, DatabaseBusyError):
                self._suspected.add(name)  # nobody knows yet: asked again in a second
            elif error is not None:
                self.unanswered[name] = str(error)
                logger.warning("%s", error)
        if not self.unanswered or anyio.current_time() < self._ask_again_s:
            return
        for name in self.unanswered.keys() - suspected:
            if await self._ask_one(name) is None:
                database = self._databases[name]
                logger.info("%s (%s) answers now", name, database.url.shown)
        self._ask_again_s = anyio.current_time() + TRY_AGAIN_S

    async def _ask_one(self, name: str) -> PerfMiddlewareError | None:
        errors: list[PerfMiddlewareError] = []
        await self._find_out(self._databases[name], errors)
        return errors[0] if errors else None

    async def _find_out(self, database: NamedDatabase, errors: list[PerfMiddlewareError]) -> None:
        try:
            await database.find_out()
        except (DatabaseUnavailableError, DatabaseBusyError) as error:
            errors.append(error)
            if database.name in self.unanswered:
                self.unanswered[database.name] = str(error)
        else:
            self.unanswered.pop(database.name, None)
