"""A million acquires, releases, cancellations, timeouts and failures lose no pooled object."""

import asyncio
import random
import sys
import threading

import pytest
import trio

from perf_middleware.errors import PerfMiddlewareError
from perf_middleware.memory_watch.pools.runtime.async_pool import AsyncObjectPool
from perf_middleware.memory_watch.pools.runtime.sync_pool import ObjectPool
from tests.memory_watch.pools.interleavings import (
    SIZE_MAX,
    JumpingLoop,
    Ledger,
    Thing,
    run,
)
from tests.repeated import MORE


def bare(chaos, clock):
    """The shortest ways: nothing is awaited but the line."""

    def close(thing):
        thing.close()

    return AsyncObjectPool(
        lambda: Thing(chaos.ledger), size_max=SIZE_MAX, close=close, clock=clock, wait_s=0.05
    )


def full(chaos, clock):
    """Every call waits, fails and is cancelled in the middle."""
    return AsyncObjectPool(
        chaos.create, size_max=SIZE_MAX, size_min=0, reset=chaos.reset, check=chaos.check,
        close=chaos.close, check_after_idle_s=0.0001, idle_s_max=0.01, age_s_max=1.0, uses_max=200,
        wait_s=0.5, step_s_max=0.0024, waiting_max=30, clock=clock,
    )  # fmt: skip


async def nothing_is_lost(make_pool, seed, steps):
    ledger, pool = await run(make_pool, seed, steps)
    status = pool.status()
    assert ledger.steps >= steps
    # Everybody has ended: what was made is idle, was closed once, or was forgotten by its user.
    pool._state.reap(0)
    assert (pool._state.lent, status["working"], status["waiting"], ledger.held) == (0, 0, 0, 0)
    assert ledger.made == pool._state.idle + ledger.closed + ledger.forgotten
    assert pool._state.size == pool._state.idle
    # The pool still is one: as many as it may have can be lent, and no more.
    things = [await pool.acquire() for _ in range(SIZE_MAX)]
    assert len({id(thing) for thing in things}) == SIZE_MAX
    for thing in things:
        await pool.release(thing)
    assert await pool.close() == 0
    assert ledger.made == ledger.closed + ledger.forgotten
    return ledger


@pytest.mark.parametrize(
    ("make_pool", "seed", "steps"),
    [
        pytest.param(bare, 1, 900_000 * MORE, id="waiting, timeouts and cancellation"),
        pytest.param(full, 2, 100_000 * MORE, id="and every call waits and fails"),
    ],
)
def test_no_object_is_lost_in_a_million_interleavings(make_pool, seed, steps):
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        ledger = runner.run(nothing_is_lost(make_pool, seed, steps))
    print(ledger.done, ledger.made, ledger.closed, ledger.forgotten)
    for what in ("lent", "timed out", "refused", "cancelled", "trimmed", "closed"):
        assert ledger.done[what] >= 10, what
    assert ledger.forgotten > steps / 1_000
    assert ledger.done["refused"] < steps / 5  # most of it is no mere knocking


def test_a_seed_gives_the_same_interleaving_again():
    ledgers = []
    for _ in range(2):
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            ledgers.append(runner.run(nothing_is_lost(full, 3, 2_000)))
    assert vars(ledgers[0]) == vars(ledgers[1])


def test_no_object_is_lost_on_trio():
    async def user(pool, rng, ledger, until):
        while ledger.steps < until:
            ledger.steps += 1
            with trio.move_on_after(rng.random() / 500) as scope:
                try:
                    async with pool.lend(timeout_s=rng.choice([None, 0, 0.001])) as thing:
                        thing.take()
                        try:
                            await trio.lowlevel.checkpoint()
                            if rng.random() < 0.1:
                                scope.cancel()
                                await trio.lowlevel.checkpoint()
                        finally:
                            thing.give()
                except PerfMiddlewareError:
                    await trio.lowlevel.checkpoint()

    async def main():
        rng, ledger = random.Random(4), Ledger()

        async def create():
            await trio.lowlevel.checkpoint()
            return Thing(ledger)

        async def reset(thing):
            await trio.lowlevel.checkpoint()

        pool = AsyncObjectPool(create, size_max=SIZE_MAX, reset=reset, close=Thing.close)
        async with pool:
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(user, pool, rng, ledger, 20_000)
            assert pool.status()["lent"] == pool.status()["working"] == ledger.held == 0
            assert pool.status()["idle"] == ledger.made - ledger.closed
        assert ledger.made == ledger.closed

    trio.run(main)


def test_no_object_is_lost_between_threads():
    loans, threads = 40_000, 8
    lock, failed = threading.Lock(), []
    ledger = Ledger()

    class Locked(Thing):
        """Its ledger is written by many threads."""

        __slots__ = ()

        def __init__(self, ledger):
            with lock:
                super().__init__(ledger)

        def take(self):
            with lock:
                super().take()

        def give(self):
            with lock:
                super().give()

        def close(self):
            with lock:
                super().close()

    def user(seed):
        rng = random.Random(seed)
        try:
            for _ in range(loans // threads):
                chance = rng.random()
                try:
                    with pool.lend(timeout_s=None if chance < 0.9 else chance / 1_000) as thing:
                        thing.take()
                        thing.give()
                        if chance < 0.01:
                            raise KeyError  # noqa: TRY301
                except (PerfMiddlewareError, KeyError, OSError):
                    pass
                thing = None  # a traceback that was logged may keep this frame
                if chance < 0.0005:
                    pool.trim(rng.random())
                elif chance < 0.0015:
                    pool.acquire()  # and forgets it
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)

    def reset(thing):
        if thing_rng.random() < 0.01:
            raise OSError

    thing_rng = random.Random(5)
    pool = ObjectPool(
        lambda: Locked(ledger), size_max=SIZE_MAX, reset=reset, check=lambda thing: True,
        close=Locked.close, uses_max=500, check_after_idle_s=0,
        drain_s=0.1,
    )  # fmt: skip
    switched_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with pool:
            running = [threading.Thread(target=user, args=(seed,)) for seed in range(threads)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            assert failed == []
            status = pool.status()
            assert status["lent"] == status["working"] == status["waiting"] == ledger.held == 0
            assert status["made"] == ledger.made
            assert status["idle"] + ledger.closed + status["removed"]["lost"] == ledger.made
            assert status["removed"]["lost"] > 0
            assert status["lends"] > loans / 2
    finally:
        sys.setswitchinterval(switched_s)
    assert ledger.closed + pool.status()["removed"]["lost"] == ledger.made
