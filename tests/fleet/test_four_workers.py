"""Four uvicorn workers on one Redis: what is purged through one is nowhere older than the bound.

The bound is what the documentation promises: a lost connection is noticed after one heartbeat and
one late answer.  In practice it is milliseconds; the tests print what they saw (`pytest -s`).
`PERF_TEST_MINUTE=60` makes the mixed run a full minute.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from perf_middleware.fleet.settings import RedisSettings
from tests.fleet.lateness import Lateness
from tests.fleet.workers import PLACES, PURGED_BY, Client, hung_up, workers

BOUND_S = RedisSettings().heartbeat_s + RedisSettings().timeout_s
RUN_S = float(os.environ.get("PERF_TEST_MINUTE", "20"))
RATE = 200
ITEMS = 24
AT_ONCE_MAX = 100
SEED = int(os.environ.get("PERF_TEST_SEED", "0"))
DEADLINE_S = 120.0
ENDED_EVERY_S = (1.5, 3.0)
HOW = (signal.SIGKILL, signal.SIGTERM)


@asynccontextmanager
async def looking(lateness):
    task = asyncio.create_task(lateness.run())
    try:
        yield
    finally:
        task.cancel()


@pytest.fixture(scope="module")
def four(redis_server):
    with workers(redis_server, 4) as running:
        yield running


async def until_all_have(client, running, place, version):
    """Read `place` from every worker until each gives `version` or newer."""

    async def one(worker):
        until_s = monotonic() + DEADLINE_S
        while (await client.read(worker, place)).version < version:
            assert monotonic() < until_s, f"{worker.name} does not give {version} of {place}"

    await asyncio.gather(*map(one, running))


@pytest.mark.parametrize("by", PURGED_BY)
def test_a_purge_through_one_is_visible_in_all_within_the_bound(four, by):
    client = Client()
    own = Lateness()
    late_s = 0.0

    async def run():
        nonlocal late_s
        async with hung_up(four), looking(own):
            for n, through in enumerate(four, 1_000 * (1 + list(PURGED_BY).index(by))):
                places = [place.format(n=n) for place in PURGED_BY[by]]
                for place in places:
                    for worker in four:
                        await client.read(worker, place)
                before = client.history.counts["hits"]
                for place in places:
                    for worker in four:
                        await client.read(worker, place)
                assert client.history.counts["hits"] - before == len(places) * len(four)
                touched = await client.touch(through, n, by)
                await asyncio.gather(
                    *(until_all_have(client, four, place, touched.version) for place in places)
                )
            late_s = sum([(await worker.figures())["late_s"] for worker in four]) + own.most_s

    asyncio.run(run())
    verdict, soft = client.history.judged(bound_s=BOUND_S + late_s)
    print(f"\n{by}: worst staleness {max(verdict.worst_s, soft.worst_s) * 1_000:.1f} ms")
    assert not client.history.faults
    assert not verdict.stale
    assert not soft.stale


class Mixed:
    """Reads, writes and purges at random, while workers end and come back."""

    def __init__(self, running, client):
        self.running = running
        self.client = client
        self.random = random.Random(SEED)
        self.restarts = Counter()
        self.figures = Counter()
        self.until_s = monotonic() + RUN_S

    def any_place(self):
        n = min(self.random.randrange(ITEMS), self.random.randrange(ITEMS))  # some more than others
        return n, self.random.choice(PLACES).format(n=n)

    async def one(self):
        worker = self.random.choice([worker for worker in self.running if worker.is_up])
        n, place = self.any_place()
        draw = self.random.random()
        if draw < 0.92:
            await self.client.read(worker, place)
        elif draw < 0.96:
            await self.client.put(worker, n)
        else:
            await self.client.touch(worker, n, self.random.choice([*PURGED_BY, "tag"]))

    async def send(self):
        """RATE a second, whether or not they are answered in time."""
        free = asyncio.Semaphore(AT_ONCE_MAX)
        began_s = monotonic()

        async def paced():
            try:
                await self.one()
            finally:
                free.release()

        async with asyncio.TaskGroup() as tasks:
            sent = 0
            while monotonic() < self.until_s:
                await free.acquire()
                tasks.create_task(paced())
                sent += 1
                await asyncio.sleep(max(0.0, began_s + sent / RATE - monotonic()))

    async def end_some(self):
        while monotonic() < self.until_s:
            await asyncio.sleep(self.random.uniform(*ENDED_EVERY_S))
            if len([worker for worker in self.running if worker.is_up]) < 3:
                continue  # two are enough for a purge to have somewhere to go
            worker = self.random.choice([worker for worker in self.running if worker.is_up])
            self.figures += await worker.figures()
            how = self.random.choice(HOW)
            self.restarts[how.name] += 1
            worker.is_up = False
            async with asyncio.TaskGroup() as tasks:
                for _ in range(4):  # that some are cut off, sooner or later
                    n, _ = self.any_place()
                    tasks.create_task(self.client.put(worker, n))
                    tasks.create_task(self.client.touch(worker, n, "tag"))
                await asyncio.sleep(self.random.uniform(0, 0.01))
                await asyncio.to_thread(worker.stop, how)
            worker.hang_up()
            worker.start()
            await asyncio.to_thread(worker.wait_until_ready)

    async def run(self):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.send())
            tasks.create_task(self.end_some())

    async def settle(self):
        """Until nothing is under way, and what each worker has is the truth."""
        until_s = monotonic() + DEADLINE_S
        while True:
            figures = [await worker.figures() for worker in self.running]
            if all(told["up"] and not told["pending"] and not told["queued"] for told in figures):
                break
            assert monotonic() < until_s, figures
            await asyncio.sleep(0.05)
        for told in figures:
            self.figures += told
        for n in range(ITEMS):
            # A write without an answer may have left what is older: one more makes it certain.
            done = await self.client.touch(self.running[n % 4], n, "tag")
            await asyncio.gather(
                *(until_all_have(self.client, self.running, place.format(n=n), done.version)
                  for place in PLACES)
            )  # fmt: skip


def test_no_read_is_older_than_the_bound_while_workers_end_and_come_back(four):
    client = Client()
    own = Lateness()

    async def run():
        async with hung_up(four), looking(own):
            mixed = Mixed(four, client)
            began_s = monotonic()
            await mixed.run()
            took_s = monotonic() - began_s
            counts = Counter(client.history.counts)
            await mixed.settle()
            # Nothing changes any more: all of it is in the memory of all.
            before = client.history.counts["hits"]
            for n in range(ITEMS):
                for worker in four:
                    await client.read(worker, f"/items/{n}")
            assert client.history.counts["hits"] - before == ITEMS * len(four)
            return mixed, counts, took_s

    mixed, counts, took_s = asyncio.run(run())
    history, figures = client.history, mixed.figures
    late_s = figures["late_s"] + own.most_s  # of all workers that there were: hardly too little
    verdict, soft = history.judged(bound_s=BOUND_S + late_s)
    reads = counts["hits"] + counts["misses"]
    from_redis = figures["found"] / (figures["hits"] + figures["misses"])
    print(
        f"\n{sum(counts[method] for method in ('GET', 'PUT', 'POST'))} operations in {took_s:.1f} s"
        f" ({counts['GET']} reads, {counts['PUT']} writes, {counts['POST']} purges;"
        f" {verdict.maybe} writes without an answer, {counts['lost']} lost),"
        f" ended {dict(mixed.restarts)};"
        f"\nhits {counts['hits'] / reads:.0%} of reads, {from_redis:.0%} from Redis;"
        f" outdated reads {verdict.outdated}, worst staleness {verdict.worst_s * 1_000:.1f} ms:"
        f" {verdict.worst}\nafter soft purges {soft.outdated}, {soft.worst_s * 1_000:.1f} ms"
        f"\n{dict(figures)}, {late_s:.3f} s late"
    )
    assert not history.faults
    assert not verdict.stale
    assert not soft.stale
    assert sum(mixed.restarts.values()) >= 1
    assert counts["GET"] > RUN_S * RATE / 50  # a slow machine has time for few
    assert counts["hits"] / reads > 0.1
    assert from_redis > 0.02
