"""Which coded bodies are remembered: at second sight, by their bytes, within a bound."""

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.repeats import (
    BODY_BYTES_MAX,
    ENTRY_BYTES,
    IN_VAIN_MAX,
    LARGE_BYTES,
    LOOKALIKES_MAX,
    LOOKED_AT,
    PAUSE,
    SEEN_SLOTS,
    RepeatedBodies,
    mark_of,
)

BODY = b"something that is polled\n" * 200
FORM = b"packed"


def noted(repeats, body, *, coding="gzip", level=4, form=FORM, times=1):
    """`body` is answered so often, and encoded where its form is not there."""
    for _ in range(times):
        found, mark = repeats.meet(body, coding, level)
        if mark is not None:
            assert found is None
            repeats.keep(mark, body, coding, level, form)


def form(repeats, body, *, coding="gzip", level=4):
    """What is there for this body; asking leaves no trace but that of a body that came again."""
    held = repeats._held.get(mark_of(body))
    if held is None or held.body != body:
        return None
    return repeats.meet(bytes(bytearray(body)), coding, level)[0]


def lookalikes(body):
    """Other bodies with the same mark: they differ where no sample is taken."""
    for at in range(len(body) // 2, len(body)):
        other = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        if mark_of(other) == mark_of(body):
            yield other


def lookalike(body):
    return next(lookalikes(body))


def others_than(body):
    """Bodies that never come again, and do not take the place of its mark by chance either."""
    for number in count():
        other = b"%d" % number
        if (mark_of(other) - mark_of(body)) % SEEN_SLOTS:
            yield other


def test_a_body_is_remembered_at_second_sight_and_given_from_then_on():
    repeats = RepeatedBodies(100_000)
    assert form(repeats, BODY) is None
    noted(repeats, BODY)
    assert (form(repeats, BODY), repeats.held_bytes, len(repeats)) == (None, 0, 0)
    noted(repeats, BODY)
    assert form(repeats, BODY) == FORM
    assert len(repeats) == 1
    assert repeats.held_bytes > ENTRY_BYTES + len(BODY) + len(FORM)


@pytest.mark.parametrize(
    ("made", "asked", "serves"),
    [
        pytest.param(4, 4, True, id="the same level"),
        pytest.param(4, 1, True, id="a higher one than now is better, and free"),
        pytest.param(1, 4, False, id="what was made in a hurry is made anew"),
    ],
)
def test_a_form_serves_where_its_level_is_high_enough(made, asked, serves):
    repeats = RepeatedBodies(100_000)
    noted(repeats, BODY, level=made, times=2)
    assert (form(repeats, BODY, level=asked) is not None) is serves


def test_a_form_of_a_higher_level_takes_the_place_of_the_lower():
    repeats = RepeatedBodies(100_000)
    noted(repeats, BODY, level=1, times=2)
    before = repeats.held_bytes
    noted(repeats, BODY, level=4, form=b"pack")
    assert form(repeats, BODY) == b"pack"
    assert repeats.held_bytes == before - 2


def test_each_coding_has_its_form_beside_one_body():
    repeats = RepeatedBodies(100_000)
    noted(repeats, BODY, times=2)
    before = repeats.held_bytes
    assert form(repeats, BODY, coding="br") is None
    noted(repeats, BODY, coding="br", form=b"br")
    assert (form(repeats, BODY, coding="br"), form(repeats, BODY)) == (b"br", FORM)
    assert repeats.held_bytes - before < len(BODY)


def test_a_body_with_the_mark_of_another_never_gets_its_form():
    repeats, other = RepeatedBodies(100_000), lookalike(BODY)
    noted(repeats, BODY, times=2)
    assert repeats.meet(other, "gzip", 4)[0] is None
    assert form(repeats, BODY) == FORM
    noted(repeats, other, form=b"other", times=2)
    assert [repeats.meet(body, "gzip", 4)[0] for body in (other, BODY)] == [b"other", FORM]
    assert len(repeats) == 2


def test_of_bodies_that_differ_in_their_time_alone_few_are_kept():
    repeats, kept = RepeatedBodies(100_000), set()
    bodies = [BODY, *lookalikes(BODY)][: 5 * (PAUSE + LOOKALIKES_MAX + 1)]
    for body in bodies:
        found, mark = repeats.meet(body, "gzip", 4)
        assert found is None
        if mark is not None:
            repeats.keep(mark, body, "gzip", 4, FORM)
        kept |= {held.body for held in repeats._held.values()}
    assert 1 <= len(kept) <= len(bodies) / PAUSE + 1


@pytest.mark.parametrize("variants", [2, 3])
def test_variants_that_differ_in_a_few_bytes_are_all_remembered(variants):
    repeats, bodies = RepeatedBodies(100_000), [BODY, *lookalikes(BODY)][:variants]
    for number in range(3 * PAUSE):
        for body in Random(number).sample(bodies, variants):
            noted(repeats, body)
    for body in bodies:
        assert repeats.meet(body, "gzip", 4)[0] == FORM
    assert len(repeats) == variants


def test_what_repeats_keeps_its_place_beside_what_looks_alike():
    repeats = RepeatedBodies(100_000)
    noted(repeats, BODY, times=3)
    for other in [*lookalikes(BODY)][:50]:
        noted(repeats, other)
        assert form(repeats, BODY) == FORM
    assert len(repeats) == 1


def test_what_has_repeated_leaves_its_place_when_only_others_come():
    repeats, others = RepeatedBodies(100_000), [*lookalikes(BODY)]
    noted(repeats, BODY, times=3)
    for number in range(IN_VAIN_MAX):
        assert len(repeats) == 1
        noted(repeats, others[number])
    assert len(repeats) == 0


def test_while_nothing_repeats_few_bodies_are_looked_at():
    repeats, others = RepeatedBodies(100_000), others_than(BODY)

    def pass_by(bodies):
        for _ in range(bodies):
            noted(repeats, next(others))

    pass_by(IN_VAIN_MAX)
    sights = 0
    while form(repeats, BODY) is None:
        pass_by(1)
        noted(repeats, BODY)
        sights += 1
    assert LOOKED_AT / 2 <= sights <= 2 * LOOKED_AT
    noted(repeats, BODY, times=LOOKED_AT)
    noted(repeats, BODY[::-1], times=2)
    assert form(repeats, BODY[::-1]) == FORM, "since one repeats every body is looked at again"


@pytest.mark.parametrize("apart", [2, 3, 4, 8, 16, 17, 32])
def test_what_repeats_at_regular_distances_is_found(apart):
    changing = others_than(BODY)
    for first in range(apart):
        repeats = RepeatedBodies(100_000)
        for _ in range(IN_VAIN_MAX + first):
            noted(repeats, next(changing))
        sights = 0
        while form(repeats, BODY) is None:
            noted(repeats, BODY)
            for _ in range(apart - 1):
                noted(repeats, next(changing))
            sights += 1
            assert sights <= 8 * LOOKED_AT


def test_a_large_body_is_always_looked_at():
    repeats, large = RepeatedBodies(8 << 20), bytes(LARGE_BYTES)
    for number in range(2 * IN_VAIN_MAX):
        noted(repeats, b"%d" % number)
    noted(repeats, large, times=2)
    assert form(repeats, large) == FORM


def test_one_that_repeats_after_all_is_found_within_a_pause():
    repeats = RepeatedBodies(100_000)
    for body in (BODY, BODY, *[lookalike(BODY)] * LOOKALIKES_MAX):
        noted(repeats, body)
    sights = 0
    while form(repeats, BODY) is None:
        noted(repeats, BODY)
        sights += 1
    assert sights == PAUSE + 1


def test_where_there_is_no_room_what_was_asked_for_longest_ago_goes():
    bodies = [bytes([number]) * 1_000 for number in range(10)]
    room = RepeatedBodies(10**9)
    noted(room, bodies[0], times=2)
    repeats = RepeatedBodies(8 * room.held_bytes)  # a body may take an eighth
    for body in bodies[:8]:
        noted(repeats, body, times=2)
    assert form(repeats, bodies[0]) == FORM
    noted(repeats, bodies[8], times=2)
    assert [form(repeats, body) is not None for body in bodies] == [
        True, False, *[True] * 7, False
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bytes_max", "body_bytes_max"), [(80_000, 10_000), (1 << 30, BODY_BYTES_MAX)]
)
def test_a_body_that_is_too_large_is_not_remembered(bytes_max, body_bytes_max):
    repeats = RepeatedBodies(bytes_max)
    assert repeats.body_bytes_max == body_bytes_max
    noted(repeats, bytes(body_bytes_max + 1), times=3)
    assert len(repeats) == 0
    noted(repeats, bytes(body_bytes_max), times=2)
    assert len(repeats) == 1


def test_a_form_that_alone_is_too_large_leaves_nothing_behind():
    repeats = RepeatedBodies(80_000)
    noted(repeats, BODY, times=2)
    noted(repeats, BODY, coding="br", form=bytes(90_000))
    assert (len(repeats), repeats.held_bytes) == (0, 0)


@pytest.mark.parametrize(("share", "left"), [(0.0, 8), (0.5, 4), (1.0, 0)])
def test_a_share_can_be_let_go(share, left):
    repeats = RepeatedBodies(100_000)
    for number in range(8):
        noted(repeats, bytes([number]) * 1_000, times=2)
    before = repeats.held_bytes
    assert repeats.shrink(share) == before - repeats.held_bytes
    assert len(repeats) == left
    assert (repeats.held_bytes == 0) is (left == 0)


def test_event_loops_of_several_threads_may_share_it():
    bodies = [bytes([number]) * 600 for number in range(40)]
    repeats = RepeatedBodies(20 * 1_300)

    def serve(seed):
        for body in Random(seed).choices(bodies, k=1_000):
            found, mark = repeats.meet(body, "gzip", 4)
            assert found in (None, body[:9])
            if mark is not None:
                repeats.keep(mark, body, "gzip", 4, body[:9])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(serve, range(4)))
    finally:
        sys.setswitchinterval(before)
    # What is counted and not held would be room that is lost for good.
    assert repeats.held_bytes == sum(held.held_bytes for held in repeats._held.values())
    assert 15 < len(repeats) <= 20


def test_what_is_counted_is_what_is_taken():
    random = Random(3)
    bodies = [random.randbytes(700) for _ in range(300)]
    repeats = RepeatedBodies(10**7)
    tracemalloc.start()
    for body in bodies:
        noted(repeats, bytes(bytearray(body)), form=random.randbytes(300), times=2)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.7 * repeats.held_bytes < taken <= repeats.held_bytes


def test_bodies_of_most_kinds_have_marks_of_their_own():
    rows = [b'{"id":%d,"name":"item %d"}' % (number, number) for number in range(1_000, 2_000)]
    bodies = [b",".join(rows[at : at + 500]) for at in range(500)]
    assert len({len(body) for body in bodies}) == 1
    assert len(set(map(mark_of, bodies))) == 500


FEW = [BODY, lookalike(BODY), b"x" * 600, b"y" * 600, bytes(3_000), b"z" * 13_000]
CODINGS = ["gzip", "br"]
STEPS = st.one_of(
    st.tuples(
        st.just("note"), st.integers(0, 5), st.sampled_from(CODINGS), st.integers(0, 3),
        st.binary(max_size=3_000),
    ),
    st.tuples(st.just("ask"), st.integers(0, 5), st.sampled_from(CODINGS), st.integers(0, 3)),
    st.tuples(st.just("let go"), st.floats(0, 1)),
)  # fmt: skip


@given(st.integers(0, 60_000), st.lists(STEPS, max_size=40))
def test_it_gives_what_was_put_and_holds_no_more_than_it_may(bytes_max, steps):
    repeats, made, seen = RepeatedBodies(bytes_max), {}, set()
    for what, *given_ in steps:
        if what == "let go":
            repeats.shrink(given_[0])
        else:
            number, coding, level, *forms = given_
            body = FEW[number]
            if what == "note":
                noted(repeats, body, coding=coding, level=level, form=forms[0])
                made[number, coding] = level, forms[0]
                first, seen = mark_of(body) not in seen, seen | {mark_of(body)}
                assert not (first and form(repeats, body, coding=coding, level=0))
            else:
                found = form(repeats, body, coding=coding, level=level)
                assert found is None or (made[number, coding][0] >= level)
                assert found in (None, made.get((number, coding), (0, None))[1])
        assert 0 <= repeats.held_bytes <= bytes_max
        assert repeats.held_bytes == sum(held.held_bytes for held in repeats._held.values())
