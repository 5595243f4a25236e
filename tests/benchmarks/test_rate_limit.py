"""The benchmark of the rate limit: its rows answer what they should, its tables run."""

from benchmarks.rate_limit import BARE, OURS, run
from benchmarks.runner import Plan

QUICK = Plan(rounds=1, requests=1, seconds_max=1, loop="asyncio")


def test_each_table_has_the_bare_app_and_ours():
    raw, fastapi, refused = run(QUICK)
    for report in (raw, fastapi):
        assert {BARE, OURS} <= {cost.name for cost in report.costs}
    assert {BARE, "refused"} <= {cost.name for cost in refused.costs}
