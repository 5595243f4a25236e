"""What the app registered with prometheus_client, added up over workers like our own figures."""

from __future__ import annotations

import logging
import threading
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.parser import text_string_to_metric_families as parse_text

from perf_middleware.families import NO_LABELS, Value, gauge
from perf_middleware.metrics.drivers.prometheus_registry import ForeignFigures
from perf_middleware.metrics.middleware import RequestRecorder
from perf_middleware.metrics.runtime import Metrics, Sampler
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S
from perf_middleware.metrics.stores.shared import WorkerExchange

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Idle:
    """A lifespan plugin that runs nothing: the tests take the turns themselves."""

    def start(self, name, run) -> None:
        pass


class Worker:
    """One worker: our figures, and a registry of the app's."""

    def __init__(self, directory, *, timeout_s=30.0):
        self.registry = CollectorRegistry()
        self.metrics = Metrics(
            recorder=RequestRecorder(), label_sets_max=100, buckets_s=DEFAULT_BUCKETS_S
        )
        self.exchange = WorkerExchange(
            directory,
            service="shop",
            own=self.metrics.families,
            on_reset=self.metrics.reset_own,
        )
        self.metrics.add_collector("worker exchange", self.exchange.families)
        registered = ForeignFigures(self.registry, timeout_s=timeout_s)
        self.metrics.join(workers=self.exchange, registered=registered)
        self.sampler = Sampler(self.metrics)

    async def turn(self) -> None:
        await self.exchange._keep_once(self.exchange._place)
        await self.metrics.share_registered()

    async def figures(self) -> dict[str, float]:
        """The lines of the page, which a scraper must be able to read."""
        page = b"".join([chunk async for chunk in self.metrics.page("text")]).decode()
        assert list(parse_text(page))
        lines = [line.rpartition(" ") for line in page.splitlines() if line[0] != "#"]
        figures = {name: float(value) for name, _, value in lines}
        assert len(figures) == len(lines), "a series stands on the page twice"
        return figures

    async def close(self) -> None:
        await self.sampler.close()
        await self.exchange.close()


@asynccontextmanager
async def working(directory, count=1, **options):
    workers = [Worker(directory, **options) for _ in range(count)]
    for worker in workers:
        await worker.exchange.open(Idle())
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.close()


class Given:
    """A collector that gives what it was given, and counts how often it was asked."""

    def __init__(self, *metrics):
        self.metrics = metrics
        self.asked = 0

    def describe(self):
        return []

    def collect(self):
        self.asked += 1
        yield from self.metrics


async def test_a_figure_with_a_name_of_ours_is_left_off_and_not_added_to_ours(tmp_path):
    async with working(tmp_path, 2) as workers:
        for worker in workers:
            worker.metrics.counter("orders", "Ours.").inc()
            Counter("orders", "Theirs.", registry=worker.registry).inc(100)
            worker.metrics.counter("jobs", "Ours.").inc()
            Gauge("jobs_created", "Theirs too.", registry=worker.registry).set(5)
            Counter("sales", "Theirs alone.", registry=worker.registry).inc(10)
            await worker.figures()
        for worker in workers:
            seen = await worker.figures()
            assert (seen["orders_total"], seen["sales_total"]) == (2, 20)
            assert not [name for name in seen if name.startswith("jobs_created")]
        told = 'perf_metrics_dropped_families_total{family="%s",reason="clash"}'
        assert seen[told % "orders"] > 0
        assert seen[told % "jobs_created"] > 0
        assert seen['perf_worker_snapshot_errors_total{reason="conflict"}'] == 0


class Slow:
    """A collector that hangs until it is released."""

    def __init__(self):
        self.release = threading.Event()
        self.release.set()

    def describe(self):
        return []

    def collect(self):
        assert self.release.wait(30)
        return []


async def test_no_counter_falls_because_a_collector_took_too_long(tmp_path):
    async with working(tmp_path, 2, timeout_s=0.3) as (one, two):
        slow = Slow()
        for worker in (one, two):
            Counter("sales", "Theirs.", registry=worker.registry).inc(3)
            await worker.figures()
        one.registry.register(slow)
        slow.release.clear()
        try:
            for worker in (one, two):
                assert (await worker.figures())["sales_total"] == 6
        finally:
            slow.release.set()


async def test_a_clean_end_keeps_what_was_counted_since_the_last_look(tmp_path):
    async with working(tmp_path, 1) as (ended,):
        Counter("sales", "Theirs.", registry=ended.registry).inc(3)
    async with working(tmp_path, 1) as (new,):
        assert (await new.figures())["sales_total"] == 3


def odd(kind, name, labels, value):
    metric = Metric("odd", "A collector of the app's own.", kind)
    metric.add_sample(name, labels, value)
    return metric


def without_end():
    summary = SummaryMetricFamily("odd", "Of the app's own.")
    summary.add_metric([], count_value=float("inf"), sum_value=1)
    return summary


@pytest.mark.parametrize(
    "metric",
    [
        pytest.param(odd("histogram", "odd_bucket", {"stage": "1"}, 1), id="a bucket of no bound"),
        pytest.param(odd("histogram", "odd_bucket", {"le": "1e"}, 1), id="a bound of no number"),
        pytest.param(odd("histogram", "odd_bucket", {"le": "+Inf"}, float("inf")), id="infinite"),
        pytest.param(odd("histogram", "odd_bucket", {"le": "+Inf"}, -1), id="negative"),
        pytest.param(without_end(), id="an infinite summary"),
        pytest.param(odd("counter", "odd_total", {}, "many"), id="a word"),
    ],
)
async def test_one_odd_family_costs_no_other(tmp_path, metric):
    async with working(tmp_path, 2) as (one, two):
        one.registry.register(Given(metric))
        for worker in (one, two):
            Counter("sales", "Theirs.", registry=worker.registry).inc()
            await worker.metrics.share_registered(ending=True)
            await worker.figures()
        assert (await one.figures())["sales_total"] == 2


async def test_collectors_run_for_siblings_only_and_not_for_nobody(tmp_path):
    async with working(tmp_path, 1) as (one,):
        collector = Given(CounterMetricFamily("sales", "Theirs.", value=1))
        one.registry.register(collector)
        await one.turn()
        assert collector.asked == 0
        async with working(tmp_path, 1):
            await one.turn()
            assert collector.asked == 1
    alone = Worker(None)
    collector = Given()
    alone.registry.register(collector)
    await alone.exchange.open(Idle())
    await alone.metrics.share_registered(ending=True)
    assert collector.asked == 0


async def test_collectors_that_are_merged_already_are_not_run_for_the_workers(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(ForeignFigures, "is_merged", True)
    async with working(tmp_path, 2) as (one, _):
        monkeypatch.setattr(ForeignFigures, "collect", None)
        await one.turn()


async def test_long_labels_stay_whole_so_that_two_series_stay_two(tmp_path):
    long = "s" * 250
    async with working(tmp_path, 2) as workers:
        for worker in workers:
            queries = Counter("queries", "Theirs.", ["sql"], registry=worker.registry)
            waits = Histogram("waits", "Theirs.", ["sql"], buckets=[1], registry=worker.registry)
            depths = Gauge("depth", "Theirs.", ["sql"], registry=worker.registry)
            for number, end in enumerate("ab", start=1):
                queries.labels(long + end).inc(number)
                waits.labels(long + end).observe(number)
                depths.labels(long + end).set(number)
            await worker.figures()
        for worker in workers:
            seen = await worker.figures()
            for number, end in enumerate("ab", start=1):
                assert seen[f'queries_total{{sql="{long}{end}"}}'] == 2 * number
                assert seen[f'waits_sum{{sql="{long}{end}"}}'] == 2 * number
            assert len([name for name in seen if name.startswith("depth{")]) == 4


async def test_a_reset_zeroes_this_process_once(tmp_path, monkeypatch):
    resets = []
    monkeypatch.setattr(Metrics, "reset_own", lambda metrics: resets.append(metrics))  # noqa: PLW0108 - binds self
    async with working(tmp_path, 2) as (one, two):
        await one.metrics.reset()
        assert resets == [one.metrics]
        await two.figures()
        assert resets == [one.metrics, two.metrics]
    alone = Worker(None)
    await alone.metrics.reset()
    assert resets[2:] == [alone.metrics], "before the start, too"


async def test_the_summary_says_what_is_of_this_process_alone(tmp_path):
    async with working(tmp_path, 2) as workers:
        for worker in workers:
            series = worker.metrics.recorder.figures.series("GET", "/", 200)
            series.count += 1
            await worker.figures()
        said = await workers[0].metrics.summary()
        assert said["requests"] == 2
        assert set(said["this_process"]) == {"pid", "since_unix_s", "rate_per_s"}
        assert not {"since_unix_s", "rate_per_s"} & set(said)


async def test_the_sampler_goes_on_after_a_turn_that_failed_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr("perf_middleware.metrics.runtime.SAMPLE_EVERY_S", 0.001)
    worker = Worker(None)
    failing = True

    async def share():
        if failing:
            raise RuntimeError("a bug")

    async def until(happened):
        with anyio.fail_after(120):
            while not happened():
                await anyio.sleep(0.001)

    monkeypatch.setattr(worker.metrics, "share_registered", share)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.sampler._run)
        await until(lambda: worker.sampler.status()["failed_turns"] >= 3)
        failing = False
        samples = len(worker.metrics._window._samples)
        await until(lambda: len(worker.metrics._window._samples) > samples + 3)
        assert [r.levelno for r in caplog.records] == [logging.ERROR]
        failing = True
        await until(lambda: len(caplog.records) == 2)
        tasks.cancel_scope.cancel()


async def test_two_workers_of_one_pid_are_kept_apart(tmp_path):
    """Two containers that share a directory: both have pid 1.  Here both have this process's."""
    async with working(tmp_path, 2) as workers:
        for depth, worker in enumerate(workers, start=1):
            figure = gauge("depth", "Ours.", [Value(NO_LABELS, depth)], across="each")
            worker.metrics.add_collector("depth", lambda figure=figure: [figure])
            await worker.figures()
        names = {worker.exchange._directory.name.removesuffix(".snap") for worker in workers}
        for worker in workers:
            seen = await worker.figures()
            depths = {n: v for n, v in seen.items() if n.startswith("depth{")}
            assert depths.keys() == {f'depth{{worker="{name}"}}' for name in names}
            assert sorted(depths.values()) == [1, 2]
