"""The benchmark of whole stacks: each row answers as it shall, and the targets are told."""

import pytest

from benchmarks import stacks
from benchmarks.runner import Plan

pytestmark = pytest.mark.usefixtures("nothing_set")
ONCE = Plan(rounds=1, requests=2, seconds_max=1, loop="asyncio", turns=True)


def test_every_row_runs_beside_the_bare_app_and_the_least_by_hand():
    report = stacks.run(ONCE)
    assert report.baseline == stacks.BARE
    assert {stacks.MINIMUM, stacks.DEFAULTS, stacks.EVERYTHING, stacks.PEER} <= {
        cost.name for cost in report.costs
    }
    assert stacks.EVERYTHING in stacks.targets(report)


def test_growth_has_a_row_for_each_size(monkeypatch):
    monkeypatch.setattr(stacks, "KEYS", (1, 3))
    monkeypatch.setattr(stacks, "ROUTES", (1, 2))
    keys, routes = stacks.growth(ONCE)
    assert [cost.name for cost in keys.costs] == [
        "1 clients", "1 clients, everything", "3 clients", "3 clients, everything",
    ]  # fmt: skip
    assert len(routes.costs) == 4
    assert "3 clients, everything" in stacks.flatness(keys)
