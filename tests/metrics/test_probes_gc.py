import asyncio
import gc
from itertools import count

import pytest

from perf_middleware.families import Family
from perf_middleware.metrics.probes.gc import GcProbe


class NoBackground:
    def start(self, name, run):
        raise AssertionError("the collector needs no task")


def opened(**kwargs):
    probe = GcProbe(**kwargs)
    asyncio.run(probe.open(NoBackground()))
    return probe


def close(probe):
    asyncio.run(probe.close())


def points_of(probe, name):
    (family,) = [family for family in probe.families() if family.name == name]
    assert isinstance(family, Family)
    return {point.labels.text: point for point in family.points}


OLDEST = 'generation="2"'


@pytest.fixture
def probe():
    probe = opened()
    yield probe
    close(probe)


def test_a_collection_is_timed_under_its_generation(probe):
    before = probe.status()["collections"][2]
    gc.collect()
    assert probe.status()["collections"][2] > before
    pauses = points_of(probe, "perf_gc_pause_seconds")[OLDEST]
    assert pauses.cumulative[-1] >= 1
    assert pauses.sum > 0
    assert set(points_of(probe, "perf_gc_pause_seconds")) == {
        f'generation="{number}"' for number in range(3)
    }


def test_what_was_freed_is_counted(probe):
    before = points_of(probe, "perf_gc_collected")[OLDEST].value
    for _ in range(50):
        ring = []
        ring.append(ring)
    gc.collect()
    gained = sum(point.value for point in points_of(probe, "perf_gc_collected").values())
    assert gained - before >= 40


def test_the_pause_is_the_time_between_start_and_stop():
    ticks = count(0, 2_000_000)
    probe = GcProbe(clock_ns=lambda: next(ticks))
    for _ in range(3):
        probe._callback("start", {"generation": 1, "collected": 0, "uncollectable": 0})
        probe._callback("stop", {"generation": 1, "collected": 5, "uncollectable": 1})
    pauses = points_of(probe, "perf_gc_pause_seconds")['generation="1"']
    assert pauses.sum == pytest.approx(0.006)
    assert points_of(probe, "perf_gc_collected")['generation="1"'].value == 15
    assert points_of(probe, "perf_gc_uncollectable")['generation="1"'].value == 3
    assert probe.status()["longest_s"] == pytest.approx(0.002)


@pytest.mark.parametrize("generation", [3, 17])
def test_a_generation_that_no_interpreter_has_today_counts_as_the_oldest(generation):
    probe = GcProbe()
    probe._callback("start", {"generation": generation})
    probe._callback("stop", {"generation": generation, "collected": 0, "uncollectable": 0})
    assert probe.status()["collections"] == [0, 0, 1]


def test_a_collection_that_was_under_way_when_we_opened_is_left_out():
    probe = GcProbe()
    probe._callback("stop", {"generation": 0, "collected": 1, "uncollectable": 0})
    assert probe.status()["collections"] == [0, 0, 0]


def test_the_callback_never_raises_but_counts():
    probe = GcProbe()
    probe._callback("start", {})
    probe._callback("stop", {})
    assert probe.status()["errors"] == 1


def test_probes_of_two_apps_do_not_disturb_each_other():
    first, second = opened(), opened()
    close(first)
    before = first.status()["collections"], second.status()["collections"][2]
    gc.collect()
    assert first.status()["collections"] == before[0]
    assert second.status()["collections"][2] > before[1]
    close(second)


def test_closing_takes_the_callback_out_and_opening_again_works():
    callbacks = list(gc.callbacks)
    probe = opened()
    asyncio.run(probe.open(NoBackground()))
    assert len(gc.callbacks) == len(callbacks) + 1
    assert probe.status()["running"]
    close(probe)
    close(probe)
    assert gc.callbacks == callbacks
    assert not probe.status()["running"]
    asyncio.run(probe.open(NoBackground()))
    before = probe.status()["collections"][2]
    gc.collect()
    assert probe.status()["collections"][2] > before
    close(probe)


def test_a_list_that_someone_else_cleared_is_no_error(probe):
    gc.callbacks.remove(probe._callback)
    close(probe)


def test_a_collector_that_nobody_timed_has_no_figures():
    assert list(GcProbe().families()) == []
