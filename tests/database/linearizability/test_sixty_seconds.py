"""After the answer to a write nobody gets an older value from the cache: 60 s, four workers, Redis.

From second 20 on four workers are killed, two of them right after a COMMIT whose writer so never
had an answer; one is stopped for 3 seconds, and one hears nothing of Redis so long.  What reads
show of each other (`backwards`) is counted and not promised: see the judge.
"""

import asyncio
import os

import pytest

from tests.database.linearizability.load import Pace
from tests.database.linearizability.runs import run_load
from tests.database.linearizability.service import database, service

pytestmark = pytest.mark.takes_a_minute

WORKERS = 4
SECONDS = 60.0
SEED = int(os.environ.get("PERF_TEST_SEED", "0"))
MODE = os.environ.get("PERF_TEST_LINEAR_MODE", "queries")


def test_no_reader_gets_an_older_value_after_the_answer_to_a_write(postgres, tmp_path):
    async def running():
        async with database(postgres) as truth:
            with service(truth, tmp_path, MODE, workers=WORKERS) as served:
                run = await run_load(
                    served, truth, MODE, Pace(SECONDS), workers=WORKERS, seed=SEED,
                    with_faults=True,
                )  # fmt: skip
                return run, served.server.log()

    run, log = asyncio.run(running())
    print(f"\n{run.told()}")
    if run.verdict.broken:
        pytest.fail(run.failure(log))
    assert not run.counts.faults, f"{run.counts.faults[:5]}\n{log[-3_000:]}"

    # And it was a real test.
    # (It makes 4,000 reads and 300 writes, of the reads half are hits; fewer beside other tests.)
    assert len(run.history.reads) >= 1_000, run.told()
    assert run.counts.written.total() >= 100, run.told()
    assert all(run.counts.written[how] for how in ("orm", "core", "text", "two", "new_row", "away"))
    assert run.faults == {"kill": 2, "kill after commit": 2, "stop": 1, "cut": 1}
    assert run.dead >= 4, run.told()
    assert len(run.wire.answered) >= WORKERS + 2, "killed workers were replaced"
    for worker in run.first_workers:
        hits = run.wire.hits[worker]
        assert hits.answers - hits.from_redis >= 10, run.told()
        assert hits.from_redis >= 5, run.told()
        assert hits.queries >= 5, run.told()
    assert sum(run.counts.hits.values()) >= len(run.history.reads) // 6, run.told()
