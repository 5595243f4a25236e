"""`tracking.rows` in an installed app: answers, queries, races and other processes."""

import asyncio

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from tests.database.tracked.shop import WAYS, Book, Shop, is_hit, serving

ROWS = {"rows": ["books"]}
PATHS = ("/books/1", "/books/2", "/books")


def run(main):
    asyncio.run(asyncio.wait_for(main, 120))


async def hits(shop):
    """Which of the answers are still there; all are, once this has returned."""
    return [path for path in PATHS if is_hit((await shop.get(path))[1])]


def test_a_write_of_one_row_leaves_the_answers_of_others(tmp_path):
    async def main():
        async with serving(Shop(f"sqlite:///{tmp_path}/shop.db", tracking=ROWS)) as (shop,):
            await hits(shop)
            (kept,) = shop.perf.cache.store.of_tag("db:r:books@#1")
            assert kept.dependencies == (
                "db:any", "db:r:books", "db:r:books#1", "db:r:books@", "db:r:books@#1",
            )  # fmt: skip
            for way in WAYS:
                assert await hits(shop) == list(PATHS)
                await shop.put(f"/books/1/{way}/by-{way}")
                assert (await shop.get("/books/1"))[0] == f"by-{way}"
                # Text is a write of any row.
                others = [] if way == "raw" else ["/books/2"]
                assert [path for path in await hits(shop) if path != "/books/1"] == others
                assert (await shop.get("/books"))[0] == [f"by-{way}", "Two"]
            await shop.put("/savepoint")
            assert await hits(shop) == []

    run(main())


def test_without_the_setting_a_write_of_one_row_is_one_of_its_table(tmp_path):
    async def main():
        async with serving(Shop(f"sqlite:///{tmp_path}/shop.db")) as (shop,):
            await hits(shop)
            await shop.put("/books/1/flush/New")
            assert await hits(shop) == []

    run(main())


def test_a_query_by_key_is_kept_until_its_row_is_written(tmp_path):
    async def main():
        async with serving(Shop(f"sqlite:///{tmp_path}/shop.db", tracking=ROWS)) as (shop,):
            database = shop.perf.database

            async def ask(key):
                async with database.session() as session:
                    found = await database.queries.execute(
                        session, select(Book.title).where(Book.id == key)
                    )
                    return found.scalars().all()

            async def add(**values):
                async with database.session() as session:
                    session.add(Book(**values))

            # That there is none is kept as well.
            assert [await ask(key) for key in (1, 2, 3)] == [["One"], ["Two"], []]
            await shop.put("/books/1/core/New")
            await add(title="Three")
            assert [await ask(key) for key in (1, 2, 3)] == [["New"], ["Two"], ["Three"]]
            assert database.queries.status()["hits"] == 1  # the second: nobody has written it

    run(main())


@pytest.mark.parametrize(("written", "is_stored"), [(1, False), (2, True)])
def test_an_answer_that_was_read_before_its_row_was_written_is_not_stored(
    postgres, written, is_stored
):
    url = make_url(postgres).render_as_string(hide_password=False)

    async def main():
        async with serving(Shop(url, tracking=ROWS)) as (shop,):
            reached, go_on = shop.hold("book read")
            asking = asyncio.ensure_future(shop.get("/books/1"))
            await reached.wait()
            async with shop.perf.database.session() as session:
                (await session.get_one(Book, written)).title = "New"
            go_on.set()
            assert (await asking)[0] == "One"
            shop.gates.clear()
            body, status = await shop.get("/books/1")
            assert is_hit(status) is is_stored
            assert body == ("One" if is_stored else "New")

    run(main())


def test_another_process_forgets_the_row_and_keeps_the_others(tmp_path, redis_url):
    url = f"sqlite:///{tmp_path}/shop.db"

    async def main():
        # The third tells no rows apart: what it writes is a write of any.
        shops = [Shop(url, redis=redis_url, tracking=ROWS) for _ in range(2)]
        shops.append(Shop(url, redis=redis_url))
        async with serving(*shops) as (one, other, whole):
            for path in PATHS * 2:
                await other.get(path)
            assert await hits(other) == list(PATHS)
            await one.put("/books/1/flush/New")
            assert (await other.get("/books/1"))[0] == "New"
            assert is_hit((await other.get("/books/2"))[1])
            assert (await other.get("/books"))[0] == ["New", "Two"]
            await other.get("/books/2")
            await whole.put("/books/1/flush/Newer")
            assert (await other.get("/books/1"))[0] == "Newer"
            assert not is_hit((await other.get("/books/2"))[1])

    run(main())
