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

HOWS = ("orm", "core", "text", "two", "new_row", "away")


def missing(load, wire, first_workers):
    """What makes it a real test and is not there yet: a machine that does other things is slow.

    (It makes 4,000 reads and 300 writes, of the reads half are hits; fewer beside other tests.)
    """
    hits = [wire.hits[worker] for worker in first_workers]
    needed = {
        "reads": len(load.history.reads) >= 1_000,
        "writes": load.counts.written.total() >= 100,
        "all ways to write": all(load.counts.written[how] for how in HOWS),
        "workers in the place of killed ones": len(wire.answered) >= WORKERS + 2,
        "hits in memory": all(each.answers - each.from_redis >= 10 for each in hits),
        "hits in Redis": all(each.from_redis >= 5 for each in hits),
        "hits of queries": all(each.queries >= 5 for each in hits),
        "hits": sum(load.counts.hits.values()) >= len(load.history.reads) // 6,
    }
    return [what for what, is_there in needed.items() if not is_there]


def test_no_reader_gets_an_older_value_after_the_answer_to_a_write(postgres, tmp_path):
    async def running():
        async with database(postgres) as truth:
            with service(truth, tmp_path, MODE, workers=WORKERS) as served:
                run = await run_load(
                    served, truth, MODE, Pace(SECONDS), workers=WORKERS, seed=SEED,
                    with_faults=True, lacks=missing,
                )  # fmt: skip
                return run, served.server.log()

    run, log = asyncio.run(running())
    print(f"\n{run.told()}")
    if run.verdict.broken:
        pytest.fail(run.failure(log))
    assert not run.counts.faults, f"{run.counts.faults[:5]}\n{log[-3_000:]}"

    # And it was a real test.
    assert run.faults == {"kill": 2, "kill after commit": 2, "stop": 1, "cut": 1}
    assert run.dead >= 4, run.told()
    assert missing(run, run.wire, set(run.first_workers)) == [], run.told()
