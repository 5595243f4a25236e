"""A look-up is one round trip, whatever the record varies by and whoever has stored it."""

from contextlib import asynccontextmanager

import pytest

from perf_middleware.fleet.layout import VARIES, Found, Missing, told_field
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
    try:
        yield records, fleet.link
    finally:
        await fleet.close()


async def store(records, key, *names):
    return await records.put(
        b"/page", key, CONTENT, ttl_ms=60_000, indexes=[b"u:/page"], seen=records.seen,
        message=b"m", names=names, secondary=b",".join(name + b"=1" for name in names),
    )  # fmt: skip


class Asking:
    """A request with these fields, all of one value; `are_all`: no more than those are told."""

    def __init__(self, *names, told=None):
        self.names = names
        self._told = names if told is None else told

    def parts_of(self, names):
        return [name + b"=1" if name in self.names else b"-" for name in names]

    def told(self):
        told = (told_field(name, name + b"=1") for name in self._told)
        return b"".join(told), self._told is self.names


NAMES = b"accept-language", b"x-client"


async def test_the_first_look_up_of_a_variant_is_one_command(own_redis):
    """Of a process that nobody has told of the URL, at a server that has not heard of its scripts;
    by the server's own count.
    """
    async with process(own_redis, "varied") as (writer, _):
        assert await store(writer, b"a", *NAMES)
    own_redis.say("SCRIPT", "FLUSH")
    async with process(own_redis, "varied") as (reader, link):
        before, sent = commands(own_redis), link.commands
        found = await reader.find(b"/page", b"a", asking=Asking(*NAMES, b"cookie"), **LEASED)
        assert isinstance(found, Found)
        assert found.content.endswith(b"the answer")
        assert link.commands == sent + 1
        # What the script calls is counted too.
        assert commands(own_redis) == {
            **before, "eval": before["eval"] + 1, "get": before["get"] + 3,
        }  # fmt: skip
        # From then on it is asked for as it is known to be.
        again = await reader.find(b"/page", b"a", asking=Asking(*NAMES, b"cookie"))
        assert again.key == found.key
        assert link.commands == sent + 2
        assert commands(own_redis)["mget"] == 1


async def test_where_nothing_varies_a_first_look_up_is_a_plain_get(own_redis):
    async with (
        process(own_redis, "plain") as (writer, _),
        process(own_redis, "plain") as (reader, link),
    ):
        for key in (b"a", b"b"):
            assert await store(writer, key)
        before, sent = commands(own_redis), link.commands
        assert isinstance(await reader.find(b"/page", b"a", asking=Asking(*NAMES)), Found)
        assert (commands(own_redis)["get"], link.commands) == (before["get"] + 1, sent + 1)
        # All hear of the first that varies, and who comes later is told.
        assert await store(writer, b"c", *NAMES)
        await until(lambda: reader.known.names_of(b"b") is None)
        for key in (b"b", b"c"):
            assert isinstance(await reader.find(b"/page", key, asking=Asking(*NAMES)), Found)
        assert link.commands == sent + 3


def commands(server):
    """How often the server has run which command, but for those of a heartbeat and of tests."""
    stats = server.say_all("INFO", "commandstats").decode()
    pairs = (line.partition(":calls=") for line in stats.splitlines() if ":calls=" in line)
    found = {name.removeprefix("cmdstat_"): int(rest.partition(",")[0]) for name, _, rest in pairs}
    return {name: found[name] for name in ("get", "mget", "eval", "evalsha") if name in found}


@pytest.mark.parametrize(
    ("stored", "asking", "commands", "is_found"),
    [
        pytest.param((), Asking(*NAMES), 1, True, id="one that does not vary"),
        pytest.param(NAMES, Asking(*NAMES), 1, True, id="by fields of the request"),
        pytest.param(NAMES, Asking(b"x-client"), 1, False, id="by one that it has not"),
        pytest.param(NAMES, Asking(), 1, False, id="by none of its fields"),
        pytest.param(NAMES, Asking(*NAMES, told=(b"x-client",)), 2, True,
                     id="two where not all could be told"),
        pytest.param(NAMES, None, 1, None, id="nobody asks for a variant"),
    ],
)  # fmt: skip
async def test_a_first_look_up_is_one_round_trip(
    stored, asking, commands, is_found, redis_server, request
):
    namespace = f"first{request.node.callspec.id[:9]}".replace(" ", "-")
    async with process(redis_server, namespace) as (writer, _):
        assert await store(writer, b"a", *stored)
    async with process(redis_server, namespace) as (reader, link):
        before = link.commands
        found = await reader.find(b"/page", b"a", asking=asking, **LEASED)
        assert link.commands == before + commands
        if is_found is None:
            assert found is None
        else:
            assert isinstance(found, Found if is_found else Missing)
            assert is_found or found.leads  # with it


async def test_what_is_known_of_a_url_may_be_over(redis_server):
    """It has begun to vary, varies by more, or by nothing any more: found all the same."""
    async with (
        process(redis_server, "over") as (writer, _),
        process(redis_server, "over") as (reader, link),
    ):
        taken = []
        reader.known.begin()  # as it hears from the first that varies
        for names in ((), NAMES[:1], NAMES):
            assert await store(writer, b"a", *names)
            for _ in range(2):
                before = link.commands
                found = await reader.find(b"/page", b"a", asking=Asking(*NAMES))
                assert isinstance(found, Found)
                assert found.key.count(b"=1") == len(names)
                taken.append(link.commands - before)
        await link.command("DEL", reader.keys_of(0).records + b"a")
        before = link.commands
        assert isinstance(await reader.find(b"/page", b"a", asking=Asking(*NAMES)), Missing)
        assert await store(writer, b"a")
        found = await reader.find(b"/page", b"a", asking=Asking(*NAMES))
        assert (found.key, found.content[10:]) == (b"a", b"the answer")
        assert reader.known.names_of(b"a") == ()
        assert link.commands == before + 2
        assert taken == [1, 1, 2, 1, 2, 1]


async def test_of_what_was_missing_nothing_is_known(redis_server):
    async with process(redis_server, "missing") as (records, link):
        assert isinstance(await records.find(b"/page", b"a", asking=Asking(*NAMES)), Missing)
        async with process(redis_server, "missing") as (writer, _):
            assert await store(writer, b"a", *NAMES)
        await until(lambda: records.known.names_of(b"a") is None)
        before = link.commands
        assert isinstance(await records.find(b"/page", b"a", asking=Asking(*NAMES)), Found)
        assert link.commands == before + 1


@pytest.mark.parametrize(
    "garbage",
    [b"V", b"V,,", b"V\r\n\t\0", b"V" + b"a," * 30_000, b"V" + b"\xff" * 4_097, b"", b"x", b"V-",
     b"\xfe-of another", b"1-" + b"\xff" * 8],
)  # fmt: skip
async def test_what_is_no_record_of_variants_is_a_miss_and_makes_room(garbage, redis_server):
    async with process(redis_server, "garbage") as (records, link):
        begin = records.keys_of(0).records
        await link.command("SET", begin + b"a", garbage)
        count = len([name for name in garbage[1:].split(b",") if name])
        whatever = begin + b"a\r" + garbage[1:] + b"\r" + b",".join([b"-"] * count)
        if len(garbage) > 4_096:
            await link.command("SET", whatever, CONTENT)
        found = await records.find(b"/page", b"a", asking=Asking(*NAMES), **LEASED)
        if garbage[:1] in {b"\xfe", b"1"}:
            assert found.content == garbage  # whoever reads it says what it is
            return
        assert isinstance(found, Missing)
        assert found.leads
        assert records.is_up
        await records.release(b"/page", found.key, LEASED["token"], landed=found.key)
        if len(garbage) > 4_096 or garbage[:1] != VARIES:
            assert await store(records, b"a", *NAMES) is True
            found = await records.find(b"/page", b"a", asking=Asking(*NAMES), **LEASED)
            assert isinstance(found, Found)


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
        await link.command("DEL", records.keys_of(0).records + b"a")
        missing = await records.find(b"/page", b"a", **LEASED)
        assert (missing, len(sent)) == (Missing(b"a", leads=True), 1)


async def test_what_was_asked_for_in_vain_is_leased_in_one_more(redis_server):
    async with process(redis_server, "in-vain") as (records, link):
        assert records.likely(b"/page", b"a") is None  # nothing was found as yet
        await store(records, b"a")
        while (asked := records.likely(b"/page", b"a")) is None:
            assert isinstance(await records.find(b"/page", b"a", **LEASED), Found)
        found = records.found_in(b"/page", b"a", await asked)
        assert isinstance(found, Found)
        assert found.content.endswith(b"the answer")
        await link.command("DEL", records.keys_of(0).records + b"a")
        before = link.commands
        asked = records.likely(b"/page", b"a")
        assert asked is not None
        assert records.found_in(b"/page", b"a", await asked) is None
        found = await records.find(b"/page", b"a", was_asked=True, **LEASED)
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
