"""The task queue of one app, and what it watches beside it, introduced to the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.values.decorators.flights import LEADING
from perf_middleware.database.queries.drivers.watching import CURRENT_RUN
from perf_middleware.database.retry.runtime import RUNNING
from perf_middleware.database.streams.runtime import CURRENT as STREAMING
from perf_middleware.database.tracking.runtime import CURRENT_READS
from perf_middleware.limits.deadlines.runtime import CURRENT as DEADLINE
from perf_middleware.limits.threads.drivers.mark import PROBE
from perf_middleware.tasks.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.protection import Protection
    from perf_middleware.resource import Resources
    from perf_middleware.settings import Settings

# What a request is held to, or has begun: a job that it enqueues goes on when it is over.
LEFT_OUT: Final[tuple[tuple[ContextVar[Any], object], ...]] = (
    (DEADLINE, None),
    (RUNNING, None),
    (CURRENT_READS, None),
    (CURRENT_RUN, None),
    (STREAMING, None),
    (PROBE, None),
    (LEADING, ()),
)


class TaskParts:
    """Makes `perf.tasks` and `perf.watched`."""

    def __init__(self, settings: Settings, *, metrics: Metrics, protection: Protection) -> None:
        self.is_enabled = settings.tasks.enabled
        self.tasks = settings.tasks.make_queue(
            level=_level_of(protection) if settings.overload.enabled else None,
            left_out=LEFT_OUT,
            trace_id=_trace_id_of(metrics),
        )
        self.watched = Watched()

    def join(self, metrics: Metrics, resources: Resources) -> None:
        """Offer the figures, and let the lifespan open it, and drain it before the app stops."""
        tasks, watched = self.tasks, self.watched
        metrics.add_collector("watched", watched.families, reset=watched.reset_counts)
        if not self.is_enabled:
            return
        metrics.add_collector("tasks", tasks.families, reset=tasks.reset_counts)
        resources.add(tasks)
        resources.when_stopping(tasks.drain)
        tasks.when_journal_changes(
            lambda is_up, why: resources.note(tasks, "open" if is_up else "degraded", why)
        )


def _level_of(protection: Protection) -> Callable[[], int]:
    overload = protection.limits.overload
    return lambda: overload.level


def _trace_id_of(metrics: Metrics) -> Callable[[], str | None]:
    def trace_id() -> str | None:
        trace = metrics.trace()
        return None if trace is None else trace.trace_id

    return trace_id
