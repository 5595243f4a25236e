"""A look-up is one round trip, whatever the record varies by and whoever has stored it."""

from contextlib import asynccontextmanager

import pytest

from perf_middleware.fleet.layout import NAMES_MAX, Found, Missing
from perf_middleware.fleet.runtime import Fleet
from tests.fleet.processes import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]

CONTENT = b"1-" + bytes(8) + b"the answer"
LEASED = {"lease_ms": 60_000, "token": b"t" * 24}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@asynccontextmanager
async def process(server, namespace):
    """The records of one process, which counts what it sends."""
    fleet = Fleet(server.url, namespace=namespace, timeout_s=30, heartbeat_s=600)
    records = fleet.records("cache")
    fleet.ensure_kept()
    await until(lambda: fleet.is_up)
    await records.find(b"/page", b"none/yet", **LEASED)  # the server has heard of the script
    try:
        yield records, fleet.link
    finally:
        await fleet.close()


async def store(records, key, *names):
    return await records.put(
        b"/page", key, CONTENT, ttl_ms=60_000, indexes=[b"u:/page"], seen=records.seen,
        message=b"m", names=names, secondary=b",".join(name + b"=1" for name in names),
    )  # fmt: skip


def parts_of(names):
    return [name + b"=1" for name in names]


async def test_a_variant_that_another_process_has_stored_is_found_in_one(redis_server):
    async with (
        process(redis_server, "varied") as (writer, _),
        process(redis_server, "varied") as (reader, link),
    ):
        assert await store(writer, b"a", b"accept-language", b"x-client")
        await until(lambda: len(reader._names) == 2)
        async with process(redis_server, "varied") as (later, later_link):
            for records, own in ((reader, link), (later, later_link)):
                before = own.commands
                found = await records.find(b"/page", b"a", parts_of=parts_of, **LEASED)
                assert isinstance(found, Found)
                assert found.content.endswith(b"the answer")
                assert own.commands == before + 1


async def test_what_is_missing_is_leased_in_one_while_little_is_found(redis_server):
    async with process(redis_server, "cold") as (records, link):
        for number in range(3):
            before = link.commands
            missing = await records.find(b"/page", b"cold/%d" % number, **LEASED)
            assert missing == Missing(b"cold/%d" % number, leads=True)
            assert link.commands == before + 1


async def test_what_is_mostly_found_is_only_asked_for(redis_server):
    """A script that finds a record keeps the server busy longer than GET does."""
    async with process(redis_server, "warm") as (records, link):
        assert await store(records, b"a")
        sent = []
        link.get, get = lambda key: sent.append(key) or get(key), link.get
        for _ in range(40):
            assert isinstance(await records.find(b"/page", b"a", **LEASED), Found)
        assert 20 < len(sent) < 40
        del sent[:]
        missing = await records.find(b"/page", b"none", **LEASED)
        assert (missing, len(sent)) == (Missing(b"none", leads=True), 1)


async def test_an_app_that_varies_by_ever_more_fields_is_remembered_up_to_a_bound(redis_server):
    async with process(redis_server, "many") as (records, link):
        for number in range(NAMES_MAX + 8):
            await store(records, b"k%d" % number, b"x-%d" % number)
        assert await link.command("SCARD", b"{many:cache:0}v") == NAMES_MAX
        assert len(records._names) <= NAMES_MAX
        async with process(redis_server, "many") as (later, _):
            assert len(later._names) == NAMES_MAX
            for number in (0, NAMES_MAX + 7):
                found = await later.find(b"/page", b"k%d" % number, parts_of=parts_of, **LEASED)
                assert isinstance(found, Found)


async def test_what_was_asked_for_in_vain_is_leased_in_one_more(redis_server):
    async with process(redis_server, "in-vain") as (records, link):
        assert records.likely(b"/page", b"a") is None  # nothing was found as yet
        await store(records, b"a")
        while (asked := records.likely(b"/page", b"a")) is None:
            assert isinstance(await records.find(b"/page", b"a", **LEASED), Found)
        found = records.found_in(b"/page", b"a", await asked)
        assert isinstance(found, Found)
        assert found.content.endswith(b"the answer")
        before = link.commands
        asked = records.likely(b"/page", b"b")
        assert asked is not None
        assert records.found_in(b"/page", b"b", await asked) is None
        found = await records.find(b"/page", b"b", was_asked=True, **LEASED)
        assert isinstance(found, Missing)
        assert found.leads
        assert link.commands == before + 2


async def test_what_was_purged_or_varies_is_not_taken_as_it_is(redis_server):
    async with process(redis_server, "not-simply") as (records, _):
        await store(records, b"a")
        await store(records, b"varied", b"x-client")
        for key in (b"a", b"varied"):
            value = await records._link.get(records.keys_of(0).records + key)
            assert (records.found_in(b"/page", key, value) is None) is (key == b"varied")
        value = await records._link.get(records.keys_of(0).records + b"a")
        await records.purge_all(message=b"all")
        await until(lambda: records.found_in(b"/page", b"a", value) is None)


async def test_a_command_that_the_socket_does_not_take_at_once_arrives_whole(redis_server):
    large = bytes(range(256)) * (32 << 10)
    async with process(redis_server, "large") as (_, link):
        assert await link.command("SET", "large:a", large) == b"OK"
        both = link.ask("SET", "large:b", large), link.get(b"large:b")
        assert await both[0] == b"OK"
        assert await both[1] == await link.get(b"large:a") == large
        assert await link.command("DEL", "large:a", "large:b") == 2
