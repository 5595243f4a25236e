"""`QueryCache`: what queries gave, kept until a commit writes one of the tables that they read.

    queries.execute(session, select(User))  --key of statement and values-->  kept?  a Result of it
    queries.get_or_execute("top", load)     --key of the caller's-->          kept?  the value of it
        no: it runs once for all who ask, its reads are collected and become tags
        a commit to one of these tables purges by its tag, in every process

Whatever it is not sure of runs as if there were no cache: figures say how often and why.
SQLAlchemy is imported with the first use.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar

from perf_middleware.database.queries import reasons
from perf_middleware.database.queries.figures import QueryFigures
from perf_middleware.database.queries.keys import own_key, prefix_of
from perf_middleware.database.queries.runtime.runs import (
    collecting,
    depends,
    made_of,
    require_plain,
)
from perf_middleware.database.queries.ttl import ttl_us
from perf_middleware.errors import UncacheableQueryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
    from datetime import timedelta

    from sqlalchemy import Engine, Result
    from sqlalchemy.ext.asyncio import AsyncSession

    from perf_middleware.database.queries.runtime.statements import Statements
    from perf_middleware.database.queries.stores import Made, Shelf
    from perf_middleware.families import Family

R = TypeVar("R")

TAGS_MAX: Final = 64  # of the caller's own, for one value


class QueryCache:
    """The query cache of one app; until it is given a shelf (`keep_on`) everything is executed.

    `engines` gives the engines whose commits purge.
    """

    def __init__(self, engines: Callable[[], Iterable[Engine]] = tuple) -> None:
        self.engines = engines
        self._shelf: Shelf | None = None
        self._is_deaf: Callable[[], bool] = _never
        self._made: Statements | None = None
        self._on_use: list[Callable[[], object]] = []
        self._is_used = False
        self.figures = QueryFigures()

    def keep_on(self, shelf: Shelf, *, is_deaf: Callable[[], bool] | None = None) -> None:
        """Keep answers there; `install` does so with the value cache.

        While `is_deaf()` commits of other processes are not heard of: only what has a ttl is kept.
        """
        self._shelf = shelf
        self._is_deaf = is_deaf or _never

    def when_used(self, do: Callable[[], object]) -> None:
        """Call `do` at the first use, before anything is kept; now, where that was before."""
        self._on_use.append(do)
        if self._is_used:
            do()

    # --- what an app uses -------------------------------------------------------------------------

    async def execute(
        self,
        session: AsyncSession,
        statement: Any,
        params: Mapping[str, Any] | None = None,
        *,
        ttl: float | timedelta | None = None,
        tags: Iterable[str] | str = (),
        vary: Any = None,
    ) -> Result[Any]:
        """The rows of a query, as `session.execute(statement, params)` gives them.

        They are kept for everyone who asks with the same statement and values, until a commit
        writes a table that they were read from, a day or `ttl` seconds at most.  `tags` are further
        names to purge by, `vary` what the answer depends on beside the statement: a tenant.
        Rows of joined collections are unique already.

        Raises UncacheableQueryError for what writes or locks, and what the session raises.
        """
        statements = self._statements()
        lasts_us, named = ttl_us(ttl), _tags(tags)
        try:
            return await statements.execute(
                session, statement, params, ttl_us=lasts_us, tags=named, vary=vary
            )
        except UncacheableQueryError:
            self.figures.refused += 1
            raise

    async def get_or_execute(
        self,
        key: str,
        fn: Callable[..., Awaitable[R]],
        ttl: float | timedelta | None = None,
        tags: Iterable[str] | str = (),
        *,
        session: AsyncSession | None = None,
    ) -> R:
        """The value kept under `key`, or what `fn()` returns, which is kept then.

        Until a commit writes a table that `fn` has read, a day or `ttl` seconds at most.  It runs
        once for all who ask meanwhile.  With a `session` it is called as `fn(session)`, and what
        that session has written itself is seen.  What read no table that is tracked is kept only
        with a `ttl`; what wrote, never.

        Raises what `fn` raises, and UncacheableQueryError for rows or objects of a session.
        """
        if not isinstance(key, str):
            raise TypeError(f"a key must be a text, not {key!r}")
        lasts_us, named = ttl_us(ttl), _tags(tags)
        shelf, statements = self._shelf, self._statements()
        call: Callable[[], Awaitable[R]] = fn if session is None else lambda: fn(session)
        bypass, holds = reasons.OFF, False
        if shelf is not None and shelf.is_on:
            bypass, holds = "", False
            if session is not None:
                bypass, holds = statements.standing(session)
        if shelf is None or bypass:
            self.figures.note_bypass(bypass)
            return await call()
        counts = self.figures.of(prefix_of(key))
        kept_as = shelf.named(own_key(key))
        found = shelf.find(kept_as)
        if found is not None:
            counts.hits += 1
            value: R = depends(found.give())
            return value
        shelf.learn(fn)
        reason = ""

        async def make() -> Made:
            nonlocal reason
            statements.watch(self.engines())
            with collecting(statements.newest_purge()) as collected:
                returned = call()
                if not inspect.isawaitable(returned):
                    raise TypeError(f"{fn!r} must be async, it returned {type(returned).__name__}")
                value = await returned
            require_plain(value)
            why = reasons.DEAF if lasts_us is None and self._is_deaf() else ""
            reason, made = made_of(
                value, collected, ttl_us=lasts_us, tags=named, copy=True, reason=why
            )
            return made

        try:
            given, outcome = await shelf.get_or_make(kept_as, make, holds=holds)
        except UncacheableQueryError:
            self.figures.refused += 1
            raise
        statements.note(counts, outcome, reason, what=f"the value of {prefix_of(key)!r}")
        made_or_kept: R = depends(given)
        return made_or_kept

    async def forget(self, key: str) -> bool:
        """Forget what `get_or_execute` keeps under `key`: whether there was something."""
        shelf = self._shelf
        return shelf is not None and await shelf.forget(shelf.named(own_key(key)))

    # --- what follows a commit --------------------------------------------------------------------

    async def purge(self, tags: Collection[str]) -> None:
        """Forget what depends on `tags`, in all processes; awaited after each commit."""
        if self._shelf is not None:
            await self._shelf.purge(tags)

    def purge_at_once(self, tags: Collection[str]) -> None:
        """The same in this process's memory alone, without waiting and from any thread."""
        if self._shelf is not None:
            self._shelf.purge_here(tags)

    def owe(self, tags: Collection[str]) -> None:
        """Let other processes hear of a purge that nobody can wait for, as soon as that is
        possible.
        """
        if self._shelf is not None:
            self._shelf.owe(tags)

    # --- what operators see -----------------------------------------------------------------------

    @property
    def is_used(self) -> bool:
        return self._is_used

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        return self.figures.families()

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.figures.reset()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return self.figures.status()

    # --- within -----------------------------------------------------------------------------------

    def _statements(self) -> Statements:
        """What knows SQLAlchemy; made at the first use."""
        made = self._made
        if made is None:
            from perf_middleware.database.queries.runtime.statements import Statements

            made = self._made = Statements(lambda: (self._shelf, self._is_deaf), self.figures)
        if not self._is_used:
            self._is_used = True
            made.watch(self.engines())
            for do in self._on_use:
                do()
        return made


def _never() -> bool:
    return False


def _tags(given: Iterable[str] | str) -> tuple[str, ...]:
    found = (given,) if isinstance(given, str) else tuple(given)
    if len(found) > TAGS_MAX or not all(isinstance(tag, str) for tag in found):
        raise TypeError(f"tags must be texts, {TAGS_MAX} at most, not {given!r}")
    return found
