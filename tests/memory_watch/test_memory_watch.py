"""The watch: its step and what it tells, its thread, loops that come and go, a fork."""

import json
import logging
import subprocess
import sys
import threading
import time

import pytest

from perf_middleware.events import MemoryStepChanged
from perf_middleware.memory_watch.ladder import NORMAL, SOFT
from perf_middleware.memory_watch.reading import Bound, MemorySample
from perf_middleware.memory_watch.runtime import THREAD_NAME, MemoryWatch
from perf_middleware.memory_watch.settings import MemorySettings
from perf_middleware.resource import Resources
from tests.memory_watch.watch_stage import (
    BACKENDS,
    LADDER,
    S,
    Stage,
    real_clock,
    run,
    until,
    value_of,
    wait_until,
)

# --- the step -----------------------------------------------------------------------------------


def test_layers_see_a_plain_number_and_operators_each_change_once(caplog):
    stage = Stage()
    with caplog.at_level(logging.INFO, "perf_middleware.memory_watch"):
        assert stage.feed(0.1, 0.8, 0.8, 0.9, 0.1, 0.1, 0.1) == [0, 1, 1, 2, 1, 0, 0]
    assert [(change.before, change.step) for change in stage.changes] == [
        (0, 1), (1, 2), (2, 1), (1, 0),
    ]  # fmt: skip
    assert stage.changes[0] == MemoryStepChanged(
        step=1, before=0, share=0.8, bound="cgroup", used_bytes=800_000, limit_bytes=1_000_000
    )
    lines = [record for record in caplog.records if "memory step" in record.message]
    assert [line.levelname for line in lines] == ["INFO", "WARNING", "INFO", "INFO"]
    assert lines[1].message == ("memory step: hard, was soft (90.0% of cgroup: 0.9 MiB of 1.0 MiB)")


def test_a_fall_is_told_of_the_limit_that_was_short(caplog):
    stage = Stage()
    roomy = Bound(name="system", used_bytes=3, limit_bytes=10)

    def sample():
        tight = Bound(name="cgroup", used_bytes=round(stage.share * 10), limit_bytes=10)
        return MemorySample(at_us=stage.clock(), rss_bytes=5, bounds=(tight, roomy))

    stage.watch._lookout._sample = sample
    with caplog.at_level(logging.INFO, "perf_middleware.memory_watch"):
        stage.feed(0.1, 0.9, 0.1, 0.1)
    assert [line.message.partition(": ")[2][:30] for line in caplog.records[-2:]] == [
        "soft, was hard (10.0% of cgrou", "normal, was soft (10.0% of cgr",
    ]  # fmt: skip


def test_a_share_that_swings_over_a_step_does_not_fill_the_log(caplog):
    stage = Stage()
    with caplog.at_level(logging.INFO, "perf_middleware.memory_watch"):
        stage.feed(*[0.9, 0.1, 0.1] * 100)
        swinging = [line for line in caplog.records if "memory step" in line.message]
        assert len(swinging) <= 12 + 300 / 20
        assert "changes before this one are not in the log" in swinging[-1].message
        stage.feed(*[0.1] * 20, 0.96)
    lines = [line.message for line in caplog.records if "memory step" in line.message]
    assert lines[-1].startswith("memory step: critical, was normal (96.0%")  # never seen so far
    assert value_of(stage.watch, "perf_memory_step_changes", step="hard") == 100


def test_a_limit_that_is_short_from_the_start_is_told_as_such(caplog):
    stage = Stage()
    with caplog.at_level(logging.INFO, "perf_middleware.memory_watch"):
        stage.feed(1.5, 0.1)
    first, *_, last = [line.message for line in caplog.records if "memory step" in line.message]
    assert first.endswith("; at the first look already)")
    assert "first look" not in last


def test_the_time_at_each_step_and_the_changes_are_counted():
    stage = Stage()
    stage.feed(0.8, 0.9, 0.9, 0.1, step_s=2.0)
    watch = stage.watch
    assert value_of(watch, "perf_memory_step") == 1
    assert value_of(watch, "perf_memory_step_changes", step="soft") == 2
    assert value_of(watch, "perf_memory_step_seconds", step="soft") == pytest.approx(2)
    assert value_of(watch, "perf_memory_step_seconds", step="hard") == pytest.approx(4)
    assert value_of(watch, "perf_memory_looks") == 4
    watch.reset_counts()
    assert value_of(watch, "perf_memory_looks") == 0
    assert value_of(watch, "perf_memory_step") == 1


def test_the_share_is_the_newest_and_none_once_it_is_old():
    stage = Stage(interval_s=1.0)
    assert stage.watch.share() is None
    stage.feed(0.4)
    assert stage.watch.share() == 0.4
    stage.clock.pass_s(5.1)
    assert stage.watch.share() is None
    stage.feed(None)
    assert stage.watch.share() is None


def test_status_is_a_small_picture_as_json():
    stage = Stage()
    stage.watch.on_pressure("mine", lambda pressure: 1)
    stage.feed(0.8)
    stage.clock.pass_s(3)
    status = json.loads(json.dumps(stage.watch.status()))
    assert (status["watching"], status["step"], status["since_s"]) == (False, "soft", 3.0)
    assert (status["bound"], status["share"]) == ("cgroup", 0.8)
    assert (status["used_bytes"], status["limit_bytes"]) == (800_000, 1_000_000)
    assert status["callbacks"] == ["mine"]
    assert status["last_cleanup"].startswith("memory cleanup at step soft")


def test_a_reading_that_fails_keeps_the_step_for_a_while_and_is_told_once(caplog):
    stage = Stage()
    stage.feed(0.9)
    broken = OSError("no such file")
    assert stage.feed(*[broken] * 5) == [2] * 5
    assert stage.feed(*[broken] * 3) == [1, 0, 0]
    assert sum("cannot be read" in record.message for record in caplog.records) == 1
    assert value_of(stage.watch, "perf_memory_look_failures") == 8
    assert stage.feed(0.8) == [1]


def test_observers_get_each_sample_and_one_that_fails_harms_nothing(caplog):
    stage, seen = Stage(), []

    def fail(sample):
        if sample.share < 0.4:
            raise KeyError("x")

    stage.watch.on_sample += [fail, seen.append]
    stage.feed(0.1, 0.2, OSError(), 0.3)
    assert [sample.share for sample in seen] == [0.1, 0.2, 0.3]
    assert value_of(stage.watch, "perf_memory_observer_failures") == 3
    assert sum("observer" in record.message for record in caplog.records) == 1
    stage.feed(0.5, 0.1)  # well, and no more
    assert sum("observer" in record.message for record in caplog.records) == 2


def test_the_next_look_comes_sooner_where_memory_runs_towards_a_step():
    stage = Stage(interval_s=2.0)
    stage.feed(0.3)
    assert stage.watch.look() == 2 * S
    stage.feed(0.5, step_s=1.0)
    stage.share = 0.65
    stage.clock.pass_s(1.0)
    assert stage.watch.look() < S


# --- the thread -----------------------------------------------------------------------------------


def live(**options):
    return Stage(clock=real_clock, interval_s=0.05, **options)


def watching_threads():
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


@BACKENDS
def test_as_a_resource_it_watches_on_a_thread_while_the_app_runs(backend):
    stage = live(share=0.8)
    resources = Resources([stage.watch])

    async def main():
        async with resources.opened():
            await until(lambda: stage.watch.step == 1)
            assert resources.status()["memory watch"]["detail"]["watching"]
        assert not stage.watch.is_watching

    run(main, backend)
    assert set(stage.looks_in) == {THREAD_NAME}
    assert (stage.watch.step, stage.watch.share()) == (0, None)
    assert not watching_threads()


def test_it_sees_memory_grow_while_the_loop_is_stuck():
    stage = live()

    async def main():
        async with Resources([stage.watch]).opened():
            await until(lambda: stage.looks_in)
            stage.share = 0.96
            wait_until(lambda: stage.watch.step == 3)

    run(main)


def test_it_runs_on_one_loop_after_another_and_opens_twice():
    stage = live(share=0.8)
    resources = Resources([stage.watch])

    async def main():
        async with resources.opened():
            await stage.watch.open(None)
            assert watching_threads() == 1
            await until(lambda: stage.watch.step == 1)

    run(main)
    run(main, ("trio", {}))
    assert not watching_threads()


def test_it_starts_and_stops_without_any_loop():
    stage = live(share=0.8)
    stage.watch.start()
    stage.watch.start()
    wait_until(lambda: stage.watch.step == 1)
    assert watching_threads() == 1
    stage.watch.stop()
    stage.watch.stop()
    assert stage.watch.step == 0
    wait_until(lambda: not watching_threads())
    stage.watch.start()
    wait_until(lambda: stage.watch.step == 1)
    stage.watch.stop()
    wait_until(lambda: not watching_threads())


def test_many_that_start_it_at_once_start_one_thread_and_none_is_left():
    stage = live(share=0.8)

    def start_and_stop():
        for _ in range(20):
            stage.watch.start()
            stage.watch.stop()

    users = [threading.Thread(target=start_and_stop) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(20)
    starting = [threading.Thread(target=stage.watch.start) for _ in range(4)]
    for user in starting:
        user.start()
    for user in starting:
        user.join(20)
    wait_until(lambda: watching_threads() == 1)
    wait_until(lambda: stage.watch.step == 1)
    stage.watch.stop()
    wait_until(lambda: not watching_threads())
    assert stage.watch.step == 0


def test_a_watch_without_a_thread_is_degraded_and_the_app_starts(monkeypatch):
    stage = live()
    resources = Resources([stage.watch])

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    async def main():
        monkeypatch.setattr(threading.Thread, "start", refuse)
        async with resources.opened():
            monkeypatch.undo()
            assert resources.states()["memory watch"][0] == "degraded"
            assert not stage.watch.is_watching

    run(main)


def test_an_error_of_its_own_does_not_end_the_watch(caplog):
    stage = live(share=0.8)
    stage.watch.on_pressure("breaks the watch", lambda pressure: 1)
    stage.watch.events.publish = None  # not callable
    stage.watch.start()
    wait_until(lambda: len(stage.looks_in) > 3)
    assert stage.watch.is_watching
    assert sum("failed and goes on" in record.message for record in caplog.records) == 1
    stage.watch.stop()
    wait_until(lambda: not watching_threads())


FORK = """
import os, sys, time
from tests.memory_watch.watch_stage import Stage, real_clock, wait_until

stage = Stage(0.8, clock=real_clock, interval_s=0.05)
stage.watch.start()
wait_until(lambda: stage.watch.step == 1)
turn = stage.watch._turn
turn.acquire()  # as when the thread looks right now
child = os.fork()
if child:
    turn.release()
    assert stage.watch.is_watching
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert (stage.watch.step, stage.watch.is_watching) == (0, False)
stage.watch.start()
wait_until(lambda: stage.watch.step == 1)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_begins_anew():
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_watch_that_nobody_holds_is_let_go_of():
    import gc
    import weakref

    this = weakref.ref(Stage().watch)
    gc.collect()
    assert this() is None


@pytest.mark.parametrize("wrong", [{"interval_s": 0}, {"cleanup_s_max": 0}, {"shrink_share": 1.5}])
def test_what_makes_no_watch_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        MemoryWatch(lambda: None, ladder=LADDER, **wrong)


def test_the_settings_make_the_watch():
    stage = Stage(share=0.61)
    settings = MemorySettings(soft_share=0.6, cooldown_s=3, trim=False, collect=False)
    trims = []
    watch = settings.make_watch(
        stage.sample, trim=lambda: trims.append(1), events=stage.watch.events, clock=stage.clock
    )
    assert settings.make_ladder().cooldown_us == 3 * S
    watch.look()
    assert watch.step == 1
    assert len(stage.cleaned) == 1
    assert not trims


def test_closing_what_was_never_opened_does_no_harm():
    async def main():
        await Stage().watch.close()

    run(main)


def test_the_turns_of_the_watch_are_timed_by_what_they_take_of_a_processor():
    stage = Stage()
    stage.watch.on_sample.append(lambda sample: time.sleep(0.02))
    stage.feed(0.1)
    assert value_of(stage.watch, "perf_memory_look_seconds") < 0.02


def test_a_cleanup_that_outlives_the_watch_tells_no_step():
    stage = Stage(0.8)
    threads = []

    def end(pressure):
        threads.append(threading.current_thread())
        stage.watch.stop()

    stage.watch.on_pressure("end", end, thread=True)
    stage.watch.start()
    wait_until(lambda: threads and not threads[0].is_alive())
    assert [change.step for change in stage.changes] == [SOFT]
    assert stage.watch.step == NORMAL


def test_a_path_that_no_request_could_have_is_refused():
    assert MemorySettings(exempt_paths=("/", "/health/")).exempt_paths == ("/", "/health/")
    with pytest.raises(ValueError, match="starts with /, not 'healthz'"):
        MemorySettings(exempt_paths=("/ready", "healthz"))
