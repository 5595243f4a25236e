"""An app that is started more than once, as the tests of an app do with its test client."""

import asyncio
import gc
import weakref
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from starlette.testclient import TestClient

from perf_middleware import Settings, cache_response, install

URLS = [pytest.param({"url": "sqlite://"}, id="url"), pytest.param({}, id="no url")]


class Own:
    """An app with an engine of its own, that it watches before its start or in each lifespan."""

    def __init__(self, path, database, *, inside):
        self.path = path
        self.inside = inside
        self.engine = self.make()
        self.lent = []
        app = self.app = FastAPI(lifespan=self.lifespan)
        # Else the layer stands only where an engine is watched before the start.
        self.perf = install(app, Settings(database={"stream_guard": True, **database}))
        if not inside:
            self.perf.database.watch(self.engine, name="own")

        @app.get("/items")
        @cache_response(tracked=True)
        async def count() -> int:
            async with self.engine.connect() as connection:
                return (await connection.execute(text("select count(*) from items"))).scalar_one()

        @app.post("/items")
        async def add() -> None:
            async with self.engine.begin() as connection:
                await connection.execute(text("insert into items values (1)"))

        @app.get("/stream")
        async def stream():
            session = AsyncSession(self.engine)
            await session.execute(text("select 1"))

            async def lines():
                self.lent.append(self.engine.pool.checkedout())
                yield "a"
                await session.close()

            return StreamingResponse(lines())

    def make(self):
        return create_async_engine(f"sqlite+aiosqlite:///{self.path}/own.db")

    @asynccontextmanager
    async def lifespan(self, _app):
        if self.inside:
            self.perf.database.watch(self.engine, name="own")
        async with self.engine.begin() as connection:
            await connection.execute(text("create table if not exists items (id integer)"))
        yield
        await self.engine.dispose()


@pytest.mark.parametrize("inside", [False, True], ids=["before", "inside"])
@pytest.mark.parametrize("database", URLS)
def test_an_engine_of_the_app_is_watched_whole_at_each_start(tmp_path, database, inside):
    """Fixed bugs: the second start ended with "tracked already", or "there is a database named
    'own' already"; or pool, statements and streams were watched no more.
    """
    own = Own(tmp_path, database, inside=inside)
    for before in (0, 1, 2):
        with TestClient(own.app) as client:
            assert [client.get("/items").json() for _ in range(2)] == [before, before]
            assert "; hit" in client.get("/items").headers["cache-status"]
            client.post("/items")
            assert client.get("/items").json() == before + 1
            # What is read in the background is a loan too.
            wait_until(client, lambda: own.perf.status()["tracking"]["relations"]["own"] == "known")
            database_of = own.perf.database
            database_of.reset_counts()
            assert client.get("/stream").text == "a"
            seen = database_of.status()["own"]
            assert (seen["lent"], seen["streams"]["released"], own.lent.pop()) == (0, 1, 0)
            assert database_of.instruments.watches["own"].counts.loans == 1
            assert "SELECT ?" in str(database_of.statements.table())
        assert ("own" in own.perf.database.status()) is not inside
        assert ("own" in own.perf.status()["tracking"]["relations"]) is not inside


@pytest.mark.parametrize("database", URLS)
def test_engines_that_each_start_makes_anew_leave_nothing_behind(tmp_path, database):
    own = Own(tmp_path, database, inside=True)
    engines = []
    for _ in range(3):
        with TestClient(own.app) as client:
            assert client.get("/items").status_code == 200
            engines.append(weakref.ref(own.engine))
        own.engine = own.make()
    gc.collect()
    assert own.perf.database.tracked.tracking._tables == []
    assert [engine() for engine in engines] == [None] * 3


def test_a_start_that_failed_ends_nothing_that_was_watched_before(run, tmp_path):
    from perf_middleware.database.runtime import Database
    from perf_middleware.errors import DatabaseUnavailableError
    from tests.database.tasks import Tasks

    async def main():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")
        database = Database({"main": f"sqlite:///{tmp_path}/none/app.db"})
        watch = database.watch(engine, name="own")
        tasks = Tasks()
        for _ in range(2):
            with pytest.raises(DatabaseUnavailableError):
                await database.open(tasks)
            await database.close()
            assert watch.is_of(engine)
        await tasks.stop()
        await database.close()  # not open: it ends all
        assert list(database.status()) == ["main"]
        await engine.dispose()

    run(main())


def test_long_loans_are_looked_for_without_a_url_too(tmp_path):
    own = Own(tmp_path, {}, inside=False)
    looked = []
    own.perf.database.instruments.watches["own"].look = lambda: looked.append(1)
    with TestClient(own.app) as client:
        wait_until(client, lambda: looked)


def wait_until(client, condition):
    async def waiting():
        async with asyncio.timeout(120):
            while not condition():
                await asyncio.sleep(0.02)

    client.portal.call(waiting)


def test_a_replica_is_one_only_while_it_is_watched_as_such(run, tmp_path):
    from perf_middleware.database.tracking.runtime import Tracking, collecting_reads
    from perf_middleware.database.tracking.runtime.engines import TrackedEngines

    async def main():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")
        engines = TrackedEngines(Tracking(lambda _: None))
        found = []
        for is_copy in (True, True, False):
            engines.watch("own", engine, is_copy=is_copy, reads_soon=False)
            wrapped = engine.dialect.do_execute
            with collecting_reads() as reads:
                async with engine.connect() as connection:
                    await connection.exec_driver_sql("select 1")
            found.append(reads.is_of_a_copy)
            engines.forget("own")
            if is_copy:
                assert engine.dialect.do_execute is wrapped
        assert found == [True, True, False]
        await engine.dispose()

    run(main())
