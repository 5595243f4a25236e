"""A database of its own: triggers on all its tables are nobody else's."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.database.real_postgres import postgres

NAME = "perf_outside"


@pytest.fixture(scope="session")
def database():
    """The URL of an empty database."""
    with postgres() as url:

        async def ask(statement):
            connection = await asyncpg.connect(url)
            await connection.execute(statement)
            await connection.close()

        asyncio.run(ask(f"drop database if exists {NAME} with (force)"))
        asyncio.run(ask(f"create database {NAME}"))
        yield urlsplit(url)._replace(path=f"/{NAME}").geturl()
        asyncio.run(ask(f"drop database {NAME} with (force)"))


@pytest.fixture
def run():
    def running(main):
        async def in_time():
            async with asyncio.timeout(120):
                await main

        asyncio.run(in_time())

    return running
