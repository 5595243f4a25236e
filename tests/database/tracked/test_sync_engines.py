"""Sync engines: in the threads of sync endpoints, and on the event loop's own thread."""

import asyncio
import threading

import pytest
from sqlalchemy import create_engine, update

from tests.database.tracked.shop import Book, Shop, is_hit, serving


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shop.db"


def run(main):
    asyncio.run(asyncio.wait_for(main, 60))


def with_sync_engine(path, **options):
    shop = Shop(f"sqlite:///{path}", **options)
    shop.sync_engine = create_engine(f"sqlite:///{path}")
    shop.perf.database.watch(shop.sync_engine, name="sync")
    return shop


@pytest.mark.parametrize("how", ["threaded", "blocking"])
def test_what_a_sync_engine_writes_is_read_new(path, how):
    async def main():
        async with serving(with_sync_engine(path)) as (shop,):
            for page in ("/threaded", "/books"):
                await shop.get(page)
                assert is_hit((await shop.get(page))[1])
            await shop.put(f"/{how}/New")
            for page in ("/threaded", "/books"):
                assert (await shop.get(page))[0] == ["New", "Two"]
            await shop.put("/books/1/flush/Newer")
            assert (await shop.get("/threaded"))[0] == ["Newer", "Two"]
            shop.sync_engine.dispose()

    run(main())


@pytest.mark.parametrize("how", ["threaded", "blocking"])
def test_other_processes_have_heard_when_the_writer_has_its_answer(path, how, redis_url, request):
    async def main():
        service = f"sync-{how}"
        one = with_sync_engine(path, redis=redis_url, service=service)
        other = Shop(f"sqlite:///{path}", redis=redis_url, service=service)
        async with serving(one, other), asyncio.timeout(120):
            while not is_hit((await other.get("/books"))[1]):
                await asyncio.sleep(0.01)
            for number in range(3):
                await one.put(f"/{how}/{number}")
                assert (await other.get("/books"))[0] == [str(number), "Two"]
            one.sync_engine.dispose()

    run(main())


def test_a_commit_on_the_loop_outside_of_a_request_is_told_once(path, caplog):
    async def main():
        async with serving(with_sync_engine(path)) as (shop,):
            await shop.get("/books")
            for _ in range(2):
                with shop.sync_engine.begin() as connection:
                    connection.execute(update(Book).values(title="New"))
                assert shop.perf.cache.store.responses == 0  # at once
            await shop.purges.settle()
            assert caplog.text.count("cannot wait") == 1
            shop.sync_engine.dispose()

    run(main())


def test_a_thread_that_the_loop_waits_for_is_not_waited_for_in_return(path, caplog):
    async def main():
        async with serving(with_sync_engine(path)) as (shop,):
            shop.purges._thread_waits_s = 0.05

            def write():
                with shop.sync_engine.begin() as connection:
                    connection.execute(update(Book).values(title="New"))

            await shop.get("/books")
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()  # the loop stands still
            assert "purged later" in caplog.text
            async with asyncio.timeout(120):
                while shop.perf.cache.store.responses:
                    await asyncio.sleep(0.001)
            assert (await shop.get("/books"))[0] == ["New", "New"]
            shop.sync_engine.dispose()

    run(main())


def test_without_a_loop_memory_is_purged_where_the_commit_was(path):
    shop = with_sync_engine(path)

    async def main():
        async with serving(shop):
            await shop.get("/books")

    run(main())
    assert shop.perf.cache.store.responses == 1
    with shop.sync_engine.begin() as connection:
        connection.execute(update(Book).values(title="New"))
    assert shop.perf.cache.store.responses == 0
    shop.sync_engine.dispose()
