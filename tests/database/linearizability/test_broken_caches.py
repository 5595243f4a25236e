"""The check can fail: it finds a cache that is purged too late or never; nothing without one."""

import asyncio

import pytest

from tests.database.linearizability.load import Pace
from tests.database.linearizability.runs import run_load
from tests.database.linearizability.service import database, service

WORKERS = 2
SECONDS = 2.0
SEED = 7


@pytest.fixture(scope="module")
def runs(postgres, tmp_path_factory):
    """A run with each of the three, one after the other, on the same rows."""

    async def running():
        async with database(postgres) as truth:
            directory = tmp_path_factory.mktemp("linear")
            with service(truth, directory, "none", "ttl", "late", workers=WORKERS) as served:
                return {
                    mode: await run_load(
                        served, truth, mode, Pace(SECONDS), workers=WORKERS, seed=SEED
                    )
                    for mode in ("none", "ttl", "late")
                }

    return asyncio.run(running())


def test_without_a_cache_reads_and_writes_are_linearizable(runs):
    run = runs["none"]
    assert not run.counts.faults
    assert run.verdict.is_linearizable, run.failure()
    assert run.counts.written.total() >= 5, run.told()
    assert len(run.history.reads) >= 40, run.told()


@pytest.mark.parametrize("mode", ["ttl", "late"])
def test_a_cache_that_is_not_purged_in_time_is_found(runs, mode):
    run = runs[mode]
    assert not run.counts.faults
    assert run.verdict.of("stale"), run.told()
    assert set(run.verdict.counts()) <= {"stale", "backwards"}, run.failure()
    assert "writes v" in run.failure()
