"""Announced writes: what is written in Redis, and every order of events around one write."""

import secrets
from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.fleet.announcing import (
    AGAIN,
    FIRST,
    GOOD_FOR_US,
    KEPT_MS,
    NAME_BYTES,
    TAGS_BYTES_MAX,
    kept_until_ms,
    tags_in,
    token_of,
)
from perf_middleware.fleet.hearing import LEASE_S_MAX, MARGIN_OF_LEASE
from perf_middleware.fleet.stores.barriers import BACK_US

ALL = ("db:*", "db:any")
NAME = bytes(range(NAME_BYTES))


@given(
    st.frozensets(st.text(max_size=20), min_size=1, max_size=20), st.sampled_from([FIRST, AGAIN])
)
def test_what_is_announced_is_read_as_it_was_written(tags, stage):
    assert tags_in(stage + token_of(NAME, tags, all_tags=ALL), all_tags=ALL) == tags


@given(st.binary(max_size=60))
def test_what_cannot_be_read_means_all_or_names_something(member):
    assert tags_in(member, all_tags=ALL)


def test_what_cannot_be_read_means_all():
    for packed in (b"", b"\xff", b"\x90", b"\x91\x01", b"\x80"):
        assert tags_in(FIRST + NAME + packed, all_tags=ALL) == set(ALL)


def test_very_many_tags_are_announced_as_all():
    tags = [f"db:t:{number:050}" for number in range(TAGS_BYTES_MAX // 50)]
    assert tags_in(FIRST + token_of(NAME, tags, all_tags=ALL), all_tags=ALL) == set(ALL)


def test_two_writers_of_the_same_tags_announce_two_things():
    one, other = (token_of(secrets.token_bytes(NAME_BYTES), ALL, all_tags=ALL) for _ in range(2))
    assert one != other
    with pytest.raises(ValueError, match="bytes"):
        token_of(b"short", ALL, all_tags=ALL)


def test_a_renewal_that_is_delivered_late_lasts_no_longer_than_from_when_it_was_sent():
    assert kept_until_ms(5_000, read_us=1_000, now_us=2_001_000) == 7_000 + KEPT_MS


def test_a_writer_that_is_cut_off_waits_longer_than_others_need_to_purge_in_its_place():
    for lease_s in (0.1, 1.0, LEASE_S_MAX):
        others_need_s = (KEPT_MS / 1_000 + lease_s) * (1 + 1 / MARGIN_OF_LEASE)
        assert lease_s + BACK_US / 1e6 > others_need_s
    assert KEPT_MS * 1_000 > GOOD_FOR_US


# --- each order of events -------------------------------------------------------------------------

KEPT, GOOD, LEASE, ENDS = 2, 1, 1, 3  # in ticks


class Answer(NamedTuple):
    """What an app's call has read: newer than what was heard since, and than what was purged?"""

    version: int
    is_newer_here: bool
    is_newer_there: bool


class Reader(NamedTuple):
    """A process that keeps answers: in memory while it has a lease, and in Redis."""

    lease: int = 0  # until
    renewed: tuple[int, bool] | None = None  # a lease until, once what was told then is heard
    has_heard: bool = True
    memory: int | None = None  # the version of its answer
    made: Answer | None = None
    put: Answer | None = None  # on its way to Redis
    settles: int | None = None  # purged in its writer's place: what was kept until then


class World(NamedTuple):
    now: int = 0
    writer: str = "begun"  # announced, sent, committed, purged, lifted
    is_alive: bool = True
    is_linked: bool = True
    asked: int = 0
    kept: int | None = None  # the announcement, until
    last: int = 0  # until when it is kept, as far as its writer was heard
    record: int | None = None  # the version in Redis
    readers: tuple[Reader, ...] = ()

    @property
    def version(self):
        return int(self.writer in ("committed", "purged", "lifted"))


def steps(world, broken):
    """Every state that may be next."""
    if world.now < ENDS:
        yield world._replace(now=world.now + 1)
    if world.is_alive:
        yield world._replace(is_alive=False, is_linked=False)
        if world.is_linked and world.writer == "announced":
            yield world._replace(is_linked=False)
    yield from steps_of_writer(world, broken)
    for at in range(len(world.readers)):
        for changed, reader in steps_of_reader(world, world.readers[at], broken):
            readers = (*changed.readers[:at], reader, *changed.readers[at + 1 :])
            yield changed._replace(readers=readers)


def steps_of_writer(world, broken):
    speaks = world.is_linked
    kept = world.now + KEPT
    match world.writer:
        case "begun" if broken == "announces nothing":
            yield world._replace(writer="sent")
        case "begun" if speaks:
            yield world._replace(writer="announced", asked=world.now, kept=kept, last=kept)
        case "announced" if world.is_alive:
            if world.now < world.asked + GOOD or broken == "commits however late":
                # From here on it is the same for others whether it is dead or cut off.
                yield world._replace(writer="sent", asked=0, is_alive=world.is_linked)
            elif speaks:
                yield world._replace(asked=world.now, kept=kept, last=kept)
        case "sent":  # it is the database's turn, whether or not the writer lives
            if world.now < world.last or broken:
                yield world._replace(writer="committed")
        case "committed" if speaks:
            if broken == "lifts before it has purged" and world.kept is not None:
                yield world._replace(kept=None)
            yield purged(world)._replace(writer="purged")
        case "purged" if speaks:
            yield world._replace(writer="lifted", kept=None)
    if speaks and world.writer in ("announced", "sent", "committed") and world.kept != kept:
        yield world._replace(kept=kept, last=kept)


def purged(world):
    """In Redis; all are told."""
    readers = (
        reader._replace(has_heard=False,
            made=reader.made and reader.made._replace(is_newer_there=False),
            put=reader.put and reader.put._replace(is_newer_there=False),
        )
        for reader in world.readers
    )  # fmt: skip
    return world._replace(record=None, readers=tuple(readers))


def steps_of_reader(world, reader, broken):
    """What a process that keeps answers may do, as caching and fleet do it."""
    has_lease = world.now < reader.lease
    if not reader.has_heard:
        yield world, reader._replace(has_heard=True, memory=None,
            renewed=reader.renewed and (reader.renewed[0], True),
            made=reader.made and reader.made._replace(is_newer_here=False),
        )  # fmt: skip
    if reader.made is None and reader.put is None:
        yield world, reader._replace(made=Answer(world.version, True, reader.has_heard))
    if reader.made is not None:
        stored = reader._replace(made=None)
        if has_lease and reader.made.is_newer_here:
            stored = stored._replace(memory=reader.made.version, put=reader.made)
        yield world, stored
    if reader.put is not None:
        record = reader.put.version if reader.put.is_newer_there else world.record
        yield world._replace(record=record), reader._replace(put=None)
    if reader.memory is None and world.record is not None and has_lease:
        yield world, reader._replace(memory=world.record)
    if reader.settles is not None:
        is_same = world.kept == reader.settles or broken == "settles what was announced anew"
        yield world._replace(kept=None if is_same else world.kept), reader._replace(settles=None)
    elif world.kept is not None and world.kept <= world.now and broken != "renews beside it":
        after = purged(world)
        own = after.readers[world.readers.index(reader)]
        yield after, own._replace(memory=None, settles=world.kept)
    elif reader.renewed is None and reader.lease < world.now + LEASE:
        yield world, reader._replace(renewed=(world.now + LEASE, reader.has_heard))
    if reader.renewed is not None and reader.renewed[1]:
        yield world, reader._replace(renewed=None, lease=reader.renewed[0])


def answers_what_was_before(world):
    """Beyond the bound: a lease after its writer, which has not purged, was last to be heard."""
    if world.writer != "committed" or world.now < world.last + LEASE:
        return False
    return any(
        world.now < reader.lease and (reader.memory == 0 or world.record == 0)
        for reader in world.readers
    )


def explore(broken=None, *, readers=1):
    """How many states there are, and the first that must not be."""
    first = World(record=0, readers=tuple(Reader(memory=0) for _ in range(readers)))
    known, waiting = {first}, deque([first])
    while waiting:
        world = waiting.popleft()
        if answers_what_was_before(world):
            return len(known), world
        for following in steps(world, broken):
            if following not in known:
                known.add(following)
                waiting.append(following)
    return len(known), None


def test_in_no_order_of_events_is_anything_older_answered_beyond_the_bound():
    count, found = explore()
    assert found is None
    assert count > 10_000, "it has looked at next to nothing"


@pytest.mark.parametrize(
    "broken",
    [
        "announces nothing", "commits however late", "lifts before it has purged",
        "settles what was announced anew", "renews beside it",
    ],
)  # fmt: skip
def test_each_rule_is_needed(broken):
    assert explore(broken)[1] is not None
