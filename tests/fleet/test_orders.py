"""The orders of events that might leave something stale, step by step; and any other order."""

import asyncio
import os
from collections import deque
from time import monotonic

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perf_middleware.caching.stores.shared as shared_module
import perf_middleware.caching.stores.shared.purges as purges_module
from perf_middleware.fleet.stores.script import Script
from tests.fleet.consistency import expected_after_soft, judge
from tests.fleet.stepped import BOUND_S, NAMESPACES, TAG, Server, World

HARD = ("tag", "url", "pattern", "all", "put")
SOFT = ("soft",)
QUICK_LEASE_MS = 20
DEADLINE_S = 120.0


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
    max_examples=int(os.environ.get("PERF_TEST_EXAMPLES", "120")), deadline=None, database=None,
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


# --- the orders that were found ------------------------------------------------------------------


async def steps(world, link, *, sent=0, delivered=0):
    """That many commands of a link reach the server, then that many answers and messages it."""
    for _ in range(sent):
        await world.step(link.send)
    for _ in range(delivered):
        await world.step(link.deliver)


async def heard(world, link):
    """What is on its way to a link arrives."""
    while link.inbox:
        await world.step(link.deliver)


@pytest.mark.parametrize("by", [*HARD, *SOFT])
def test_an_answer_begun_before_a_purge_elsewhere_is_not_kept_after_it(server, by):
    async def scenario(world):
        await both_up(world)
        world.start(world.b, "read")
        await world.drained()
        assert world.app_calls
        purged = world.start(world.a, by)
        await world.drained()
        assert purged.done()

    play(server, scenario)


@pytest.mark.parametrize("by", [*HARD, *SOFT])
def test_a_look_up_under_way_when_a_purge_comes_brings_nothing_old(server, by):
    async def scenario(world):
        await both_up(world)
        await world.now(world.a, "read")
        world.start(world.b, "read")
        await world.settle()
        await steps(world, world.b.link, sent=1)  # found, and on its way
        world.start(world.a, by)
        await world.settle()
        while world.a.link.out:
            await world.step(world.a.link.send)
        await world.drained()

    play(server, scenario)


@pytest.mark.parametrize("by", [*HARD, *SOFT])
def test_what_is_found_while_a_purge_goes_on_goes_with_its_end(server, by):
    """A purge of many goes in slices, behind the message: what is not reached yet can be found."""

    async def scenario(world):
        await both_up(world)
        for place in range(2):
            await world.now(world.a, f"read{place}")
        world.start(world.a, by)
        await world.settle()
        while world.a.link.out or world.a.link.inbox:
            await heard(world, world.b.link)  # so far it was told
            looking = [world.start(world.b, f"read{place}") for place in range(2)]
            await world.settle()
            while world.b.link.out:
                await steps(world, world.b.link, sent=1)
                await heard(world, world.b.link)
            del looking
            await steps(world, world.a.link, sent=bool(world.a.link.out))
            await heard(world, world.a.link)
        await world.drained()

    play(server, scenario, places=2)


@pytest.mark.parametrize("by", [*HARD, *SOFT])
def test_what_was_stored_before_the_first_connection_is_not_trusted(server, by):
    async def scenario(world):
        await world.connect(world.a)
        await world.drained()
        await world.now(world.b, "read")  # alone: Redis is not there for it yet
        await world.now(world.a, by)
        await world.connect(world.b)

    play(server, scenario, judged_from_end=True)


@pytest.mark.parametrize("by", [*HARD, *SOFT])
def test_a_purge_while_the_link_reconnects_is_made_up_for(server, by):
    async def scenario(world):
        await both_up(world)
        await world.now(world.b, "read")
        await world.now(world.a, "read")
        world.a.link.lose()
        world.start(world.a, "tag")
        await world.settle()
        await world.connect(world.a)
        for _ in range(3):  # one more at each step on the way up
            world.start(world.a, by)
            await world.settle()
            await steps(world, world.a.link, sent=1)
            await heard(world, world.a.link)
        await world.drained()
        assert world.a.link.is_up
        assert not world.a.cache.shared.purges.pending

    play(server, scenario)


def test_purges_that_became_too_many_while_they_were_made_up_for_are_done(server, monkeypatch):
    monkeypatch.setattr(purges_module, "PENDING_MAX", 2)

    async def scenario(world):
        await both_up(world)
        for place in range(2):
            await world.now(world.b, f"read{place}")
        world.a.link.lose()
        await world.now(world.a, "url")
        await world.connect(world.a)
        await steps(world, world.a.link, sent=1, delivered=1)  # its state is known now
        for _ in range(2):
            await world.start(world.a, "tag")  # one of them takes the place of all
        await world.drained()
        assert world.a.link.is_up
        assert not world.a.cache.shared.purges.pending

    play(server, scenario, places=2, judged_from_end=True)


def test_a_purge_that_redis_refuses_is_made_up_for_before_redis_is_read_again(server):
    async def scenario(world):
        await both_up(world)
        await world.now(world.b, "read")
        world.a.link.refuses = lambda words: b"tag" in b"".join(map(as_bytes, words))
        await world.now(world.a, "tag")
        world.a.link.refuses = lambda _words: False
        assert not world.a.link.is_up
        await world.connect(world.a)
        await made_up(world, world.a)

    play(server, scenario, judged_from_end=True)


def test_a_purge_whose_caller_is_cancelled_is_finished(server):
    async def scenario(world):
        await both_up(world)
        await world.now(world.b, "read")
        caller = asyncio.create_task(world.a.cache.purge(tags=TAG))
        await world.settle()
        world.a.link.out.clear()  # not even sent
        caller.cancel()
        await world.settle()
        assert caller.cancelled()
        await made_up(world, world.a)
        assert not world.b.cache.store.all()

    play(server, scenario)


async def made_up(world, process):
    """Until this process owes the others no purge."""
    until_s = monotonic() + DEADLINE_S
    while process.cache.shared.purges.pending:
        await world.drained()
        assert monotonic() < until_s
        await asyncio.sleep(0.01)


def test_what_is_overwritten_while_it_is_looked_up_is_not_kept(server):
    """Without a purge: the app has shown another process that it holds no more."""

    async def scenario(world):
        await both_up(world)
        await world.now(world.a, "read")
        await world.drained()
        held = world.a.cache.store.all()[0]
        world.start(world.b, "read")
        await world.settle()
        await steps(world, world.b.link, sent=1)
        world.a.cache.let_go(held)
        await world.settle()
        await steps(world, world.a.link, sent=1)
        # Read at once, as from one packet: the answer, and the message behind it.
        world.b.link.deliver()
        await world.step(world.b.link.deliver)
        assert not world.b.cache.store.all()

    play(server, scenario)


def test_a_checker_that_hears_nothing_of_purges_would_tell(server):
    """The proof is worth something: without its messages a process is seen to be stale."""

    async def scenario(world):
        await both_up(world)
        await world.now(world.b, "read")
        world.b.link.on_message = lambda _channel, _payload: None
        await world.now(world.a, "tag")

    with pytest.raises(AssertionError, match="Staleness"):
        play(server, scenario)


def as_bytes(word):
    return word if isinstance(word, bytes) else str(word).encode()


# --- a refresh and a full server -----------------------------------------------------------------


def test_what_redis_has_stale_is_answered_and_refreshed(server):
    """Found so, it is given once: nobody asked the app for the first of these."""

    async def scenario(world):
        await both_up(world)
        await world.now(world.a, "read")
        await world.drained()
        await world.now(world.a, "soft")
        assert [await world.now(world.b, "read") for _ in range(2)] == [0, 1]

    play(server, scenario)


def test_a_full_server_takes_purges(own_redis):
    """What frees room must not be refused for want of it."""
    server = Server(own_redis.url)

    async def scenario(world):
        await both_up(world)
        await world.now(world.a, "read")
        await world.now(world.b, "read")
        own_redis.say("CONFIG", "SET", "maxmemory", "1")
        assert own_redis.say("SET", "more", "1").startswith(b"-OOM")
        await world.now(world.a, "tag")
        assert not world.a.cache.shared.purges.pending

    try:
        play(server, scenario)
    finally:
        server.close()


def test_a_soft_purge_leaves_the_record_of_variants_as_it_is(server):
    """It stands where one response stood before, and the index still points there."""
    client, begin = server._client, f"soft{next(NAMESPACES)}"
    client.set(f"{begin}r", b"Vaccept-language")
    client.zadd(f"{begin}i", {f"http://h\n{begin}r": 1})
    keys = [f"{begin}{name}" for name in "npfi"]
    client.eval(Script("purge").text, 4, *keys, 1, "u:/", "c", b"told", "soft", b"", 0)
    assert client.get(f"{begin}r") == b"Vaccept-language"
