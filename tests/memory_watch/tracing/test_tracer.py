"""Traces of the real thing: the leak is named, and tracing is off whatever happens."""

import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import anyio
import pytest

from perf_middleware.errors import TracingBusyError
from perf_middleware.memory_watch.tracing.drivers.hold import PROCESS
from perf_middleware.memory_watch.tracing.runtime import (
    MUST_STOP,
    STOPPED,
    TOO_MUCH,
    TURNED_OFF,
    AllocationTracer,
)

SEEN = [0] * 2_000
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def off_before_and_after():
    assert not tracemalloc.is_tracing()
    yield
    was_left_on = tracemalloc.is_tracing()
    tracemalloc.stop()
    assert not was_left_on


class Leaking:
    """A thread that keeps what it allocates, until the end of the block."""

    def __init__(self, keep):
        self.keep = keep
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.ended.wait(0.001):
            self.keep()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join(20)


def run_alone(script):
    """`script` in a process of its own, where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        timeout=60,
        capture_output=True,
        check=False,
    )


def line_of(function, offset=1):
    return f"tests/memory_watch/tracing/test_tracer.py:{function.__code__.co_firstlineno + offset}"


def keep_bytes():
    SEEN.append(bytearray(1_000))


DOCUMENT = json.dumps([number + 0.5 for number in range(200)])


def keep_parsed():
    SEEN.append(json.loads(DOCUMENT))


def test_a_leak_is_named_with_its_line_its_rate_and_the_list_that_holds_it():
    with Leaking(keep_bytes):
        report = AllocationTracer().trace(0.6)
    site = report.sites[0]
    assert site.where == line_of(keep_bytes)
    assert site.count > 20
    assert site.bytes >= site.count // 2 * 1_000
    assert site.bytes_per_s == pytest.approx(site.bytes / report.seconds)
    assert site.is_steady is not None
    assert 0.6 <= report.seconds < 5
    assert (report.ended_early, report.was_on, report.frames) == ("", False, 4)
    assert f"{__name__}.SEEN" in [container.name for container in report.containers]
    assert 0 < report.held_s < 1


def test_a_leak_grows_steadily():
    tracer = AllocationTracer(containers=False)
    with Leaking(keep_bytes):  # on a machine that is busy one half may get less time
        told = (tracer.trace(0.3).sites[0].is_steady for _ in range(10))
        assert any(told)


def test_behind_a_library_the_apps_own_line_is_named():
    with Leaking(keep_parsed):
        report = AllocationTracer(frames=1).trace(0.3, frames=6)
    assert report.frames == 6
    site = report.sites[0]
    assert site.where == line_of(keep_parsed)
    assert site.allocated_at.startswith("json/decoder.py:")
    assert site.stack[0] == site.allocated_at


def test_an_app_in_another_place_can_be_named_as_own():
    folder = str(Path(json.__file__).parent)
    with Leaking(keep_parsed):
        report = AllocationTracer(own_paths=[folder]).trace(0.2)
    assert report.sites[0].where.startswith("decoder.py:")


def test_what_is_freed_again_is_no_site():
    with Leaking(lambda: [bytearray(100) for _ in range(1_000)]):
        report = AllocationTracer(containers=False).trace(0.3)
    assert all(site.is_steady is not True or site.bytes < 100_000 for site in report.sites)
    assert report.containers == ()


def test_sites_are_bounded():
    with Leaking(keep_bytes), Leaking(keep_parsed):
        assert len(AllocationTracer(sites_max=1).trace(0.1).sites) == 1


# --- tracing is never left on -------------------------------------------------------------------


def test_a_trace_that_breaks_turns_tracing_off(monkeypatch):
    def broken():
        raise MemoryError

    monkeypatch.setattr(tracemalloc, "take_snapshot", broken)
    tracer = AllocationTracer()
    with pytest.raises(MemoryError):
        tracer.trace(0.05)
    assert not tracemalloc.is_tracing()
    assert not tracer.is_tracing
    monkeypatch.undo()
    assert tracer.trace(0.05).ended_early == ""


@BACKENDS
def test_a_cancelled_trace_is_off_at_once(backend):
    async def main():
        tracer = AllocationTracer()
        with anyio.move_on_after(0.2) as scope:
            await tracer.trace_async(30)
        assert scope.cancelled_caught
        assert not tracemalloc.is_tracing()
        assert not tracer.is_tracing
        assert tracer.last is None
        report = await tracer.trace_async(0.05)
        assert tracer.last is report

    anyio.run(main, backend=backend)


@BACKENDS
def test_the_loop_runs_while_it_is_traced(backend):
    async def main():
        turns = 0
        reports = []

        async def trace():
            reports.append(await AllocationTracer().trace_async(0.3))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trace)
            while not reports:
                await anyio.sleep(0.01)
                keep_bytes()
                turns += 1
        assert reports[0].sites[0].where == line_of(keep_bytes)
        return turns

    assert anyio.run(main, backend=backend) > 5


def test_a_running_trace_can_be_stopped_and_reports_what_it_saw():
    tracer = AllocationTracer()
    tracer.stop()  # nothing runs
    reports = []
    with Leaking(keep_bytes):
        thread = threading.Thread(target=lambda: reports.append(tracer.trace(60)))
        thread.start()
        while not tracemalloc.is_tracing():
            time.sleep(0.01)
        time.sleep(0.1)
        tracer.stop()
        thread.join(20)
    [report] = reports
    assert report.ended_early == STOPPED
    assert report.seconds < 30
    assert report.sites[0].where == line_of(keep_bytes)


def test_whoever_turns_tracing_off_meanwhile_ends_the_trace():
    tracer = AllocationTracer()
    reports = []
    thread = threading.Thread(target=lambda: reports.append(tracer.trace(60)))
    thread.start()
    while not tracemalloc.is_tracing():
        time.sleep(0.01)
    tracemalloc.stop()
    thread.join(20)
    assert (reports[0].ended_early, reports[0].sites) == (TURNED_OFF, ())


def test_it_ends_early_where_more_is_allocated_than_a_snapshot_may_hold():
    with Leaking(lambda: SEEN.extend(bytearray(10) for _ in range(2_000))):
        report = AllocationTracer(tracing_bytes_max=1 << 20).trace(30)
    del SEEN[2_000:]
    assert report.ended_early == TOO_MUCH
    assert report.seconds < 20


def test_it_ends_early_where_it_is_told_to():
    assert AllocationTracer(must_stop=lambda: True).trace(30).ended_early == MUST_STOP


def test_what_cannot_be_asked_ends_no_trace_and_is_logged_once(caplog):
    def broken():
        raise RuntimeError("no level")

    tracer = AllocationTracer(must_stop=broken)
    assert [tracer.trace(0.05).ended_early, tracer.trace(0.05).ended_early] == ["", ""]
    assert len(caplog.records) == 1


def test_a_fork_in_the_middle_leaves_no_child_that_traces():
    script = textwrap.dedent("""
        import os, sys, threading, time, tracemalloc, warnings
        from perf_middleware.memory_watch.tracing.runtime import AllocationTracer
        tracer = AllocationTracer()
        thread = threading.Thread(target=tracer.trace, args=(20,))
        thread.start()
        while not tracemalloc.is_tracing():
            time.sleep(0.01)
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: the point
        pid = os.fork()
        if pid == 0:
            was_off = not tracemalloc.is_tracing()
            works = AllocationTracer().trace(0.05).ended_early == ""
            os._exit(0 if was_off and works and not tracemalloc.is_tracing() else 1)
        assert tracemalloc.is_tracing()
        tracer.stop()
        thread.join()
        assert not tracemalloc.is_tracing()
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    if not hasattr(os, "fork"):
        pytest.skip("this platform cannot fork")
    done = run_alone(script)
    assert done.returncode == 0, done.stderr.decode()


def test_a_process_that_ends_in_the_middle_ends():
    script = (
        "import threading, time, tracemalloc\n"
        "from perf_middleware.memory_watch.tracing.runtime import AllocationTracer\n"
        "threading.Thread(target=AllocationTracer().trace, args=(50,), daemon=True).start()\n"
        "while not tracemalloc.is_tracing(): time.sleep(0.01)\n"
    )
    done = run_alone(script)
    assert (done.returncode, done.stderr) == (0, b"")


# --- tracing that is on already -----------------------------------------------------------------


def test_tracing_that_the_user_has_on_is_used_and_left_on():
    tracemalloc.start(2)
    try:
        before = [bytearray(1_000) for _ in range(500)]
        with Leaking(keep_bytes):
            report = AllocationTracer().trace(0.3)
        assert tracemalloc.is_tracing()
        assert (report.was_on, report.frames) == (True, 2)
        assert report.sites[0].where == line_of(keep_bytes)
        assert report.bytes < 500_000, "what was there before is no growth"
        assert len(before) == 500
    finally:
        tracemalloc.stop()


def test_so_much_is_traced_already_that_it_is_not_copied():
    tracemalloc.start()
    try:
        kept = [bytearray(1) for _ in range(5_000)]
        report = AllocationTracer(tracing_bytes_max=1_000).trace(30)
        assert (report.ended_early, report.sites, report.held_s) == (TOO_MUCH, (), 0)
        assert len(kept) == 5_000
    finally:
        tracemalloc.stop()


# --- one at a time ------------------------------------------------------------------------------


def test_a_second_trace_is_refused_and_does_not_disturb_the_first():
    first, second = AllocationTracer(), AllocationTracer()
    reports = []
    thread = threading.Thread(target=lambda: reports.append(first.trace(0.4)))
    thread.start()
    while not tracemalloc.is_tracing():
        time.sleep(0.01)
    for tracer in (first, second):
        with pytest.raises(TracingBusyError, match="one trace"):
            tracer.trace(0.1)
    assert first.is_tracing
    assert not second.is_tracing
    thread.join(20)
    assert reports[0].ended_early == ""
    assert second.trace(0.05).ended_early == ""


@pytest.mark.parametrize("seconds", [0, -1, 61, float("nan"), float("inf")])
def test_a_time_out_of_bounds_is_refused_and_nothing_is_claimed(seconds):
    tracer = AllocationTracer()
    with pytest.raises(ValueError, match="seconds must be"):
        tracer.trace(seconds)
    with pytest.raises(ValueError, match="frames must be"):
        tracer.trace(0.05, frames=0)
    assert tracer.trace(0.05).ended_early == ""


@pytest.mark.parametrize(
    "options", [{"frames": 0}, {"frames": 26}, {"sites_max": 0}, {"tracing_bytes_max": 0}]
)
def test_bounds_of_a_tracer_are_checked(options):
    with pytest.raises(ValueError, match="must be"):
        AllocationTracer(**options)


def test_a_call_that_is_measured_keeps_tracing_on_and_a_trace_makes_its_figure_void():
    call = PROCESS.hold_for_call()
    call.start(1)
    assert (call.is_valid, tracemalloc.get_traceback_limit()) == (True, 1)
    other = PROCESS.hold_for_call()
    other.start(1)
    other.release()
    assert call.is_valid
    assert AllocationTracer().trace(0.05).frames == 4
    assert tracemalloc.is_tracing(), "the call has not ended"
    assert not call.is_valid
    call.release()
    call.release()
    assert not tracemalloc.is_tracing()


def test_a_hold_that_was_released_does_not_start_any_more():
    claim = PROCESS.claim_for_trace()
    claim.release()
    claim.start(1)
    assert not tracemalloc.is_tracing()
    assert not claim.is_valid


def test_figures_and_status_tell_of_traces():
    tracer = AllocationTracer()
    assert tracer.status() == {"tracing": False, "traces": 0, "last": None}
    tracer.trace(0.05)
    values = {family.name: [p.value for p in family.points] for family in tracer.families()}
    assert values["perf_memory_tracing"] == [0]
    assert values["perf_memory_traces"] == [1]
    assert values["perf_memory_tracing_seconds"][0] >= 0.05
    assert tracer.status()["last"][0].startswith("traced for 0.1 s: ")
    tracer.reset_counts()
    assert tracer.status()["traces"] == 0


def test_an_app_that_never_traces_never_imports_tracemalloc():
    code = (
        "import sys\n"
        "from perf_middleware.memory_watch.tracing.runtime import AllocationTracer\n"
        "AllocationTracer()\n"
        "sys.exit('tracemalloc' in sys.modules)"
    )
    assert run_alone(code).returncode == 0


def test_a_trace_keeps_no_memory_of_its_own():
    tracer = AllocationTracer()
    tracer.trace(0.05)
    gc.collect()
    assert not any(type(found).__name__ == "Snapshot" for found in gc.get_objects())


def test_a_finalizer_may_measure_a_call_in_the_middle_of_a_step():
    done = []

    def use():
        with PROCESS.lock:  # as a step has it, in the middle of which a collection begins
            call = PROCESS.hold_for_call()
            call.start(1)
            done.append(call.is_valid)
            call.release()

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(5)
    assert done == [True]
