"""`Instruments`: what looks at each engine of an app: its pool, statements, streams and tables.

    an engine of the settings        looked at from each start to the end that follows
    `watch` before the app starts    looked at over all starts and ends
    `watch` while the app runs       looked at until its end

All of them hold for one engine or none does.  What is tracked only ceases to be listed: a commit
over an engine that was watched purges what depends on it for as long as the engine lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.streams.figures import StreamCounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from perf_middleware.database.holding.runtime import PoolWatch
    from perf_middleware.database.statements.runtime import StatementWatch
    from perf_middleware.database.streams.runtime import StreamGuard
    from perf_middleware.database.tracking.runtime.engines import TrackedEngines

WATCHED_MAX: Final = 100


class Instruments:
    """The watches of one app's engines, by name; `statements` and `stream_guard` where they are on.

    Of a name that is `expected` the figures are there before its engine, and after it.
    """

    def __init__(
        self, *, statements: StatementWatch | None, stream_guard: StreamGuard | None
    ) -> None:
        self.watches: dict[str, PoolWatch] = {}
        self.streams: dict[str, StreamCounts] = {}
        self.tracked: TrackedEngines | None = None
        """Who looks at what is read and written over the engines, if somebody does."""
        self._statements = statements
        self._stream_guard = stream_guard
        self._expected: set[str] = set()
        self._engines: dict[str, AsyncEngine | Engine] = {}

    def expect(self, name: str, watch: PoolWatch) -> None:
        """An engine will come by this name, at each start."""
        self._expected.add(name)
        self.watches[name] = watch
        self.streams[name] = StreamCounts()

    def attach(self, name: str, engine: AsyncEngine, *, is_copy: bool) -> None:
        """Look at the engine that was expected; who opens it has its relations read."""
        self._attach(name, engine, is_copy=is_copy, reads_soon=False)

    def add(
        self,
        name: str,
        engine: AsyncEngine | Engine,
        make: Callable[[], PoolWatch],
        *,
        is_copy: bool,
    ) -> PoolWatch:
        """Look at an engine of the app's own.

        Raises TypeError for what is no engine, ValueError for a name that is taken, an engine that
        is watched, one too many.
        """
        from sqlalchemy import Engine

        if not isinstance(getattr(engine, "sync_engine", engine), Engine):
            raise TypeError(f"watch() takes an engine of SQLAlchemy, not {type(engine).__name__}")
        if name in self.watches:
            raise ValueError(f"there is a database named {name!r} already")
        for known, watched in self.watches.items():
            if watched.is_of(engine):
                raise ValueError(f"this engine is watched already, as {known!r}")
        if len(self.watches) >= WATCHED_MAX:
            raise ValueError(f"{WATCHED_MAX} engines are watched already")
        self.watches[name] = make()
        self.streams[name] = StreamCounts()
        self._attach(name, engine, is_copy=is_copy, reads_soon=True)
        return self.watches[name]

    def detach(self, name: str) -> None:
        """Look at it no more: the engine is as it was, but for what tracks it."""
        engine = self._engines.pop(name, None)
        if engine is not None:
            # The outermost first: what another has wrapped since stays where it is.
            if self._stream_guard is not None:
                self._stream_guard.forget(engine)
            if self._statements is not None:
                self._statements.detach(engine)
            self.watches[name].detach()
            if self.tracked is not None:
                self.tracked.forget(name)
        if name not in self._expected:
            self.watches.pop(name, None)
            self.streams.pop(name, None)

    def look(self) -> None:
        """Tell the loans that are too long."""
        for watch in list(self.watches.values()):
            watch.look()

    def reset_counts(self) -> None:
        """Every count back to zero."""
        for watch in self.watches.values():
            watch.reset_counts()
        for streams in self.streams.values():
            streams.reset()

    def _attach(self, name: str, engine: Any, *, is_copy: bool, reads_soon: bool) -> None:
        watch = self.watches[name]
        if self.tracked is not None:
            self.tracked.watch(name, engine, is_copy=is_copy, reads_soon=reads_soon)
        watch.attach(engine)
        if self._statements is not None:
            self._statements.attach(engine)
        if self._stream_guard is not None:
            self._stream_guard.watch(engine, watch, self.streams[name])
        self._engines[name] = engine
