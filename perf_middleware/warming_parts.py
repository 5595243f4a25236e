"""Warming of one app's cache, made from the settings and introduced to the rest."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.warming.asked import WARMING
from perf_middleware.caching.warming.runtime import Warming
from perf_middleware.errors import SettingsError
from perf_middleware.limits.overload.level import BUSY
from perf_middleware.stack import (
    METRICS,
    OPERATORS,
    RATE_LIMIT,
    REQUEST_LIMITS,
    USER_RATE_LIMIT,
    composed,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.warming.runtime.ports import Hottest, Renewals, Turn
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.perf import Perf
    from perf_middleware.protection import Protection
    from perf_middleware.resource import Resources
    from perf_middleware.settings import Settings
    from perf_middleware.stack import Layer

OF_CLIENTS: Final = frozenset({METRICS, OPERATORS, RATE_LIMIT, REQUEST_LIMITS})
"""The layers that warming's requests enter below: they are no client's, nor counted as such."""


class WarmingParts:
    """Makes the warming; it is one of the app's resources once there is something to warm."""

    def __init__(
        self,
        settings: Settings,
        cache: ResponseCache,
        protection: Protection,
        fleet: Fleet | None,
        *,
        metrics: Metrics,
        resources: Resources,
    ) -> None:
        section = settings.warming
        self._metrics, self._resources = metrics, resources
        self._perf: Perf | None = None
        self.build: Callable[[], object] | None = None
        """Builds the stack of an app that builds its own at its first request."""
        self.warming: Warming | None = None
        if not section.enabled:
            return
        sharing = fleet if cache.shared is not None else None
        caches = settings.cache.enabled  # else only functions that warm values have a meaning
        self.warming = Warming(
            cache,
            asks=section.asks() if caches else (),
            base=section.base(),
            variants=section.variants(),
            wait_s=section.wait_s,
            run_s=section.run_s,
            request_s=section.request_s,
            interval_s=section.interval_s,
            after_purge_s=section.after_purge_s,
            concurrency=section.concurrency,
            asks_max=section.asks_max,
            refresh_hottest=section.refresh_hottest if caches else 0,
            refresh_ahead_s=section.refresh_ahead_s,
            remember=section.remember,
            hottest=_hottest(settings, sharing) if caches else None,
            turn=_turn(sharing),
            renewals=_renewals(sharing, section.request_s) if section.refresh_hottest else None,
            is_busy=lambda: (
                protection.limits.overload.level >= BUSY
                or protection.limits.backpressure.is_full()  # it would take a client's place
            ),
        )
        cache.warmer.warming = self.warming
        if self.warming.has_work:
            self._join()
        else:
            cache.warmer.on_first = self._join

    def enter(self, app: ASGIApp, layers: Sequence[Layer], perf: Perf) -> None:
        """Requests come in here: through all of `layers` that are not for clients alone."""
        if self.warming is None:
            return
        self._perf = perf
        self.warming.app = composed([each for each in layers if each.rank not in OF_CLIENTS], app)

    def past(self, layers: Sequence[Layer]) -> list[Layer]:
        """The same layers; what warming asks passes by those for clients that stand inside."""
        if self.warming is None:
            return list(layers)
        warming = self.warming

        def build(layer: Layer, app: ASGIApp) -> ASGIApp:
            built = layer.build(app)
            return _PastWarming(built, app) if warming.has_work else built

        return [
            replace(layer, build=partial(build, layer)) if layer.rank is USER_RATE_LIMIT else layer
            for layer in layers
        ]

    def _join(self) -> None:
        """Offer the figures, and begin with the app; raises RuntimeError once it runs."""
        warming = self.warming
        assert warming is not None  # noqa: S101 - asked for by one that is there
        self._resources.add(warming)
        self._resources.before_ready(self._begin)
        self._resources.when_stopping(warming.stop)
        self._metrics.add_collector(
            "warming", warming.figures.families, reset=warming.figures.reset
        )

    async def _begin(self, state: Mapping[str, Any]) -> None:
        assert self.warming is not None  # noqa: S101 - the same
        if self.build is not None:
            self.build()
        await self.warming.begin({**state, "perf": self._perf})


class _PastWarming:
    """A layer that only clients meet; `past` is what stands behind it."""

    def __init__(self, app: ASGIApp, past: ASGIApp) -> None:
        self.app = app
        self._past = past

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        return (self._past if WARMING in scope else self.app)(scope, receive, send)


def _turn(fleet: Fleet | None) -> Turn | None:
    """One process warms what all share; what each has for itself each warms itself."""
    if fleet is None:
        return None
    # Here and not above: redis-py takes a quarter of a second to import.
    from perf_middleware.caching.warming.stores.redis import SharedTurn

    return SharedTurn(fleet)


def _renewals(fleet: Fleet | None, request_s: float) -> Renewals | None:
    if fleet is None:
        return None
    from perf_middleware.caching.warming.stores.redis import SharedRenewals

    return SharedRenewals(fleet, request_s=request_s)


def _hottest(settings: Settings, fleet: Fleet | None) -> Hottest | None:
    """Raises SettingsError where there is no place to keep them."""
    section = settings.warming
    if not section.remember:
        return None
    if fleet is not None:
        from perf_middleware.caching.warming.stores.redis import SharedHottest

        return SharedHottest(fleet, asks_max=section.remember)
    if section.remember_dir is None:
        raise SettingsError(
            ("warming.remember: needs warming.remember_dir, or redis.url with cache.share",)
        )
    from perf_middleware.caching.warming.stores.file import FileHottest

    return FileHottest(section.remember_dir, service=settings.service, asks_max=section.remember)
