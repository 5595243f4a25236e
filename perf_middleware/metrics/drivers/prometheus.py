"""Our families as prometheus_client metrics, for an app that serves its own /metrics.

`make_asgi_app`, `generate_latest` and instrumentators read a registry; PerfCollector is what ours
look like there.  The other way round is in prometheus_registry.py.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from perf_middleware.errors import ConfigurationError
from perf_middleware.families import Distribution
from perf_middleware.metrics.exposition.textformat import bound_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from perf_middleware.families import Collector, Family, Point

READ_ATTEMPTS = 3
LOGGED_MAX = 100

logger = logging.getLogger("perf_middleware.metrics")


def register(registry: CollectorRegistry, collect: Collector) -> PerfCollector:
    """Offer our families on `registry`; its `unregister` takes the result.

    Raises ConfigurationError where the registry holds one of our names already.
    """
    collector = PerfCollector(collect, registry=registry)
    try:
        registry.register(collector)
    except ValueError as exc:
        raise ConfigurationError(
            f"this prometheus_client registry has figures of perf_middleware already: {exc}"
        ) from exc
    return collector


class PerfCollector:
    """Our families as a prometheus_client collector; it may be read from any thread.

    A family whose points cannot be read is left out and logged once; one that another collector of
    `registry` already offers is left out too.
    """

    def __init__(self, collect: Collector, *, registry: CollectorRegistry | None = None) -> None:
        self._collect = collect
        self._registry = registry
        self._logged = OnceLog()

    def describe(self) -> Iterable[Metric]:
        """Names and types only, so that registering reads no figures and finds duplicates."""
        return [_metric(family, ()) for family in self._collect()]

    def collect(self) -> Iterator[Metric]:
        """Our families with their samples."""
        others = _other_names(self._registry, self)
        for family in self._collect():
            if family.name in others:
                continue
            try:
                metric = _metric(family, _points(family))
            except Exception as exc:  # noqa: BLE001 - one family must not cost the others
                self._logged.warn(family.name, exc)
                continue
            yield metric


def _points(family: Family) -> list[Point]:
    # Features keep plain dicts and add to them on the event loop; this may be another thread.
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return list(family.points)
        except RuntimeError:  # a dict changed its size during the reading
            continue
    return list(family.points)


def _other_names(registry: CollectorRegistry | None, own: PerfCollector) -> set[str]:
    # Figures may be created after registering, when the registry compares no names any more.
    known = getattr(registry, "_names_to_collectors", None) or {}
    return {name for name, collector in dict(known).items() if collector is not own}


def _metric(family: Family, points: Sequence[Point]) -> Metric:
    from prometheus_client.core import Metric
    from prometheus_client.samples import Exemplar

    metric = Metric(family.name, family.help, family.kind, family.unit)
    suffix = "_total" if family.kind == "counter" else ""
    bounds = [bound_text(bound) for bound in (*family.bounds, float("inf"))]
    for point in points:
        labels = dict(point.labels.pairs)
        if not isinstance(point, Distribution):
            metric.add_sample(family.name + suffix, labels, point.value)
            continue
        exemplars = point.exemplars or {}
        for index, (bound, count) in enumerate(zip(bounds, point.cumulative, strict=True)):
            found = exemplars.get(index)
            metric.add_sample(
                f"{family.name}_bucket",
                {**labels, "le": bound},
                count,
                exemplar=None
                if found is None
                else Exemplar({"trace_id": found.trace_id}, found.value, found.at_s),
            )
        if not family.bounds or family.bounds[0] >= 0:
            metric.add_sample(f"{family.name}_count", labels, point.cumulative[-1])
            metric.add_sample(f"{family.name}_sum", labels, point.sum)
    return metric


class OnceLog:
    """Logs the first failure of each name, again after it worked in between."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def warn(self, name: str, exc: BaseException) -> None:
        """Log that `name` failed, unless that is known."""
        if name not in self._names and len(self._names) < LOGGED_MAX:
            self._names.add(name)
            logger.warning("%s could not be collected and is left out", name, exc_info=exc)

    def forget(self, name: str) -> None:
        """`name` worked."""
        self._names.discard(name)
