"""Histograms are exact at every exported bound, and their quantiles near the true ones."""

import math
from bisect import bisect_left
from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.families import Distribution, Exemplar, Family, LabelSet
from perf_middleware.metrics.middleware import RequestRecorder
from perf_middleware.metrics.middleware.exchange import exchange_of
from perf_middleware.metrics.requests.figures import RequestFigures
from perf_middleware.metrics.requests.histogram import NS_PER_S, Scale
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S

SCALE = Scale(DEFAULT_BUCKETS_S)
LAST_NS = SCALE.fine_ns[-1]

# Any duration, and more often than by chance one that lies on a bound or beside it.
durations_ns = st.one_of(
    st.integers(0, 200 * NS_PER_S),
    st.integers(0, 10_000_000),
    st.sampled_from(SCALE.fine_ns).flatmap(lambda bound: st.integers(bound - 1, bound + 1)),
)
bounds_s = st.lists(
    st.floats(1e-6, 1_000, allow_nan=False),
    min_size=1,
    max_size=20,
    unique_by=lambda s: round(s * 1e9),
).map(sorted)


async def unused(*_):
    raise AssertionError("nothing is sent or received here")


def counted(scale, observed_ns):
    counts = scale.empty()
    for ns in observed_ns:
        counts[bisect_left(scale.fine_ns, ns)] += 1
    return list(accumulate(counts))


@given(bounds_s, st.lists(durations_ns, max_size=60))
def test_an_exported_bound_counts_exactly_what_is_not_above_it(bounds, observed_ns):
    scale = Scale(bounds)
    exported = scale.coarsened(counted(scale, observed_ns))
    expected = [sum(ns <= round(bound * NS_PER_S) for ns in observed_ns) for bound in bounds]
    assert exported == [*expected, len(observed_ns)]


@given(bounds_s, st.lists(durations_ns, min_size=1, max_size=60), st.data())
def test_a_request_counts_in_the_bucket_that_a_bisection_finds(bounds, observed_ns, data):
    recorder = RequestRecorder(buckets_s=bounds, slow_request_s=None)
    fine_ns = recorder.figures.scale.fine_ns
    begun_ns = [data.draw(st.integers(1, max(ns, 1))) for ns in observed_ns]
    for first_byte_ns, ns in zip(begun_ns, observed_ns, strict=True):
        exchange = exchange_of(recorder, {"method": "GET", "headers": []}, unused, unused)
        exchange.route = "/"
        exchange.first_byte_ns = exchange.started_ns + first_byte_ns
        recorder.record(exchange, 200, exchange.started_ns + ns)
    (timing,) = recorder.figures.timings()
    for counts, expected in ((timing.durations, observed_ns), (timing.first_bytes, begun_ns)):
        found = Counter(bisect_left(fine_ns, ns) for ns in expected)
        assert {bucket: count for bucket, count in enumerate(counts) if count} == found


@given(st.lists(durations_ns, min_size=1, max_size=60), st.floats(0.001, 1))
def test_a_quantile_is_off_by_at_most_one_fine_bucket(observed_ns, q):
    rank = max(math.ceil(q * len(observed_ns)), 1)
    true_ns = sorted(observed_ns)[rank - 1]
    told_s = SCALE.quantile_s(counted(SCALE, observed_ns), q)
    bucket = bisect_left(SCALE.fine_ns, true_ns)
    low_ns = SCALE.fine_ns[bucket - 1] if bucket else 0
    high_ns = SCALE.fine_ns[min(bucket, len(SCALE.fine_ns) - 1)]
    assert told_s is not None
    assert low_ns / NS_PER_S - 1e-12 <= told_s <= high_ns / NS_PER_S + 1e-12


@given(st.lists(durations_ns, min_size=1, max_size=60))
def test_quantiles_rise_with_their_rank(observed_ns):
    cumulative = counted(SCALE, observed_ns)
    told = [SCALE.quantile_s(cumulative, q / 20) for q in range(21)]
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("observed_s", "q", "seconds"),
    [
        pytest.param([], 0.5, None, id="nothing observed has no quantile"),
        pytest.param([250.0], 0.5, 100.0, id="beyond the last bound, the last bound is told"),
        pytest.param([0.01, 250.0], 1.0, 100.0, id="also where only the slowest lies beyond"),
        pytest.param([0.01], 1.0, 0.01, id="a value on a bound belongs to that bound"),
    ],
)
def test_quantiles_at_the_ends(observed_s, q, seconds):
    assert SCALE.quantile_s(counted(SCALE, [round(s * NS_PER_S) for s in observed_s]), q) == seconds


@pytest.mark.parametrize("seconds", [0.00001, 0.00042, 0.0137, 0.42, 9.9, 64.0])
def test_one_value_is_told_within_a_fifth(seconds):
    told = SCALE.quantile_s(counted(SCALE, [round(seconds * NS_PER_S)]), 0.99)
    assert abs(told - seconds) <= max(0.2 * seconds, SCALE.fine_s[0])


def test_fine_bounds_grow_by_a_fifth_at_most():
    for below, above in zip(SCALE.fine_ns, SCALE.fine_ns[1:], strict=False):
        assert below < above <= below * 1.2 + 1


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param([], id="none"),
        pytest.param([1.0, 0.5], id="falling"),
        pytest.param([1.0, 1.0], id="twice the same"),
        pytest.param([0.0, 1.0], id="zero"),
        pytest.param([1.0, math.inf], id="infinite"),
        pytest.param([1.0, 1e300], id="no whole number of nanoseconds"),
        pytest.param([math.nan], id="not a number"),
    ],
)
def test_bounds_that_make_no_histogram_are_refused(bounds):
    with pytest.raises(ValueError, match="bounds must be"):
        Scale(bounds)


@given(st.lists(durations_ns, max_size=40), st.data())
def test_coarsening_keeps_totals_and_the_newest_exemplar_of_each_bucket(observed_ns, data):
    figures = RequestFigures(buckets_s=DEFAULT_BUCKETS_S, series_max=10)
    scale = figures.scale
    cumulative = counted(scale, observed_ns)
    hit = sorted({bisect_left(scale.fine_ns, ns) for ns in observed_ns})
    exemplars = {
        bucket: Exemplar(f"{bucket:032x}", 0.0, data.draw(st.integers(1, 5))) for bucket in hit
    }
    fine = Family(
        name="h", kind="histogram", help="", bounds=scale.fine_s,
        points=[Distribution(LabelSet(), cumulative, 1.5, exemplars)],
    )  # fmt: skip
    coarse = figures.coarsen(fine)
    (point,) = coarse.points
    assert (coarse.bounds, point.sum, point.cumulative[-1]) == (
        scale.exported_s, 1.5, len(observed_ns),
    )  # fmt: skip
    newest: dict[int, float] = {}
    for bucket, exemplar in exemplars.items():
        upper_s = scale.fine_s[bucket] if bucket < len(scale.fine_s) else math.inf
        exported = bisect_left(scale.exported_s, upper_s)
        newest[exported] = max(newest.get(exported, 0), exemplar.at_s)
    assert {b: e.at_s for b, e in (point.exemplars or {}).items()} == newest


def test_only_histograms_in_the_fine_bounds_are_coarsened():
    figures = RequestFigures(buckets_s=(0.1, 1.0), series_max=10)
    other = Family(name="h", kind="histogram", help="", bounds=(0.1, 1.0), points=[])
    assert figures.coarsen(other) is other
