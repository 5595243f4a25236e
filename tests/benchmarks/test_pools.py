"""The benchmark of pools: its tables run, and have the row that all others are compared with."""

from benchmarks.pools import PLAIN, run, tables
from benchmarks.runner import Plan


def test_each_table_of_pools_has_objects_made_each_time_and_lent():
    reports = run(Plan(rounds=1, requests=20, seconds_max=1, loop="asyncio"))
    assert len(reports) == 2
    for report in reports:
        assert {PLAIN, "AsyncObjectPool: lend", "ObjectPool: lend"} <= {
            cost.name for cost in report.costs
        }
    assert "us/use" in tables(reports)
