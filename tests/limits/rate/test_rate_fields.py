"""RateLimit-Policy, RateLimit and Retry-After."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.caching.syntax.structured import parse_string_list
from perf_middleware.limits.rate.fields import FieldLines, quoted, retry_after_s
from perf_middleware.limits.rate.gcra import NEVER, Left
from perf_middleware.limits.rate.limit_texts import Limit
from perf_middleware.limits.rate.stores.memory import MemoryQuotas
from tests.limits.rate.rate_stage import Clock

HUNDRED, DAILY = Limit(100, 60), Limit(10_000, 86_400)


def lines_of(*named):
    return FieldLines([(name, limit, limit.quota()) for name, limit in named])


def test_the_policy_names_each_quota_with_its_limit():
    lines = lines_of(("default", HUNDRED), ("daily", DAILY))
    assert lines.policy == b'"default";q=100;w=60, "daily";q=10000;w=86400'


@pytest.mark.parametrize(
    ("left", "state"),
    [
        pytest.param(Left(50, 0, 30_000_000), b'"default";r=50;t=30', id="until it is full"),
        pytest.param(Left(50, 0, 29_400_001), b'"default";r=50;t=30', id="rounded up"),
        pytest.param(Left(0, 0, 60_000_000), b'"default";r=0;t=1', id="empty: until the next"),
        pytest.param(Left(100, 0, 0), b'"default";r=100;t=0', id="full"),
    ],
)
def test_the_state_of_an_admitted_request(left, state):
    assert lines_of(("default", HUNDRED)).state([left]) == state


def test_several_quotas_stand_in_one_line():
    lines = lines_of(("a%s", HUNDRED), ("b", DAILY))
    assert lines.state([Left(1, 0, 59_400_000), Left(2, 0, 1)]) == b'"a%s";r=1;t=60, "b";r=2;t=1'
    assert parse_string_list([lines.policy]) == ["a%s", "b"]


def test_a_refusal_tells_of_the_quotas_that_refuse():
    lines = lines_of(("a", HUNDRED), ("b", DAILY), ("c", HUNDRED))
    left = [Left(7, 0, 5_000_000), Left(0, 1_500_000, 9), Left(3, NEVER, 9)]
    assert lines.refused_state(left) == b'"b";r=0;t=2, "c";r=3'


@pytest.mark.parametrize(
    ("waits", "seconds"),
    [
        ([1], 1), ([1_000_000], 1), ([1_000_001], 2), ([0, 5_000_000, 2_000_000], 5),
        ([NEVER], None), ([2_000_000, NEVER], None),
    ],
)  # fmt: skip
def test_retry_after_is_the_longest_wait_rounded_up(waits, seconds):
    assert retry_after_s([Left(0, wait, 0) for wait in waits]) == seconds


def test_legacy_fields_tell_of_what_is_nearest_to_its_end():
    lines = lines_of(("a", HUNDRED), ("b", DAILY))
    left = [Left(5, 0, 57_000_000), Left(2, 0, 86_000_000_000)]
    assert dict(lines.legacy(left)) == {
        b"x-ratelimit-limit": b"10000",
        b"x-ratelimit-remaining": b"2",
        b"x-ratelimit-reset": b"86000",
    }


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=50))
def test_any_printable_name_is_one_string_of_a_structured_field(name):
    assert parse_string_list([quoted(name) + b";q=1"]) == [name]


@settings(deadline=None)
@given(
    st.integers(1, 50),
    st.integers(1, 100),
    st.none() | st.integers(1, 60),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 60)), min_size=1, max_size=40),
)
def test_who_waits_exactly_as_long_as_told_passes(count, seconds, burst, calls):
    quota, clock = Limit(count, seconds, burst).quota(), Clock()
    memory = MemoryQuotas(clock=clock)
    for pause_s, cost in calls:
        clock.pass_s(pause_s)
        left = memory.take_one(b"key", quota, cost)
        wait_s = retry_after_s([left])
        if left.wait_us == NEVER:
            assert cost > quota.burst
            assert wait_s is None
        elif left.wait_us:
            assert wait_s == math.ceil(left.wait_us / 1_000_000)
            clock.pass_s(wait_s)
            assert memory.take_one(b"key", quota, cost).wait_us == 0
