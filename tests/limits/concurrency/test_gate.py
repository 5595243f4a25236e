"""Permits under every order of events: a loop of the test's own, turn by turn."""

import random
from collections import deque

import pytest

from perf_middleware.limits.concurrency.estimate import Fixed
from perf_middleware.limits.concurrency.figures import BackpressureFigures
from perf_middleware.limits.concurrency.fold import LimitFold
from perf_middleware.limits.concurrency.line import GRANTED, SHED, WAITING, Line, Ticket
from perf_middleware.limits.concurrency.runtime.gate import BATCH_MAX, SETTLE_TURNS, Gate

BUDGET = 5_000


class Timer:
    def __init__(self, at_us, call):
        self.at_us = at_us
        self.call = call
        self.is_cancelled = False

    def cancel(self):
        self.is_cancelled = True


class Loop:
    """Ready callbacks, turn by turn; timers are called by the test."""

    def __init__(self):
        self.now_us = 1_000_000
        self.ready = deque()
        self.timers = []

    def clock(self):
        return self.now_us

    def call_soon(self, call):
        self.ready.append(call)

    def call_later(self, delay_s, call):
        assert delay_s > 0
        self.timers.append(Timer(self.now_us + round(delay_s * 1e6), call))
        return self.timers[-1]

    def is_closed(self):
        return False

    def turn(self):
        """What was ready when the turn began; at most one turn's worth, as asyncio does."""
        for _ in range(len(self.ready)):
            self.ready.popleft()()

    def settle(self, turns=60):
        for _ in range(turns):
            self.turn()

    def run_timers(self):
        due = [each for each in self.timers if each.at_us <= self.now_us]
        self.timers = [each for each in self.timers if each.at_us > self.now_us]
        for each in due:
            if not each.is_cancelled:
                each.call()


class Stage:
    """A gate, and requests that are counted by hand."""

    def __init__(
        self, *, limit=2, waiting_max=10, budget=BUDGET, partitions=None, on_loop=True, on_shed=None
    ):
        self.loop = Loop()
        self.shed = []
        self.fold = LimitFold(Fixed(limit=limit))
        self.gate = Gate(
            loop=self.loop if on_loop else None,
            fold=self.fold,
            new_line=lambda most: Line(
                waiting_max=waiting_max if most is None else min(most, waiting_max),
                target_us=20_000,
                interval_us=100_000,
            ),
            partitions=partitions or {},
            turn_budget_us=budget,
            on_shed=on_shed or self.shed.append,
            figures=BackpressureFigures(),
            clock=self.loop.clock,
        )
        self.running = []
        self.waiting = []
        self.most = 0

    def arrive(self, *, work_us=0, partition=None, criticality=1):
        """One request: runs for `work_us` at once, and goes on until `end`; or waits."""
        now = self.loop.now_us
        ticket = Ticket(criticality, now)
        if (
            self.gate.enter(now)
            if partition is None
            else (self.gate.enter_both(partition, ticket, now))
        ):
            self._run(ticket, work_us)
            return ticket
        ticket.wake = lambda: self.loop.call_soon(lambda: self._woken(ticket, work_us))
        self.waiting.append(ticket)
        self.gate.wait(ticket, partition, now)
        return ticket

    def _woken(self, ticket, work_us):
        if ticket in self.waiting:  # not cancelled meanwhile
            self.waiting.remove(ticket)
            if ticket.state == GRANTED:
                self.gate.begun(self.loop.now_us)
                self._run(ticket, work_us)

    def _run(self, ticket, work_us):
        self.running.append(ticket)
        self.most = max(self.most, self.gate.in_flight)
        self.loop.now_us += work_us
        if work_us:  # it answers in the same turn
            self.gate.note_head(self.loop.now_us - work_us, 200)
            self.end(ticket)

    def end(self, ticket):
        self.running.remove(ticket)
        self.gate.release(ticket.partition)

    def cancel(self, ticket):
        """Cancelled while it waits, or after it was granted and before it woke."""
        self.waiting.remove(ticket)
        self.gate.abandon(ticket, self.loop.now_us)

    def check(self):
        gate = self.gate
        granted = [each for each in self.waiting if each.state == GRANTED]
        held = [*self.running, *granted]
        assert gate.in_flight == len(held)
        in_line = [each for each in self.waiting if each.state == WAITING]
        assert gate.waiting == len(in_line)
        for name, partition in gate.partitions.items():
            assert partition.in_flight == sum(each.partition == name for each in [*held, *in_line])
            assert partition.in_flight <= partition.limit
            if partition.line.count:
                assert partition.in_flight == partition.limit, "nobody waits for a free permit"
        if gate.line.count and gate.in_flight < gate.limit:
            assert self.loop.ready, "one waits, a permit is free, and nothing will happen"


def test_permits_are_counted_and_the_next_one_waits():
    stage = Stage(limit=2)
    first, _, third = stage.arrive(), stage.arrive(), stage.arrive()
    assert (stage.gate.in_flight, stage.gate.waiting) == (2, 1)
    stage.end(first)
    stage.loop.settle()
    assert (stage.gate.in_flight, stage.gate.waiting) == (2, 0)
    assert third in stage.running


def test_work_that_never_waits_is_seen_by_the_turn():
    """Ten ready tasks of 20 ms: each would find nobody in flight."""
    stage = Stage(limit=10)
    for _ in range(10):
        stage.arrive(work_us=20_000)
    assert stage.loop.now_us == 1_020_000, "one was let in, for the others the turn was over"
    assert stage.gate.waiting == 9


def test_quick_work_goes_on_within_the_budget_of_a_turn():
    stage = Stage(limit=10)
    for _ in range(10):
        stage.arrive(work_us=100)
    assert stage.gate.waiting == 0
    assert len(stage.loop.ready) == 1, "one mark for the turn"
    stage.loop.turn()
    assert not stage.loop.ready


def test_after_long_work_all_who_came_are_seen_before_one_is_let_in():
    stage = Stage(limit=10)
    stage.arrive(work_us=20_000)
    stage.loop.turn()  # the mark
    late = []
    for _ in range(SETTLE_TURNS):
        late.append(stage.arrive(work_us=20_000))
        stage.loop.turn()
    assert stage.gate.waiting == len(late), "nobody was let in while others came"
    while stage.gate.waiting == len(late):
        stage.loop.turn()
    assert stage.gate.waiting == len(late) - 1


def test_one_long_piece_of_work_a_turn_and_more_of_quick_ones():
    stage = Stage(limit=100, waiting_max=200)
    stage.arrive(work_us=20_000)
    for _ in range(3):
        stage.arrive(work_us=20_000)
    before = stage.loop.now_us
    stage.loop.settle(2 * SETTLE_TURNS)
    assert stage.loop.now_us == before + 20_000, "one in all those turns"
    stage.loop.settle()
    quick = Stage(limit=1_000, waiting_max=1_000)
    quick.arrive(work_us=6_000)
    for _ in range(500):
        quick.arrive(work_us=1)
    quick.loop.settle(2 * SETTLE_TURNS + 20)
    assert quick.gate.waiting == 0
    assert 2 <= BATCH_MAX <= 500


def test_the_line_has_its_one_timer():
    stage = Stage(limit=1)
    stage.arrive()
    tickets = [stage.arrive() for _ in range(5)]
    assert len(stage.loop.timers) == 1
    stage.loop.now_us = stage.loop.timers[0].at_us
    stage.loop.run_timers()
    assert [ticket.state for ticket in tickets] == [SHED] * 5
    assert stage.shed == tickets
    assert not stage.loop.timers


def test_a_slow_partition_leaves_the_rest_alone():
    stage = Stage(limit=4, partitions={"reports": 2})
    slow = [stage.arrive(partition="reports") for _ in range(6)]
    assert (stage.gate.in_flight, stage.gate.waiting) == (2, 2), "two run, two wait, two are shed"
    assert [each.state for each in slow[4:]] == [SHED, SHED]
    assert stage.arrive() in stage.running
    stage.end(slow[0])
    stage.loop.settle()
    assert slow[2] in stage.running
    stage.check()


def test_any_number_may_wait_for_a_partition_while_the_line_behind_it_is_full():
    """Each that is moved there is shed and brings its permit back, for the next one."""
    stage = Stage(limit=1_001, waiting_max=1_000, partitions={"reports": 1_000})
    slow = [stage.arrive(partition="reports") for _ in range(1_000)]
    stage.arrive()
    waiting = [stage.arrive(partition="reports") for _ in range(1_000)]
    others = [stage.arrive() for _ in range(1_000)]
    stage.end(slow.pop())
    assert [each.state for each in waiting] == [SHED] * 1_000
    stage.loop.settle()
    stage.check()
    assert others[0] in stage.running
    for each in slow:
        stage.end(each)
    stage.loop.settle(200)
    stage.check()
    assert stage.gate.partitions["reports"].in_flight == 0


class Failing:
    """Told who is shed; fails at first, as a filter of an app's logs may."""

    def __init__(self, times, error=RuntimeError):
        self.times = times
        self.error = error

    def __call__(self, _):
        if self.times:
            self.times -= 1
            raise self.error


def two_wait_behind_a_full_line(on_shed):
    stage = Stage(limit=3, waiting_max=2, partitions={"reports": 2}, on_shed=on_shed)
    slow = [stage.arrive(partition="reports") for _ in range(2)]
    stage.arrive()
    waiting = [stage.arrive(partition="reports") for _ in range(2)]
    others = [stage.arrive() for _ in range(2)]
    return stage, slow, waiting, others


def assert_serves_on(stage):
    """Of three who come for a partition of two, the third has its turn behind them."""
    for each in list(stage.running):
        stage.end(each)
        stage.loop.settle(200)
    first, second, third = (stage.arrive(partition="reports") for _ in range(3))
    stage.end(first)
    stage.end(second)
    stage.loop.settle(200)
    stage.check()
    assert third in stage.running


def test_who_fails_to_be_told_of_one_that_is_shed_keeps_nobody_waiting():
    """A fixed bug: no partition gave a permit on afterwards, and who was shed was never woken."""
    stage, slow, waiting, others = two_wait_behind_a_full_line(Failing(times=1))
    stage.end(slow[0])
    assert [each.state for each in waiting] == [SHED, SHED]
    stage.loop.settle(200)
    stage.check()
    assert not set(waiting) & set(stage.waiting), "both are woken"
    assert others[0] in stage.running
    assert stage.gate.figures.failures == 1
    assert_serves_on(stage)


def test_what_ends_the_program_in_the_midst_of_a_move_leaves_partitions_that_serve():
    stage, slow, _, _ = two_wait_behind_a_full_line(Failing(times=1, error=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stage.end(slow[0])
    third = stage.arrive(partition="reports")
    stage.end(slow[1])
    stage.loop.settle(200)
    assert third.state != WAITING


def test_all_who_wait_behind_a_partition_may_be_late_at_once():
    stage = Stage(limit=1_000, waiting_max=1_000, partitions={"reports": 1_000})
    for _ in range(500):
        stage.arrive()
    running = [stage.arrive(partition="reports") for _ in range(500)]
    late = [stage.arrive(partition="reports") for _ in range(1_500)]
    assert stage.gate.waiting == 1_500, "500 for the app, 1,000 for their partition"
    stage.loop.now_us += 200_000
    stage.loop.run_timers()
    stage.loop.settle()
    assert [each.state for each in late] == [SHED] * 1_500
    stage.check()
    assert stage.gate.partitions["reports"].in_flight == len(running)


def test_without_asyncio_a_permit_is_given_on_at_once():
    stage = Stage(limit=1, on_loop=False)
    first, second = stage.arrive(), stage.arrive()
    stage.end(first)
    assert second.state == GRANTED
    assert stage.gate.in_flight == 1


@pytest.mark.parametrize("on_loop", [True, False], ids=["turns", "no turns"])
def test_no_permit_and_no_wake_up_is_lost_in_any_order_of_events(on_loop):
    for seed in range(2_000):
        pick = random.Random(seed)
        stage = Stage(
            limit=pick.randint(1, 4),
            waiting_max=pick.randint(0, 6),
            budget=pick.choice([None, 1, BUDGET]),
            partitions={"a": pick.randint(1, 2)},
            on_loop=on_loop,
        )
        if not on_loop:
            stage.check = lambda: None  # who was woken is not on any loop's list
        for _ in range(60):
            what = pick.choice(
                ["arrive", "arrive", "arrive", "end", "cancel", "leave", "turn", "turn", "later"]
            )
            if what == "arrive":
                stage.arrive(
                    work_us=pick.choice([0, 0, 1, 20_000]),
                    partition=pick.choice([None, None, "a"]),
                    criticality=pick.randint(0, 3),
                )
            elif what == "end" and stage.running:
                stage.end(pick.choice(stage.running))
            elif what == "cancel" and stage.waiting:
                stage.cancel(pick.choice(stage.waiting))
            elif what == "leave" and stage.waiting:
                stage.gate.leave(pick.choice(stage.waiting), stage.loop.now_us)
            elif what == "turn":
                stage.loop.turn()
            elif what == "later":
                stage.loop.now_us += pick.choice([1, 10_000, 60_000])
                stage.loop.run_timers()
            stage.check()
            assert stage.gate.in_flight <= stage.gate.limit
        for _ in range(200):  # all come to their end
            for ticket in list(stage.running):
                stage.end(ticket)
            stage.loop.turn()
            stage.check()
        assert (stage.gate.in_flight, stage.gate.waiting, stage.running) == (0, 0, []), seed
        assert stage.waiting == [], seed
        assert all(each.in_flight == 0 for each in stage.gate.partitions.values()), seed
        assert not stage.loop.ready
        assert stage.arrive() in stage.running, "as if nothing had been"
