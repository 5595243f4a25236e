"""`TrackedEngines`: the engines of one app that are tracked, and what their databases do by
themselves.

    watch(engine)  -> relations unknown: every table means all
    read_relations -> cascades, views, triggers … are known (drivers/catalog.py)
    DDL            -> unknown again, and read anew in the background
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from perf_middleware.database.tables.drivers.compiled import StatementTables
    from perf_middleware.database.tables.relations import Relations
    from perf_middleware.database.tracking.runtime import Tracking

logger = logging.getLogger("perf_middleware.database")


@dataclass(frozen=True, slots=True)
class Tracked:
    """One engine, as it was given, and the tables of its statements."""

    engine: AsyncEngine | Engine
    tables: StatementTables


class TrackedEngines:
    """The engines of one app by name; each is tracked from `watch` to `forget`.

    `known_functions` and `known_triggers` are names that the app vouches for; `rows` those of
    tables whose rows are told apart.
    """

    def __init__(
        self,
        tracking: Tracking,
        *,
        known_functions: frozenset[str] = frozenset(),
        known_triggers: frozenset[str] = frozenset(),
        rows: frozenset[str] = frozenset(),
    ) -> None:
        self.tracking = tracking
        self._rows = rows
        self._known_functions = known_functions
        self._known_triggers = known_triggers
        self._engines: dict[str, Tracked] = {}
        self._copies: dict[str, Engine] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._reading: set[asyncio.Task[None]] = set()
        self.on_bind: Callable[[], object] | None = None
        """Called with each new event loop, on it."""
        tracking.on_schema_change = self._schema_changed

    def bind(self) -> None:
        """Read what is to be read on the event loop that runs now."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._turn = asyncio.Lock()
            if self.on_bind is not None:
                self.on_bind()

    def watched(self) -> list[Engine]:
        """The (sync) engines that are tracked now."""
        given: list[Any] = [tracked.engine for tracked in self._engines.values()]
        return [getattr(engine, "sync_engine", engine) for engine in given]

    def activate(self) -> None:
        """Look at what is executed from now on; from any thread."""
        self.tracking.activate()
        self.read_soon()

    def watch(
        self,
        name: str,
        engine: AsyncEngine | Engine,
        *,
        is_copy: bool = False,
        reads_soon: bool = True,
    ) -> None:
        """Track an engine; of one that `is_copy` nothing that was read is kept.

        `reads_soon`: read its relations in the background, and not when the caller says so.
        """
        sync_engine: Any = getattr(engine, "sync_engine", engine)
        if is_copy:
            self.tracking.watch_copy(sync_engine)
            self._copies[name] = sync_engine
            return
        from perf_middleware.database.tables.drivers.compiled import StatementTables

        tables = StatementTables(
            sync_engine.dialect,
            relations=None,
            known_functions=self._known_functions,
            rows=self._rows,
        )
        self._engines[name] = Tracked(engine, self.tracking.watch(sync_engine, tables))
        if reads_soon:
            self.read_soon()

    def forget(self, name: str) -> None:
        """An engine is closed; a name that is not tracked is none to forget."""
        copy = self._copies.pop(name, None)
        if copy is not None:
            self.tracking.forget_copy(copy)
        tracked = self._engines.pop(name, None)
        if tracked is not None:
            self.tracking.forget(tracked.tables)

    async def read_relations(self, name: str | None = None) -> None:
        """Read anew what the databases (or one of them) do beyond their statements.

        Raises what the database raises; ValueError for a name that is not tracked.
        """
        if name is not None and name not in self._engines:
            raise ValueError(f"no engine named {name!r} is tracked")
        for known, tracked in list(self._engines.items()):
            if name is None or name == known:
                tables = tracked.tables
                read_at = tables.forgotten
                tables.learn(await self._relations_of(tracked.engine), read_at=read_at)

    def read_soon(self) -> None:
        """Read what is not known in the background; from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._soon, loop)

    async def read_unknown(self) -> None:
        """Read those that are not known; what does not answer stays unknown, and is told."""
        async with self._turn:
            for name, tracked in list(self._engines.items()):
                if tracked.tables.knows_relations or not self.tracking.is_active:
                    continue
                try:
                    await self.read_relations(name)
                except Exception as error:  # noqa: BLE001 - whatever a driver raises, it is unknown
                    logger.warning(
                        "what the database %s does beyond its statements could not be read, so "
                        "every write means all tables: %s", name, error,
                    )  # fmt: skip

    async def end(self) -> None:
        """Nothing is read in the background any more: no connection is lent when engines close.

        What was read is forgotten: migrations come between an app's end and its next start.
        """
        for tracked in self._engines.values():
            tracked.tables.forget_relations()
        await self.rest()

    async def rest(self) -> None:
        """As `end`, with what was read still known: the app is about to close its own engines."""
        loop, self._loop = self._loop, None
        if loop is None:
            return  # nobody has bound it, or on trio
        reading = list(self._reading) if loop is asyncio.get_running_loop() else []
        for task in reading:
            task.cancel()
        if reading:
            await asyncio.wait(reading)

    def status(self) -> dict[str, Any]:
        """Of each engine whether its relations are known; JSON-able."""
        return {
            name: "known" if tracked.tables.knows_relations else "unknown: all tables"
            for name, tracked in self._engines.items()
        }

    # --- within -----------------------------------------------------------------------------------

    async def _relations_of(self, engine: Any) -> Relations:
        from perf_middleware.database.tables.drivers.catalog import relations_of

        def read(connection: Any) -> Relations:
            return relations_of(
                connection,
                known_functions=self._known_functions,
                known_triggers=self._known_triggers,
                with_keys=bool(self._rows),
            )

        if hasattr(engine, "sync_engine"):
            async with engine.connect() as connection:
                relations: Relations = await connection.run_sync(read)
                return relations

        def connected() -> Relations:
            with engine.connect() as connection:
                return read(connection)

        return await asyncio.to_thread(connected)

    def _schema_changed(self, tables: StatementTables) -> None:
        """In any thread, with the connection still lent."""
        # Once more: what was read while it was not committed yet lacks it.
        tables.forget_relations()
        self.read_soon()

    def _soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return  # the app has ended meanwhile
        task = asyncio.ensure_future(self.read_unknown())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
