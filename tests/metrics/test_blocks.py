import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.metrics.watching.blocks import US_PER_S, LogBudget, LoopBlock, Pace
from perf_middleware.metrics.watching.stacks import StackLine

LINE = StackLine("items", "/app/views.py", 42)
CALL = StackLine("readinto", "/py/socket.py", 706)
CALLER = StackLine("app", "/py/routing.py", 9)
PACE = Pace(300_000)


@pytest.mark.parametrize(
    ("due_us", "now_us", "wait_us"),
    [
        pytest.param(None, 0, 100_000, id="nobody beats: at the usual pace"),
        pytest.param(1_000_000, 950_000, 100_000, id="not due yet: at the usual pace"),
        pytest.param(1_000_000, 1_250_000, 50_000, id="overdue: exactly when it counts as blocked"),
        pytest.param(1_000_000, 1_299_999, 1_000, id="never in circles"),
        pytest.param(1_000_000, 1_300_000, 50_000, id="blocked: samples"),
        pytest.param(1_000_000, 11_000_000, 500_000, id="ten seconds: rarer ones"),
        pytest.param(1_000_000, 99_000_000, 1_000_000, id="a dead lock: one a second"),
    ],
)
def test_the_watchdog_looks_when_there_is_something_to_see(due_us, now_us, wait_us):
    assert PACE.wait_us(due_us=due_us, now_us=now_us) == wait_us


@settings(deadline=None)
@given(st.integers(30_000, 10**8), st.none() | st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_watchdog_wakes_a_thousand_times_a_second_at_most(blocked_us, due_us, now_us):
    pace = Pace(blocked_us)
    assert 1_000 <= pace.wait_us(due_us=due_us, now_us=now_us) <= max(pace.tick_us, US_PER_S)


@settings(deadline=None)
@given(st.integers(9_000, 10**8))
def test_what_a_stall_leaves_unexplained_is_too_little_for_a_block(blocked_us):
    pace = Pace(blocked_us)
    unseen_before_us = pace.tick_us  # it began right after a look
    taken_for_jitter_us = pace.tick_us - 1
    assert unseen_before_us + taken_for_jitter_us < blocked_us


def test_a_threshold_of_nothing_is_refused():
    with pytest.raises(ValueError, match="blocked_us"):
        Pace(0)


def block(**kwargs):
    return LoopBlock(**({"at_s": 1.5, "lasted_s": 0.532, "ended": True} | kwargs))


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        pytest.param(
            block(line=LINE, call=LINE, origin="own", code="time.sleep(1)", seen=9, samples=10),
            "the event loop was blocked for 0.53 s by /app/views.py:42 in items: `time.sleep(1)`"
            " (9 of 10 samples)",
            id="the line waits itself",
        ),
        pytest.param(
            block(
                line=LINE, call=CALL, origin="own", code="db.get()", call_code="return recv()",
                seen=1, samples=1, load="GET /items", ended=False,
            ),
            "the event loop has been blocked for 0.53 s by /app/views.py:42 in items: `db.get()`,"
            " which is in /py/socket.py:706 in readinto: `return recv()` (1 of 1 samples),"
            " while serving GET /items",
            id="a call below it waits, and it still does",
        ),
        pytest.param(
            block(line=LINE, call=LINE, origin="own", seen=1, samples=1),
            "the event loop was blocked for 0.53 s by /app/views.py:42 in items (1 of 1 samples)",
            id="its source cannot be read",
        ),
        pytest.param(
            block(
                line=LINE, call=CALL, caller=CALLER, code="encode(x)", caller_code="serialize(x)",
                seen=3, samples=4, load="1 request",
            ),
            "the event loop was blocked for 0.53 s; no line of the app's own was at work:"
            " /app/views.py:42 in items: `encode(x)`, called from /py/routing.py:9 in app:"
            " `serialize(x)` (3 of 4 samples), while serving 1 request",
            id="nothing of the app's own",
        ),
        pytest.param(
            block(),
            "the event loop was blocked for 0.53 s, no sample could be taken",
            id="nobody saw it",
        ),
    ],
)  # fmt: skip
def test_a_report_is_one_sentence(report, sentence):
    assert report.sentence() == sentence


def test_a_report_is_jsonable():
    report = block(line=LINE, call=CALL, code="db.get()", stack=(CALL, LINE), seen=1, samples=2)
    answer = json.loads(json.dumps(report.as_dict()))
    assert answer["line"] == {
        "function": "items", "file": "/app/views.py", "line": 42, "code": "db.get()",
    }  # fmt: skip
    assert answer["stack"] == [str(CALL), str(LINE)]
    assert json.loads(json.dumps(block().as_dict()))["call"] is None


def test_log_lines_are_limited_by_the_minute_and_say_what_was_held_back():
    budget = LogBudget(per_minute_max=2)
    minute = 60 * US_PER_S
    assert [budget.spend(now) for now in (0, 1, 2, 3)] == [0, 0, None, None]
    assert [budget.spend(minute + now) for now in (0, 1, 2)] == [2, 0, None]
    assert budget.spend(10 * minute) == 1
