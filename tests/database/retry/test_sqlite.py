"""A SQLite file that another connection holds: busy, and then done."""

import asyncio
import sqlite3

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from perf_middleware.database.retry.settings import RetrySettings


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table counter (id integer primary key, value int)")
        connection.execute("insert into counter values (1, 0)")
    connection.close()
    return path


def engine_at(path):
    return create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 0})


def run(main):
    asyncio.run(asyncio.wait_for(main, 600))


def read(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("select value from counter").fetchone()[0]
    finally:
        connection.close()


async def count_up(session):
    await session.execute(text("update counter set value = value + 1"))


def retry_of(**settings):
    return RetrySettings(**{"first_s": 0.001, "most_s": 0.001, **settings}).make_retry()


def test_a_file_held_by_another_writer_is_waited_for(path):
    async def main():
        engine, retry = engine_at(path), retry_of()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        attempts = []

        async def unit(session):
            attempts.append(1)
            if len(attempts) == 3:
                other.execute("rollback")
            await count_up(session)

        await retry.run(unit, session=async_sessionmaker(engine))
        other.close()
        await engine.dispose()
        assert retry.status()["retries"] == {"busy": {"retried": 2}}
        assert read(path) == 1

    run(main())


def test_a_file_that_stays_held_says_so_after_the_last_attempt(path):
    async def main():
        engine, retry = engine_at(path), retry_of(attempts_max=3)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(OperationalError, match="locked"):
            await retry.run(count_up, session=async_sessionmaker(engine))
        other.execute("rollback")
        other.close()
        await engine.dispose()
        assert retry.status()["retries"] == {"busy": {"retried": 2, "attempts": 1}}

    run(main())


def test_a_snapshot_that_is_too_old_to_write_from_is_taken_anew(path):
    async def main():
        engine, retry = engine_at(path), retry_of()
        event.listen(
            engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("begin")
        )
        event.listen(
            engine.sync_engine, "connect",
            lambda connection, _: setattr(connection, "isolation_level", None),
        )  # fmt: skip
        attempts = []

        async def unit(session):
            value = await session.scalar(text("select value from counter"))
            attempts.append(value)
            if len(attempts) == 1:
                with sqlite3.connect(path) as other:
                    other.execute("update counter set value = 10")
                other.close()
            await session.execute(text("update counter set value = :v"), {"v": value + 1})

        await retry.run(unit, session=async_sessionmaker(engine))
        await engine.dispose()
        assert attempts == [0, 10]
        assert read(path) == 11
        assert retry.status()["retries"] == {"busy": {"retried": 1}}

    run(main())


def test_a_commit_that_finds_the_file_busy_is_not_of_unknown_outcome(path):
    async def main():
        connection = sqlite3.connect(path)
        connection.execute("pragma journal_mode = delete")
        connection.close()
        engine, retry = engine_at(path), retry_of()
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("begin")
        reader.execute("select * from counter").fetchall()  # its lock keeps a commit out
        attempts = []

        async def unit(session):
            attempts.append(1)
            if len(attempts) == 2:
                reader.execute("rollback")
            await count_up(session)

        await retry.run(unit, session=async_sessionmaker(engine))
        reader.close()
        await engine.dispose()
        assert read(path) == 1
        assert retry.status()["retries"] == {"busy": {"retried": 1}}

    run(main())


def test_a_constraint_is_no_reason_to_try_again(path):
    async def main():
        engine, retry = engine_at(path), retry_of()

        async def unit(session):
            await session.execute(text("insert into counter values (1, 1)"))

        with pytest.raises(IntegrityError):
            await retry.run(unit, session=async_sessionmaker(engine))
        await engine.dispose()
        assert retry.status()["retries"] == {}

    run(main())
