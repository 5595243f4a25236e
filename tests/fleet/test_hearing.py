"""Leases and counts: whoever answers out of memory has done what a writer has waited for."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perf_middleware.fleet.hearing import (
    GOALS_MAX,
    LEASE_S_MAX,
    Listener,
    Question,
    hearing,
    lease_until_us,
    lines_of,
    out_at_us,
    question_in,
)

A, B = b"{app:cache:0}n", b"{app:memo:0}n"
LEASE_US = 1_000_000


@pytest.mark.parametrize(
    ("heard", "told", "verdict"),
    [
        pytest.param({A: (b"x", 5)}, {A: (b"x", 5)}, "all", id="the same count"),
        pytest.param({A: (b"x", 7)}, {A: (b"x", 5)}, "all", id="more"),
        pytest.param({A: (b"x", 4)}, {A: (b"x", 5)}, "less", id="one message less"),
        pytest.param({A: (b"x", 9), B: (b"y", 1)}, {A: (b"x", 5), B: (b"y", 2)}, "less",
                     id="less of one counter"),
        pytest.param({A: (b"x", 5)}, {A: (b"x", 5), B: (b"y", 2)}, "all",
                     id="a counter of what is not kept here"),
        pytest.param({A: (b"x", 9)}, {A: (b"z", 1)}, "another life", id="counted anew"),
        pytest.param({A: (b"x", 9)}, {A: (b"", 0)}, "another life", id="a life that is lost"),
        pytest.param({}, {}, "all", id="nothing"),
    ],
)  # fmt: skip
def test_all_is_heard_where_no_counter_is_behind(heard, told, verdict):
    assert hearing(heard, told) == verdict


names = st.sampled_from([A, B, b"{a b:cache:3}n"])
counts = st.dictionaries(names, st.tuples(st.sampled_from([b"x", b"y"]), st.integers(0, 2**53)))


@given(counts, counts)
def test_who_has_heard_all_has_heard_at_least_the_count_of_each_life(heard, told):
    shared = [(heard[name], told[name]) for name in told if name in heard]
    is_all = all(own[0] == other[0] and own[1] >= other[1] for own, other in shared)
    assert (hearing(heard, told) == "all") is is_all
    assert hearing(told, told) == "all"


@given(counts)
def test_a_question_is_read_as_it_was_written(told):
    question = question_in(b"{app:fleet:0}a:12 token" + lines_of(told))
    assert question == Question(b"{app:fleet:0}a:12", b"token", told)


@given(st.binary())
def test_what_is_no_question_is_a_value_error(payload):
    with suppress(ValueError):
        question_in(payload)


@given(
    lease_us=st.integers(100_000, round(LEASE_S_MAX * 1e6)),
    way_us=st.integers(0, 10_000_000),
    later_us=st.integers(0, 20_000_000),
    rate=st.floats(0.917, 1.083),
    ahead_us=st.integers(0, 10**15),
)
def test_a_lease_is_never_over_for_a_writer_before_it_is_over_for_its_holder(
    lease_us, way_us, later_us, rate, ahead_us
):
    def server_ms(us):
        return int((ahead_us + us * rate) // 1_000)

    asked_us = 5_000
    renewed_us = asked_us + way_us  # the server does it whenever it comes
    until_ms = server_ms(renewed_us) + lease_us // 1_000
    read_us = renewed_us + later_us
    out_us = out_at_us(read_us, until_ms=until_ms, now_ms=server_ms(read_us))
    assert lease_until_us(asked_us, lease_us) < out_us
    assert out_us - read_us <= LEASE_S_MAX * 1e6 + 2_000


def told(count, life=b"x"):
    return {A: (life, count)}


def test_a_renewal_counts_from_when_its_messages_are_heard_and_done():
    listener = Listener(lease_us=LEASE_US)
    listener.renewed(10, told(3))
    assert listener.step(told(2), is_done=True) == []
    assert listener.until_us == 0  # answered before the message came
    assert listener.step(told(3), is_done=False) == []
    assert listener.until_us == 0  # heard, and still in memory
    listener.step(told(3), is_done=True)
    assert listener.until_us == 10 + LEASE_US * 9 // 10
    assert not listener.waits


def test_an_older_renewal_counts_while_a_newer_one_waits():
    listener = Listener(lease_us=LEASE_US)
    listener.renewed(10, told(3))
    listener.renewed(300_010, told(9))
    listener.step(told(5), is_done=True)
    assert listener.until_us == lease_until_us(10, LEASE_US)
    assert listener.waits


def test_a_question_is_answered_once_all_that_it_names_is_done():
    listener = Listener(lease_us=LEASE_US)
    first, second = Question(b"one", b"1", told(3)), Question(b"two", b"2", told(4))
    listener.ask(first)
    listener.ask(second)
    assert listener.step(told(4), is_done=False) == []
    assert listener.step(told(3), is_done=True) == [first]
    assert listener.step(told(4), is_done=True) == [second]
    assert listener.step(told(4), is_done=True) == []


@pytest.mark.parametrize("about", ["renewal", "question"])
def test_what_is_of_another_life_is_not_answered_nor_leased(about):
    listener = Listener(lease_us=LEASE_US)
    if about == "renewal":
        listener.renewed(10, told(0, b"new"))
    else:
        listener.ask(Question(b"one", b"1", told(0, b"new")))
    assert listener.step(told(9), is_done=True) is None
    assert listener.until_us == 0


def test_messages_that_are_missing_for_many_renewals_are_lost():
    listener = Listener(lease_us=LEASE_US)
    for number in range(GOALS_MAX - 1):
        listener.renewed(number, told(3))
        assert listener.step(told(2), is_done=True) == []
    listener.renewed(GOALS_MAX, told(3))
    assert listener.step(told(2), is_done=True) is None


def test_who_has_lost_the_connection_has_neither_lease_nor_questions():
    listener = Listener(lease_us=LEASE_US)
    listener.renewed(10, told(0))
    listener.step(told(0), is_done=True)
    listener.renewed(20, told(1))
    listener.ask(Question(b"one", b"1", told(1)))
    listener.lose()
    assert listener.until_us == 0
    assert listener.step(told(1), is_done=True) == []
    assert listener.until_us == 0


class Fleets(RuleBasedStateMachine):
    """One listener, one writer, a server; what is on its way arrives in any order, or late.

    `memory` is the newest purge that the listener's memory knows of.
    """

    def __init__(self):
        super().__init__()
        self.now_us = 1_000_000
        self.count = 0
        self.until_ms = None  # of the listener, at the server
        self.listener = Listener(lease_us=LEASE_US)
        self.messages = []
        self.renewals = []
        self.questions = []
        self.answers = set()
        self.seen = self.memory = 0
        self.open = []  # (token, count, out at): what a writer waits for
        self.passed = 0  # the newest purge that was waited for

    def server_ms(self):
        return self.now_us // 1_000

    def step(self):
        answered = self.listener.step(told(self.seen), is_done=self.memory == self.seen)
        if answered is None:  # a connection that is made anew: nothing in memory is trusted
            self.listener.lose()
            self.messages.clear()
            self.seen = self.memory = self.count
        else:
            self.answers |= {question.token for question in answered}

    @rule(ms=st.sampled_from([1, 50, 300, 700]))
    def time_goes_by(self, ms):
        self.now_us += ms * 1_000
        self.look()

    @rule()
    def somebody_purges(self):
        self.count += 1
        self.messages.append(self.count)

    @rule()
    def a_writer_purges_and_asks(self):
        self.somebody_purges()
        self.the_writer_asks()

    @rule()
    def the_writer_asks(self):
        if self.until_ms is None or self.until_ms <= self.server_ms():
            self.passed = self.count
            return
        token = b"%d" % len(self.open)
        out_us = out_at_us(self.now_us, until_ms=self.until_ms, now_ms=self.server_ms())
        self.open.append((token, self.count, out_us))
        self.questions.append(Question(b"writer", token, told(self.count)))

    @rule(late_us=st.integers(0, 200_000))
    def the_server_renews(self, late_us):
        asked_us = self.now_us
        self.now_us += late_us
        self.until_ms = self.server_ms() + LEASE_US // 1_000
        self.renewals.append((asked_us, told(self.count)))

    @rule(data=st.data())
    def an_answer_to_a_renewal_comes(self, data):
        if self.renewals:
            at = data.draw(st.integers(0, len(self.renewals) - 1))
            self.listener.renewed(*self.renewals.pop(at))
            self.step()

    @rule(data=st.data())
    def a_question_comes(self, data):
        if self.questions:
            at = data.draw(st.integers(0, len(self.questions) - 1))
            self.listener.ask(self.questions.pop(at))
            self.step()

    @rule(at_once=st.sampled_from([False, False, True]))
    def a_message_is_heard(self, at_once):
        if self.messages:
            was_done = self.memory == self.seen
            self.seen = self.messages.pop(0)
            if at_once and was_done:
                self.memory = self.seen
            self.step()

    @rule()
    def what_was_heard_is_done(self):
        self.memory = self.seen
        self.step()

    @rule()
    def the_connection_is_lost(self):
        self.listener.lose()
        self.messages.clear()
        self.renewals.clear()
        self.questions.clear()
        self.seen = self.memory = self.count

    @invariant()
    def look(self):
        for token, count, out_us in self.open:
            if token in self.answers or self.now_us >= out_us:
                self.passed = max(self.passed, count)
        if self.now_us < self.listener.until_us:
            assert self.memory >= self.passed


TestFleets = Fleets.TestCase
TestFleets.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
