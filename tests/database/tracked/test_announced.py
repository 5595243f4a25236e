"""Commits are announced before they are done: what follows them is done by others if need be."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import select, update
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.util import await_only

from perf_middleware.errors import UnannouncedWriteError
from tests.database.linearizability.service import connected
from tests.database.tracked.shop import WAYS, Book, Shop, prepare, serving
from tests.database.tracked.test_sync_engines import with_sync_engine
from tests.database.tracked.test_tracked_fleet import stored, until
from tests.examples.servers import ROOT
from tests.fleet.proxy import Proxy
from tests.fleet.servers import RedisServer

BOUND_S = 120.0  # only what hangs takes so long


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def at_commit(monkeypatch):
    """What is done right after COMMIT, or in its place: `at_commit.append(do)`, for one commit."""
    waiting = []
    commit = SQLiteDialect_aiosqlite.do_commit

    def do_commit(dialect, connection):
        if waiting:
            await_only(waiting.pop()())
        return commit(dialect, connection)

    monkeypatch.setattr(SQLiteDialect_aiosqlite, "do_commit", do_commit)
    return waiting


def run(main):
    asyncio.run(asyncio.wait_for(main, BOUND_S))


def announced(shop):
    return shop.perf.cache.shared._fleet._hearers.announcements


async def members(shop):
    link = shop.perf.cache.shared._fleet.link
    return await link.command("ZCARD", announced(shop).key)


async def up(shop):
    await until(lambda: shop.perf.cache.shared.is_up)


async def write(shop, title, way="core"):
    async with shop.perf.database.session() as session:
        await WAYS[way](session, title)


async def title(shop):
    async with shop.perf.database.session() as session:
        return await session.scalar(select(Book.title).where(Book.id == 1))


def test_a_commit_is_announced_before_it_is_done_and_lifted_before_it_returns(
    url, redis_url, at_commit
):
    async def main():
        async with serving(Shop(url, redis=redis_url, redis_timeout_s=10, service="announced")) as (
            shop,
        ):
            await stored(shop, "/books")
            seen = []

            async def look():
                seen.append(await members(shop))

            for way in WAYS:
                at_commit.append(look)
                await write(shop, f"by {way}", way)
                assert await members(shop) == 0
            assert seen == [1] * len(WAYS)
            assert announced(shop)._open == {}
            seen.clear()
            at_commit.append(look)
            await title(shop)  # reads only
            assert seen in ([0], [])
            at_commit.clear()

    run(main())


def test_what_was_not_committed_is_taken_back(url, redis_url, at_commit):
    async def main():
        async with serving(
            Shop(url, redis=redis_url, redis_timeout_s=10, service="taken-back")
        ) as (shop,):
            await stored(shop, "/books")

            async def busy():
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error

            rounds = shop.purges.rounds
            at_commit.append(busy)
            with pytest.raises(OperationalError):
                await write(shop, "never")
            await until(lambda: not announced(shop)._open)
            async with asyncio.timeout(BOUND_S):
                while await members(shop):
                    await asyncio.sleep(0.01)
            assert shop.purges.rounds == rounds
            assert (await shop.get("/books"))[0] == ["One", "Two"]

    run(main())


def test_what_may_be_committed_later_stays_announced(url, redis_url, at_commit):
    async def main():
        async with serving(Shop(url, redis=redis_url, redis_timeout_s=10, service="open")) as (
            shop,
        ):
            await stored(shop, "/books")

            async def lost():
                raise sqlite3.OperationalError("disk I/O error")

            rounds = shop.purges.rounds
            at_commit.append(lost)
            with pytest.raises(OperationalError):
                await write(shop, "perhaps")
            assert shop.purges.rounds == rounds + 1
            assert await members(shop) == 1
            assert announced(shop)._open == {}

    run(main())


def test_who_refuses_writes_nothing_that_cannot_be_announced(url, tmp_path):
    server = RedisServer(tmp_path / "own").start()

    async def main():
        strict = Shop(
            url, redis=server.url, redis_timeout_s=10, service="refuse",
            tracking={"refuse_unannounced": True},
        )  # fmt: skip
        async with serving(strict, fresh=False) as (shop,):
            await up(shop)
            await prepare(shop)
            await stored(shop, "/books")
            await shop.put("/books/1/flush/Announced")
            server.kill()
            answer = await shop.ask("/books/1/flush/Never", method="PUT")
            assert answer.status == 503
            assert answer.header("retry-after")
            assert await title(shop) == "Announced"
            with pytest.raises(UnannouncedWriteError, match="cannot be told"):
                await write(shop, "Never")
            assert await title(shop) == "Announced"
            async with shop.perf.database.engine().connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                with pytest.raises(UnannouncedWriteError):
                    await connection.execute(update(Book).values(title="Never"))
            assert await title(shop) == "Announced"
            assert shop.perf.status()["tracking"]["unannounced"] == 3
            server.start()
            await up(shop)
            await shop.put("/books/1/flush/Later")
            assert await title(shop) == "Later"

    try:
        run(main())
    finally:
        server.stop()


def test_a_sync_engine_announces_from_a_thread_and_cannot_on_the_loop(tmp_path, redis_url):
    async def main():
        one = with_sync_engine(
            tmp_path / "shop.db", redis=redis_url, redis_timeout_s=10, service="sync-announced",
            tracking={"refuse_unannounced": True},
        )  # fmt: skip
        async with serving(one, fresh=False) as (shop,):
            await up(shop)
            await prepare(shop)
            await stored(shop, "/threaded")
            assert (await shop.ask("/threaded/New", method="PUT")).status == 200
            assert (await shop.get("/threaded"))[0] == ["New", "Two"]
            assert (await shop.ask("/blocking/Never", method="PUT")).status == 503
            assert await title(shop) == "New"
            shop.sync_engine.dispose()

    run(main())


def test_what_a_writer_has_committed_that_is_cut_off_then_is_old_nowhere_when_it_returns(
    url, redis_url, at_commit
):
    async def main():
        port = urlsplit(redis_url).port
        proxy = Proxy(port)
        async with proxy:
            near = Shop(url, redis=redis_url, redis_timeout_s=10, service="cut")
            cut = Shop(
                url, redis=f"redis://127.0.0.1:{proxy.port}/0", redis_timeout_s=10, service="cut"
            )
            async with serving(near, cut):
                for shop in (near, cut):
                    await stored(shop, "/books")

                async def cut_off():
                    proxy._server.close()
                    proxy.cut()
                    await until(lambda: not cut.perf.cache.shared.is_up)

                at_commit.append(cut_off)
                await write(cut, "New")
                assert not cut.perf.cache.shared.is_up  # nobody heard it from this one
                body, _ = await near.get("/books")
                assert body == ["New", "Two"]
                assert announced(near).purged_for_others >= 1

    run(main())


WRITER = """
import asyncio, os, signal, sys
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

dies = False

def do_commit(dialect, connection):
    connection.commit()
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)

PGDialect_asyncpg.do_commit = do_commit

from tests.database.tracked.shop import WAYS, Shop, serving

async def main(url, redis, service):
    global dies
    shop = Shop(
        url, redis=redis, redis_timeout_s=10, service=service, tracking={"enabled": True}
    )
    async with serving(shop, fresh=False), asyncio.timeout(120):
        while not shop.perf.cache.shared.is_up:
            await asyncio.sleep(0.01)
        async with shop.perf.database.session() as session:
            await WAYS["core"](session, "of the dead")
            dies = True

asyncio.run(main(*sys.argv[1:]))
"""


def test_what_a_writer_has_committed_that_is_killed_then_is_soon_old_nowhere(postgres, redis_url):
    """Answers are kept for a day: only a purge can make it new."""

    async def killed(*words):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, *words, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, said = await writer.communicate()
        assert writer.returncode == -signal.SIGKILL, said.decode()

    async def main():
        name = f"killed_{uuid.uuid4().hex[:12]}"
        own_url = urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))
        async with connected(postgres) as connection:
            await connection.execute(f"CREATE DATABASE {name}")
        try:
            async with serving(Shop(own_url, redis=redis_url, service="killed")) as (shop,):
                await stored(shop, "/books")
                await killed(own_url, redis_url, "killed")
                assert await title(shop) == "of the dead"
                async with asyncio.timeout(BOUND_S):
                    while (await shop.get("/books"))[0] != ["of the dead", "Two"]:
                        await asyncio.sleep(0.05)
                assert announced(shop).purged_for_others >= 1
                await stored(shop, "/books")
        finally:
            async with connected(postgres) as connection:
                await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    run(main())
