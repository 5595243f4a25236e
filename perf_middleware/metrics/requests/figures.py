"""What is counted of requests: plain integers, found by one look-up, rendered only when scraped.

    RequestFigures
      (method, route, status) -> StatusSeries   how many
                                   .timing ->   RouteTiming (method, route): time and bytes

The table is bounded: `series_max` combinations are kept apart, further routes are counted as
`other`.  Unknown methods and impossible statuses are `other` too, so a client cannot grow it.
Increments are not atomic; they are made by the thread of one event loop.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import (
    NO_LABELS,
    OTHER,
    Distribution,
    Exemplar,
    Family,
    LabelSet,
    Value,
    counter,
    cut_label_value,
    gauge,
)
from perf_middleware.metrics.requests.histogram import NS_PER_S, Scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
EXCEPTIONS_MAX = 500  # (method, route, exception class) combinations kept apart


class RouteTiming:
    """Durations and bytes of one method on one route."""

    __slots__ = (
        "cancelled", "disconnects", "duration_sum_ns", "durations", "exemplar_due_ns", "exemplars",
        "first_byte_sum_ns", "first_bytes", "labels", "request_bytes", "response_bytes",
    )  # fmt: skip

    def __init__(self, labels: LabelSet, scale: Scale) -> None:
        self.labels = labels
        self.exemplars: dict[int, Exemplar] = {}
        self.exemplar_due_ns = 0
        self.durations = scale.empty()
        self.duration_sum_ns = 0
        self.first_bytes = scale.empty()
        self.first_byte_sum_ns = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.disconnects = 0
        self.cancelled = 0


class StatusSeries:
    """How many requests of one method on one route ended with one status."""

    __slots__ = ("count", "labels", "timing")

    def __init__(self, labels: LabelSet, timing: RouteTiming) -> None:
        self.labels = labels
        self.timing = timing
        self.count = 0


class RequestFigures:
    """All figures about HTTP requests.  Raises nothing; what is over a bound is counted as such."""

    def __init__(self, *, buckets_s: Sequence[float], series_max: int) -> None:
        self.scale = Scale(buckets_s)
        self.in_progress = 0
        self.overflowed = 0
        self.series_max = series_max
        # The middleware reads this table directly: a call would cost as much as the look-up.
        self.by_key: dict[tuple[str, str, int], StatusSeries] = {}
        self._timings: dict[tuple[str, str], RouteTiming] = {}
        self._exceptions: dict[tuple[str, str, str], list[int]] = {}

    def series(self, method: str, route: str, status: Any) -> StatusSeries:
        """The series of a finished request, made on its first one; `status` as the app sent it."""
        if method not in METHODS:
            method = OTHER
        # An app may send anything; the server's complaint is the one to be heard.
        if not isinstance(status, int) or not 100 <= status <= 999:
            status = 0
        # As it will stand on the page: two routes that look alike there must be one series.
        route = cut_label_value(route).encode("utf-8", "replace").decode()
        found = self.by_key.get((method, route, status))
        if found is not None:
            return found
        if len(self.by_key) >= self.series_max and route != OTHER:
            self.overflowed += 1
            return self.series(method, OTHER, status)
        labels = LabelSet(
            (("method", method), ("route", route), ("status", str(status) if status else OTHER))
        )
        series = StatusSeries(labels, self._timing(method, route))
        self.by_key[(method, route, status)] = series
        return series

    def _timing(self, method: str, route: str) -> RouteTiming:
        timing = self._timings.get((method, route))
        if timing is None:
            timing = RouteTiming(LabelSet((("method", method), ("route", route))), self.scale)
            self._timings[(method, route)] = timing
        return timing

    def count_exception(self, timing: RouteTiming, name: str) -> None:
        """Count an exception that left the app while serving a request of `timing`."""
        (_, method), (_, route) = timing.labels.pairs
        key = (method, route, name)
        if key not in self._exceptions and len(self._exceptions) >= EXCEPTIONS_MAX:
            key = (OTHER, OTHER, OTHER)
        cell = self._exceptions.get(key)
        if cell is None:
            cell = self._exceptions[key] = [0]
        cell[0] += 1

    def totals(self) -> tuple[int, int]:
        """Requests, and those among them that the server failed (status 500 and above)."""
        requests = failed = 0
        for (_, _, status), series in list(self.by_key.items()):
            requests += series.count
            if status >= 500:
                failed += series.count
        return requests, failed

    def timings(self) -> list[RouteTiming]:
        """The timing of every (method, route) seen, in the order of their first requests."""
        return list(self._timings.values())

    def reset(self) -> None:
        """Every count back to zero; what is in progress stays."""
        # New tables instead of ten thousand cleared ones, which would hold the event loop up.
        # Requests in flight look their series up when they end, so they count in the new ones.
        self.by_key = {}
        self._timings = {}
        self._exceptions = {}
        self.overflowed = 0

    def families(self) -> Iterable[Family]:
        """The families, histograms in their fine bounds (coarsen() makes the exported ones).

        Points are made while they are read.
        """
        timings = self.timings()
        yield counter(
            "http_requests",
            "HTTP requests answered, by method, route template and status.",
            (Value(s.labels, s.count) for s in list(self.by_key.values())),
        )
        yield Family(
            name="http_request_duration_seconds",
            kind="histogram",
            help="Time from a request's arrival to the last byte of its response.",
            unit="seconds",
            bounds=self.scale.fine_s,
            points=self._durations(timings),
        )
        yield gauge(
            "http_requests_in_progress",
            "HTTP requests that are being served now.",
            [Value(NO_LABELS, self.in_progress)],
        )
        yield Family(
            name="perf_response_first_byte_seconds",
            kind="histogram",
            help="Time from a request's arrival to the head of its response.",
            unit="seconds",
            bounds=self.scale.fine_s,
            points=self._first_bytes(timings),
        )
        yield counter(
            "perf_request_bytes",
            "Bytes of request bodies that the app has read.",
            (Value(t.labels, t.request_bytes) for t in timings),
            unit="bytes",
        )
        yield counter(
            "perf_response_bytes",
            "Bytes of response bodies sent, as they leave the app.",
            (Value(t.labels, t.response_bytes) for t in timings),
            unit="bytes",
        )
        yield counter(
            "perf_client_disconnects",
            "Requests whose client left before the response was complete.",
            (Value(t.labels, t.disconnects) for t in timings if t.disconnects),
        )
        yield counter(
            "perf_requests_cancelled",
            "Requests cancelled by the server before the response was complete.",
            (Value(t.labels, t.cancelled) for t in timings if t.cancelled),
        )
        yield counter(
            "perf_request_exceptions",
            "Exceptions that left the app, by their class.",
            [
                Value(
                    LabelSet((("method", method), ("route", route), ("exception", name))), cell[0]
                )
                for (method, route, name), cell in list(self._exceptions.items())
            ],
        )
        yield counter(
            "perf_metrics_overflow",
            "Requests counted under the route `other` because series_max was reached.",
            [Value(NO_LABELS, self.overflowed)],
        )

    def coarsen(self, family: Family) -> Family:
        """`family` with the exported bounds where it is one of ours with the fine ones."""
        if family.kind != "histogram" or tuple(family.bounds) != self.scale.fine_s:
            return family
        points = (self._coarse(point) for point in family.points if isinstance(point, Distribution))
        return replace(family, bounds=self.scale.exported_s, points=points)

    def _coarse(self, point: Distribution) -> Distribution:
        exemplars: dict[int, Exemplar] = {}
        for fine_bucket, exemplar in (point.exemplars or {}).items():
            bucket = self.scale.exported_bucket(fine_bucket)
            if bucket not in exemplars or exemplars[bucket].at_s < exemplar.at_s:
                exemplars[bucket] = exemplar
        return Distribution(
            point.labels, self.scale.coarsened(point.cumulative), point.sum, exemplars or None
        )

    def _durations(self, timings: list[RouteTiming]) -> Iterator[Distribution]:
        for t in timings:
            yield Distribution(
                t.labels,
                list(accumulate(t.durations)),
                t.duration_sum_ns / NS_PER_S,
                dict(t.exemplars) or None,
            )

    def _first_bytes(self, timings: list[RouteTiming]) -> Iterator[Distribution]:
        for t in timings:
            yield Distribution(
                t.labels, list(accumulate(t.first_bytes)), t.first_byte_sum_ns / NS_PER_S
            )
