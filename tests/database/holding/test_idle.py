"""The idle connections of a watched pool: taken and put back as by the pool itself."""

from threading import Event, Thread

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

from perf_middleware.database.holding.runtime import PoolWatch


@pytest.mark.parametrize("size", [1, 2])
def test_an_async_pool_takes_and_keeps_connections_as_it_would_unwatched(run, tmp_path, size):
    async def main():
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{tmp_path}/own.db", pool_size=size, max_overflow=2 - size
        )
        watch = PoolWatch("own")
        watch.attach(engine)
        for _ in range(2):
            async with engine.connect(), engine.connect():
                assert (watch.now().lent, watch.now().idle) == (2, 0)
            # Beyond its size the queue is full: the pool's own way closes what comes back.
            assert (watch.now().lent, watch.now().idle, watch.now().overflow) == (0, size, 0)
        assert (watch.counts.loans, watch.counts.made, watch.counts.waits) == (4, 4 - size, 0)
        await engine.dispose()

    run(main())


def pool_of_threads(path, **options):
    engine = create_engine(
        f"sqlite:///{path}/own.db",
        poolclass=QueuePool,
        connect_args={"check_same_thread": False},
        **options,
    )
    watch = PoolWatch("own")
    watch.attach(engine)
    return engine, watch


@pytest.mark.parametrize("size", [1, 2])
def test_a_pool_of_threads_takes_and_keeps_connections_as_it_would_unwatched(tmp_path, size):
    engine, watch = pool_of_threads(tmp_path, pool_size=size, max_overflow=2 - size)
    for _ in range(2):
        with engine.connect(), engine.connect():
            assert (watch.now().lent, watch.now().idle) == (2, 0)
        assert (watch.now().lent, watch.now().idle, watch.now().overflow) == (0, size, 0)
    assert (watch.counts.loans, watch.counts.made, watch.counts.waits) == (4, 4 - size, 0)
    engine.dispose()


def test_a_pool_without_a_size_keeps_all(tmp_path):
    engine, watch = pool_of_threads(tmp_path, pool_size=0)
    with engine.connect(), engine.connect():
        pass
    assert (watch.now().idle, watch.counts.made) == (2, 2)
    engine.dispose()


@pytest.mark.parametrize("use_lifo", [False, True])
def test_of_the_idle_the_one_is_taken_that_the_pool_would_take(tmp_path, use_lifo):
    engine, _ = pool_of_threads(tmp_path, pool_size=2, pool_use_lifo=use_lifo)
    with engine.connect() as last, engine.connect() as first:
        kept = [first.connection.dbapi_connection, last.connection.dbapi_connection]
    with engine.connect() as again:
        assert again.connection.dbapi_connection is kept[use_lifo]
    engine.dispose()


def test_a_thread_that_waits_gets_the_connection_that_comes_back(tmp_path):
    engine, watch = pool_of_threads(tmp_path, pool_size=1, max_overflow=0)
    waits, got = Event(), []
    queue = engine.pool._pool
    wait = queue.not_empty.wait

    def waiting(*args):
        waits.set()  # the lock is held until it really waits
        return wait(*args)

    queue.not_empty.wait = waiting

    def take():
        with engine.connect() as connection:
            got.append(connection.connection.dbapi_connection)

    thread = Thread(target=take, daemon=True)
    with engine.connect() as connection:
        held = connection.connection.dbapi_connection
        thread.start()
        assert waits.wait(5)
    thread.join(5)
    assert got == [held]
    assert (watch.counts.loans, watch.counts.waits) == (2, 1)
    engine.dispose()


def test_who_gets_no_connection_is_told_of_that_alone(tmp_path):
    engine, _ = pool_of_threads(tmp_path, pool_size=1, max_overflow=0, pool_timeout=0)
    with engine.connect(), pytest.raises(NoConnection) as failed:
        engine.connect()
    assert failed.value.__context__ is None
    engine.dispose()


def test_who_stands_around_the_queue_is_not_passed_by(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/own.db", poolclass=QueuePool)
    queue, put_back = engine.pool._pool, []
    put = queue.put

    def noting(record, block=True):
        put_back.append(record)
        put(record, block)

    queue.put = noting
    PoolWatch("own").attach(engine)
    with engine.connect():
        pass
    assert len(put_back) == 1
    engine.dispose()
