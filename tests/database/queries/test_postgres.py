"""PostgreSQL: isolation levels, settings of a session, a replica, and its own types."""

import asyncio
import uuid
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import func, literal_column, select, text
from sqlalchemy.dialects.postgresql import ARRAY, INET, INT4RANGE
from sqlalchemy.engine import make_url

from perf_middleware.database.queries import reasons
from tests.database.queries.stage import Item, Owner, run, shop
from tests.database.real_postgres import postgres

NAMES = select(Owner.name).order_by(Owner.id)


@pytest.fixture(scope="module")
def url():
    with postgres() as found:
        yield make_url(found).set(drivername="postgresql+asyncpg")


async def names(ground, session, **options):
    return (await ground.queries.execute(session, NAMES, **options)).scalars().all()


@asynccontextmanager
async def warm_shop(url, **options):
    """A shop with one owner, whose query cache was used before."""
    async with shop(url, **options) as ground:
        await ground.write(Owner(id=1, name="Ann"))
        async with ground.session() as session:
            await ground.queries.execute(session, select(Item.id))
        ground.queries.reset_counts()
        yield ground


def test_read_committed_uses_the_cache_within_a_transaction(url):
    async def main():
        async with warm_shop(url) as ground, ground.session() as session:
            assert await names(ground, session) == ["Ann"]
            ground.runs()
            assert await names(ground, session) == ["Ann"]
            assert ground.runs() == 0
            await ground.write(Owner(id=2, name="Eve"))
            assert await names(ground, session) == ["Ann", "Eve"]

    run(main())


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_with_one_snapshot_neither_reads_nor_feeds_the_cache(url, level):
    async def main():
        async with warm_shop(url) as ground, ground.session() as old:
            await old.connection(execution_options={"isolation_level": level})
            await old.execute(text("select 1 from q_items"))
            await ground.write(Owner(id=2, name="Eve"))
            assert await names(ground, old) == ["Ann"]
            assert ground.figures["bypassed"] == {reasons.SNAPSHOT: 1}

            async def from_the_old_one():
                return (await old.scalars(NAMES)).all()

            get = ground.queries.get_or_execute
            assert await get("names", from_the_old_one) == ["Ann"]
            assert ground.figures["unkept"] == {reasons.OLD: 1}
            async with ground.session() as new:
                assert await names(ground, new) == ["Ann", "Eve"]
            assert await names(ground, old) == ["Ann"]

    run(main())


def test_serializable_tells_the_database_of_each_read(url):
    async def main():
        async with warm_shop(url, isolation_level="SERIALIZABLE") as ground:
            for _ in range(2):
                async with ground.session() as session:
                    assert await names(ground, session) == ["Ann"]
            assert ground.figures["bypassed"] == {reasons.SNAPSHOT: 2}

    run(main())


@pytest.mark.parametrize(
    "setting",
    [
        "set local search_path = public, pg_catalog",
        "/* who */ set role none",
        "select set_config('app.tenant', '5', true)",
    ],
)
def test_after_a_set_nothing_is_shared_unless_it_is_said_what_it_varies_by(url, setting, caplog):
    async def main():
        async with warm_shop(url) as ground:
            async with ground.session() as session:
                await session.execute(text(setting))
                assert await names(ground, session) == ["Ann"]
            async with ground.session() as session:
                assert await names(ground, session) == ["Ann"]
                assert ground.figures["bypassed"][reasons.STATE] >= 1
                assert sum(ground.figures["bypassed"].values()) == 2
                for vary in (1, 2, 1):
                    assert await names(ground, session, vary=vary) == ["Ann"]
            assert (ground.figures["stored"], ground.figures["hits"]) == (2, 1)
            assert [r.message for r in caplog.records if "vary=" in r.message]

    run(main())


def test_a_set_of_timeouts_changes_nothing(url):
    async def main():
        async with warm_shop(url) as ground:
            for _ in range(2):
                async with ground.session() as session:
                    await session.execute(text("set local statement_timeout = '5s'"))
                    assert await names(ground, session) == ["Ann"]
            assert ground.figures["hits"] == 1

    run(main())


def test_schemas_of_a_translation_map_are_kept_apart(url):
    async def main():
        async with warm_shop(url) as ground:
            async with ground.engine.begin() as connection:
                await connection.execute(text("create schema if not exists q_other"))
                await connection.execute(text("drop table if exists q_other.q_owners"))
                await connection.execute(text("create table q_other.q_owners as table q_owners"))
                await connection.execute(text("update q_other.q_owners set name = 'Eve'"))
            for _ in range(2):
                for schema, name in ((None, "Ann"), ("q_other", "Eve")):
                    async with ground.session() as session:
                        if schema is not None:
                            await session.connection(
                                execution_options={"schema_translate_map": {None: schema}}
                            )
                        assert await names(ground, session) == [name]
                    async with ground.session() as session:
                        of_it = NAMES.execution_options(schema_translate_map={None: schema})
                        result = await ground.queries.execute(session, of_it)
                        assert result.scalars().all() == [name]
            assert ground.figures["hits"] >= 4

    run(main())


def test_types_of_postgresql_come_back(url):
    async def main():
        async with warm_shop(url) as ground:
            token = uuid.uuid4()
            await ground.write(Item(id=1, token=token))
            wanted = select(
                Item.token,
                func.array_agg(Item.id).label("ids"),
                literal_column("int4range(1, 5)", INT4RANGE).label("range"),
                literal_column("array[array[1,2],array[3,4]]", ARRAY(INET)).label("nested"),
            ).group_by(Item.token)
            rows = []
            for _ in range(2):
                async with ground.session() as session:
                    rows.append((await ground.queries.execute(session, wanted)).one())
            assert rows[0] == rows[1]
            assert rows[1].token == token
            assert type(rows[1].token) is uuid.UUID
            assert (rows[1].range.lower, rows[1].range.upper) == (1, 5)
            assert rows[1].nested == [[1, 2], [3, 4]]
            assert ground.figures["hits"] == 1

    run(main())


def test_a_commit_while_a_statement_runs_is_not_forgotten(url):
    """Commits and reads at once, in sessions of their own, on real connections."""

    async def main():
        async with warm_shop(url) as ground:
            done = 0

            async def write():
                nonlocal done
                for number in range(1, 30):
                    async with ground.session() as session:
                        (await session.get(Owner, 1)).name = str(number)
                        await session.commit()
                        done = number

            async def read():
                while not writer.done():
                    known = done
                    async with ground.session() as session:
                        [seen] = await names(ground, session)
                    assert known == 0 or int(seen) >= known
                    await asyncio.sleep(0)

            writer = asyncio.create_task(write())
            await asyncio.gather(writer, *(read() for _ in range(3)))
            assert ground.figures["hits"] > 0

    run(main())
