"""What a scrape costs: the time to render the metrics page, and how long it holds the event loop.

The page is answered through the real MetricsPage, beside a task that does nothing but come back to
the event loop: the longest time between two of its turns is how long a request might have waited.
Beside it prometheus_client's `generate_latest` for the same figures, which is one single hold.

The figures are those of RequestFigures after traffic on many routes: for each route two counted
statuses, two histograms, two counters of bytes.  A series is a line of the page that is no comment.
Times are CPU time of the process, for the reason that runner.py gives.
"""

from __future__ import annotations

import asyncio
import gc
import random
from dataclasses import dataclass
from time import process_time
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from benchmarks.figures import Spread, spread
from benchmarks.runner import CheckError, answer_of, arguments, on_loop, write_json
from perf_middleware.metrics.middleware import RequestRecorder
from perf_middleware.metrics.middleware.exchange import exchange_of
from perf_middleware.metrics.routes import MetricsPage
from perf_middleware.metrics.runtime import Metrics
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.runner import LoopName
    from perf_middleware.asgi import ASGIApp, Scope

HELD_MS_TARGET = 5.0
SERIES = (1_000, 10_000)
STATUSES = (200, 404)
REQUESTS_PER_STATUS = 20
SERIES_PER_ROUTE = len(STATUSES) + 2 * (len(DEFAULT_BUCKETS_S) + 3) + 2

READERS: Final = {
    "text": [(b"accept", b"text/plain")],
    "OpenMetrics, gzip": [  # as a Prometheus server asks
        (b"accept", b"application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5"),
        (b"accept-encoding", b"gzip"),
    ],
}
SAMPLED_TRACE: Final = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to answer a scrape; milliseconds, bytes as they leave."""

    name: str
    series: int
    page_bytes: int
    total_ms: Spread
    held_ms: Spread


class Heartbeat:
    """Comes back to the event loop as often as it can, and remembers the longest absence."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def beat(self) -> None:
        """Beat until cancelled."""
        last = process_time()
        while True:
            await asyncio.sleep(0)
            now = process_time()
            self.longest_s = max(self.longest_s, now - last)
            last = now


def traffic(routes: int) -> Iterator[tuple[str, int, int]]:
    """Route, status and nanoseconds of every request, the same at each call."""
    drawn = random.Random(routes)
    for number in range(routes):
        for status in STATUSES:
            for _ in range(REQUESTS_PER_STATUS):
                duration_ns = round(drawn.lognormvariate(-4.5, 1.2) * 1e9)
                yield f"/api/v1/collections/{number}/items/{{item}}", status, duration_ns


def our_page(routes: int) -> ASGIApp:
    """The metrics page after this traffic, exemplars included."""

    async def unused(*_: Any) -> Any:
        raise AssertionError("nothing is sent or received here")

    recorder = RequestRecorder(slow_request_s=None)
    for route, status, duration_ns in traffic(routes):
        scope: Scope = {"method": "GET", "headers": [SAMPLED_TRACE]}
        exchange = exchange_of(recorder, scope, unused, unused)
        exchange.route = route
        exchange.first_byte_ns = exchange.started_ns + duration_ns * 9 // 10
        exchange.request_bytes, exchange.response_bytes = 100, 2_000
        recorder.record(exchange, status, exchange.started_ns + duration_ns, "answered")
    return MetricsPage(
        Metrics(recorder=recorder, label_sets_max=1_000, buckets_s=DEFAULT_BUCKETS_S)
    )


def their_registry(routes: int) -> CollectorRegistry:
    """The same figures kept by prometheus_client."""
    registry = CollectorRegistry()
    labels = ("method", "route")
    requests = Counter("http_requests", "Requests.", (*labels, "status"), registry=registry)
    read = Counter("perf_request_bytes", "Bytes.", labels, registry=registry)
    sent = Counter("perf_response_bytes", "Bytes.", labels, registry=registry)
    complete, first_byte = (
        Histogram(name, "Time.", labels, buckets=DEFAULT_BUCKETS_S, registry=registry)
        for name in ("http_request_duration_seconds", "perf_response_first_byte_seconds")
    )
    for route, status, duration_ns in traffic(routes):
        requests.labels("GET", route, str(status)).inc()
        read.labels("GET", route).inc(100)
        sent.labels("GET", route).inc(2_000)
        complete.labels("GET", route).observe(duration_ns / 1e9)
        first_byte.labels("GET", route).observe(duration_ns * 0.9 / 1e9)
    return registry


async def scraped(
    name: str, page: ASGIApp, headers: Sequence[tuple[bytes, bytes]], *, series: int, scrapes: int
) -> Row:
    """The cost of so many scrapes, one after the other, each beside a heartbeat."""
    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": headers}
    answer = await answer_of(page, scope)
    if answer.status != 200 or len(answer.body) < series:
        raise CheckError(f"{name}: answered {answer.status} {answer.body[:200]!r}")
    totals_ms, held_ms = [], []
    for _ in range(scrapes):
        gc.collect()
        began = process_time()
        await answer_of(page, scope)
        totals_ms.append((process_time() - began) * 1e3)
        heartbeat = Heartbeat()
        beating = asyncio.create_task(heartbeat.beat())
        await asyncio.sleep(0)
        await answer_of(page, scope)
        await asyncio.sleep(0)
        beating.cancel()
        held_ms.append(heartbeat.longest_s * 1e3)
    return Row(
        name=name,
        series=series,
        page_bytes=len(answer.body),
        total_ms=spread(totals_ms),
        held_ms=spread(held_ms),
    )


def generated(name: str, registry: CollectorRegistry, *, series: int, scrapes: int) -> Row:
    """The cost of prometheus_client's page, uncompressed."""
    page = generate_latest(registry)
    totals_ms = []
    for _ in range(scrapes):
        gc.collect()
        began = process_time()
        generate_latest(registry)
        totals_ms.append((process_time() - began) * 1e3)
    total = spread(totals_ms)
    return Row(name=name, series=series, page_bytes=len(page), total_ms=total, held_ms=total)


async def measured(scrapes: int) -> list[Row]:
    """Every row, in the order of the table."""
    rows = []
    for series in SERIES:
        routes = round(series / SERIES_PER_ROUTE)
        page = our_page(routes)
        for reader, headers in READERS.items():
            name = f"MetricsPage, {reader}"
            rows.append(await scraped(name, page, headers, series=series, scrapes=scrapes))
        registry = their_registry(routes)
        name = "prometheus_client generate_latest"
        rows.append(generated(name, registry, series=series, scrapes=scrapes))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    head = f"{'':36}{'series':>8}{'page kB':>9}{'total ms':>10}{'loop held ms':>14}"
    lines = [f"{head}{'quartiles':>16}"]
    for row in rows:
        held = row.held_ms
        lines.append(
            f"{row.name:36}{row.series:8,}{row.page_bytes / 1000:9.0f}{row.total_ms.median:10.2f}"
            f"{held.median:14.2f}{f'{held.low:.2f} .. {held.high:.2f}':>16}"
        )
    return "\n".join(lines)


def run(*, scrapes: int, loop: LoopName) -> list[Row]:
    """Every row, on a loop of its own."""
    return on_loop(loop, measured(scrapes))


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, rounds=30).parse_args()
    rows = run(scrapes=options.rounds, loop=options.loop)
    print(f"{table(rows)}\n\nloop held: target {HELD_MS_TARGET:.0f} ms\n")
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
