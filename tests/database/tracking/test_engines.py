"""What databases do by themselves is read anew after each change of their schema."""

import asyncio
from contextlib import asynccontextmanager

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from perf_middleware.database.tables.drivers.compiled import StatementTables
from perf_middleware.database.tables.relations import NO_RELATIONS
from perf_middleware.database.tables.touched import ALL_TABLES
from perf_middleware.database.tracking.runtime import Tracking
from perf_middleware.database.tracking.runtime.engines import TrackedEngines

TRIGGER = "create trigger spread after insert on posts begin update users set name = 'new'; end"


@asynccontextmanager
async def tracked(tmp_path):
    """The engines, with one; what its commits wrote."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    # The driver's own BEGIN does not come before DDL, which would be committed at once.
    event.listen(engine.sync_engine, "connect", lambda c, _: setattr(c, "isolation_level", None))
    event.listen(engine.sync_engine, "begin", lambda c: c.exec_driver_sql("begin"))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("create table users (name text)")
        await connection.exec_driver_sql("create table posts (name text)")
    told = []
    engines = TrackedEngines(Tracking(told.append))
    engines.bind()
    engines.watch("main", engine, reads_soon=False)
    await engines.read_relations()
    try:
        yield engine, engines, told
    finally:
        await engines.end()
        await engine.dispose()


def test_a_migration_that_is_not_in_yet_when_the_catalog_is_read_is_noticed_at_its_commit(
    run, tmp_path
):
    async def main():
        async with tracked(tmp_path) as (engine, engines, told):
            async with engine.begin() as migration:
                await migration.exec_driver_sql(TRIGGER)
                await engines.read_relations()
            told.clear()
            assert engines.status() == {"main": "unknown: all tables"}
            async with asyncio.timeout(120):
                while engines.status() != {"main": "known"}:
                    await asyncio.sleep(0.001)
            async with engine.begin() as connection:
                await connection.exec_driver_sql("insert into posts values ('one')")
            assert told == [ALL_TABLES]

    run(main())


def test_what_was_read_before_the_schema_has_changed_is_not_learned(run, tmp_path):
    async def main():
        async with tracked(tmp_path) as (engine, _, _):
            tables = StatementTables(engine.dialect, relations=None)
            read_at = tables.forgotten
            tables.forget_relations()
            tables.learn(NO_RELATIONS, read_at=read_at)
            assert not tables.knows_relations
            tables.learn(NO_RELATIONS, read_at=tables.forgotten)
            assert tables.knows_relations

    run(main())
