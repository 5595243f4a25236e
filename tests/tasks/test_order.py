"""Who is next: the urgent first, and nobody waits for ever."""

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.tasks.queue.order import PRIORITIES, RANK_OF, Order, paused_from, shares_of


@dataclass(eq=False)
class Waiter:
    name: str
    rank: int = 2
    is_threaded: bool = False
    ticket: int = 0


def order_of(*waiters, workers=8, threads_max=2, fair_every=100, paused_every_us=1000):
    order = Order(
        workers=workers, threads_max=threads_max, fair_every=fair_every,
        paused_every_us=paused_every_us,
    )  # fmt: skip
    for waiter in waiters:
        order.push(waiter)
    return order


def waiters(*priorities):
    return [Waiter(f"{name} {n}", RANK_OF[name]) for n, name in enumerate(priorities)]


def picked(order, count=100, **given):
    """The names in the order in which they are picked; each ends at once."""
    names = []
    while len(names) < count and (waiter := order.pick(0, **given)) is not None:
        names.append(waiter.name)
        order.ended(waiter.rank)
        if waiter.is_threaded:
            order.thread_ended()
    return names


def test_the_highest_class_is_first_and_within_it_the_oldest():
    order = order_of(*waiters("low", "normal", "critical", "high", "critical"))
    assert picked(order) == ["critical 2", "critical 4", "high 3", "normal 1", "low 0"]


def test_every_so_many_picks_the_oldest_of_all_is_served():
    order = order_of(*waiters("low", *["critical"] * 4, "low"), fair_every=3)
    assert picked(order) == [
        "critical 1", "critical 2", "low 0", "critical 3", "critical 4", "low 5",
    ]  # fmt: skip


@given(
    rank=st.integers(0, 3),
    before=st.lists(st.integers(0, 3), max_size=8),
    after=st.lists(st.integers(0, 3), max_size=20),
    fair_every=st.integers(1, 6),
    picks_before=st.integers(0, 9),
)
def test_a_job_starts_within_its_bound_whatever_comes_behind_it(
    rank, before, after, fair_every, picks_before
):
    order = order_of(fair_every=fair_every)
    for _ in range(picks_before):
        order.push(Waiter("earlier", 0))
        order.ended(order.pick(0).rank)
    for each in before:
        order.push(Waiter("older", each))
    mine = Waiter("mine", rank)
    order.push(mine)
    coming = iter(after)
    bound = fair_every * (len(before) + 1)
    for _ in range(bound):
        for each in (next(coming, 0), 0):
            order.push(Waiter("younger", each))
        found = order.pick(0)
        order.ended(found.rank)
        if found is mine:
            break
    else:
        pytest.fail(f"not within {bound} picks")


def test_no_class_but_the_highest_holds_all_workers():
    assert shares_of(16) == (16, 14, 12, 8)
    assert shares_of(1) == (1, 1, 1, 1)
    assert shares_of(2) == (2, 2, 2, 1)
    order = order_of(*waiters(*["low"] * 9, *["normal"] * 9, "critical", "critical", "critical"))
    at_work = []
    while (waiter := order.pick(0)) is not None:
        at_work.append(PRIORITIES[waiter.rank])
    assert at_work.count("low") == 4
    assert at_work.count("normal") == 6
    assert at_work.count("critical") == 3
    order.ended(RANK_OF["low"])
    assert order.pick(0).name == "low 4"


def test_what_waits_for_a_thread_keeps_nobody_else_waiting():
    sync = [Waiter(f"sync {n}", is_threaded=True) for n in range(3)]
    order = order_of(*sync, Waiter("async"), threads_max=2)
    assert [order.pick(0).name for _ in range(3)] == ["sync 0", "sync 1", "async"]
    order.ended(2)  # its job is over, its thread goes on
    assert order.pick(0) is None
    order.thread_ended()
    assert order.pick(0).name == "sync 2"


def test_async_and_sync_jobs_of_a_class_take_turns_by_age():
    order = order_of(Waiter("a"), Waiter("b", is_threaded=True), Waiter("c"))
    assert picked(order) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("level", "begin"),
    [
        pytest.param(0, "critical high normal low", id="normal: nothing pauses"),
        pytest.param(1, "critical high normal", id="busy: low jobs pause"),
        pytest.param(2, "critical high", id="overloaded: normal ones too"),
        pytest.param(7, "critical high", id="a level beyond the worst is as the worst"),
    ],
)
def test_less_urgent_classes_pause_while_the_app_is_busy(level, begin):
    order = order_of(*waiters(*PRIORITIES))
    earlier = Waiter("low that may begin now", 3)
    order.push(earlier)
    if level:
        assert order.pick(0, paused_from(level)) is not None  # one of those that pause: not again
    else:
        order.discard(earlier)
    paused = paused_from(level)
    names = [name.split()[0] for name in picked(order, paused=paused)]
    assert names == begin.split()


def test_of_those_that_pause_the_oldest_begins_now_and_then():
    order = order_of(*waiters("low", "normal", "low"), *waiters(*["critical"] * 5))
    paused = paused_from(2)
    begun = []
    for now_us in (0, 1, 999, 1000, 1001, 2000, 2001):
        waiter = order.pick(now_us, paused)
        begun.append(waiter.name)
        order.ended(waiter.rank)
    assert begun == [
        "low 0", "critical 0", "critical 1", "normal 1", "critical 2", "low 2", "critical 3",
    ]  # fmt: skip


def test_a_pause_is_seen_only_where_somebody_pauses():
    order = order_of(*waiters("critical", "normal"))
    assert order.has_paused(paused_from(2))
    assert not order.has_paused(paused_from(1))
    assert not order.has_paused(paused_from(0))


@pytest.mark.parametrize("seed", range(20))
def test_lines_keep_no_more_than_twice_what_waits(seed):
    draw = Random(seed)
    order = order_of()
    alive = []
    for _ in range(600):
        if alive and draw.random() < 0.45:
            order.discard(alive.pop(draw.randrange(len(alive))))
        else:
            alive.append(Waiter("", draw.randrange(4)))
            order.push(alive[-1])
    kept = sum(len(line) for pair in order._lines for line in pair)
    assert kept <= 2 * len(alive) + 4 * 65
    assert order.count == len(alive) == sum(order.waiting)
    assert sorted(map(id, order.take_all())) == sorted(map(id, alive))
    assert (order.count, order.pick(0)) == (0, None)


def test_whoever_left_the_line_is_not_picked():
    first, second, third = waiters("low", "low", "low")
    order = order_of(first, second, third)
    order.discard(first)
    order.discard(second)
    assert picked(order) == ["low 2"]
