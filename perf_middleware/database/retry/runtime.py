"""`Retry.run`: one unit of work in one transaction, the whole of it again where that is right.

    attempt   session() -> unit(session) -> flush -> COMMIT -> the session's own end
                 |            |               |        |
    a transient error here:  again           again    again if the server said "rolled back";
                                                       a lost connection: CommitOutcomeUnknownError

A unit gets a fresh session each time, so nothing that it loaded before is used again.  What it does
outside of the database (mail, another service, its own variables) is done again with each attempt.
One attempt is made, and its owner decides, where the transaction is somebody else's (`session()`
gives a session that is in one) or where the unit of another `run` is running: retries at one level
only, or they multiply.
"""

from __future__ import annotations

import logging
import random
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never

import anyio

from perf_middleware.database.own_listeners import own_listener
from perf_middleware.database.retry.budget import (
    KINDS,
    MILLI,
    GiveUp,
    RetryAfter,
    decide,
    kind_of,
)
from perf_middleware.database.retry.figures import RetryCounts, families
from perf_middleware.database.retry.transient import ended_without_commit, transient_reason
from perf_middleware.errors import CommitOutcomeUnknownError
from perf_middleware.events import RetryBudgetChanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from perf_middleware.database.retry.budget import Backoff, Budget, Kind
    from perf_middleware.database.retry.figures import Outcome
    from perf_middleware.database.retry.transient import Reason
    from perf_middleware.events import Events
    from perf_middleware.families import Family

logger = logging.getLogger("perf_middleware.database")

Result = TypeVar("Result")
US_PER_S: Final = 1_000_000
REASONS_NOT_TO: Final[dict[Outcome, str]] = {
    "attempts": "that was the last one",
    "budget": "too many retries without a success between them",
    "deadline": "the request has no time left for another",
    "committed": "the unit had committed a part of its work itself",
    "joined": "its transaction, or the run around it, is somebody else's",
}


class Attempt:
    """What is known of one attempt; tasks that outlive it see that it is over."""

    __slots__ = ("commits", "is_committing", "is_joined", "is_over")

    def __init__(self, *, is_joined: bool) -> None:
        self.is_joined = is_joined
        self.is_over = False
        self.is_committing = False
        self.commits = 0

    def note_commit_begins(self, _connection: object) -> None:
        """COMMIT is about to be sent; not called for a savepoint."""
        self.is_committing = True

    def note_committed(self, _session: object) -> None:
        """A commit or the release of a savepoint has succeeded."""
        if self.is_committing:
            self.is_committing = False
            self.commits += 1


RUNNING: Final[ContextVar[Attempt | None]] = ContextVar("perf_middleware.attempt", default=None)


class Retry:
    """Runs units of work; one for each app and database, as its tokens are of one server.

    `draw` gives a number from 0 to 1; `remaining_s` what the request in this context has left, None
    without a deadline; `commit` commits a session, where that needs more than its own `commit()`.
    """

    def __init__(
        self,
        *,
        backoff: Backoff,
        budgets: Mapping[Kind, Budget],
        remaining_s: Callable[[], float | None] | None = None,
        events: Events | None = None,
        draw: Callable[[], float] = random.random,
        commit: Callable[[AsyncSession], Awaitable[None]] | None = None,
        database: str = "main",
    ) -> None:
        self.database = database
        self._backoff = backoff
        self._budgets = {kind: budgets[kind] for kind in KINDS}
        self._remaining_s = remaining_s
        self._events = events
        self._draw = draw
        self._commit = commit or commit_plainly
        self._tokens_milli = {kind: budget.tokens_max_milli for kind, budget in budgets.items()}
        self._exhausted: set[Kind] = set()
        self.counts = RetryCounts(database)

    async def run(
        self,
        unit: Callable[[AsyncSession], Awaitable[Result]],
        *,
        session: Callable[[], AbstractAsyncContextManager[AsyncSession]],
        idempotent: bool = False,
    ) -> Result:
        """What `unit(session)` returns, once its transaction is committed.

        `idempotent`: doing it twice does no harm, so it is also tried again where nobody knows if
        it was committed, or where the unit has committed a part itself.

        Raises what the unit raises, the last transient error where there are no more attempts (with
        a note that says why), CommitOutcomeUnknownError.
        """
        outer = RUNNING.get()
        is_nested = outer is not None and not outer.is_over
        attempts = 0
        while True:
            attempts += 1
            attempt = Attempt(is_joined=is_nested)
            token = RUNNING.set(attempt)
            try:
                result = await attempt_once(unit, session, attempt, self._commit)
            except Exception as error:
                delay_us = self._judge(error, attempt, attempts, idempotent=idempotent)
                if delay_us is None:
                    self.counts.runs["failed"] += 1
                    raise
            except BaseException:
                self.counts.runs["failed"] += 1
                raise
            else:
                self._note_success(attempts, attempt)
                return result
            finally:
                attempt.is_over = True
                RUNNING.reset(token)
            # Out here nothing holds on to the error, its frames and the session in them.
            await anyio.sleep(delay_us / US_PER_S)

    def _judge(
        self, error: Exception, attempt: Attempt, attempts: int, *, idempotent: bool
    ) -> int | None:
        """Microseconds to wait before the next attempt, None where `error` goes up."""
        reason = transient_reason(error)
        if reason is None:
            return None
        if attempt.is_joined:
            self._give_up(error, reason, "joined", attempts)
            return None
        if attempt.is_committing and not idempotent and not ended_without_commit(error):
            self.counts.runs["failed"] += 1
            self.counts.failures[reason, "commit_unknown"] += 1
            raise CommitOutcomeUnknownError from error
        if attempt.commits and not idempotent:
            self._give_up(error, reason, "committed", attempts)
            return None
        kind = kind_of(reason)
        match decide(
            self._backoff,
            attempts=attempts,
            tokens_milli=self._tokens_milli[kind],
            remaining_us=self._remaining_us(),
            draw=self._draw(),
        ):
            case RetryAfter(delay_us, tokens_milli):
                self.counts.failures[reason, "retried"] += 1
                self._tokens_milli[kind] = tokens_milli
                self._tell(kind, is_exhausted=False)
                return delay_us
            case GiveUp(why):
                if why == "budget":
                    self._tell(kind, is_exhausted=True)
                self._give_up(error, reason, why, attempts)
                return None
            case verdict:
                assert_never(verdict)

    def _give_up(self, error: Exception, reason: Reason, why: Outcome, attempts: int) -> None:
        self.counts.failures[reason, why] += 1
        error.add_note(f"not tried again after attempt {attempts}: {REASONS_NOT_TO[why]}")

    def _note_success(self, attempts: int, attempt: Attempt) -> None:
        self.counts.runs["at_once" if attempts == 1 else "after_retries"] += 1
        if attempt.is_joined:
            return  # no COMMIT has proved anything
        for kind, budget in self._budgets.items():
            self._tokens_milli[kind] = budget.after_success(self._tokens_milli[kind])

    def _remaining_us(self) -> int | None:
        remaining_s = None if self._remaining_s is None else self._remaining_s()
        return None if remaining_s is None else round(remaining_s * US_PER_S)

    def _tell(self, kind: Kind, *, is_exhausted: bool) -> None:
        """Log a change of the budget's state, and publish it."""
        if is_exhausted == (kind in self._exhausted):
            return
        if is_exhausted:
            self._exhausted.add(kind)
            logger.warning(
                "%s: no more retries after %s failures until some succeed", self.database, kind
            )
        else:
            self._exhausted.discard(kind)
            logger.info("%s: retries after %s failures again", self.database, kind)
        if self._events is not None:
            self._events.publish(
                RetryBudgetChanged(database=self.database, kind=kind, is_exhausted=is_exhausted)
            )

    @property
    def figures(self) -> tuple[RetryCounts, Mapping[Kind, int]]:
        """The counts, and the tokens that are left."""
        return self.counts, self._tokens_milli

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        return families([self.figures])

    def reset_counts(self) -> None:
        """Every count back to zero; the tokens stay."""
        self.counts.reset()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        retries: dict[str, dict[str, int]] = {}
        for (reason, outcome), count in self.counts.failures.items():
            if count:
                retries.setdefault(reason, {})[outcome] = count
        return {
            "runs": dict(self.counts.runs),
            "retries": retries,
            "tokens": {kind: milli / MILLI for kind, milli in self._tokens_milli.items()},
        }


async def attempt_once(
    unit: Callable[[AsyncSession], Awaitable[Result]],
    session: Callable[[], AbstractAsyncContextManager[AsyncSession]],
    attempt: Attempt,
    commit: Callable[[AsyncSession], Awaitable[None]],
) -> Result:
    """Open a session, do the unit in it, commit."""
    async with session() as opened:
        if has_begun(opened.sync_session):
            attempt.is_joined = True
            return await unit(opened)
        with listening(opened.sync_session, attempt):
            try:
                result = await unit(opened)
                # Before COMMIT, so that a connection lost while writing is no open question.
                await opened.flush()
                await commit(opened)
            except Exception:
                if attempt.is_committing:
                    await roll_back(opened)
                raise
    return result


async def commit_plainly(session: AsyncSession) -> None:
    """Commit, in the caller's own task: a cancellation may cut it off."""
    await session.commit()


async def roll_back(session: AsyncSession) -> None:
    """End the transaction of a session whose COMMIT has failed.

    A busy SQLite keeps it open, and SQLAlchemy (2.1) gives the connection of a session that is only
    closed then back to its pool as it is: whoever has it next would see these writes, and commit
    them.
    """
    try:
        await session.rollback()
    except Exception as error:  # noqa: BLE001 - the error of COMMIT is the one to be raised
        logger.info("after a COMMIT that failed, the rollback failed too: %r", error)


def has_begun(session: Session) -> bool:
    """Whether a transaction was going on in `session` before we had it, or its connection's."""
    transaction = session.get_transaction()
    # One that was only just begun (`async_sessionmaker.begin`) has no connection yet.
    if transaction is not None and getattr(transaction, "_connections", True):
        return True
    bind_in_transaction = getattr(session.bind, "in_transaction", None)
    is_bound_inside = bind_in_transaction is not None and bind_in_transaction()
    return bool(is_bound_inside or session.new or session.dirty or session.deleted)


@contextmanager
def listening(session: Session, attempt: Attempt) -> Iterator[None]:
    """Tell `attempt` when COMMIT is sent on a connection of `session`, and when it is done."""
    from sqlalchemy import event

    @own_listener
    def note_connection(_session: Session, _transaction: object, connection: Connection) -> None:
        event.listen(connection, "commit", attempt.note_commit_begins)

    event.listen(session, "after_begin", note_connection)
    event.listen(session, "after_commit", attempt.note_committed)
    try:
        yield
    finally:
        event.remove(session, "after_begin", note_connection)
        event.remove(session, "after_commit", attempt.note_committed)
