"""The benchmark of statements: its tables run, and each has the row of an engine nobody watches."""

from benchmarks.runner import Plan
from benchmarks.statements import BARE, reports


def test_each_table_of_statements_compares_with_an_engine_that_is_not_watched():
    found = reports(Plan(rounds=1, requests=50, loop="asyncio"))
    assert [report.costs[0].name for report in found] == [BARE] * 8
    assert [len(report.costs) for report in found] == [4, 4, 4, 4, 4, 4, 4, 2]
