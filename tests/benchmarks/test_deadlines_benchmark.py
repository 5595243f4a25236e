"""The benchmark of deadlines: its rows answer what they should, its tables run."""

from benchmarks.deadlines import BARE, run
from benchmarks.runner import Plan

QUICK = Plan(rounds=1, requests=1, seconds_max=1, loop="asyncio")


def test_each_table_of_deadlines_has_the_bare_app_and_ours():
    no_body, known, chunked = run(QUICK)
    assert {BARE, "DeadlineMiddleware"} <= {cost.name for cost in no_body.costs}
    for report in (known, chunked):
        assert {BARE, "body_bytes_max", "body_idle_s"} == {cost.name for cost in report.costs}
