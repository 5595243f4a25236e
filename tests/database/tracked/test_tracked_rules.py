"""An answer of a tracked rule holds until a commit writes what it was made of, and no longer."""

import asyncio
import contextlib
import sqlite3

import pytest
from sqlalchemy import text

from perf_middleware import cache_response
from tests.database.tracked.shop import WAYS, Shop, is_hit, serving


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/shop.db"


def run(main):
    asyncio.run(asyncio.wait_for(main, 60))


@pytest.mark.parametrize("way", WAYS)
def test_after_each_way_of_writing_the_next_read_is_new(url, way):
    async def main():
        async with serving(Shop(url)) as (shop,):
            assert (await shop.get("/books"))[0] == ["One", "Two"]
            body, status = await shop.get("/books")
            assert body == ["One", "Two"]
            assert is_hit(status)
            await shop.put(f"/books/1/{way}/New")
            assert (await shop.get("/books"))[0] == ["New", "Two"]
            assert is_hit((await shop.get("/books"))[1])

    run(main())


def test_the_very_first_answer_of_a_path_is_stored(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            assert (await shop.get("/books"))[1] == 'fwd=uri-miss; stored; detail="cache_response"'
            assert is_hit((await shop.get("/books"))[1])

    run(main())


def test_what_reads_other_tables_stays(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            for path in ("/books", "/authors"):
                await shop.get(path)
            await shop.put("/books/1/flush/New")
            assert is_hit((await shop.get("/authors"))[1])
            assert not is_hit((await shop.get("/books"))[1])

    run(main())


def test_what_was_rolled_back_purges_nothing(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            await shop.get("/books")
            await shop.get("/authors")
            await shop.put("/rolled-back")
            assert is_hit((await shop.get("/books"))[1])
            await shop.put("/savepoint")
            assert is_hit((await shop.get("/authors"))[1])
            assert (await shop.get("/books"))[0] == ["kept", "kept"]

    run(main())


def test_a_delete_that_cascades_is_seen_where_it_arrives(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            await shop.get("/books")
            assert (await shop.ask("/authors/1", method="DELETE")).status == 200
            assert (await shop.get("/books"))[0] == []

    run(main())


@pytest.mark.parametrize(
    ("path", "why"),
    [
        pytest.param("/nothing", "no-reads", id="nothing read"),
        pytest.param("/session", "no-reads", id="no table read"),
        pytest.param("/visits", "wrote", id="it has written"),
        pytest.param("/copy", "replica", id="from a replica"),
    ],
)
def test_what_nobody_could_purge_in_time_is_not_stored(url, path, why, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        copy.execute("create table books (id integer primary key, title text)")

    async def main():
        shop = Shop(url, database={"replica_url": f"sqlite:///{tmp_path}/copy.db"})
        async with serving(shop):
            for _ in range(2):
                assert why in (await shop.get(path))[1]
            assert shop.calls == [path, path]
            route = shop.perf.cache.figures.by_route[path]
            assert route.refused == {why: 2}

    run(main())


def test_clients_ask_each_time_and_mostly_get_a_304(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            first = await shop.ask("/books")
            assert first.header("cache-control") == "no-cache"
            hit = await shop.ask("/books")
            assert hit.header("cache-control") == "no-cache"
            etag = hit.header("etag")
            again = await shop.ask("/books", headers=[("if-none-match", etag)])
            assert again.status == 304
            assert shop.calls == ["/books"]
            await shop.put("/books/1/flush/New")
            changed = await shop.ask("/books", headers=[("if-none-match", etag)])
            assert changed.status == 200
            assert changed.json() == ["New", "Two"]
            assert (await shop.ask("/books")).header("etag") != etag

    run(main())


def test_head_is_answered_by_what_is_stored_and_stores_nothing(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            await shop.get("/books")
            assert is_hit((await shop.get("/books"))[1])
            head = await shop.ask("/books", method="HEAD")
            assert head.header("cache-status").startswith("perf_middleware; hit")
            await shop.put("/books/1/flush/New")
            head = await shop.ask("/books", method="HEAD")
            assert "hit" not in head.header("cache-status")
            assert (await shop.get("/books"))[0] == ["New", "Two"]

    run(main())


def test_an_answer_that_was_begun_before_a_commit_is_not_stored_after_it(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            reached, go_on = shop.hold("books read")
            old = asyncio.create_task(shop.get("/books"))
            await reached.wait()
            shop.gates.clear()
            await shop.put("/books/1/flush/New")
            go_on.set()
            assert (await old)[0] == ["One", "Two"]
            assert (await shop.get("/books"))[0] == ["New", "Two"]

    run(main())


def test_a_rule_of_the_settings_is_tracked_as_well(url):
    async def main():
        rules = [{"path": "/books", "tracked": True, "tell_clients": "max-age=1"}]
        async with serving(Shop(url, cache={"rules": rules})) as (shop,):
            assert (await shop.ask("/books")).header("cache-control") == "max-age=1"
            assert is_hit((await shop.get("/books"))[1])
            await shop.put("/books/1/raw/New")
            assert (await shop.get("/books"))[0] == ["New", "Two"]

    run(main())


def test_where_tracking_is_off_nothing_of_such_a_rule_is_stored(url, caplog):
    async def main():
        async with serving(Shop(url, tracking={"enabled": False})) as (shop,):
            for _ in range(2):
                assert "untracked" in (await shop.get("/books"))[1]
            assert "stores nothing" in caplog.text
            assert shop.perf.status()["tracking"]["active"] is False

    run(main())


def test_a_statement_that_is_not_understood_is_told_once_with_what_to_do(url, caplog):
    """A fixed bug: it purged everything at each request, and only a counter said so."""
    shop = Shop(url)

    @shop.app.get("/odd/{number}")
    @cache_response(tracked=True)
    async def odd(number: int) -> list[int]:
        async with shop.perf.database.session() as session:
            # One of SQLite's that nobody has vouched for.
            return list(await session.scalars(text(f"select likely({number}) from books")))

    async def main():
        async with serving(shop):
            for path in ("/books", "/odd/1", "/odd/2", "/odd/1", "/visits"):
                await shop.get(path)

    run(main())
    [line] = [line for line in caplog.messages if "not understood" in line]
    assert "PERFORMANCE_TRACKING_KNOWN_FUNCTIONS" in line
    assert line.lower().endswith(": select likely(?) from books")
