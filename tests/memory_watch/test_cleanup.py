"""Who is asked in a cleanup, in which order, and how it is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.cleanup import (
    CLEANERS_MAX,
    NAME_CHARS_MAX,
    Cleaner,
    CleanupReport,
    Freed,
    freed_bytes_of,
    same_bound,
    with_cleaner,
)
from perf_middleware.memory_watch.reading import Bound, MemorySample

MIB = 1 << 20


def nothing(pressure):
    return None


def cleaner(name, order=100):
    return Cleaner(name=name, callback=nothing, order=order)


@given(st.lists(st.integers(0, 3), max_size=20))
def test_callbacks_come_in_their_order_and_those_of_one_as_they_were_added(orders):
    cleaners = ()
    for number, order in enumerate(orders):
        cleaners = with_cleaner(cleaners, cleaner(f"{number:02}", order))
    ordered = [(one.order, one.name) for one in cleaners]
    assert ordered == sorted(ordered)
    assert len(cleaners) == len(orders)


def test_a_name_belongs_to_one_callback():
    with pytest.raises(ValueError, match="named 'a' already"):
        with_cleaner((cleaner("a"),), cleaner("a"))


def test_there_are_only_so_many():
    cleaners = tuple(cleaner(str(number)) for number in range(CLEANERS_MAX))
    with pytest.raises(ValueError, match="more than 64"):
        with_cleaner(cleaners, cleaner("one more"))


@pytest.mark.parametrize("name", ["", "  ", "x" * (NAME_CHARS_MAX + 1)])
def test_a_name_is_one(name):
    with pytest.raises(ValueError, match="has a name"):
        cleaner(name)


@pytest.mark.parametrize(
    ("answer", "freed_bytes"),
    [
        pytest.param(5, 5, id="bytes"),
        pytest.param(0, 0, id="nothing was there"),
        pytest.param(None, None, id="it does not know"),
        pytest.param(True, None, id="it worked, it says"),
        pytest.param(-1, None, id="nobody frees less than nothing"),
        pytest.param(1.5, None, id="no whole number"),
        pytest.param("1", None, id="a text"),
    ],
)
def test_what_a_callback_returns_counts_where_it_is_a_number_of_bytes(answer, freed_bytes):
    assert freed_bytes_of(answer) == freed_bytes


@pytest.mark.parametrize(
    ("report", "said"),
    [
        pytest.param(
            CleanupReport(
                step=2, before_bytes=900 * MIB, after_bytes=600 * MIB, took_us=123_456,
                bound="cgroup", limit_bytes=1024 * MIB, collected=7, trimmed_bytes=3 * MIB,
                freed=(Freed("a", "done", 5, 2 * MIB), Freed("b", "done"),
                       Freed("c", "failed", 1, reason="KeyError"), Freed("d", "overran")),
            ),
            "memory cleanup at step hard: 900.0 MiB before, 600.0 MiB after of 1024.0 MiB "
            "(cgroup), 0.123 s: a 2.0 MiB, b done, c failed (KeyError), d overran, "
            "7 objects collected, trimmed 3.0 MiB",
            id="with everything",
        ),
        pytest.param(
            CleanupReport(step=0, before_bytes=MIB, after_bytes=MIB, took_us=0),
            "memory cleanup at step normal: 1.0 MiB before, 1.0 MiB after, 0.000 s",
            id="with nothing",
        ),
    ],
)  # fmt: skip
def test_a_cleanup_is_one_sentence(report, said):
    assert report.sentence() == said


@pytest.mark.parametrize(
    ("before", "after", "limit", "share"),
    [
        pytest.param(80, 60, 100, 0.2, id="of the limit"),
        pytest.param(60, 80, 100, 0.0, id="nothing where it grew meanwhile"),
        pytest.param(80, 60, None, 0.0, id="nothing where nothing limits it"),
    ],
)
def test_what_a_cleanup_brought(before, after, limit, share):
    report = CleanupReport(
        step=1, before_bytes=before, after_bytes=after, took_us=1, limit_bytes=limit
    )
    assert report.brought_share == pytest.approx(share)


def test_a_bound_is_found_again_by_its_name_and_place():
    inner, outer = (
        Bound(name="cgroup", used_bytes=1, limit_bytes=9, where=where) for where in ("/a/b", "/a")
    )
    sample = MemorySample(at_us=0, rss_bytes=0, bounds=(inner, outer))
    assert (
        same_bound(sample, Bound(name="cgroup", used_bytes=5, limit_bytes=9, where="/a")) is outer
    )
    assert same_bound(sample, Bound(name="system", used_bytes=5, limit_bytes=9)) is None
    assert same_bound(sample, None) is None
