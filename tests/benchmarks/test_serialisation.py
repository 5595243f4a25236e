"""The rows of benchmarks/serialisation.py answer the same: otherwise it would compare nothing."""

from benchmarks import runner
from benchmarks.layers import SMALL
from benchmarks.runner import Plan
from benchmarks.serialisation import ROWS, Item, streamed, whole

ONCE = Plan(rounds=1, requests=1, loop="asyncio")


def test_every_way_to_answer_gives_the_same_json(monkeypatch):
    monkeypatch.setattr(runner, "WARM_UP_REQUESTS", 1)  # nothing is timed here
    assert len(whole("dicts", [SMALL] * ROWS, dict, ONCE).costs) == 6
    assert len(whole("models", [Item(**SMALL)] * ROWS, Item, ONCE).costs) == 6
    assert len(streamed(ONCE).costs) == 11
