"""GCRA: what passes, what is left, how long to wait.  Time is a number."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perf_middleware.limits.rate.gcra import (
    NEVER,
    WINDOW_US_MAX,
    Demand,
    Left,
    Outcome,
    Quota,
    decide,
)

PAIR_PER_MS = Quota(interval_us=1_000, burst=2)
LONG = Quota(interval_us=1_000_000, burst=10)


def judge(demands, dues, now_us, **how):
    return decide(demands, lambda key: dues.get(key, 0), now_us=now_us, **how)


# --- one bucket ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("due_us", "cost", "admitted", "left", "due_after_us"),
    [
        pytest.param(0, 1, True, Left(1, 0, 1_000), 10_000, id="a new key has its whole burst"),
        pytest.param(8_999, 1, True, Left(1, 0, 1_000), 10_000, id="due in the past: as if new"),
        pytest.param(10_000, 1, True, Left(0, 0, 2_000), 11_000, id="the last of the burst"),
        pytest.param(9_001, 1, True, Left(0, 0, 1_001), 10_001, id="parts of one are not told"),
        pytest.param(11_000, 1, False, Left(0, 1_000, 2_000), None, id="then an interval to wait"),
        pytest.param(10_001, 1, False, Left(0, 1, 1_001), None, id="a microsecond too early"),
        pytest.param(0, 2, True, Left(0, 0, 2_000), 11_000, id="two at once"),
        pytest.param(10_000, 2, False, Left(1, 1_000, 1_000), None, id="one is left, two asked"),
        pytest.param(0, 3, False, Left(2, NEVER, 0), None, id="more than the burst: never"),
        pytest.param(0, 10**30, False, Left(2, NEVER, 0), None, id="far more than the burst"),
        pytest.param(0, 0, True, Left(2, 0, 0), None, id="a look charges nothing"),
        pytest.param(11_000, 0, True, Left(0, 0, 2_000), None, id="a look at an empty one passes"),
        pytest.param(
            10**15, 1, False, Left(0, 1_000, 2_000), 11_000,
            id="too far ahead: put at the window's end, though refused",
        ),
        pytest.param(11_001, 0, True, Left(0, 0, 2_000), 11_000, id="also by a look"),
    ],
)  # fmt: skip
def test_a_request_passes_only_within_its_quota(due_us, cost, admitted, left, due_after_us):
    demand = Demand(b"a", PAIR_PER_MS, cost)
    outcome, changed = judge([demand], {b"a": due_us}, 9_000)
    assert outcome == Outcome(admitted, (left,))
    assert changed == ({} if due_after_us is None else {b"a": due_after_us})


def test_a_quota_that_was_lowered_locks_nobody_out_for_longer_than_its_window():
    dues = {b"a": 9_000 + LONG.window_us}
    for now_us in (9_000, 10_000):
        outcome, changed = judge([Demand(b"a", PAIR_PER_MS)], dues, now_us)
        dues |= changed
        assert outcome.admitted is (now_us == 10_000)


# --- several ------------------------------------------------------------------------------------


def test_all_are_charged_or_none():
    demands = [Demand(b"a", PAIR_PER_MS), Demand(b"b", LONG, 4)]
    outcome, changed = judge(demands, {b"b": 9_000 + 7_000_000}, 9_000)
    assert outcome == Outcome(False, (Left(2, 0, 0), Left(3, 1_000_000, 7_000_000)))
    assert changed == {}

    outcome, changed = judge(demands, {}, 9_000)
    assert outcome == Outcome(True, (Left(1, 0, 1_000), Left(6, 0, 4_000_000)))
    assert changed == {b"a": 10_000, b"b": 4_009_000}


def test_demands_on_the_same_key_are_charged_one_after_the_other():
    demands = [Demand(b"a", LONG, 4), Demand(b"a", LONG, 5)]
    outcome, changed = judge(demands, {}, 9_000)
    assert outcome == Outcome(True, (Left(1, 0, 9_000_000), Left(1, 0, 9_000_000)))
    assert changed == {b"a": 9_009_000}

    outcome, changed = judge(demands, {b"a": 9_000 + 2_000_000}, 9_000)
    assert outcome == Outcome(False, (Left(8, 0, 2_000_000), Left(8, 1_000_000, 2_000_000)))
    assert changed == {}


def test_the_same_key_twice_for_more_than_its_burst_together_never_passes():
    demands = [Demand(b"a", LONG, 6), Demand(b"a", LONG, 5)]
    outcome, changed = judge(demands, {}, 9_000)
    assert outcome == Outcome(False, (Left(10, 0, 0), Left(10, NEVER, 0)))
    assert changed == {}


def test_the_same_key_under_two_quotas_is_judged_by_both():
    demands = [Demand(b"a", LONG), Demand(b"a", PAIR_PER_MS)]
    outcome, _ = judge(demands, {}, 9_000)
    assert [left.wait_us for left in outcome.left] == [0, NEVER]


def test_a_look_ahead_tells_what_would_be_and_changes_nothing():
    outcome, changed = judge([Demand(b"a", LONG, 4)], {}, 9_000, charge=False)
    assert outcome == Outcome(True, (Left(10, 0, 0),))
    assert changed == {}


def test_no_demand_admits():
    assert judge([], {}, 9_000) == (Outcome(True, ()), {})


def test_a_cost_below_0_is_a_mistake():
    with pytest.raises(ValueError, match="cost"):
        judge([Demand(b"a", LONG, -1)], {}, 9_000)


# --- quotas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "quota", "window_s"),
    [
        pytest.param((100, 60), Quota(600_000, 100), 60, id="exact"),
        pytest.param((7, 60), Quota(8_571_429, 7), 61, id="rounded up: never more pass"),
        pytest.param((10, 0.5), Quota(50_000, 10), 1, id="parts of a second"),
        pytest.param((100, 60, 5), Quota(600_000, 5), 3, id="a burst of its own"),
        pytest.param((5_000_000, 1), Quota(1, 5_000_000), 5, id="no faster than one each us"),
    ],
)
def test_a_quota_is_made_of_a_count_and_a_time(arguments, quota, window_s):
    assert Quota.per(*arguments) == quota
    assert quota.window_us == quota.interval_us * quota.burst
    assert quota.window_s == window_s


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quota(0),
        lambda: Quota(1, 0),
        lambda: Quota(WINDOW_US_MAX, 2),
        lambda: Quota.per(0, 1),
        lambda: Quota.per(1, 0),
        lambda: Quota.per(1, float("nan")),
        lambda: Quota.per(1, float("inf")),
        lambda: Quota.per(1, 1, 0),
    ],
)
def test_what_is_no_quota_is_refused_when_it_is_made(make):
    with pytest.raises(ValueError, match=r"\d|quota"):
        make()


def test_quotas_are_values():
    assert Quota(5, 2) == Quota(5, 2) != Quota(5, 3)
    assert hash(Quota(5, 2)) == hash(Quota(5, 2))


# --- properties ---------------------------------------------------------------------------------

quotas = st.builds(Quota, st.integers(1, 50), st.integers(1, 6))


@settings(deadline=None)
@given(quotas, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4)), max_size=80))
@example(Quota(7, 3), [(0, 1)] * 10 + [(6, 1)] * 10)
def test_no_stretch_of_time_sees_more_than_the_burst_and_one_each_interval(quota, arrivals):
    now_us, dues, passed = 1_000, {}, []
    for gap_us, cost in arrivals:
        now_us += gap_us
        outcome, changed = judge([Demand(b"a", quota, cost)], dues, now_us)
        dues |= changed
        if outcome.admitted:
            passed.append((now_us, cost))
    for first, (begin_us, _) in enumerate(passed):
        total = 0
        for end_us, cost in passed[first:]:
            total += cost
            assert total <= quota.burst + (end_us - begin_us) // quota.interval_us


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b"]), quotas, st.integers(0, 7)),
        min_size=1,
        max_size=4,
    ),
    st.dictionaries(st.sampled_from([b"a", b"b"]), st.integers(0, 1_500)),
)
def test_what_is_told_of_a_decision_is_true(drawn, dues):
    now_us = 1_000
    demands = [Demand(*each) for each in drawn]
    outcome, changed = judge(demands, dues, now_us)
    dues = dues | changed

    def passes(demands, at_us):
        return judge(demands, dues, at_us)[0].admitted

    for at, (demand, left) in enumerate(zip(demands, outcome.left, strict=True)):
        key, quota, _, _ = demand
        assert (left.wait_us != 0) <= (not outcome.admitted)
        if left.wait_us:
            on_it = [other for other in demands if other.key == key]
            before = [other for other in demands[:at] if other.key == key]
            asked_us = sum(d.cost * d.quota.interval_us for d in [*before, demand])
            assert (left.wait_us == NEVER) == (asked_us > quota.window_us)
            # The wait of this one, whatever the others wait for.
            for later_us in (left.wait_us - 1, left.wait_us):
                then = judge(on_it, dues, now_us + later_us)[0].left[len(before)]
                if left.wait_us == NEVER:
                    assert then.wait_us == NEVER
                else:
                    assert then.wait_us == left.wait_us - later_us
        one_quota = all(d.quota == quota for d in demands if d.key == key)
        if one_quota:
            assert 0 <= left.remaining <= quota.burst
            assert passes([Demand(key, quota, left.remaining)], now_us)
            assert not passes([Demand(key, quota, left.remaining + 1)], now_us)
            whole = [Demand(key, quota)]
            full = judge(whole, dues, now_us + left.full_us, charge=False)[0].left[0]
            assert (full.remaining, full.full_us) == (quota.burst, 0)
            if left.full_us:
                before = judge(whole, dues, now_us + left.full_us - 1, charge=False)[0].left[0]
                assert before.full_us == 1
    if not outcome.admitted:
        waits = [left.wait_us for left in outcome.left]
        assert any(waits)
        if NEVER not in waits:
            assert passes(demands, now_us + max(waits))
            assert not passes(demands, now_us + max(waits) - 1)
