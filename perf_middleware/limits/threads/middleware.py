"""The lane of probes: a health check gets a thread though all of them are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.asgi import Around, app_path
from perf_middleware.limits.threads.drivers.mark import PROBE, ProbeMark
from perf_middleware.limits.threads.settings import ThreadSettings
from perf_middleware.standing_alone import section_of

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
    from perf_middleware.limits.threads.runtime import ThreadOffload


class ProbeLane(Around):
    """Let requests to `probe_paths` use the reserve of threads while all others are busy.

    Stands alone with `probe_paths` and `reserved_max` as arguments; the reserve is there from the
    first probe on, in each event loop.

    Raises SettingsError, which names each wrong argument.
    """

    def __init__(
        self, app: ASGIApp, *, threads: ThreadOffload | None = None, **settings: Any
    ) -> None:
        made = section_of(ThreadSettings, settings, call="ProbeLane")
        self.app = app
        self.threads = made.make_threads() if threads is None else threads
        self._paths = frozenset(made.probe_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope.get("path") in self._paths or (
            scope.get("root_path") and scope["type"] == "http" and app_path(scope) in self._paths
        ):
            return await self._answer_probe(scope, receive, send)
        return await self.below(scope, receive, send)

    async def _answer_probe(self, scope: Scope, receive: Receive, send: Send) -> Any:
        await self.threads.reserve_here()
        mark = ProbeMark()
        token = PROBE.set(mark)
        try:
            return await self.below(scope, receive, send)
        finally:
            mark.is_on = False
            PROBE.reset(token)
