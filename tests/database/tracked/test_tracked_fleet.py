"""Two processes on one Redis: what one of them commits, none of them answers any more."""

import asyncio

import pytest

from tests.database.tracked.shop import WAYS, Author, Shop, is_hit, serving
from tests.fleet.servers import RedisServer

BOUND_S = 120.0  # only what hangs takes so long


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def shops(url, redis_url, request):
    names = {"service": request.node.name.partition("[")[0][:60]}
    return [Shop(url, redis=redis_url, **names) for _ in range(2)]


def run(main):
    asyncio.run(asyncio.wait_for(main, 60))


async def until(holds):
    async with asyncio.timeout(BOUND_S):
        while not holds():
            await asyncio.sleep(0.005)


async def stored(shop, path):
    """It answers `path` from its memory; each waits for a lease at its start."""
    async with asyncio.timeout(BOUND_S):
        while not is_hit((await shop.get(path))[1]):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["flush", "raw"])
def test_when_a_writer_has_its_answer_no_process_answers_the_old(shops, way):
    async def main():
        async with serving(*shops) as (one, other):
            for shop in shops:
                await stored(shop, "/books")
            calls = len(other.calls)
            for number in range(5):
                await one.put(f"/books/1/{way}/{number}")
                assert (await other.get("/books"))[0] == [str(number), "Two"]
                assert (await one.get("/books"))[0] == [str(number), "Two"]
            assert len(other.calls) <= calls + 5

    run(main())


def test_the_commit_itself_waits_until_all_have_heard(shops):
    async def main():
        async with serving(*shops) as (one, other):
            for shop in shops:
                await stored(shop, "/books")
            for number in range(5):
                async with one.perf.database.session() as session:
                    await WAYS["core"](session, f"v{number}")
                    await session.commit()
                    assert other.perf.cache.store.responses == 0
                await stored(other, "/books")

    run(main())


def test_what_one_has_stored_the_other_finds_and_tracks_too(shops):
    async def main():
        async with serving(*shops) as (one, other):
            await stored(one, "/books")
            await until(lambda: one.perf.cache.shared.stored)
            await stored(other, "/books")
            assert other.calls == []
            (kept,) = other.perf.cache.store.of_tag("db:t:books@")
            assert kept.dependencies == ("db:any", "db:t:books", "db:t:books@")
            await one.put("/books/1/flush/New")
            assert (await other.get("/books"))[0] == ["New", "Two"]

    run(main())


def test_without_a_lease_memory_is_not_used_and_nothing_is_stored(shops):
    async def main():
        async with serving(*shops) as (one, _other):
            await stored(one, "/books")
            calls = len(one.calls)
            held_until_us = one.perf.cache.tracked._lease_until_us
            one.perf.cache.tracked.lease(lambda: 0)
            assert (await one.get("/books"))[1] == ('fwd=bypass; detail="cache_response; lease"')
            assert (await one.ask("/books", headers=[("if-none-match", "*")])).status == 200
            assert len(one.calls) == calls + 2
            assert "lease" in (await one.get("/authors"))[1]
            one.perf.cache.tracked.lease(held_until_us)
            await stored(one, "/books")
            assert len(one.calls) == calls + 3

    run(main())


def test_a_reader_of_another_process_that_began_before_the_commit_stores_nothing(shops):
    async def main():
        async with serving(*shops) as (one, other):
            for shop in shops:
                await stored(shop, "/books")
            await one.put("/books/1/flush/Second")
            reached, go_on = other.hold("books read")
            old = asyncio.create_task(other.get("/books"))
            await reached.wait()
            other.gates.clear()
            await one.put("/books/1/flush/Third")
            go_on.set()
            assert (await old)[0] == ["Second", "Two"]
            for shop in (other, one, other):
                assert (await shop.get("/books"))[0] == ["Third", "Two"]

    run(main())


def test_a_commit_is_one_message_however_many_tables_it_writes(shops):
    async def main():
        async with serving(*shops) as (one, other):
            for path in ("/books", "/authors"):
                for shop in shops:
                    await stored(shop, path)
            await until(lambda: one.perf.cache.shared.stored)
            heard = other.perf.cache.shared._records.messages
            async with one.perf.database.session() as session:
                for way in ("core", "raw"):
                    await WAYS[way](session, "New")
                session.add(Author(id=9))
            assert other.perf.cache.shared._records.messages == heard + 1
            assert other.perf.cache.store.responses == one.perf.cache.store.responses == 0
            assert not one.perf.cache.shared.purges.pending
            assert (await other.get("/books"))[0] == ["New", "Two"]

    run(main())


def test_what_more_answers_read_than_one_step_purges_goes_as_well(shops):
    async def main():
        async with serving(*shops) as (one, other):
            records = one.perf.cache.shared._records
            await until(lambda: records.is_up)
            put = [
                records.put(
                    b"", b"key %d" % number, bytes(20), ttl_ms=60_000,
                    indexes=[b"t:many", b"t:few"] if number < 5 else [b"t:many"],
                    seen=records.seen, message=b"",
                )
                for number in range(600)
            ]  # fmt: skip
            assert all(await asyncio.gather(*put))
            assert await other.perf.cache.purge(tags=["many", "few"]) == 600
            assert [name async for _, names in records.indexes(b"t:") for name in names] == []

    run(main())


def test_while_redis_is_away_nobody_answers_what_was_before(url, tmp_path):
    server = RedisServer(tmp_path / "own").start()

    async def main():
        shops = [Shop(url, redis=server.url, service="away") for _ in range(2)]
        async with serving(*shops) as (one, other):
            for shop in shops:
                await stored(shop, "/books")
            server.kill()
            await one.put("/books/1/flush/New")
            for shop in (other, one):
                body, status = await shop.get("/books")
                assert body == ["New", "Two"]
                assert "hit" not in status
            server.start()
            for shop in (one, other):
                await stored(shop, "/books")
                assert (await shop.get("/books"))[0] == ["New", "Two"]

    try:
        run(main())
    finally:
        server.stop()
