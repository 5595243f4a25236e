"""Many calls of one key run the function once: who leads, who waits, who takes over."""

import asyncio
import contextlib
import contextvars
import threading
import time

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from tests.caching.values.stage import BACKENDS, Gate, made, run, settled

WHO = contextvars.ContextVar("who", default="nobody")


def gated(memo, gate, *, results=None, **options):
    """A cached function that waits at the gate, and who ran it."""
    ran = []

    @memo.cached(**({"ttl": 60} | options))
    async def load(user_id):
        ran.append(WHO.get())
        await gate.wait()
        if results is None:
            return [len(ran)]
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return load, ran


@BACKENDS
def test_ten_thousand_calls_run_the_function_once(backend):
    async def main():
        memo, _ = made()
        gate = Gate()
        load, ran = gated(memo, gate)
        got = []

        async def call():
            got.append(await load(5))

        async with anyio.create_task_group() as tasks:
            for _ in range(10_000):
                tasks.start_soon(call)
            await settled()
            assert memo._core.flights.waiting == 9_999
            gate.open.set()
        assert len(ran) == 1
        assert got == [[1]] * 10_000
        assert len({id(value) for value in got}) == 10_000, "each has one of his own"
        assert memo._core.flights.waiting == 0
        stats = load.stats()
        assert (stats.misses, stats.collapsed, stats.hits) == (1, 9_999, 0)

    run(main, backend)


@BACKENDS
def test_calls_of_other_keys_wait_for_nobody(backend):
    async def main():
        memo, _ = made()
        gate = Gate()
        load, ran = gated(memo, gate)
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(load, number)
            await settled()
            assert len(ran) == 5
            gate.open.set()

    run(main, backend)


@BACKENDS
def test_an_error_goes_to_all_who_wait_and_is_not_kept(backend):
    async def main():
        memo, _ = made()
        gate = Gate()
        load, ran = gated(memo, gate, results=[ValueError("broken"), "fine"])
        errors = []

        async def call():
            with pytest.raises(ValueError, match="broken") as caught:
                await load(5)
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(call)
            await settled()
            gate.open.set()
        assert (len(ran), len(errors)) == (1, 100)
        depth, frame = 0, errors[0].__traceback__
        while frame is not None:
            depth, frame = depth + 1, frame.tb_next
        assert depth < 15, "a shared error does not collect everybody's frames"
        assert await load(5) == "fine"

    run(main, backend)


@BACKENDS
def test_where_the_leader_is_cancelled_a_follower_takes_over(backend):
    async def main():
        memo, _ = made()
        gate = Gate()
        load, ran = gated(memo, gate)
        got = []

        async def call(who):
            WHO.set(who)
            got.append(await load(5))

        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as first:
                first.start_soon(call, "leader")
                await settled()
                for _ in range(50):
                    tasks.start_soon(call, "follower")
                await settled()
                first.cancel_scope.cancel()
            await settled()
            assert ran == ["leader", "follower"]
            gate.open.set()
        assert got == [[2]] * 50
        assert memo._core.flights._by_key == {}

    run(main, backend)


@BACKENDS
def test_a_follower_who_leaves_harms_nobody(backend):
    async def main():
        memo, _ = made()
        gate = Gate()
        load, ran = gated(memo, gate)
        got = []

        async def call():
            got.append(await load(5))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await settled()
            with anyio.move_on_after(0.01):
                await load(5)
            tasks.start_soon(call)
            await settled()
            gate.open.set()
        assert got == [[1], [1]]
        assert (len(ran), memo._core.flights.waiting) == (1, 0)

    run(main, backend)


def test_a_cancelled_task_is_cancelled_and_leaves_nothing_open():
    async def main():
        memo, _ = made()
        load, _ = gated(memo, Gate())
        task = asyncio.ensure_future(load(5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not memo._core.flights.is_open(load.key(5))

    run(main)


@BACKENDS
def test_the_function_runs_in_the_leaders_context(backend):
    async def main():
        memo, _ = made()
        seen = []

        @memo.cached(ttl=60)
        async def load(user_id):
            seen.append(WHO.get())
            WHO.set("changed by the function")
            return 1

        WHO.set("me")
        await load(5)
        assert seen == ["me"]
        assert WHO.get() == "changed by the function", "as without the cache"

    run(main, backend)


@BACKENDS
def test_who_waits_too_long_leads_a_run_of_his_own(backend):
    async def main():
        memo, _ = made(collapse_wait_s=0.5)
        never, done = Gate(), []

        @memo.cached(ttl=60)
        async def load(user_id):
            done.append(1)
            if len(done) == 1:
                await never.wait()
            await anyio.sleep(0.01)
            return len(done)

        got = []

        async def call():
            got.append(await load(5))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(call)
            with anyio.move_on_after(20):
                while len(got) < 19:
                    await anyio.sleep(0.01)
            assert got == [2] * 19, "one more run for all who waited, not one for each"
            never.open.set()
        assert len(done) == 2

    run(main, backend)


@BACKENDS
def test_a_function_that_calls_itself_does_not_wait_for_itself(backend):
    async def main():
        memo, _ = made()
        depth = []

        @memo.cached(ttl=60)
        async def load(user_id):
            depth.append(1)
            if len(depth) == 1:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(load, user_id)
                return await load(user_id)
            return "inner"

        assert await load(5) == "inner"
        assert await load(5) == "inner"
        assert len(depth) == 3

    run(main, backend)


def test_more_than_may_wait_run_the_function_themselves():
    async def main():
        memo, _ = made(waiting_max=2)
        gate = Gate()
        load, ran = gated(memo, gate)
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(load, 5)
            await settled()
            assert (len(ran), memo._core.flights.waiting) == (4, 2)
            gate.open.set()

    run(main)


@BACKENDS
@pytest.mark.parametrize("how", ["invalidate", "tags", "pattern", "everything", "refresh", "clear"])
def test_what_is_invalidated_while_it_is_made_is_not_kept(how, backend):
    async def main():
        memo, _ = made()
        gate = Gate()
        load, ran = gated(memo, gate, tags=("user:{user_id}",))
        got = []

        async def call():
            got.append(await load(5))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await settled()
            tasks.start_soon(call)
            await settled()
            if how == "invalidate":
                await load.invalidate(5)
            elif how == "tags":
                await memo.purge(tags="user:5")
            elif how == "pattern":
                await memo.clear(pattern="*user_id=5")
            elif how == "clear":
                await load.clear()
            elif how == "everything":
                await memo.clear()
            else:
                tasks.start_soon(load.refresh, 5)
            await settled()
            tasks.start_soon(call)
            await settled()
            assert len(ran) == 2, "who comes after it does not follow what was begun before"
            gate.open.set()
        assert got == [[2], [2], [2]] or got[0] in ([1], [2])
        value = await load(5)
        assert value == [2]
        assert len(ran) == 2
        assert memo._core.flights._by_tag == {}

    run(main, backend)


def test_what_is_invalidated_by_other_tags_is_kept():
    async def main():
        memo, _ = made()
        gate = Gate()
        load, ran = gated(memo, gate, tags=("user:{user_id}",))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, 5)
            await settled()
            for number in range(1000):
                await memo.purge(tags=f"user:{number + 6}")
                await memo.set(f"k{number}", 1, ttl=60)
            gate.open.set()
        await load(5)
        assert len(ran) == 1

    run(main)


# --- threads --------------------------------------------------------------------------------------


def in_threads(*calls):
    """Run the calls in threads of their own: what they returned or raised."""
    results = [None] * len(calls)

    def work(at, call):
        try:
            results[at] = call()
        except Exception as error:  # noqa: BLE001
            results[at] = error

    threads = [
        threading.Thread(target=work, args=(at, call), daemon=True) for at, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    return threads, results


def until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def gated_in_threads(memo, **options):
    gate, ran = threading.Event(), []

    @memo.cached(**({"ttl": 60} | options))
    def load(user_id):
        ran.append(user_id)
        assert gate.wait(10)
        if user_id < 0:
            raise ValueError("broken")
        return [len(ran)]

    return load, gate, ran


def test_threads_that_miss_the_same_run_the_function_once():
    memo, _ = made()
    load, gate, ran = gated_in_threads(memo)
    threads, results = in_threads(*[lambda: load(5)] * 20)
    until(lambda: memo._core.flights.waiting == 19)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert len(ran) == 1
    assert results == [[1]] * 20
    assert len({id(value) for value in results}) == 20
    assert (load.stats().collapsed, memo._core.flights.waiting) == (19, 0)


def test_an_error_goes_to_all_threads_that_wait():
    memo, _ = made()
    load, gate, ran = gated_in_threads(memo)
    threads, results = in_threads(*[lambda: load(-1)] * 5)
    until(lambda: memo._core.flights.waiting == 4)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert len(ran) == 1
    assert [str(error) for error in results] == ["broken"] * 5


def test_a_thread_that_waits_too_long_runs_the_function_itself():
    memo, _ = made(collapse_wait_s=0.02)
    load, gate, ran = gated_in_threads(memo)
    threads, results = in_threads(*[lambda: load(5)] * 3)
    until(lambda: len(ran) >= 2)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert all(isinstance(value, list) for value in results)


def test_a_sync_function_that_calls_itself_does_not_wait_for_itself():
    memo, _ = made()
    depth = []

    @memo.cached(ttl=60)
    def load(user_id):
        depth.append(1)
        return load(user_id) if len(depth) == 1 else "inner"

    assert load(5) == "inner"


def test_a_sync_function_on_the_event_loop_waits_for_no_thread():
    async def main():
        memo, _ = made()
        first = threading.Event()

        @memo.cached(ttl=60)
        def load(user_id):
            if not first.is_set():
                first.set()
                return anyio.from_thread.run(asked_on_loop)
            return "alone"

        async def asked_on_loop():
            return "asked " + load(5)

        assert await anyio.to_thread.run_sync(load, 5) == "asked alone"

    run(main)


def test_the_event_loop_is_not_held_up_until_a_thread_is_done():
    async def main():
        memo, _ = made()
        gate, ran = threading.Event(), []

        @memo.cached(ttl=60)
        def load(user_id):
            ran.append(user_id)
            return "alone" if len(ran) == 2 else gate.wait(10)

        threads, _ = in_threads(lambda: load(5))
        until(lambda: ran)
        assert load(5) == "alone"
        gate.set()
        threads[0].join(10)

    run(main)


def test_what_is_invalidated_while_a_thread_makes_it_is_not_kept():
    memo, _ = made()
    load, gate, ran = gated_in_threads(memo, tags=("user:{user_id}",))
    threads, _ = in_threads(lambda: load(5))
    until(lambda: ran)
    assert load.invalidate(5) is False
    gate.set()
    threads[0].join(10)
    assert load(5) == [2]


def test_one_cache_serves_two_event_loops_at_once():
    memo, _ = made()
    both = threading.Barrier(2, timeout=10)
    calls = []

    @memo.cached(ttl=60)
    async def load(user_id):
        calls.append(1)
        with contextlib.suppress(threading.BrokenBarrierError):
            await anyio.to_thread.run_sync(both.wait)
        return "x"

    threads, results = in_threads(*[lambda: asyncio.run(load(5))] * 2)
    for thread in threads:
        thread.join(10)
    assert results == ["x", "x"]
    assert len(calls) == 2
