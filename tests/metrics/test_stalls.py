import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.metrics.watching.stacks import StackLine
from perf_middleware.metrics.watching.stalls import (
    Lateness,
    Stall,
    cause_of,
    holder_of,
    overlap_us,
)

SECOND = 1_000_000
SWITCH = 5_000


def slept(*, late=SECOND, process=0, loop: int | None = 0, waits: int | None = 0, waited=80_000):
    return Lateness(
        waited_us=waited,
        late_us=late,
        process_cpu_us=process,
        loop_cpu_us=loop,
        lock_waits=waits,
        switch_us=SWITCH,
    )


@pytest.mark.parametrize(
    ("sleep", "cause"),
    [
        pytest.param(slept(), "not_running", id="nobody worked and nobody asked: stopped"),
        pytest.param(slept(waits=3), "not_running", id="a few switches are ordinary"),
        pytest.param(
            slept(process=900_000, waits=2), "not_running", id="other threads were in C, we starved"
        ),
        pytest.param(
            slept(process=SECOND, loop=SECOND, waits=190),
            None,
            id="the loop held the lock, working",
        ),
        pytest.param(
            slept(process=SECOND, loop=1_000, waits=190),
            "interpreter_lock",
            id="another thread held it",
        ),
        pytest.param(
            slept(process=220_000, loop=10_000, waits=90),
            "interpreter_lock",
            id="another thread held it, on a loaded machine",
        ),
        pytest.param(
            slept(process=220_000, loop=200_000, waits=90),
            None,
            id="the loop held it, on a loaded machine",
        ),
        pytest.param(slept(waits=190), None, id="the loop held it and waited in C"),
        pytest.param(
            slept(process=80_000, loop=80_000, waits=1),
            "not_running",
            id="work before we were due does not excuse what came after",
        ),
        pytest.param(slept(waits=None), "not_running", id="no count of switches: nobody worked"),
        pytest.param(
            slept(waits=None, process=SECOND, loop=None), None, id="…someone, perhaps the loop"
        ),
        pytest.param(slept(process=SECOND, loop=SECOND, waits=None), None, id="…the loop worked"),
    ],
)
def test_the_watchdogs_own_lateness_tells_a_stall_from_a_block(sleep, cause):
    assert cause_of(sleep) == cause


SPANS = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda a: (a[0], a[0] + a[1]))


@settings(deadline=None)
@given(SPANS, SPANS)
def test_an_overlap_is_what_both_spans_share(a, b):
    shared = len(set(range(*a)) & set(range(*b)))
    assert overlap_us(a, b) == overlap_us(b, a) == shared


LINE = StackLine("scan", "/app/scan.py", 4)


@pytest.mark.parametrize(
    ("stall", "ending"),
    [
        pytest.param(
            Stall(lasted_s=1.5, cause="not_running"),
            ": stopped, suspended or given no processor",
            id="nobody ran",
        ),
        pytest.param(
            Stall(lasted_s=1.5, cause="interpreter_lock"),
            ": another thread held the interpreter lock",
            id="a thread that is not known",
        ),
        pytest.param(
            Stall(
                lasted_s=1.5, cause="interpreter_lock", thread="scanner", line=LINE, code="find()"
            ),
            ": another thread held the interpreter lock, thread 'scanner' at"
            " /app/scan.py:4 in scan: `find()`",
            id="a thread and its line",
        ),
    ],
)
def test_a_stall_is_one_sentence_that_clears_the_loops_code(stall, ending):
    assert stall.sentence() == (
        "the whole process was held for 1.50 s, not by the event loop's own code" + ending
    )


@pytest.mark.parametrize(
    ("before", "after", "holder"),
    [
        pytest.param({1: 0, 2: 0}, {1: 10, 2: 900_000}, 2, id="who worked most"),
        pytest.param({1: 900_000}, {1: 900_010}, None, id="work of long ago is none"),
        pytest.param({}, {7: 900_000}, None, id="a thread that began meanwhile is not judged"),
        pytest.param({1: 0}, {}, None, id="it has ended"),
    ],
)
def test_the_lock_was_held_by_the_thread_that_worked_most(before, after, holder):
    assert holder_of(before, after, late_us=SECOND) == holder
