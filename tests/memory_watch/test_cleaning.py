"""Cleanups as they run: on the loop and on the thread, in their time, whatever callbacks do."""

import gc
import logging
import threading
import time
from contextlib import asynccontextmanager

import anyio
import pytest

from perf_middleware.caching.runtime import ResponseCache
from perf_middleware.caching.values.runtime import ValueCache
from perf_middleware.memory_watch.runtime import THREAD_NAME, cleaning
from perf_middleware.memory_watch.runtime.home import HomeLoop
from perf_middleware.resource import Resources
from tests.caching.entries import entry
from tests.memory_watch.watch_stage import (
    BACKENDS,
    LIMIT,
    Stage,
    real_clock,
    run,
    until,
    value_of,
    wait_until,
)

LOOP = threading.main_thread().name


def live(share=0.1, **options):
    return Stage(share, **{"clock": real_clock, "interval_s": 0.05} | options)


@asynccontextmanager
async def opened(stage):
    async with Resources([stage.watch]).opened():
        yield stage.watch


def outcomes(stage, at=-1):
    report = stage.cleaned[at]
    lost = dict.fromkeys(report.failed, "failed")
    lost |= dict.fromkeys(report.overran, "overran")
    lost |= dict.fromkeys(report.skipped, "skipped")
    return lost | dict.fromkeys(report.freed_bytes, "done")


# --- without a loop: every step by hand -----------------------------------------------------------


def test_memory_is_asked_for_in_order_and_the_cleanup_is_told_once(caplog):
    stage, asked = Stage(trim=lambda: 300, collect=True), []
    stage.watch.on_pressure("last", lambda pressure: asked.append("last"), order=200)
    stage.watch.on_pressure("first", asked.append, order=1)
    stage.watch.on_pressure("cache", stage.fall(0.5))
    with caplog.at_level(logging.INFO, "perf_middleware.memory_watch"):
        assert stage.feed(0.8) == [0]
    assert (asked[0].step, asked[0].share, asked[0].shrink_share) == (1, 0.8, 0.5)
    assert (asked[0].used_bytes, asked[0].limit_bytes) == (800_000, LIMIT)
    assert asked[1:] == ["last"]
    [report] = stage.cleaned
    assert (report.before_bytes, report.after_bytes, report.bound) == (800_000, 500_000, "cgroup")
    assert list(report.freed_bytes.items()) == [
        ("first", None), ("cache", 300_000), ("last", None),
    ]  # fmt: skip
    assert (report.trimmed_bytes, report.collected is not None) == (300, True)
    [line] = [record for record in caplog.records if "memory cleanup" in record.message]
    assert line.levelname == "INFO"
    assert "0.8 MiB before, 0.5 MiB after of 1.0 MiB (cgroup)" in line.message
    watch = stage.watch
    assert value_of(watch, "perf_memory_cleanups", step="soft") == 1
    assert value_of(watch, "perf_memory_cleanup_freed_bytes", cleanup="cache") == 300_000
    assert value_of(watch, "perf_memory_cleanup_trimmed_bytes") == 300


def test_garbage_is_collected_on_the_watchs_thread():
    class Cycle:
        def __init__(self):
            self.me = self

    stage = Stage(collect=True)
    gc.collect()
    gc.disable()
    try:
        Cycle()
        stage.feed(0.8)
    finally:
        gc.enable()
    assert stage.cleaned[0].collected >= 1
    assert value_of(stage.watch, "perf_memory_cleanup_collected_objects") >= 1


def test_what_brings_nothing_is_repeated_ever_more_seldom():
    stage = Stage()
    stage.feed(*[0.8] * 100)
    assert len(stage.cleaned) == 3  # at once, after 20 s, after 40 s more


def test_a_callback_that_fails_is_counted_and_told_once_and_the_next_goes_on(caplog):
    stage, asked = Stage(), []

    def fail(pressure):
        raise KeyError("x")

    stage.watch.on_pressure("bad", fail)
    stage.watch.on_pressure("good", asked.append)
    stage.feed(*[0.8] * 30)
    assert len(asked) == 2
    assert outcomes(stage) == {"bad": "failed", "good": "done"}
    failed = value_of(stage.watch, "perf_memory_cleanup_callbacks", cleanup="bad", outcome="failed")
    assert failed == 2
    assert sum("cleanup bad failed" in record.message for record in caplog.records) == 1


class OfTheApp(BaseException):
    """As libraries have them for what `except Exception` is not to see."""


@pytest.mark.parametrize("error", [SystemExit(3), OfTheApp()])
def test_a_callback_on_the_thread_that_wants_more_than_to_fail_does_not_end_the_watch(error):
    stage = Stage()

    def leave(pressure):
        raise error

    stage.watch.on_pressure("leave", leave, thread=True)
    stage.feed(0.8)
    assert outcomes(stage) == {"leave": "failed"}


def test_a_figure_that_cannot_be_is_none():
    stage = Stage()
    stage.watch.on_pressure("boast", lambda pressure: 10**400)
    stage.feed(0.8, 0.8)
    assert stage.cleaned[0].freed_bytes == {"boast": None}
    assert "boast done" in stage.watch.status()["last_cleanup"]
    assert list(stage.watch.families())


def test_a_callback_that_keeps_the_watchs_thread_is_told_and_nobody_is_refused_for_it(
    monkeypatch, caplog
):
    monkeypatch.setattr(cleaning, "OVERDUE_S", 0.05)
    stage, told, let_go = Stage(), threading.Event(), threading.Event()
    stage.watch.on_end.append(told.set)
    stage.watch.on_pressure("hang", lambda pressure: let_go.wait(20), thread=True)
    stage.share = 0.97
    looking = threading.Thread(target=stage.watch.look)
    looking.start()
    try:
        assert told.wait(20)
        assert stage.watch.step == 0
    finally:
        let_go.set()
        looking.join()
    assert stage.watch.step == 3
    assert sum("hang has kept the watch's thread" in line.message for line in caplog.records) == 1


def test_a_trim_that_fails_is_not_tried_again(caplog):
    tried = []

    def trim():
        tried.append(1)
        raise OSError("none here")

    stage = Stage(trim=trim)
    stage.feed(*[0.8] * 30)
    assert len(stage.cleaned) == 2
    assert len(tried) == 1
    assert stage.cleaned[0].trimmed_bytes is None


def test_a_reading_that_fails_in_a_cleanup_does_not_end_it():
    stage = Stage()

    def breaks(pressure):
        stage.share = OSError()

    stage.watch.on_pressure("breaks", breaks)
    stage.feed(0.8)
    assert stage.cleaned[0].after_bytes == 800_000


def test_a_callback_may_leave():
    stage, asked = Stage(), []
    stage.watch.on_pressure("mine", asked.append)
    stage.feed(0.8)
    stage.watch.off_pressure("mine")
    stage.watch.off_pressure("mine")
    stage.feed(0.9)
    assert len(asked) == 1
    assert "mine" not in {
        dict(point.labels.pairs).get("cleanup")
        for family in stage.watch.families()
        for point in family.points
    }
    stage.watch.on_pressure("mine", asked.append)


def test_without_an_event_loop_async_callbacks_are_skipped():
    async def free(pressure):
        raise AssertionError

    stage = Stage()
    stage.watch.on_pressure("async", free)
    stage.watch.on_pressure("async for the thread", free, thread=True)
    stage.feed(0.8)
    assert outcomes(stage) == {"async": "skipped", "async for the thread": "failed"}


def test_relief_is_told_once_when_all_is_normal_again():
    stage, told = Stage(), []
    stage.watch.on_pressure("mine", lambda pressure: 1, relief=lambda: told.append(stage.share))
    stage.feed(0.1, 0.8, 0.8, 0.72)
    assert not told
    stage.feed(0.3, 0.1, 0.1)
    assert told == [0.3]
    stage.feed(0.9, 0.1, 0.1)
    assert told == [0.3, 0.1]


def test_a_limit_that_is_gone_after_a_cleanup_leaves_rss_to_compare():
    stage = Stage()
    stage.watch.on_pressure("mine", lambda pressure: setattr(stage, "share", None))
    stage.feed(0.8)
    [report] = stage.cleaned
    assert (report.before_bytes, report.after_bytes, report.bound) == (5, 5, None)


# --- on the loop, and beside it -------------------------------------------------------------------


@BACKENDS
def test_each_callback_runs_where_it_asked_to(backend):
    stage, ran = live(), []

    def sync(pressure):
        anyio.get_current_task()  # raises where no loop runs
        ran.append(("sync", threading.current_thread().name))
        return 1

    async def asynchronous(pressure):
        await anyio.sleep(0.01)
        ran.append(("async", threading.current_thread().name))
        return 2

    def beside(pressure):
        ran.append(("thread", threading.current_thread().name))
        return 3

    async def relief():
        await anyio.sleep(0)
        ran.append(("relief", threading.current_thread().name))

    async def main():
        async with opened(stage) as watch:
            watch.on_pressure("a", sync, relief=relief)
            watch.on_pressure("b", beside, thread=True)
            watch.on_pressure("c", asynchronous)
            stage.share = 0.8
            await until(lambda: stage.cleaned)
            stage.share = 0.1
            await until(lambda: len(ran) == 4)

    run(main, backend)
    assert ran == [("sync", LOOP), ("thread", THREAD_NAME), ("async", LOOP), ("relief", LOOP)]
    assert stage.cleaned[0].freed_bytes == {"a": 1, "b": 3, "c": 2}


@BACKENDS
def test_what_still_runs_is_not_begun_again(backend):
    async def main():
        stage = live(cleanup_s_max=0.05)
        begun, may_end = [], threading.Event()

        async def stays(pressure):
            begun.append(1)
            await anyio.to_thread.run_sync(may_end.wait, 20)  # cannot be cancelled

        stage.watch.on_pressure("stays", stays)
        async with opened(stage):
            await stage.watch.clean_up()
            await stage.watch.clean_up()
            assert outcomes(stage, 0) == {"stays": "overran"}
            assert outcomes(stage) == {"stays": "skipped"}
            assert begun == [1]
            may_end.set()
            while begun == [1]:  # the thread takes a moment to end, and the loop may be slow
                await stage.watch.clean_up()
                await anyio.sleep(0.01)
        assert begun == [1, 1]

    run(main, backend)


@BACKENDS
def test_what_overruns_its_time_is_cancelled_and_what_is_left_is_skipped(backend):
    stage, ran = live(cleanup_s_max=0.8), []  # half of it for a busy machine to begin

    async def slow(pressure):
        try:
            await anyio.sleep_forever()
        finally:
            ran.append("cancelled")

    async def main():
        async with opened(stage) as watch:
            watch.on_pressure("slow", slow)
            watch.on_pressure("next", lambda pressure: ran.append("next"))
            stage.share = 0.8
            await until(lambda: stage.cleaned and ran)

    run(main, backend)
    assert ran == ["cancelled"]
    assert outcomes(stage) == {"slow": "overran", "next": "skipped"}
    report = stage.watch.last_cleanup
    assert "next skipped (no time left)" in report.sentence()


@BACKENDS
def test_while_the_loop_is_stuck_everything_else_goes_on(backend):
    trimmed = []
    stage = live(cleanup_s_max=0.2, trim=lambda: trimmed.append(1) or 7, collect=True)
    ran = []

    async def main():
        async with opened(stage) as watch:
            await until(lambda: stage.looks_in)
            watch.on_pressure("on the loop", lambda pressure: ran.append("late"), order=1)
            watch.on_pressure("too", lambda pressure: ran.append("late"), order=1)
            watch.on_pressure("beside", lambda pressure: ran.append("beside"), thread=True)
            stage.share = 0.8
            wait_until(lambda: stage.cleaned)  # the loop stands
            await anyio.sleep(0.02)

    run(main, backend)
    assert ran == ["beside"]  # what was given up is not made up for
    assert outcomes(stage) == {"on the loop": "skipped", "too": "skipped", "beside": "done"}
    assert "too skipped (the event loop is stuck)" in stage.watch.last_cleanup.sentence()
    assert (stage.cleaned[0].trimmed_bytes, stage.cleaned[0].collected is None) == (7, False)


def test_the_step_goes_on_while_a_cleanup_waits_for_the_loop():
    stage = live(cleanup_s_max=15)

    async def grow(pressure):
        stage.share = 0.96
        await until(lambda: stage.watch.step == 3)

    async def main():
        async with opened(stage) as watch:
            watch.on_pressure("grows", grow)
            stage.share = 0.8
            await until(lambda: len(stage.cleaned) == 1)

    run(main)
    assert outcomes(stage, 0) == {"grows": "done"}
    assert stage.cleaned[0].step == 1


def test_a_callback_that_blocks_the_loop_is_waited_for_no_longer_than_its_time():
    stage, ran = live(cleanup_s_max=0.6), []
    told = threading.Event()

    def block(pressure):
        assert told.wait(10)
        ran.append("blocked")

    async def main():
        async with opened(stage) as watch:
            watch.on_pressure("blocks", block)
            stage.share = 0.8
            releasing = threading.Thread(
                target=lambda: (wait_until(lambda: stage.cleaned), told.set())
            )
            releasing.start()
            await until(lambda: ran)
            releasing.join()

    run(main)
    assert outcomes(stage) == {"blocks": "overran"}


@BACKENDS
def test_a_failing_async_callback_harms_neither_the_others_nor_the_loop(backend):
    stage = live()

    async def fail(pressure):
        await anyio.sleep(0)
        raise LookupError("x")

    async def main():
        async with opened(stage) as watch:
            watch.on_pressure("bad", fail)
            watch.on_pressure("good", lambda pressure: 5)
            stage.share = 0.8
            await until(lambda: stage.cleaned)

    run(main, backend)
    assert outcomes(stage) == {"bad": "failed", "good": "done"}


@BACKENDS
def test_closing_does_not_wait_for_callbacks(backend):
    stage, ran = live(cleanup_s_max=15), []

    async def slow(pressure):
        ran.append("begun")
        await anyio.sleep_forever()

    async def main():
        async with opened(stage) as watch:
            watch.on_pressure("slow", slow)
            watch.on_pressure("next", ran.append)
            stage.share = 0.8
            await until(lambda: ran)
        assert not watch.is_watching

    began_s = time.monotonic()
    run(main, backend)
    assert time.monotonic() - began_s < 10
    assert ran == ["begun"]


def test_relief_that_a_stuck_loop_does_not_hear_of_is_told_later_and_once():
    stage, told = live(cleanup_s_max=0.2), []

    async def main():
        async with opened(stage) as watch:
            watch.on_pressure("a", lambda pressure: 1, relief=lambda: told.append("a"))
            watch.on_pressure(
                "b", lambda pressure: 1, relief=lambda: told.append("b"), thread=True, order=1
            )
            stage.share = 0.8
            await until(lambda: stage.cleaned)
            stage.share = 0.1
            wait_until(lambda: told and stage.watch.step == 0)  # the loop stands
            time.sleep(0.3)
            assert told == ["b"]
            await until(lambda: len(told) == 2)

    run(main)
    assert told == ["b", "a"]


@BACKENDS
def test_what_was_asked_for_memory_has_it_again_once_the_watch_is_closed(backend):
    stage, told = live(0.8), []

    async def main():
        stage.watch.on_pressure("mine", lambda pressure: 1, relief=lambda: told.append(1))
        async with opened(stage):
            await until(lambda: stage.cleaned)
            assert not told
        assert told == [1]

    run(main, backend)


def test_a_loop_that_is_cancelled_with_its_tasks_ends_no_watch():
    stage = live(cleanup_s_max=15)

    async def slow(pressure):
        stage.began = True
        await anyio.sleep_forever()

    stage.began = False
    stage.watch.on_pressure("slow", slow)

    async def main():
        stage.watch.start()
        stage.share = 0.8
        await until(lambda: stage.began)

    run(main)  # its end cancels what is left
    wait_until(lambda: stage.cleaned)
    assert outcomes(stage) == {"slow": "overran"}
    stage.watch.stop()


@BACKENDS
def test_standing_alone_it_finds_the_loop_that_started_it_and_the_next_one(backend):
    stage, ran = live(), []
    stage.watch.on_pressure("mine", lambda pressure: ran.append(threading.current_thread().name))

    async def main():
        stage.watch.start()
        stage.share = 0.8
        count = len(stage.cleaned)
        await until(lambda: len(stage.cleaned) > count)

    run(main, backend)
    assert ran == [LOOP]
    stage.watch.stop()
    wait_until(lambda: not stage.watch.is_watching)
    run(main, backend)
    assert ran == [LOOP, LOOP]
    stage.watch.stop()


def test_once_its_loop_has_ended_callbacks_run_on_the_thread():
    stage, ran = live(), []
    stage.watch.on_pressure("mine", lambda pressure: ran.append(threading.current_thread().name))

    async def main():
        stage.watch.start()

    run(main)
    stage.share = 0.8
    wait_until(lambda: stage.cleaned)
    stage.watch.stop()
    assert ran == [THREAD_NAME]


def test_a_loop_that_ends_right_now_is_not_disturbed():
    """A task that cannot begin any more must not raise inside the loop: trio ends with that."""
    woken = []

    def refuse(run):
        raise RuntimeError("Nursery is closed to new arrivals")

    call = HomeLoop(lambda begin: woken.append(begin()), refuse).call(lambda: 1, left_s=1)
    assert woken == [None]
    assert call.has_begun(0)
    assert not call.is_kept()


# --- by code --------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("watching", [True, False], ids=["watching", "not watching"])
def test_code_may_clean_up_at_any_step(backend, watching):
    stage, ran = live(0.4), []

    async def free(pressure):
        await anyio.sleep(0)
        ran.append((pressure.step, threading.current_thread().name))
        return stage.fall(0.2)(pressure)

    async def main():
        if watching:
            stage.watch.start()
        stage.watch.on_pressure("mine", free, relief=lambda: ran.append("relief"))
        report = await stage.watch.clean_up()
        assert (report.before_bytes, report.after_bytes) == (400_000, 200_000)
        assert report.brought_share == pytest.approx(0.2)
        stage.watch.stop()

    run(main, backend)
    assert ran == [(0, LOOP), "relief"]
    assert value_of(stage.watch, "perf_memory_cleanups", step="normal") == 1


def test_a_cleanup_by_code_where_nobody_watches_leaves_no_step_behind():
    stage, relieved = Stage(0.97), []
    stage.watch.on_pressure("cache", lambda pressure: 0, relief=lambda: relieved.append(1))
    report = run(stage.watch.clean_up)
    assert report.step == 3
    assert relieved == [1]
    assert (stage.watch.step, stage.watch.status()["step"]) == (0, "normal")


def test_code_may_clean_up_where_nothing_limits_the_process():
    async def main():
        stage = live(None)
        report = await stage.watch.clean_up()
        assert (report.before_bytes, report.bound, report.limit_bytes) == (5, None, None)

    run(main)


# --- our own caches -------------------------------------------------------------------------------


@BACKENDS
def test_both_caches_shrink_under_pressure_and_grow_back_after_it(backend):
    stage = live()
    responses, values = ResponseCache(clock=lambda: 0), ValueCache(clock=lambda: 0)
    for number in range(1_000):
        responses.keep(entry(b"/%d" % number, body=b"x" * 500), responses.clock())

    async def shrink_responses(pressure):
        return await responses.shrink(pressure.shrink_share)

    def shrink_values(pressure):
        return values.shrink(pressure.shrink_share)

    async def main():
        await values.set_many({str(number): "x" * 500 for number in range(1_000)}, ttl=60)
        before = responses.store.size_bytes, values.status()["bytes"]
        async with opened(stage) as watch:
            watch.on_pressure("responses", shrink_responses, relief=responses.grow_back)
            watch.on_pressure("values", shrink_values, thread=True, relief=values.grow_back)
            stage.share = 0.8
            await until(lambda: stage.cleaned)
            freed = stage.cleaned[0].freed_bytes
            assert 0.5 <= freed["responses"] / before[0] < 0.51
            assert 0.49 <= freed["values"] / before[1] < 0.51
            assert responses.status()["bytes_max"] < 2 << 20 > values.status()["bytes_max"]
            stage.share = 0.1
            await until(lambda: values.status()["bytes_max"] == 32 << 20)
            assert responses.status()["bytes_max"] == 64 << 20

    run(main, backend)
