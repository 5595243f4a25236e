"""The limits of one app, made from the settings and introduced to each other and to the rest."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from perf_middleware.limits.concurrency.criticality import ATTRIBUTE as CRITICALITY
from perf_middleware.limits.concurrency.middleware import BackpressureMiddleware
from perf_middleware.limits.deadlines.choices import (
    BODY_LIMIT_ATTRIBUTE,
    TIMEOUT_ATTRIBUTE,
)
from perf_middleware.limits.deadlines.middleware.bodies import RequestLimitsMiddleware
from perf_middleware.limits.deadlines.middleware.timeouts import DeadlineMiddleware
from perf_middleware.limits.deadlines.runtime import remaining_us
from perf_middleware.limits.overload.level import OVERLOADED
from perf_middleware.limits.rate.middleware import RateLimitLayer
from perf_middleware.limits.rate.specs import ATTRIBUTE as RATE
from perf_middleware.limits.rate.specs import QuotaSpec
from perf_middleware.limits.runtime import Limits
from perf_middleware.limits.threads.middleware import ProbeLane
from perf_middleware.metrics.probes.process import cpu_quota
from perf_middleware.stack import (
    BACKPRESSURE,
    DEADLINE,
    PROBE_LANE,
    RATE_LIMIT,
    REQUEST_LIMITS,
    USER_RATE_LIMIT,
    Layer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.events import Events
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.resource import Resources
    from perf_middleware.routing_ahead import RoutingAhead
    from perf_middleware.settings import Settings

logger = logging.getLogger("perf_middleware")

MARKS: Final = (TIMEOUT_ATTRIBUTE, BODY_LIMIT_ATTRIBUTE, CRITICALITY)
RATE_OUTER: Final = "rate limit, outer"
RATE_INNER: Final = "rate limit, inner"
DECORATORS: Final = {
    TIMEOUT_ATTRIBUTE: "@timeout",
    BODY_LIMIT_ATTRIBUTE: "@body_limit",
    RATE_OUTER: "@rate_limit",
    RATE_INNER: "@rate_limit",
}


class Protection:
    """Makes the parts of `perf.limits`; `layers` are those of the stack that they stand in.

    What a decorator on an endpoint asks for stands where the app has such an endpoint when it
    builds its stack: `read_routes` is called then.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        events: Events,
        fleet: Fleet | None,
        memory_share: Callable[[], float | None] | None,
    ) -> None:
        self._settings = settings
        self._marked: frozenset[str] | None = None
        self._ahead: RoutingAhead | None = None
        callers = settings.callers.make_callers()
        rate = settings.ratelimit.make_rate_limit(callers=callers)
        if fleet is not None and settings.ratelimit.enabled and settings.ratelimit.share:
            rate.share(fleet)
        backpressure = settings.backpressure.make_backpressure()
        deadlines = settings.deadlines.make_deadlines()
        threads = settings.threads.make_threads(cpu_quota=cpu_quota)
        overload = settings.overload.make_level(
            events=events,
            cpu_quota=cpu_quota,
            memory_share=memory_share,
            queue_age_s=backpressure.queue_age_s if settings.backpressure.enabled else None,
            thread_queue_s=threads.queue_s if settings.threads.enabled else None,
        )
        backpressure.on_change = events.publish
        backpressure.remaining_us = remaining_us
        if settings.overload.enabled:
            backpressure.level = lambda: overload.level
            backpressure.fold.is_starved = lambda: overload.is_starved
        if settings.callers.trusted:
            backpressure.trusts = deadlines.trusts = callers.trusts
        elif settings.deadlines.enabled and settings.deadlines.follow_header:
            logger.warning(
                "deadlines.follow_header: callers.trusted names nobody, so no deadline is followed"
            )
        self.limits = Limits(
            callers=callers,
            rate=rate,
            backpressure=backpressure,
            deadlines=deadlines,
            overload=overload,
            threads=threads,
        )

    def is_overloaded(self) -> bool:
        """Whether what can wait is to wait."""
        return self.limits.overload.level >= OVERLOADED

    def join(self, metrics: Metrics, resources: Resources) -> None:
        """Offer the figures, and let the lifespan open what lives as long as the app."""
        settings, limits = self._settings, self.limits
        resources.when_started(self._read_late_routes)
        if settings.ratelimit.enabled:
            metrics.add_collector(
                "rate limit", limits.rate.families, reset=limits.rate.reset_counts
            )
        if settings.deadlines.enabled:
            metrics.add_collector(
                "deadlines", limits.deadlines.families, reset=limits.deadlines.reset_counts
            )
        if settings.backpressure.enabled:
            metrics.add_collector(
                "backpressure", limits.backpressure.families,
                reset=limits.backpressure.reset_counts,
            )  # fmt: skip
        if settings.threads.enabled:
            resources.add(limits.threads)
            metrics.add_collector(
                "threads", limits.threads.families, reset=limits.threads.reset_counts
            )
        if settings.overload.enabled:
            resources.add(limits.overload)
            resources.when_started(limits.overload.note_started)
            metrics.add_collector(
                "overload", limits.overload.families, reset=limits.overload.reset_counts
            )

    def read_routes(self, ahead: RoutingAhead) -> None:
        """The app builds its stack: from now on its endpoints' marks hold."""
        self._ahead = ahead
        self._marked = _marked(ahead)
        self._obey(ahead, self._marked)

    def _read_late_routes(self) -> None:
        """The app has started, and may have added routes meanwhile, behind its stack."""
        ahead, before = self._ahead, self._marked
        if ahead is None or before is None:
            return
        late = _marked(ahead) - before
        settings, rate = self._settings, self.limits.rate
        stands = {
            TIMEOUT_ATTRIBUTE: not settings.deadlines.enabled or settings.deadlines.has_timeouts,
            BODY_LIMIT_ATTRIBUTE: not settings.deadlines.enabled
            or settings.deadlines.has_request_limits,
            RATE_OUTER: not settings.ratelimit.enabled or rate.has_outer,
            RATE_INNER: not settings.ratelimit.enabled or rate.has_inner,
        }
        for name in sorted({DECORATORS[mark] for mark in late & stands.keys() if not stands[mark]}):
            logger.warning(
                "%s stands on a route that was added while the app started, and on none before: "
                "its layer was not built, and it does not hold.  Add the route before the start",
                name,
            )
        if late:
            self._obey(ahead, before | late)

    def _obey(self, ahead: RoutingAhead, marked: frozenset[str]) -> None:
        limits, is_by_host = self.limits, ahead.has_hosts
        if RATE in marked or limits.rate.needs_routes:
            limits.rate.read_endpoints(ahead, ahead.endpoints(), is_by_host=is_by_host)
        if marked & {TIMEOUT_ATTRIBUTE, BODY_LIMIT_ATTRIBUTE}:
            limits.deadlines.read_endpoints(ahead, is_by_host=is_by_host)
        if CRITICALITY in marked:
            limits.backpressure.rules.read_endpoints(ahead, is_by_host=is_by_host)

    def layers(self, ahead: RoutingAhead | None) -> list[Layer]:
        """The layers that are switched on; `ahead` is None where no routes are known."""
        settings, limits = self._settings, self.limits
        layers = []

        def asks_for(what: str) -> bool:
            if self._marked is not None:
                return what in self._marked
            return ahead is not None and what in _marked(ahead)

        if settings.ratelimit.enabled:
            rate = limits.rate
            layers += [
                Layer(
                    RATE_LIMIT,
                    lambda app: RateLimitLayer(app, rate, place="outer"),
                    lambda: rate.has_outer or asks_for(RATE_OUTER),
                ),
                Layer(
                    USER_RATE_LIMIT,
                    lambda app: RateLimitLayer(app, rate, place="inner"),
                    lambda: rate.has_inner or asks_for(RATE_INNER),
                ),
            ]
        if settings.deadlines.enabled:
            deadlines = limits.deadlines
            layers += [
                Layer(
                    REQUEST_LIMITS,
                    lambda app: RequestLimitsMiddleware(app, deadlines),
                    lambda: settings.deadlines.has_request_limits or asks_for(BODY_LIMIT_ATTRIBUTE),
                ),
                Layer(
                    DEADLINE,
                    lambda app: DeadlineMiddleware(app, deadlines),
                    lambda: settings.deadlines.has_timeouts or asks_for(TIMEOUT_ATTRIBUTE),
                ),
            ]
        if settings.backpressure.enabled:
            backpressure = limits.backpressure
            layers.append(
                Layer(BACKPRESSURE, lambda app: BackpressureMiddleware(app, backpressure))
            )
        if settings.threads.enabled and settings.threads.reserved_max:
            threads = limits.threads
            paths = settings.threads.probe_paths
            layers.append(
                Layer(
                    PROBE_LANE,
                    lambda app: ProbeLane(app, threads=threads, probe_paths=paths),
                    lambda: ahead is None or ahead.answers_any(paths),
                )
            )
        return layers


def _marked(ahead: RoutingAhead) -> frozenset[str]:
    """What the endpoints of the app ask for by decorators."""
    asked = {mark for mark in MARKS if ahead.marks(mark)}
    for marks in ahead.marks(RATE):
        asked.add(RATE)  # which may exempt from what stands anyway
        for mark in marks:
            if isinstance(mark, QuotaSpec):
                asked.add(RATE_INNER if mark.stands == "inner" else RATE_OUTER)
    return frozenset(asked)
