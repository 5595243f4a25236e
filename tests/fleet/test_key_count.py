"""What is left in Redis after very many stores, purges and expiries: next to nothing.

Thirty thousand stores show it as well as a million: an index lets go of 32 expired entries at each
store and a purge takes slices of 500, so that each way of leaving has been gone hundreds of times,
and a single key or entry left behind at one store in a thousand would make thirty.
"""

import asyncio
import struct

import pytest

from perf_middleware.fleet.layout import HEAD
from perf_middleware.fleet.runtime import Fleet
from tests.fleet.processes import until

STORES = 30_000
AT_ONCE = 500
TAGS = 20
TTL_MS = 400  # as short as a slow machine allows: what is stored is purged before it expires
FIXED = 5  # keys of a shard: the counter, its life, the log, the floor and the names
CONTENT = b"\x01-" + bytes(HEAD - 2) + b"content"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def index_names(number):
    return [b"u:/page/%d" % (number % 5_000), b"t:tag-%d" % (number % TAGS)]


async def stored(records, numbers, *, ttl_ms=TTL_MS, varied=False):
    variants = {"names": (b"accept",), "secondary": b"json"} if varied else {}
    return await asyncio.gather(
        *(
            records.put(
                b"/page", b"page/%d" % number, CONTENT, ttl_ms=ttl_ms, indexes=index_names(number),
                seen=records.seen, message=b"m", origin=b"http://a", **variants,
            )
            for number in numbers
        )
    )  # fmt: skip


async def test_nothing_but_a_few_fixed_keys_is_left_when_all_has_expired(own_redis):
    fleet = Fleet(own_redis.url, timeout_s=10, connect_timeout_s=5)
    records = fleet.records("cache")
    fleet.ensure_kept()
    await until(lambda: fleet.is_up)

    def keys():
        return int(own_redis.say("DBSIZE")[1:])

    most = kept = 0
    for start in range(0, STORES, AT_ONCE):
        round_, numbers = start // AT_ONCE, range(start, start + AT_ONCE)
        results = await stored(records, numbers, varied=round_ % 2 == 1)
        kept += results.count(True)
        await asyncio.gather(
            *(records.find(b"/page", b"none/%d" % n, lease_ms=TTL_MS, token=b"t" * 24)
              for n in numbers[::10])
        )  # fmt: skip
        match round_ % 5:
            case 0:
                await records.purge(b"t:tag-%d" % (round_ % TAGS), message=b"m")
            case 1:
                for number in numbers[::50]:
                    await records.purge(index_names(number)[0], message=b"m", place=b"/page")
            case 2:
                await records.purge(b"t:tag-3", message=b"m", soft=True)
            case 3:
                await records.announce(message=b"m")
                await records.purge_index(0, b"t:tag-4", soft=False)
            case 4:
                await records.purge_all(message=b"m")
                await records.sweep()
        most = max(most, keys())
    assert kept > STORES * 0.9
    assert most > AT_ONCE  # there was something to be left behind
    # Two keys of a record and its index for a page each, as many as are stored within their time.
    await until(lambda: keys() <= FIXED)
    # Of the log only an hour's purges, at most so many, and it expires as well.
    assert await fleet.link.command("ZCARD", b"{app:cache:0}p") <= 500
    assert 0 < await fleet.link.command("PTTL", b"{app:cache:0}p") <= 3_600_000
    await fleet.close()


async def test_an_index_in_use_does_not_outgrow_what_it_points_to(own_redis):
    """One tag that is always there, of responses that come and go."""
    fleet = Fleet(own_redis.url, timeout_s=10, connect_timeout_s=5)
    records = fleet.records("cache")
    fleet.ensure_kept()
    await until(lambda: fleet.is_up)
    await stored(records, [0], ttl_ms=60_000)  # keeps the index
    for start in range(TAGS, 400 * TAGS, 40 * TAGS):
        await stored(records, range(start, start + 40 * TAGS, TAGS), ttl_ms=20)
        await asyncio.sleep(0.03)
    await stored(records, range(0, 20 * TAGS, TAGS), ttl_ms=60_000)
    # 400 have expired, of 20 each with their own time only the living are left and a few slices.
    assert await fleet.link.command("ZCARD", b"{app:cache:0}i:t:tag-0") <= 20 + 32
    content = await fleet.link.get(b"{app:cache:0}r:page/0")
    assert struct.unpack_from(">Q", content, 2) == (1,)  # told to others: it was replaced once
    await fleet.close()


async def test_an_index_of_what_never_expires_forgets_what_was_deleted(own_redis):
    """Deleted by its key nothing tells which indexes it is in; new ones find it gone."""
    fleet = Fleet(own_redis.url, timeout_s=10, connect_timeout_s=5)
    records = fleet.records("cache")
    fleet.ensure_kept()
    await until(lambda: fleet.is_up)
    await stored(records, range(0, 40 * TAGS, TAGS), ttl_ms=None)  # forty that stay
    for start in range(40 * TAGS, 1_000 * TAGS, 10 * TAGS):
        numbers = range(start, start + 10 * TAGS, TAGS)
        assert all(await stored(records, numbers, ttl_ms=None))
        names = [b"{app:cache:0}r:page/%d" % number for number in numbers]
        assert await fleet.link.command("UNLINK", *names) == len(numbers)
    members = await fleet.link.command("ZRANGE", b"{app:cache:0}i:t:tag-0", 0, -1)
    there = [await fleet.link.command("EXISTS", name.partition(b"\n")[2]) for name in members]
    assert sum(there) == 40
    assert len(members) < 300  # of a thousand
    await fleet.close()
