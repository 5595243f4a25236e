"""The pool for async code, on asyncio, uvloop and trio: who gets what, what fails."""

import asyncio
import gc
import json
import logging
import math
import os
import pickle
import sys
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from perf_middleware.errors import PoolClosedError, PoolLineFullError, PoolTimeoutError
from perf_middleware.memory_watch.pools.figures import pool_families
from perf_middleware.memory_watch.pools.runtime.async_pool import AsyncObjectPool

LOOPS = ["asyncio", "trio", *(["uvloop"] if sys.platform != "win32" else [])]
BACKENDS = pytest.mark.parametrize("backend", LOOPS)
LATE_S = 20  # nobody waits for so long


class Connection:
    """Something that is made, checked, reset and closed with awaits, and may refuse each."""

    def __init__(self):
        self.is_alive = True
        self.is_closed = False
        self.resets = 0


class Server:
    """Makes connections and remembers them; `failing` and `hanging` are names of calls."""

    def __init__(self, *failing, hanging=()):
        self.failing = set(failing)
        self.hanging = set(hanging)
        self.made = []
        self.reached = anyio.Event()

    async def step(self, name):
        await anyio.sleep(0)
        if name in self.hanging:
            self.reached.set()
            await anyio.sleep(LATE_S)
        if name in self.failing:
            raise OSError(name)

    async def create(self):
        await self.step("create")
        self.made.append(Connection())
        return self.made[-1]

    async def check(self, connection):
        await self.step("check")
        return connection.is_alive

    async def reset(self, connection):
        await self.step("reset")
        connection.resets += 1

    async def close(self, connection):
        connection.is_closed = True
        await self.step("close")

    def pool(self, **options):
        given = {"size_max": 1, "reset": self.reset, "check": self.check, "close": self.close}
        return AsyncObjectPool(self.create, **{**given, "drain_s": 0.1, **options})

    @property
    def open(self):
        return sum(not connection.is_closed for connection in self.made)


def run(backend, main):
    async def bounded():
        with anyio.fail_after(LATE_S / 2):
            await main()

    if backend == "uvloop":
        anyio.run(bounded, backend_options={"use_uvloop": True})
    else:
        anyio.run(bounded, backend=backend)


def counts(pool):
    removed = pool.status()["removed"]
    return {reason: count for reason, count in removed.items() if count}


async def settled(condition):
    while not condition():
        await anyio.sleep(0.001)


# --- lent and given back ------------------------------------------------------------------------


@BACKENDS
def test_an_object_is_reset_and_used_again_and_closed_in_the_end(backend):
    async def main():
        server = Server()
        async with server.pool() as pool:
            async with pool.lend() as first:
                assert pool.status()["lent"] == 1
            async with pool.lend() as second:
                assert second is first
        assert [(each.resets, each.is_closed) for each in server.made] == [(2, True)]
        assert pool.status()["made"] == 1

    run(backend, main)


@BACKENDS
def test_calls_may_be_plain_functions(backend):
    async def main():
        closed = []
        pool = AsyncObjectPool(
            lambda: bytearray(8), size_max=1, reset=bytearray.clear, check=lambda each: True,
            close=closed.append, check_after_idle_s=0,
        )  # fmt: skip
        async with pool:
            for _ in range(2):
                async with pool.lend() as buffer:
                    assert isinstance(buffer, bytearray)
        assert closed == [bytearray()]

    run(backend, main)


@BACKENDS
def test_another_task_may_give_it_back(backend):
    async def main():
        async with Server().pool() as pool:
            thing = await pool.acquire()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.release, thing)
            assert pool.status()["idle"] == 1

    run(backend, main)


@BACKENDS
def test_giving_back_twice_or_what_is_not_lent_is_told(backend):
    async def main():
        async with Server().pool() as pool:
            thing = await pool.acquire()
            await pool.release(thing)
            for wrong in (thing, Connection()):
                with pytest.raises(ValueError, match="pool has not lent this Connection"):
                    await pool.release(wrong)
            assert (pool.status()["idle"], pool.status()["lent"]) == (1, 0)

    run(backend, main)


@BACKENDS
def test_the_least_size_is_made_at_once(backend):
    async def main():
        server = Server()
        async with server.pool(size_max=4, size_min=3) as pool:
            assert (len(server.made), pool.status()["idle"]) == (3, 3)

    run(backend, main)


@BACKENDS
def test_a_pool_that_cannot_make_its_least_size_does_not_open(backend):
    async def main():
        server = Server()

        async def create():
            if len(server.made) == 1:
                raise OSError("no more")
            return await server.create()

        pool = AsyncObjectPool(create, size_max=3, size_min=2, close=server.close)
        with pytest.raises(OSError, match="no more"):
            await pool.open()
        assert server.open == 0
        with pytest.raises(PoolClosedError):
            await pool.acquire()

    run(backend, main)


# --- waiting ------------------------------------------------------------------------------------


@BACKENDS
def test_who_waits_is_served_in_the_order_of_asking(backend):
    async def main():
        served = []

        async def ask(pool, name):
            async with pool.lend():
                served.append(name)
                await anyio.sleep(0)

        async with Server().pool() as pool:
            thing = await pool.acquire()
            async with anyio.create_task_group() as tasks:
                for name in range(5):
                    tasks.start_soon(ask, pool, name)
                    await settled(lambda: pool.status()["waiting"] == name + 1)  # noqa: B023
                await pool.release(thing)
                with suppress(PoolTimeoutError):  # it comes last, and does not get in between
                    await pool.acquire(timeout_s=0)
        assert served == [0, 1, 2, 3, 4]

    run(backend, main)


@BACKENDS
def test_a_wait_has_an_end(backend):
    async def main():
        async with Server().pool() as pool:
            thing = await pool.acquire()
            with pytest.raises(PoolTimeoutError, match="all of its objects are in use"):
                await pool.acquire(timeout_s=0.01)
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout_s=0)
            assert (pool.status()["timeouts"], pool.status()["waiting"]) == (2, 0)
            await pool.release(thing)
            assert await pool.acquire(timeout_s=math.inf) is thing
            await pool.release(thing)

    run(backend, main)


@BACKENDS
def test_the_end_of_a_wait_includes_the_making(backend):
    async def main():
        async with Server(hanging={"create"}).pool() as pool:
            with pytest.raises(PoolTimeoutError, match="create took"):
                await pool.acquire(timeout_s=0.01)
            assert pool.status()["working"] == 0

    run(backend, main)


@BACKENDS
def test_the_line_is_bounded(backend):
    async def main():
        async with Server().pool(waiting_max=0) as pool, pool.lend():
            with pytest.raises(PoolLineFullError):
                await pool.acquire()

    run(backend, main)


@BACKENDS
def test_a_cancelled_waiter_takes_nothing_with_it(backend):
    async def main():
        async with Server().pool() as pool:
            thing = await pool.acquire()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.acquire)
                await settled(lambda: pool.status()["waiting"])
                tasks.cancel_scope.cancel()
            assert pool.status()["waiting"] == 0
            await pool.release(thing)
            assert await pool.acquire(timeout_s=0) is thing
            await pool.release(thing)

    run(backend, main)


@BACKENDS
def test_one_cancelled_just_when_it_was_granted_passes_it_on(backend):
    async def main():
        served = []

        async def ask(pool, name):
            async with pool.lend():
                await anyio.lowlevel.checkpoint()
                served.append(name)

        async with Server().pool(reset=None) as pool:
            thing = await pool.acquire()
            async with anyio.create_task_group() as outer, anyio.create_task_group() as tasks:
                tasks.start_soon(ask, pool, "cancelled")
                await settled(lambda: pool.status()["waiting"] == 1)
                outer.start_soon(ask, pool, "next")
                await settled(lambda: pool.status()["waiting"] == 2)
                await pool.release(thing)  # without a turn of the loop: it is granted, not awake
                tasks.cancel_scope.cancel()
            assert (served, pool.status()["idle"]) == (["next"], 1)

    run(backend, main)


def test_a_task_cancelled_natively_when_it_was_granted_passes_it_on():
    async def main():
        async with Server().pool(reset=None) as pool:
            thing = await pool.acquire()
            first, second = (asyncio.create_task(pool.acquire()) for _ in range(2))
            await settled(lambda: pool.status()["waiting"] == 2)
            await pool.release(thing)
            first.cancel()
            assert await second is thing
            assert first.cancelled()
            await pool.release(thing)

    run("asyncio", main)


def test_a_waiting_task_that_is_thrown_away_takes_nothing_with_it():
    async def main():
        async with Server().pool(reset=None) as pool:
            thing = await pool.acquire()
            waiter = pool.acquire()
            waiter.send(None)  # it waits
            await pool.release(thing)  # it is granted
            waiter.close()
            assert pool.status()["idle"] == 1
            making = Server(hanging={"create"}).pool()
            await making.open()
            waiter = making.acquire()
            waiter.send(None)
            waiter.close()
            assert making.status()["working"] == 0

    run("asyncio", main)


def test_a_task_that_is_thrown_away_with_an_object_takes_no_place_with_it():
    async def main():
        async with Server().pool() as pool:

            async def ask():
                async with pool.lend():
                    await asyncio.sleep(LATE_S)

            async with pool.lend():
                pass
            thrown_away = ask()
            thrown_away.send(None)  # it has the object
            thrown_away.close()
            assert (counts(pool), pool.status()["working"]) == ({"interrupted": 1}, 0)
            waiter, thing = pool.acquire(timeout_s=LATE_S), await pool.acquire()
            waiter.send(None)
            slot = pool._state.give_back(thing)
            pool._state.put_back(slot, 0)  # it is granted
            await pool.close(drain_s=0)  # and would have to be closed
            waiter.close()
            assert pool._state.size == 0

    run("asyncio", main)


# --- what fails ---------------------------------------------------------------------------------


@BACKENDS
def test_who_asked_hears_that_making_failed_and_the_next_one_tries(backend):
    async def main():
        server = Server("create", hanging={"create"})
        failed, got = [], []

        async def ask(pool):
            try:
                got.append(await pool.acquire())
            except OSError as error:
                failed.append(error)

        async with server.pool(step_s_max=5) as pool:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, pool)
                await server.reached.wait()
                server.failing.clear()
                server.hanging.clear()
                tasks.start_soon(ask, pool)
                await settled(lambda: pool.status()["waiting"])
                tasks.cancel_scope.cancel()
            assert pool.status()["working"] == 0
            server.failing.add("create")
            await ask(pool)
            server.failing.clear()
            await ask(pool)
            assert (len(failed), len(got)) == (1, 1)
            assert pool.status()["failures"]["create"] == 1
            await pool.release(got[0])

    run(backend, main)


@BACKENDS
def test_what_cannot_be_reset_is_closed_and_its_place_is_free(backend, caplog):
    async def main():
        server = Server("reset", "close")
        async with server.pool() as pool:
            for _ in range(2):
                async with pool.lend():
                    pass
            assert counts(pool) == {"reset": 2}
            assert pool.status()["failures"] == {"create": 0, "check": 0, "reset": 2, "close": 2}
        assert server.open == 0
        said = [r.getMessage().partition(",")[0] for r in caplog.records]
        assert said == ["pool: reset failed", "pool: close failed"]

    with caplog.at_level(logging.WARNING, "perf_middleware.memory_watch"):
        run(backend, main)


@BACKENDS
@pytest.mark.parametrize("dies", ["says no", "raises", "hangs"])
def test_an_object_that_fails_its_check_is_replaced(backend, dies):
    async def main():
        server = Server()
        async with server.pool(check_after_idle_s=0, step_s_max=0.05) as pool:
            async with pool.lend() as first:
                pass
            if dies == "says no":
                first.is_alive = False
            elif dies == "raises":
                server.failing.add("check")
            else:
                server.hanging.add("check")
            async with pool.lend() as second:
                assert second is not first
            assert first.is_closed
            assert (counts(pool), pool.status()["failures"]["check"]) == ({"check": 1}, 1)

    run(backend, main)


@BACKENDS
def test_an_object_that_an_exception_passed_is_checked_before_its_next_use(backend):
    async def main():
        server = Server()
        async with server.pool() as pool:  # after 5 s of idleness, else
            with suppress(KeyError):
                async with pool.lend() as first:
                    first.is_alive = False
                    raise KeyError
            async with pool.lend() as second:
                assert second is not first

    run(backend, main)


@BACKENDS
def test_a_broken_one_is_closed(backend):
    async def main():
        server = Server()
        async with server.pool() as pool:
            thing = await pool.acquire()
            await pool.release(thing, broken=True)
            assert (thing.is_closed, counts(pool), pool.status()["idle"]) == (
                True, {"broken": 1}, 0,
            )  # fmt: skip

    run(backend, main)


# --- cancelled in the middle --------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("step", ["create", "check"])
def test_cancelled_while_it_is_made_or_checked(backend, step):
    async def main():
        server = Server()
        async with server.pool(check_after_idle_s=0) as pool:
            if step == "check":
                async with pool.lend():
                    pass
            server.hanging.add(step)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.acquire)
                await server.reached.wait()
                tasks.cancel_scope.cancel()
            status = pool.status()
            assert (status["idle"], status["lent"], status["working"]) == (0, 0, 0)
            assert counts(pool) == ({"interrupted": 1} if step == "check" else {})
            assert server.open == 0
            server.hanging.clear()
            async with pool.lend(timeout_s=5):
                pass

    run(backend, main)


@BACKENDS
def test_a_cancelled_block_still_gives_back_what_it_had(backend):
    async def main():
        server = Server()
        async with server.pool() as pool:
            with anyio.CancelScope() as scope:
                async with pool.lend() as thing:
                    scope.cancel()
                    await anyio.sleep(LATE_S)
            assert (thing.resets, pool.status()["idle"]) == (1, 1)

    run(backend, main)


@BACKENDS
def test_a_reset_or_close_that_hangs_ends_in_time(backend):
    async def main():
        server = Server(hanging={"reset", "close"})
        async with server.pool(step_s_max=0.02) as pool:
            with anyio.CancelScope() as scope:
                async with pool.lend():
                    scope.cancel()
                    await anyio.sleep(LATE_S)
            assert pool.status()["working"] == 0
        assert server.open == 0

    run(backend, main)


@pytest.mark.parametrize("step", ["reset", "close"])
def test_a_task_cancelled_natively_in_the_middle_of_giving_back(step):
    async def main():
        server = Server(hanging={step})
        async with server.pool() as pool:
            thing = await pool.acquire()
            task = asyncio.create_task(pool.release(thing, broken=step == "close"))
            await server.reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (thing.is_closed, pool.status()["working"]) == (True, 0)
            server.hanging.clear()
            async with pool.lend(timeout_s=5):
                pass

    run("asyncio", main)


# --- worn, cold, trimmed ------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now_us = 0

    def __call__(self):
        return self.now_us


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"uses_max": 1}, {"uses": 1}, id="used up"),
        pytest.param({"age_s_max": 7}, {"age": 1}, id="old"),
        pytest.param({"idle_s_max": 3}, {"idle": 1}, id="cold"),
    ],
)
def test_what_is_worn_is_replaced(options, reason):
    async def main():
        server, clock = Server(), Clock()
        async with server.pool(clock=clock, **options) as pool:
            async with pool.lend():
                pass
            clock.now_us += 10_000_000
            async with pool.lend():
                pass
            assert counts(pool) == {**reason} | ({"uses": 2} if "uses" in reason else {})
            assert server.open == pool.status()["idle"]

    run("asyncio", main)


@BACKENDS
def test_cold_ones_go_when_others_come_back(backend):
    async def main():
        server, clock = Server(), Clock()
        async with server.pool(size_max=3, idle_s_max=60, clock=clock, reset=None) as pool:
            for thing in [await pool.acquire() for _ in range(3)]:
                await pool.release(thing)
            for _ in range(4):  # one is always enough: the hot one
                clock.now_us += 20_000_000
                async with pool.lend():
                    pass
            assert (counts(pool), pool.status()["idle"], server.open) == ({"idle": 2}, 1, 1)

    run(backend, main)


@BACKENDS
def test_memory_that_is_short_is_told_to_trim(backend):
    async def main():
        server = Server()
        async with server.pool(size_max=4, size_min=4) as pool:
            async with pool.lend() as lent:
                assert await pool.trim(0.5) == 2
                assert await pool.trim(1.0) == 1
                assert not lent.is_closed
            assert counts(pool) == {"trim": 3}
            assert server.open == 1

    run(backend, main)


# --- closing ------------------------------------------------------------------------------------


@BACKENDS
def test_those_who_wait_when_it_closes_are_told(backend):
    async def main():
        told = []

        async def ask(pool):
            try:
                await pool.acquire()
            except PoolClosedError as error:
                told.append(str(error))

        pool = Server().pool()
        await pool.open()
        thing = await pool.acquire()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask, pool)
            await settled(lambda: pool.status()["waiting"] == 3)
            assert await pool.close(drain_s=0) == 1
        assert told == ["pool is not open"] * 3
        await pool.release(thing)
        assert (thing.is_closed, pool.status()["lent"]) == (True, 0)

    run(backend, main)


@BACKENDS
def test_closing_waits_for_what_is_lent(backend):
    async def main():
        server = Server()
        pool = server.pool(size_max=2)
        await pool.open()
        thing = await pool.acquire()
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(lambda: pool.close(drain_s=LATE_S))
            await settled(lambda: not pool.status()["is_open"])
            await pool.release(thing)
        assert (server.open, counts(pool)) == (0, {"closed": 1})
        async with pool, pool.lend():  # and it can be opened again
            assert len(server.made) == 2

    run(backend, main)


@BACKENDS
def test_what_is_made_while_it_closes_is_closed_and_who_asked_is_told(backend):
    async def main():
        server = Server(hanging={"create"})
        pool = server.pool()
        await pool.open()
        told = []

        async def ask():
            try:
                await pool.acquire()
            except PoolClosedError as error:
                told.append(error)

        async def create():
            server.reached.set()
            await anyio.sleep(0.01)
            return await Server.create(server)

        server.hanging.clear()
        pool._functions["create"] = create
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await server.reached.wait()
            assert await pool.close(drain_s=LATE_S) == 0
        assert (len(told), len(server.made), server.open) == (1, 1, 0)

    run(backend, main)


def test_who_still_holds_an_object_when_it_closes_is_named(caplog):
    async def main():
        pool = Server().pool(names_holders=True)
        await pool.open()
        thing = await pool.acquire()
        await pool.close(drain_s=0)
        await pool.release(thing)

    run("asyncio", main)
    assert "test_async_pool.py" in caplog.text
    assert "main" in caplog.text


# --- forgotten, forked --------------------------------------------------------------------------


@BACKENDS
def test_an_object_that_is_never_given_back_frees_its_place(backend):
    async def main():
        async with Server().pool(names_holders=True, close=None) as pool:
            pool._functions["create"] = Connection

            async def forgets():
                await pool.acquire()

            await forgets()
            gc.collect()
            async with pool.lend(timeout_s=5):
                pass
            assert counts(pool) == {"lost": 1}
            [by] = pool.status()["lost_by"]
            assert by.endswith("forgets")

    run(backend, main)


@BACKENDS
def test_who_waits_gets_the_place_of_one_that_is_forgotten(backend):
    async def main():
        pool = AsyncObjectPool(Connection, size_max=1)
        async with pool:
            held = [await pool.acquire()]
            got = []

            async def ask():
                async with pool.lend() as thing:
                    got.append(thing)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await settled(lambda: pool.status()["waiting"])
                held.clear()
                gc.collect()
            assert len(got) == 1

    run(backend, main)


def test_one_forgotten_after_its_loop_was_closed_does_not_keep_the_pool_shut():
    pool = AsyncObjectPool(Connection, size_max=1)
    held = []

    async def leaves_one_out():
        await pool.open()
        held.append(await pool.acquire())
        assert await pool.close(drain_s=0) == 1

    async def uses():
        async with pool, pool.lend(timeout_s=0.1):
            pass

    asyncio.run(leaves_one_out())
    held.clear()
    asyncio.run(uses())
    assert pool.status()["removed"]["lost"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_leaves_what_belongs_to_its_parent_alone(monkeypatch):
    async def main():
        server = Server()
        pool = server.pool(size_max=2)
        await pool.open()
        lent = await pool.acquire()
        await pool.release(await pool.acquire())
        pid = os.getpid()
        monkeypatch.setattr(
            "perf_middleware.memory_watch.pools.runtime.async_pool._getpid", lambda: pid + 1
        )
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)
        await pool.release(lent)
        with pytest.raises(PoolClosedError):  # its loop was the parent's
            await pool.acquire()
        async with pool, pool.lend() as own:
            assert own not in server.made[:2]
        assert [each.is_closed for each in server.made] == [False, False, True]

    run("asyncio", main)


# --- what it tells ------------------------------------------------------------------------------


def test_its_status_is_json_and_names_who_holds_what():
    async def main():
        async with Server().pool(names_holders=True, name="database") as pool, pool.lend():
            status = json.loads(json.dumps(pool.status()))
        assert (status["name"], status["size_max"], status["lent"]) == ("database", 1, 1)
        [holder] = status["holders"]
        assert holder["held_s"] >= 0
        assert "test_async_pool.py" in holder["by"]

    run("asyncio", main)


def test_the_figures_of_several_pools_are_one_set_of_families():
    async def main():
        async with Server().pool(name="a") as first, Server().pool(name="b") as second:
            async with first.lend():
                pass
            told = {
                family.name: family for family in pool_families([first.reading(), second.reading()])
            }
            lends = {p.labels.text: p.value for p in told["perf_memory_pool_lends"].points}
            assert lends == {'pool="a"': 1, 'pool="b"': 0}
            first.reset_counts()
            [lends] = [f for f in first.families() if f.name == "perf_memory_pool_lends"]
            assert [point.value for point in lends.points] == [0]

    run("asyncio", main)


@pytest.mark.parametrize(
    "error",
    [PoolClosedError("p"), PoolTimeoutError("p", "wait", 1.5), PoolLineFullError("p", 7)],
    ids=lambda error: type(error).__name__,
)
def test_its_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_it_is_not_opened_twice():
    async def main():
        async with Server().pool() as pool:
            with pytest.raises(RuntimeError, match="pool is open"):
                await pool.open()

    run("asyncio", main)
