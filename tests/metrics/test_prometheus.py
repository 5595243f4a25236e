"""prometheus_client sees our figures, and our page shows what was registered with it."""

import gc
import json
import os
import subprocess
import sys
import threading
import time

import anyio
import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    Metric,
    Timestamp,
    UnknownMetricFamily,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Exemplar as PrometheusExemplar

from perf_middleware.errors import ConfigurationError
from perf_middleware.families import (
    NO_LABELS,
    Distribution,
    Exemplar,
    Family,
    LabelSet,
    Value,
    counter,
    gauge,
)
from perf_middleware.metrics.drivers.prometheus import register
from perf_middleware.metrics.drivers.prometheus_registry import ForeignFigures
from perf_middleware.metrics.exposition.foreign import to_family
from perf_middleware.metrics.exposition.page import render

GENERATE = {"text": generate_latest, "openmetrics": generate_openmetrics}
PARSE = {"text": parse_text, "openmetrics": parse_openmetrics}
FORMATS = tuple(PARSE)


def ours():
    labels = LabelSet([("route", '/a"\\\nb'), ("method", "GET")])
    return [
        counter(
            "orders", 'Orders "made".\nAll.', [Value(labels, 2**60 + 1), Value(NO_LABELS, 1.5)]
        ),
        gauge("depth", "", [Value(NO_LABELS, -1)]),
        Family(
            name="wait_seconds", kind="histogram", help="Waits.", unit="seconds",
            bounds=(0.005, 1.0, 1e6),
            points=[
                Distribution(labels, [1, 2, 2, 3], 7.25, {1: Exemplar("ab" * 16, 0.5, 17e8)}),
                Distribution(NO_LABELS, [0, 0, 0, 0], 0.0),
            ],
        ),
        Family(
            name="temperature", kind="histogram", help="Below zero.", bounds=(-1.0, 1.0),
            points=[Distribution(NO_LABELS, [1, 2, 2], -3.0)],
        ),
        counter("empty", "Nothing yet.", []),
    ]  # fmt: skip


def shape(metrics):
    return {
        metric.name: (
            metric.type,
            metric.unit,
            metric.documentation,
            {
                (s.name, tuple(sorted(s.labels.items()))): (
                    float(s.value),
                    s.timestamp and float(s.timestamp),
                    s.exemplar
                    and (s.exemplar.labels, s.exemplar.value, float(s.exemplar.timestamp or 0)),
                )
                for s in metric.samples
            },
        )
        for metric in metrics
    }


def read(registry, format, **options):
    """Our page of what `registry` holds, and the figures of reading it."""
    foreign = ForeignFigures(registry, **options)
    found = anyio.run(foreign.collect)
    return b"".join(render(found, format)).decode(), foreign


def failures(foreign):
    (family,) = foreign.families()
    return {point.labels.pairs[0][1]: point.value for point in family.points}


@pytest.mark.parametrize("format", FORMATS)
def test_our_page_says_what_prometheus_client_says_of_the_same_families(format):
    registry = CollectorRegistry()
    register(registry, ours)
    theirs = GENERATE[format](registry).decode()
    mine = b"".join(render(ours(), format)).decode()
    assert shape(PARSE[format](mine)) == shape(PARSE[format](theirs))


def test_registering_reads_no_figures_and_finds_duplicates():
    def explode():
        raise AssertionError("registering must not read figures")
        yield

    registry = CollectorRegistry()
    collector = register(registry, lambda: [counter("orders", "Orders.", explode())])
    with pytest.raises(ConfigurationError, match="orders"):
        register(registry, ours)
    with pytest.raises(ValueError, match="orders"):
        Counter("orders", "The app's own.", registry=registry)
    registry.unregister(collector)
    register(registry, ours)


def test_a_family_that_cannot_be_read_is_left_out_and_logged_once(caplog):
    def explode():
        yield Value(NO_LABELS, 1)
        raise KeyError("gone")

    attempts = []

    def unstable():
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("dictionary changed size during iteration")
        yield Value(NO_LABELS, 7)

    class Again:
        def __iter__(self):
            return unstable()

    registry = CollectorRegistry()
    register(registry, lambda: [
        gauge("bad", "x", explode()),
        gauge("unstable", "x", Again()),
        gauge("good", "x", [Value(NO_LABELS, 1)]),
    ])  # fmt: skip
    for _ in range(2):
        text = generate_latest(registry).decode()
        assert "bad" not in text
        assert "good 1.0" in text
        assert "unstable 7.0" in text
    assert [record.getMessage() for record in caplog.records] == [
        "bad could not be collected and is left out"
    ]


def test_a_name_that_the_registry_got_meanwhile_is_not_exposed_twice():
    registry = CollectorRegistry()
    own = []
    register(registry, lambda: own)
    Counter("orders", "The app's.", registry=registry).inc(5)
    own.append(counter("orders", "Ours, made later.", [Value(NO_LABELS, 1)]))
    text = generate_latest(registry).decode()
    assert text.count("# TYPE orders_total") == 1
    assert "orders_total 5.0" in text


class Custom:
    def __init__(self, *metrics):
        self.metrics = metrics

    def collect(self):
        yield from self.metrics


def of_every_type():
    registry = CollectorRegistry(target_info={"env": "test"})
    c = Counter("orders", 'Orders.\n"all"', ["kind"], registry=registry)
    c.labels('a"\\\n').inc(3, exemplar={"trace_id": "abc", "span": "d"})
    c.labels("x" * 10_000).inc()
    Gauge("depth", "Depth.", registry=registry).set(float("inf"))
    s = Summary("size_bytes", "Sizes.", ["to"], unit="bytes", registry=registry)
    s.labels("b").observe(4.5)
    h = Histogram("wait_seconds", "Waits.", buckets=(0.1, 1.0), registry=registry)
    h.observe(0.5, exemplar={"TraceID": "abc"})
    h.observe(5)
    Info("build", "Build.", registry=registry).info({"version": "1.2", "commit": "a b"})
    Enum("state", "State.", states=["up", "down"], registry=registry).state("down")
    unknown = UnknownMetricFamily("legacy", "Untyped.", labels=["a"])
    unknown.add_metric(["1"], 4, timestamp=1_700_000_000.25)
    unknown.add_metric(["2"], 5, timestamp=Timestamp(1_700_000_000, 500_000_000))
    gh = GaugeHistogramMetricFamily("queue", "Ages.", labels=["q"])
    gh.add_metric(["one"], [("1.0", 2), ("+Inf", 3)], 9.5)
    registry.register(Custom(unknown, gh))
    return registry


@pytest.mark.parametrize("format", FORMATS)
def test_metrics_of_every_type_show_as_prometheus_client_shows_them(format):
    registry = of_every_type()
    mine, foreign = read(registry, format)
    theirs = GENERATE[format](registry).decode()
    assert shape(PARSE[format](mine)) == shape(PARSE[format](theirs))
    assert failures(foreign) == {"error": 0, "timeout": 0}


def test_names_that_the_format_does_not_know_become_legal():
    registry = CollectorRegistry()
    Gauge("my.gauge", "Dots.", ["a.b", "a-b"], registry=registry).labels("1", "2").set(3)
    text, _ = read(registry, "text")
    assert 'my_gauge{a_b="2"} 3.0\n' in text


def test_samples_that_have_no_line_are_left_out_and_strays_stand_alone():
    odd = Metric("odd", "Odd.", "gauge")
    odd.add_sample("odd", {}, 1)
    odd.add_sample("elsewhere", {"a": "b"}, 2)
    odd.add_sample("odd", {"missing": "value"}, None)
    registry = CollectorRegistry()
    registry.register(Custom(odd))
    for format in FORMATS:  # noqa: A001
        text, _ = read(registry, format)
        assert "odd 1\n" in text
        assert 'elsewhere{a="b"} 2\n' in text
        assert "missing" not in text
        assert len(list(PARSE[format](text))) == 2


def test_an_exemplar_where_openmetrics_has_none_is_left_out():
    exemplar = PrometheusExemplar({"trace_id": "ab"}, 1)
    told = {"gauge": "", "counter": "_total", "histogram": "_bucket", "summary": "_count"}
    metrics = []
    for kind, suffix in told.items():
        metric = Metric(kind, "Its own.", kind)
        labels = {"le": "+Inf"} if kind == "histogram" else {}
        metric.add_sample(f"{kind}{suffix}", labels, 1, exemplar=exemplar)
        metrics.append(metric)
    registry = CollectorRegistry()
    registry.register(Custom(*metrics))
    text, _ = read(registry, "openmetrics")
    samples = [sample for family in parse_openmetrics(text) for sample in family.samples]
    assert {s.name for s in samples if s.exemplar} == {"counter_total", "histogram_bucket"}
    assert len(samples) == len(told)


def test_collectors_that_share_a_family_show_as_one():
    def part(shard):
        family = GaugeMetricFamily("shard_rows", "Rows.", labels=["shard"])
        family.add_metric([shard], 5)
        return Custom(family)

    registry = CollectorRegistry()
    registry.register(part("a"))
    registry.register(part("b"))
    text, _ = read(registry, "openmetrics")
    (metric,) = parse_openmetrics(text)
    assert [sample.labels["shard"] for sample in metric.samples] == ["a", "b"]


class Raising:
    def __init__(self):
        self.broken = True

    def collect(self):
        yield CounterMetricFamily("before", "Given before it broke.", value=1)
        if self.broken:
            raise OSError("database away")


def test_a_collector_that_raises_is_skipped_counted_and_logged_once(caplog):
    registry = CollectorRegistry()
    raising = Raising()
    registry.register(raising)
    Gauge("fine", "Fine.", registry=registry).set(1)
    foreign = ForeignFigures(registry)

    def names():
        return [family.name for family in anyio.run(foreign.collect)]

    assert names() == ["before", "fine"]
    assert names() == ["before", "fine"]
    assert failures(foreign) == {"error": 2, "timeout": 0}
    assert len(caplog.records) == 1
    assert "Raising (0x" in caplog.records[0].getMessage()
    raising.broken = False
    names()
    raising.broken = True
    names()
    assert len(caplog.records) == 2  # it had recovered in between


def test_of_two_collectors_of_one_class_the_good_one_does_not_forgive_the_other(caplog):
    registry = CollectorRegistry()
    for broken in (True, False):
        collector = Raising()
        collector.broken = broken
        registry.register(collector)
    foreign = ForeignFigures(registry)
    for _ in range(3):
        anyio.run(foreign.collect)
    assert len(caplog.records) == 1


class Hanging:
    def __init__(self):
        self.release = threading.Event()
        self.calls = 0

    def collect(self):
        self.calls += 1
        self.release.wait(30)
        return [GaugeMetricFamily("slow", "Slow.", value=1)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_collector_that_hangs_costs_one_thread_and_the_page_goes_out_without(backend, caplog):
    registry = CollectorRegistry()
    hanging = Hanging()
    registry.register(hanging)
    foreign = ForeignFigures(registry, timeout_s=0.2)
    ticks = 0

    async def main():
        async def tick():
            nonlocal ticks
            while True:
                await anyio.sleep(0.005)
                ticks += 1

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            assert await foreign.collect() is None
            assert ticks > 5  # the loop went on meanwhile
            for _ in range(5):
                assert await foreign.collect() is None
            assert hanging.calls == 1
            hanging.release.set()
            with anyio.fail_after(120):
                while not (found := await foreign.collect()):
                    await anyio.sleep(0.01)
            assert [family.name for family in found] == ["slow"]
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert failures(foreign)["timeout"] >= 6
    assert [record.levelname for record in caplog.records if "answer" not in record.msg] == [
        "WARNING"
    ]


def test_pages_asked_for_at_once_wait_for_one_another_not_for_ever():
    registry = CollectorRegistry()

    class Slow:
        def collect(self):
            time.sleep(0.02)
            return [GaugeMetricFamily("slow", "Slow.", value=1)]

    registry.register(Slow())
    foreign = ForeignFigures(registry, timeout_s=10)
    found = []

    async def one():
        found.append(len(await foreign.collect()))

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)

    anyio.run(main)
    assert found == [1] * 5


def test_a_client_that_leaves_ends_the_wait_at_once():
    registry = CollectorRegistry()
    hanging = Hanging()
    registry.register(hanging)
    foreign = ForeignFigures(registry, timeout_s=20)

    async def main():
        with anyio.move_on_after(0.05) as scope:
            await foreign.collect()
        assert scope.cancelled_caught
        hanging.release.set()

    began = time.monotonic()
    anyio.run(main)
    assert time.monotonic() - began < 10


def test_our_own_collector_is_not_foreign_and_ours_wins_a_clash():
    registry = CollectorRegistry()
    register(registry, lambda: [counter("orders", "Ours.", [Value(NO_LABELS, 1)])])
    Gauge("depth", "Theirs.", registry=registry).set(2)
    found = anyio.run(ForeignFigures(registry).collect)
    assert [family.name for family in found] == ["depth"]
    dropped = []
    text = b"".join(
        render(
            [gauge("depth", "Ours.", [Value(NO_LABELS, 1)]), *found],
            "openmetrics",
            on_dropped=lambda *what: dropped.append(what),
        )
    ).decode()
    assert "depth 1\n" in text
    assert "depth 2" not in text
    assert dropped == [("depth", "clash", None)]


def test_a_registry_of_another_make_is_read_as_a_whole():
    class Other:
        def collect(self):
            return [GaugeMetricFamily("a", "A.", value=1)]

    text, _ = read(Other(), "text")
    assert text == "# HELP a A.\n# TYPE a gauge\na 1\n"


def test_an_app_without_prometheus_client_does_not_get_it_imported():
    code = (
        "import sys, anyio\n"
        "from perf_middleware.metrics.drivers.prometheus_registry import ForeignFigures\n"
        "assert anyio.run(ForeignFigures().collect) == []\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "import prometheus_client\n"
        "names = {f.name for f in anyio.run(ForeignFigures().collect)}\n"
        "assert 'python_info' in names, names\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_collector_that_hangs_does_not_keep_the_process_from_ending():
    code = (
        "import anyio, time\n"
        "from prometheus_client import CollectorRegistry\n"
        "from perf_middleware.metrics.drivers.prometheus_registry import ForeignFigures\n"
        "class Hanging:\n"
        "    def describe(self): return []\n"
        "    def collect(self): time.sleep(60)\n"
        "registry = CollectorRegistry()\n"
        "registry.register(Hanging())\n"
        "assert anyio.run(ForeignFigures(registry, timeout_s=0.1).collect) is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=40
    )
    assert done.returncode == 0, done.stderr


MULTIPROCESS = """
import sys, json, anyio
from prometheus_client import Counter, Histogram, Gauge
from perf_middleware.metrics.drivers.prometheus_registry import ForeignFigures
Counter("orders", "Orders.", ["kind"]).labels("web").inc(int(sys.argv[1]))
Histogram("wait_seconds", "Waits.", buckets=(1.0,)).observe(0.5)
Gauge("depth", "Depth.", multiprocess_mode="sum").set(2)
foreign = ForeignFigures()
found = anyio.run(foreign.collect)
print(json.dumps({
    "merged": foreign.is_merged,
    "figures": {f.name + s.suffix: s.value for f in found for s in f.samples
                if "le" not in dict(s.labels)},
}))
"""


def test_in_multiprocess_mode_the_figures_are_those_of_all_workers(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for amount in (3, 4):
        done = subprocess.run(
            [sys.executable, "-c", MULTIPROCESS, str(amount)],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["merged"] is True
    assert answer["figures"]["orders_total"] == 7
    assert answer["figures"]["wait_seconds_count"] == 2
    assert answer["figures"]["depth"] == 4


def test_a_missing_multiprocess_directory_is_a_failure_and_no_error(monkeypatch, caplog):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nonexistent")
    text, foreign = read(CollectorRegistry(), "text")
    assert text == ""
    assert failures(foreign) == {"error": 1, "timeout": 0}


def test_what_has_a_like_of_ours_can_be_added_up_over_workers():
    found = {f.name: to_family(f) for f in anyio.run(ForeignFigures(of_every_type()).collect)}
    assert {f.name: (f.kind, f.across) for f in found.values() if f is not None} == {
        "build_info": ("gauge", "max"),
        "depth": ("gauge", "each"),
        "legacy": ("gauge", "each"),
        "orders": ("counter", "sum"),
        "size_bytes": ("histogram", "sum"),
        "state": ("gauge", "each"),
        "target_info": ("gauge", "max"),
        "wait_seconds": ("histogram", "sum"),
    }
    assert [point.value for point in found["orders"].points] == [3.0, 1.0]
    wait = found["wait_seconds"]
    assert wait.bounds == (0.1, 1.0)
    (point,) = wait.points
    assert (list(point.cumulative), point.sum) == ([0, 1, 2], 5.5)
    exemplar = point.exemplars[1]
    assert (exemplar.trace_id, exemplar.value) == ("abc", 0.5)


def test_a_summary_is_added_up_as_a_histogram_of_one_bucket():
    found = {f.name: to_family(f) for f in anyio.run(ForeignFigures(of_every_type()).collect)}
    (point,) = found["size_bytes"].points
    assert (point.labels.pairs, list(point.cumulative), point.sum) == ((("to", "b"),), [1], 4.5)


def test_a_histogram_whose_series_differ_in_bounds_has_no_like():
    odd = Metric("odd", "Odd.", "histogram")
    for label, bounds in (("a", ("1.0", "+Inf")), ("b", ("2.0", "+Inf"))):
        for bound in bounds:
            odd.add_sample("odd_bucket", {"x": label, "le": bound}, 1)
    registry = CollectorRegistry()
    registry.register(Custom(odd))
    (found,) = anyio.run(ForeignFigures(registry).collect)
    assert to_family(found) is None


def test_reading_leaves_no_thread_behind():
    registry = of_every_type()
    before = threading.active_count()
    for _ in range(5):
        anyio.run(ForeignFigures(registry).collect)
    gc.collect()
    deadline = time.monotonic() + 120
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
