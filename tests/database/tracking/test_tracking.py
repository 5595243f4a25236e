"""Written tables are handed over once, after the commit, and never for what was taken back."""

import asyncio
import contextlib
import sqlite3

import pytest
from sqlalchemy import event, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from perf_middleware.database.tables.drivers.compiled import StatementTables
from perf_middleware.database.tables.touched import ALL_TABLES, AllTables
from perf_middleware.database.tracking.runtime import Tracking, collecting_reads
from tests.database.real_postgres import postgres


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "tracked_users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Post(Base):
    __tablename__ = "tracked_posts"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(scope="module")
def postgres_url():
    with postgres() as url:
        yield make_url(url).set(drivername="postgresql+asyncpg")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return make_url(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    return request.getfixturevalue("postgres_url")


class Tracked:
    def __init__(self, engine):
        self.engine = engine
        self.told = []
        self.session = async_sessionmaker(engine)
        self.tracking = Tracking(self.note)
        self.tracking.watch(engine.sync_engine, StatementTables(engine.dialect))

    def note(self, tables):
        if isinstance(tables, AllTables):
            self.told.append("all")
        else:
            self.told.append(" ".join(sorted(t.name.removeprefix("tracked_") for t in tables)))


@contextlib.asynccontextmanager
async def tracked_at(url, **options):
    engine = create_async_engine(url, **options)
    if engine.dialect.name == "sqlite":  # the driver's own BEGIN comes too late for savepoints
        event.listen(
            engine.sync_engine, "connect", lambda c, _: setattr(c, "isolation_level", None)
        )
        event.listen(engine.sync_engine, "begin", lambda c: c.exec_driver_sql("begin"))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    try:
        yield Tracked(engine)
    finally:
        await engine.dispose()


def run(main):
    asyncio.run(asyncio.wait_for(main, 600))


def test_each_way_of_writing_is_told_after_its_commit(url):
    async def main():
        async with tracked_at(url) as tracked:
            async with tracked.session() as session:
                session.add(User(id=1))
                await session.flush()
                session.add(Post(id=1))
                assert tracked.told == []
                await session.commit()
                assert tracked.told == ["posts users"]
                (await session.get_one(User, 1)).name = "new"
                await session.commit()
                await session.execute(insert(Post), [{"id": 2}, {"id": 3}])
                await session.commit()
                await session.execute(update(User).values(name="x"))
                await session.commit()
                await session.execute(text("delete from tracked_posts"))
                await session.commit()
                await session.execute(select(User))
                await session.commit()
            assert tracked.told == ["posts users", "users", "posts", "users", "posts"]
            async with tracked.engine.begin() as connection:
                await connection.exec_driver_sql("insert into tracked_posts values (9)")
            assert tracked.told[5:] == ["posts"]

    run(main())


def test_what_was_rolled_back_is_told_to_nobody(url):
    async def main():
        async with tracked_at(url) as tracked:
            async with tracked.session() as session:
                session.add(User(id=1))
                await session.flush()
                await session.rollback()
                session.add(Post(id=1))
                await session.commit()
            assert tracked.told == ["posts"]
            async with tracked.session() as session:
                session.add(User(id=1))
                await session.flush()  # and left: the pool rolls back
            async with tracked.session() as session:
                await session.execute(select(User))
                await session.commit()
            assert tracked.told == ["posts"]
            async with tracked.session() as session:
                session.add(User(id=2))
                await session.flush()
                session.add(Post(id=1))
                with pytest.raises(IntegrityError):
                    await session.commit()
            assert tracked.told == ["posts"]

    run(main())


def test_savepoints_are_respected(url):
    async def main():
        async with tracked_at(url) as tracked:
            async with tracked.session.begin() as session:
                session.add(User(id=1))
                with contextlib.suppress(ZeroDivisionError):
                    async with session.begin_nested():
                        session.add(Post(id=1))
                        await session.flush()
                        raise ZeroDivisionError
            assert tracked.told == ["users"]
            async with tracked.session.begin() as session:
                session.add(User(id=2))
                async with session.begin_nested():
                    session.add(Post(id=2))
            assert tracked.told == ["users", "posts users"]

    run(main())


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "autocommit"])
def test_a_statement_that_is_its_own_transaction_is_told_at_once(postgres_url, level):
    async def main():
        async with tracked_at(postgres_url) as tracked:
            auto = tracked.engine.execution_options(isolation_level=level)
            async with auto.connect() as connection:
                await connection.execute(insert(Post).values(id=1))
                assert tracked.told == ["posts"]
                with pytest.raises(IntegrityError):
                    await connection.execute(insert(Post).values(id=1))
                await connection.rollback()
            async with tracked.session() as session:
                assert await session.get(Post, 1)

    run(main())


@pytest.mark.parametrize("commit", ["commit", "  END", text("COMMIT")])
def test_a_commit_written_as_text_is_one(url, commit):
    async def main():
        async with tracked_at(url) as tracked, tracked.engine.connect() as connection:
            await connection.execute(insert(Post).values(id=1))
            if isinstance(commit, str):
                await connection.exec_driver_sql(commit)
            else:
                await connection.execute(commit)
            assert tracked.told == ["posts"]
            with contextlib.suppress(DBAPIError):  # the driver thinks that it goes on
                await connection.rollback()

    run(main())


def test_what_is_not_understood_is_all_tables(url):
    async def main():
        async with tracked_at(url) as tracked:
            async with tracked.engine.begin() as connection:
                await connection.execute(text("create table tracked_new (i int)"))
                await connection.execute(text("drop table tracked_new"))
            assert tracked.told == ["all"]

    run(main())


def test_a_hand_over_that_fails_does_not_fail_the_commit(url):
    async def main():
        async with tracked_at(url) as tracked:

            def fail(tables):
                raise RuntimeError

            tracked.tracking._on_commit = fail
            async with tracked.session.begin() as session:
                session.add(User(id=1))
            async with tracked.session() as session:
                assert await session.get(User, 1)
            counts = {"commits": 1, "failures": 1, "not_understood": 0}
            assert tracked.tracking.status() == counts
            values = [point.value for f in tracked.tracking.families() for point in f.points]
            assert values == [1, 1, 0]
            tracked.tracking.reset_counts()
            assert set(tracked.tracking.status().values()) == {0}

    run(main())


def test_a_commit_whose_outcome_is_unknown_is_told_and_a_refused_one_is_not(postgres_url, tmp_path):
    async def main():
        async with tracked_at(postgres_url) as tracked:
            async with tracked.session() as session, tracked.session() as other:
                session.add(User(id=1))
                await session.flush()  # before a text SQLAlchemy 2.0 does not
                pid = await session.scalar(text("select pg_backend_pid()"))
                await other.execute(text(f"select pg_terminate_backend({pid}, 5000)"))
                with pytest.raises(DBAPIError):
                    await session.commit()
                await other.rollback()
            assert tracked.told == ["users"]

        path = tmp_path / "busy.db"
        async with tracked_at(
            make_url(f"sqlite+aiosqlite:///{path}"), connect_args={"timeout": 0}
        ) as tracked:
            reader = sqlite3.connect(path, isolation_level=None)
            reader.execute("begin")
            reader.execute("select * from tracked_users").fetchall()
            async with tracked.session() as session:
                session.add(User(id=1))
                with pytest.raises(DBAPIError):
                    await session.commit()
            assert tracked.told == []
            reader.close()

    run(main())


def test_what_a_request_reads_is_collected_in_its_tasks_too(url):
    async def main():
        async with tracked_at(url) as tracked:

            async def read(what):
                async with tracked.session() as session:
                    await session.execute(what)

            with collecting_reads() as reads:
                assert reads.tables == frozenset()
                await asyncio.gather(read(select(User)), read(select(Post)))
                assert {t.name for t in reads.tables} == {"tracked_users", "tracked_posts"}
                await read(text("select 1"))
                assert reads.tables != ALL_TABLES
            await read(select(User))
            with collecting_reads() as other:
                await read(select(Post))
            assert {t.name for t in other.tables} == {"tracked_posts"}

    run(main())


def test_what_sqlalchemy_asks_on_an_engines_first_connection_is_nobodys_read(url):
    """A fixed bug: on PostgreSQL the request that made it got a KeyError."""

    async def main():
        engine = create_async_engine(url)
        tracked = Tracked(engine)
        try:
            with collecting_reads() as reads:
                async with tracked.session() as session:
                    await session.execute(text("select 1"))
                assert set(reads.tables) == set()
                assert not reads.has_written
        finally:
            await engine.dispose()

    asyncio.run(main())


def test_one_statement_for_several_schemas_is_told_for_each(postgres_url):
    async def main():
        async with tracked_at(postgres_url) as tracked:
            told = []
            tracked.tracking._on_commit = told.append
            async with tracked.engine.connect() as connection:
                await connection.execute(text("drop schema if exists one, two cascade"))
                for tenant in ("one", "two"):
                    await connection.execute(text(f"create schema if not exists {tenant}"))
                    await connection.execute(text(f"create table {tenant}.tracked_posts (id int)"))
                await connection.commit()
            told.clear()
            for tenant in ("one", "two", None, "one"):
                options = {"schema_translate_map": {None: tenant}}
                async with tracked.engine.execution_options(**options).begin() as connection:
                    await connection.execute(insert(Post).values(id=1))
                async with tracked.session() as session:  # and by an option of the statement
                    await session.execute(insert(Post).values(id=2), execution_options=options)
                    await session.commit()
                async with tracked.engine.begin() as connection:
                    await connection.execute(text("truncate tracked_posts"))
                assert {str(t) for t in told[0]} == {f"{tenant}.tracked_posts".replace("None.", "")}
                assert told[0] == told[1]
                told.clear()

    run(main())


def test_an_engine_is_tracked_once(url):
    async def main():
        async with tracked_at(url) as tracked:
            with pytest.raises(ValueError, match="already"):
                tracked.tracking.watch(
                    tracked.engine.sync_engine, StatementTables(tracked.engine.dialect)
                )

    run(main())
