"""What has expired is found in time, never early, a bounded number at once."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.caching.expiry import TICK_US, Expiry

S = 1_000_000
YEAR_S = 365 * 86_400
NOW_US = 1_700_000_000 * S  # a wall clock's, far from the round numbers at which a wheel turns


def wheel(**deadlines_s):
    expiry = Expiry(now_us=NOW_US)
    for key, deadline_s in deadlines_s.items():
        expiry.schedule(key, NOW_US + round(deadline_s * S))
    return expiry


def due(expiry, after_s, limit=1_000_000):
    return sorted(expiry.due(NOW_US + round(after_s * S), limit))


@pytest.mark.parametrize(
    "lifetime_s",
    [
        pytest.param(0, id="none at all"),
        pytest.param(0.5, id="half a second"),
        pytest.param(60, id="a minute"),
        pytest.param(67, id="just over a turn of the lowest wheel"),
        pytest.param(86_400, id="a day"),
        pytest.param(YEAR_S, id="a year"),
        pytest.param(2**31, id="the largest delta-seconds"),
        pytest.param(10**15, id="longer than the clock has run"),
    ],
)
def test_a_key_is_due_when_its_deadline_is_over_and_not_before(lifetime_s):
    expiry = wheel(a=lifetime_s)

    assert due(expiry, lifetime_s) == []
    assert "a" in expiry
    assert due(expiry, lifetime_s + TICK_US / S) == ["a"]
    assert "a" not in expiry
    assert due(expiry, lifetime_s + YEAR_S) == []


def test_a_deadline_that_was_over_when_it_was_scheduled_is_due_within_a_tick():
    assert due(wheel(a=-YEAR_S), TICK_US / S) == ["a"]


@pytest.mark.parametrize("deadline_us", [-1, -TICK_US, -TICK_US - 1, 0])
def test_so_is_one_before_the_clock_began(deadline_us):
    """What was made, or went stale, before the machine was started."""
    expiry = Expiry(now_us=5)
    expiry.schedule("a", deadline_us)

    assert expiry.due(2 * TICK_US, 10) == ["a"]
    assert len(expiry) == 0


def test_only_the_last_deadline_of_a_key_counts():
    expiry = wheel(earlier=100, later=100)
    expiry.schedule("earlier", NOW_US + 10 * S)
    expiry.schedule("later", NOW_US + 1000 * S)

    assert due(expiry, 12) == ["earlier"]
    assert due(expiry, 102) == []
    assert due(expiry, 1002) == ["later"]


def test_what_is_cancelled_is_never_due():
    expiry = wheel(a=10, b=10)
    expiry.cancel("a")
    expiry.cancel("unknown")

    assert len(expiry) == 1
    assert due(expiry, YEAR_S) == ["b"]


def test_nothing_is_due_once_all_is_cleared():
    expiry = wheel(a=10, b=YEAR_S)
    expiry.clear()

    assert len(expiry) == 0
    assert due(expiry, 2 * YEAR_S) == []


def test_a_clock_that_goes_back_makes_nothing_due():
    expiry = wheel(a=10)
    assert due(expiry, 5) == []
    assert due(expiry, -YEAR_S) == []
    assert due(expiry, 12) == ["a"]


def test_a_call_gives_no_more_keys_than_its_limit_and_the_next_go_on():
    expiry = Expiry(now_us=NOW_US)
    for key in range(1000):
        expiry.schedule(key, NOW_US + key * S)

    calls = [expiry.due(NOW_US + 2 * YEAR_S * S, 30) for _ in range(40)]

    assert max(len(keys) for keys in calls) == 30
    assert sorted(key for keys in calls for key in keys) == list(range(1000))


class CountedKey:
    """A key that counts how often any table was asked about one."""

    hashed = 0

    def __hash__(self):
        CountedKey.hashed += 1
        return id(self)


@pytest.mark.parametrize(
    ("lifetime_s", "after_s"),
    [
        pytest.param(YEAR_S, YEAR_S - 60 * 60, id="moved to a lower wheel at once"),
        pytest.param(YEAR_S, YEAR_S + 60, id="due at once"),
    ],
)
def test_a_call_does_no_more_work_than_its_limit_however_much_there_is(lifetime_s, after_s):
    expiry = Expiry(now_us=NOW_US)
    keys = [CountedKey() for _ in range(5000)]
    for at, key in enumerate(keys):
        expiry.schedule(key, NOW_US + lifetime_s * S + at)
    due_keys = 0
    for _ in range(5000):
        CountedKey.hashed = 0
        due_keys += len(expiry.due(NOW_US + after_s * S, 50))
        assert CountedKey.hashed <= 50 * 4
    assert due_keys == (5000 if after_s > lifetime_s else 0)


def test_a_key_can_be_moved_and_cancelled_while_its_slot_is_dealt_out():
    expiry = Expiry(now_us=NOW_US)
    for key in range(100):
        expiry.schedule(key, NOW_US + YEAR_S * S)
    almost_us = NOW_US + (YEAR_S - 3600) * S
    assert expiry.due(almost_us, 10) == []  # stops amid a slot of a higher wheel

    for key in range(0, 100, 2):
        expiry.cancel(key)
    for key in range(1, 100, 4):
        expiry.schedule(key, almost_us + 7200 * S)

    assert len(expiry.due(NOW_US + (YEAR_S + 2) * S, 10**6)) == 25
    assert len(expiry) == 25
    assert sorted(expiry.due(almost_us + 7202 * S, 10**6)) == list(range(1, 100, 4))


def test_a_deadline_that_is_replaced_over_and_over_takes_no_memory():
    expiry = Expiry(now_us=NOW_US)
    for at in range(20_000):
        expiry.schedule("a", NOW_US + at * 3_600 * S)

    held = [expiry._slot_of, expiry._slots, *expiry._slots.values()]
    assert sum(map(len, expiry._slots.values())) == 1
    assert sum(map(sys.getsizeof, held)) < 100_000
    expiry.due(NOW_US + 10 * YEAR_S * S, 10)
    assert len(expiry._slots) == 0 or sum(map(len, expiry._slots.values())) == 0


keys = st.integers(0, 20)
spans_s = st.one_of(st.integers(-5, 200), st.integers(0, 10**5), st.integers(0, 10**9))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), keys, spans_s),
        st.tuples(st.just("cancel"), keys, st.none()),
        st.tuples(st.just("due"), spans_s, st.integers(0, 8)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps, start_s=st.integers(0, 2**33))
def test_it_does_what_a_table_of_deadlines_would_do(steps, start_s):
    now_us = latest_us = start_s * S
    expiry = Expiry(now_us=now_us)
    deadlines_us = {}
    for step, first, second in steps:
        if step == "schedule":
            deadlines_us[first] = now_us + second * S
            expiry.schedule(first, deadlines_us[first])
        elif step == "cancel":
            deadlines_us.pop(first, None)
            expiry.cancel(first)
        else:
            now_us += first * S  # at times back
            latest_us = max(latest_us, now_us)
            found = expiry.due(now_us, second)
            assert len(found) <= second
            for key in found:
                assert deadlines_us.pop(key) < now_us
        assert len(expiry) == len(deadlines_us)
        assert all(key in expiry for key in deadlines_us)

    for wait_us in (0, TICK_US):
        while found := expiry.due(latest_us + wait_us, 10**6):
            for key in found:
                assert deadlines_us.pop(key) < latest_us + wait_us
    assert all(deadline_us >= latest_us for deadline_us in deadlines_us.values())
