"""Statements of SQLAlchemy: named, looked up, run, taken apart and put together again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine.result import IteratorResult
from sqlalchemy.exc import UnboundExecutionError

from perf_middleware.database.queries import reasons
from perf_middleware.database.queries.drivers.answers import Answers, Changed
from perf_middleware.database.queries.drivers.plans import Plans
from perf_middleware.database.queries.drivers.standing import (
    bypass_of,
    connection_of,
    held_by,
    tables_of,
)
from perf_middleware.database.queries.drivers.watching import Watching
from perf_middleware.database.queries.keys import statement_key
from perf_middleware.database.queries.runtime.runs import collecting, depends, made_of
from perf_middleware.errors import UncacheableQueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection, Engine, Result
    from sqlalchemy.orm import Session

    from perf_middleware.database.queries.drivers.plans import Plan
    from perf_middleware.database.queries.figures import Counts, QueryFigures
    from perf_middleware.database.queries.stores import Made, Shelf

logger = logging.getLogger("perf_middleware.database")

TOLD_MAX: Final = 1_000


class Statements:
    """The statements of one query cache."""

    def __init__(
        self,
        kept_by: Callable[[], tuple[Shelf | None, Callable[[], bool]]],
        figures: QueryFigures,
    ) -> None:
        self._kept_by = kept_by
        self._figures = figures
        self._plans = Plans()
        self._answers = Answers(self._plans.names, self._register)
        self._watching = Watching(self.newest_purge)
        self._told: set[str] = set()

    def _shelf(self) -> Shelf | None:
        return self._kept_by()[0]

    def _is_deaf(self) -> bool:
        return self._kept_by()[1]()

    def newest_purge(self) -> int:
        """How many purges there were in this process, its own and those it has heard of."""
        shelf = self._shelf()
        return 0 if shelf is None else shelf.newest_purge

    def watch(self, engines: Iterable[Engine]) -> None:
        """Know since when the transactions of these engines go on."""
        for engine in engines:
            self._watching.facts(engine)

    def standing(self, session: Any) -> tuple[str, bool]:
        """Why a function with this session bypasses the cache (empty: it does not), and whether
        the session holds a connection.
        """
        sync = sync_session_of(session)
        try:
            binds = [sync.get_bind()]
        except UnboundExecutionError:  # each of its classes has an engine of its own
            binds = held_by(sync)
        # Its key is the caller's own.
        bypasses = [bypass_of(sync, bind, is_named=True) for bind in binds]
        holds = any(connection_of(sync, bind) is not None for bind in binds)
        return next(filter(None, bypasses), ""), holds

    async def execute(
        self,
        session: Any,
        statement: Any,
        params: Mapping[str, Any] | None,
        *,
        ttl_us: int | None,
        tags: tuple[str, ...],
        vary: Any,
    ) -> Result[Any]:
        """See `QueryCache.execute`."""
        sync = sync_session_of(session)
        subject = getattr(statement, "_propagate_attrs", {}).get("plugin_subject")
        bind = sync.get_bind(mapper=getattr(subject, "mapper", None), clause=statement)
        tables = tables_of(bind.engine)
        plan, cache_key = self._plans.of(
            statement, bind.dialect, None if tables is None else tables.of_text
        )
        if params is not None and not hasattr(params, "keys"):
            raise UncacheableQueryError(
                "it was given several sets of parameters", "give it one dict"
            )
        shelf = self._shelf()
        bypass, key = self._named(sync, bind, statement, plan, cache_key, params, ttl_us, vary)
        if shelf is None or key is None:
            self._figures.note_bypass(bypass)
            return await _executed(session, statement, params)
        counts = plan.counts
        if counts is None:
            counts = plan.counts = self._figures.of(plan.name)
        found = shelf.find(key)
        if found is not None:
            try:
                given = self._answers.given(depends(found.give()), plan, statement, sync)
            except Changed:
                await shelf.forget(key)
            else:
                counts.hits += 1
                return given
        if not self._is_understood(plan, statement, tables):
            self._figures.note_bypass(reasons.ANY_TABLE)
            return await _executed(session, statement, params)
        return await self._led(
            shelf, key, session, statement, params, plan, counts, ttl_us=ttl_us, tags=tags,
            holds=connection_of(sync, bind) is not None,
        )  # fmt: skip

    def _named(
        self, sync: Session, bind: Engine | Connection, statement: Any, plan: Plan, cache_key: Any,
        params: Mapping[str, Any] | None, ttl_us: int | None, vary: Any,
    ) -> tuple[str, str | None]:  # fmt: skip
        """The key of this call; or why the cache is not asked, and None."""
        shelf = self._shelf()
        if shelf is None or not shelf.is_on:
            return reasons.OFF, None
        facts = self._watching.facts(bind.engine)
        bypass = bypass_of(sync, bind, is_named=vary is not None)
        if bypass is not None:
            return bypass, None
        if facts.has_state and vary is None:
            self._tell_once(
                f"state {facts.label}", "statements of %s are not cached: a SET or set_config was "
                "seen, and what they give may depend on it; say on what with vary=", facts.label,
            )  # fmt: skip
            return reasons.STATE, None
        if plan.wants_the_database:
            return reasons.OPTIONS, None
        steadiness = plan.steadiness
        if steadiness.is_of_a_session:
            return reasons.SESSION, None
        if plan.digest is None:
            self._tell_once(
                f"nameless {plan.name}", "a statement on %s is not cached: it has no name that "
                "tells it from others, for %r in it", plan.name, plan.nameless,
            )  # fmt: skip
            return reasons.UNNAMED, None
        values = [each.effective_value for each in cache_key.bindparams]
        given = [*values, *(params.values() if params else ())]
        if ttl_us is None and (steadiness.is_volatile or steadiness.moves_with(given)):
            return reasons.VOLATILE, None
        schemas = statement.get_execution_options().get("schema_translate_map")
        if schemas is None:
            held = connection_of(sync, bind) or bind
            schemas = held.get_execution_options().get("schema_translate_map")
        key = statement_key(
            plan.digest, facts.label, schemas=schemas, vary=vary, values=values,
            params=dict(params) if params else None, text_of=shelf.text_of,
        )  # fmt: skip
        if key is None:
            self._tell_once(
                f"values {plan.name}", "a statement on %s is not cached: one of its values has no "
                "text that tells it from others", plan.name,
            )  # fmt: skip
            return reasons.UNNAMED, None
        return "", key

    async def _led(
        self, shelf: Shelf, key: str, session: Any, statement: Any,
        params: Mapping[str, Any] | None, plan: Plan, counts: Counts, *, ttl_us: int | None,
        tags: tuple[str, ...], holds: bool,
    ) -> Result[Any]:  # fmt: skip
        """Run it, or wait for who does."""
        sync = sync_session_of(session)
        reason = ""
        own: Result[Any] | None = None

        async def make() -> Made:
            nonlocal reason, own
            identities = sync.identity_map
            had = set(identities.keys()) if plan.entities and len(identities) else ()
            with collecting(self.newest_purge()) as collected:
                result = await _executed(session, statement, params)
            taken = self._answers.taken(result, plan, statement, had)
            own = IteratorResult(taken.metadata, iter(taken.rows))
            why = reasons.LOADED if taken.was_there else ""
            if ttl_us is None and self._is_deaf():
                why = reasons.DEAF
            if taken.unstorable:
                why = reasons.UNPACKABLE
                self._tell_once(
                    f"type {plan.name}", "a statement on %s is not cached: %s is no type whose "
                    "values come back as they are", plan.name, taken.unstorable,
                )  # fmt: skip
            reason, made = made_of(
                taken.kept, collected, ttl_us=ttl_us, tags=tags, copy=not taken.is_unchanging,
                reason=why,
            )  # fmt: skip
            return made

        given, outcome = await shelf.get_or_make(key, make, holds=holds)
        self.note(counts, outcome, reason, what=f"a statement on {plan.name}")
        kept = depends(given)
        if own is not None:
            return own
        if kept is not None:
            try:
                return self._answers.given(kept, plan, statement, sync)
            except Changed:
                await shelf.forget(key)
        return await _executed(session, statement, params)

    def note(self, counts: Counts, outcome: str, reason: str, *, what: str) -> None:
        """Count what became of a call."""
        if outcome == "hit":
            counts.hits += 1
            return
        if outcome == "collapsed":
            counts.collapsed += 1
            return
        counts.misses += 1
        if outcome == "stored":
            counts.stored += 1
            return
        self._figures.note_unkept(reason or outcome)
        if outcome == reasons.UNPACKABLE and not reason:
            self._tell_once(what, "%s is not cached: it cannot be written as bytes", what)

    def _is_understood(self, plan: Plan, statement: Any, tables: Any) -> bool:
        """Whether it is known what it touches: who waits for it instead of running it must not
        miss a write that is hidden in it.
        """
        if not plan.is_understood and tables is not None:
            touched = tables.of_statement(statement)
            plan.is_understood = not touched.writes
        return plan.is_understood

    def _register(self, cls: type) -> bool:
        shelf = self._shelf()
        return shelf is not None and shelf.register(cls)

    def _tell_once(self, about: str, text: str, *args: object) -> None:
        if about not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(about)
            logger.warning(text, *args)


async def _executed(session: Any, statement: Any, params: Any) -> Result[Any]:
    result: Result[Any] = await session.execute(statement, params)
    return result


def sync_session_of(session: Any) -> Session:
    """The session within.  Raises UncacheableQueryError for what is no async session."""
    found = getattr(session, "sync_session", None)
    if found is None and callable(session) and hasattr(session, "registry"):
        found = getattr(session(), "sync_session", None)  # an async_scoped_session
    if found is None:
        raise UncacheableQueryError(
            f"{type(session).__name__} is no AsyncSession",
            "give it one, as database.session() does",
        )
    sync: Session = found
    return sync
