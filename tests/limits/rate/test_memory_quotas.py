"""Buckets in memory: judged as gcra.decide does, and never more than there may be."""

from sys import getsizeof

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.limits.rate.gcra import NEVER, Demand, Left, Quota, decide
from perf_middleware.limits.rate.stores.memory import MemoryQuotas

MINUTE = Quota.per(100, 60)
S = 1_000_000


class Clock:
    def __init__(self, us=5 * S):
        self.us = us

    def __call__(self):
        return self.us


@pytest.fixture
def clock():
    return Clock()


def width_us(quota):
    """Of a slot: a 32nd of the window at most."""
    return 1 << max(0, quota.window_us.bit_length() - 6)


def due_in(dues):
    return lambda key: dues.get(key, 0)


# --- against a model ----------------------------------------------------------------------------

QUOTAS = (Quota(1, 1), Quota(7, 5), Quota(100, 40), MINUTE, Quota(86_400 * S), Quota(50, 1_000))
keys = st.integers(0, 19).map(b"key:%d".__mod__)
demands = st.builds(Demand, keys, st.sampled_from(QUOTAS), st.sampled_from((1, 1, 1, 0, 3, 200)))
gaps = st.one_of(st.just(0), st.integers(1, 200), st.integers(1, 100 * S), st.just(-1_000))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(gaps, st.lists(demands, min_size=1, max_size=3), st.booleans())),
    st.sampled_from((4, 8, 1_000)),
)
def test_it_judges_as_the_model_and_lets_go_of_what_is_idle_first(schedule, entries_max):
    clock = Clock()
    quotas = MemoryQuotas(entries_max=entries_max, clock=clock)
    dues, width = {}, {}

    def kept():
        return {key: slot[key] for shard in quotas._shards for key, slot in shard.items()}

    for gap_us, drawn, by_one in schedule:
        clock.us += gap_us
        asked = drawn[:1] if by_one else drawn
        before = kept()
        busy_before, idle_before = quotas.busy_evicted, quotas.idle_dropped
        if by_one:
            key, quota, cost, _ = asked[0]
            told = (quotas.take_one(key, quota, cost),)
        else:
            outcome = quotas.take(asked)
            told = outcome.left
            assert outcome.admitted is not any(left.wait_us for left in told)

        # Whatever else was forgotten, the demands were judged on the same due times.
        model, changed = decide(asked, due_in(dues), now_us=clock.us)
        assert told == model.left
        dues |= changed
        for key, quota, _, _ in asked:
            if key in changed:  # it stays in its slot for as long as that goes
                width[key] = max(width.get(key, 0), width_us(quota))

        now = kept()
        assert len(now) == len(quotas) <= entries_max
        assert {key: dues[key] for key in now} == now
        gone = (before.keys() | changed.keys()) - now.keys()
        busy = {key for key in gone if dues[key] > clock.us}
        # Of several, one may make room for another and come back with its own charge.
        evicted = quotas.busy_evicted - busy_before
        assert len(busy) <= evicted <= len(busy) + len(asked) - 1
        assert quotas.idle_dropped - idle_before <= 9 * len(asked), "a few at a time"
        for key in busy:
            assert len(now) + len(gone) > entries_max
            for other in before.keys() & now.keys() - changed.keys():
                assert dues[key] < dues[other] + width[other], "the one nearest to idle goes"
        for key in gone:
            del dues[key], width[key]
    ends = [end for end, _, _ in quotas._ends]
    assert set(quotas._slots) <= set(ends)
    assert sum(len(slot) for _, _, slot in quotas._ends) == len(quotas)


def test_a_busy_bucket_stays_while_any_idle_one_is_there(clock):
    quotas = MemoryQuotas(entries_max=100, clock=clock)
    while quotas.take_one(b"busy", MINUTE).wait_us == 0:
        pass
    for number in range(99):
        quotas.take_one(b"light:%d" % number, MINUTE)
    clock.us += MINUTE.interval_us + width_us(MINUTE)
    for number in range(99):
        quotas.take_one(b"next:%d" % number, MINUTE)
    assert quotas.busy_evicted == 0
    assert quotas.take_one(b"busy", MINUTE, 10).wait_us > 0


def test_a_flood_of_keys_gives_nobody_a_fresh_burst(clock):
    """None of them is idle, all of them are nearer to it than who has used up a quota."""
    quotas = MemoryQuotas(entries_max=1_000, clock=clock)
    assert quotas.take_one(b"over", MINUTE, 100) == Left(0, 0, MINUTE.window_us)
    for number in range(20_000):
        clock.us += 10
        assert quotas.take_one(b"flood:%d" % number, MINUTE, 3).wait_us == 0
    assert quotas.busy_evicted > 18_000
    assert quotas.take_one(b"over", MINUTE).wait_us > 0


def test_a_million_keys_take_no_more_than_the_bound_and_push_out_no_busy_one(clock):
    entries_max = 10_000
    hot = [b"hot:%d" % number for number in range(100)]
    quotas = MemoryQuotas(entries_max=entries_max, clock=clock)
    for key in hot:
        quotas.take_one(key, MINUTE, 100)
    # One each 100 us, idle after 0.6 s: 6_000 are busy at any time.
    quota = Quota(interval_us=600_000, burst=1)
    for number in range(1_000_000):
        clock.us += 100
        quotas.take_one(b"client:%d" % number, quota)
        if number % 5_000 == 0:
            for key in hot:  # one each half a second: they stay near their limit
                quotas.take_one(key, MINUTE)
        if number % 100_000 == 99_999:
            assert bytes_of(quotas) < 200 * entries_max
    assert quotas.busy_evicted == 0
    assert len(quotas) <= entries_max
    for key in hot:
        assert quotas.take_one(key, MINUTE, 50).wait_us > 0


def bytes_of(quotas):
    """All that is in it, the bytes of its keys and numbers too."""
    dicts = [*quotas._shards, *(slot for _, _, slot in quotas._ends), quotas._slots]
    entries = [entry for _, _, slot in quotas._ends for entry in slot.items()]
    each = (getsizeof(key) + getsizeof(due_us) for key, due_us in entries)
    return sum(map(getsizeof, dicts)) + sum(each)


def test_one_key_used_for_long_leaves_no_slots_behind(clock):
    quotas = MemoryQuotas(clock=clock)
    for _ in range(10_000):
        clock.us += 10 * S
        quotas.take_one(b"a", MINUTE)
    assert len(quotas) == 1
    assert len(quotas._ends) <= 8
    assert len(quotas._slots) <= 8


def test_slots_do_not_pile_up_behind_many_idle_entries(clock):
    quotas = MemoryQuotas(clock=clock)
    for number in range(10_000):
        quotas.take_one(b"once:%d" % number, MINUTE)
    for _ in range(10_000):
        clock.us += 10 * S
        quotas.take_one(b"a", MINUTE)
    assert len(quotas) == 1
    assert len(quotas._ends) <= 8


def test_a_request_for_more_keys_than_there_is_room_for_is_judged_all_the_same(clock):
    quotas = MemoryQuotas(entries_max=1, clock=clock)
    quotas.take_one(b"a", MINUTE)
    for _ in range(3):
        outcome = quotas.take([Demand(b"new", MINUTE), Demand(b"a", MINUTE)])
        assert outcome.admitted
        assert len(quotas) == 1
        assert sum(len(slot) for _, _, slot in quotas._ends) == 1
    assert quotas.take_one(b"a", MINUTE).remaining == 95


def test_no_dict_grows_so_far_that_its_growing_is_felt(clock):
    quotas = MemoryQuotas(clock=clock)
    for number in range(50_000):
        quotas.take_one(b"%d" % number, MINUTE)
    assert max(len(slot) for _, _, slot in quotas._ends) <= 4_096
    assert max(map(len, quotas._shards)) < 2 * 50_000 // 64
    clock.us += 2 * MINUTE.window_us
    for number in range(20_000):
        quotas.take_one(b"next:%d" % number, MINUTE)
    assert len(quotas) <= 20_000 + 5
    assert quotas.busy_evicted == 0


# --- the rest -----------------------------------------------------------------------------------


def test_a_look_charges_nothing_and_keeps_nothing(clock):
    quotas = MemoryQuotas(clock=clock)
    assert quotas.take_one(b"a", MINUTE, 0) == Left(100, 0, 0)
    assert quotas.take([Demand(b"a", MINUTE)], charge=False).left == (Left(100, 0, 0),)
    assert quotas.take_one(b"a", MINUTE, 101) == Left(100, NEVER, 0)
    assert len(quotas) == 0


def test_what_was_forgotten_has_its_whole_burst_again(clock):
    quotas = MemoryQuotas(clock=clock)
    quotas.take_one(b"a", MINUTE, 100)
    assert quotas.forget(b"a")
    assert not quotas.forget(b"a")
    assert len(quotas) == 0
    assert quotas.take_one(b"a", MINUTE, 100).wait_us == 0


def test_what_another_store_knows_counts_where_it_is_more(clock):
    quotas = MemoryQuotas(clock=clock)
    quotas.note(b"a", MINUTE, MINUTE.window_us)
    assert quotas.take_one(b"a", MINUTE) == Left(0, 600_000, MINUTE.window_us)
    quotas.note(b"a", MINUTE, 5)
    assert quotas.take_one(b"a", MINUTE).wait_us == 600_000


def test_a_clock_that_goes_back_locks_nobody_out_for_longer_than_the_window(clock):
    quotas = MemoryQuotas(clock=clock)
    quotas.take_one(b"a", MINUTE, 100)
    clock.us -= 3_600 * S
    assert quotas.take_one(b"a", MINUTE) == Left(0, 600_000, MINUTE.window_us)
    clock.us += 600_000
    assert quotas.take_one(b"a", MINUTE).wait_us == 0


def test_a_key_of_any_length_takes_no_more_room_than_a_short_one(clock):
    quotas = MemoryQuotas(clock=clock)
    long = b"x" * 100_000
    quotas.take([Demand(long, MINUTE, 40), Demand(b"b", MINUTE)])
    quotas.note(long + b"y", MINUTE, MINUTE.window_us)
    assert quotas.take_one(long, MINUTE, 40).remaining == 20
    assert quotas.take_one(long + b"y", MINUTE).wait_us > 0
    assert all(len(key) <= 128 for shard in quotas._shards for key in shard)
    assert quotas.forget(long)


def test_its_figures_tell_what_made_room(clock):
    quotas = MemoryQuotas(entries_max=1, clock=clock)
    quotas.take_one(b"a", MINUTE)
    quotas.take_one(b"b", MINUTE)
    clock.us += 2 * MINUTE.window_us
    quotas.take_one(b"c", MINUTE)
    assert quotas.status() == {
        "buckets": 1, "buckets_max": 1, "idle_dropped": 1, "busy_evicted": 1
    }  # fmt: skip
    figures = {
        (family.name, *point.labels.pairs): point.value
        for family in quotas.families()
        for point in family.points
    }
    assert figures == {
        ("perf_ratelimit_buckets",): 1,
        ("perf_ratelimit_buckets_forgotten", ("was", "idle")): 1,
        ("perf_ratelimit_buckets_forgotten", ("was", "busy")): 1,
    }
    quotas.reset_counts()
    assert (quotas.idle_dropped, quotas.busy_evicted) == (0, 0)


@pytest.mark.parametrize(
    "take",
    [
        lambda quotas: quotas.take([Demand(b"a", MINUTE, -1), Demand(b"b", MINUTE)]),
        lambda quotas: quotas.take([Demand(b"a", MINUTE, -1)]),
        lambda quotas: quotas.take_one(b"a", MINUTE, -1),
    ],
)
def test_a_cost_below_0_is_a_mistake_in_memory_too(clock, take):
    with pytest.raises(ValueError, match="cost"):
        take(MemoryQuotas(clock=clock))


def test_it_needs_room_for_one():
    with pytest.raises(ValueError, match="entries_max"):
        MemoryQuotas(entries_max=0)
