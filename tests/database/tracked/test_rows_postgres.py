"""Keys of PostgreSQL as its catalog has them, and keys that it makes itself."""

import uuid

from sqlalchemy import Uuid, delete, insert, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from perf_middleware.database.tables.drivers.catalog import relations_of
from perf_middleware.database.tables.drivers.compiled import StatementTables
from perf_middleware.database.tables.rows import KeyColumn
from perf_middleware.database.tables.touched import Table
from perf_middleware.database.tracking.runtime import Tracking, collecting_reads
from tests.database.tracked.rows_stage import names

TABLES = """
    drop schema if exists keyed cascade;
    create schema keyed;
    create table keyed.items (id bigint generated always as identity, extra int, name text,
        primary key (id) include (extra));
    create table keyed.codes (id uuid, name text, primary key (name, id));
    create table keyed.sums (id numeric primary key);
    create domain keyed.own as text;
    create table keyed.names (name keyed.own primary key);
    create table keyed.months (id int primary key, name text) partition by range (id);
    create table keyed.january partition of keyed.months for values from (0) to (100);
"""


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    __table_args__ = {"schema": "keyed"}  # noqa: RUF012 SQLAlchemy's own way to say it
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


class Code(Base):
    __tablename__ = "codes"
    __table_args__ = {"schema": "keyed"}  # noqa: RUF012 SQLAlchemy's own way to say it
    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)


class Month(Base):
    __tablename__ = "months"
    __table_args__ = {"schema": "keyed"}  # noqa: RUF012 SQLAlchemy's own way to say it
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


def test_rows_of_postgresql_are_told_apart(postgres, run):
    async def main():
        engine = create_async_engine(make_url(postgres).set(drivername="postgresql+asyncpg"))
        async with engine.begin() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.execute(TABLES)
        async with engine.connect() as connection:
            relations = await connection.run_sync(relations_of, with_keys=True)
        found = {
            table.name: key for table, key in relations.keys.items() if table.schema == "keyed"
        }
        a_number = (KeyColumn("id", "integer"),)
        assert found == {
            "items": a_number, "months": a_number, "january": a_number,
            "codes": (KeyColumn("id", "uuid"), KeyColumn("name", "text")),
        }  # fmt: skip
        assert relations.key_of(Table("items")) == a_number

        told = []
        tables = StatementTables(engine.dialect, relations=relations, rows=["*"])
        Tracking(told.append).watch(engine.sync_engine, tables)

        async def writes(*statements):
            async with AsyncSession(engine) as session:
                for statement, *values in statements:
                    await session.execute(statement, *values)
                await session.commit()
            return names(told.pop())

        async with AsyncSession(engine) as session:
            session.add_all([Item(name="a"), Item(name="b")])
            await session.commit()
        assert names(told.pop()) == "keyed.items#1 keyed.items#2"
        assert await writes((insert(Item).values(name="c"),)) == "keyed.items#3"
        assert await writes((insert(Item), [{"name": "d"}, {"name": "e"}])) == "keyed.items"
        assert await writes((delete(Item).where(Item.id.in_([1, 2])),)) == (
            "keyed.items#1 keyed.items#2"
        )
        one = uuid.UUID(int=1)
        assert await writes((insert(Code), [{"id": one, "name": "A"}])) == (
            f"keyed.codes#{one.hex},a"
        )
        by_id = update(Month).where(Month.id == 1).values(name="new")
        assert await writes((by_id,)) == "keyed.january keyed.months#1"
        with collecting_reads() as reads:
            async with AsyncSession(engine) as session:
                await session.get(Code, {"id": one, "name": "A"})
                await session.scalars(select(Item).where(Item.id.in_([3, 4])))
                await session.get(Month, 1)  # a row of whichever part
        assert names(reads.tables) == (
            f"keyed.codes#{one.hex},a keyed.items#3 keyed.items#4 keyed.january keyed.months"
        )
        async with engine.begin() as connection:
            await connection.exec_driver_sql("drop schema keyed cascade")
        await engine.dispose()

    run(main())
