"""`perf.metrics`: the figures of one app, gathered for whoever asks."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from secrets import token_hex
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread

from perf_middleware.families import NO_LABELS, Collector, Family, LabelSet, Value, counter
from perf_middleware.metrics.custom.figures import CustomMetrics
from perf_middleware.metrics.custom.instruments import LabelOverflow
from perf_middleware.metrics.decorators import Timers, log_label_overflow
from perf_middleware.metrics.exposition.foreign import to_family
from perf_middleware.metrics.exposition.page import claimed_names, render
from perf_middleware.metrics.middleware import RequestRecorder, current_exchange, note_part
from perf_middleware.metrics.requests.summary import Summary
from perf_middleware.metrics.requests.window import SAMPLE_EVERY_S, Recent, Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from perf_middleware.metrics.exposition.foreign import ForeignFamily
    from perf_middleware.metrics.exposition.page import Dropped
    from perf_middleware.metrics.exposition.textformat import TextFormat
    from perf_middleware.metrics.requests.trace import TraceContext
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.metrics")

DROPPED_MAX = 100  # family names that the figure of dropped families keeps apart


class Workers(Protocol):
    """The other worker processes of this service."""

    @property
    def sharing(self) -> bool:
        """Whether there may be others to add up with."""

    @property
    def siblings(self) -> int:
        """How many others there were a moment ago."""

    async def combined(self) -> list[Family]:
        """This process's families with those of the others added."""

    async def reset(self) -> bool:
        """Every worker's counts back to zero, those of this one among them."""


class Registered(Protocol):
    """What the app registered outside the bundle."""

    @property
    def is_merged(self) -> bool:
        """Whether the figures are those of all worker processes already."""

    async def collect(self) -> list[ForeignFamily] | None:
        """The families, as they are now; None where they did not come in time."""


class Metrics:
    """Figures of requests, of the process, of the bundle's parts and of the app's own making.

    `counter`, `gauge`, `histogram`, `timer` and `track` make figures of the app's own; see
    CustomMetrics and Timers.  What they count in a request also shows in its breakdown.
    """

    def __init__(
        self, *, recorder: RequestRecorder, label_sets_max: int, buckets_s: Sequence[float]
    ) -> None:
        self.recorder = recorder
        overflow = LabelOverflow(log_label_overflow)
        custom = CustomMetrics(label_sets_max=label_sets_max, bounds=buckets_s, overflow=overflow)
        timers = Timers(
            label_sets_max=label_sets_max, bounds=buckets_s, overflow=overflow, note=note_part
        )
        self.counter = custom.counter
        self.gauge = custom.gauge
        self.histogram = custom.histogram
        self.timer = timers.timer
        self.track = timers.track
        self._custom = custom
        self._timers = timers
        self._window = Window()
        self._collectors: list[tuple[str, Collector]] = [
            ("requests", recorder.figures.families),
            ("websockets", recorder.sockets.families),
            ("custom", custom.families),
            ("timers", timers.families),
            ("metrics", self._own_families),
        ]
        self._resets: list[Callable[[], None]] = []
        self._workers: Workers | None = None
        self._registered: Registered | None = None
        self._shared: list[Family] = []  # of the app's registry, for the workers to add up
        self._clashing: list[Family] = []  # those among them whose name one of ours has
        self._failures: dict[str, int] = {}
        self._dropped: dict[tuple[str, Dropped], int] = {}
        self._since_s = time()

    def add_collector(
        self, name: str, collect: Collector, *, reset: Callable[[], None] | None = None
    ) -> None:
        """Include the families of `collect()` in every scrape; one that raises is left out.

        `reset` sets its counts back to zero when all are.
        """
        self._collectors.append((name, collect))
        if reset is not None:
            self._resets.append(reset)

    def join(self, *, workers: Workers | None = None, registered: Registered | None = None) -> None:
        """Include the other worker processes, and what was registered outside the bundle."""
        self._workers = workers or self._workers
        self._registered = registered or self._registered

    def families(self) -> Iterator[Family]:
        """Every family of this process; a collector that fails is counted and left out.

        Where the workers add up the app's registry it is included, less what has a name of ours:
        added up by name, the app's figures would become part of ours.
        """
        taken: set[str] = set()
        for family in self._collected():
            taken.update(claimed_names(family.name, family.kind))
            yield family
        self._clashing = []
        for family in self._shared:
            names = claimed_names(family.name, family.kind)
            if taken.isdisjoint(names):
                taken.update(names)
                yield family
            else:
                self._clashing.append(family)

    def _collected(self) -> Iterator[Family]:
        for name, collect in self._collectors:
            try:
                families = list(collect())
            except Exception:
                if name not in self._failures:
                    logger.exception("the collector %r failed and is left out of this scrape", name)
                self._failures[name] = self._failures.get(name, 0) + 1
                continue
            yield from families

    async def page(self, format: TextFormat) -> AsyncIterator[bytes]:
        """The exposition of every family, in chunks that each take well under a millisecond."""
        registered = await self._read_registered()
        coarsen = self.recorder.figures.coarsen
        families: list[Family | ForeignFamily] = [coarsen(f) for f in await self._together()]
        families += [*self._clashing, *registered]  # after ours: the page drops and counts them
        for chunk in render(families, format, on_dropped=self._drop):
            yield chunk

    async def summary(self) -> dict[str, Any]:
        """Counts and p50/p95/p99 by route, since the start or the last reset, of all workers.

        `this_process` has what cannot be added up: the rate of the last minute, and since when.
        """
        recent = self.recent(60.0)
        summary = Summary(self.recorder.figures.scale)
        for _ in summary.read(await self._together()):
            await anyio.lowlevel.checkpoint()
        return {
            **summary.result(),
            "this_process": {
                "pid": os.getpid(),
                "since_unix_s": round(self._since_s, 3),
                "rate_per_s": round(recent.rate_per_s, 2),
            },
        }

    async def export(self, path: str | os.PathLike[str], *, format: TextFormat = "text") -> None:
        """Write the page to a file that is complete at any moment (for node_exporter, say).

        Raises OSError where the file cannot be written.
        """
        body = b"".join([chunk async for chunk in self.page(format)])
        target = Path(path)
        # A name of its own for each export: two at once must not write into one file.
        beside = target.with_name(f".{target.name}.{os.getpid()}.{token_hex(4)}.tmp")

        def write() -> None:
            try:
                beside.write_bytes(body)
                beside.replace(target)
            except OSError:
                beside.unlink(missing_ok=True)
                raise

        await anyio.to_thread.run_sync(write)

    def recent(self, seconds: float) -> Recent:
        """Requests and failures of the last `seconds` (or as far back as samples reach)."""
        return self._window.recent(monotonic(), self.recorder.figures.totals(), seconds=seconds)

    def sample(self) -> None:
        """Note the totals of now, from which later rates are told."""
        self._window.sample(monotonic(), self.recorder.figures.totals())

    async def reset(self) -> None:
        """Counts of requests, websockets, the cache, timers and the app's own figures back to zero.

        The other worker processes follow within their exchange interval.
        """
        if self._workers is None:
            self.reset_own()
        else:
            await self._workers.reset()

    def reset_own(self) -> None:
        """The same for this process alone."""
        self.recorder.figures.reset()
        self.recorder.sockets.reset()
        self.recorder.slow_log.reset()
        self._custom.reset()
        self._timers.reset()
        for reset in self._resets:
            reset()
        self.sample()
        self._since_s = time()

    def trace(self) -> TraceContext | None:
        """The running request's place in its trace, for logs.

        None outside a request, and with `trace_context` switched off.
        """
        exchange = current_exchange() if self.recorder.trace_context else None
        return exchange.trace() if exchange is not None else None

    def trace_headers(self) -> dict[str, str]:
        """`traceparent` (and `tracestate`) to send along with a call that this request makes."""
        trace = self.trace()
        return trace.headers() if trace is not None else {}

    async def share_registered(self, *, ending: bool = False) -> None:
        """Renew what other worker processes are shown of the app's prometheus_client figures.

        Its collectors run only where somebody looks: with siblings, or when this worker is `ending`
        and leaves its counts behind.
        """
        workers, registered = self._workers, self._registered
        if workers is None or registered is None or not workers.sharing or registered.is_merged:
            return
        if ending or workers.siblings:
            await self._read_registered()

    async def _together(self) -> list[Family]:
        return list(self.families()) if self._workers is None else await self._workers.combined()

    async def _read_registered(self) -> list[ForeignFamily]:
        """What is to be shown as it stands; what the workers can add up goes among our own."""
        if self._registered is None:
            return []
        found = await self._registered.collect()
        if found is None:
            return []  # and the workers keep what they were shown: no counter falls for a delay
        if self._workers is None or not self._workers.sharing or self._registered.is_merged:
            self._shared = []
            return found
        alike = [(foreign, to_family(foreign)) for foreign in found]
        self._shared = [family for _, family in alike if family is not None]
        return [foreign for foreign, family in alike if family is None]

    def _drop(self, name: str, why: Dropped, error: Exception | None) -> None:
        if (name, why) not in self._dropped:
            if len(self._dropped) >= DROPPED_MAX:
                name = "other"
            else:
                logger.warning("%s is missing on the metrics page: %s", name, error or why)
        self._dropped[(name, why)] = self._dropped.get((name, why), 0) + 1

    def _own_families(self) -> Iterator[Family]:
        yield counter(
            "perf_collector_failures",
            "Scrapes from which a collector was left out because it failed.",
            [Value(NO_LABELS, sum(self._failures.values()))],
        )
        yield counter(
            "perf_metrics_dropped_families",
            "Families left off the page: their name was taken (clash) or reading them failed.",
            [
                Value(LabelSet((("family", name), ("reason", why))), count)
                for (name, why), count in self._dropped.items()
            ],
        )
        yield counter(
            "perf_slow_requests",
            "Requests at least as slow as slow_request_s.",
            [Value(NO_LABELS, self.recorder.slow_log.slow)],
        )
        yield counter(
            "perf_slow_requests_unlogged",
            "Slow requests without a line of their own: slow_log_per_minute_max was reached.",
            [Value(NO_LABELS, self.recorder.slow_log.suppressed)],
        )


class Sampler:
    """Resource: every few seconds notes the totals, from which rates and the score are recent, and
    renews what other worker processes see of the app's own registry.
    """

    name = "sampler"
    required = False

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._failing = False
        self._failures = 0

    async def open(self, background: Background) -> None:
        self._metrics.sample()
        background.start(self.name, self._run)

    async def close(self) -> None:
        """Leave the registry's last counts behind, before the worker exchange closes."""
        await self._metrics.share_registered(ending=True)

    def status(self) -> dict[str, Any]:
        return {"failed_turns": self._failures}

    async def _run(self) -> None:
        while True:
            await anyio.sleep(SAMPLE_EVERY_S)
            try:
                self._metrics.sample()
                await self._metrics.share_registered()
            except Exception:
                self._failures += 1
                if not self._failing:
                    logger.exception("the sampler failed and tries again in %g s", SAMPLE_EVERY_S)
                self._failing = True
            else:
                self._failing = False
