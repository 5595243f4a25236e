"""Adding up workers: which rule for which kind, and totals that no order can change."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from perf_middleware.metrics.workers.frames import Frame, counts_in, frames_of, words
from perf_middleware.metrics.workers.merge import SHAPES_PER_NAME_MAX, Ledger, Totals
from perf_middleware.metrics.workers.snapshot import decode, encode_frame, encode_head
from tests.metrics.snapshots import encode, families_of, merge

A, B = LabelSet([("route", "/a")]), LabelSet([("route", "/b")])


def values(family):
    return {point.labels.text: point.value for point in family.points}


def histogram(points, bounds=(1.0, 2.0)):
    return Family(
        name="h_seconds", kind="histogram", help="", unit="seconds", bounds=bounds, points=points
    )


def test_counters_add_up_by_label_set_over_workers_alive_and_dead():
    (total,) = merge(
        [counter("n", "h", [Value(A, 1), Value(B, 2)])],
        [("2", [counter("n", "h", [Value(B, 10)])])],
        [counter("n", "h", [Value(LabelSet([("route", "/c")]), 100), Value(A, 100)])],
        worker="1",
    )
    assert values(total) == {'route="/a"': 101, 'route="/b"': 12, 'route="/c"': 100}


@pytest.mark.parametrize(
    ("across", "expected"),
    [
        pytest.param("sum", {"": 9.0}, id="sum"),
        pytest.param("max", {"": 5.0}, id="max"),
        pytest.param("min", {"": 1.0}, id="min"),
        pytest.param("each", {'worker="1"': 3.0, 'worker="2"': 5.0, 'worker="3"': 1.0}, id="each"),
    ],
)
def test_a_gauge_combines_as_its_family_says_and_the_dead_have_none(across, expected):
    def one(value):
        return [gauge("g", "h", [Value(NO_LABELS, value)], across=across)]

    (total,) = merge(one(3.0), [("2", one(5.0)), ("3", one(1.0))], one(77.0), worker="1")
    assert values(total) == expected


def test_a_gauge_with_a_worker_label_of_its_own_gets_another_one():
    labels = LabelSet([("worker", "x")])
    (total,) = merge([gauge("g", "h", [Value(labels, 1)], across="each")], worker="7")
    assert list(values(total)) == ['worker="x",worker_pid="7"']


@pytest.mark.parametrize("across", ["max", "min"])
def test_a_worker_that_does_not_know_its_gauge_does_not_hide_the_others(across):
    def one(value):
        return [gauge("g", "h", [Value(NO_LABELS, value)], across=across)]

    for first, second in ((math.nan, 2.0), (2.0, math.nan)):
        (total,) = merge(one(first), [("2", one(second))], worker="1")
        assert values(total) == {"": 2.0}


def test_histograms_add_up_by_bucket_and_keep_the_newest_exemplar():
    old, new = Exemplar("old", 0.5, 10.0), Exemplar("new", 0.6, 20.0)
    (total,) = merge(
        [histogram([Distribution(A, [1, 2, 3], 3.5, {0: old, 1: old})])],
        [("2", [histogram([Distribution(A, [0, 1, 1], 1.5, {0: new})])])],
        [histogram([Distribution(A, [1, 1, 1], 0.25, {2: old})])],
        worker="1",
    )
    assert list(total.points) == [
        Distribution(A, [2, 4, 5], 5.25, {0: new, 1: old, 2: old}),
    ]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(histogram([Distribution(A, [9, 9], 9.0)], bounds=(1.0,)), id="other bounds"),
        pytest.param(
            gauge("h_seconds", "", [Value(A, 9)], unit="seconds"), id="another kind"
        ),
    ],
)  # fmt: skip
def test_a_family_in_another_shape_is_left_out_and_named(other):
    totals = Totals()
    for frame in frames_of([histogram([Distribution(A, [1, 2, 3], 4.0)])]):
        totals.add(frame, worker="1")
    for frame in frames_of([other]):
        totals.add(frame, worker="2")
    (total,) = totals.families()
    assert list(total.points) == [Distribution(A, [1, 2, 3], 4.0)]
    assert totals.refused == {"h_seconds"}


def test_a_family_without_points_keeps_its_place_and_own_words():
    own = counter("n", "mine", [])
    (total,) = merge([own], [("2", [counter("n", "theirs", [Value(A, 1)])])], worker="1")
    assert (total.help, values(total)) == ("mine", {'route="/a"': 1})


COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2**40), max_size=3)
WORKERS = st.lists(COUNTS, max_size=5)


def family_of(counts):
    return counter("n", "h", [Value(LabelSet([("k", k)]), v) for k, v in counts.items()])


@given(WORKERS, st.randoms())
def test_counters_come_to_the_same_in_any_order_and_any_grouping(workers, rng):
    def total(groups):
        others = [(str(i), [family_of(c) for c in group]) for i, group in enumerate(groups)]
        return {k: v for f in merge([], others, worker="own") for k, v in values(f).items()}

    expected = {}
    for counts in workers:
        for key, count in counts.items():
            expected[f'k="{key}"'] = expected.get(f'k="{key}"', 0) + count
    shuffled = rng.sample(workers, len(workers))
    cut = rng.randint(0, len(workers))
    assert total([[c] for c in workers]) == expected
    assert total([[c] for c in shuffled]) == expected
    assert total([shuffled[:cut], shuffled[cut:]]) == expected


def folded(*generations):
    """The ledger's families after each generation died on top of what was there."""
    frames: list[Frame] = []
    for families in generations:
        ledger = Ledger()
        for frame in (*frames, *frames_of(families)):
            ledger.add(frame)
        data = encode_head(epoch=0) + b"".join(map(encode_frame, ledger.frames()))
        frames = list(decode(data).frames())
    return frames


FLOATS = st.floats(0, 1e15, allow_subnormal=False)


@given(st.lists(FLOATS, min_size=1, max_size=8), st.randoms())
def test_no_death_and_no_order_moves_a_sum_of_floats_by_a_single_digit(sums, rng):
    """Prometheus would take the smallest step back for a restart from zero."""
    exact = float(sum(map(Fraction, sums)))
    deaths = rng.sample(range(len(sums)), rng.randint(0, len(sums)))
    families = [[histogram([Distribution(A, [0, 0, 1], s)])] for s in sums]
    totals = Totals()
    alive = [i for i in range(len(sums)) if i not in deaths]
    for i in rng.sample(alive, len(alive)):
        for frame in frames_of(families[i]):
            totals.add(frame, worker=str(i))
    for frame in folded(*(families[i] for i in deaths)):
        totals.add(frame, worker="", alive=False)
    ((point,),) = [list(family.points) for family in totals.families()]
    assert point.sum == exact
    assert point.cumulative[2] == len(sums)


def test_sums_beyond_all_floats_do_not_fail():
    def one(value):
        return [counter("n", "h", [Value(A, value)])]

    (total,) = merge(one(math.inf), [("2", one(-math.inf))], worker="1")
    assert math.isnan(values(total)['route="/a"'])
    ledger = Ledger()
    for frame in (*frames_of(one(math.inf)), *frames_of(one(1.5))):
        ledger.add(frame)
    assert [frame.numbers for frame in ledger.frames()] == [[math.inf]]


def test_the_ledger_keeps_no_gauges():
    assert folded([gauge("g", "h", [Value(A, 1)])]) == []


def test_the_ledger_gives_back_a_family_of_many_points():
    points = [Value(LabelSet([("i", str(i))]), i) for i in range(700)]
    out = [p for f in families_of(folded([counter("n", "h", points)])) for p in f.points]
    assert out == points


def test_the_ledger_adds_label_sets_beyond_its_bound_to_other():
    ledger = Ledger(label_sets_max=2)
    points = [Value(LabelSet([("i", str(i))]), 1) for i in range(5)]
    for _ in range(2):
        for frame in frames_of([counter("n", "h", points)]):
            ledger.add(frame)
    (total,) = merge([], retired=families_of(ledger.frames()), worker="1")
    assert values(total) == {'i="0"': 2, 'i="1"': 2, 'i="other"': 6}


def test_the_ledger_keeps_workers_with_other_buckets_apart_the_last_few():
    shapes = [(1.0,), (2.0,), (3.0,), (4.0,), (2.0,)]
    frames = folded(*([histogram([Distribution(A, [1, 1], 1.0)], bounds=b)] for b in shapes))
    assert len(frames) == SHAPES_PER_NAME_MAX
    assert {f.family.bounds: counts_in(f.counts)[0] for f in frames} == {
        (3.0,): 1,
        (4.0,): 1,
        (2.0,): 2,
    }


def test_a_label_text_that_is_none_is_left_out_of_the_answer_and_survives_a_fold():
    (frame,) = decode(encode([counter("n", "h", [Value(A, 1), Value(B, 2)])])).frames()
    damaged = Frame(frame.family, ["}{", *frame.keys[1:]], frame.numbers, b"", {})
    totals = Totals()
    totals.add(damaged, worker="1")
    (total,) = totals.families()
    assert values(total) == {'route="/b"': 2}
    ledger = Ledger(label_sets_max=0)
    ledger.add(damaged)
    assert [f.keys for f in ledger.frames()] == [['worker="other"', 'route="other"']]


def test_forged_counts_that_overflow_spoil_a_figure_and_not_the_answer():
    (frame,) = frames_of([histogram([Distribution(A, [0, 0, 0], 1.0)])])
    forged = Frame(frame.family, frame.keys, [1.0], words([2**64 - 1] * 3), {})
    totals = Totals()
    for each in (forged, forged):
        totals.add(each, worker="1")
    (total,) = totals.families()
    assert len(next(iter(total.points)).cumulative) == 3


def test_ten_thousand_label_sets_of_several_workers_add_up():
    rng = random.Random(1)
    labels = [LabelSet([("i", str(i))]) for i in range(10_000)]
    counts = [[rng.randrange(100) for _ in labels] for _ in range(4)]
    families = [[counter("n", "h", map(Value, labels, c))] for c in counts]
    (total,) = merge(families[0], [(str(i), f) for i, f in enumerate(families[1:])], worker="x")
    assert [p.value for p in total.points] == [sum(c) for c in zip(*counts, strict=True)]
