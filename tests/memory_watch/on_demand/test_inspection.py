"""Looks on demand: kept for a while, compared, bounded, one at a time."""

import gc
import os
import threading
import time

import pytest

from perf_middleware.errors import TracingBusyError
from perf_middleware.memory_watch.on_demand.pictures import ReadingChange, changes
from perf_middleware.memory_watch.on_demand.runtime import (
    MemoryInspection,
    UnknownPictureError,
    process_readings,
)
from perf_middleware.memory_watch.tracing.drivers import objects
from perf_middleware.memory_watch.tracing.runtime import AllocationTracer

US = 1_000_000
KEPT = [0] * 2_000


class Order:
    pass


class FakeClock:
    def __init__(self):
        self.now_us = 5 * US

    def __call__(self):
        return self.now_us


class Readings:
    def __init__(self):
        self.rss_bytes = 1_000

    def __call__(self):
        self.rss_bytes += 500
        return {"rss_bytes": self.rss_bytes, "swap_bytes": None}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def inspection(clock):
    tracer = AllocationTracer()  # on the real clock: it waits
    return MemoryInspection(tracer=tracer, readings=Readings(), clock=clock, snapshot_s_max=60)


def ids(inspection):
    return [kept["id"] for kept in inspection.status()["snapshots"]]


def test_a_comparison_tells_what_became_more_and_who_holds_it(inspection, clock):
    gc.collect()  # what goes away meanwhile would count against what comes
    a = inspection.snapshot()
    orders = [Order() for _ in range(4_321)]
    KEPT.extend([0] * 700)
    clock.now_us += 3 * US
    told = inspection.compare(a, inspection.snapshot())
    assert told.seconds == 3.0
    assert told.readings["rss_bytes"] == ReadingChange(before=1_500, after=2_000, change=500)
    assert {row.name: row.grown for row in told.types}[f"{__name__}.Order"] == len(orders)
    assert told.objects > 4_000
    grown = {container.name: container for container in told.containers}
    assert (grown[f"{__name__}.KEPT"].before, grown[f"{__name__}.KEPT"].after) == (
        len(KEPT) - 700, len(KEPT),
    )  # fmt: skip
    assert told.trace is None


def test_compared_the_other_way_round_time_and_types_shrink(inspection, clock):
    a = inspection.snapshot()
    clock.now_us += US
    b = inspection.snapshot()
    assert inspection.compare(b, a).seconds == -1.0
    assert inspection.compare(a, a).types == ()


def test_a_trace_can_be_kept_with_a_snapshot(inspection):
    report = inspection.trace(0.05)
    a, b = inspection.snapshot(), inspection.snapshot(trace=report)
    assert inspection.compare(a, b).trace is report


def test_an_id_names_the_process_that_has_it(inspection):
    assert inspection.snapshot() == f"{os.getpid()}-1"


def test_few_snapshots_are_kept_and_the_oldest_makes_room(clock):
    inspection = MemoryInspection(snapshots_max=2, clock=clock)
    made = [inspection.snapshot() for _ in range(3)]
    assert ids(inspection) == made[1:]
    with pytest.raises(UnknownPictureError) as raised:
        inspection.compare(made[0], made[2])
    assert str(raised.value) == (
        f"no snapshot {made[0]} is kept in this process ({os.getpid()}); kept are: "
        f"{made[1]}, {made[2]}"
    )


def test_snapshots_age_out(inspection, clock):
    old = inspection.snapshot()
    clock.now_us += 60 * US
    assert ids(inspection) == [old]
    clock.now_us += 1
    assert ids(inspection) == []
    with pytest.raises(UnknownPictureError, match="kept are: none"):
        inspection.compare(old, old)


def test_a_snapshot_holds_none_of_the_objects(inspection):
    inspection.snapshot()
    before = len(gc.get_referrers(KEPT))
    inspection.snapshot()
    assert len(gc.get_referrers(KEPT)) == before


def test_a_collection_tells_what_it_freed(inspection):
    gc.collect()
    for _ in range(50):
        loop = []
        loop.append(loop)
    del loop
    told = inspection.collect()
    assert told.objects >= 50
    assert told.uncollectable == 0
    assert told.readings["rss_bytes"].change == 500
    assert told.readings["swap_bytes"] == ReadingChange(before=None, after=None, change=None)


def test_a_second_look_at_the_same_time_is_refused(inspection, monkeypatch):
    looking, go_on = threading.Event(), threading.Event()

    def slow():
        looking.set()
        go_on.wait(20)
        return {}

    monkeypatch.setattr(objects, "count_types", slow)
    thread = threading.Thread(target=inspection.object_counts)
    thread.start()
    assert looking.wait(20)
    for look in (inspection.object_counts, inspection.snapshot, inspection.collect):
        with pytest.raises(TracingBusyError):
            look()
    go_on.set()
    thread.join(20)
    assert inspection.object_counts().total == 0


def test_a_look_that_breaks_lets_the_next_one_in(inspection, monkeypatch):
    monkeypatch.setattr(objects, "count_types", lambda: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            inspection.snapshot()
    assert ids(inspection) == []


def test_closing_ends_a_trace_and_forgets_the_snapshots():
    inspection = MemoryInspection(tracer=AllocationTracer(containers=False))
    inspection.snapshot()
    reports = []
    thread = threading.Thread(target=lambda: reports.append(inspection.trace(60)))
    thread.start()
    while not inspection.tracer.is_tracing:
        time.sleep(0.01)
    inspection.close()
    thread.join(20)
    assert reports[0].seconds < 30
    assert ids(inspection) == []


def test_this_process_tells_its_memory():
    readings = process_readings()
    assert readings["rss_bytes"] > 1_000_000
    assert readings["allocated_blocks"] > 1_000


def test_readings_of_two_moments_keep_their_order_and_miss_none():
    assert list(changes({"b": 1, "a": None}, {"a": 2, "c": 3})) == ["b", "a", "c"]
    assert changes({"a": 1.5}, {"a": 1}) == {"a": ReadingChange(before=1.5, after=1, change=-0.5)}


@pytest.mark.parametrize("options", [{"snapshots_max": 1}, {"snapshot_s_max": 0}])
def test_bounds_of_an_inspection_are_checked(options):
    with pytest.raises(ValueError, match="must be"):
        MemoryInspection(**options)
