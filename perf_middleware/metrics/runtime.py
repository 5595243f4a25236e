"""`perf.metrics`: the figures of one app, gathered for whoever asks."""

from __future__ import annotations

import logging
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import anyio

from perf_middleware.metrics.families import NO_LABELS, Collector, Family, Value, counter
from perf_middleware.metrics.middleware import RequestRecorder, current_exchange
from perf_middleware.metrics.summary import summarise
from perf_middleware.metrics.window import SAMPLE_EVERY_S, Recent, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.metrics.trace import TraceContext
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.metrics")


class Metrics:
    """Figures of requests, of the process, of the bundle's parts and of the app's own making."""

    def __init__(self, *, recorder: RequestRecorder) -> None:
        self.recorder = recorder
        self.window = Window()
        self._collectors: list[tuple[str, Collector]] = [
            ("requests", recorder.figures.families),
            ("websockets", recorder.sockets.families),
            ("metrics", self._own_families),
        ]
        self._failures: dict[str, int] = {}
        self._since_s = time()

    def add_collector(self, name: str, collect: Collector) -> None:
        """Include the families of `collect()` in every scrape; one that raises is left out."""
        self._collectors.append((name, collect))

    def families(self) -> Iterator[Family]:
        """Every family of this process; a collector that fails is counted and left out."""
        for name, collect in self._collectors:
            try:
                families = list(collect())
            except Exception:
                if name not in self._failures:
                    logger.exception("the collector %r failed and is left out of this scrape", name)
                self._failures[name] = self._failures.get(name, 0) + 1
                continue
            yield from families

    def summary(self) -> dict[str, Any]:
        """Counts, rates and p50/p95/p99 by route, since the start or the last reset."""
        recent = self.recent(60.0)
        return {
            "since_unix_s": round(self._since_s, 3),
            "rate_per_s": round(recent.rate_per_s, 2),
            **summarise(self.recorder.figures.families(), self.recorder.figures.scale),
        }

    def recent(self, seconds: float) -> Recent:
        """Requests and failures of the last `seconds` (or as far back as samples reach)."""
        return self.window.recent(monotonic(), self.recorder.figures.totals(), seconds=seconds)

    def reset(self) -> None:
        """Every count back to zero."""
        self.recorder.figures.reset()
        self.recorder.sockets.reset()
        self._since_s = time()

    def trace(self) -> TraceContext | None:
        """The running request's place in its trace, for logs; None outside a request."""
        exchange = current_exchange()
        return exchange.trace() if exchange is not None else None

    def trace_headers(self) -> dict[str, str]:
        """`traceparent` (and `tracestate`) to send along with a call that this request makes."""
        trace = self.trace()
        return trace.headers() if trace is not None else {}

    def _own_families(self) -> Iterator[Family]:
        yield counter(
            "perf_collector_failures",
            "Scrapes from which a collector was left out because it failed.",
            [Value(NO_LABELS, sum(self._failures.values()))],
        )
        yield counter(
            "perf_slow_requests",
            "Requests at least as slow as slow_request_s.",
            [Value(NO_LABELS, self.recorder.slow_log.slow)],
        )


class RateSampler:
    """Resource: notes the totals every few seconds, so that rates and the score are recent."""

    name = "rate sampler"
    required = False

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def open(self, background: Background) -> None:
        self._sample()
        background.start(self.name, self._run)

    async def close(self) -> None:
        """Nothing is held: its task ends with the others."""

    def status(self) -> dict[str, Any]:
        return {}

    async def _run(self) -> None:
        while True:
            await anyio.sleep(SAMPLE_EVERY_S)
            self._sample()

    def _sample(self) -> None:
        self._metrics.window.sample(monotonic(), self._metrics.recorder.figures.totals())
