"""The benchmark of tasks: each row runs, and the queue has done all that it was given."""

from benchmarks.runner import Plan
from benchmarks.tasks import CASES, QUEUE, run, tables


def test_each_row_is_measured_beside_the_hand_written_one():
    report = run(Plan(rounds=1, requests=50, seconds_max=1, loop="asyncio"))
    assert {cost.name for cost in report.costs} == set(CASES)
    assert QUEUE in tables(report)
