"""Snapshots that are older than a commit, writers that leave, purgers that fail."""

import asyncio
import contextlib

import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from tests.database.tracked.shop import Author, Book, Shop, core, is_hit, serving


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def postgres_shop(postgres):
    url = make_url(postgres).render_as_string(hide_password=False)
    return Shop(url, redis=None)


def run(main):
    asyncio.run(asyncio.wait_for(main, 60))


@contextlib.asynccontextmanager
async def older_session(shop, isolation):
    engine = shop.perf.database.engine().execution_options(isolation_level=isolation)
    async with AsyncSession(engine) as session:
        shop.session = session
        yield session
        await session.rollback()


def test_a_snapshot_that_is_older_than_a_commit_is_not_stored(postgres_shop):
    async def main():
        async with serving(postgres_shop) as (shop,):
            async with older_session(shop, "REPEATABLE READ") as session:
                await session.execute(select(Author))  # the snapshot is taken
                await shop.put("/books/1/flush/New")
                for _ in range(2):
                    body, status = await shop.get("/through")
                    assert body == ["One", "Two"]  # as it was when the session began
                    assert "hit" not in status
                assert shop.perf.cache.store.responses == 0
            async with older_session(shop, "REPEATABLE READ"):
                assert (await shop.get("/through"))[0] == ["New", "Two"]
                assert is_hit((await shop.get("/through"))[1])

    run(main())


def test_an_older_session_that_no_commit_has_passed_is_as_good_as_any(postgres_shop):
    async def main():
        async with serving(postgres_shop) as (shop,):
            await shop.put("/books/1/flush/New")
            async with older_session(shop, "REPEATABLE READ") as session:
                await session.execute(select(Author))
                await shop.get("/through")
                assert is_hit((await shop.get("/through"))[1])
                await shop.put("/books/1/flush/Newer")
                assert not is_hit((await shop.get("/through"))[1])

    run(main())


def test_what_was_read_behind_an_uncommitted_write_is_not_stored(postgres_shop):
    async def main():
        async with serving(postgres_shop) as (shop,):
            async with older_session(shop, "READ COMMITTED") as session:
                await session.execute(update(Book).values(title="mine"))
                body, status = await shop.get("/through")
                assert body == ["mine", "mine"]
                assert "wrote" in status
            assert (await shop.get("/books"))[0] == ["One", "Two"]

    run(main())


def test_a_delete_cascades_on_the_server_too(postgres_shop):
    async def main():
        async with serving(postgres_shop) as (shop,):
            await shop.get("/books")
            assert is_hit((await shop.get("/books"))[1])
            assert (await shop.ask("/authors/1", method="DELETE")).status == 200
            assert (await shop.get("/books"))[0] == []

    run(main())


class Held:
    """A purger that waits until it is let go."""

    def __init__(self):
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.purged = []

    async def __call__(self, tags):
        self.reached.set()
        await self.go_on.wait()
        self.purged.append(tags)


def test_a_writer_that_is_cancelled_leaves_and_its_purge_goes_on(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            await shop.get("/books")
            held = Held()
            shop.purges.add(held)

            async def write():
                async with AsyncSession(shop.perf.database.engine()) as session:
                    await core(session, "New")
                    await session.commit()

            writing = asyncio.create_task(write())
            await held.reached.wait()
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert shop.perf.cache.store.responses == 1
            held.go_on.set()
            await asyncio.gather(*shop.purges._running)
            assert len(held.purged) == 1
            assert shop.perf.cache.store.responses == 0
            assert (await shop.get("/books"))[0] == ["New", "Two"]

    run(main())


def test_a_commit_does_not_return_before_its_purge_holds(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            await shop.get("/books")
            held = Held()
            shop.purges.add(held)
            writing = asyncio.create_task(shop.put("/books/1/flush/New"))
            await held.reached.wait()
            await asyncio.sleep(0)
            assert not writing.done()
            held.go_on.set()
            await writing
            assert shop.perf.cache.store.responses == 0

    run(main())


def test_a_purger_that_fails_harms_neither_the_commit_nor_the_others(url, caplog):
    async def failing(tags):
        raise ZeroDivisionError

    async def main():
        async with serving(Shop(url)) as (shop,):
            await shop.get("/books")
            shop.purges.add(failing)
            await shop.put("/books/1/flush/New")
            assert (await shop.get("/books"))[0] == ["New", "Two"]
            assert shop.perf.status()["tracking"]["purges"]["failures"] == 1
            assert "the commit itself is done" in caplog.text

    run(main())
