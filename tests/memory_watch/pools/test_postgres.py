"""Connections of a real PostgreSQL: kept, reset, checked, and lost in the ways that happen.

The server is the one that `PERF_TEST_POSTGRES_URL` names, or one of the tests' own.
"""

import asyncio

import asyncpg
import pytest

from perf_middleware.errors import PoolTimeoutError
from perf_middleware.memory_watch.pools.runtime.async_pool import AsyncObjectPool
from tests.postgres_server import postgres_url


@pytest.fixture(scope="module")
def url():
    with postgres_url() as url:
        yield url


def pool_of(url, **options):
    given = {
        "size_max": 2,
        "reset": lambda connection: connection.reset(),
        "check": lambda connection: connection.fetchval("select 1"),
        "close": lambda connection: connection.close(),
        "check_after_idle_s": 0.0,
    }
    return AsyncObjectPool(lambda: asyncpg.connect(url), **{**given, **options})


def run(main):
    asyncio.run(asyncio.wait_for(main, 600))


def removed(pool):
    return {reason: count for reason, count in pool.status()["removed"].items() if count}


async def backend_of(connection):
    return await connection.fetchval("select pg_backend_pid()")


def test_a_connection_is_kept_and_what_was_set_on_it_is_not(url):
    async def main():
        async with pool_of(url, size_max=1) as pool:
            async with pool.lend() as connection:
                first = await backend_of(connection)
                await connection.execute("set statement_timeout = 1234")
            async with pool.lend() as connection:
                assert await backend_of(connection) == first
                assert await connection.fetchval("show statement_timeout") == "0"
            assert pool.status()["made"] == 1

    run(main())


def test_a_connection_whose_backend_was_killed_is_replaced(url):
    async def main():
        async with pool_of(url) as pool:
            async with pool.lend() as connection, pool.lend() as other:
                victim = await backend_of(connection)
                assert await other.fetchval("select pg_terminate_backend($1, 5000)", victim)
            # It was noticed when it came back, by its reset; the other one still is fine.
            assert removed(pool) == {"reset": 1}
            async with pool.lend() as one, pool.lend() as another:
                assert victim not in {await backend_of(one), await backend_of(another)}

    run(main())


def test_an_idle_connection_whose_backend_was_killed_is_noticed_by_its_check(url):
    async def main():
        admin = await asyncpg.connect(url)
        async with pool_of(url) as pool:
            async with pool.lend() as connection:
                victim = await backend_of(connection)
            assert await admin.fetchval("select pg_terminate_backend($1, 5000)", victim)
            async with pool.lend() as connection:
                assert await backend_of(connection) != victim
            assert (removed(pool), pool.status()["made"]) == ({"check": 1}, 2)
        await admin.close()

    run(main())


def test_a_query_that_is_cancelled_leaves_a_connection_that_works(url):
    async def main():
        async with pool_of(url, size_max=1) as pool:

            async def ask():
                async with pool.lend() as connection:
                    running.set_result(await backend_of(connection))
                    await connection.execute("begin")
                    await connection.fetchval("select pg_sleep(20)")

            for _ in range(3):
                running = asyncio.get_running_loop().create_future()
                task = asyncio.create_task(ask())
                await running
                await asyncio.sleep(0.02)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                async with pool.lend(timeout_s=10) as connection:
                    assert not connection.is_in_transaction()
                    assert await connection.fetchval("select 40 + 2") == 42
            assert (pool.status()["lent"], pool.status()["idle"]) == (0, 1)

    # An open transaction that is reset is told to the loop by asyncpg, as by its own pool.
    run(main())


def test_many_tasks_that_are_cancelled_at_random_never_hold_more_than_the_pool_may(url):
    async def main():
        admin = await asyncpg.connect(url, server_settings={"application_name": "admin"})
        pool = AsyncObjectPool(
            lambda: asyncpg.connect(url, server_settings={"application_name": "pooled"}),
            size_max=3, reset=lambda c: c.reset(), check=lambda c: c.fetchval("select 1"),
            close=lambda c: c.close(),
        )  # fmt: skip
        count = "select count(*) from pg_stat_activity where application_name = 'pooled'"
        most = 0

        async def ask(seconds):
            async with pool.lend():
                await asyncio.sleep(seconds)

        async with pool:
            for turn in range(15):
                tasks = [asyncio.create_task(ask(n / 2_000)) for n in range(12)]
                await asyncio.sleep(turn / 500)
                for task in tasks[turn % 3 :: 2]:
                    task.cancel()
                most = max(most, await admin.fetchval(count))
                await asyncio.gather(*tasks, return_exceptions=True)
            status = pool.status()
            assert (status["lent"], status["working"], status["waiting"]) == (0, 0, 0)
            assert await admin.fetchval(count) == status["idle"]
        assert 0 < most <= 3
        async with asyncio.timeout(5):
            while await admin.fetchval(count):  # a backend ends a moment after its connection
                await asyncio.sleep(0.01)
        await admin.close()

    run(main())


def test_a_server_that_is_not_there_is_told_to_who_asked():
    async def main():
        async with pool_of("postgresql://u@127.0.0.1:1/none") as pool:
            with pytest.raises(OSError, match=r"127\.0\.0\.1"):
                await pool.acquire()
            assert pool.status()["working"] == 0

    run(main())


def test_a_server_that_does_not_answer_is_given_up_in_time():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async def main():
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with pool_of(f"postgresql://u@127.0.0.1:{port}/none") as pool:
            with pytest.raises(PoolTimeoutError, match="create took"):
                await pool.acquire(timeout_s=0.05)
            assert pool.status()["working"] == 0
        server.close()
        await server.wait_closed()

    run(main())
