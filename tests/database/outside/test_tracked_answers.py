"""A write that goes past the app makes the next answer new, on a real PostgreSQL and Redis."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from tests.database.outside.listening import psql
from tests.database.tracked.shop import Shop, is_hit, serving
from tests.fleet.servers import RedisServer


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server.url
    server.stop()


async def until(holds):
    while not holds():
        await asyncio.sleep(0.01)


async def stored(shop, path):
    while not is_hit((await shop.get(path))[1]):
        await asyncio.sleep(0.01)


async def answers(shop, path, expected):
    """It does so soon, and from then on."""
    while (await shop.get(path))[0] != expected:
        await asyncio.sleep(0.005)
    assert (await shop.get(path))[0] == expected


def outside_of(shop):
    return shop.perf.database.outside.status()


class Processes:
    """Shops as processes of one service, with the triggers, and somebody else's connection."""

    def __init__(self, shops, other):
        self.shops = shops
        self.other = other
        self._channel = shops[0].perf.database.outside.triggers.name
        self._heard = []
        self._fences = 0

    async def listen(self):
        """Hear what PostgreSQL tells those who listen, as one more of them."""
        await self.other.add_listener(self._channel, lambda *said: self._heard.append(said[3]))

    async def told(self):
        """Who wrote which table, as it was told since this was asked last."""
        self._fences += 1
        fence = json.dumps(["", "fence", str(self._fences)])
        await self.other.execute("select pg_notify($1, $2)", self._channel, fence)
        await until(lambda: fence in self._heard)
        at = self._heard.index(fence)
        told = [json.loads(payload) for payload in self._heard[:at]]
        del self._heard[: at + 1]
        return [(writer, table) for writer, _, table in told]


@asynccontextmanager
async def processes(database, *, redis=None, count=1):
    outside = {"listen": True, "tables": ["books", "authors"]}
    shops = [Shop(database, redis=redis, service="heard", outside=outside) for _ in range(count)]
    async with psql(database) as other, serving(*shops):
        listeners = 1 if redis else count
        await until(lambda: [outside_of(s)["state"] for s in shops].count("listening") == listeners)
        assert await shops[0].perf.database.install_triggers() == ()
        found = Processes(shops, other)
        await found.listen()
        try:
            yield found
        finally:
            await other.execute(shops[0].perf.database.triggers(drop=True))
            await other.execute("drop table books, authors")


def test_what_psql_writes_the_next_answer_has(run, database):
    async def main():
        async with processes(database) as found:
            [shop], other = found.shops, found.other
            await stored(shop, "/books")
            await other.execute("update books set title = 'Outside' where id = 1")
            await answers(shop, "/books", ["Outside", "Two"])
            await stored(shop, "/books")
            await stored(shop, "/authors")
            calls = len(shop.calls)
            await other.execute("begin; update books set title = 'Never'; rollback")
            await other.execute("update authors set name = 'Bob'")
            await answers(shop, "/authors", ["Bob"])
            assert (await shop.get("/books"))[0] == ["Outside", "Two"]
            assert "/books" not in shop.calls[calls:]

    run(main())


@pytest.mark.parametrize("way", ["flush", "bulk", "core", "raw", "released"])
def test_what_the_app_writes_is_purged_once_by_itself(run, database, way):
    async def main():
        async with processes(database) as found:
            [shop] = found.shops
            await stored(shop, "/books")
            await found.told()
            own = outside_of(shop)["own"]
            await shop.put(f"/books/1/{way}/New")
            await stored(shop, "/books")
            [(writer, table)] = await found.told()
            assert (bool(writer), table) == (True, "books")
            await until(lambda: outside_of(shop)["own"] == own + 1)
            await stored(shop, "/books")
            assert (await shop.get("/books"))[0] == ["New", "Two"]

    run(main())


def test_workers_without_redis_hear_of_each_other_from_postgresql(run, database):
    async def main():
        async with processes(database, count=2) as found:
            one, other = found.shops
            await stored(one, "/books")
            await stored(other, "/books")
            await one.put("/books/1/flush/New")
            assert (await one.get("/books"))[0] == ["New", "Two"]
            await answers(other, "/books", ["New", "Two"])

    run(main())


def test_with_redis_one_hears_for_all_and_the_commits_of_all_are_left_out(run, database, redis_url):
    async def main():
        async with processes(database, redis=redis_url, count=2) as found:
            shops = found.shops
            for shop in shops:
                await stored(shop, "/books")
            await found.told()
            await shops[0].put("/books/1/flush/Own")
            await shops[1].put("/books/1/raw/Own too")
            for shop in shops:
                assert (await shop.get("/books"))[0] == ["Own too", "Two"]
                await stored(shop, "/books")
            # With its name a process writes only while Redis is away, as it may be for a moment.
            assert [table for writer, table in await found.told() if not writer] == []
            await found.other.execute("update books set title = 'Outside' where id = 1")
            for shop in shops:
                await answers(shop, "/books", ["Outside", "Two"])
            assert ("", "books") in await found.told()

    run(main())


def test_what_goes_past_sqlalchemy_on_a_connection_of_the_app_is_heard(run, database):
    async def main():
        async with processes(database) as found:
            [shop] = found.shops
            await stored(shop, "/books")
            async with shop.perf.database.session() as session:
                await session.execute(text("update authors set name = 'Ann'"))
                raw = await (await session.connection()).get_raw_connection()
                await raw.driver_connection.copy_records_to_table(
                    "books", records=[(3, "Three")], columns=["id", "title"]
                )
            await answers(shop, "/books", ["One", "Two", "Three"])

    run(main())
