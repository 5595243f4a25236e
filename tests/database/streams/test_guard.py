"""The guard with plain ASGI messages: each way in which a session may hold its connection."""

import asyncio
import logging
from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Integer, column, select, text
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse

from perf_middleware import Settings, install
from perf_middleware.database.streams.middleware import StreamGuardMiddleware
from perf_middleware.database.streams.runtime import CURRENT, SESSIONS_MAX
from tests.driving import ask, http_scope

STREAM = [(b"content-type", b"text/event-stream")]
WHOLE = [(b"content-type", b"application/json"), (b"content-length", b"2")]


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "guarded_things"
    id: Mapped[int] = mapped_column(primary_key=True)


async def answer(database, before, *, during=None, headers=STREAM, level=None, path="/things"):
    """Connections that are lent once the response has begun, and after one more piece of it."""
    engine = database.engine()
    if level is not None:
        engine = engine.execution_options(isolation_level=level)
    lent = []

    async def app(scope, receive, send):
        async with AsyncSession(engine, expire_on_commit=False) as session:
            keep = await before(session)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            lent.append(engine.pool.checkedout())
            if during is not None:
                await during(session, keep)
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            lent.append(engine.pool.checkedout())
            await send({"type": "http.response.body", "body": b"}"})

    assert (await ask(StreamGuardMiddleware(app, database=database), http_scope(path))).body
    assert engine.pool.checkedout() == 0
    return lent


async def make_things(database):
    engine = database.engine()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session, session.begin():
        session.add_all([Thing(id=number) for number in range(1, 31)])


def counts(database):
    return database.status()["main"]["streams"]


async def read(session):
    return await session.scalar(select(Thing).where(Thing.id == 7))


async def add(session):
    await read(session)
    session.add(Thing(id=100))


async def write(session):
    await session.execute(text("insert into guarded_things values (101)"))


async def write_and_commit(session):
    await write(session)
    await session.commit()


async def write_after_commit(session):
    await session.execute(text("delete from guarded_things where id = 101"))
    await session.commit()
    await write(session)


async def commit_and_read(session):
    session.add(Thing(id=102))
    await session.commit()
    return await read(session)


async def change(session):
    (await read(session)).id = 200


async def lock(session):
    await session.execute(select(Thing).with_for_update())


async def set_user(session):
    await session.execute(text("select set_config('app.user', '1', true)"))


async def write_in_a_function(session):
    await session.execute(text("select write_a_thing()"))


async def begin_within(session):
    await read(session)
    return await session.begin_nested()


async def begin_and_end_within(session):
    async with session.begin_nested():
        await read(session)


async def take_the_connection(session):
    connection = await session.connection()
    await connection.execute(text("select 1"))
    return connection


async def take_the_connection_and_let_it_go(session):
    await take_the_connection(session)


async def fail(session):
    with pytest.raises(DBAPIError):
        await session.execute(text("select * from nothing_there"))


BOTH = ["sqlite", "postgresql"]
CASES = [
    pytest.param(BOTH, read, [0, 0], {"released": 1}, id="idle"),
    pytest.param(BOTH, add, [1, 1], {"uncommitted": 1}, id="a row that is not flushed"),
    pytest.param(BOTH, change, [1, 1], {"uncommitted": 1}, id="a row that is changed"),
    pytest.param(BOTH, write, [1, 1], {"uncommitted": 1}, id="written"),
    pytest.param(BOTH, write_and_commit, [0, 0], {}, id="written and committed"),
    pytest.param(BOTH, commit_and_read, [0, 0], {"released": 1}, id="read after a commit"),
    pytest.param(BOTH, write_after_commit, [1, 1], {"uncommitted": 1}, id="written after one"),
    pytest.param(["postgresql"], lock, [1, 1], {"uncommitted": 1}, id="locked rows"),
    pytest.param(["postgresql"], set_user, [1, 1], {"uncommitted": 1}, id="set in a transaction"),
    pytest.param(["postgresql"], write_in_a_function, [1, 1], {"uncommitted": 1}, id="a function"),
    pytest.param(["postgresql"], fail, [1, 1], {"failures": 1, "needed": 1}, id="it has failed"),
    pytest.param(BOTH, begin_within, [1, 1], {"needed": 1}, id="a savepoint is open"),
    pytest.param(BOTH, begin_and_end_within, [0, 0], {"released": 1}, id="one was"),
    pytest.param(BOTH, take_the_connection, [1, 1], {"needed": 1}, id="somebody has it"),
    pytest.param(BOTH, take_the_connection_and_let_it_go, [0, 0], {"released": 1}, id="had it"),
]  # fmt: skip


@pytest.fixture(params=BOTH)
def backend(request):
    return request.param


@pytest.fixture
def url(backend, request, tmp_path):
    if backend == "postgresql":
        return request.getfixturevalue("postgres")
    return f"sqlite:///{tmp_path}/app.db"


def test_a_connection_leaves_its_session_only_where_nothing_is_lost(opened, run, url, backend):
    """One database for all cases: making one costs more than they do."""

    async def main():
        async with opened(url) as database:
            await make_things(database)
            if backend == "postgresql":
                async with database.session() as session:
                    await session.execute(text(
                        "create or replace function write_a_thing() returns integer language sql "
                        "as 'insert into guarded_things values (300) returning 1'"
                    ))  # fmt: skip
            for case in CASES:
                backends, before, lent, counted = case.values
                if backend not in backends:
                    continue
                database.reset_counts()
                assert await answer(database, before) == lent, case.id
                kept = {**counts(database)["kept"]}
                found = {"released": counts(database)["released"], **kept}
                found["failures"] = counts(database)["failures"]
                assert {name: n for name, n in found.items() if n} == counted, case.id

    run(main())


def test_rows_and_results_that_were_read_stay_readable(opened, run, url):
    async def before(session):
        things = await session.execute(select(Thing).order_by(Thing.id))
        numbers = await session.execute(select(column("id", Integer)).select_from(Thing))
        return things.scalars(), await read(session), numbers

    async def during(session, kept):
        things, thing, numbers = kept
        assert session.in_transaction()
        assert thing in session
        assert thing.id == 7
        assert [thing.id for thing in things] == list(range(1, 31))
        assert len(numbers.all()) == 30
        assert await session.get(Thing, 7) is thing
        assert session.sync_session.bind.pool.checkedout() == 0
        await session.refresh(thing)

    async def main():
        async with opened(url) as database:
            await make_things(database)
            assert await answer(database, before, during=during) == [0, 0]
            assert counts(database)["released"] == 2

    run(main())


def test_what_is_written_later_in_the_stream_is_committed(opened, run, url):
    async def during(session, _):
        session.add(Thing(id=500))
        await session.commit()

    async def main():
        async with opened(url) as database:
            await make_things(database)
            assert await answer(database, read, during=during) == [0, 0]
            async with database.session() as session:
                assert await session.get(Thing, 500)

    run(main())


def test_a_whole_response_pays_for_no_rollback(opened, run, url):
    """Its one piece follows at once; a second piece shows that it streams."""

    async def main():
        async with opened(url) as database:
            await make_things(database)
            assert await answer(database, read, headers=WHOLE) == [1, 0]

    run(main())


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "repeatable_read"])
def test_a_snapshot_that_was_asked_for_is_kept(opened, run, postgres, level):
    async def main():
        async with opened(postgres) as database:
            await make_things(database)
            assert await answer(database, read, level=level) == [1, 1]
            assert counts(database)["kept"]["needed"] == 1

    run(main())


def test_a_statement_that_another_task_runs_keeps_the_connection(opened, run, postgres):
    async def main():
        async with opened(postgres) as database, opened(postgres) as other:
            await make_things(database)
            locking = other.session()
            lock = await locking.__aenter__()
            await lock.execute(text("lock table guarded_things in access exclusive mode"))

            async def before(session):
                task = asyncio.create_task(read(session))
                response = CURRENT.get()
                while not any(work.running for work in (response.sessions or {}).values()):
                    await asyncio.sleep(0.001)
                return task

            async def during(_, task):
                await locking.__aexit__(None, None, None)
                assert (await task).id == 7

            assert await answer(database, before, during=during) == [1, 0]
            assert counts(database)["kept"]["needed"] == 1

    run(main())


def test_a_statement_that_another_task_has_just_begun_keeps_the_connection(opened, run, url):
    """FastAPI's server-sent events read in a task of their own while their response begins.

    aiosqlite waits for a cursor before it executes: the connection was taken in between.
    """

    async def before(session):
        await read(session)
        begun = asyncio.create_task(session.scalar(select(Thing.id).where(Thing.id == 8)))
        await asyncio.sleep(0)  # up to its first wait
        return begun

    async def during(_session, begun):
        assert await begun == 8

    async def main():
        async with opened(url) as database:
            await make_things(database)
            assert await answer(database, before, during=during) == [1, 0]

    run(main())


def test_a_statement_that_was_just_beginning_does_not_run_on_a_connection_of_others(
    opened, run, url
):
    async def before(session):
        await read(session)
        [held] = {
            entry[0] for entry in session.sync_session.get_transaction()._connections.values()
        }
        return held

    async def during(session, held):
        # As SQLAlchemy calls it for a task that has waited for its cursor meanwhile.
        context = SimpleNamespace(root_connection=held)
        with pytest.raises(ResourceClosedError, match="given back to the pool"):
            held.dialect.do_execute(None, "select 1", (), context)

    async def main():
        async with opened(url) as database:
            await make_things(database)
            assert await answer(database, before, during=during) == [0, 0]

    run(main())


def test_a_request_that_is_cancelled_meanwhile_gives_its_connection_back(opened, run, url):
    async def main():
        async with opened(url) as database:
            await make_things(database)
            made = database.instruments.watches["main"].counts.made
            with anyio.CancelScope() as scope:

                async def before(session):
                    await read(session)
                    scope.cancel()  # its next await is that of the giving back

                await answer(database, before)
            assert scope.cancelled_caught
            assert database.engine().pool.checkedout() == 0
            assert counts(database)["released"] == 1
            assert database.instruments.watches["main"].counts.made == made

    run(main())


def test_a_server_that_is_gone_hinders_no_response(opened, run, postgres):
    async def main():
        async with opened(postgres) as database:
            await make_things(database)

            async def before(session):
                number = await session.scalar(text("select pg_backend_pid()"))
                async with AsyncSession(database.engine()) as other:
                    await other.execute(text(f"select pg_terminate_backend({number}, 5000)"))

            lent = await answer(database, before)
            assert len(lent) == 2
            assert counts(database)["failures"] == 1
            assert await database.ping() > 0

    run(main())


def test_of_a_session_on_two_engines_both_connections_go_though_one_fails(opened, run, tmp_path):
    """A fixed bug: the other one was out of its session, and in no pool."""

    async def main():
        async with opened(f"sqlite:///{tmp_path}/app.db") as database:
            engines = [database.engine()]
            engines.append(create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db"))
            database.watch(engines[1], name="own")
            failed = []
            lent = []

            async def app(scope, receive, send):
                async with AsyncSession() as session:
                    for engine in engines:
                        bound = {"bind": engine.sync_engine}
                        await session.execute(text("select 1"), bind_arguments=bound)
                        fail_first_rollback(engine.dialect, failed)
                    await send({"type": "http.response.start", "status": 200, "headers": STREAM})
                    lent.extend(engine.pool.checkedout() for engine in engines)
                    await send({"type": "http.response.body", "body": b"{}"})

            await ask(StreamGuardMiddleware(app, database=database), http_scope("/"))
            assert (lent, len(failed)) == ([0, 0], 1)
            assert sum(each["streams"]["failures"] for each in database.status().values()) == 1
            await engines[1].dispose()

    run(main())


def fail_first_rollback(dialect, failed):
    roll_back = dialect.do_rollback

    def rolling_back(connection):
        if not failed:
            failed.append(connection)
            raise OSError("a fault")
        roll_back(connection)

    dialect.do_rollback = rolling_back


def test_without_the_guard_all_is_as_before(opened, run, url):
    async def main():
        async with opened(url, stream_guard=False) as database:
            await make_things(database)
            assert await answer(database, read) == [1, 1]
            assert "streams" not in database.status()["main"]
            assert "do_execute" not in vars(database.engine().dialect)

    run(main())


def test_an_engine_is_left_as_it_was(run, tmp_path):
    async def main():
        from sqlalchemy.orm import Session

        from perf_middleware.database.runtime import Database

        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")

        def listened():
            names = [
                name for name in vars(engine.dialect) if name.startswith(("do_", "exec", "perf_"))
            ]
            return names, len(Session.dispatch.after_begin._clslevel[Session])

        before = listened()
        database = Database({})
        database.watch(engine)
        assert listened() != before
        await database.close()
        assert listened() == before
        await engine.dispose()

    run(main())


class Passing(BaseHTTPMiddleware):
    """Runs the app in a task of its own, as `@app.middleware("http")` does."""

    async def dispatch(self, request, call_next):
        return await call_next(request)


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("middleware", [[], [Passing]])
def test_it_stands_with_and_without_metrics_and_middlewares(run, tmp_path, metrics, middleware):
    lent = []
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")
    sessions = async_sessionmaker(engine)

    async def get_session():
        async with sessions() as session:
            yield session

    app = FastAPI()
    perf = install(app, Settings(metrics={"enabled": metrics}))
    for each in middleware:
        app.add_middleware(each)
    perf.database.watch(engine)

    @app.get("/")
    async def stream(session=Depends(get_session)):  # noqa: B008
        await session.execute(text("select 1"))

        async def lines():
            lent.append(engine.pool.checkedout())
            yield "a"

        return StreamingResponse(lines())

    async def main():
        assert (await ask(app, http_scope("/"))).body == b"a"
        await engine.dispose()

    assert "stream guard" in [layer.name for layer in perf.describe()]
    run(main())
    assert lent == [0]


@pytest.mark.parametrize("settings", [{}, {"stream_guard": True}, {"stream_guard": False}])
def test_an_engine_that_is_watched_too_late_is_told(settings, tmp_path, caplog):
    app = FastAPI()
    perf = install(app, Settings(database=settings))
    stands = "stream guard" in [layer.name for layer in perf.describe()]
    assert stands == settings.get("stream_guard", False)
    with caplog.at_level(logging.WARNING, "perf_middleware.database"):
        perf.database.watch(create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db"))
    assert ("watch it before the app starts" in caplog.text) == (settings == {})
    asyncio.run(perf.database.close())


def test_a_request_with_many_transactions_remembers_only_what_is_open(opened, run, tmp_path):
    @asynccontextmanager
    async def one(database):
        async with AsyncSession(database.engine()) as session:
            await read(session)
            yield

    async def before(session):
        for _ in range(SESSIONS_MAX + 20):
            async with one(before.database):
                pass
        assert len(CURRENT.get().sessions) <= SESSIONS_MAX
        await read(session)

    async def main():
        async with opened(f"sqlite:///{tmp_path}/app.db") as database:
            await make_things(database)
            before.database = database
            assert await answer(database, before) == [0, 0]

    run(main())
