"""The waiting line against a plain model of it, and what it does in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.limits.concurrency.criticality import (
    CRITICAL,
    CRITICAL_PLUS,
    SHEDDABLE,
    SHEDDABLE_PLUS,
    is_refused,
)
from perf_middleware.limits.concurrency.line import GRANTED, LEFT, SHED, WAITING, Line, Ticket

TARGET, INTERVAL = 20, 100


def line_of(waiting_max=10):
    return Line(waiting_max=waiting_max, target_us=TARGET, interval_us=INTERVAL)


def joined(line, now_us, criticality=CRITICAL, **more):
    ticket = Ticket(criticality, now_us, **more)
    line.join(ticket, now_us)
    return ticket


def shed(line):
    return [(ticket, ticket.reason) for ticket in line.take_shed()]


def test_a_short_line_is_first_in_first_out():
    line = line_of()
    first, second = joined(line, 0), joined(line, 1)
    assert [line.next(50), line.next(50), line.next(50)] == [first, second, None]


def test_a_higher_class_is_served_first():
    line = line_of()
    tickets = [joined(line, 0, code) for code in (SHEDDABLE, CRITICAL, CRITICAL_PLUS, CRITICAL)]
    assert [line.next(1) for _ in range(4)] == [tickets[i] for i in (2, 1, 3, 0)]


def test_nobody_waits_longer_than_the_interval():
    line = line_of()
    ticket = joined(line, 0)
    line.expire(INTERVAL - 1)
    assert ticket.state == WAITING
    assert line.next_expiry_us() == INTERVAL
    line.expire(INTERVAL)
    assert shed(line) == [(ticket, "expired")]
    assert line.count == 0


def test_in_a_standing_line_the_newest_is_first_and_the_target_holds():
    line = line_of()
    joined(line, 0)
    for at in (30, 60, 85, 95):
        joined(line, at)
    assert line.is_standing(INTERVAL)
    newest = line.next(INTERVAL)
    assert (newest.joined_us, line.count) == (95, 1), "85 may still wait"
    assert {reason for _, reason in shed(line)} == {"expired"}
    assert line.next_expiry_us() == 85 + TARGET


def test_a_line_that_was_served_empty_is_short_again():
    line = line_of()
    joined(line, 0)
    line.next(99)
    joined(line, 99)
    assert not line.is_standing(150)
    assert line.is_standing(199)


def test_a_line_that_shed_itself_empty_is_still_a_standing_one():
    line = line_of()
    joined(line, 0)
    line.expire(INTERVAL)
    old, new = joined(line, INTERVAL + 5), joined(line, INTERVAL + 10)
    assert line.next(INTERVAL + 11) is new
    line.expire(INTERVAL + 5 + TARGET)
    assert old.state == SHED


def test_but_not_when_nobody_came_for_an_interval():
    line = line_of()
    joined(line, 0)
    line.expire(INTERVAL)
    old = joined(line, 2 * INTERVAL)
    joined(line, 2 * INTERVAL + 1)
    assert line.next(2 * INTERVAL + 50) is old


@pytest.mark.parametrize(
    ("waiting", "arriving", "evicted"),
    [
        pytest.param([CRITICAL, SHEDDABLE, SHEDDABLE], CRITICAL, 2, id="the newest of the lowest"),
        pytest.param([SHEDDABLE_PLUS, CRITICAL], CRITICAL_PLUS, 0, id="the lowest that is there"),
        pytest.param([CRITICAL, CRITICAL], CRITICAL, None, id="none of the same class"),
        pytest.param([CRITICAL, CRITICAL], SHEDDABLE, None, id="none of a higher one"),
    ],
)
def test_of_a_full_line_the_lowest_class_gives_way(waiting, arriving, evicted):
    line = line_of(len(waiting))
    tickets = [joined(line, at, code) for at, code in enumerate(waiting)]
    last = joined(line, 50, arriving)
    tickets.append(last)
    assert shed(line) == [(tickets[-1 if evicted is None else evicted], "full")]
    assert line.count == len(waiting)


def test_of_a_full_standing_line_the_oldest_gives_way_to_the_newest():
    line = line_of(2)
    joined(line, 0)
    line.expire(INTERVAL)
    line.take_shed()
    oldest, other, newest = (joined(line, INTERVAL + at) for at in (1, 2, 3))
    assert shed(line) == [(oldest, "full")]
    assert [line.next(INTERVAL + 4), line.next(INTERVAL + 4)] == [newest, other]


def test_whose_deadline_is_over_gets_no_permit():
    line = line_of()
    late, other = joined(line, 0, deadline_us=10), joined(line, 0, deadline_us=11)
    assert line.next(10) is other
    assert shed(line) == [(late, "deadline")]


def test_many_that_leave_leave_no_room_taken():
    line = line_of(4)
    joined(line, 0)
    for at in range(1, 80):
        assert line.leave(joined(line, at), at)
    assert line.count == 1
    assert sum(map(len, line._queues)) <= 1 + 4 + 1


@pytest.mark.parametrize(
    ("criticality", "level", "would_wait", "refused"),
    [
        (SHEDDABLE, 0, True, False),
        (SHEDDABLE, 1, False, False),
        (SHEDDABLE, 1, True, True),
        (SHEDDABLE_PLUS, 1, True, False),
        (SHEDDABLE_PLUS, 2, False, True),
        (SHEDDABLE, 2, False, True),
        (CRITICAL, 2, True, False),
        (CRITICAL_PLUS, 2, True, False),
    ],
)
def test_a_level_sheds_classes(criticality, level, would_wait, refused):
    assert is_refused(criticality, level, would_wait=would_wait) is refused


# --- against a model ----------------------------------------------------------------------------


class Model:
    """The same in one plain list, oldest first."""

    def __init__(self, waiting_max, grant=0):
        self.waiting_max = waiting_max
        self.late = max(TARGET, min(3 * grant, INTERVAL))
        self.room = min(waiting_max, max(1, self.late // grant)) if grant else waiting_max
        self.waiting = []
        self.since = None
        self.shed_at = None
        self.shed = []

    def standing(self, now):
        return self.since is not None and now - self.since >= INTERVAL

    def well(self, now):
        return self.shed_at is None or now - self.shed_at >= INTERVAL

    def drop(self, ticket, reason, now):
        self.shed.append((ticket, reason))
        self.shed_at = now

    def note_first(self, now, was_standing):
        if was_standing:
            if not self.waiting and self.well(now):
                self.since = None
        elif not self.waiting:
            self.since = None
        elif now - self.waiting[0].joined_us < self.late:
            self.since = self.waiting[0].joined_us

    def expire(self, now):
        standing = self.standing(now)
        allowed = self.late if standing else INTERVAL
        gone = [each for each in self.waiting if each.joined_us + allowed <= now]
        for each in sorted(gone, key=lambda one: one.criticality):
            self.waiting.remove(each)
            self.drop(each, "expired", now)
        if gone and not self.waiting:
            self.note_first(now, standing)

    def order(self, now):
        ways = self.waiting[::-1] if self.standing(now) else self.waiting
        return sorted(ways, key=lambda one: one.criticality)

    def join(self, ticket, now):
        self.expire(now)
        if not self.waiting and (self.since is None or self.well(now)):
            self.since = now
        while len(self.waiting) >= (self.room if self.standing(now) else self.waiting_max):
            lower = [
                each
                for each in self.order(now)
                if each.criticality > ticket.criticality
                or (self.standing(now) and each.criticality == ticket.criticality)
            ]
            self.drop(lower[-1] if lower else ticket, "full", now)
            if not lower:
                return
            self.waiting.remove(lower[-1])
        self.waiting.append(ticket)

    def next(self, now):
        self.expire(now)
        standing = self.standing(now)
        if not self.waiting:
            return None
        for ticket in self.order(now):
            self.waiting.remove(ticket)
            if ticket.deadline_us is not None and ticket.deadline_us <= now:
                self.drop(ticket, "deadline", now)
                continue
            self.note_first(now, standing)
            return ticket
        self.note_first(now, standing)
        return None

    def leave(self, ticket, now):
        self.waiting.remove(ticket)
        if not self.waiting:
            self.note_first(now, self.standing(now))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "join", "next", "leave", "expire"]),
        st.integers(0, 30),  # later by
        st.integers(0, 3),
        st.none() | st.integers(0, 150),
    ),
    max_size=80,
)


@given(steps=STEPS, waiting_max=st.integers(0, 6), grant=st.integers(0, 60))
def test_the_line_is_its_model(steps, waiting_max, grant):
    line, model, now = line_of(waiting_max), Model(waiting_max, grant), 1_000
    line.grant_us = float(grant)
    seen = []
    for what, later, number, left in steps:
        now += later
        if what == "join":
            ticket = Ticket(number, now, deadline_us=None if left is None else now + left)
            model_shed = len(model.shed)
            model.join(ticket, now)
            line.join(ticket, now)
            assert len(seen) <= len(model.shed) >= model_shed
        elif what == "next":
            granted = line.next(now)
            assert model.next(now) is granted
            assert granted is None or granted.state == GRANTED
        elif what == "expire":
            line.expire(now)
            model.expire(now)
        elif model.waiting:
            ticket = model.waiting[number % len(model.waiting)]
            model.leave(ticket, now)
            assert line.leave(ticket, now)
            assert not line.leave(ticket, now)
            assert ticket.state == LEFT
        seen += shed(line)
        assert seen == model.shed
        assert line.count == len(model.waiting) <= waiting_max
        assert line.oldest_us() == min((each.joined_us for each in model.waiting), default=None)
        due = line.next_expiry_us()
        if due is None:
            assert not model.waiting
        elif due > now:  # nobody expires before
            copy = Model(waiting_max, grant)
            copy.waiting, copy.since = list(model.waiting), model.since
            copy.expire(due - 1)
            assert len(copy.waiting) == len(model.waiting)
            copy.expire(due)
            assert len(copy.waiting) < len(model.waiting)
