"""The benchmark of batching: each row runs and is told."""

from benchmarks.batching import BATCHED, CASES, THREADS, run, tables
from benchmarks.runner import Plan


def test_each_row_is_measured_beside_the_plain_one():
    reports = run(Plan(rounds=1, requests=200, seconds_max=1, loop="asyncio"))
    assert [{cost.name for cost in report.costs} for report in reports] == [
        set(CASES), set(THREADS),
    ]  # fmt: skip
    assert BATCHED in tables(reports)
