"""The orders of events that might leave something stale, step by step; and any other order."""

import asyncio
import os
from collections import deque

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perf_middleware.caching.stores.shared as shared_module
from tests.fleet.consistency import expected_after_soft, judge
from tests.fleet.stepped import BOUND_S, Server, World

HARD = ("tag", "url", "pattern", "all", "put")
SOFT = ("soft",)
QUICK_LEASE_MS = 20


@pytest.fixture(scope="module")
def server(redis_server):
    server = Server(redis_server.url)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _quick_leases(monkeypatch):
    monkeypatch.setattr(shared_module, "LEASE_MS", QUICK_LEASE_MS)


def play(server, scenario, *, judged_from_end=False, **options):
    """Run `scenario(world)`; nothing stale is given by it, and nothing is left behind.

    `judged_from_end`: where a process was alone for a time, what it gave then counts not.
    """

    async def run():
        async with World(server, **options) as world:
            await scenario(world)
            await world.finish()
            ended_s = world.clock_s
            for process in (world.a, world.b, world.a, world.b):  # twice, for soft purges
                for place in range(len(world.places)):
                    await world.now(process, f"read{place}")
            for task in world.running:
                task.result()
            return world, ended_s

    world, ended_s = asyncio.run(run())
    reads = [read for read in world.reads if read.start_s >= ended_s or not judged_from_end]
    verdict = judge(world.writes, reads, bound_s=BOUND_S)
    assert not verdict.stale, verdict.stale
    soft = judge(*expected_after_soft(world.soft, reads, bound_s=BOUND_S), bound_s=0)
    assert not soft.stale, soft.stale
    return world


async def both_up(world):
    await world.connect(world.a, world.b)
    await world.drained()


CHOICES = st.lists(st.integers(0, 1_000), max_size=60)
ACTS = st.sampled_from(["read", "read", "read1", *HARD, *SOFT, "drain"])
WITH_LOSSES = st.one_of(ACTS, st.sampled_from(["lose", "connect"]))
EXPLORED = settings(
    max_examples=int(os.environ.get("PERF_TEST_EXAMPLES", "200")), deadline=None, database=None,
    derandomize="PERF_TEST_EXAMPLES" not in os.environ, suppress_health_check=list(HealthCheck),
)  # fmt: skip


def scripts(acts):
    return st.lists(st.tuples(st.sampled_from("ab"), acts), min_size=2, max_size=9)


async def perform(world, script, choices):
    """Begin the acts in their order, with those steps between them that `choices` picks."""
    acts, choices = deque(script), deque(choices)
    while acts:
        steps = world.possible() + [world.answer] * bool(world.app_calls)
        at = choices.popleft() % (len(steps) + 1) if choices else len(steps)
        if at < len(steps):
            await world.step(steps[at])
            continue
        name, act = acts.popleft()
        process = getattr(world, name)
        world.clock_s += 1
        if act == "drain":
            await world.drained()
        elif act == "lose":
            process.link.lose()
        elif act == "connect":
            if not process.link.listens:
                await world.connect(process)
        else:
            world.start(process, act)
        await world.settle()
    while choices and (steps := world.possible() + [world.answer] * bool(world.app_calls)):
        await world.step(steps[choices.popleft() % len(steps)])


@EXPLORED
@given(script=scripts(ACTS), choices=CHOICES)
def test_no_order_gives_anything_stale(server, script, choices):
    async def scenario(world):
        await both_up(world)
        await perform(world, script, choices)

    play(server, scenario, places=2)


@EXPLORED
@given(script=scripts(WITH_LOSSES), choices=CHOICES, up_first=st.sampled_from(["", "a", "ab"]))
def test_no_order_of_lost_connections_leaves_anything_stale(server, script, choices, up_first):
    async def scenario(world):
        await world.connect(*(getattr(world, name) for name in up_first))
        await perform(world, script, choices)
        for process in (world.a, world.b):
            if not process.link.listens:
                await world.connect(process)

    play(server, scenario, places=2, judged_from_end=True)
