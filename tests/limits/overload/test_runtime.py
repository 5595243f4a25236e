"""The level beside an app: its lag, its events, its dry run, what an operator forces."""

import logging
import threading
import time

import anyio
import pytest

from perf_middleware.events import Events, OverloadChanged
from perf_middleware.limits.overload.level import BUSY, NORMAL, OVERLOADED
from perf_middleware.limits.overload.probes import CpuShare, usable_cpus
from perf_middleware.limits.overload.runtime import SIGNALS_MAX, OverloadLevel
from perf_middleware.limits.overload.runtime import lag as lag_module
from perf_middleware.limits.overload.runtime.lag import LoopLag
from perf_middleware.limits.overload.settings import OverloadSettings
from perf_middleware.resource import Resources

US = 1_000_000
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class FakeClock:
    def __init__(self):
        self.now_us = 1_000_000

    def __call__(self):
        return self.now_us


class Bench:
    """A level whose samples the test takes itself."""

    def __init__(self, **options):
        self.clock = FakeClock()
        self.seen = []
        self.value = 0.0
        events = Events()
        events.subscribe(OverloadChanged, self.seen.append)
        self.level = OverloadLevel(events=events, clock=self.clock, fall_s=1.0, **options)
        self.level.add_signal("line", self.read, busy_at=1.0, overloaded_at=3.0)

    def read(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def feed(self, *values, step_us=250_000):
        for self.value in values:
            self.clock.now_us += step_us
            self.level.sample(self.clock.now_us)
        return self.level.level


def value_of(level, name, /, **labels):
    [family] = [family for family in level.families() if family.name == name]
    [point] = [p for p in family.points if p.labels.pairs == tuple(labels.items())]
    return point.value


def test_layers_see_a_plain_number_and_operators_the_reason():
    bench = Bench()
    assert (bench.level.level, bench.level.level_name, bench.level.reason) == (0, "normal", "")
    assert bench.feed(2.0, 2.0) == BUSY
    assert bench.feed(4.0, 4.0) == OVERLOADED
    assert "level" in vars(bench.level)  # an attribute of the object: layers pay no call
    assert (bench.level.level_name, bench.level.reason) == ("overloaded", "line")
    assert bench.level.since_us == bench.clock.now_us


def test_each_change_is_told_once_with_its_reason_and_numbers(caplog):
    bench = Bench()
    with caplog.at_level(logging.INFO, "perf_middleware.limits"):
        bench.feed(4.0, 4.0, 4.0, 4.0, *[0.0] * 20)
    assert [(e.before, e.level, e.reason, e.value, e.bound) for e in bench.seen] == [
        (0, 2, "line", 4.0, 3.0),
        (2, 1, "line", 0.0, 1.0),
        (1, 0, "", None, None),
    ]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "overload level: overloaded, was normal (line 4, overloaded from 3)"
    assert len(said) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]


def test_in_a_dry_run_it_is_measured_and_told_and_layers_see_normal(caplog):
    bench = Bench(obey=False)
    with caplog.at_level(logging.INFO, "perf_middleware.limits"):
        assert bench.feed(4.0, 4.0) == NORMAL
    assert bench.level.measured == OVERLOADED
    assert [event.obeyed for event in bench.seen] == [False]
    assert "dry run" in caplog.records[0].getMessage()
    assert value_of(bench.level, "perf_overload_level") == 0
    assert value_of(bench.level, "perf_overload_measured_level") == 2


def test_a_signal_that_fails_counts_as_nothing_and_is_logged_once_per_change(caplog):
    bench = Bench()
    bench.feed(2.0, 2.0)
    broken = RuntimeError("no pool")
    bench.feed(*[broken] * 8)
    assert bench.level.level == NORMAL
    assert value_of(bench.level, "perf_overload_signal_failures", signal="line") == 8
    bench.feed(0.0, broken)
    assert [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()] == [
        "the overload signal line cannot be read, going on without it: RuntimeError: no pool"
    ] * 2


def test_what_is_no_number_does_no_harm():
    bench = Bench()
    bench.feed("a line", None, float("nan"))
    assert bench.level.level == NORMAL
    assert value_of(bench.level, "perf_overload_signal_failures", signal="line") == 1


def test_signals_are_bounded_and_named_once():
    level = OverloadLevel()
    for number in range(SIGNALS_MAX - 1):
        level.add_signal(f"{number}", lambda: 0.0, busy_at=1.0)
    with pytest.raises(ValueError, match="already"):
        level.add_signal("1", lambda: 0.0, busy_at=1.0)
    with pytest.raises(ValueError, match="more than"):
        level.add_signal("last", lambda: 0.0, busy_at=1.0)
    level.remove_signal("1")
    level.remove_signal("1")
    level.add_signal("last", lambda: 0.0, busy_at=1.0)


def test_time_is_counted_at_each_level_and_can_be_reset():
    clock = FakeClock()
    level = OverloadLevel(clock=clock, fall_s=100)
    level.add_signal("line", lambda: 2.0, busy_at=1.0)

    async def main():
        async with Resources([level]).opened():
            for _ in range(4):
                clock.now_us += US
                level.sample(clock.now_us)
            seconds = [
                value_of(level, "perf_overload_seconds", level=name) for name in ("normal", "busy")
            ]
            changes = value_of(level, "perf_overload_changes", level="busy")
            level.reset_counts()
            return seconds, changes, value_of(level, "perf_overload_seconds", level="busy")

    assert anyio.run(main) == ([2.0, 2.0], 1, 0.0)


def test_an_operator_can_force_a_level_for_a_time():
    bench = Bench(obey=False)

    async def main():
        with pytest.raises(RuntimeError, match="not measured"):
            bench.level.force(OVERLOADED, 1.0)
        async with Resources([bench.level]).opened():
            bench.level.force(OVERLOADED, 1.0)
            seen = [bench.level.level, bench.level.measured, bench.level.status()["forced"]]
            seen += [bench.feed(0.0, 0.0, 0.0), bench.feed(0.0)]
            bench.level.force(BUSY, 60)
            seen.append(bench.level.level)
            bench.level.release()
            seen.append(bench.level.level)
            for level, seconds in ((3, 1), (-1, 1), (1, 0), (1, float("nan")), (1, 1e9)):
                with pytest.raises(ValueError, match="0 to 2"):
                    bench.level.force(level, seconds)
            return seen

    assert anyio.run(main) == [2, 0, True, 2, 0, 1, 0]
    assert [(event.level, event.forced) for event in bench.seen] == [(2, True), (1, True)]


@BACKENDS
def test_a_loop_that_stands_again_and_again_is_overloaded_and_one_that_stood_once_is_not(backend):
    """The sampler wakes late by itself; nothing else is told of it."""
    level = OverloadLevel(interval_s=0.01, lag_busy_s=0.2, lag_overloaded_s=0.2, fall_s=60)

    async def main():
        async with Resources([level]).opened():
            await anyio.sleep(0.05)
            time.sleep(0.5)
            for _ in range(5):
                await anyio.sleep(0.005)
            once = level.measured
            with anyio.fail_after(120):
                while level.level < OVERLOADED:
                    time.sleep(0.4)
                    await anyio.sleep(0.002)
            return once, level.reason, level.lag_s() >= 0

    once, reason, _ = anyio.run(main, backend=backend)
    assert once < OVERLOADED
    assert reason == "loop_lag"
    assert level.level == NORMAL  # and nobody measures any more
    assert not level.is_measuring


@BACKENDS
def test_a_start_that_blocks_the_loop_is_no_overload(backend):
    level = OverloadLevel(interval_s=0.01, lag_busy_s=0.2, lag_overloaded_s=0.2, fall_s=60)

    async def main():
        async with Resources([level]).opened():
            with anyio.fail_after(120):
                while level.level < OVERLOADED:
                    time.sleep(0.4)
                    await anyio.sleep(0.002)
            time.sleep(0.4)
            level.note_started()
            seen = [(level.level, level.lag_s())]
            time.sleep(0.3)
            await anyio.sleep(0.03)
            return [*seen, level.level]

    assert anyio.run(main, backend=backend) == [(0, 0.0), 0]
    level.note_started()  # where nobody measures it does no harm


def test_the_lag_grows_while_the_loop_is_blocked():
    level = OverloadLevel(interval_s=0.01)
    read = []

    def look(done):
        while not done.is_set():
            read.append(level.lag_s())
            time.sleep(0.01)

    async def main():
        async with Resources([level]).opened():
            await anyio.sleep(0.05)
            done = threading.Event()
            thread = threading.Thread(target=look, args=(done,))
            thread.start()
            deadline = time.monotonic() + 120
            while max(read, default=0) < 0.2 and time.monotonic() < deadline:
                time.sleep(0.4)
                await anyio.sleep(0.02)  # it may have been between two of its sleeps
            done.set()
            thread.join()

    anyio.run(main)
    assert max(read) >= 0.2


@BACKENDS
def test_opened_twice_it_measures_once_and_closed_it_rests(backend):
    level = OverloadLevel(interval_s=0.001)

    async def main():
        async with anyio.create_task_group() as tasks:

            class Here:
                def start(self, name, run):
                    tasks.start_soon(run)

            await level.open(Here())
            await level.open(Here())
            await anyio.sleep(0.02)
            assert level.is_measuring
            await level.close()
            await level.close()
            assert level.status()["measuring"] is False

    anyio.run(main, backend=backend)
    assert level.status()["level"] == "normal"


def test_without_a_lifespan_it_is_normal():
    level = OverloadSettings().make_level(queue_age_s=lambda: 99.0)
    assert (level.level, level.lag_s(), level.status()["measuring"]) == (0, 0.0, False)


def test_a_sampler_that_fails_leaves_no_level_behind(caplog):
    level = OverloadLevel(interval_s=0.001)
    level.level = OVERLOADED
    level._signals = None  # cannot be read

    async def main():
        resources = Resources([level])
        async with resources.opened():
            with anyio.fail_after(120):
                while level.is_measuring:
                    await anyio.sleep(0.001)
        return resources.task_failures

    assert anyio.run(main) == 1
    assert level.level == NORMAL


# --- settings -------------------------------------------------------------------------------------


def test_settings_make_a_level_with_the_signals_that_are_given():
    bare = OverloadSettings(cpu_busy_share=None).make_level()
    assert set(bare._watched) == {"loop_lag"}
    full = OverloadSettings().make_level(
        memory_share=lambda: 0.5, queue_age_s=lambda: 0.0, thread_queue_s=lambda: 0.0,
        cpu_quota=lambda: 1.0,
    )  # fmt: skip
    assert set(full._watched) == {"loop_lag", "cpu", "memory", "queue_age", "thread_queue"}
    assert full._watched["cpu"].signal.overloaded_at is None  # CPU alone never says overloaded


@pytest.mark.parametrize(
    "wrong",
    [
        {"loop_lag_busy_s": 0.5}, {"memory_overloaded_share": 0.5}, {"interval_s": 0},
        {"fall_s": 0}, {"cpu_busy_share": 1.5}, {"queue_age_busy_s": 1.0},
        {"thread_queue_overloaded_s": 0.01}, {"unknown": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_setting_fails_when_it_is_made(wrong):
    with pytest.raises(ValueError, match="validation error"):
        OverloadSettings(**wrong)


# --- the processor share --------------------------------------------------------------------------


class Clocks:
    def __init__(self):
        self.wall = self.process = self.thread = 0

    def share(self, **options):
        return CpuShare(
            process_ns=lambda: self.process, thread_ns=lambda: self.thread,
            wall_ns=lambda: self.wall, **options,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("quota", "process_ms", "thread_ms", "expected"),
    [
        pytest.param(None, 0, 0, 0.0, id="idle"),
        pytest.param(1.0, 50, 10, 0.5, id="the process against one processor"),
        pytest.param(0.5, 25, 25, 0.5, id="half a processor is all there is"),
        pytest.param(None, 100, 100, 1.0, id="one thread is busy, others may lie idle"),
        pytest.param(0.5, 90, 90, 1.0, id="never more than all"),
    ],
)
def test_the_share_is_of_what_may_be_used(monkeypatch, quota, process_ms, thread_ms, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    clocks = Clocks()
    share = clocks.share(cpu_quota=lambda: quota)
    assert share.read() is None
    clocks.wall += 100_000_000
    clocks.process += process_ms * 1_000_000
    clocks.thread += thread_ms * 1_000_000
    assert share.read() == pytest.approx(expected)


def test_it_is_measured_over_no_shorter_span_than_clocks_can_tell():
    clocks = Clocks()
    share = clocks.share()
    share.read()
    clocks.wall, clocks.thread, clocks.process = 100_000_000, 100_000_000, 100_000_000
    first = share.read()
    clocks.wall += 1_000_000
    assert share.read() == first == 1.0
    clocks.thread = 0  # another thread asks: another loop
    assert share.read() is None


def test_a_quota_that_cannot_be_read_is_none():
    def broken():
        raise OSError

    clocks = Clocks()
    share = clocks.share(cpu_quota=broken)
    share.read()
    clocks.wall += 100_000_000
    assert share.read_process() == 0.0
    assert usable_cpus(0.25) == 0.25
    assert usable_cpus(None) >= 1


# --- a loop that is kept from its turns -----------------------------------------------------------


class Turns:
    """Three clocks; a turn takes (wall, own, others), us."""

    def __init__(self, *turns):
        self.turns = list(turns)
        self.wall_us = self.own_us = self.others_us = 0

    async def turn(self):
        wall_us, own_us, others_us = self.turns.pop(0) if self.turns else (0, 0, 0)
        self.wall_us += wall_us
        self.own_us += own_us
        self.others_us += others_us


HELD = (30_000, 1_000, 29_000)


@pytest.mark.parametrize(
    ("turns", "is_starved"),
    [
        pytest.param([HELD, HELD], True, id="others held the lock, twice"),
        pytest.param([HELD, (100, 100, 0)], False, id="once is no state"),
        pytest.param([(30_000, 30_000, 0)] * 2, False, id="it was the loop's own work"),
        pytest.param([(30_000, 30_000, 30_000)] * 2, False, id="others run beside it"),
        pytest.param([(30_000, 1_000, 1_000)] * 2, False, id="other processes, or a sleep"),
        pytest.param([(6_000, 1_000, 5_000)] * 2, False, id="one switch of threads is usual"),
    ],
)
def test_a_loop_is_starved_where_other_threads_use_the_time_of_its_turns(
    turns, is_starved, monkeypatch
):
    clocks = Turns(*turns)
    lag = LoopLag(
        doubted_s=1.0,
        clock=lambda: clocks.wall_us,
        thread_ns=lambda: clocks.own_us * 1_000,
        process_ns=lambda: (clocks.own_us + clocks.others_us) * 1_000,
    )
    monkeypatch.setattr(lag_module, "_turn", clocks.turn)

    async def measure():
        await lag.measure(0.0)

    anyio.run(measure)
    assert lag.is_starved is is_starved
    lag.forget()
    assert not lag.is_starved


@pytest.mark.parametrize(
    ("options", "forced", "seen"),
    [
        pytest.param({}, None, True, id="as measured"),
        pytest.param({"obey": False}, None, False, id="in a dry run nothing acts on it"),
        pytest.param({}, NORMAL, False, id="an operator has the last word"),
    ],
)
def test_layers_see_a_starved_loop_where_they_obey(options, forced, seen):
    level = OverloadLevel(interval_s=0.01, **options)

    async def scene():
        async with Resources([level]).opened():
            if forced is not None:
                level.force(forced, 60)
            level._lag.is_starved = True
            return level.is_starved

    assert anyio.run(scene) is seen
    assert not level.is_starved


def test_threads_that_compute_starve_the_loop():
    level = OverloadLevel(interval_s=0.01)
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            sum(range(1_000))

    async def scene():
        async with Resources([level]).opened():
            threads = [threading.Thread(target=compute) for _ in range(12)]
            for thread in threads:
                thread.start()
            try:
                with anyio.fail_after(120):
                    while not level.is_starved:
                        await anyio.sleep(0.01)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            with anyio.fail_after(120):
                while level.is_starved:
                    await anyio.sleep(0.01)

    anyio.run(scene)
