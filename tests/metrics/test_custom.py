"""The app's own figures: what names may be, which series a call means, that nothing is lost."""

import gc
import sys
import threading
import tracemalloc
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.errors import ConfigurationError, MetricUseError
from perf_middleware.metrics.custom.figures import METRICS_MAX, CustomMetrics
from perf_middleware.metrics.custom.instruments import LabelOverflow
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S


def figures(metrics):
    """{family name: {label pairs: point}} of everything that is exposed."""
    return {
        family.name: {point.labels.pairs: point for point in family.points}
        for family in metrics.families()
    }


def test_counters_gauges_and_histograms_show_what_was_done():
    metrics = CustomMetrics()
    orders = metrics.counter("orders", "Orders.", ["kind"])
    orders.inc(kind="web")
    orders.inc(2, kind="web")
    orders.labels(kind="phone").inc(amount=0.5)
    depth = metrics.gauge("queue_depth", "Waiting.")
    depth.set(10)
    depth.inc(5)
    depth.dec()
    sizes = metrics.histogram("upload_bytes", "Sizes.", bounds=[10, 100], unit="bytes")
    for size in (1, 10, 11, 1_000):
        sizes.observe(size)

    found = figures(metrics)
    assert found["orders"][(("kind", "web"),)].value == 3
    assert found["orders"][(("kind", "phone"),)].value == 0.5
    assert found["queue_depth"][()].value == 14
    point = found["upload_bytes"][()]
    assert list(point.cumulative) == [2, 3, 4]
    assert point.sum == 1_022


def test_a_metric_without_labels_shows_zero_before_it_is_used():
    metrics = CustomMetrics()
    metrics.counter("orders", "Orders.")
    metrics.histogram("wait_seconds", "Waits.", bounds=[1])
    found = figures(metrics)
    assert found["orders"][()].value == 0
    assert list(found["wait_seconds"][()].cumulative) == [0, 0]


def test_families_carry_kind_help_unit_bounds_and_how_workers_combine():
    metrics = CustomMetrics(bounds=(1.0, 2.0))
    metrics.counter("sent", "Sent.", unit="bytes")
    metrics.gauge("pool_size", "Size.", across="max")
    metrics.histogram("wait", "Wait.", unit="seconds")
    by_name = {family.name: family for family in metrics.families()}
    assert (by_name["sent_bytes"].kind, by_name["sent_bytes"].unit) == ("counter", "bytes")
    assert by_name["pool_size"].across == "max"
    assert by_name["wait_seconds"].bounds == (1.0, 2.0)
    assert CustomMetrics().histogram("a", "x").bounds == DEFAULT_BUCKETS_S


def test_the_same_name_and_shape_is_the_same_object():
    metrics = CustomMetrics()
    orders = metrics.counter("orders", "Orders.", ["kind"])
    assert metrics.counter("orders_total", "Said otherwise.", ("kind",)) is orders
    wait = metrics.histogram("wait", "Wait.", bounds=(1, 2), unit="seconds")
    assert (
        metrics.histogram("wait_seconds", "", bounds=[1.0, 2.0, float("inf")], unit="seconds")
        is wait
    )


@pytest.mark.parametrize(
    ("again", "named"),
    [
        (lambda m: m.counter("orders", "x", ["kind", "shop"]), "kind, shop"),
        (lambda m: m.gauge("orders", "x", ["kind"]), "gauge"),
        (lambda m: m.histogram("orders", "x", ["kind"], bounds=[1, 2]), "histogram"),
    ],
)
def test_a_name_cannot_mean_two_things(again, named):
    metrics = CustomMetrics()
    metrics.counter("orders", "Orders.", ["kind"])
    with pytest.raises(ConfigurationError) as caught:
        again(metrics)
    assert "a counter with the labels (kind)" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "create",
    [
        pytest.param(lambda m: m.counter("", "x"), id="empty"),
        pytest.param(lambda m: m.counter("9lives", "x"), id="digit first"),
        pytest.param(lambda m: m.counter("my.orders", "x"), id="dot"),
        pytest.param(lambda m: m.counter("a" * 201, "x"), id="long"),
        pytest.param(lambda m: m.counter("perf_cache_hits", "x"), id="ours"),
        pytest.param(lambda m: m.histogram("http_request_duration_seconds", "x"), id="ours too"),
        pytest.param(lambda m: m.counter("a", "x", "kind"), id="labels as one string"),
        pytest.param(lambda m: m.counter("a", "x", ["kind", "kind"]), id="a label twice"),
        pytest.param(lambda m: m.counter("a", "x", ["__name__"]), id="reserved"),
        pytest.param(lambda m: m.counter("a", "x", ["amount"]), id="the call's own word"),
        pytest.param(lambda m: m.histogram("a", "x", ["le"]), id="the bucket label"),
        pytest.param(lambda m: m.gauge("a", "x", ["worker"], across="each"), id="workers' label"),
        pytest.param(lambda m: m.counter("a", "x", [f"l{i}" for i in range(21)]), id="many labels"),
        pytest.param(lambda m: m.histogram("a", "x", bounds=[]), id="no bounds"),
        pytest.param(lambda m: m.histogram("a", "x", bounds=[2, 1]), id="falling bounds"),
        pytest.param(lambda m: m.histogram("a", "x", bounds=[float("nan")]), id="NaN bound"),
        pytest.param(lambda m: m.histogram("a", "x", bounds=range(101)), id="many bounds"),
    ],
)
def test_what_cannot_be_exposed_is_refused_where_it_is_written(create):
    metrics = CustomMetrics()
    with pytest.raises(ConfigurationError):
        create(metrics)
    assert figures(metrics).keys() == {"perf_metrics_label_overflow"}


def test_two_names_that_would_share_a_sample_name_are_refused():
    metrics = CustomMetrics()
    metrics.histogram("wait_seconds", "x", bounds=[1])
    with pytest.raises(ConfigurationError, match=r"wait_seconds_count .* wait_seconds "):
        metrics.gauge("wait_seconds_count", "x")
    metrics.gauge("jobs_total", "x")
    with pytest.raises(ConfigurationError, match="jobs_total"):
        metrics.counter("jobs", "x")


@pytest.mark.parametrize(
    "labels", [{}, {"kind": "a"}, {"kind": "a", "shop": "b", "more": 1}, {"kind": "a", "sjop": "b"}]
)
def test_wrong_labels_are_an_error_that_names_what_is_expected_and_given(labels):
    orders = CustomMetrics().counter("orders", "Orders.", ["kind", "shop"])
    for call in (orders.inc, orders.labels):
        with pytest.raises(MetricUseError) as caught:
            call(**labels)
        assert "orders: expected the labels kind, shop; given: " in str(caught.value)
        assert str(caught.value).endswith(", ".join(labels) or "none")
        assert isinstance(caught.value, TypeError)
    with pytest.raises(MetricUseError, match="expected the labels none; given: kind"):
        CustomMetrics().gauge("depth", "x").set(1, kind="a")


@pytest.mark.parametrize("amount", [-1, -0.1, float("nan"), float("-inf"), float("inf")])
def test_a_counter_only_grows(amount):
    orders = CustomMetrics().counter("orders", "Orders.")
    with pytest.raises(MetricUseError, match="only grows"):
        orders.inc(amount)
    assert orders.labels().value == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_histogram_leaves_out_what_is_not_finite(value):
    wait = CustomMetrics().histogram("wait_seconds", "x", bounds=[1])
    wait.observe(0.5)
    wait.observe(value)
    assert (wait.labels().count, wait.labels().sum) == (1, 0.5)


@pytest.mark.parametrize("value", ["x", "12", b"1", None, [1], 1j])
def test_what_is_no_number_is_refused_by_a_gauge_where_it_is_written(value):
    depth = CustomMetrics().gauge("queue_depth", "Waiting.")
    for call in (depth.set, depth.inc, depth.dec):
        with pytest.raises(MetricUseError, match="queue_depth: a gauge is a number"):
            call(value)
    assert depth.labels().value == 0


@pytest.mark.parametrize("value", [Decimal("2.5"), Fraction(5, 2), 2.5, True, float("inf"), 10**30])
def test_a_gauge_takes_numbers_of_any_type(value):
    depth = CustomMetrics().gauge("queue_depth", "Waiting.")
    depth.set(0.5)
    depth.inc(value)
    assert depth.labels().value == 0.5 + float(value)
    depth.set(value)
    assert depth.labels().value == value


def test_a_value_of_the_wrong_type_counts_nothing():
    wait = CustomMetrics().histogram("wait_seconds", "x", bounds=[1])
    for value in ("1", None, [1]):
        with pytest.raises(TypeError):
            wait.observe(value)
    assert wait.labels().count == 0


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=5, unique=True).map(sorted),
    st.lists(st.one_of(st.floats(-200, 200), st.integers(-200, 200)), max_size=50),
)
def test_buckets_count_the_values_up_to_their_bound(bounds, values):
    histogram = CustomMetrics().histogram("a", "x", bounds=bounds)
    for value in values:
        histogram.observe(value)
    point = histogram.labels().point()
    assert list(point.cumulative) == [
        sum(value <= bound for value in values) for bound in (*bounds, float("inf"))
    ]
    assert point.sum == pytest.approx(sum(values))


def test_label_values_of_any_type_count_by_their_text():
    orders = CustomMetrics().counter("orders", "Orders.", ["kind"])
    orders.inc(kind=1)
    orders.inc(kind="1")
    orders.inc(kind=None)
    family = orders.family()
    assert {point.labels.pairs[0][1]: point.value for point in family.points} == {"1": 2, "None": 1}


def test_values_that_read_the_same_are_one_series():
    orders = CustomMetrics().counter("orders", "Orders.", ["kind"])
    for tail in ("a", "b", "c"):
        orders.inc(kind="x" * 10_000 + tail)
    orders.inc(kind="\ud800")
    orders.inc(kind="?")
    found = {point.labels.pairs[0][1]: point.value for point in orders.family().points}
    assert found == {"x" * 199 + "…": 3, "?": 2}


def test_label_sets_beyond_the_limit_go_to_other_and_are_reported_once():
    reported = []
    metrics = CustomMetrics(
        label_sets_max=2, overflow=LabelOverflow(lambda *what: reported.append(what))
    )
    orders = metrics.counter("orders", "Orders.", ["shop", "kind"])
    for shop in range(5):
        orders.inc(shop=shop, kind="web")
    orders.inc(shop=0, kind="web")
    found = figures(metrics)
    assert {pairs: point.value for pairs, point in found["orders"].items()} == {
        (("shop", "0"), ("kind", "web")): 2,
        (("shop", "1"), ("kind", "web")): 1,
        (("shop", "other"), ("kind", "other")): 3,
    }
    assert found["perf_metrics_label_overflow"][(("metric", "orders"),)].value == 3
    assert reported == [("orders", 2)]


def test_a_label_set_that_reads_other_takes_no_place_from_the_overflow():
    metrics = CustomMetrics(label_sets_max=1)
    orders = metrics.counter("orders", "Orders.", ["kind"])
    orders.inc(kind="other")
    orders.inc(kind="web")
    orders.inc(kind="phone")
    found = {pairs[0][1]: point.value for pairs, point in figures(metrics)["orders"].items()}
    assert found == {"other": 2, "web": 1}


def test_names_beyond_the_limit_still_work_and_are_not_exposed():
    metrics = CustomMetrics()
    for index in range(METRICS_MAX):
        metrics.counter(f"c{index}", "x")
    late = metrics.counter("late", "x")
    late.inc()
    assert late.labels().value == 1
    found = figures(metrics)
    assert len(found) == METRICS_MAX + 1
    assert "late" not in found
    assert found["perf_metrics_label_overflow"][(("metric", "perf_metrics_names"),)].value == 1


def test_reset_sets_to_zero_and_keeps_the_label_sets():
    metrics = CustomMetrics(label_sets_max=1)
    orders = metrics.counter("orders", "Orders.", ["kind"])
    orders.inc(kind="web")
    orders.inc(kind="phone")
    kept = orders.labels(kind="web")
    metrics.gauge("depth", "x").set(7)
    metrics.histogram("wait_seconds", "x", bounds=[1]).observe(3)
    metrics.reset()
    found = figures(metrics)
    assert [point.value for point in found["orders"].values()] == [0, 0]
    assert found["depth"][()].value == 0
    assert (list(found["wait_seconds"][()].cumulative), found["wait_seconds"][()].sum) == (
        [0, 0],
        0,
    )
    assert found["perf_metrics_label_overflow"][(("metric", "orders"),)].value == 0
    kept.inc()
    assert figures(metrics)["orders"][(("kind", "web"),)].value == 1


@pytest.fixture
def frequent_switches():
    """Threads take turns a thousand times more often than usual: races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_hammering_one_counter_lose_nothing(frequent_switches):
    metrics = CustomMetrics(label_sets_max=50)
    orders = metrics.counter("orders", "x")
    child = metrics.counter("kept", "x", ["kind"]).labels(kind="a")
    labelled = metrics.counter("labelled", "x", ["kind"])
    depth = metrics.gauge("depth", "x")
    wait = metrics.histogram("wait_seconds", "x", bounds=[1, 2])
    threads, rounds = 8, 4_000
    start = threading.Barrier(threads + 1)

    def work(number):
        start.wait()
        for index in range(rounds):
            orders.inc()
            child.inc(0.5)
            labelled.inc(kind=index % 100)
            depth.inc(2)
            depth.dec()
            wait.observe(index % 3)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    while any(worker.is_alive() for worker in workers):
        figures(metrics)  # a scrape in the middle disturbs nothing
    for worker in workers:
        worker.join()

    found = figures(metrics)
    total = threads * rounds
    assert found["orders"][()].value == total
    assert child.value == total / 2
    assert sum(point.value for point in found["labelled"].values()) == total
    assert len(found["labelled"]) == 51
    assert found["perf_metrics_label_overflow"][(("metric", "labelled"),)].value == total / 2
    assert found["depth"][()].value == total
    thirds = threads * len([index for index in range(rounds) if index % 3 < 2])
    assert list(found["wait_seconds"][()].cumulative) == [thirds, total, total]


def test_threads_that_come_and_go_leave_few_cells():
    orders = CustomMetrics().counter("orders", "x")
    for _ in range(300):
        thread = threading.Thread(target=orders.inc)
        thread.start()
        thread.join()
    assert orders.labels().value == 300
    assert len(orders.labels()._cells) < 100


def test_a_hundred_thousand_label_values_keep_memory_bounded():
    metrics = CustomMetrics(label_sets_max=100)
    orders = metrics.counter("orders", "x", ["id"])
    for index in range(1_000):
        orders.inc(id=index)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index in range(30_000):
            orders.inc(id=f"warm {index}")
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    for index in range(69_000):
        orders.inc(id=index)
    assert grown < 300_000  # a hundredth of what keeping them would take
    points = list(orders.family().points)
    assert len(points) == 101
    assert sum(point.value for point in points) == 100_000
