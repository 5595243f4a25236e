"""What the app registered with prometheus_client, for our own metrics page.

A foreign collector is somebody else's code: it may raise, or wait for a database.  It runs in a
thread of its own and the page waits for it only so long; then it goes out without, and a figure
says so.  While a collection hangs no second one is started: a scrape costs at most one thread.

    scrape --> waiting thread (private limiter, gives up after timeout_s)
                   |  starts, or joins
               daemon thread: collector, collector, ... --> families, or one failure counted each
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from perf_middleware import families
from perf_middleware.families import LabelSet
from perf_middleware.metrics.custom.cells import CounterCell
from perf_middleware.metrics.drivers.prometheus import OnceLog, PerfCollector
from perf_middleware.metrics.exposition.foreign import (
    SUFFIXES,
    ForeignExemplar,
    ForeignFamily,
    ForeignSample,
    legal_labels,
    legal_metric_name,
    pairs_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric
    from prometheus_client.samples import Sample

    from perf_middleware.families import Family

COLLECT_TIMEOUT_S = 2.0  # Prometheus gives the whole scrape 10 s by default

logger = logging.getLogger("perf_middleware.metrics")


class ForeignFigures:
    """What the app registered with prometheus_client, converted for our page.

    Without `registry` the default one is read, if the app has imported prometheus_client at all.
    With PROMETHEUS_MULTIPROC_DIR set, the files of all workers are read instead, and `is_merged`
    says that the figures are already those of all of them.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, timeout_s: float = COLLECT_TIMEOUT_S
    ) -> None:
        self._registry = registry
        self._timeout_s = timeout_s
        self._limiter: anyio.CapacityLimiter | None = None
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._logged = OnceLog()
        self._hangs = False
        self._errors, self._timeouts = (
            CounterCell("perf_metrics_foreign_failures", LabelSet([("reason", reason)]))
            for reason in ("error", "timeout")
        )

    @property
    def is_merged(self) -> bool:
        """Whether the figures are those of all worker processes."""
        return "PROMETHEUS_MULTIPROC_DIR" in os.environ

    async def collect(self) -> list[ForeignFamily] | None:
        """The foreign families; None where they did not come in time.  Never raises."""
        if self._registry is None and "prometheus_client" not in sys.modules:
            return []
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(1)  # none of the app's own threads
        # The waiting thread gives up by itself, so abandoning it leaves nothing behind.
        run = await to_thread.run_sync(self._wait, abandon_on_cancel=True, limiter=self._limiter)
        return None if run is None else run.found

    def families(self) -> Iterator[Family]:
        """How often a foreign collector failed, and how often all of them took too long."""
        yield families.counter(
            "perf_metrics_foreign_failures",
            "Collectors of the app's prometheus_client registry that raised (error), "
            "and pages that went out without them (timeout).",
            [self._errors.point(), self._timeouts.point()],
        )

    def _wait(self) -> _Run | None:
        with self._lock:
            run = self._run
            if run is None or run.done.is_set():
                run = self._run = _Run()
                # A daemon: a collector that hangs for ever must not keep the process from ending.
                threading.Thread(
                    target=self._work, args=(run,), name="perf-foreign-figures", daemon=True
                ).start()
        left_s = run.began_s + self._timeout_s - time.monotonic()
        if run.done.wait(max(0.0, left_s)):
            if self._hangs:
                self._hangs = False
                logger.info("the collectors of prometheus_client answer in time again")
            return run
        self._timeouts.inc()
        if not self._hangs:
            self._hangs = True
            logger.warning(
                "the collectors of prometheus_client took longer than %g s: "
                "the metrics page goes out without them",
                self._timeout_s,
            )
        return None

    def _work(self, run: _Run) -> None:
        try:
            run.found = _merged(self._read())
        except BaseException as exc:  # noqa: BLE001 - the last resort of a thread nobody joins
            self._failed("prometheus_client", exc)
        finally:
            run.done.set()

    def _read(self) -> Iterator[ForeignFamily]:
        for name, collect in self._collectors():
            found: list[ForeignFamily] = []
            try:
                for metric in collect():
                    found += _foreign(metric)
            except Exception as exc:  # noqa: BLE001 - somebody else's code
                self._failed(name, exc)
            else:
                self._logged.forget(name)
            yield from found

    def _collectors(self) -> Iterator[tuple[str, Callable[[], Iterable[Metric]]]]:
        from prometheus_client import REGISTRY

        if self.is_merged:
            yield "MultiProcessCollector", _read_multiprocess
            return
        registry = self._registry or REGISTRY
        # The registry's own collect() ends at the first collector that raises.
        collectors = getattr(registry, "_collector_to_names", None)
        if collectors is None:
            yield type(registry).__name__, registry.collect
            return
        target_info = getattr(registry, "_target_info_metric", None)
        if target_info is not None and registry.get_target_info():
            yield "target_info", lambda: [target_info()]
        for collector, names in tuple(collectors.items()):
            if not isinstance(collector, PerfCollector):
                # Of several collectors of one class each is logged and forgiven by itself.
                which = names[0] if names else hex(id(collector))
                kind = type(collector)
                yield f"{kind.__module__}.{kind.__qualname__} ({which})", collector.collect

    def _failed(self, name: str, exc: BaseException) -> None:
        self._errors.inc()
        self._logged.warn(name, exc)


class _Run:
    """One collection under way."""

    __slots__ = ("began_s", "done", "found")

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.done = threading.Event()
        self.found: list[ForeignFamily] | None = None


def _read_multiprocess() -> Iterable[Metric]:
    from prometheus_client import multiprocess

    collector: Any = multiprocess.MultiProcessCollector
    metrics: Iterable[Metric] = collector(None).collect()
    return metrics


def _merged(found: Iterable[ForeignFamily]) -> list[ForeignFamily]:
    """Families of one name and kind as one: several collectors may share a family."""
    first: dict[tuple[str, str], ForeignFamily] = {}
    samples: dict[tuple[str, str], list[ForeignSample]] = {}
    for family in found:
        key = (family.name, family.kind)
        first.setdefault(key, family)
        samples.setdefault(key, []).extend(family.samples)
    return [replace(family, samples=samples[key]) for key, family in first.items()]


def _foreign(metric: Metric) -> Iterator[ForeignFamily]:
    kind: Any = metric.type
    name = legal_metric_name(metric.name)
    unit = legal_metric_name(metric.unit)
    samples: list[ForeignSample] = []
    for sample in metric.samples:
        # A native histogram has no line in these formats; a missing sum of a gauge histogram none.
        value: float | None = sample.value
        if value is None or getattr(sample, "native_histogram", None) is not None:
            continue
        suffix = sample.name.removeprefix(metric.name)
        if sample.name.startswith(metric.name) and suffix in SUFFIXES[metric.type]:
            samples.append(_foreign_sample(suffix, sample))
        else:  # a sample that is not of its family stands alone, as a scraper would take it
            yield ForeignFamily(
                name=legal_metric_name(sample.name),
                kind="unknown",
                help="",
                samples=[_foreign_sample("", sample)],
            )
    yield ForeignFamily(
        name=name,
        kind=kind,
        help=str(metric.documentation),
        unit=unit if unit and name.endswith(f"_{unit}") else "",
        samples=samples,
    )


def _foreign_sample(suffix: str, sample: Sample) -> ForeignSample:
    exemplar = None
    if sample.exemplar is not None:
        at = sample.exemplar.timestamp
        exemplar = ForeignExemplar(
            legal_labels(sample.exemplar.labels.items()),
            sample.exemplar.value,
            "" if at is None else str(at),
        )
    labels = legal_labels(sample.labels.items())
    return ForeignSample(
        suffix,
        labels,
        pairs_text(labels),  # here, in the thread, and not on the event loop
        sample.value,
        None if sample.timestamp is None else float(sample.timestamp),
        exemplar,
    )
