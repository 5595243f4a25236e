"""Purges that every process has heard of when they return: several fleets over one real Redis.

Each fleet stands for a process: it keeps one thing in memory, lets go of it when it hears of a
purge, and answers out of it while its lease lasts.
"""

import asyncio
import itertools
import subprocess
import sys
import threading
from contextlib import asynccontextmanager

import anyio
import pytest

from perf_middleware.clock import monotonic_us
from perf_middleware.fleet.layout import message
from perf_middleware.fleet.runtime import Fleet
from tests.examples.servers import ROOT
from tests.fleet.processes import until
from tests.fleet.proxy import Proxy

LEASE_S = 0.5
NAMESPACES = itertools.count()

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Process:
    """A memory of one thing, as strict as it can be."""

    def __init__(self, url, namespace, *, listens=True, **more):
        more = {"timeout_s": 5.0, "heartbeat_s": 60, "lease_s": LEASE_S} | more
        self.fleet = Fleet(url, namespace=namespace, **more)
        self.records = self.fleet.records("cache")
        self.fleet.records("memo")
        self.records.on_message = self.hear
        self.records.on_gap = self.forget
        self.records.is_done = lambda: not self.undone
        self.memory = None
        self.undone = 0
        self.in_slices = False
        if listens:
            self.fleet.keep_lease()

    def hear(self, body):
        if self.in_slices:
            self.undone += 1
        else:
            self.forget()

    def forget(self):
        self.memory = None

    def do(self):
        """What was heard is done in memory."""
        self.forget()
        self.undone = 0
        self.records.on_done()

    @property
    def has_lease(self):
        return monotonic_us() < self.fleet.lease_until_us

    @property
    def hit(self):
        return self.memory if self.has_lease else None

    @property
    def barriers(self):
        return self.fleet._hearers.barriers

    async def purge(self):
        self.forget()
        await self.records.purge(b"t:it", message=message("tag", "it"))


@asynccontextmanager
async def processes(server, *kinds):
    """Connected, and with their leases; it is known since long who listens."""
    namespace = f"barriers{next(NAMESPACES)}"
    made = [Process(server.url, namespace, **kind) for kind in kinds]
    server.say("ZADD", f"{{{namespace}:fleet:0}}l", "-1", "-")
    for process in made:
        process.fleet.ensure_kept()
    try:
        await until(lambda: all(process.fleet.is_up for process in made))
        for process in made:
            if process.fleet._hearers.lease.is_wanted:
                await until(lambda process=process: process.has_lease)
            process.memory = "old"
        yield made
    finally:
        for process in made:
            await process.fleet.close()


SHORT, LONG, WRITER = {}, {"lease_s": 10}, {"listens": False}


async def test_what_was_purged_is_out_of_every_memory(redis_server):
    async with processes(redis_server, WRITER, LONG, LONG, LONG) as (writer, *others):
        assert [other.hit for other in others] == ["old"] * 3
        await writer.purge()
        assert await writer.fleet.heard_by_all()
        assert [other.hit for other in others] == [None] * 3
        await until(lambda: all(other.has_lease for other in others))


async def test_what_was_heard_and_is_not_done_yet_is_waited_for(redis_server):
    async with processes(redis_server, SHORT, LONG) as (writer, other):
        other.in_slices = True
        await writer.purge()
        waiting = asyncio.create_task(writer.fleet.heard_by_all())
        await until(lambda: other.undone)
        await until(lambda: other.fleet._hearers.lease._listener._questions)
        assert not waiting.done()
        assert other.hit == "old"
        other.do()
        assert await waiting
        assert other.hit is None
        assert writer.barriers.waited_out == 0


async def test_what_is_never_done_is_answered_by_nobody_after_one_lease(redis_server):
    async with processes(redis_server, SHORT, SHORT) as (writer, other):
        other.in_slices = True
        await writer.purge()
        assert await writer.fleet.heard_by_all()
        assert other.undone  # still
        assert other.hit is None
        other.do()
        await until(lambda: other.has_lease)


async def test_a_renewal_that_overtakes_messages_does_not_count(redis_server):
    async with processes(redis_server, SHORT, SHORT) as (writer, other):
        hear, unread = other.fleet.link.on_message, []
        other.fleet.link.on_message = lambda *message: unread.append(message)
        await writer.purge()
        until_us = other.fleet.lease_until_us
        renewals = other.fleet.link.commands + 4
        assert await writer.fleet.heard_by_all()
        assert other.memory == "old"  # not heard yet
        assert other.hit is None  # and not answered any more
        await until(lambda: other.fleet.link.commands >= renewals)
        # What was renewed before the purge may have been answered behind it.
        assert other.fleet.lease_until_us <= until_us + LEASE_S / 3 * 1e6
        assert not other.has_lease
        other.fleet.link.on_message = hear
        for one in unread:
            hear(*one)
        assert other.memory is None
        await until(lambda: other.has_lease)


async def test_who_is_alone_pays_one_round_trip(redis_server):
    async with processes(redis_server, WRITER) as (writer,):
        await writer.fleet.heard_by_all()  # from then on it hears answers
        sent = writer.fleet.link.commands
        assert await writer.fleet.heard_by_all()
        assert writer.fleet.link.commands == sent + 1


async def test_writers_at_once_share_their_questions(redis_server):
    async with processes(redis_server, SHORT, LONG) as (writer, other):
        before = sum(writer.barriers.results.values())
        await writer.purge()
        first = asyncio.create_task(writer.fleet.heard_by_all())
        await asyncio.sleep(0)
        heard = await asyncio.gather(*(writer.fleet.heard_by_all() for _ in range(1_000)))
        assert await first
        assert all(heard)
        assert other.hit is None
        assert sum(writer.barriers.results.values()) - before <= 2


async def test_who_comes_while_a_question_is_open_waits_for_the_next(redis_server):
    async with processes(redis_server, SHORT, LONG) as (writer, other):
        other.in_slices = True
        await writer.purge()
        first = asyncio.create_task(writer.fleet.heard_by_all())
        await until(lambda: other.fleet._hearers.lease._listener._questions)
        await writer.purge()
        second = asyncio.create_task(writer.fleet.heard_by_all())
        await until(lambda: other.undone == 2)
        before = sum(writer.barriers.results.values())
        other.do()
        assert await first
        assert await second
        assert sum(writer.barriers.results.values()) - before == 2


async def test_a_caller_who_leaves_breaks_nothing_for_others(redis_server):
    async with processes(redis_server, SHORT, LONG) as (writer, other):
        other.in_slices = True
        await writer.purge()
        callers = [asyncio.create_task(writer.fleet.heard_by_all()) for _ in range(3)]
        await until(lambda: other.fleet._hearers.lease._listener._questions)
        callers[0].cancel()
        with anyio.move_on_after(0.01):
            await writer.fleet.heard_by_all()
        await asyncio.wait([callers[0]])
        other.do()
        assert await callers[1]
        assert await callers[2]
        assert other.hit is None


async def test_who_ends_in_order_is_not_waited_for(redis_server):
    async with processes(redis_server, LONG, LONG, LONG) as (writer, stays, leaves):
        await leaves.fleet.close()
        assert not leaves.has_lease
        await writer.purge()
        assert await writer.fleet.heard_by_all()
        stays.in_slices = True
        await writer.purge()
        waiting = asyncio.create_task(writer.fleet.heard_by_all())
        await until(lambda: stays.fleet._hearers.lease._listener._questions)
        await stays.fleet.close()  # while it is asked
        assert await waiting
        assert stays.hit is None
        assert writer.barriers.waited_out == 0


async def test_nobody_is_a_listener_who_has_not_asked_to_be(redis_server):
    async with processes(redis_server, WRITER, WRITER) as (writer, other):
        assert await writer.fleet.heard_by_all()
        assert (
            redis_server.say("ZCARD", f"{{{writer.fleet.namespace}:fleet:0}}l") == b":1"
        )  # when it was begun
        assert other.fleet.lease_until_us == 0
        other.fleet.keep_lease()
        other.fleet.keep_lease()
        await until(lambda: other.has_lease)
        assert redis_server.say("ZCARD", f"{{{writer.fleet.namespace}:fleet:0}}l") == b":2"


@pytest.mark.parametrize("how", ["closed by us", "cut on the way"])
async def test_a_cut_connection_ends_the_lease_and_the_next_one_brings_another(how, redis_server):
    async with (
        Proxy(redis_server.port) as proxy,
        processes(redis_server, WRITER) as (writer,),
    ):
        url = f"redis://127.0.0.1:{proxy.port}/0"
        other = Process(url, writer.fleet.namespace, **LONG)
        other.fleet.ensure_kept()
        try:
            await until(lambda: other.has_lease)
            other.memory = "old"
            if how == "cut on the way":
                proxy.cut()
                await until(lambda: not other.fleet.is_up)
            else:
                other.fleet.link.give_up("to see what comes of it")
            assert not other.has_lease
            await writer.purge()
            # Its old name is not waited for once it has come back with another.
            assert await writer.fleet.heard_by_all()
            assert other.hit is None
            await until(lambda: other.has_lease)
            assert other.memory is None  # it was told that it had missed something
            assert writer.barriers.waited_out == 0
        finally:
            await other.fleet.close()


async def test_after_the_listeners_were_lost_one_lease_is_waited_for(redis_server):
    async with processes(redis_server, SHORT, SHORT) as (writer, other):
        # It hears nothing, renews nothing, and nobody knows of it any more.
        other.fleet.link.on_message = lambda *_: None
        other.fleet._hearers.lease._has_left = True
        redis_server.say("DEL", f"{{{writer.fleet.namespace}:fleet:0}}l")
        await writer.purge()
        assert await writer.fleet.heard_by_all()
        assert other.memory == "old"
        assert other.hit is None


async def test_a_keyspace_that_was_emptied_empties_memory_and_leases(own_redis):
    async with processes(own_redis, SHORT, SHORT) as (writer, other):
        gaps = other.records.gaps
        own_redis.say("FLUSHALL")
        await writer.purge()
        assert await writer.fleet.heard_by_all()
        assert other.hit is None
        await until(lambda: other.records.gaps > gaps and other.has_lease)
        assert other.memory is None


async def test_while_redis_is_dead_nobody_answers_out_of_memory_and_nobody_knows(own_redis):
    async with processes(own_redis, SHORT, SHORT) as (writer, other):
        own_redis.kill()
        began_us = monotonic_us()
        await until(lambda: not writer.fleet.is_up and not other.fleet.is_up)
        assert not await writer.fleet.heard_by_all()
        assert monotonic_us() - began_us >= LEASE_S * 1e6
        assert other.hit is None
        assert writer.barriers.results["unknown"] == 1
        await asyncio.to_thread(own_redis.start)
        await until(lambda: writer.has_lease and other.has_lease)
        assert other.memory is None
        assert await writer.fleet.heard_by_all()


async def test_what_is_owed_is_made_up_for_before_all_have_heard(redis_server):
    async with processes(redis_server, LONG, LONG) as (writer, other):
        owed = [writer.purge]

        async def catch_up():
            while owed:
                await writer.records.purge(
                    b"t:it", message=message("tag", "it"), before_use=True
                )  # fmt: skip
                owed.pop()

        writer.fleet.when_owed(lambda: len(owed))
        writer.fleet.before_use(catch_up)
        writer.fleet.link.give_up("a purge was not done")
        assert await writer.fleet.heard_by_all()
        assert not owed
        assert other.memory is None


async def test_what_comes_to_be_owed_while_others_make_up_is_made_up_for_too(redis_server):
    async with processes(redis_server, WRITER) as (writer,):
        owed, done = [], []

        async def first():
            done.extend(owed)
            owed.clear()

        async def second():
            if not done:
                owed.append("in the meantime")

        writer.fleet.when_owed(lambda: len(owed))
        writer.fleet.before_use(first)
        writer.fleet.before_use(second)
        writer.fleet.link.give_up("to make it anew")
        await until(lambda: writer.fleet.is_up)
        assert done == ["in the meantime"]


async def test_it_can_be_awaited_in_another_event_loop(redis_server):
    async with processes(redis_server, SHORT, SHORT) as (writer, other):
        await writer.purge()
        results = []
        thread = threading.Thread(
            target=lambda: results.append(asyncio.run(writer.fleet.heard_by_all()))
        )
        thread.start()
        await until(lambda: not thread.is_alive())
        thread.join()
        assert results == [True]
        assert other.hit is None


def test_under_trio_nothing_is_known(redis_server):
    assert anyio.run(Fleet(redis_server.url).heard_by_all, backend="trio") is False


async def test_a_full_server_still_renews_and_asks(own_redis):
    async with processes(own_redis, LONG, LONG) as (writer, other):
        own_redis.say("CONFIG", "SET", "maxmemory", "1")
        assert own_redis.say("SET", "x", "1").startswith(b"-OOM")
        until_us = other.fleet.lease_until_us
        other.fleet._hearers.lease.renew_soon()
        await until(lambda: other.fleet.lease_until_us > until_us)
        await writer.purge()
        assert await writer.fleet.heard_by_all()
        assert writer.barriers.waited_out == 0


async def test_the_figures_tell_what_was_asked_and_how_long_it_took(redis_server):
    async with processes(redis_server, SHORT, SHORT) as (writer, other):
        other.in_slices = True
        await writer.purge()
        assert await writer.fleet.heard_by_all()
        figures = {family.name: list(family.points) for family in writer.fleet.families()}
        results = {value.labels.pairs: value.value for value in figures["perf_redis_barriers"]}
        assert results == {(("result", "heard"),): 1, (("result", "unknown"),): 0}
        (took,) = figures["perf_redis_barrier_seconds"]
        assert took.cumulative[-1] == 1
        assert took.sum > 0
        assert figures["perf_redis_leases_waited_out"][0].value == writer.barriers.waited_out
        await until(lambda: writer.fleet.status().get("lease"))
        await until(lambda: writer.fleet.status()["listeners"] == 1)
        assert list(writer.fleet._hearers.barriers.families())[-1].points[0].value == 1


FORKED = """
import os
from perf_middleware.fleet.runtime import Fleet

fleet = Fleet("redis://nowhere:1")
fleet.keep_lease()
fleet.lease_until_us = 2**60
child = os.fork()
if not child:
    os._exit(7 if fleet.lease_until_us == 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert fleet.lease_until_us == 2**60
"""


def test_a_forked_process_does_not_have_the_lease_of_its_parent():
    subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, check=True)
