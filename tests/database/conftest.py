"""What the tests of the database share: a PostgreSQL, and databases that are open."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from perf_middleware.database.settings import DatabaseSettings
from tests.database.tasks import Tasks
from tests.postgres_server import postgres_url


@pytest.fixture(scope="session")
def postgres():
    with postgres_url() as url:
        yield url


@pytest.fixture
def opened():
    """`async with opened(url, …settings…, route_of=…) as database`, or of a database."""

    @asynccontextmanager
    async def opening(url, *, route_of=None, remaining_us=None, clock=None, **settings):
        database = url
        if isinstance(url, str):
            # Nobody waits in vain because the machine is slow, unless that is what is tested.
            section = DatabaseSettings(url=url, **({"pool_wait_s": 300} | settings))
            database = section.make_database(
                route_of=route_of, remaining_us=remaining_us, clock=clock
            )
        tasks = Tasks()
        try:
            await database.open(tasks)
            yield database
        finally:
            await database.close()
            await tasks.stop()

    return opening


@pytest.fixture
def run():
    def running(main):
        return asyncio.run(asyncio.wait_for(main, 600))

    return running
