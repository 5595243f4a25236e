"""The pool for threads: who gets what, what fails, what is forgotten."""

import gc
import logging
import os
import threading
import time

import pytest

from perf_middleware.errors import PoolClosedError, PoolLineFullError, PoolTimeoutError
from perf_middleware.memory_watch.pools.runtime.sync_pool import ObjectPool


class Thing:
    is_alive = True
    is_closed = False

    def close(self):
        self.is_closed = True


def until(condition):
    end_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.0005)


def in_threads(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def removed(pool):
    return {reason: count for reason, count in pool.status()["removed"].items() if count}


@pytest.fixture
def pool():
    pool = ObjectPool(Thing, size_max=1, close=Thing.close, drain_s=0.05)
    with pool:
        yield pool


def test_an_object_is_lent_again(pool):
    with pool.lend() as first:
        pass
    with pool.lend() as second:
        assert second is first
    assert (pool.status()["made"], pool.status()["lends"]) == (1, 2)


def test_threads_are_served_in_the_order_of_asking(pool):
    served, threads = [], []

    def asks(name):
        def ask():
            with pool.lend():
                served.append(name)

        return ask

    thing = pool.acquire()
    for name in range(6):
        threads += in_threads(asks(name))
        until(lambda: pool.status()["waiting"] == name + 1)  # noqa: B023
    pool.release(thing)
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4, 5]


def test_another_thread_may_give_it_back(pool):
    thing = pool.acquire()
    [thread] = in_threads(lambda: pool.release(thing))
    thread.join()
    assert pool.status()["idle"] == 1


@pytest.mark.parametrize("timeout_s", [0, 0.01])
def test_a_wait_has_an_end(pool, timeout_s):
    with pool.lend(), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout_s=timeout_s)
    assert (pool.status()["waiting"], pool.status()["timeouts"]) == (0, 1)


def test_the_line_is_bounded():
    with (
        ObjectPool(Thing, size_max=1, waiting_max=0) as pool,
        pool.lend(),
        pytest.raises(PoolLineFullError),
    ):
        pool.acquire()


def test_those_who_wait_when_it_closes_are_told(pool):
    told = []

    def ask():
        try:
            pool.acquire()
        except PoolClosedError as error:
            told.append(error)

    thing = pool.acquire()
    threads = in_threads(ask, ask)
    until(lambda: pool.status()["waiting"] == 2)
    assert pool.close(drain_s=0) == 1
    for thread in threads:
        thread.join()
    pool.release(thing)
    assert (len(told), thing.is_closed, removed(pool)) == (2, True, {"closed": 1})


def test_closing_waits_for_what_is_lent(pool):
    thing = pool.acquire()
    left = []
    threads = in_threads(*[lambda: left.append(pool.close(drain_s=10))] * 2)
    until(lambda: not pool.status()["is_open"])
    time.sleep(0.01)
    pool.release(thing)
    for thread in threads:
        thread.join()
    assert left == [0, 0]


def test_making_checking_and_closing_hold_up_nobody_else():
    entered, go_on = threading.Event(), threading.Event()

    def create():
        if not entered.is_set():
            entered.set()
            assert go_on.wait(10)
        return Thing()

    with ObjectPool(create, size_max=2) as pool:
        threads = in_threads(lambda: pool.release(pool.acquire()))
        assert entered.wait(10)
        with pool.lend(timeout_s=0.5):
            pass
        go_on.set()
        threads[0].join()
        assert pool.status()["idle"] == 2


def test_who_asked_hears_that_making_failed_and_the_next_one_tries():
    failing = [OSError("first")]

    def create():
        if failing:
            raise failing.pop()
        return Thing()

    with ObjectPool(create, size_max=1) as pool:
        with pytest.raises(OSError, match="first"):
            pool.acquire()
        with pool.lend():
            assert pool.status()["failures"]["create"] == 1


def test_what_fails_its_check_or_reset_is_replaced(caplog):
    def reset(thing):
        if not thing.is_alive:
            raise OSError

    pool = ObjectPool(
        Thing, size_max=1, reset=reset, check=lambda thing: thing.is_alive, close=Thing.close,
        check_after_idle_s=0,
    )  # fmt: skip
    with pool, caplog.at_level(logging.WARNING, "perf_middleware.memory_watch"):
        with pool.lend() as first:
            pass
        first.is_alive = False
        with pool.lend() as second:
            second.is_alive = False
        with pool.lend() as third:
            pass
        assert (first.is_closed, second.is_closed, third.is_closed) == (True, True, False)
        assert removed(pool) == {"check": 1, "reset": 1}


def test_memory_that_is_short_is_told_to_trim():
    with ObjectPool(Thing, size_max=4, size_min=3, close=Thing.close) as pool:
        assert (pool.trim(0.5), pool.status()["idle"]) == (2, 1)
        assert pool.trim() == 1
        assert pool.trim() == 0


def test_a_place_whose_object_is_forgotten_goes_to_who_waits(pool):
    held, got = [pool.acquire()], []

    def ask():
        with pool.lend() as thing:
            got.append(thing is not None)

    [thread] = in_threads(ask)
    until(lambda: pool.status()["waiting"])
    held.clear()
    gc.collect()
    thread.join(10)
    assert (got, removed(pool)) == ([True], {"lost": 1})


def test_an_object_that_is_forgotten_while_the_lock_is_held_is_noticed_afterwards(pool):
    held = [pool.acquire()]
    with pool._held:
        held.clear()
        gc.collect()
        assert pool._state.lent == 1
    assert pool._state.lent == 0


def test_giving_back_twice_is_told(pool):
    thing = pool.acquire()
    pool.release(thing)
    with pytest.raises(ValueError, match="pool has not lent this Thing"):
        pool.release(thing)


def test_its_status_names_the_line_that_holds_an_object():
    with ObjectPool(Thing, size_max=1, names_holders=True) as pool, pool.lend():
        [holder] = pool.status()["holders"]
    assert "test_sync_pool.py" in holder["by"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # other threads may run
def test_a_forked_child_has_objects_of_its_own_and_leaves_its_parents_alone():
    closed = []
    with ObjectPool(Thing, size_max=2, close=closed.append) as pool:
        lent = pool.acquire()
        idle = pool.acquire()
        pool.release(idle)
        assert pool._lock.begin()  # as another thread may have it
        child = os.fork()
        if not child:
            try:
                pool.release(lent)
                mine = [pool.acquire(timeout_s=0.1) for _ in range(2)]
                fine = not closed and lent not in mine and idle not in mine
                os._exit(0 if fine else 1)
            finally:
                os._exit(2)
        pool._lock.end()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        pool.release(lent)
        assert pool.status()["idle"] == 2


def test_a_finalizer_in_the_middle_of_a_step_gives_back_when_that_is_over():
    """A collection may run one at any line, also where its thread has the pool's lock."""
    due, told = [], []

    def clock():  # asked under the lock, where a collection could begin as well
        while due:
            due.pop()()
        return 0

    def ask():
        with pytest.raises(RuntimeError, match="finalizer"):
            pool.acquire()

    def use():
        with pool:
            first, second = pool.acquire(), pool.acquire()
            due.append(lambda: pool.release(first))
            third = pool.acquire()
            assert (pool.status()["idle"], pool.status()["lent"]) == (1, 2)
            due.append(lambda: pool.release(first))  # a second time: nobody else hears of it
            pool.release(second)
            due.append(ask)
            pool.release(third)
            assert (pool.status()["idle"], pool.status()["lent"]) == (3, 0)
            told.append("all")

    pool = ObjectPool(Thing, size_max=3, close=Thing.close, clock=clock)
    thread = threading.Thread(target=use, daemon=True)  # it would hang for ever
    thread.start()
    thread.join(5)
    assert told == ["all"]


def test_what_was_put_back_unused_is_still_to_be_checked():
    now_us, checked = [0], []
    pool = ObjectPool(Thing, size_max=1, check=checked.append, clock=lambda: now_us[0])
    with pool:
        with pool.lend():
            pass
        now_us[0] += 60_000_000
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout_s=0)  # takes only what is ready
        with pool.lend() as thing:
            assert checked == [thing]
