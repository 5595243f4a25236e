import asyncio
import gc
import inspect
import json
import logging
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from perf_middleware.metrics.probes.loop import LoopProbe
from perf_middleware.metrics.probes.watchdog import THREAD_NAME

BACKENDS = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
every_loop = pytest.mark.parametrize("loop", BACKENDS)


class Tasks:
    def __init__(self, group):
        self.group = group

    def start(self, name, run):
        self.group.start_soon(run, name=name)


@asynccontextmanager
async def watched(probe):
    """The probe as the lifespan plugin opens and closes it."""
    async with anyio.create_task_group() as group:
        await probe.open(Tasks(group))
        await anyio.sleep(0.1)
        yield
        await anyio.sleep(0.1)
        await probe.close()
        group.cancel_scope.cancel()


def watch(work, *, loop="asyncio", forget=lambda: None, **kwargs):
    """Run `work` on a watched loop, return the probe.

    Once more after `forget()` where this machine had no processor for the whole process meanwhile,
    which the probe tells: what it says of `work` is another thing then.
    """
    for _ in range(10):
        forget()
        probe = LoopProbe(**({"interval_s": 0.02, "blocked_s": 0.1} | kwargs))

        async def scenario(probe=probe):
            async with watched(probe):
                await work() if inspect.iscoroutinefunction(work) else work()

        anyio.run(scenario, **BACKENDS[loop])
        if not probe.status()["stalls"]["not_running"]:
            break
    return probe


def blocks_by(probe, function):
    return [b for b in probe.recent_blocks() if b.line is not None and b.line.function == function]


def watchdogs():
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def sleeping_function():
    time.sleep(0.6)


def spinning_function():
    count, end = 0, time.perf_counter() + 0.6
    while time.perf_counter() < end:
        count += 1
        count %= 1000
    return count


def waiting_function():
    with suppress(queue.Empty):
        queue.Queue().get(timeout=0.6)


def function_in_c():
    return sum(range(30_000_000))


@every_loop
def test_a_sleeping_function_is_named_with_its_line(loop):
    (block, *_) = blocks_by(watch(sleeping_function, loop=loop), "sleeping_function")
    assert block.line.file == __file__
    assert block.line.line == sleeping_function.__code__.co_firstlineno + 1
    assert (block.code, block.origin, block.ended) == ("time.sleep(0.6)", "own", True)
    assert block.call == block.line
    assert block.lasted_s > 0.1
    assert abs(block.at_s - time.time()) < 600


@every_loop
def test_a_spinning_function_is_named_with_one_of_its_lines(loop):
    (block, *_) = blocks_by(watch(spinning_function, loop=loop), "spinning_function")
    first = spinning_function.__code__.co_firstlineno
    assert first < block.line.line <= first + 4
    assert len(block.stack) <= 30
    json.dumps(block.as_dict())


def test_the_apps_line_is_named_beside_the_call_that_waits():
    (block, *_) = blocks_by(watch(waiting_function), "waiting_function")
    assert Path(block.call.file).name == "threading.py"
    assert "queue.Queue().get" in block.code
    assert f"which is in {block.call}" in block.sentence()


def test_c_code_that_holds_the_interpreter_lock_is_a_block():
    (block, *_) = blocks_by(watch(function_in_c), "function_in_c")
    assert block.code == "return sum(range(30_000_000))"


def test_another_thread_that_holds_the_interpreter_lock_is_a_stall():
    async def work():
        thread = threading.Thread(target=function_in_c)
        thread.start()
        while thread.is_alive():
            await anyio.sleep(0.05)

    probe = watch(work)
    assert sum(probe.status()["stalls"].values()) >= 1
    assert not blocks_by(probe, "function_in_c")


def held_by_a_thread():
    return re.match(r"(a+)+$", "a" * 24 + "b")


def test_a_stall_leaves_one_line_that_names_the_thread_and_clears_the_loops_code(caplog):
    async def work():
        thread = threading.Thread(target=held_by_a_thread, name="searcher")
        thread.start()
        while thread.is_alive():
            await anyio.sleep(0.05)

    with caplog.at_level(logging.WARNING):
        watch(work, forget=caplog.clear)
    said = [r.getMessage() for r in caplog.records if "interpreter lock" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("the whole process was held for ")
    assert "not by the event loop's own code" in said[0]
    if sys.platform == "linux" and "thread" in said[0].partition("interpreter lock")[2]:
        assert "thread 'searcher' at " in said[0]
        assert __file__ in said[0]


def test_a_loop_that_was_never_measured_has_no_figures():
    probe = LoopProbe()
    assert list(probe.families()) == []
    assert probe.blocked_share() is None


def test_a_loop_that_is_blocked_most_of_the_time_has_a_large_share_between_two_blocks_too():
    shares = []
    probe = LoopProbe(interval_s=0.02, blocked_s=0.1)

    async def scenario():
        async with watched(probe):
            for _ in range(6):
                time.sleep(0.5)
                await anyio.sleep(0.06)
                shares.append((probe.lag_s(), probe.blocked_share()))

    anyio.run(scenario)
    # The newest beat came in time whenever we looked; the share only grows.
    assert [share for _, share in shares] == sorted(share for _, share in shares)
    assert shares[-1][1] > 0.25


def test_the_block_is_counted_and_its_lag_measured():
    probe = watch(sleeping_function)
    families = {family.name: list(family.points) for family in probe.families()}
    (lag,) = families["perf_event_loop_lag_seconds"]
    assert lag.cumulative[-1] > 2
    assert lag.sum > 0.3
    assert families["perf_event_loop_blocked"][0].value >= 1
    assert families["perf_event_loop_blocked_seconds"][0].value > 0.1
    assert families["perf_event_loop_lag_max_seconds"][0].value > 0.3
    assert {p.labels.text for p in families["perf_process_stalls"]} == {
        'cause="not_running"',
        'cause="interpreter_lock"',
    }
    assert set(families) >= {"perf_event_loop_lag_newest_seconds", "perf_process_stalled_seconds"}
    json.dumps(probe.status())


def test_lag_grows_while_the_loop_is_stuck():
    probe = LoopProbe(interval_s=0.02)
    seen = []

    def stuck():
        time.sleep(0.4)
        seen.append(probe.lag_s())

    async def scenario():
        async with watched(probe):
            stuck()

    anyio.run(scenario)
    assert seen[0] > 0.3


def test_a_long_block_is_reported_before_it_ends_and_once_more_at_its_end(caplog):
    events = []
    with caplog.at_level(logging.WARNING):
        watch(
            lambda: time.sleep(1.5),
            on_block=lambda b: events.append((b.ended, threading.current_thread().name)),
        )
    assert (False, THREAD_NAME) in events
    assert (True, THREAD_NAME) in events
    said = [record.getMessage() for record in caplog.records]
    assert any("the event loop has been blocked for" in line for line in said)
    assert any("the event loop was blocked for" in line for line in said)


def test_the_report_says_what_was_being_served():
    probe = watch(sleeping_function, describe_load=lambda: "GET /items/{id}")
    (block, *_) = blocks_by(probe, "sleeping_function")
    assert block.load == "GET /items/{id}"


def test_callables_that_fail_do_not_end_the_watch(caplog):
    def fail(*_):
        raise RuntimeError("not ours")

    async def twice():
        sleeping_function()
        await anyio.sleep(0.3)
        sleeping_function()

    with caplog.at_level(logging.WARNING):
        probe = watch(twice, forget=caplog.clear, describe_load=fail, on_block=fail)
    assert len(blocks_by(probe, "sleeping_function")) == 2
    assert probe.status()["errors"] >= 2
    assert sum("failed and goes on" in r.getMessage() for r in caplog.records) == 1
    assert any("was blocked for" in r.getMessage() for r in caplog.records)


def test_only_the_newest_blocks_are_kept():
    async def thrice():
        for _ in range(3):
            time.sleep(0.3)
            await anyio.sleep(0.1)

    probe = watch(thrice, blocked_kept_max=2)
    assert len(probe.recent_blocks()) == 2
    assert probe.status()["blocked"] >= 3


def test_nothing_of_the_request_stays_alive():
    dead = []

    class Payload:
        pass

    def handler():
        payload = Payload()
        dead.append(weakref.ref(payload))
        time.sleep(0.4)

    watch(handler)
    gc.collect()
    assert dead[0]() is None


def test_a_block_that_ends_with_close_is_still_reported():
    probe = LoopProbe(interval_s=0.02, blocked_s=0.1)

    async def scenario():
        async with anyio.create_task_group() as group:
            await probe.open(Tasks(group))
            await anyio.sleep(0.1)
            sleeping_function()
            await probe.close()

    anyio.run(scenario)
    assert blocks_by(probe, "sleeping_function")


def test_a_block_that_ends_with_close_while_the_watchdog_reports_is_not_lost():
    said = []

    def slow_subscriber(block):
        said.append(block.ended)
        if not block.ended:
            while probe.status()["running"]:
                time.sleep(0.01)
            time.sleep(0.1)  # closed by now, in the middle of this look

    probe = LoopProbe(interval_s=0.02, blocked_s=0.1, on_block=slow_subscriber)

    async def scenario():
        async with anyio.create_task_group() as group:
            await probe.open(Tasks(group))
            await anyio.sleep(0.1)
            while False not in said:
                time.sleep(0.01)
            await probe.close()

    anyio.run(scenario)
    assert said[-1] is True
    assert probe.status()["blocked"] == len(probe.recent_blocks()) == said.count(True)


@every_loop
def test_closing_leaves_no_thread_and_no_task(loop):
    probe = LoopProbe(interval_s=5, blocked_s=30)

    async def scenario():
        async with anyio.create_task_group() as group:
            await probe.open(Tasks(group))
            await anyio.sleep(0.05)
            assert len(watchdogs()) == 1
            assert probe.status()["running"]
            started = time.perf_counter()
            await probe.close()
        return time.perf_counter() - started

    # The group ends by itself: the heartbeat is gone although it had slept for five seconds.
    assert anyio.run(scenario, **BACKENDS[loop]) < 4
    assert not watchdogs()
    assert not probe.status()["running"]


def test_a_probe_can_be_closed_at_any_time_and_opened_again():
    probe = LoopProbe(interval_s=0.02, blocked_s=0.1)

    async def scenario():
        await probe.close()
        async with watched(probe):
            sleeping_function()
        await probe.close()
        async with watched(probe):
            sleeping_function()

    anyio.run(scenario)
    assert len(blocks_by(probe, "sleeping_function")) == 2
    assert not watchdogs()


def test_opening_twice_starts_anew():
    probe = LoopProbe(interval_s=0.02)

    async def scenario():
        async with anyio.create_task_group() as group:
            await probe.open(Tasks(group))
            await anyio.sleep(0.05)
            async with watched(probe):
                assert len(watchdogs()) == 1
            group.cancel_scope.cancel()

    anyio.run(scenario)
    assert not watchdogs()


def test_a_loop_that_ended_without_closing_us_is_not_blocked():
    probe = LoopProbe(interval_s=0.02, blocked_s=0.1)

    async def scenario():
        async with anyio.create_task_group() as group:
            await probe.open(Tasks(group))
            await anyio.sleep(0.1)
            group.cancel_scope.cancel()

    anyio.run(scenario)
    time.sleep(0.5)
    anyio.run(probe.close)
    assert not blocks_by(probe, "test_a_loop_that_ended_without_closing_us_is_not_blocked")
    assert not watchdogs()


def test_a_loop_that_stands_still_between_two_runs_is_not_blocked():
    probe = LoopProbe(interval_s=0.02, blocked_s=0.1)

    class LoopTasks:
        def start(self, name, run):
            self.task = asyncio.get_running_loop().create_task(run())

    loop, tasks = asyncio.new_event_loop(), LoopTasks()
    loop.run_until_complete(probe.open(tasks))
    loop.run_until_complete(asyncio.sleep(0.1))
    time.sleep(0.5)
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.run_until_complete(probe.close())
    loop.run_until_complete(asyncio.wait([tasks.task]))
    loop.close()
    name = "test_a_loop_that_stands_still_between_two_runs_is_not_blocked"
    assert not [b for b in probe.recent_blocks() if any(x.function == name for x in b.stack)]


STOPPED = """
import json, sys, anyio
from perf_middleware.metrics.probes.loop import LoopProbe

class Tasks:
    def __init__(self, group): self.group = group
    def start(self, name, run): self.group.start_soon(run)

async def main():
    probe = LoopProbe(interval_s=0.05, blocked_s=0.5)
    async with anyio.create_task_group() as group:
        await probe.open(Tasks(group))
        await anyio.sleep(0.3)
        print("ready", flush=True)
        while not probe.status()["stalls"]["not_running"] and not probe.status()["blocked"]:
            await anyio.sleep(0.05)
        await anyio.sleep(0.5)
        await probe.close()
    print(json.dumps(probe.status()), flush=True)

anyio.run(main)
"""


def test_a_process_that_was_stopped_is_a_stall_and_no_block():
    root = Path(__file__).parents[2]  # `-c` looks for modules where it runs
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True, cwd=root,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
        answer, _ = process.communicate(timeout=120)
    status = json.loads(answer)
    assert status["stalls"]["not_running"] >= 1
    assert status["blocked"] == 0
    assert status["lag_max_s"] > 1


@pytest.mark.parametrize(
    "wrong",
    [{"interval_s": 0}, {"blocked_s": 0}, {"blocked_kept_max": 0}],
    ids=lambda w: next(iter(w)),
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        LoopProbe(**wrong)
