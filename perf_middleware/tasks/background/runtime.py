"""Which request makes a background task, and how many it made."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perf_middleware.endpoint_marks import METHODS
from perf_middleware.families import OTHER
from perf_middleware.route_templates import RouteTemplates
from perf_middleware.tasks.background.figures import BackgroundCounts
from perf_middleware.tasks.queue.runtime.job import MADE_BY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import HTTPConnection

    from perf_middleware.tasks.background.figures import RouteCounts
    from perf_middleware.tasks.queue.runtime.job import Job


class Origins:
    """The requests of one app, by their method and route."""

    def __init__(self) -> None:
        self._templates = RouteTemplates()
        self.counts = BackgroundCounts()

    def name_of(self, request: HTTPConnection[Any] | None) -> str:
        """`POST /orders/{id}`, of a websocket its route; empty without a request."""
        if request is None:
            return ""
        scope = request.scope
        # Mounts write down what root_path was before them.
        base = scope.get("app_root_path", scope.get("root_path")) or ""
        route = self._templates.template_of(scope, base)
        method = scope.get("method")
        if method and method not in METHODS:  # a client may send any word
            method = OTHER
        return f"{method} {route}" if method else route

    @contextmanager
    def making(self, request: HTTPConnection[Any] | None) -> Iterator[RouteCounts]:
        """What is enqueued within is told to be of `request`."""
        made_by = self.name_of(request)
        token = MADE_BY.set(made_by or None)
        try:
            yield self.counts.of(made_by)
        finally:
            MADE_BY.reset(token)

    def follow(self, counts: RouteCounts, job: Job[Any]) -> None:
        """Count `job`, and how it ends."""
        counts.accepted += 1
        counts.in_progress += 1
        job.when_finished(lambda job: counts.ended(job.status))
