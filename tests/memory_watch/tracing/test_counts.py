"""Object counts and containers: what became more, and who holds it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.tracing.counts import (
    GrownContainer,
    TypeGrowth,
    counted,
    grown_containers,
    growth,
    longest,
)


def test_the_most_frequent_types_come_first_and_all_are_counted():
    counts = counted({"dict": 5, "list": 9, "shop.Order": 7}, types_max=2)
    assert counts.total == 21
    assert [(row.name, row.count) for row in counts.top(5)] == [("list", 9), ("shop.Order", 7)]


def test_growth_tells_what_became_more_and_then_what_became_less():
    before = counted({"a": 5, "b": 5, "c": 5, "gone": 2})
    after = counted({"a": 9, "b": 5, "c": 1, "new": 1})
    rows = growth(before, after)
    assert [(row.name, row.grown) for row in rows] == [
        ("a", 4),
        ("new", 1),
        ("gone", -2),
        ("c", -4),
    ]
    assert growth(before, after, top=1) == (TypeGrowth("a", 5, 9), TypeGrowth("c", 5, 1))


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9)),
       st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9)))  # fmt: skip
def test_growth_one_way_is_shrinking_the_other(one, two):
    there = growth(counted(one), counted(two), top=10)
    back = growth(counted(two), counted(one), top=10)
    assert {(row.name, row.grown) for row in there} == {(row.name, -row.grown) for row in back}


@pytest.mark.parametrize(
    ("before", "after", "grown"),
    [
        pytest.param({1: ("list", 10)}, {1: ("list", 12)}, [(1, "list", 10, 12)], id="longer"),
        pytest.param({1: ("list", 10)}, {1: ("list", 10)}, [], id="as it was"),
        pytest.param({1: ("list", 10)}, {1: ("list", 8)}, [], id="shorter"),
        pytest.param({}, {1: ("list", 8)}, [], id="new: it may be a request's own"),
        pytest.param({1: ("list", 8)}, {}, [], id="gone"),
        pytest.param({1: ("list", 8)}, {1: ("set", 12)}, [], id="another object in its place"),
    ],
)
def test_containers_are_compared_by_identity(before, after, grown):
    assert list(grown_containers(before, after, top=5)) == grown


def test_the_longest_containers_are_kept_and_those_that_gained_most_are_told():
    seen = [(1, "list", 5), (2, "dict", 50), (2, "dict", 50), (3, "set", 9)]
    look = longest(seen, containers_max=2)
    assert look == {2: ("dict", 50), 3: ("set", 9)}
    later = {2: ("dict", 51), 3: ("set", 99)}
    assert grown_containers(look, later, top=1) == ((3, "set", 9, 99),)


def test_a_container_without_a_name_says_so():
    grown = GrownContainer(name="", kind="deque", before=1_000, after=2_500)
    assert str(grown) == "one that nobody names (deque): +1,500 items, 2,500 now"
