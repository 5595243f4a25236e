"""The figures of batched functions and workers together."""

import anyio
import pytest

from perf_middleware.tasks.batching import batched
from perf_middleware.tasks.concurrency import WorkerProcesses, WorkerThreads
from perf_middleware.tasks.watched import Watched


@batched(wait_s=0, name="items")
async def load(keys):
    return keys


def test_all_parts_are_offered_together_and_counted_from_zero_again():
    threads = WorkerThreads(limit=2)
    watched = Watched(load, threads)

    async def main():
        await load(1)
        await threads.run(int, "1")

    anyio.run(main)
    assert watched.status() == {
        "batching": {"items": {"waiting": 0, "in_flight": 0, "asks": 1, "keys": 1, "calls": 1}},
        "workers": {"worker threads": {"limit": 2, "in_progress": 0, "waiting": 0, "calls": 1}},
    }
    names = [family.name for family in watched.families()]
    assert len(set(names)) == len(names)
    assert {"perf_batching_asks", "perf_workers_calls"} <= set(names)
    watched.reset_counts()
    assert watched.status()["batching"]["items"]["asks"] == 0
    assert list(Watched().families()) == []


def test_a_name_is_taken_once_of_each_kind():
    watched = Watched(load, WorkerThreads(limit=1, name="items"))
    with pytest.raises(ValueError, match="figures of items already"):
        watched.add(WorkerProcesses(limit=1, name="items"))
    with pytest.raises(ValueError, match="figures of items already"):
        watched.add(load)
