"""The watch of a pool: loans, waits, refusals, and an engine that goes on as before."""

import asyncio
import logging
import pickle
from contextlib import AsyncExitStack

import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from starlette.testclient import TestClient

from perf_middleware.database.holding.runtime import PoolWatch
from perf_middleware.database.holding.runtime.refusals import NoConnectionError
from perf_middleware.database.runtime import Database
from perf_middleware.errors import DatabaseBusyError


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/app.db"


def points(database, name):
    [family] = [f for f in database.families() if f.name == f"perf_database_{name}"]
    return {tuple(v for k, v in p.labels.pairs if k != "database"): p for p in family.points}


def value(database, name, *labels):
    return points(database, name)[labels].value


class Clock:
    def __init__(self):
        self.us = 0

    def __call__(self):
        return self.us


async def take_a_connection(stack, database):
    session = await stack.enter_async_context(database.session())
    await session.execute(text("select 1"))


def test_loans_are_counted_by_route_and_named_by_the_line_that_took_them(opened, run, url, caplog):
    clock = Clock()

    async def main():
        async with opened(url, clock=clock, route_of=lambda: "GET /a", held_s_told=5) as database:
            watch = database.instruments.watches["main"]
            async with AsyncExitStack() as stack:
                await take_a_connection(stack, database)
                assert value(database, "pool_checked_out") == 1
                clock.us += 4_000_000
                watch.look()
                assert caplog.records == []
                clock.us += 2_000_000
                watch.look()
                watch.look()
                [held] = database.status()["main"]["held"]
                assert (held["route"], held["held_s"]) == ("GET /a", 6.0)
            assert value(database, "pool_checked_out") == 0
            assert value(database, "pool_held_too_long") == 1
            assert points(database, "hold_seconds")["GET /a",].sum == 6.0
            database.reset_counts()
            assert value(database, "pool_loans") == 0

    with caplog.at_level(logging.WARNING, "perf_middleware.database"):
        run(main())
    [record] = caplog.records
    assert "held for 6.0 s by GET /a, taken at " in record.message
    assert f"{__file__}:" in record.message
    assert "in take_a_connection, called by " in record.message


def test_who_waits_in_vain_is_told_so_and_holds_nothing(opened, run, url):
    async def main():
        async with (
            opened(url, pool_size=1, pool_overflow_max=1, pool_wait_s=0.05) as database,
            AsyncExitStack() as stack,
        ):
            for _ in range(2):
                await take_a_connection(stack, database)
            with pytest.raises(
                DatabaseBusyError, match=r"main had no connection free within 0\."
            ) as e:
                await take_a_connection(AsyncExitStack(), database)
            assert (e.value.status, e.value.retry_after_s) == (503, 1)
            assert value(database, "pool_refused", "wait") == 1
            assert value(database, "pool_waiting") == 0
            [waited] = points(database, "pool_wait_seconds").values()
            assert waited.cumulative[-1] == 1
            assert waited.sum >= 0.04

    run(main())


def test_who_waits_gets_the_connection_that_comes_back(opened, run, url):
    async def main():
        async with opened(url, pool_size=1, pool_overflow_max=0) as database:
            async with AsyncExitStack() as stack:
                await take_a_connection(stack, database)
                waiting = asyncio.create_task(database.ping())
                while value(database, "pool_waiting") == 0:
                    await asyncio.sleep(0.001)
            assert await waiting > 0
            assert value(database, "pool_refused", "wait") == 0

    run(main())


def test_who_would_be_late_is_told_at_once(opened, run, url):
    clock, left = Clock(), []

    async def main():
        async with opened(
            url, pool_size=1, pool_overflow_max=0, clock=clock, pool_wait_s=30,
            remaining_us=lambda: left[-1],
        ) as database:  # fmt: skip
            left.append(None)
            async with AsyncExitStack() as stack:
                await take_a_connection(stack, database)
                clock.us += 60_000_000  # from now on a loan is known to take a minute
            async with AsyncExitStack() as stack:
                await take_a_connection(stack, database)
                left.append(1_000_000)
                with pytest.raises(DatabaseBusyError, match="before the request's deadline") as e:
                    await take_a_connection(AsyncExitStack(), database)
                assert e.value.waited_s == 0
                assert e.value.retry_after_s > 1
            assert value(database, "pool_refused", "deadline") == 1
            # A connection that is free is taken by anybody, also at the last moment.
            left.append(1)
            assert await database.ping() == 0

    run(main())


def test_a_ping_is_no_measure_of_loans(opened, run, url):
    async def main():
        async with opened(url) as database:
            await database.ping()
            lengths = database.instruments.watches["main"]._lengths
            assert lengths.expected_us([]) == {}
            async with AsyncExitStack() as stack:
                await take_a_connection(stack, database)
            assert list(lengths.expected_us([])) == [None]

    run(main())


def test_who_waits_is_released_once_it_cannot_be_in_time_any_more(opened, run, url):
    clock = Clock()

    async def main():
        async with (
            opened(
                url, pool_size=1, pool_overflow_max=0, clock=clock, pool_wait_s=600,
                remaining_us=lambda: 400_000_000,
            ) as database,
            AsyncExitStack() as stack,
        ):  # fmt: skip
            await take_a_connection(stack, database)
            waiting = asyncio.create_task(take_a_connection(AsyncExitStack(), database))
            while value(database, "pool_waiting") == 0:
                await asyncio.sleep(0)
            for us in (295_000_000, 10_000_000):  # a third of its age is left, and then is not
                await asyncio.sleep(0.1)
                assert not waiting.done()
                clock.us += us
            with pytest.raises(DatabaseBusyError, match=r"within 305\.00 s") as error:
                await waiting
            assert error.value.retry_after_s == 1  # the one that runs may end at any time
            assert value(database, "pool_refused", "deadline") == 1
            assert value(database, "pool_waiting") == 0

    run(main())


def test_nobody_waits_beyond_a_deadline(opened, run, url):
    async def main():
        async with (
            opened(
                url, pool_size=1, pool_overflow_max=0, pool_wait_s=30, remaining_us=lambda: 50_000
            ) as database,
            AsyncExitStack() as stack,
        ):
            await take_a_connection(stack, database)
            with pytest.raises(DatabaseBusyError):
                await take_a_connection(AsyncExitStack(), database)
            assert value(database, "pool_refused", "deadline") == 1

    run(main())


def test_a_refusal_is_an_answer_with_503_in_starlette_and_survives_pickling():
    app = FastAPI()

    @app.get("/")
    async def busy():
        raise NoConnectionError("main", 0.5, 3)

    answer = TestClient(app).get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    again = pickle.loads(pickle.dumps(NoConnectionError("main", 0.5, 3)))
    assert (str(again), again.retry_after_s, again.status_code) == (
        "main had no connection free within 0.50 s", 3, 503,
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(DatabaseBusyError("main", 0.5, 3))).waited_s == 0.5


def test_an_engine_of_the_app_is_watched_and_its_own_errors_stay(run, tmp_path):
    async def main():
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{tmp_path}/own.db", pool_size=1, max_overflow=0, pool_timeout=0.02
        )
        database = Database({}, remaining_us=lambda: 0)
        watch = database.watch(engine, name="own")
        with pytest.raises(ValueError, match="named 'own' already"):
            database.watch(engine, name="own")
        async with engine.connect():
            assert value(database, "pool_checked_out") == 1
            with pytest.raises(PoolTimeout):
                await engine.connect()
        assert value(database, "pool_refused", "wait") == 1
        # Its pool is another one after this, and is watched as well.
        await engine.dispose()
        async with engine.connect():
            assert value(database, "pool_checked_out") == 1
            with pytest.raises(PoolTimeout):
                await engine.connect()
        assert (value(database, "pool_refused", "wait"), watch.counts.waits) == (2, 2)
        await database.close()
        assert "get" not in vars(engine.pool._pool)
        async with engine.connect():
            assert watch.counts.loans == 2
        await engine.dispose()

    run(main())


def test_one_engine_is_not_watched_under_two_names(run, tmp_path):
    async def main():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")
        database = Database({})
        database.watch(engine, name="own")
        for again in (engine, engine.sync_engine):
            with pytest.raises(ValueError, match="watched already, as 'own'"):
                database.watch(again, name="other")
        assert list(database.status()) == ["own"]
        await database.close()
        database.watch(engine, name="other")
        await database.close()
        assert "get" not in vars(engine.pool._pool)
        await engine.dispose()

    run(main())


def test_who_holds_the_whole_pool_and_waits_for_more_is_named_once(opened, run, tmp_path, caplog):
    async def main():
        async with opened(
            f"sqlite:///{tmp_path}/app.db", pool_size=2, pool_overflow_max=0, pool_wait_s=0.02,
            route_of=lambda: "/nested",
        ) as database:  # fmt: skip
            for _ in range(2):
                async with database.session() as one, database.session() as two:
                    for session in (one, two):
                        await session.execute(text("select 1"))
                    with pytest.raises(DatabaseBusyError):
                        await database.run(lambda third: third.execute(text("select 1")))
            # Who holds none itself waits for others.
            async with database.session() as one, database.session() as two:
                for session in (one, two):
                    await session.execute(text("select 1"))
                with pytest.raises(DatabaseBusyError):
                    await asyncio.create_task(database.ping())
        [line] = [line for line in caplog.messages if "in vain" in line]
        assert line.startswith("/nested has waited ")
        assert "has held 2 of its 2 itself meanwhile, taken at " in line
        assert line.count(f"{__file__}:") == 2

    run(main())


def test_what_is_no_engine_is_refused_with_a_sentence():
    with pytest.raises(TypeError, match="takes an engine of SQLAlchemy, not str"):
        Database({}).watch("sqlite://")


def test_a_detached_connection_is_no_loan_any_more(run, tmp_path):
    async def main():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")
        watch = PoolWatch("own")
        watch.attach(engine)
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            raw.detach()
            assert watch.now().lent == 0
        watch.detach()
        await engine.dispose()

    run(main())


@pytest.mark.parametrize("options", [{}, {"poolclass": NullPool}], ids=["QueuePool", "NullPool"])
def test_an_engine_of_threads_is_watched_too(tmp_path, options):
    engine = create_engine(f"sqlite:///{tmp_path}/own.db", **options)
    watch = PoolWatch("own")
    watch.attach(engine)
    with engine.connect():
        assert watch.now().lent == 1
        assert str(watch.status()["held"][0]["lines"]).count(__file__) >= 1
    assert (watch.now().lent, watch.counts.loans) == (0, 1)
    assert watch.advice().sentences
    engine.dispose()


def test_what_fails_in_the_watch_reaches_nobody_and_is_told_once(opened, run, url, caplog):
    def broken():
        raise LookupError("no request")

    async def main():
        async with opened(url, route_of=broken) as database:
            for _ in range(3):
                assert await database.ping() > 0
            assert value(database, "pool_observer_failures") >= 3

    run(main())
    assert len([r for r in caplog.records if "LookupError" in r.message]) == 1


def test_a_connection_that_is_lost_is_no_measure_of_loans(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/own.db")
    watch = PoolWatch("own")
    watch.attach(engine)
    with engine.connect() as connection:
        connection.invalidate()
    assert (watch.counts.loans, watch.now().lent) == (1, 0)
    assert watch._lengths.expected_us([]) == {}
    engine.dispose()


def test_a_queue_that_asks_itself_again_lends_once(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/own.db", pool_size=1, max_overflow=0)
    watch = PoolWatch("own")
    watch.attach(engine)
    pool = engine.pool

    def full_for_a_moment():  # SQLAlchemy's `_do_get` calls itself then
        del pool._inc_overflow
        pool._overflow += 1
        pool._pool.put(pool._create_connection())
        return False

    pool._inc_overflow = full_for_a_moment
    with engine.connect():
        assert (watch.counts.loans, watch.now().lent) == (1, 1)
    assert watch.now().lent == 0
    engine.dispose()


def test_two_watches_of_one_engine_leave_in_any_order(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/own.db")
    first, second = PoolWatch("first"), PoolWatch("second")
    first.attach(engine)
    second.attach(engine)
    first.detach()
    with engine.connect():
        assert (first.now().lent, second.now().lent) == (0, 1)
    second.detach()
    with engine.connect():
        assert (first.counts.loans, second.counts.loans) == (0, 1)
    engine.dispose()


def test_two_watches_of_one_engine_both_see_an_idle_connection_taken(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/own.db")
    watches = [PoolWatch("first"), PoolWatch("second")]
    for watch in watches:
        watch.attach(engine)
    for loans in (1, 2):  # the first is made, the second is idle
        with engine.connect():
            assert [(watch.counts.loans, watch.now().lent) for watch in watches] == [(loans, 1)] * 2
    assert [watch.counts.waits for watch in watches] == [0, 0]
    engine.dispose()
