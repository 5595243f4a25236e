"""The query cache of one app, introduced to what keeps its answers and to what follows commits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.caching.values.runtime import ValueCache
    from perf_middleware.database.runtime import Database
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.settings import Settings
    from perf_middleware.tracking_parts import TrackingParts

logger = logging.getLogger("perf_middleware.database")

DEAF: Final = (
    "answers of the query cache are kept only where they have a ttl: commits of other processes "
    "are not heard of here; set %s"
)


class QueryParts:
    """`perf.database.queries`, which keeps nothing until `keep`."""

    def __init__(self, settings: Settings, database: Database, tracking: TrackingParts) -> None:
        self._is_tracking = settings.tracking.enabled
        self._tracking = tracking
        self._told_deaf = False
        self.queries = database.queries
        self.queries.engines = tracking.engines.watched

    def join(self, metrics: Metrics) -> None:
        """Offer the figures."""
        queries = self.queries
        metrics.add_collector("query cache", queries.families, reset=queries.reset_counts)

    def keep(
        self, memo: ValueCache, fleet: Fleet | None, *, has_siblings: Callable[[], bool]
    ) -> None:
        """Keep what queries gave in `memo`, for all processes where `fleet` shares it.

        `has_siblings`: whether other worker processes of this host serve the same app.
        """
        if self._is_tracking is False:
            return
        queries, is_current = self.queries, None
        if fleet is not None:
            is_current = _is_led(fleet)
            queries.when_used(fleet.keep_lease)
        queries.when_used(self._tracking.engines.activate)
        # Before the response cache, whose answers are made of these.
        self._tracking.purges.add(queries.purge, at_once=queries.purge_at_once, owe=queries.owe)

        def missing() -> str | None:
            if fleet is None:
                return "redis.url, or run one worker" if has_siblings() else None
            # A process that has asked for nothing yet would write unheard.
            return None if self._is_tracking else "tracking.enabled to true in all of them"

        def is_deaf() -> bool:
            what = missing()
            if what is not None and not self._told_deaf:
                self._told_deaf = True
                logger.warning(DEAF, what)
            return what is not None

        queries.keep_on(memo.asides(is_current=is_current), is_deaf=is_deaf)

    def status(self) -> dict[str, Any] | None:
        """A small JSON-able picture; None before the first use."""
        return self.queries.status() if self.queries.is_used else None


def _is_led(fleet: Fleet) -> Callable[[], bool]:
    """Whether memory is known to lack no purge of the others."""
    return lambda: monotonic_us() < fleet.lease_until_us
