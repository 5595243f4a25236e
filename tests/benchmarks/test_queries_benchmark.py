"""The benchmark of the query cache: its tables run, beside the query itself, and what it times are
hits.
"""

from benchmarks.queries import EXECUTED, reports
from benchmarks.runner import Plan


def test_each_table_compares_a_hit_with_the_query_itself():
    found = reports(Plan(rounds=1, requests=5, loop="asyncio"))
    assert [report.costs[0].name for report in found] == [EXECUTED] * 3
    assert [len(report.costs) for report in found] == [3] * 3
