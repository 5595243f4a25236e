"""What a process remembers of how records vary."""

import sys

import pytest

from perf_middleware.fleet.known import SLOT_BITS, VARIED_MAX, Known


@pytest.fixture
def known():
    """Of a fleet in which some record varies."""
    begun = Known()
    begun.begin()
    return begun


def test_before_any_record_varies_none_does():
    known = Known()
    known.learn(b"a", ())
    assert known.names_of(b"a") == known.names_of(b"b") == ()
    assert not known._prints
    known.learn(b"c", (b"x",))
    assert (known.names_of(b"a"), known.names_of(b"c")) == (None, (b"x",))


def test_what_was_learnt_last_is_known(known):
    assert known.names_of(b"a") is None
    for names in ((), (b"x",), (b"x", b"y"), (), (b"z",)):
        known.learn(b"a", names)
        assert known.names_of(b"a") == names
        assert known.names_of(b"b") is None
        assert len(known._names) == bool(names)
    for names in ((), (b"x",)):
        known.learn(b"a", names)
        known.forget(b"a")
        known.forget(b"a")
        assert known.names_of(b"a") is None


def test_what_does_not_vary_takes_no_more_room_however_much_it_is(known):
    known.learn(b"first", ())
    took = sys.getsizeof(known._prints)
    assert took < 5 << SLOT_BITS
    for number in range(3 << SLOT_BITS >> 4):
        known.learn(b"%d" % number, ())
        assert known.names_of(b"%d" % number) == ()
    assert sys.getsizeof(known._prints) == took
    assert not known._names
    wrong = sum(known.names_of(b"never/%d" % number) is not None for number in range(10_000))
    assert wrong <= 1


def test_what_varies_is_known_of_so_many(known):
    for number in range(VARIED_MAX + 1):
        known.learn(b"%d" % number, (b"x",))
        assert len(known._names) <= VARIED_MAX
    assert known.names_of(b"%d" % VARIED_MAX) == (b"x",)


def test_a_few_that_share_their_slots_do_not_drive_each_other_out(known):
    keys = [b"http://h\n/%d" % number for number in range(2_000)]
    for key in keys:
        known.learn(key, ())
    # Of three that share a pair one is forgotten: 0.3 are to be expected, 15 with single slots.
    assert sum(known.names_of(key) is None for key in keys) <= 5
