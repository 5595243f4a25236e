"""The slots of a pool: whatever is asked and in whatever order, nothing is lost."""

import gc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perf_middleware.errors import PoolClosedError, PoolLineFullError
from perf_middleware.memory_watch.pools.figures import (
    AGED,
    IDLE_FOR_LONG,
    LOST,
    TRIMMED,
    USED_UP,
)
from perf_middleware.memory_watch.pools.options import PoolOptions
from perf_middleware.memory_watch.pools.slots import (
    CHECK,
    GRANTED,
    MAKE,
    READY,
    REPLACE,
    WAITING,
)
from perf_middleware.memory_watch.pools.state import PoolState
from perf_middleware.memory_watch.pools.steps import SlotSteps


class Thing:
    """Something that can be told from all others, and held weakly."""


class BrokenError(Exception):
    """Raised by a call of ours."""


class Interrupted(BaseException):
    """What a cancelled task sees."""


def state_of(**options):
    state = PoolState(PoolOptions(name="p", **{"size_max": 2, **options}))
    state.is_open = True
    return state


def lend(state, now_us=0):
    """An object, made where none is idle."""
    slot = state.take(now_us)
    if slot.todo == MAKE:
        state.fill(slot, Thing(), now_us)
    return state.claim(slot, now_us)


def give_back(state, thing, now_us=0):
    return state.put_back(state.give_back(thing), now_us)


def join(state, woken, name, now_us=0):
    return state.join(lambda: woken.append(name), now_us)


# --- who gets what ------------------------------------------------------------------------------


def test_the_object_that_came_back_last_is_lent_first():
    state = state_of()
    first, second = lend(state), lend(state)
    give_back(state, first)
    give_back(state, second)
    assert lend(state) is second


def test_an_object_goes_to_the_one_who_waits_longest_and_never_to_a_newcomer():
    state, woken = state_of(size_max=1), []
    thing = lend(state)
    tickets = [join(state, woken, name) for name in ("first", "second")]
    give_back(state, thing)
    assert woken == ["first"]
    assert state.take(0) is None  # the newcomer, though the first one has not moved yet
    assert state.claim(tickets[0].slot, 0) is thing
    give_back(state, thing)
    assert woken == ["first", "second"]


def test_a_waiter_that_leaves_just_when_it_was_granted_passes_it_on():
    state, woken = state_of(size_max=1), []
    thing = lend(state)
    first, second = (join(state, woken, name) for name in ("first", "second"))
    give_back(state, thing)
    assert first.state == GRANTED
    assert state.leave(first, 0) is None
    assert (second.state, second.slot.thing) == (GRANTED, thing)
    assert state.leave(second, 0) is None
    assert state.idle == 1


def test_a_place_that_becomes_free_is_granted_to_the_next_in_line_to_make_one():
    state, woken = state_of(size_max=1), []
    slot = state.take(0)
    first, second = (join(state, woken, name) for name in ("first", "second"))
    state.drop(slot, 0)  # making it failed
    assert first.slot.todo == MAKE
    state.leave(first, 0)
    assert second.slot.todo == MAKE
    state.leave(second, 0)
    assert state.size == 0


def test_one_who_leaves_from_the_middle_of_the_line_is_not_woken():
    state, woken = state_of(size_max=1), []
    things = [lend(state)]
    first, second, third = (join(state, woken, name) for name in ("first", "second", "third"))
    state.leave(second, 0)
    for ticket in (first, third):
        give_back(state, things.pop())
        things.append(state.claim(ticket.slot, 0))
    assert woken == ["first", "third"]


def test_the_line_has_an_end():
    state, woken = state_of(size_max=1, waiting_max=1), []
    lend_forever = lend(state)
    join(state, woken, "first")
    with pytest.raises(PoolLineFullError, match="1 wait already"):
        join(state, woken, "second")
    assert (state.counts.refused, lend_forever is not None) == (1, True)


def test_nothing_is_lent_before_it_is_open():
    state = PoolState(PoolOptions(name="p", size_max=1))
    with pytest.raises(PoolClosedError, match="p is not open"):
        state.take(0)


# --- what is to be done with it first -----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "idle_us", "suspect", "todo"),
    [
        pytest.param({}, 10**12, True, READY, id="without a check none is asked for"),
        pytest.param({"check_after_idle_us": 50}, 49, False, READY, id="used a moment ago"),
        pytest.param({"check_after_idle_us": 50}, 50, False, CHECK, id="idle for so long"),
        pytest.param({"check_after_idle_us": 50}, 1, True, CHECK, id="left by an exception"),
        pytest.param({"check_after_idle_us": 0}, 0, False, CHECK, id="checked each time"),
        pytest.param({"idle_us_max": 50}, 49, False, READY, id="not cold yet"),
        pytest.param({"idle_us_max": 50}, 50, False, REPLACE, id="cold"),
        pytest.param({"age_us_max": 50}, 50, False, REPLACE, id="old"),
        pytest.param(
            {"age_us_max": 50, "check_after_idle_us": 0}, 50, False, REPLACE,
            id="what is old need not be checked",
        ),
    ],
)  # fmt: skip
def test_what_an_idle_object_needs_before_it_is_lent(options, idle_us, suspect, todo):
    state = state_of(**options)
    slot = state.give_back(lend(state))
    slot.is_suspect = suspect
    assert state.put_back(slot, 0)
    assert state.take(idle_us).todo == todo


@pytest.mark.parametrize(
    ("options", "uses", "now_us", "why"),
    [
        pytest.param({"uses_max": 2}, 2, 0, USED_UP, id="lent as often as it may"),
        pytest.param({"age_us_max": 7}, 1, 7, AGED, id="too old"),
    ],
)
def test_what_is_worn_is_not_put_back(options, uses, now_us, why):
    state = state_of(**options)
    thing = lend(state)
    for _ in range(uses - 1):
        give_back(state, thing)
        thing = lend(state)
    slot = state.give_back(thing)
    assert not state.put_back(slot, now_us)
    assert slot.why == why


def test_cold_ones_go_first_and_down_to_the_least_size():
    state = state_of(size_max=3, size_min=1, idle_us_max=10)
    things = [lend(state) for _ in range(3)]
    for at_us, thing in enumerate(things):
        give_back(state, thing, at_us)
    assert state.cold(9) is None
    cold = state.cold(11)
    assert (cold.thing, cold.why) == (things[0], IDLE_FOR_LONG)
    state.empty(cold)
    state.drop(cold, 11)
    second = state.cold(11)
    assert second.thing is things[1]
    state.empty(second)
    state.drop(second, 11)
    assert state.cold(10**9) is None


@pytest.mark.parametrize(
    ("share", "count"), [(0.0, 0), (0.01, 1), (0.5, 2), (1.0, 3), (7.0, 3)], ids=str
)
def test_a_share_of_the_idle_ones_is_rounded_up(share, count):
    state = state_of(size_max=3)
    for thing in [lend(state) for _ in range(3)]:
        give_back(state, thing)
    assert state.surplus(share) == count


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(lambda state, thing: state.give_back(Thing()), id="another's object"),
        pytest.param(
            lambda state, thing: (give_back(state, thing), state.give_back(thing)), id="twice"
        ),
    ],
)
def test_what_is_not_lent_cannot_be_given_back(mistake):
    state = state_of()
    thing = lend(state)
    with pytest.raises(ValueError, match="p has not lent this Thing"):
        mistake(state, thing)
    assert state.size == 1
    assert state.idle + state.lent == 1


def test_create_must_return_an_object_that_the_pool_has_not():
    state = state_of()
    thing = lend(state)
    slot = state.take(0)
    with pytest.raises(TypeError, match="returned None"):
        state.fill(slot, None, 0)
    with pytest.raises(ValueError, match="has already"):
        state.fill(slot, thing, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_max": 0},
        {"size_max": 1, "size_min": 2},
        {"waiting_max": -1},
        {"step_us": 0},
        {"idle_us_max": 0},
        {"uses_max": 0},
        {"wait_us": -1},
        {"check_after_idle_us": -1},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        PoolOptions(**{"name": "p", "size_max": 1, **wrong})


# --- what is forgotten --------------------------------------------------------------------------


def test_an_object_that_is_forgotten_gives_its_place_back():
    state, woken = state_of(size_max=1), []
    state.on_lost = lambda: woken.append("lost")
    thing = lend(state)
    ticket = join(state, woken, "first")
    del thing
    gc.collect()
    assert woken == ["lost"]
    assert state.reap(0) == 1
    assert (woken, ticket.slot.todo) == (["lost", "first"], MAKE)
    assert (state.lent, state.counts.removed[LOST]) == (0, 1)


def test_a_newcomer_finds_the_place_of_a_forgotten_object_by_itself():
    state = state_of(size_max=1)
    lend(state)
    gc.collect()
    assert state.take(0).todo == MAKE


def test_an_object_at_the_address_of_a_forgotten_one_is_told_from_it():
    state = state_of(size_max=2)
    old = state._members[id(lend(state))]
    gc.collect()
    thing = lend(state)  # often at the same address
    assert state.reap(0) == 1
    assert old.weak is None
    give_back(state, thing)
    assert (state.size, state.idle) == (1, 1)


def test_what_cannot_be_held_weakly_is_kept():
    state = state_of()
    slot = state.take(0)
    state.fill(slot, bytearray(1), 0)
    buffer = state.claim(slot, 0)
    give_back(state, buffer)
    assert lend(state) is buffer


# --- any order ----------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Takes, waits, fails, gives back, cancels, forgets and closes, as hypothesis likes.

    A user that has a slot in work is a generator of SlotSteps that stands at one of its calls.
    """

    def __init__(self):
        super().__init__()
        self.now_us = 0
        options = PoolOptions(
            name="p", size_max=3, size_min=1, waiting_max=4, idle_us_max=40, age_us_max=90,
            uses_max=5, check_after_idle_us=10,
        )  # fmt: skip
        self.state = PoolState(options)
        self.state.is_open = True
        self.steps = SlotSteps(
            self.state, name="p", resets=True, closes=True, clock=lambda: self.now_us,
            on_failure=lambda step, error: None,
        )  # fmt: skip
        self.made = []
        self.closed = []
        self.held = []
        self.calls = []  # (steps, call) of those who wait for an answer
        self.line = []
        self.granted = []  # in the order of asking

    def go_on(self, steps, how, what):
        """One answer for `steps`: the next call is kept, the object they end with is held."""
        try:
            call = how(what)
        except StopIteration as done:
            if done.value is not None:
                self.held.append(done.value)
        except (BrokenError, Interrupted, PoolClosedError):
            pass
        else:
            self.calls.append((steps, call))

    def use(self, slot):
        if slot.todo == READY:
            self.held.append(self.state.claim(slot, self.now_us))
        else:
            steps = self.steps.obtaining(slot)
            self.go_on(steps, steps.send, None)

    def pick(self, items, at):
        return items.pop(at % len(items))

    @rule(us=st.integers(1, 30))
    def time_passes(self, us):
        self.now_us += us

    @rule()
    def somebody_asks(self):
        try:
            slot = self.state.take(self.now_us)
        except PoolClosedError:
            return
        if slot is not None:
            # Nobody is overtaken: those still in line have theirs, and have not moved yet.
            assert all(ticket.state != WAITING for ticket in self.line)
            self.use(slot)
            return
        try:
            ticket = self.state.join(lambda: self.granted.append(ticket), self.now_us)
        except PoolLineFullError:
            assert sum(ticket.state == WAITING for ticket in self.line) == 4
        else:
            self.line.append(ticket)

    @precondition(lambda self: self.calls)
    @rule(at=st.integers(0, 9), answer=st.sampled_from([True, False, BrokenError, Interrupted]))
    def a_call_ends(self, at, answer):
        steps, (step, arguments) = self.pick(self.calls, at)
        if isinstance(answer, type):
            if step == "close":
                self.closed.append(arguments[0])
            self.go_on(steps, steps.throw, answer())
            return
        if step == "create":
            answer = Thing()
            self.made.append(answer)
        elif step == "close":
            self.closed.append(arguments[0])
        self.go_on(steps, steps.send, answer)

    @precondition(lambda self: self.held)
    @rule(at=st.integers(0, 9), broken=st.booleans(), suspect=st.booleans())
    def one_comes_back(self, at, broken, suspect):
        slot = self.state.give_back(self.pick(self.held, at))
        slot.is_suspect = suspect
        steps = self.steps.giving_back(slot, is_broken=broken)
        self.go_on(steps, steps.send, None)

    @precondition(lambda self: self.granted)
    @rule(cancelled=st.booleans())
    def one_that_was_woken_moves(self, cancelled):
        ticket = self.granted.pop(0)
        self.line = [each for each in self.line if each is not ticket]
        if ticket.slot is None:
            assert not self.state.is_open
        elif cancelled:
            slot = self.state.leave(ticket, self.now_us)
            if slot is not None:
                steps = self.steps.discarding(slot)
                self.go_on(steps, steps.send, None)
        else:
            self.use(ticket.slot)

    @precondition(lambda self: self.line)
    @rule(at=st.integers(0, 9))
    def one_does_not_wait_any_longer(self, at):
        ticket = self.line[at % len(self.line)]
        if ticket.state == WAITING:
            self.line.remove(ticket)
            assert self.state.leave(ticket, self.now_us) is None

    @rule(share=st.floats(0, 1))
    def memory_is_short(self, share):
        for _ in range(self.state.surplus(share)):
            steps = self.steps.discarding(self.state.coldest(TRIMMED))
            self.go_on(steps, steps.send, None)

    @precondition(lambda self: self.state.is_open and self.now_us > 100)
    @rule()
    def it_closes(self):
        self.state.close(self.now_us)
        while (slot := self.state.coldest(0)) is not None:
            steps = self.steps.discarding(slot)
            self.go_on(steps, steps.send, None)

    @invariant()
    def the_pool_is_bounded_and_nothing_is_lost(self):
        state = self.state
        assert state.size <= 3
        assert state.lent == len(self.held)
        in_work = len(self.calls) + sum(t.slot is not None for t in self.granted)
        assert state.size == state.idle + state.lent + in_work
        assert len(set(map(id, self.held))) == len(self.held)
        waiting = [ticket for ticket in self.line if ticket.state == WAITING]
        assert state.waiting == len(waiting)
        if waiting:
            assert state.idle == 0
            assert state.size == 3
        if self.granted:  # first come, first served
            order = [self.line.index(ticket) for ticket in self.granted]
            assert order == sorted(order)

    def teardown(self):
        """Everybody finishes: each object that was made is idle or was closed, once."""
        while self.calls or self.granted or self.held:
            if self.calls:
                self.a_call_ends(0, True)
            elif self.granted:
                self.one_that_was_woken_moves(cancelled=False)
            else:
                self.one_comes_back(0, broken=False, suspect=False)
        state = self.state
        assert state.waiting == 0
        assert state.size == state.idle
        assert state.counts.made == len(self.made)
        assert sum(state.counts.removed) == len(self.closed)
        assert len(set(map(id, self.closed))) == len(self.closed)
        assert len(self.made) == state.idle + len(self.closed)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40)
