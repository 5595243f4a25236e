"""Lazy values: made once, at the first use, by threads or by tasks."""

import gc
import traceback
from threading import Event, Thread, get_ident

import anyio
import pytest

from perf_middleware.memory_watch.structures.stores.lazy import AsyncLazyValue, LazyValue
from tests.memory_watch.structures.test_lru import wait_for
from tests.memory_watch.structures.threads import together


class Thing:
    pass


class Fails:
    """Raises for the first `times` calls."""

    def __init__(self, times):
        self.times = times
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.times:
            raise LookupError(self.calls)
        return self.calls

    async def later(self):
        return self()


def test_nothing_is_made_before_it_is_used():
    made = []
    lazy = LazyValue(lambda: made.append(1) or Thing())
    assert (made, lazy.is_made) == ([], False)
    assert lazy.get() is lazy.get()
    assert (made, lazy.is_made, lazy.makings) == ([1], True, 1)


def test_none_is_made_once():
    made = []
    lazy = LazyValue(lambda: made.append(1))
    assert lazy.get() is lazy.get() is None
    assert made == [1]


def test_it_is_made_anew_after_a_reset():
    lazy = LazyValue(Thing)
    first = lazy.get()
    assert lazy.reset() is True
    assert lazy.reset() is False
    assert lazy.get() is not first


def test_a_failure_is_not_kept():
    lazy = LazyValue(Fails(1))
    with pytest.raises(LookupError):
        lazy.get()
    assert (lazy.get(), lazy.failures) == (2, 1)


def test_a_failure_is_kept_where_that_is_asked_for():
    make = Fails(1)
    lazy = LazyValue(make, keep_failure=True)
    for _ in range(3):
        with pytest.raises(LookupError):
            lazy.get()
    assert make.calls == 1
    lazy.reset()
    assert lazy.get() == 2


def frames_of(error):
    return sum(1 for _ in traceback.walk_tb(error.__traceback__))


def test_a_kept_failure_does_not_grow_with_each_who_gets_it():
    """It kept a traceback with the frames of everybody who ever had it."""
    lazy, lengths = LazyValue(Fails(1), keep_failure=True), set()
    for _ in range(5):
        with pytest.raises(LookupError) as failed:
            lazy.get()
        lengths.add(frames_of(failed.value))
    assert max(lengths) < 10
    assert len(lengths) <= 2  # the first one made it, the others did not


def test_weakly_it_is_kept_while_somebody_holds_it():
    lazy = LazyValue(Thing, weak=True)
    thing = lazy.get()
    assert lazy.get() is thing
    del thing
    gc.collect()
    assert not lazy.is_made
    lazy.get()
    assert lazy.makings == 2
    with pytest.raises(TypeError, match="weakly referenced"):
        LazyValue(lambda: 5, weak=True).get()


def test_what_is_reset_while_it_is_made_is_handed_out_and_not_kept():
    def make():
        lazy.reset()
        return Thing()

    lazy = LazyValue(make)
    assert isinstance(lazy.get(), Thing)
    assert not lazy.is_made


def test_a_value_that_needs_itself_is_an_error_and_no_deadlock():
    def make():
        return lazy.get()

    lazy = LazyValue(make)
    with pytest.raises(RuntimeError, match="waits for itself"):
        lazy.get()


def test_threads_share_one_making():
    may_end, made = Event(), []

    def make():
        made.append(get_ident())
        may_end.wait(10)
        return Thing()

    lazy = LazyValue(make)
    Thread(target=lambda: (wait_for(lambda: lazy._flights._waits), may_end.set())).start()
    values = together(6, lambda _: lazy.get())
    assert len(made) == 1
    assert len(set(map(id, values))) == 1


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
def test_tasks_share_one_making(backend):
    made = []

    async def make():
        made.append(1)
        await anyio.sleep(0.01)
        return Thing()

    async def main():
        lazy, got = AsyncLazyValue(make), []

        async def ask():
            got.append(await lazy.get())

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        got.append(await lazy.get())
        assert lazy.is_made
        return got

    got = anyio.run(main, backend=backend)
    assert (len(made), len(got), len(set(map(id, got)))) == (1, 6, 1)


@BACKENDS
def test_where_the_leading_task_is_cancelled_another_leads(backend):
    made = []

    async def make():
        made.append(1)
        if len(made) == 1:
            await anyio.sleep(30)
        return "made"

    async def main():
        lazy, got = AsyncLazyValue(make), []
        leader = anyio.CancelScope()

        async def lead():
            with leader:
                await lazy.get()

        async def ask():
            got.append(await lazy.get())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lead)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(ask)
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            leader.cancel()
        return got

    assert anyio.run(main, backend=backend) == ["made", "made"]
    assert len(made) == 2


@BACKENDS
def test_a_failure_reaches_the_tasks_that_waited_and_is_not_kept(backend):
    make = Fails(1)

    async def slowly():
        await anyio.sleep(0.01)
        return make()

    async def main():
        lazy, errors = AsyncLazyValue(slowly), []

        async def ask():
            try:
                await lazy.get()
            except LookupError as exc:
                errors.append(exc)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
        return len(errors), await lazy.get(), lazy.failures

    assert anyio.run(main, backend=backend) == (3, 2, 1)


@BACKENDS
def test_tasks_and_what_they_may_ask_of_a_lazy_value(backend):
    async def main():
        kept = AsyncLazyValue(Fails(1).later, keep_failure=True)
        for _ in range(2):
            with pytest.raises(LookupError):
                await kept.get()
        lengths = set()
        for _ in range(5):
            with pytest.raises(LookupError) as failed:
                await kept.get()
            lengths.add(frames_of(failed.value))
        assert len(lengths) == 1
        assert kept.reset() is False
        assert await kept.get() == 2
        assert kept.reset() is True
        assert await kept.get() == 3

        async def own():
            return await itself.get()

        itself = AsyncLazyValue(own)
        with pytest.raises(RuntimeError, match="waits for itself"):
            await itself.get()

        async def overtaken():
            late.reset()
            return Thing()

        late = AsyncLazyValue(overtaken)
        assert isinstance(await late.get(), Thing)
        assert not late.is_made

        async def thing():
            return Thing()

        weak = AsyncLazyValue(thing, weak=True)
        held = await weak.get()
        assert await weak.get() is held
        del held
        gc.collect()
        assert not weak.is_made

    anyio.run(main, backend=backend)


def test_event_loops_in_several_threads_keep_one_value():
    async def make():
        await anyio.sleep(0.01)
        return Thing()

    lazy = AsyncLazyValue(make)
    got = together(3, lambda _: anyio.run(lazy.get))
    assert len(set(map(id, got))) == 1
    assert lazy.makings == 1


def test_a_finalizer_may_reset_an_async_one_in_the_middle_of_a_step():
    lazy, done = AsyncLazyValue(Thing), []

    def use():
        with lazy._lock:  # as a step has it, in the middle of which a collection begins
            done.append(lazy.reset())

    thread = Thread(target=use, daemon=True)
    thread.start()
    thread.join(5)
    assert done == [False]
