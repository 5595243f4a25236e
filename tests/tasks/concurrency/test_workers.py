"""Worker threads and processes: bounded, measured; what is left alone, what dies."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path

import anyio
import pytest

from perf_middleware.clock import monotonic_us
from perf_middleware.tasks.concurrency import (
    WorkerProcesses,
    WorkerThreads,
    to_process,
    to_thread,
    worker_families,
)
from perf_middleware.tasks.concurrency.errors import (
    WorkerDiedError,
    WorkersBusyError,
    WorkersTimeoutError,
)
from perf_middleware.tasks.concurrency.runtime import processes as processes_module
from perf_middleware.tasks.concurrency.runtime.places import Places
from perf_middleware.tasks.concurrency.runtime.processes import default_processes
from perf_middleware.tasks.concurrency.runtime.threads import _Call, default_threads
from perf_middleware.tasks.drivers.worker_process import begin
from tests.tasks.any_loop import at_once, on_each_loop, until

WAITS_S_MAX = 120
VALUE = ContextVar("value", default="none")


class Gate:
    """A sync function that waits, and counts what runs at once."""

    def __init__(self):
        self.opened = threading.Event()
        self.now = self.most = self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, value=None):
        with self._lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.opened.wait(WAITS_S_MAX)
        with self._lock:
            self.now -= 1
        return value


@on_each_loop
async def test_a_call_runs_in_a_thread_with_the_callers_contextvars():
    def tells():
        VALUE.set("changed in the thread")
        return threading.get_ident()

    VALUE.set("mine")
    assert await to_thread(tells) != threading.get_ident()
    assert VALUE.get() == "mine"
    assert await to_thread(VALUE.get) == "mine"
    with pytest.raises(ValueError, match="invalid literal"):
        await to_thread(int, "x")
    counts = default_threads().reading().counts
    assert (counts.calls, counts.failed) == (3, 1)


@on_each_loop
async def test_no_more_threads_run_than_the_limit_and_no_more_wait():
    gate = Gate()
    threads = WorkerThreads(limit=2, waiting_max=1)
    results = []

    async def one(number):
        results.append(await threads.run(gate, number))

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(one, number)
        await until(lambda: gate.now == 2 and threads.reading().waiting == 1)
        assert threads.reading().in_progress == 2
        with pytest.raises(WorkersBusyError):
            await threads.run(gate)
        gate.opened.set()
    assert sorted(results) == [0, 1, 2]
    counts = threads.reading().counts
    assert (gate.most, counts.waits, counts.refused) == (2, 1, 1)
    assert threads.reading().in_progress == 0


@on_each_loop
async def test_who_waits_too_long_for_a_thread_is_told():
    gate = Gate()
    threads = WorkerThreads(limit=1, name="files")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(threads.run, gate)
        await until(lambda: gate.now == 1)
        with pytest.raises(WorkersTimeoutError, match=r"files: none was free within 0\.01 s"):
            await threads.run(gate, wait_s=0.01)
        gate.opened.set()
    assert gate.calls == 1
    assert threads.reading().waiting == 0


@on_each_loop
async def test_a_thread_that_is_left_alone_keeps_its_place_until_it_ends():
    gate = Gate()
    threads = WorkerThreads(limit=1)
    await leave_one(gate, threads)
    assert threads.reading().in_progress == 1
    with pytest.raises(WorkersTimeoutError) as caught:
        await threads.run(gate, wait_s=0.01)
    assert caught.value.doing == "wait"
    gate.opened.set()
    await until(lambda: threads.reading().in_progress == 0)
    assert await threads.run(gate, 5) == 5
    assert gate.most == 1


async def leave_one(gate, threads):
    """Until a thread runs that was left: one that has not begun in time never does."""
    while gate.calls == 0:
        with pytest.raises(WorkersTimeoutError) as caught:
            await threads.run(gate, timeout_s=0.01)
        assert caught.value.doing == "run"
    assert threads.reading().counts.abandoned == 1


@on_each_loop
async def test_a_cancellation_waits_for_the_thread_unless_it_may_be_left():
    gate = Gate()
    threads = WorkerThreads(limit=2)
    for may_leave in (False, True):
        async with anyio.create_task_group() as tasks:

            async def one(may_leave=may_leave):
                await threads.run(gate, abandon_on_cancel=may_leave)

            tasks.start_soon(one)
            await until(lambda: gate.now == 1)
            tasks.cancel_scope.cancel()
            if not may_leave:
                gate.opened.set()
        if not may_leave:
            assert gate.now == 0
            gate.opened.clear()
    assert (gate.now, threads.reading().in_progress) == (1, 1)
    assert threads.reading().counts.abandoned == 1
    gate.opened.set()
    await until(lambda: threads.reading().in_progress == 0)


@on_each_loop
async def test_a_call_whose_caller_goes_before_its_thread_begins_never_runs():
    gate = Gate()
    places = Places(name="threads", limit=1, waiting_max=0, clock=monotonic_us)
    call = _Call(gate, ())
    here = await places.take(call, None)
    assert not call.leave(here)
    assert places.reading().in_progress == 0
    await anyio.to_thread.run_sync(call.run)
    assert gate.calls == 0


def test_asyncios_own_cancellation_leaves_the_thread_and_its_place_is_taken():
    gate = Gate()

    async def main():
        threads = WorkerThreads(limit=1)
        task = asyncio.create_task(threads.run(gate))
        await until(lambda: gate.now == 1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert threads.reading().in_progress == 1
        gate.opened.set()
        await until(lambda: threads.reading().in_progress == 0)

    asyncio.run(main())


def test_a_thread_that_outlives_its_loop_ends_in_silence():
    gate = Gate()
    threads = WorkerThreads(limit=1)

    async def main():
        await leave_one(gate, threads)

    asyncio.run(main())
    gate.opened.set()


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1, "waiting_max": -1}])
def test_a_wrong_bound_is_refused(wrong):
    with pytest.raises(ValueError, match="limit must be"):
        WorkerThreads(**wrong)


@pytest.mark.parametrize(
    "error",
    [
        WorkersBusyError("threads", 5),
        WorkersTimeoutError("threads", "run", 1.0),
        WorkerDiedError("processes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_the_figures_of_threads_and_processes_are_one_set_of_families():
    threads = WorkerThreads(limit=2, name="threads")
    processes = WorkerProcesses(limit=3, name="processes")
    families = list(worker_families([threads.reading(), processes.reading()]))
    assert {len(list(family.points)) for family in families} == {2}
    (limit,) = (family for family in families if family.name == "perf_workers_limit")
    assert [point.value for point in limit.points] == [2, 3]


# --- processes ------------------------------------------------------------------------------------


@pytest.fixture
def quick_start(monkeypatch):
    """A worker imports the main module again, and pytest's takes long."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


def on_trio(test):
    anyio.run(test, backend="trio")


def test_a_call_runs_in_a_process_that_stays_for_the_next(quick_start):
    async def main():
        first = await to_process(os.getpid)
        assert first != os.getpid()
        with pytest.raises(ValueError, match="invalid literal"):
            await to_process(int, "x")
        assert await to_process(os.getpid) == first
        counts = default_processes().reading().counts
        assert (counts.calls, counts.failed) == (3, 1)

    on_trio(main)


def test_a_process_that_dies_takes_its_own_call_and_the_next_has_a_new_one(quick_start):
    async def main():
        processes = WorkerProcesses(limit=2, name="sums")

        async def one(call):
            try:
                return await processes.run(*call)
            except WorkerDiedError as error:
                return str(error)

        told = await at_once(one, (os._exit, 3), (sum, [1, 2]))
        assert told == ["sums: the process died before it had answered", 3]
        assert await processes.run(sum, [3, 4]) == 7
        assert processes.reading().counts.died == 1
        assert processes.reading().in_progress == 0

    asyncio.run(main())


def test_a_timeout_or_a_cancellation_ends_the_process(quick_start):
    async def main():
        processes = WorkerProcesses(limit=1)
        with pytest.raises(WorkersTimeoutError):
            await processes.run(time.sleep, 10 * WAITS_S_MAX, timeout_s=0.5)
        with anyio.move_on_after(0.5) as scope:
            await processes.run(time.sleep, 10 * WAITS_S_MAX)
        assert scope.cancelled_caught
        assert processes.reading().in_progress == 0
        assert processes.reading().counts.timeouts == 1

    asyncio.run(main())


class TwoPartsError(Exception):
    """As many are: it cannot be made again of its `args`."""

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")


def prints_everywhere():
    os.write(2, b"x" * 70_000)  # four of them were more than the pipe and its reader hold
    subprocess.run(["/bin/echo", "not for the app"], check=True)
    return subprocess.run(["/bin/cat"], check=True, capture_output=True).stdout


def fails_in_two_parts():
    raise TwoPartsError(7, "seven")


def has_begun(path):
    Path(path).touch()
    while Path(path).exists():
        time.sleep(0.001)
    return "done"


def test_what_a_call_prints_reads_and_raises_stays_apart_from_the_talk(quick_start, tmp_path):
    async def main():
        processes = WorkerProcesses(limit=1, name="sums")
        pid = await processes.run(os.getpid)
        for _ in range(4):
            assert await processes.run(prints_everywhere) == b""
        with pytest.raises(ValueError, match="invalid literal") as caught:
            await processes.run(int, "x")
        assert "In the worker process:" in caught.value.__notes__[0]
        with pytest.raises(RuntimeError, match="TwoPartsError: 7 seven") as caught:
            await processes.run(fails_in_two_parts)
        assert "in fails_in_two_parts" in caught.value.__notes__[0]

        # Ctrl-C in a terminal goes to all processes: idle ones, and one at work.
        os.kill(pid, signal.SIGINT)
        busy = tmp_path / "busy"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(processes.run, has_begun, str(busy))
            await until(busy.exists)
            os.kill(pid, signal.SIGINT)
            busy.unlink()
        assert await processes.run(os.getpid) == pid

        with pytest.raises(WorkerDiedError):  # and not the end of the app
            await processes.run(sys.exit, 3)
        assert await processes.run(sum, [1, 2]) == 3

    asyncio.run(main())


class OnlyHere:
    """Cannot be made again where it arrives, as a function that only the app's process has."""

    def __reduce__(self):
        return int, ("not there",)


def test_a_call_that_does_not_arrive_fails_alone(quick_start):
    """Its error was the answer to every later call of that process."""

    async def main():
        processes = WorkerProcesses(limit=1)
        pid = await processes.run(os.getpid)
        for _ in range(3):
            with pytest.raises(ValueError, match="not there") as caught:
                await processes.run(max, OnlyHere(), "more")
            assert "In the worker process:" in caught.value.__notes__[0]
            assert [await processes.run(abs, -number) for number in (1, 2, 3)] == [1, 2, 3]
        assert await processes.run(os.getpid) == pid
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
            await processes.run(lambda: 1)  # and one that cannot leave
        assert processes.reading().counts.failed == 4
        assert await processes.run(os.getpid) == pid

    asyncio.run(main())


@on_each_loop
async def test_who_goes_while_a_process_starts_leaves_it_to_the_next():
    """anyio forgets a process whose starter is cancelled; its interpreter stayed for ever."""
    gate = anyio.Event()
    starts, cancelled = [], []

    async def run_sync(function, *args, **_):
        await anyio.lowlevel.checkpoint_if_cancelled()  # as anyio's own
        if function is not begin:
            await anyio.sleep(0.01)
            return function(*args)
        starts.append(1)
        try:
            await gate.wait()
        except BaseException:
            cancelled.append(1)
            raise

    with pytest.MonkeyPatch.context() as instead:
        instead.setattr(anyio.to_process, "run_sync", run_sync)
        instead.setattr(processes_module, "pickled", lambda function, args: (function, args))
        instead.setattr(processes_module, "call_apart", lambda call: call[0](*call[1]))
        processes = WorkerProcesses(limit=2)

        async def goes_early(_):
            with anyio.move_on_after(0.001):
                await processes.run(sum, [1])

        for _ in range(5):
            await at_once(goes_early, 1, 2, 3)
        assert (len(starts), cancelled) == (2, [])
        gate.set()
        assert await at_once(lambda one: processes.run(sum, [one]), 1, 2, 3) == [1, 2, 3]
        with anyio.CancelScope() as goes:  # who has gone before takes none
            goes.cancel()
            await processes.run(sum, [1])
        assert await at_once(lambda one: processes.run(sum, [one]), 4, 5) == [4, 5]
        assert len(starts) == 2


def test_a_process_that_cannot_start_is_told_as_that(quick_start, monkeypatch):
    async def cannot(*_, **__):
        raise anyio.BrokenWorkerProcess("the main module raises")

    async def main():
        with monkeypatch.context() as broken:
            broken.setattr(anyio.to_process, "run_sync", cannot)
            with pytest.raises(WorkerDiedError, match="no process could be started") as caught:
                await to_process(sum, [1])
        assert str(caught.value.__cause__) == "the main module raises"
        assert await to_process(sum, [1]) == 1
        assert default_processes().reading().in_progress == 0

    on_trio(main)
