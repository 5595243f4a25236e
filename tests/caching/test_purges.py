"""An answer that was begun before an invalidation is not stored after it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.purges import REMEMBERED_MAX, PurgeLog


def of(target):
    return lambda own, tags: own == target


def tagged(tag):
    return lambda own, tags: tag in tags


@pytest.mark.parametrize(
    ("before", "after", "concerned"),
    [
        pytest.param([], [], False, id="nothing was invalidated"),
        pytest.param([of(b"/a")], [], False, id="before it was begun"),
        pytest.param([], [of(b"/a")], True, id="after it was begun"),
        pytest.param([], [of(b"/b")], False, id="another one"),
        pytest.param([], [tagged("t")], True, id="one of its tags"),
        pytest.param([], [tagged("u")], False, id="another tag"),
        pytest.param([of(b"/a")], [of(b"/b"), of(b"/a"), of(b"/c")], True, id="among others"),
        pytest.param([of(b"/a")] * 5, [of(b"/b")] * 5, False, id="it only before, others after"),
    ],
)
def test_an_answer_is_invalid_where_its_target_was_after_it_was_begun(before, after, concerned):
    log = PurgeLog()
    for hits in before:
        log.note(hits)
    seen = log.newest
    for hits in after:
        log.note(hits)
    assert log.since(seen, b"/a", ("t", "s")) is concerned


def test_what_is_forgotten_may_have_been_about_anything():
    log = PurgeLog()
    seen = log.newest
    for _ in range(REMEMBERED_MAX):
        log.note(of(b"/b"))
    assert not log.since(seen, b"/a", ())
    log.note(of(b"/b"))
    assert log.since(seen, b"/a", ())
    assert not log.since(seen + 1, b"/a", ())


@given(st.lists(st.sampled_from([b"/a", b"/b", None]), max_size=30))
def test_each_answer_knows_what_came_after_its_own_beginning(happenings):
    """None begins an answer for /a, anything else is invalidated."""
    log = PurgeLog()
    begun = []
    for happening in happenings:
        if happening is None:
            begun.append([log.newest, False])
        else:
            log.note(of(happening))
            for answer in begun:
                answer[1] |= happening == b"/a"
    for seen, concerned in begun:
        assert log.since(seen, b"/a", ()) is concerned
