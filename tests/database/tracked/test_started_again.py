"""An app that is started more than once, as the tests of an app do with its test client."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.testclient import TestClient

from perf_middleware import Settings, cache_response, install


def test_an_engine_of_the_app_may_be_watched_at_each_start(tmp_path):
    """A fixed bug: the second start ended with "this engine's writes are tracked already"."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")

    @asynccontextmanager
    async def lifespan(_app):
        perf.database.watch(engine, name="own")
        async with engine.begin() as connection:
            await connection.execute(text("create table if not exists items (id integer)"))
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    perf = install(app, Settings(database={"url": "sqlite://"}))

    @app.get("/items")
    @cache_response(tracked=True)
    async def count() -> int:
        async with engine.connect() as connection:
            return (await connection.execute(text("select count(*) from items"))).scalar_one()

    @app.post("/items")
    async def add() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("insert into items values (1)"))

    for before in (0, 1):
        with TestClient(app) as client:
            assert [client.get("/items").json() for _ in range(2)] == [before, before]
            assert "; hit" in client.get("/items").headers["cache-status"]
            client.post("/items")
            assert client.get("/items").json() == before + 1
