"""Which changes of a level a log hears of."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.changes_told import LINE_EVERY_US, LINES, ChangesTold

LOOKS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60_000_000)), max_size=200)


def told_of(looks, told):
    now_us, lines = 0, []
    for level, passed_us in looks:
        now_us += passed_us
        was, skipped = told.told, told.note(level, now_us=now_us)
        if skipped is not None:
            lines.append((was, level, skipped))
    return lines, now_us


def test_what_changes_now_and_then_is_told_each_time():
    lines, _ = told_of([(1, 0), (2, 20_000_000), (2, 1), (1, 20_000_000)], ChangesTold(0))
    assert lines == [(0, 1, 0), (1, 2, 0), (2, 1, 0)]


@given(LOOKS)
def test_lines_are_few_and_each_change_is_told_or_counted(looks):
    told = ChangesTold(0)
    lines, now_us = told_of(looks, told)
    higher = sum(level > was for was, level, _ in lines)
    assert len(lines) <= LINES + now_us // LINE_EVERY_US + min(higher, 4 * (now_us // 6e8 + 1))
    levels = [0, *[level for level, _ in looks]]
    changes = sum(a != b for a, b in itertools.pairwise(levels))
    assert sum(1 + skipped for _, _, skipped in lines) <= changes


@given(LOOKS, st.integers(0, 4))
def test_the_last_line_is_true_once_it_rests(looks, rest):
    told = ChangesTold(0)
    told_of([*looks, (rest, 0), (rest, LINE_EVERY_US)], told)
    assert told.told == rest


@given(LOOKS)
def test_the_highest_level_is_always_told_at_once(looks):
    told = ChangesTold(0)
    told_of(looks, told)
    told_of([(5, 0)], told)
    assert told.told == 5
