"""Tracked functions keep their nature, and memory is theirs only where they ran alone."""

import asyncio
import functools
import inspect
import json
import threading
import time
import tracemalloc

import anyio
import pytest

from perf_middleware.errors import ConfigurationError
from perf_middleware.memory_watch.functions import decorators
from perf_middleware.memory_watch.functions.decorators import FunctionMemory
from perf_middleware.memory_watch.functions.function_figures import BLOCKS, CALLS_PER_BLOCK
from perf_middleware.memory_watch.tracing.runtime import AllocationTracer
from perf_middleware.resident import UNKNOWN

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Resident:
    """The resident memory that the test says."""

    def __init__(self):
        self.bytes = 1_000_000
        self.read = 0

    def __call__(self):
        self.read += 1
        return self.bytes


@pytest.fixture
def resident():
    return Resident()


@pytest.fixture
def memory(resident):
    yield FunctionMemory(read_resident=resident)
    assert not tracemalloc.is_tracing()


def value_of(memory, name, function):
    [family] = [family for family in memory.families() if family.name == name]
    [point] = [p for p in family.points if dict(p.labels.pairs) == {"function": function}]
    return point.value


def test_a_functions_growth_is_counted(memory, resident):
    @memory.track("load")
    def load(grow):
        resident.bytes += grow
        return grow

    assert [load(5_000), load(9_000), load(-20_000)] == [5_000, 9_000, -20_000]
    assert value_of(memory, "perf_memory_function_calls", "load") == 3
    assert value_of(memory, "perf_memory_function_increase_bytes", "load") == 14_000
    assert value_of(memory, "perf_memory_function_increase_max_bytes", "load") == 9_000
    assert value_of(memory, "perf_memory_function_overlapped", "load") == 0
    memory.reset_counts()
    assert memory.status()["load"]["calls"] == 0


@BACKENDS
def test_a_coroutine_function_stays_one(memory, resident, backend):
    @memory.track()
    async def load(grow: int = 1) -> int:
        """Loads."""
        await anyio.sleep(0)
        resident.bytes += grow
        return grow

    assert inspect.iscoroutinefunction(load)
    assert (load.__doc__, list(inspect.signature(load).parameters)) == ("Loads.", ["grow"])
    assert anyio.run(load, 7, backend=backend) == 7
    [(name, counts)] = memory.status().items()
    assert name.endswith("test_a_coroutine_function_stays_one.<locals>.load")
    assert counts["increase_bytes"] == 7


def test_methods_of_every_kind_are_tracked(memory, resident):
    class Shop:
        @memory.track("method")
        def method(self):
            return self

        @memory.track("static")
        @staticmethod
        def static(value):
            return value

        @memory.track("class")
        @classmethod
        def of_class(cls):
            return cls

    shop = Shop()
    assert (shop.method(), shop.static(1), Shop.of_class()) == (shop, 1, Shop)
    assert {name: of["calls"] for name, of in memory.status().items()} == {
        "method": 1, "static": 1, "class": 1,
    }  # fmt: skip


def test_an_exception_passes_and_the_call_counts(memory, resident):
    @memory.track("broken")
    def broken():
        resident.bytes += 10
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        broken()
    assert memory.status()["broken"]["increase_bytes"] == 10


def test_a_call_made_by_a_tracked_call_counts_in_both(memory, resident):
    @memory.track("inner")
    def inner():
        resident.bytes += 10

    @memory.track("outer")
    def outer():
        resident.bytes += 1
        inner()
        inner()

    outer()
    status = memory.status()
    assert (status["outer"]["increase_bytes"], status["inner"]["increase_bytes"]) == (21, 20)
    assert (status["outer"]["overlapped"], status["inner"]["overlapped"]) == (0, 0)


def test_recursion_counts_in_each_of_its_calls(memory, resident):
    @memory.track("dive")
    def dive(depth):
        resident.bytes += 1
        if depth:
            dive(depth - 1)

    dive(3)
    assert memory.status()["dive"]["increase_bytes"] == 4 + 3 + 2 + 1
    assert memory.status()["dive"]["overlapped"] == 0


@BACKENDS
def test_calls_beside_each_other_are_nobodys_alone(memory, resident, backend):
    @memory.track("load")
    async def load(seconds):
        await anyio.sleep(seconds)
        resident.bytes += 1_000

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, 0.05)
            tasks.start_soon(load, 0.01)
        await load(0)

    anyio.run(main, backend=backend)
    counts = memory.status()["load"]
    assert (counts["calls"], counts["overlapped"], counts["measured"]) == (3, 2, 1)
    assert counts["increase_bytes"] == 1_000


def test_calls_in_threads_beside_each_other_too(memory):
    inside, go_on = threading.Barrier(2), threading.Event()

    @memory.track("load")
    def load():
        inside.wait(20)
        go_on.wait(20)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert memory.status()["load"]["overlapped"] == 2


def test_a_call_beside_another_one_reads_nothing(memory, resident):
    @memory.track("inner")
    async def inner():
        await asyncio.sleep(0)

    @memory.track("outer")
    async def outer():
        await asyncio.gather(inner(), inner(), inner())

    asyncio.run(outer())
    assert resident.read == 2, "outer and the first inner, at their begin"


def test_a_task_that_outlives_its_parent_is_a_call_of_its_own(memory, resident):
    @memory.track("later")
    async def later():
        resident.bytes += 5

    async def main():
        @memory.track("begin")
        async def begin():
            return asyncio.get_running_loop().create_task(later())

        await (await begin())

    asyncio.run(main())
    assert memory.status()["later"] == {
        **memory.status()["begin"], "increase_bytes": 5, "increase_bytes_max": 5,
    }  # fmt: skip


def test_memory_that_nobody_tells_is_left_out(resident):
    memory = FunctionMemory(read_resident=resident)
    resident.bytes = UNKNOWN
    memory.track("load")(lambda: None)()
    counts = memory.status()["load"]
    assert (counts["calls"], counts["measured"], counts["overlapped"]) == (1, 0, 0)


def test_a_function_that_keeps_what_it_takes_looks_like_a_leak(memory, resident):
    def take():
        resident.bytes += 4_096

    track = memory.track("leaky")(take)
    for _ in range(CALLS_PER_BLOCK * (BLOCKS + 1)):
        track()
    names = {family.name: list(family.points) for family in memory.families()}
    assert names["perf_memory_function_keeps_growing"] == []
    track()
    assert value_of(memory, "perf_memory_function_keeps_growing", "leaky") == 1


# --- traced -------------------------------------------------------------------------------------

KEPT = []


def test_a_traced_call_tells_what_it_left_and_its_peak(memory, resident):
    @memory.track("load", traced=True, sample_every=2)
    def load():
        bytearray(5_000_000)
        KEPT.append(bytearray(100_000))

    load()
    counts = memory.status()["load"]
    assert 100_000 <= counts["traced_increase_bytes"] < 200_000
    assert 5_000_000 <= counts["traced_peak_bytes"] < 6_000_000
    assert not tracemalloc.is_tracing()
    load()
    load()
    counts = memory.status()["load"]
    assert (counts["calls"], counts["traced"], counts["measured"]) == (3, 2, 1)


def test_one_call_at_a_time_is_traced_and_calls_inside_are_not(memory):
    @memory.track("inner", traced=True, sample_every=1)
    def inner():
        return tracemalloc.is_tracing()

    @memory.track("outer", traced=True, sample_every=1)
    def outer():
        return inner()

    assert outer()
    assert (memory.status()["outer"]["traced"], memory.status()["inner"]["traced"]) == (1, 0)


def test_tracing_goes_off_where_a_traced_call_raises_or_is_cancelled(memory):
    @memory.track("broken", traced=True, sample_every=1)
    def broken():
        assert tracemalloc.is_tracing()
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        broken()
    assert not tracemalloc.is_tracing()

    @memory.track("slow", traced=True, sample_every=1)
    async def slow():
        await asyncio.sleep(30)

    async def main():
        task = asyncio.ensure_future(slow())
        await asyncio.sleep(0.05)
        assert tracemalloc.is_tracing()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(main())
    assert not tracemalloc.is_tracing()


def test_a_traced_call_that_takes_too_long_is_let_go_of(resident):
    memory = FunctionMemory(read_resident=resident, traced_s_max=0.05)

    @memory.track("slow", traced=True, sample_every=1)
    def slow():
        until = time.monotonic() + 120
        while tracemalloc.is_tracing() and time.monotonic() < until:
            time.sleep(0.01)
        return tracemalloc.is_tracing()

    assert not slow()
    assert memory.status()["slow"]["traced"] == 0


def test_a_trace_in_the_middle_makes_the_calls_figure_void(memory):
    @memory.track("load", traced=True, sample_every=1)
    def load():
        AllocationTracer(containers=False).trace(0.05)

    load()
    assert memory.status()["load"]["traced"] == 0


def test_tracing_that_the_user_has_on_stays_on(resident):
    memory = FunctionMemory(read_resident=resident)
    tracemalloc.start()
    try:
        memory.track("load", traced=True)(lambda: KEPT.append(bytearray(70_000)))()
        assert tracemalloc.is_tracing()
        assert 70_000 <= memory.status()["load"]["traced_increase_bytes"] < 100_000
    finally:
        tracemalloc.stop()


# --- what cannot be tracked ---------------------------------------------------------------------


def generator():
    yield


async def async_generator():
    yield


@pytest.mark.parametrize("what", [generator, async_generator, Resident, 5, None])
def test_what_is_no_function_is_refused(memory, what):
    with pytest.raises(ConfigurationError):
        memory.track("x")(what)
    assert memory.status() == {}


def test_track_is_called_first(memory):
    with pytest.raises(ConfigurationError, match="track is called first"):
        memory.track(generator)
    with pytest.raises(ConfigurationError, match="sample_every"):
        memory.track("x", sample_every=0)


def test_functions_beyond_the_limit_go_to_other_and_are_logged_once(resident, caplog):
    memory = FunctionMemory(read_resident=resident, functions_max=2)
    for number in range(5):
        memory.track(f"f{number}")(lambda: None)()
    assert {name: of["calls"] for name, of in memory.status().items()} == {
        "f0": 1, "f1": 1, "other": 3,
    }  # fmt: skip
    assert [record.name for record in caplog.records] == ["perf_middleware.memory_watch"]


def test_a_name_that_is_used_twice_is_one_row(memory):
    memory.track("load")(lambda: None)()
    memory.track("load")(lambda: None)()
    assert memory.status()["load"]["calls"] == 2


def test_the_real_memory_is_read_where_nothing_else_is_given():
    memory = FunctionMemory()

    @memory.track("load")
    def load():
        return bytearray(64_000_000)  # more than malloc ever keeps: always mapped anew

    kept = load()
    assert memory.status()["load"]["increase_bytes"] > 50_000_000
    assert len(kept) == 64_000_000


def test_contexts_that_live_on_keep_no_chain_of_calls(memory):
    @memory.track("load")
    def load():
        return decorators._CALL.get()

    calls = [load() for _ in range(3)]
    assert all(call.caller is None and call.has_ended for call in calls)
    assert decorators._CALL.get() is None


def test_a_finalizer_may_call_a_tracked_function_in_the_middle_of_a_step(memory):
    done = []

    @memory.track("close")
    def close():
        done.append(True)

    def use():
        with memory._lock:  # as a step has it, in the middle of which a collection begins
            close()

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(5)
    assert done == [True]


def test_where_no_thread_can_be_started_a_call_is_not_traced_and_goes_on(memory, monkeypatch):
    @memory.track("load", traced=True, sample_every=1)
    def load():
        return "loaded"

    def start(timer):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Timer, "start", start)
        assert load() == "loaded"
    assert load() == "loaded"
    counts = memory.status()["load"]
    assert (counts["calls"], counts["overlapped"], counts["traced"]) == (2, 0, 1)


def test_a_partial_is_called_after_its_function(memory):
    memory.track()(functools.partial(functools.partial(json.dumps, indent=1), sort_keys=True))({})
    assert memory.status()["json.dumps"]["calls"] == 1
