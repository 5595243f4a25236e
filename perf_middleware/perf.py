"""`Perf`: the object that `install` returns, and the one place where everything of an app hangs."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from perf_middleware import __version__
from perf_middleware.insight.health import HealthInput, health

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.values.runtime import ValueCache
    from perf_middleware.compression.runtime import Compression
    from perf_middleware.database.runtime import Database
    from perf_middleware.events import Events
    from perf_middleware.limits.runtime import Limits
    from perf_middleware.memory_watch.memory import Memory
    from perf_middleware.metrics.overhead import Overhead
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.metrics.watching.blocks import LoopBlock
    from perf_middleware.resource import Resource, Resources
    from perf_middleware.settings import Settings
    from perf_middleware.stack import LayerInfo
    from perf_middleware.tasks.runtime import Tasks
    from perf_middleware.tasks.watched import Watched

STATEMENTS_SHOWN = 5
RECENT_S = 300.0  # the health score looks at the last five minutes


class Perf:
    """The handle of one app's bundle.

    `cache`, `memo`, `compression`, `limits`, `memory`, `database`, `tasks`, `metrics`, `events`,
    `settings` are its parts; `describe()` shows the stack, `status()` how it does.
    For an app that is not Starlette's or FastAPI's, this object is the ASGI app to serve.
    """

    def __init__(
        self,
        *,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        cache: ResponseCache,
        memo: ValueCache,
        compression: Compression,
        limits: Limits,
        memory: Memory,
        database: Database,
        tasks: Tasks,
        watched: Watched,
        events: Events,
        resources: Resources,
        overhead: Overhead | None,
        layers: Callable[[], tuple[LayerInfo, ...]],
        tracking: Callable[[], dict[str, Any]],
        health_inputs: Callable[[], list[HealthInput]],
        recent_blocks: Callable[[], list[LoopBlock]],
    ) -> None:
        self._app = app
        self._resources = resources
        self._overhead = overhead
        self._layers = layers
        self._tracking = tracking
        self._health_inputs = health_inputs
        self._recent_blocks = recent_blocks
        self.settings = settings
        self.metrics = metrics
        self.cache = cache
        self.memo = memo
        self.compression = compression
        self.limits = limits
        self.memory = memory
        self.database = database
        self.tasks = tasks
        self.watched = watched
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        return await self._app(scope, receive, send)

    def describe(self) -> tuple[LayerInfo, ...]:
        """The effective stack, outermost first, with the user's own middlewares in their places."""
        return self._layers()

    def add_resource(self, resource: Resource) -> None:
        """Open `resource` with the app, after our own, and close it before them.

        Raises RuntimeError when the app runs already, ValueError for a name that is taken,
        TypeError for what is no resource.
        """
        self._resources.add(resource)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Perf]:
        """Open the resources for the length of the block.

        Only where no server sends this app its lifespan: an app mounted in another one (enter it in
        the parent's lifespan), a script, a test.
        """
        async with self._resources.opened():
            await self._resources.make_ready({})
            yield self

    def recent_blocks(self) -> list[LoopBlock]:
        """The times that the event loop was blocked, newest first; empty with `runtime` off."""
        return self._recent_blocks()

    def status(self) -> dict[str, Any]:
        """One JSON-able picture of this process: health, resources, rates, cost of the layers."""
        recent = self.metrics.recent(RECENT_S)
        return {
            "service": self.settings.service,
            "version": __version__,
            "pid": os.getpid(),
            "health": health(self._health_inputs()),
            "lifespan": "running" if self._resources.running else "not running",
            "resources": self._resources.status(),
            "requests": {
                "total": self.metrics.recorder.figures.totals()[0],
                "in_progress": self.metrics.recorder.figures.in_progress,
                "rate_per_s": round(recent.rate_per_s, 2),
                "failed_share": recent.failed_share,
                "window_s": round(recent.seconds, 1),
            },
            "cache": self.cache.status() if self.settings.cache.enabled else None,
            "memo": self.memo.status() if self.settings.memo.enabled else None,
            "compression": self.compression.status() if self.settings.compression.enabled else None,
            "limits": self.limits.status(),
            "database": self.database.status() or None,
            "statements": self._statements(),
            "tracking": self._tracking(),
            "tasks": self.tasks.status() if self.settings.tasks.enabled else None,
            **self.watched.status(),
            "memory": self.memory.status() if self.settings.memory.enabled else None,
            "layers": [
                {"position": layer.position, "name": layer.name, "place": layer.place}
                for layer in self.describe()
            ],
            "overhead_us": self._overhead.mean_us() if self._overhead is not None else {},
        }

    def _statements(self) -> dict[str, Any] | None:
        """The few that took most; None where no database is used, or nobody looks."""
        if not self.settings.statements.enabled or not self.database.status():
            return None
        return self.database.statements.status(STATEMENTS_SHOWN)
