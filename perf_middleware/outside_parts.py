"""Writes from outside of one app, made from the settings and introduced to the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.database.tables.touched import write_tags
from perf_middleware.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.database.outside.runtime import OutsideWrites
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.resource import Resources
    from perf_middleware.settings import Settings
    from perf_middleware.tracking_parts import TrackingParts


class OutsideParts:
    """Makes `perf.database.outside`: its SQL is there wherever a PostgreSQL is set.

    What is heard is purged by whoever purges after commits, and what this process writes bears the
    mark that it purges it itself.
    """

    def __init__(self, settings: Settings, tracking: TrackingParts, fleet: Fleet | None) -> None:
        self._listens = settings.outside.listen
        self._outside: OutsideWrites | None = None
        if settings.outside.url_of(settings.database) is not None:
            self._outside = settings.outside.make_outside(
                settings.database,
                namespace=settings.redis.namespace or settings.service,
                service=settings.service,
                shares=_reaching_all(settings, fleet),
            )
        elif self._listens:
            raise SettingsError(
                ("outside.listen: needs PostgreSQL: set database.url or outside.url",)
            )
        tracking.database.outside = self._outside
        if self._outside is not None and self._listens:
            self._follow(self._outside, settings, tracking)

    def join(self, metrics: Metrics, resources: Resources) -> None:
        """Where it listens: offer the figures, and let the lifespan open it."""
        outside = self._outside
        if outside is None or not self._listens:
            return
        metrics.add_collector("outside writes", outside.families, reset=outside.reset_counts)
        resources.add(outside)
        outside.on_change = lambda is_up, why: resources.note(
            outside, "open" if is_up else "degraded", why
        )

    def _follow(self, outside: OutsideWrites, settings: Settings, tracking: TrackingParts) -> None:
        purges = tracking.purges
        outside.on_write = lambda tables: purges.purged(write_tags(tables))
        # A process that keeps not all of what others keep does not purge all of it either.
        keeps_all = settings.cache.enabled and settings.memo.enabled
        if keeps_all and settings.tracking.enabled is not False:
            tracking.tracking.mark = outside.marked


def _reaching_all(settings: Settings, fleet: Fleet | None) -> Callable[[], bool] | None:
    """Whether what one process purges is purged in all; None where it never is."""
    is_shared = all(part.share for part in (settings.cache, settings.memo) if part.enabled)
    return (lambda: fleet.is_up) if fleet is not None and is_shared else None
