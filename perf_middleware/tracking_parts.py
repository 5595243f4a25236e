"""What answers depend on: commits of one app's databases, introduced to what they purge."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.tables.touched import ALL_TABLES, write_tags
from perf_middleware.database.tracking.reads import Reads
from perf_middleware.database.tracking.runtime import CURRENT_READS, Tracking
from perf_middleware.database.tracking.runtime.announcing import CommitAnnouncements
from perf_middleware.database.tracking.runtime.engines import TrackedEngines
from perf_middleware.database.tracking.runtime.purges import CommitPurges
from perf_middleware.metrics.middleware import current_exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.database.runtime import Database
    from perf_middleware.families import Family
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.resource import Resources
    from perf_middleware.settings import Settings

logger = logging.getLogger("perf_middleware.database")

ALONE: Final = (
    "rules are `tracked` and several worker processes serve, but they share no cache: what one of "
    "them writes the others do not hear of, and answer what was before; set redis.url (and leave "
    "cache.share on), or run one worker"
)


class TrackingParts:
    """Looks at what is read and written over the engines of `database`, and has it followed.

    `purges` is where whoever keeps what was made of tables says how it is forgotten.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.database = database
        self._settings = settings.tracking
        self._caches = settings.cache.enabled
        self.purges = CommitPurges(is_in_a_request=_is_in_a_request)
        self.announcements = CommitAnnouncements(
            self.purges, refuses=self._settings.refuse_unannounced
        )
        self.tracking = Tracking(self.purges, is_active=False)
        self.engines = TrackedEngines(
            self.tracking,
            known_functions=frozenset(self._settings.known_functions),
            known_triggers=frozenset(self._settings.known_triggers),
            rows=frozenset(self._settings.rows),
        )
        self.engines.on_bind = self.purges.bind
        if self._settings.enabled is not False:
            database.instruments.tracked = self.engines
        self._findings: Callable[[], list[str]] = list

    def join(self, metrics: Metrics, resources: Resources) -> None:
        """Offer the figures, and begin with the app."""
        metrics.add_collector("tracking", self._families, reset=self._reset_counts)
        resources.when_started(self._started)
        resources.when_stopping(self.engines.rest)

    def follow(
        self, cache: ResponseCache, fleet: Fleet | None, *, has_siblings: Callable[[], bool]
    ) -> None:
        """Purge `cache` by what is committed, for all processes where `fleet` shares it.

        `has_siblings`: whether other worker processes of this host serve the same app.
        """
        if self._settings.enabled is False:
            return
        if fleet is not None:
            self.purges.then(fleet.heard_by_all)
            self.purges.lift = fleet.lift
            self.announcements.announce_by(fleet.announce, fleet.let_go)
            self.tracking.announce = self.announcements
            self.tracking.withdraw = self.announcements.withdraw
            self.tracking.leave_open = self.announcements.leave_open
            fleet.purge_overdue_by(self.purges.purge_for_others, all_tags=write_tags(ALL_TABLES))
        if self._settings.enabled:
            self.engines.activate()
        if not self._caches:
            return
        tracked = cache.tracked
        self.tracking.newest_purge = lambda: cache.purges.newest
        self.purges.add(
            lambda tags: cache.purging.tags(tuple(tags), soft=False),
            at_once=cache.purging.tags_at_once,
            owe=cache.purging.owe_tags,
            is_last=True,
        )
        tracked.join(CURRENT_READS, Reads)
        tracked.settle = self.purges.settle
        tracked.is_settled = lambda: self.purges.is_settled
        if fleet is not None and cache.shared is not None:
            tracked.lease(lambda: fleet.lease_until_us)
            tracked.when_used(fleet.keep_lease)
        tracked.when_used(self.engines.activate)
        if cache.rules.has_tracked or self._settings.enabled:
            tracked.use()

        def findings() -> list[str]:
            is_alone = tracked.current is not None and cache.shared is None
            return [ALONE] if is_alone and has_siblings() else []

        self._findings = findings

    def status(self) -> dict[str, Any]:
        """Whether statements are looked at, what came of it, and what is wrong; JSON-able."""
        return {
            "active": self.tracking.is_active,
            **self.tracking.status(),
            "purges": self.purges.status(),
            "unannounced": self.announcements.unannounced,
            "relations": self.engines.status(),
            "findings": self._findings(),
        }

    def _started(self) -> None:
        try:
            self.engines.bind()
            self.engines.read_soon()
        except RuntimeError:
            return  # trio: nobody waits for a loop of asyncio's
        for finding in self._findings():
            logger.warning("%s", finding)

    def _families(self) -> Iterable[Family]:
        yield from self.tracking.families()
        yield from self.purges.families()
        yield from self.announcements.families()

    def _reset_counts(self) -> None:
        self.tracking.reset_counts()
        self.purges.reset_counts()
        self.announcements.reset_counts()


def _is_in_a_request() -> bool:
    exchange = current_exchange()
    return exchange is not None and bool(exchange.scope)
