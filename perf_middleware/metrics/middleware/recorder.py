"""Where finished exchanges go: counted, and logged when slow."""

from __future__ import annotations

import logging
from bisect import bisect_left
from time import time
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import Exemplar
from perf_middleware.metrics.requests.figures import RequestFigures, RouteTiming, StatusSeries
from perf_middleware.metrics.requests.slow_requests import SlowLog, SlowRequest
from perf_middleware.metrics.requests.sockets import SocketFigures
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S
from perf_middleware.route_templates import UNMATCHED, RouteTemplates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.asgi import Scope
    from perf_middleware.metrics.middleware.exchange import Exchange

logger = logging.getLogger("perf_middleware.metrics")

NEVER_S: Final = 4e9  # more than a century, and still a small number of nanoseconds
EXEMPLAR_EVERY_NS: Final = 50_000_000  # at most 20 a second and route: enough, and off the hot path


class RequestRecorder:
    """Where finished exchanges go: the counters, and what is to be done beside counting."""

    __slots__ = (
        "_known_routes", "_naming_failed", "_overflow_told", "_scale_ns", "adds_headers",
        "database_used", "exemplars", "figures", "server_timing", "slow_log", "slow_request_ns",
        "sockets", "templates", "trace_context", "trace_response",
    )  # fmt: skip

    def __init__(
        self,
        *,
        buckets_s: Sequence[float] = DEFAULT_BUCKETS_S,
        series_max: int = 10_000,
        server_timing: bool = False,
        trace_context: bool = True,
        trace_response: bool = False,
        exemplars: bool = True,
        slow_request_s: float | None = 1.0,
        slow_log_per_minute_max: int = 60,
    ) -> None:
        self.figures = RequestFigures(buckets_s=buckets_s, series_max=series_max)
        self._scale_ns = self.figures.scale.fine_ns
        self.sockets = SocketFigures()
        self.templates = RouteTemplates()
        self._known_routes = self.templates.known
        self.server_timing = server_timing
        self.trace_context = trace_context
        self.trace_response = trace_context and trace_response
        self.adds_headers = server_timing or self.trace_response
        self.exemplars = trace_context and exemplars
        # Without a threshold nothing reaches it: one comparison instead of a test for None.
        threshold_s = NEVER_S if slow_request_s is None else min(slow_request_s, NEVER_S)
        self.slow_request_ns = round(threshold_s * 1e9)
        self.slow_log = SlowLog(slow_log_per_minute_max)
        self.database_used: Callable[[Exchange, str], object] = _nobody
        """Called at the end of each request whose `statements` are set, with its route."""
        self._naming_failed = False
        self._overflow_told = False

    def record(
        self, exchange: Exchange, status: Any, ended_ns: int, outcome: str = "answered"
    ) -> RouteTiming:
        """Count a finished request under its route."""
        scope = exchange.scope
        route = exchange.route
        if route is None:
            base = exchange.root_path
            try:
                # A route of the app itself that is known by now needs no call.
                known = self._known_routes.get(id(scope.get("route")))
                if known is None or "fastapi" in scope or scope["root_path"] != base:
                    route = self.templates.template_of(scope, base)
                else:
                    route = known[1]
            except KeyError:  # a server may leave out the root_path; most do not
                route = self.route_of(scope, base)
            except Exception as exc:  # noqa: BLE001 - counting must not fail the request
                route = self._unnamed(exc)
        method: str = scope["method"]
        try:
            series = self.figures.by_key[(method, route, status)]
        except (KeyError, TypeError):  # its first request, or a status that no key can be made of
            series = self._new_series(method, route, status)
        series.count += 1
        timing = series.timing
        started_ns = exchange.started_ns
        duration_ns = ended_ns - started_ns
        scale = self._scale_ns
        bucket = bisect_left(scale, duration_ns)
        timing.durations[bucket] += 1
        timing.duration_sum_ns += duration_ns
        first_byte_ns = exchange.first_byte_ns
        if first_byte_ns:
            first_byte_ns -= started_ns
            # Most answers are complete in the bucket that they began in.
            first_bucket = (
                bucket
                if not bucket or first_byte_ns > scale[bucket - 1]
                else bisect_left(scale, first_byte_ns, 0, bucket)
            )
            timing.first_bytes[first_bucket] += 1
            timing.first_byte_sum_ns += first_byte_ns
        timing.response_bytes += exchange.response_bytes
        if exchange.request_bytes:
            timing.request_bytes += exchange.request_bytes
        if ended_ns >= timing.exemplar_due_ns:
            timing.exemplar_due_ns = ended_ns + EXEMPLAR_EVERY_NS
            if self.exemplars:
                self._keep_exemplar(exchange, timing, bucket, duration_ns)
        if duration_ns >= self.slow_request_ns:
            self._log_slow(exchange, route, status, ended_ns, outcome)
        if exchange.statements is not None:
            self.database_used(exchange, route)
        return timing

    def route_of(self, scope: Scope, root_path: str) -> str:
        """The route template of `scope`; UNMATCHED where what the router left cannot be read."""
        try:
            return self.templates.template_of(scope, root_path)
        except Exception as exc:  # noqa: BLE001 - counting must not fail the connection
            return self._unnamed(exc)

    def _new_series(self, method: str, route: str, status: Any) -> StatusSeries:
        series = self.figures.series(method, route, status)
        if self.figures.overflowed and not self._overflow_told:
            self._overflow_told = True
            logger.warning(
                "%d combinations of method, route and status are counted apart (series_max); "
                "further ones count under the route `other`",
                self.figures.series_max,
            )
        return series

    def _unnamed(self, exc: Exception) -> str:
        """A router that we do not know left what cannot be read: said once, counted so."""
        if not self._naming_failed:
            self._naming_failed = True
            logger.error(
                "a request's route could not be named; it counts as unmatched", exc_info=exc
            )
        return UNMATCHED

    def _keep_exemplar(
        self, exchange: Exchange, timing: RouteTiming, bucket: int, duration_ns: int
    ) -> None:
        trace = exchange.incoming_trace()
        if trace is not None and trace.sampled:
            timing.exemplars[bucket] = Exemplar(trace.trace_id, duration_ns / 1e9, time())

    def _log_slow(
        self, exchange: Exchange, route: str, status: int, ended_ns: int, outcome: str
    ) -> None:
        first_byte_ns = exchange.first_byte_ns
        if exchange.streamed and first_byte_ns - exchange.started_ns < self.slow_request_ns:
            return  # a stream lasts as long as it is wanted: only its beginning can be slow
        if not self.slow_log.admits(ended_ns):
            return
        scope = exchange.scope
        trace = exchange.trace() if self.trace_context else None
        logger.warning(
            "%s",
            SlowRequest(
                method=scope["method"],
                route=route,
                path=scope["path"],
                status=status,
                outcome=outcome,
                duration_ns=ended_ns - exchange.started_ns,
                first_byte_ns=first_byte_ns - exchange.started_ns if first_byte_ns else None,
                response_bytes=exchange.response_bytes,
                parts_ns=exchange.parts(),
                trace_id=trace.trace_id if trace else None,
                statements=exchange.statements.statements if exchange.statements else 0,
            ).line(),
        )


def _nobody(_exchange: Exchange, _route: str) -> None:
    return None
