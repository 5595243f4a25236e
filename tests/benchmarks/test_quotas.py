"""The tables run through: every row limits, in memory and in Redis."""

import pytest

from benchmarks import quotas
from benchmarks.quotas import BARE, FLOOR, ROWS, in_memory, in_redis
from benchmarks.runner import CheckError, on_loop
from tests.fleet.servers import RedisServer


def test_every_row_that_is_installed_is_measured():
    times = in_memory(rounds=2, calls=20, seed=1)
    own = [row.label for row in ROWS if row.distribution is None]
    assert list(times)[: len(own)] == own
    assert FLOOR in own
    assert {len(measured) for measured in times.values()} == {2}


def test_a_row_that_does_not_limit_ends_the_run(monkeypatch):
    row = quotas.Row("all pass", lambda count: lambda text, key: True)
    monkeypatch.setattr(quotas, "ROWS", (row,))
    with pytest.raises(CheckError, match="3 of 4 may pass"):
        in_memory(rounds=1, calls=1, seed=1)


def test_the_shared_quotas_are_measured_and_leave_nothing_behind(tmp_path):
    server = RedisServer(tmp_path).start()
    try:
        times = on_loop("asyncio", in_redis(server.url, rounds=2, seed=1))
        assert next(iter(times)) == BARE
        assert {len(measured) for measured in times.values()} == {2}
        assert server.say("DBSIZE") == b":0"
    finally:
        server.stop()
