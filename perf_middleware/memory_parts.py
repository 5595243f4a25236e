"""The memory watch of one app, made from the settings and introduced to the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.errors import TracingBusyError
from perf_middleware.memory_watch.collector.runtime import GarbageCollection
from perf_middleware.memory_watch.functions.decorators import FunctionMemory
from perf_middleware.memory_watch.ladder import HARD
from perf_middleware.memory_watch.leaks.probes import InUse
from perf_middleware.memory_watch.leaks.route_growth import RouteGrowth
from perf_middleware.memory_watch.leaks.runtime import leak_watch_of
from perf_middleware.memory_watch.memory import Memory
from perf_middleware.memory_watch.middleware import MemoryLayer, MemoryWatchMiddleware
from perf_middleware.memory_watch.middleware.guard import guard_of
from perf_middleware.memory_watch.on_demand.routes import memory_routes
from perf_middleware.memory_watch.on_demand.runtime import MemoryInspection
from perf_middleware.memory_watch.probes.memory import MemoryProbe
from perf_middleware.memory_watch.tracing.runtime import AllocationTracer
from perf_middleware.metrics.middleware import current_exchange, router_scope
from perf_middleware.stack import MEMORY, Layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from perf_middleware.asgi import Scope
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.values.runtime import ValueCache
    from perf_middleware.compression.repeats import RepeatedBodies
    from perf_middleware.events import Events
    from perf_middleware.memory_watch.leaks.runtime import LeakWatch
    from perf_middleware.memory_watch.reading import MemorySample
    from perf_middleware.memory_watch.tracing.sites import TraceReport
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.operator_routes import OperatorRoute
    from perf_middleware.protection import Protection
    from perf_middleware.resource import Background, Resources
    from perf_middleware.settings import Settings

OURS_FIRST: Final = 10  # what can be computed again goes before what users register
WITNESS_EVERY_US: Final = 950_000  # about a second: looks come more often while memory grows


class _Looks:
    """Ends with the app what looks at its memory: no trace may outlive it."""

    name = "memory inspection"
    required = False

    def __init__(self, inspection: MemoryInspection, leaks: LeakWatch) -> None:
        self._inspection = inspection
        self._leaks = leaks
        self._closed = False

    async def open(self, background: Background) -> None:
        """Nothing is open before somebody looks."""
        self._closed = False

    async def close(self) -> None:
        self._closed = True  # first: an inquiry between two traces must not begin the second
        self._leaks.give_up()
        self._inspection.close()

    def has_closed(self) -> bool:
        """Whether the app has ended, and was not started again."""
        return self._closed

    def status(self) -> dict[str, Any]:
        return {}


class Served:
    """How many requests were served in all, of a count that an operator may set back to zero."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._before = self._newest = 0

    def __call__(self) -> int:
        newest = self._count()
        if newest < self._newest:
            self._before += self._newest
        self._newest = newest
        return self._before + newest


class MemoryParts:
    """Makes the parts of `perf.memory`; the layer stands where something needs it."""

    def __init__(
        self,
        settings: Settings,
        *,
        events: Events,
        metrics: Metrics,
        cache: ResponseCache,
        memo: ValueCache,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._next_witness_us: int | None = None
        self._held_bytes: list[Callable[[], int]] = [
            lambda: cache.store.size_bytes,
            lambda: memo.size_bytes,
        ]
        memory, leaks = settings.memory, settings.leaks
        figures = metrics.recorder.figures
        probe = MemoryProbe(
            limit_bytes=memory.limit_bytes,
            known_bytes=lambda: sum(held_bytes() for held_bytes in self._held_bytes),
            requests=Served(lambda: figures.totals()[0]) if settings.metrics.enabled else None,
        )
        watch = memory.make_watch(probe.sample, trim=probe.trim, events=events)
        self.tracer = AllocationTracer(own_paths=settings.runtime.own_paths)
        routes = None
        if leaks.enabled and leaks.routes:
            in_use = InUse()
            routes = RouteGrowth(
                in_use=in_use,
                may_read=in_use.is_affordable,
                route_of=self._route_of,
                routes_max=leaks.routes_max,
            )
        self.memory = Memory(
            probe=probe,
            watch=watch,
            guard=guard_of(
                memory, watch, service=settings.service,
                directory=settings.metrics.workers_dir, on_change=events.publish,
            ),
            leaks=leak_watch_of(
                leaks, trace=self._trace, room_bytes=self._room_bytes, routes=routes,
                events=events,
            ),
            inspect=MemoryInspection(tracer=self.tracer, readings=self._readings),
            functions=FunctionMemory(),
            gc=GarbageCollection(
                freeze=settings.gc.freeze,
                thresholds=settings.gc.thresholds,
                pause_told_s=settings.gc.pause_told_s,
                pauses_max=settings.gc.pauses_max,
                log_lines_per_minute_max=settings.gc.log_lines_per_minute_max,
                route_running=self._route_running,
            ),
        )  # fmt: skip
        self._looks = _Looks(self.memory.inspect, self.memory.leaks)
        if settings.metrics.enabled:
            self.memory.guard.in_progress = lambda: figures.in_progress
        self.memory.guard.route_sampler = routes
        self.memory.guard.sample_s = leaks.route_sample_s
        if memory.enabled:
            if leaks.enabled:
                watch.on_sample.append(self._look_for_leaks)
            else:
                watch.on_sample.append(self._refresh)
        watch.on_pressure(
            "response cache",
            lambda pressure: cache.shrink(pressure.shrink_share) if pressure.shrink_share else 0,
            order=OURS_FIRST, relief=cache.grow_back,
        )  # fmt: skip
        watch.on_pressure(
            "value cache",
            lambda pressure: memo.shrink(pressure.shrink_share) if pressure.shrink_share else 0,
            order=OURS_FIRST, thread=True, relief=memo.grow_back,
        )  # fmt: skip

    def obey(self, protection: Protection) -> None:
        """Requests differ by the classes that backpressure knows; traces wait for quiet times."""
        backpressure = protection.limits.backpressure
        guard = self.memory.guard
        guard.criticality_of = lambda scope: backpressure.criticality(
            scope, backpressure.rules.rule_for(scope)
        )
        guard.has_classes = lambda: (
            backpressure.rules.has_any
            or backpressure.trusts is not None
            or backpressure.criticality_of is not None
        )
        # To trace takes memory itself: near the limit it would be what ends the process.
        watch = self.memory.watch
        self.tracer.must_stop = lambda: watch.step >= HARD or protection.is_overloaded()

    def let_go_of(self, repeats: RepeatedBodies) -> None:
        """What compression remembers is known, and forgotten when memory is short."""
        self._held_bytes.append(lambda: repeats.held_bytes)
        self.memory.watch.on_pressure(
            "repeated bodies",
            lambda pressure: repeats.shrink(pressure.shrink_share) if pressure.shrink_share else 0,
            order=OURS_FIRST,
        )

    def share(self) -> float | None:
        """Used of usable memory, for the overload level; None where nobody watches."""
        return self.memory.watch.share()

    def join(self, metrics: Metrics, resources: Resources) -> None:
        """Offer the figures, and let the lifespan open what lives as long as the app."""
        memory, settings = self.memory, self._settings
        metrics.add_collector(
            "memory of functions", memory.functions.families, reset=memory.functions.reset_counts
        )
        if settings.gc.enabled:
            resources.add(memory.gc)
            resources.when_started(memory.gc.note_started)
            metrics.add_collector(
                "garbage collection", memory.gc.families, reset=memory.gc.reset_counts
            )
        if not settings.memory.enabled:
            return
        resources.add(self._looks)
        resources.add(memory.watch)  # closed first: it is who begins to look into growth
        for name, part in (
            ("memory", memory.probe),
            ("memory watch", memory.watch),
            ("memory guard", memory.guard),
            ("memory traces", memory.inspect),
        ):
            metrics.add_collector(name, part.families, reset=part.reset_counts)
        if settings.leaks.enabled:
            metrics.add_collector("leaks", memory.leaks.families, reset=memory.leaks.reset_counts)

    def layers(self) -> list[Layer]:
        """The layer, where requests are refused, counted to their end or measured.

        Without metrics nobody else counts them, and to measure some is not worth counting all.
        """
        memory, guard = self._settings.memory, self.memory.guard
        if not memory.enabled:
            return []
        is_counted = guard.in_progress is not None
        measures = is_counted and guard.route_sampler is not None
        if not (memory.shed or memory.finish or measures):
            return []
        if is_counted:
            return [Layer(MEMORY, lambda app: MemoryLayer(app, guard))]
        return [Layer(MEMORY, lambda app: MemoryWatchMiddleware(app, guard))]

    def routes(self) -> tuple[OperatorRoute, ...]:
        """What operators may ask for, below their prefix."""
        if not self._settings.memory.enabled:
            return ()
        return memory_routes(self.memory.inspect, self.memory.status)

    def _look_for_leaks(self, sample: MemorySample) -> None:
        if self._is_due(sample.at_us):
            probe = self.memory.probe
            probe.refresh()
            self.memory.leaks.observe(probe.witness())

    def _refresh(self, sample: MemorySample) -> None:
        if self._is_due(sample.at_us):
            self.memory.probe.refresh()

    def _is_due(self, at_us: int) -> bool:
        if self._next_witness_us is not None and at_us < self._next_witness_us:
            return False
        self._next_witness_us = at_us + WITNESS_EVERY_US
        return True

    def _trace(self, seconds: float) -> TraceReport | None:
        """What grew in so many seconds; None where now is no time for that.

        To keep callers makes a trace some four times as dear: only where it names no line of the
        app's own without, and then for half of the time.
        """
        must_stop = self.tracer.must_stop
        if self._looks.has_closed() or (must_stop is not None and must_stop()):
            return None
        try:
            report = self.tracer.trace(seconds, frames=1)
        except TracingBusyError:
            return None
        if report.ended_early or not report.sites:
            return report
        # By size, not by their order: a burst of requests is in one half of the time alone.
        if max(report.sites, key=lambda site: site.bytes).is_own:
            return report
        if self._looks.has_closed():
            return report
        try:
            with_callers = self.tracer.trace(seconds / 2)
        except TracingBusyError:
            return report
        # Dearer, it may overload a process that bore the first, or meet a pause of the requests:
        # lines of libraries are some.
        rate, rate_with_callers = report.bytes / seconds, with_callers.bytes / (seconds / 2)
        if with_callers.ended_early or rate_with_callers < rate / 2:
            return report
        return with_callers

    def _readings(self) -> dict[str, float | None]:
        """The numbers that are kept with a snapshot: of now, for two of them are compared."""
        probe = self.memory.probe
        sample, witness = probe.sample(), probe.witness()
        return {
            "rss_bytes": sample.rss_bytes,
            "anonymous_bytes": witness.anonymous_bytes,
            "allocated_blocks": witness.blocks,
            "used_share": sample.share,
        }

    def _room_bytes(self) -> int | None:
        """Until the first limit is reached: that may be another one than the tightest by share."""
        bounds = self.memory.probe.sample().bounds
        left = min((bound.limit_bytes - bound.used_bytes for bound in bounds), default=None)
        return None if left is None else max(0, left)

    def _route_of(self, scope: Scope) -> str:
        scope = router_scope(scope)
        return self._metrics.recorder.route_of(scope, scope.get("root_path", ""))

    def _route_running(self) -> str | None:
        """The route of the request that the running code serves; None outside of any."""
        exchange = current_exchange()
        if exchange is None:
            return None
        # Not by the recorder, which logs what cannot be named: this is asked inside a collection.
        templates = self._metrics.recorder.templates
        return templates.template_of(exchange.scope, exchange.root_path)
