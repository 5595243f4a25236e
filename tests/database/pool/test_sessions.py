"""Sessions of an SQLite database: commit, rollback, and a connection that always comes back."""

import asyncio
import gc
import random
import sqlite3
import threading
import time
from contextlib import asynccontextmanager

import anyio
import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, OperationalError
from starlette.testclient import TestClient

from perf_middleware.database.runtime.sessions import run_to_the_end
from perf_middleware.database.runtime.sqlite import SqliteOpening
from perf_middleware.database.settings import DatabaseSettings
from perf_middleware.errors import DatabaseUnavailableError
from tests.database.tasks import Tasks


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/app.db"


async def make_table(database, name=None):
    async with database.session(name) as session:
        await session.execute(text("create table items (id integer primary key)"))


async def insert(session, number):
    await session.execute(text("insert into items values (:id)"), {"id": number})


async def numbers(database, name=None):
    async with database.session(name) as session:
        return list((await session.execute(text("select id from items order by id"))).scalars())


def test_a_block_that_ends_well_is_committed_and_one_that_raises_is_not(opened, run, url):
    async def main():
        async with opened(url) as database:
            await make_table(database)
            async with database.session() as session:
                await insert(session, 1)

            async def fail(number, error):
                async with database.session() as session:
                    await insert(session, 2)
                    await insert(session, number)
                    raise error

            with pytest.raises(ZeroDivisionError):
                await fail(3, ZeroDivisionError())
            with pytest.raises(IntegrityError):
                await fail(1, None)
            assert await numbers(database) == [1]
            assert database.status()["main"]["lent"] == 0

    run(main())


def wait_for_threads(count):
    """Until no more than `count` are left: a thread ends a moment after its last step."""
    until = time.monotonic() + 60
    while threading.active_count() > count:
        assert time.monotonic() < until, threading.enumerate()
        time.sleep(0.01)


def figure(database, name):
    [family] = [f for f in database.families() if f.name == f"perf_database_pool_{name}"]
    [point] = family.points
    return point.value


def test_a_session_that_says_nothing_takes_no_connection(opened, run, url):
    async def main():
        async with opened(url) as database:
            before = figure(database, "loans")
            async with database.session():
                assert database.engine().pool.checkedout() == 0
            assert figure(database, "loans") == before
            await database.ping()
            assert figure(database, "loans") != before

    run(main())


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_session_whose_block_is_over_refuses_to_be_used(opened, run, url, ends_well):
    """A fixed bug: what a background task wrote in it was lost in silence, and its connection
    came back when the garbage collector found it.
    """

    async def main():
        async with opened(url) as database:
            await make_table(database)
            try:
                async with database.session() as session:
                    await insert(session, 1)
                    await session.close()  # within its block it may be used again
                    await insert(session, 2)
                    assert ends_well
            except AssertionError:
                pass
            with pytest.raises(InvalidRequestError, match="permanently closed"):
                await insert(session, 3)
            assert database.engine().pool.checkedout() == 0
            assert await numbers(database) == ([2] if ends_well else [])

    run(main())


def test_connections_are_as_the_settings_say(opened, run, url):
    async def main():
        async with opened(url, sqlite_busy_s=2) as database, database.session() as session:
            for pragma, value in (("journal_mode", "wal"), ("busy_timeout", 2000),
                                  ("foreign_keys", 1), ("synchronous", 1)):  # fmt: skip
                assert (await session.execute(text(f"pragma {pragma}"))).scalar_one() == value

    run(main())


def test_a_database_in_memory_is_one_for_all_sessions_and_outlives_a_cancelled_one(opened, run):
    async def main():
        async with opened("sqlite://") as database, opened("sqlite://") as other:
            await make_table(database)
            async with database.session() as session:
                await insert(session, 1)

            written = asyncio.Event()

            async def hold():
                async with database.session() as session:
                    await insert(session, 2)
                    written.set()
                    await asyncio.sleep(300)

            task = asyncio.create_task(hold())
            await written.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await numbers(database) == [1]
            with pytest.raises(OperationalError, match="no such table"):
                await numbers(other)

    run(main())


def test_databases_have_names_and_a_copy_is_not_written(opened, run, url, tmp_path):
    async def main():
        more = {"replica_url": url, "databases": {"old": f"sqlite:///{tmp_path}/old.db"}}
        async with opened(url, **more) as database:
            await make_table(database)
            await make_table(database, "old")
            async with database.session("old") as session:
                await insert(session, 7)
            assert (await numbers(database, "replica"), await numbers(database, "old")) == ([], [7])
            with pytest.raises(OperationalError, match="readonly"):
                async with database.session("replica") as session:
                    await insert(session, 1)
            with pytest.raises(ValueError, match="only main, old, replica"):
                database.session("new")
            assert await database.ping("old") < 60

    run(main())


def test_where_there_is_no_copy_the_main_database_is_read(opened, run, url):
    async def main():
        async with opened(url) as database:
            assert database.engine("replica") is database.engine()

    run(main())


def test_before_and_after_it_is_open_a_session_says_so(opened, run, url):
    async def main():
        async with opened(url) as database:
            assert database.status()["main"]["answers"]
        with pytest.raises(RuntimeError, match="is not open"):
            database.session()

    run(main())


def test_a_database_that_cannot_be_opened_is_told_in_one_sentence(opened, run, tmp_path):
    async def main():
        async with opened(f"sqlite:///{tmp_path}/none/app.db"):
            pass

    with pytest.raises(
        DatabaseUnavailableError, match=r"app\.db\) does not answer: unable to open"
    ):
        run(main())


def test_a_database_that_was_away_at_the_start_is_found_when_it_comes(run, tmp_path, monkeypatch):
    monkeypatch.setattr("perf_middleware.database.runtime.LOOK_S", 0.01)
    monkeypatch.setattr("perf_middleware.database.runtime.answering.TRY_AGAIN_S", 0)

    async def main():
        database = DatabaseSettings(
            url=f"sqlite:///{tmp_path}/later/app.db", required=False
        ).make_database()
        told = []
        database.on_change = lambda is_up, why: told.append((is_up, why))
        tasks = Tasks()
        with pytest.raises(DatabaseUnavailableError):
            await database.open(tasks)
        assert not database.status()["main"]["answers"]
        with pytest.raises(DatabaseUnavailableError) as caught:
            await make_table(database)
        assert isinstance(caught.value.__cause__, OperationalError)
        (tmp_path / "later").mkdir()
        await make_table(database)  # what an app uses does not wait for our look
        while not told:
            await asyncio.sleep(0.01)
        assert (database.status()["main"]["answers"], told) == (True, [(True, "")])
        await database.close()
        await tasks.stop()

    run(main())


@pytest.mark.parametrize("scope", ["function", "request"])
def test_a_session_is_a_dependency_of_fastapi(opened, url, scope):
    database = DatabaseSettings(url=url).make_database()

    @asynccontextmanager
    async def lifespan(_app):
        async with opened(database):
            await make_table(database)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/items/{number}")
    async def add(number: int, session=Depends(database.session, scope=scope)):  # noqa: B008
        await insert(session, number)
        if number > 9:
            raise HTTPException(422)
        return {}

    @app.get("/items")
    async def read(session=Depends(database.session_of("main"))):  # noqa: B008
        return list((await session.execute(text("select id from items"))).scalars())

    with TestClient(app) as client:
        assert client.post("/items/1").status_code == 200
        assert client.post("/items/10").status_code == 422
        assert client.get("/items").json() == [1]
        assert database.engine().pool.checkedout() == 0
    assert "session" not in str(app.openapi())


def test_a_connection_that_is_given_up_keeps_no_lock_whoever_has_a_cursor_of_it(opened, run, url):
    """Fixed bug: a traceback had one until garbage was collected, and all who wrote waited."""

    async def main():
        async with opened(url, sqlite_busy_s=0.1) as database:
            await make_table(database)
            async with database.engine().connect() as connection:
                raw = (await connection.get_raw_connection()).dbapi_connection
                driver = raw.driver_connection
                cursor = await driver.execute("select 1 union all select 2")
                await cursor.fetchone()
                await driver.execute("insert into items values (1)")
                await connection.invalidate()
            async with database.session() as session:
                await insert(session, 2)
            assert await numbers(database) == [2]
            assert cursor is not None

    run(main())


@pytest.mark.parametrize("way", ["task", "scope"])
def test_ten_thousand_cancellations_leave_a_full_pool(opened, run, url, way, caplog):
    """Half of them by asyncio, once each; half by anyio, whose every await is cancelled again.

    Most come after a number of turns, wherever that is; every fifth while the database is asked.
    """
    many, at_once, every = 5_000, 25, 5
    before = threading.active_count()

    async def main():
        rng = random.Random(8)
        cancelled = amid = 0

        async def work(database, scope, number):
            nonlocal amid, cancelled
            try:
                with scope:
                    async with database.session() as session:
                        await session.execute(text("select count(*) from items"))
                        if rng.random() < 0.05:
                            await insert(session, rng.randrange(1 << 40))
                        await asyncio.sleep(0)
                        if number % every == 0:
                            # Its thread cannot answer before this: the answer is called in later.
                            asyncio.get_running_loop().call_soon(end, scope, asyncio.current_task())
                            amid += 1
                        await session.execute(text("select 1"))
                    return
            except asyncio.CancelledError:
                cancelled += 1
                raise
            finally:
                cancelled += scope.cancelled_caught

        def end(scope, task):
            scope.cancel() if way == "scope" else task.cancel()

        async def end_sometime(scope, task, number):
            if number % every:
                for _ in range(rng.randrange(60)):
                    await asyncio.sleep(0)
                end(scope, task)

        patient = {"sqlite_busy_s": 300, "pool_wait_s": 300}
        async with opened(
            url, pool_size=3, pool_overflow_max=2, held_s_told=None, **patient
        ) as database:
            await make_table(database)
            while cancelled < many:
                scopes = [anyio.CancelScope() for _ in range(at_once)]
                tasks = [
                    asyncio.create_task(work(database, scope, number))
                    for number, scope in enumerate(scopes)
                ]
                await asyncio.gather(*map(end_sometime, scopes, tasks, range(at_once)))
                found = await asyncio.gather(*tasks, return_exceptions=True)
                # Whoever waits for SQLite's one writer may do so in vain: no matter of the pool.
                errors = [e for e in found if isinstance(e, Exception) and "locked" not in str(e)]
                assert errors == []
            pool = database.engine().pool
            now = database.status()["main"]
            assert (pool.checkedout(), now["lent"], now["waiting"]) == (0, 0, 0)
            # Those that were lost are made anew when they are asked for.
            assert pool.checkedin() <= 3
            assert pool.overflow() <= 0
            # Who is amid a statement loses the connection with it.
            assert amid >= many // every
            assert figure(database, "connections_made") >= amid
            # All of them are to be had at once, and nobody has left a lock.
            blocks = [database.session() for _ in range(5)]
            sessions = [await block.__aenter__() for block in blocks]
            for session in sessions:
                await session.execute(text("select 1"))
            await insert(sessions[0], -1)
            for block in blocks:
                await block.__aexit__(None, None, None)
            assert -1 in await numbers(database)

    run(main())
    gc.collect()
    wait_for_threads(before)  # aiosqlite has one for each connection
    assert caplog.text == ""  # and no task was left behind, which asyncio would tell


def test_a_connection_that_did_nothing_when_its_request_was_cancelled_is_kept(opened, run, url):
    """anyio cancels every await of such a scope: a rollback within it would be cut off as well."""

    async def main():
        async with opened(url) as database:
            await make_table(database)
            made = figure(database, "connections_made")
            with anyio.CancelScope() as scope:
                async with database.session() as session:
                    await insert(session, 1)
                    scope.cancel()
                    await anyio.sleep(1)
            assert scope.cancelled_caught
            assert (await numbers(database), figure(database, "connections_made")) == ([], made)

    run(main())


def test_a_commit_that_has_begun_is_done_though_its_request_is_cancelled(opened, run, url):
    async def main():
        async with opened(url) as database:
            await make_table(database)
            made = figure(database, "connections_made")
            with anyio.CancelScope() as scope:
                async with database.session() as session:
                    await insert(session, 1)
                    scope.cancel()  # the next await is that of the commit
            assert scope.cancelled_caught
            assert (await numbers(database), figure(database, "connections_made")) == ([1], made)

    run(main())


def test_what_is_run_to_the_end_ends_though_its_caller_is_cancelled(run):
    async def main():
        done = []

        async def work():
            await asyncio.sleep(0.05)
            done.append("done")

        async def call():
            await run_to_the_end(work(), within_s=300, from_now=False, leaving=set())

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.001)
        with pytest.raises(asyncio.CancelledError):
            await task
        with anyio.CancelScope() as scope:
            scope.cancel()
            await call()
        assert (done, scope.cancelled_caught) == (["done", "done"], True)

    run(main())


def test_a_long_commit_of_a_request_that_lasts_is_not_given_up(run):
    async def main():
        work = asyncio.sleep(0.05)
        await run_to_the_end(work, within_s=0.01, from_now=False, leaving=set())

    run(main())


def test_a_file_whose_opening_is_cancelled_is_closed(run, tmp_path):
    noted = []

    class Noted(sqlite3.Connection):
        def __init__(self, *given, **named):
            noted.append("opened")
            super().__init__(*given, **named)

        def close(self):
            noted.append("closed")
            super().close()

    async def main():
        opening = SqliteOpening()
        for _ in range(20):
            task = asyncio.create_task(opening.connect(tmp_path / "app.db", factory=Noted))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await opening.finish(within_s=300)
        assert (noted.count("opened"), noted.count("closed")) == (20, 20)

    before = threading.active_count()
    run(main())
    wait_for_threads(before)


def test_a_file_that_is_not_closed_in_time_is_waited_for_no_longer(run):
    async def main():
        opening = SqliteOpening()
        closing = asyncio.create_task(asyncio.Event().wait())
        opening._closing.add(closing)
        await opening.finish(within_s=0.01)
        assert not closing.done()
        closing.cancel()

    run(main())


def test_what_does_not_end_is_given_up(run):
    async def main():
        leaving = set()
        with pytest.raises(TimeoutError, match="given up"):
            await run_to_the_end(asyncio.sleep(30), within_s=0.01, from_now=True, leaving=leaving)
        assert leaving == set()

    run(main())
