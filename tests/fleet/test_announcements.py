"""Announced writes over one real Redis: who has died is stood in for, then leases go on."""

import asyncio

import pytest

from perf_middleware.errors import StoreUnavailableError
from perf_middleware.fleet.announcing import (
    AGAIN,
    AGAIN_MS,
    FIRST,
    KEPT_MS,
    NAME_BYTES,
    OPEN_US_MAX,
    OVERDUE_AT_ONCE,
    token_of,
)
from perf_middleware.fleet.stores.script import Script
from tests.fleet.processes import until
from tests.fleet.test_barriers import LONG, SHORT, WRITER, processes

ALL = ("db:*", "db:any")
LONG_AGO = 1  # the server's ms until which what is overdue was kept
ANNOUNCE = Script("announce", package="perf_middleware.fleet.stores")

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]


@pytest.fixture
def anyio_backend():
    return "asyncio"


def announced(process):
    return process.fleet._hearers.announcements


def stands_in(process):
    """It purges in the place of others: what, so far."""
    done = []

    async def purge(tags):
        await process.purge()
        done.append(tags)

    process.fleet.purge_overdue_by(purge, all_tags=ALL)
    return done


async def say(process, *words):
    return await process.fleet.link.command(*words)


async def kept(process):
    """What is announced, and until which of the server's ms."""
    return dict(await say(process, "ZRANGE", announced(process).key, 0, -1, "WITHSCORES"))


async def let_go(process, member, at=LONG_AGO):
    """A writer that has announced this is not heard of any more."""
    await say(process, "ZADD", announced(process).key, at, member)


def member(number=1, tags=("db:t:it@",)):
    return FIRST + token_of(number.to_bytes(NAME_BYTES), tags, all_tags=ALL)


async def test_what_is_announced_is_in_redis_until_it_is_lifted(redis_server):
    async with processes(redis_server, WRITER) as (writer,):
        one, other = [await writer.fleet.announce({"db:t:it@"}) for _ in range(2)]
        found = await kept(writer)
        assert found.keys() == {FIRST + one.token, FIRST + other.token}
        seconds, micros = await say(writer, "TIME")
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        assert all(until_ms <= now_ms + KEPT_MS for until_ms in found.values())
        await writer.fleet.lift([one])
        assert (await kept(writer)).keys() == {FIRST + other.token}
        await writer.fleet.lift([other])
        assert await kept(writer) == {}
        assert announced(writer)._open == {}


async def test_what_its_writer_has_not_purged_is_purged_by_whoever_wants_a_lease(redis_server):
    async with processes(redis_server, WRITER, LONG, SHORT) as (writer, hearer, other):
        done = stands_in(other)
        await let_go(writer, member(1))
        await let_go(writer, member(2, ("db:t:that",)))
        await until(lambda: announced(other).purged_for_others == 2)
        assert frozenset().union(*done) == {"db:t:it@", "db:t:that"}
        assert other.memory is None
        await until(lambda: hearer.memory is None)
        await until(lambda: other.has_lease)


async def test_while_it_is_not_purged_nobody_has_a_lease_anew(redis_server):
    async with processes(redis_server, WRITER, SHORT) as (writer, other):
        tried = []

        async def purge(tags):
            tried.append(tags)
            if len(tried) < 5:
                raise StoreUnavailableError("Redis", "not now")
            await other.purge()

        other.fleet.purge_overdue_by(purge, all_tags=ALL)
        await let_go(writer, member())
        await until(lambda: len(tried) >= 3)
        until_us = other.fleet.lease_until_us
        other.fleet._hearers.lease.renew_soon()
        await until(lambda: len(tried) >= 4)
        assert other.fleet.lease_until_us == until_us
        await until(lambda: other.fleet.lease_until_us > until_us)
        assert other.memory is None
        assert len(tried) == 5


async def test_what_was_purged_for_a_writer_is_purged_once_more_and_then_forgotten(redis_server):
    async with processes(redis_server, WRITER, SHORT) as (writer, other):
        done = stands_in(other)
        await let_go(writer, member())
        await until(lambda: announced(other).purged_for_others == 1)
        again = AGAIN + member()[1:]
        [(found, until_ms)] = (await kept(writer)).items()
        assert found == again
        seconds, _ = await say(writer, "TIME")
        assert until_ms > int(seconds) * 1_000 + AGAIN_MS - 120_000
        await let_go(writer, again)
        await until(lambda: announced(other).purged_for_others == 2)
        assert await kept(writer) == {}
        assert done == [{"db:t:it@"}] * 2


async def test_a_writer_that_comes_back_while_it_is_stood_in_for_stays_announced(redis_server):
    async with processes(redis_server, WRITER, WRITER) as (writer, other):
        await let_go(writer, member(), at=5_000)
        await announced(other).settle([(member(), LONG_AGO)])  # as it was before it came back
        assert await kept(writer) == {member(): 5_000}
        assert announced(other).purged_for_others == 0


async def test_what_a_writer_lifts_late_is_not_purged_once_more(redis_server):
    async with processes(redis_server, WRITER, SHORT) as (writer, other):
        stands_in(other)
        one = await writer.fleet.announce({"db:t:it@"})
        await let_go(writer, FIRST + one.token)
        await until(lambda: announced(other).purged_for_others == 1)
        await writer.fleet.lift([one])
        assert await kept(writer) == {}


async def test_more_than_are_told_at_once_are_all_purged(redis_server):
    async with processes(redis_server, WRITER, SHORT) as (writer, other):
        stands_in(other)
        for number in range(OVERDUE_AT_ONCE + 1):
            await let_go(writer, member(number))
        await until(lambda: announced(other).purged_for_others == OVERDUE_AT_ONCE + 1)
        await until(lambda: other.has_lease)


async def test_who_keeps_nothing_of_the_kind_does_not_stand_in(redis_server):
    async with processes(redis_server, WRITER, SHORT) as (writer, other):
        await let_go(writer, member())
        until_us = other.fleet.lease_until_us
        await until(lambda: other.fleet.lease_until_us > until_us)
        assert await kept(writer) == {member(): LONG_AGO}


async def test_a_writer_whose_commit_takes_long_keeps_it_announced(redis_server):
    async with processes(redis_server, WRITER) as (writer,):
        one = await writer.fleet.announce({"db:t:it@"})
        announced(writer)._open[one.token] -= KEPT_MS * 1_000
        await let_go(writer, FIRST + one.token)
        running = asyncio.create_task(announced(writer).run())
        try:
            async with asyncio.timeout(120):
                while (await kept(writer))[FIRST + one.token] == LONG_AGO:
                    await asyncio.sleep(0.05)
            announced(writer)._open[one.token] -= OPEN_US_MAX  # its writer was lost somewhere
            await until(lambda: not announced(writer)._open)
        finally:
            running.cancel()


async def test_a_renewal_that_is_delivered_late_prolongs_nothing(redis_server):
    async with processes(redis_server, WRITER) as (writer,):
        await writer.fleet.link.run(
            ANNOUNCE, (announced(writer).key,), (KEPT_MS, LONG_AGO, member())
        )
        assert await kept(writer) == {member(): LONG_AGO}


async def test_what_is_owed_only_is_neither_lifted_nor_settled(redis_server):
    async with processes(redis_server, WRITER) as (writer,):
        owed = []
        writer.fleet.when_owed(lambda: len(owed))
        one = await writer.fleet.announce({"db:t:it@"})
        owed.append("a purge that is to be made up for")
        await writer.fleet.lift([one])
        with pytest.raises(StoreUnavailableError):
            await announced(writer).settle([(FIRST + one.token, LONG_AGO)])
        assert (await kept(writer)).keys() == {FIRST + one.token}
        assert announced(writer)._open == {}  # and not kept by this process: others purge it


async def test_a_full_server_still_takes_announcements(own_redis):
    async with processes(own_redis, WRITER, SHORT) as (writer, other):
        stands_in(other)
        own_redis.say("CONFIG", "SET", "maxmemory", "1")
        assert own_redis.say("SET", "x", "1").startswith(b"-OOM")
        one = await writer.fleet.announce({"db:t:it@"})
        own_redis.say("CONFIG", "SET", "maxmemory", "0")
        await let_go(writer, FIRST + one.token)
        own_redis.say("CONFIG", "SET", "maxmemory", "1")
        await until(lambda: announced(other).purged_for_others == 1)


async def test_while_redis_is_away_nothing_is_announced(own_redis):
    async with processes(own_redis, WRITER) as (writer,):
        own_redis.kill()
        with pytest.raises(StoreUnavailableError):
            await writer.fleet.announce({"db:t:it@"})
        assert announced(writer)._open == {}
        await until(lambda: not writer.fleet.is_up)
