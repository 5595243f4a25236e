"""The parts of one `install`, made from the settings and introduced to each other.

Features meet only here.  Settings end here: what is built gets values, and a wrong setting fails
here, never at the first request.  assembly.py puts the layers around the app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from perf_middleware.caching.middleware import CacheLayer
from perf_middleware.compression.middleware.requests import RequestDecodingMiddleware
from perf_middleware.compression.middleware.responses import CompressionLayer
from perf_middleware.compression.request_figures import RequestDecodingFigures
from perf_middleware.dashboard.access import TokenGate
from perf_middleware.dashboard.resource import OperatorDoor
from perf_middleware.dashboard.routes import Endpoint, OperatorEndpoints, json_answer
from perf_middleware.database_parts import DatabaseParts
from perf_middleware.errors import SettingsError
from perf_middleware.events import Events
from perf_middleware.health_parts import health_inputs
from perf_middleware.memory_parts import MemoryParts
from perf_middleware.metrics.drivers.prometheus_registry import ForeignFigures
from perf_middleware.metrics.middleware import (
    MetricsMiddleware,
    follow_scope,
    name_route,
    note_part,
    router_scope,
)
from perf_middleware.metrics.overhead import Overhead
from perf_middleware.metrics.probes.busyness import LoopBusyness
from perf_middleware.metrics.probes.gc import GcProbe
from perf_middleware.metrics.probes.loop import LoopProbe
from perf_middleware.metrics.probes.process import ProcessProbe
from perf_middleware.metrics.routes import MetricsPage, ResetCounts
from perf_middleware.metrics.runtime import Metrics, Sampler
from perf_middleware.metrics.stores.shared import WorkerExchange
from perf_middleware.outside_parts import OutsideParts
from perf_middleware.perf import Perf
from perf_middleware.protection import Protection
from perf_middleware.query_parts import QueryParts
from perf_middleware.rejections import RejectionLayer
from perf_middleware.resource import Resources
from perf_middleware.stack import (
    CACHE,
    COMPRESSION,
    FRONT_CACHE,
    METRICS,
    OPERATORS,
    REJECTIONS,
    REQUEST_DECODING,
    REQUEST_SCOPE,
    Layer,
    LayerInfo,
    RequestScope,
)
from perf_middleware.task_parts import TaskParts
from perf_middleware.tracking_parts import TrackingParts
from perf_middleware.warming_parts import WarmingParts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

    from perf_middleware.asgi import ASGIApp
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.values.runtime import ValueCache
    from perf_middleware.compression.runtime import Compression
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.metrics.settings import RuntimeSettings
    from perf_middleware.routing_ahead import RoutingAhead
    from perf_middleware.settings import Settings


# What a process knows of itself, as it knows its pid: which names its apps go by among workers.
_NAMED: WeakValueDictionary[str, Bundle] = WeakValueDictionary()


class Bundle:
    """The parts of one app, on their way to becoming a Perf."""

    def __init__(self, settings: Settings, *, memo: ValueCache | None = None) -> None:
        self.settings = settings
        self.events = Events()
        self.resources = Resources(
            start_timeout_s=settings.lifespan.start_timeout_s,
            drain_timeout_s=settings.lifespan.drain_timeout_s,
            events=self.events,
        )
        self.metrics = Metrics(
            recorder=settings.metrics.make_recorder(),
            label_sets_max=settings.metrics.label_sets_max,
            buckets_s=settings.metrics.buckets_s,
        )
        self.metrics.add_collector("events", self.events.families)
        if settings.metrics.default_registry:
            registered = ForeignFigures()
            self.metrics.join(registered=registered)
            self.metrics.add_collector("prometheus_client", registered.families)
        self.workers: WorkerExchange | None = None
        if settings.metrics.enabled and settings.metrics.workers:
            self._join_workers(settings)
        self.fleet = settings.redis.make_fleet(settings.service)
        if self.fleet is not None:
            self._join_fleet(self.fleet)
        self.database = DatabaseParts(settings, metrics=self.metrics, events=self.events)
        self.database.join(self.metrics, self.resources)
        self.tracking = TrackingParts(settings, self.database.database)
        self.tracking.join(self.metrics, self.resources)
        self.queries = QueryParts(settings, self.database.database, self.tracking)
        self.queries.join(self.metrics)
        OutsideParts(settings, self.tracking, self.fleet).join(self.metrics, self.resources)
        self.cache = _cache(settings)
        if settings.cache.enabled:
            if self.fleet is not None and settings.cache.share:
                self.cache.share(self.fleet)
            self.metrics.add_collector(
                "response cache", self.cache.families, reset=self.cache.reset_counts
            )
        self.tracking.follow(self.cache, self.fleet, has_siblings=self._has_siblings)
        self.memo = settings.memo.make_cache() if memo is None else settings.memo.adopt(memo)
        if settings.memo.enabled:
            if self.fleet is not None and settings.memo.share:
                self.memo.share(self.fleet)
            self.metrics.add_collector(
                "value cache", self.memo.families, reset=self.memo.reset_counts
            )
            shared_by = self.fleet if settings.memo.share else None
            self.queries.keep(self.memo, shared_by, has_siblings=self._has_siblings)
        self.request_decoding = RequestDecodingFigures()
        if settings.compression.decode_requests:
            self.metrics.add_collector(
                "request decoding",
                self.request_decoding.families,
                reset=self.request_decoding.reset,
            )
        self.loop: LoopProbe | None = None
        if settings.runtime.enabled:
            self._watch_process(settings.runtime)
        self.memory = MemoryParts(
            settings, events=self.events, metrics=self.metrics, cache=self.cache, memo=self.memo
        )
        self.protection = Protection(
            settings,
            events=self.events,
            fleet=self.fleet,
            memory_share=self.memory.share if settings.memory.enabled else None,
        )
        self.memory.obey(self.protection)
        self.memory.join(self.metrics, self.resources)
        self.protection.join(self.metrics, self.resources)
        self.tasks = TaskParts(settings, metrics=self.metrics, protection=self.protection)
        self.tasks.join(self.metrics, self.resources)
        self.compression = _compression(settings, self.loop, self.protection)
        self.cache.is_overloaded = self.protection.is_overloaded
        self.warming = WarmingParts(
            settings, self.cache, self.protection, self.fleet,
            metrics=self.metrics, resources=self.resources,
        )  # fmt: skip
        self.memo.obey(self.protection.is_overloaded)
        if settings.compression.enabled:
            self.metrics.add_collector(
                "compression", self.compression.families, reset=self.compression.reset_counts
            )
            if self.compression.repeats is not None:
                self.memory.let_go_of(self.compression.repeats)
        if settings.metrics.enabled:
            self.resources.add(Sampler(self.metrics))
        self.endpoints = self._endpoints()
        self.overhead = Overhead() if settings.metrics.overhead else None
        if self.overhead is not None:
            self.metrics.add_collector("overhead", self.overhead.families)
        self.perf: Perf | None = None

    def make_perf(self, app: ASGIApp, describe: Callable[[], tuple[LayerInfo, ...]]) -> Perf:
        self.perf = Perf(
            app=app,
            settings=self.settings,
            metrics=self.metrics,
            cache=self.cache,
            memo=self.memo,
            compression=self.compression,
            limits=self.protection.limits,
            memory=self.memory.memory,
            database=self.database.database,
            tasks=self.tasks.tasks,
            watched=self.tasks.watched,
            events=self.events,
            resources=self.resources,
            overhead=self.overhead,
            layers=describe,
            tracking=lambda: self.tracking.status() | {"queries": self.queries.status()},
            health_inputs=lambda: health_inputs(self.metrics, self.loop, self.resources),
            recent_blocks=self.loop.recent_blocks if self.loop is not None else list,
        )
        return self.perf

    def layers(
        self, *, takes: Callable[[str], bool], ahead: RoutingAhead | None = None
    ) -> list[Layer]:
        """The layers that are switched on; `takes(path)` says if an operator path is ours.

        `ahead` goes through the app's routes, where it has any that are known.
        """
        settings = self.settings
        layers = self.protection.layers(ahead) + self.memory.layers()
        layers += self.database.layers()
        if settings.metrics.enabled:
            recorder = self.metrics.recorder
            layers += [
                Layer(METRICS, lambda app: MetricsMiddleware.recording(app, recorder)),
                Layer(REQUEST_SCOPE, RequestScope),
            ]
        if ahead is None and self.database.is_configured:
            layers.append(Layer(REJECTIONS, RejectionLayer))
        if self.endpoints:
            endpoints = self.endpoints
            layers.append(
                Layer(
                    OPERATORS,
                    lambda app: OperatorEndpoints(app, endpoints=endpoints, takes=takes),
                )
            )
        if settings.compression.enabled:
            compression = self.compression
            layers.append(Layer(COMPRESSION, lambda app: CompressionLayer(app, compression)))
        if settings.compression.decode_requests:
            layers.append(Layer(REQUEST_DECODING, self._decoding_requests))
        if settings.cache.enabled:
            cache = self.cache
            rank = CACHE if settings.cache.position == "inner" else FRONT_CACHE
            layers.append(Layer(rank, lambda app: CacheLayer(app, cache)))
        return self.warming.past(layers)

    def _decoding_requests(self, app: ASGIApp) -> ASGIApp:
        compression = self.settings.compression
        return RequestDecodingMiddleware(
            app,
            decoded_bytes_max=compression.decoded_bytes_max,
            decoded_ratio_max=compression.decoded_ratio_max,
            figures=self.request_decoding,
            follow=follow_scope if self.settings.metrics.enabled else None,
        )

    def _join_workers(self, settings: Settings) -> None:
        exchange = self.workers = WorkerExchange(
            settings.metrics.workers_dir,
            service=self._name_among_workers(settings.service),
            own=self.metrics.families,
            interval_s=settings.metrics.workers_interval_s,
            on_reset=self.metrics.reset_own,
        )
        self.resources.add(exchange)
        self.metrics.join(workers=exchange)
        self.metrics.add_collector("worker exchange", exchange.families)

    def _has_siblings(self) -> bool:
        return self.workers is not None and self.workers.sharing

    def _join_fleet(self, fleet: Fleet) -> None:
        resources = self.resources
        resources.add(fleet)
        fleet.on_change = lambda is_up, why: resources.note(
            fleet, "open" if is_up else "degraded", why
        )
        self.metrics.add_collector("redis", fleet.families)

    def _name_among_workers(self, service: str) -> str:
        """`service`, numbered where another app of this process has it.

        Worker processes make their apps in the same order, so each app meets its own likes.
        """
        name, number = service, 1
        while name in _NAMED:
            number += 1
            name = f"{service}.{number}"
        _NAMED[name] = self
        return name

    def _watch_process(self, runtime: RuntimeSettings) -> None:
        self.loop = LoopProbe(
            interval_s=runtime.lag_interval_s,
            blocked_s=runtime.blocked_s,
            blocked_kept_max=runtime.blocked_kept_max,
            own_paths=runtime.own_paths,
            describe_load=self._load,
            on_block=self.events.publish,
        )
        process = ProcessProbe()
        self.resources.add(self.loop)
        self.metrics.add_collector("event loop", self.loop.families)
        self.metrics.add_collector("process", process.families)
        if runtime.gc:
            gc_probe = GcProbe()
            self.resources.add(gc_probe)
            self.metrics.add_collector("gc", gc_probe.families)

    def _load(self) -> str | None:
        in_progress = self.metrics.recorder.figures.in_progress
        if not in_progress:
            return None
        return "1 request" if in_progress == 1 else f"{in_progress} requests"

    def _endpoints(self) -> dict[str, Endpoint]:
        settings = self.settings
        endpoints: dict[str, Endpoint] = {}
        if settings.metrics.enabled:
            token = _token("metrics.token", settings.metrics.token)
            endpoints[settings.metrics.path] = Endpoint(
                MetricsPage(self.metrics), gate=TokenGate(token) if token is not None else None
            )
        if settings.dashboard.enabled:
            prefix = settings.dashboard.prefix
            token = _token("dashboard.token", settings.dashboard.token)
            door = OperatorDoor(prefix, token, service=settings.service)
            self.resources.add(door)
            operators = {
                f"{prefix}/status": Endpoint(json_answer(self._status), gate=door.gate),
                f"{prefix}/summary": Endpoint(json_answer(self.metrics.summary), gate=door.gate),
                f"{prefix}/reset": Endpoint(
                    ResetCounts(self.metrics), methods=("POST",), gate=door.gate
                ),
            }
            for route in (*self.memory.routes(), *self.database.routes()):
                operators[prefix + route.path] = Endpoint(
                    route.answer, methods=route.methods, gate=door.gate
                )
            for path in operators.keys() & endpoints.keys():
                raise SettingsError((f"metrics.path: {path} is an endpoint of dashboard.prefix",))
            endpoints |= operators
        return endpoints

    async def _status(self) -> dict[str, Any]:
        return self.perf.status() if self.perf is not None else {}


def _cache(settings: Settings) -> ResponseCache:
    cache = settings.cache.make_cache()
    if settings.metrics.enabled:
        cache.name_route = name_route
        cache.router_scope, cache.follow = router_scope, follow_scope
        if settings.metrics.server_timing:
            cache.note_part = note_part
    return cache


def _compression(settings: Settings, loop: LoopProbe | None, protection: Protection) -> Compression:
    compression = settings.compression.make_compression()
    busyness = LoopBusyness(lag_s=None if loop is None else loop.lag_s).read
    compression.pressure = lambda: 1.0 if protection.is_overloaded() else busyness()
    if settings.metrics.enabled:
        compression.router_scope = router_scope
        compression.follow = follow_scope
    return compression


def _token(key: str, secret: SecretStr | None) -> str | None:
    if secret is None:
        return None
    token = secret.get_secret_value().strip()
    if not token:
        # Nobody could send it; and an empty one must not mean "open" here and "random" there.
        raise SettingsError((f"{key}: must not be blank",))
    return token
