"""The garbage collector over the real thing: set and put back, frozen, its long pauses told."""

import gc
import json
import logging
from contextlib import asynccontextmanager

import anyio
import pytest

from perf_middleware.memory_watch.collector import runtime
from perf_middleware.memory_watch.collector.drivers.process import IMMORTAL_MAX, ProcessCollector
from perf_middleware.memory_watch.collector.runtime import GarbageCollection
from perf_middleware.memory_watch.collector.settings import GcSettings
from perf_middleware.resource import Resources

OURS = (5_000, 20, 30)
pytestmark = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def the_collector_as_it_was():
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield
    assert gc.get_threshold() == thresholds
    assert gc.callbacks == callbacks


class Clock:
    """Each look is so many microseconds after the one before."""

    def __init__(self, step_us=1):
        self.now_us = 0
        self.step_us = step_us

    def __call__(self):
        self.now_us += self.step_us
        return self.now_us


@asynccontextmanager
async def opened(*collections):
    async with Resources(collections).opened():
        yield


def run(main, backend):
    anyio.run(main, backend=backend)


def test_thresholds_hold_while_it_is_open_and_others_stay(backend):
    before = gc.get_threshold()

    async def main():
        tuned = GarbageCollection(thresholds=OURS, process=ProcessCollector())
        async with opened(tuned):
            assert gc.get_threshold() == OURS
            assert tuned.status()["thresholds_are_ours"]
        assert gc.get_threshold() == before
        async with opened(tuned):
            gc.set_threshold(999, 9, 9)  # somebody else's last word
        assert gc.get_threshold() == (999, 9, 9)
        gc.set_threshold(*before)

    run(main, backend)


@pytest.mark.usefixtures("thawed")
def test_by_default_nothing_is_changed(backend):
    before = gc.get_threshold()

    async def main():
        plain = GarbageCollection(process=ProcessCollector())
        async with opened(plain):
            plain.note_started()
            assert gc.get_threshold() == before
            assert gc.get_freeze_count() <= IMMORTAL_MAX

    run(main, backend)


def test_of_two_apps_the_first_wins_and_the_last_puts_back(backend, caplog):
    before = gc.get_threshold()

    async def main():
        process = ProcessCollector()
        first = GarbageCollection(thresholds=OURS, process=process)
        second = GarbageCollection(thresholds=(6_000, 20, 30), process=process)
        third = GarbageCollection(thresholds=OURS, process=process)
        second.name, third.name = "second", "third"
        async with opened(first):
            async with opened(second), opened(third):
                assert gc.get_threshold() == OURS
                assert not second.status()["thresholds_are_ours"]
                assert third.status()["thresholds_are_ours"]
                assert second.status()["apps"] == 3
                await first.close()
                assert gc.get_threshold() == OURS
            assert gc.get_threshold() == before
        assert gc.get_threshold() == before
        assert process.inside == 0

    run(main, backend)
    (record,) = caplog.records
    assert record.message == (
        "garbage collection: thresholds (6000, 20, 30) are not set, another app of this process "
        "has set others: (5000, 20, 30)"
    )


@pytest.mark.usefixtures("thawed")
def test_what_is_there_after_the_start_is_frozen_and_thawed_at_the_end(backend):
    async def main():
        frozen = GarbageCollection(freeze=True, process=ProcessCollector())
        async with opened(frozen):
            assert gc.get_freeze_count() <= IMMORTAL_MAX
            frozen.note_started()
            counted = frozen.status()["frozen"]
            assert counted > 1_000
            # What has died since then is frozen no more: frames, say.
            assert counted - 100 < gc.get_freeze_count() <= counted
            assert gc.collect() is not None
            assert gc.get_freeze_count() > 1_000
        assert gc.get_freeze_count() <= IMMORTAL_MAX
        assert frozen.status()["frozen"] == 0

    run(main, backend)


@pytest.mark.usefixtures("thawed")
def test_what_somebody_else_has_frozen_stays_frozen(backend):
    async def main():
        gc.freeze()
        frozen = GarbageCollection(freeze=True, process=ProcessCollector())
        async with opened(frozen):
            frozen.note_started()
            assert frozen.thaw() is False
        assert gc.get_freeze_count() > 1_000

    run(main, backend)


@pytest.mark.usefixtures("thawed")
def test_what_somebody_else_has_frozen_since_is_not_thawed(backend):
    async def main():
        frozen = GarbageCollection(freeze=True, process=ProcessCollector())
        async with opened(frozen):
            frozen.note_started()
            kept = [[] for _ in range(1_000)]
            gc.freeze()
        assert gc.get_freeze_count() > len(kept)

    run(main, backend)


@pytest.mark.usefixtures("thawed")
def test_garbage_is_collected_before_it_would_be_frozen(backend):
    class Cycle:
        def __init__(self):
            self.me = self

    async def main():
        frozen = GarbageCollection(process=ProcessCollector())
        gc.disable()
        try:
            for _ in range(100):
                Cycle()
            frozen.freeze()
            assert not any(isinstance(one, Cycle) for one in gc.get_objects())
            assert frozen.status()["last_by_hand"]["collected"] >= 100
            assert frozen.thaw() is True
            assert not any(isinstance(one, Cycle) for one in gc.get_objects())
        finally:
            gc.enable()

    run(main, backend)


def test_a_long_pause_is_told_with_what_it_met(backend, caplog, monkeypatch):
    monkeypatch.setattr(runtime, "TELL_EVERY_S", 0.01)

    async def main():
        watching = GarbageCollection(
            pause_told_s=0.1,
            route_running=lambda: "GET /reports",
            describe_load=lambda: "3 requests in flight",
            process=ProcessCollector(),
            clock=Clock(step_us=150_000),
        )
        gc.disable()
        try:
            async with opened(watching):
                gc.collect()
                with anyio.fail_after(120):
                    while not caplog.records:
                        await anyio.sleep(0.01)
            pauses = watching.status()["pauses"]
        finally:
            gc.enable()
        assert [
            (one["route"], one["load"], one["pause_s"], one["generation"]) for one in pauses
        ] == [("GET /reports", "3 requests in flight", 0.15, 2)]
        assert pauses[0]["where"].startswith(f"{__file__}:")
        assert pauses[0]["on_loop"]
        json.dumps(watching.status())
        names = [family.name for family in watching.families() if list(family.points)]
        assert "perf_memory_gc_long_pause_seconds" in names
        watching.reset_counts()
        assert watching.status()["long_pauses"] == 0

    run(main, backend)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "while GET /reports was served, 3 requests in flight, at " in record.message


def test_a_short_pause_and_one_that_was_asked_for_are_not_told(backend, caplog):
    async def main():
        short = GarbageCollection(process=ProcessCollector(), clock=Clock(step_us=1))
        by_hand = GarbageCollection(process=ProcessCollector(), clock=Clock(step_us=900_000))
        by_hand.name = "by hand"
        gc.disable()
        try:
            async with opened(short):
                gc.collect()
            async with opened(by_hand):
                assert by_hand.collect(1).took_us == 900_000
        finally:
            gc.enable()
        assert (short.pauses.count, by_hand.pauses.count) == (0, 0)

    run(main, backend)
    assert not caplog.records


def test_the_log_has_a_budget_and_status_a_bound(backend, caplog):
    async def main():
        watching = GarbageCollection(
            pauses_max=3,
            log_lines_per_minute_max=2,
            process=ProcessCollector(),
            clock=Clock(step_us=200_000),
        )
        gc.disable()
        try:
            async with opened(watching):
                for _ in range(8):
                    gc.collect(0)
        finally:
            gc.enable()
        assert (watching.pauses.count, len(watching.status()["pauses"])) == (8, 3)

    run(main, backend)
    assert len(caplog.records) == 2


def test_an_observer_that_fails_costs_nothing_but_its_words(backend):
    def fails():
        raise RuntimeError("no")

    async def main():
        watching = GarbageCollection(
            route_running=fails,
            describe_load=fails,
            process=ProcessCollector(),
            clock=Clock(step_us=200_000),
        )
        gc.disable()
        try:
            async with opened(watching):
                gc.collect()
        finally:
            gc.enable()
        assert watching.observer_failures == 2
        assert watching.pauses.last[0].route is None

    run(main, backend)


def test_a_collection_by_hand_says_what_it_has_brought(backend):
    class Cycle:
        def __init__(self):
            self.me = [self]

    rss = iter([100, 40])
    by_hand = GarbageCollection(rss_bytes=lambda: next(rss), process=ProcessCollector())
    gc.collect()
    gc.disable()
    try:
        for _ in range(500):
            Cycle()
        told = by_hand.collect()
    finally:
        gc.enable()
    assert told.collected >= 500
    assert told.blocks_before - told.blocks_after >= 500
    assert (told.rss_before_bytes, told.rss_after_bytes) == (100, 40)
    with pytest.raises(ValueError, match="from 0 to 2"):
        by_hand.collect(3)


@pytest.mark.parametrize("thresholds", [(0, 10, 10), (99, 1, 1), (700, 0, 10), (700, 10, 2**31)])
def test_thresholds_that_would_end_all_collections_are_refused(backend, thresholds):
    with pytest.raises(ValueError, match="thresholds"):
        GcSettings(thresholds=thresholds)
