"""What is not answered from the cache, or not kept, and the reason that figures tell."""

import pytest
from sqlalchemy import String, event, func, select, text, type_coerce, types
from sqlalchemy.orm import Session, selectinload, with_loader_criteria

from perf_middleware import UncacheableQueryError, ValueCache
from perf_middleware.database.queries import reasons
from tests.database.queries.stage import Item, Label, Owner, run, shop

NAMES = select(Owner.name).order_by(Owner.id)


@pytest.fixture
def url(tmp_path):
    return f"sqlite+aiosqlite:///{tmp_path}/app.db"


async def names(ground, session, **options):
    result = await ground.queries.execute(session, NAMES, **options)
    return result.scalars().all()


async def warmed(ground, statement=NAMES):
    await ground.write(Owner(id=1, name="Ann"))
    async with ground.session() as session:
        await ground.queries.execute(session, statement)
    assert ground.figures["stored"] == 1


def test_a_session_sees_what_it_has_written_itself(url):
    async def main():
        async with shop(url) as ground:
            await warmed(ground)
            async with ground.session() as session:
                session.add(Owner(id=2, name="Eve"))
                assert await names(ground, session) == ["Ann", "Eve"]  # not flushed: autoflush
                assert await names(ground, session) == ["Ann", "Eve"]  # flushed: written
                assert ground.figures["bypassed"] == {reasons.UNSAVED: 1, reasons.WROTE: 1}
                await session.rollback()
                ground.runs()
                assert await names(ground, session) == ["Ann"]
                assert ground.runs() == 0
                owner = await session.get(Owner, 1)
                owner.name = "Bob"
                assert await names(ground, session) == ["Bob"]
                await session.delete(owner)
                assert await names(ground, session) == []
                await session.rollback()
            assert ground.figures["stored"] == 1

    run(main())


def test_a_written_savepoint_counts_until_it_is_taken_back(url):
    async def main():
        async with shop(url) as ground:
            await warmed(ground)
            async with ground.session() as session:
                async with session.begin_nested() as inner:
                    await session.execute(
                        text("insert into q_items (id, name, note) values (1, '', '')")
                    )
                    await names(ground, session)
                    await inner.rollback()
                assert ground.figures["bypassed"] == {reasons.WROTE: 1}

    run(main())


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        pytest.param(select(func.now(), Owner.id), reasons.VOLATILE, id="now()"),
        pytest.param(select(Owner.id).order_by(func.random()), reasons.VOLATILE, id="random()"),
        pytest.param(
            text("select id from q_owners where name < current_timestamp"), reasons.VOLATILE,
            id="current_timestamp",
        ),
        pytest.param(
            select(Owner.id).where(Owner.name < func.date("now")), reasons.VOLATILE, id="date now"
        ),
        pytest.param(select(func.last_insert_rowid(), Owner.id), reasons.SESSION, id="a session's"),
        pytest.param(
            select(Owner).execution_options(populate_existing=True), reasons.OPTIONS,
            id="populate_existing",
        ),
        pytest.param(
            select(Owner).options(
                selectinload(Owner.items), with_loader_criteria(Item, lambda cls: cls.id > 1)
            ),
            reasons.UNNAMED, id="a lambda",
        ),
        pytest.param(select(func.likely(Owner.id)), reasons.ANY_TABLE, id="an unknown function"),
    ],
)  # fmt: skip
def test_what_gives_another_answer_each_time_is_executed(url, statement, reason):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            for count in (1, 2):
                async with ground.session() as session:
                    await ground.queries.execute(session, statement)
                assert ground.figures["bypassed"] == {reason: count}
            assert ground.figures["stored"] == 0

    run(main())


def test_with_a_ttl_the_same_random_rows_are_wanted(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            for _ in range(2):
                async with ground.session() as session:
                    await ground.queries.execute(
                        session, select(Owner.id).order_by(func.random()), ttl=60
                    )
            assert ground.figures["hits"] == 1

    run(main())


def test_what_reads_no_table_is_kept_only_with_a_ttl(url):
    async def main():
        async with shop(url) as ground:
            for ttl, hits in ((None, 0), (60, 1)):
                for _ in range(2):
                    async with ground.session() as session:
                        result = await ground.queries.execute(session, text("select 7"), ttl=ttl)
                        assert result.scalar() == 7
                assert ground.figures["hits"] == hits
            assert ground.figures["unkept"] == {reasons.NO_TABLES: 2}

    run(main())


def test_objects_that_the_session_had_before_are_given_and_not_kept(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"), Owner(id=2, name="Eve"))
            async with ground.session() as reading, ground.session() as writing:
                held = await reading.get(Owner, 1)
                await reading.commit()
                (await writing.get(Owner, 1)).name = "new"
                await writing.commit()
                result = await ground.queries.execute(reading, select(Owner).order_by(Owner.id))
                assert result.scalars().first() is held
                assert held.name == "Ann"  # as SQLAlchemy does it
            assert ground.figures["unkept"] == {reasons.LOADED: 1}
            async with ground.session() as session:
                result = await ground.queries.execute(session, select(Owner).order_by(Owner.id))
                assert result.scalars().first().name == "new"

    run(main())


def test_a_hit_leaves_what_the_session_has_as_it_is(url):
    async def main():
        async with shop(url) as ground:
            wanted = select(Owner).options(selectinload(Owner.items))
            await ground.write(Owner(id=1, name="Ann", items=[Item(id=1)]))
            async with ground.session() as session:
                await ground.queries.execute(session, wanted)
            async with ground.session() as session:
                held = await session.get(Owner, 1)
                ground.runs()
                found = (await ground.queries.execute(session, wanted)).scalar_one()
                assert found is held
                assert [item.id for item in found.items] == [1]  # what it lacked
                assert ground.runs() == 0

    run(main())


class Odd(types.TypeDecorator):
    """Values that nobody can write as bytes."""

    impl = String
    cache_ok = True

    def process_result_value(self, value, dialect):
        return object()


class Nameless(types.TypeDecorator):
    impl = String
    cache_ok = False


def test_values_that_do_not_come_back_are_given_and_told_once(url, caplog):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            for _ in range(2):
                async with ground.session() as session:
                    odd = select(type_coerce(Owner.name, Odd))
                    result = await ground.queries.execute(session, odd)
                    assert type(result.scalar_one()) is object
            assert ground.figures["unkept"] == {reasons.UNPACKABLE: 2}
            assert len(caplog.records) == 1
            async with ground.session() as session:
                odd = select(type_coerce(Owner.name, Nameless))
                assert (await ground.queries.execute(session, odd)).scalar_one() == "Ann"
            assert ground.figures["bypassed"] == {reasons.UNNAMED: 1}

    run(main())


def test_events_that_may_rewrite_a_statement_keep_it_from_being_shared(url):
    class Tenant(Session):
        pass

    @event.listens_for(Tenant, "do_orm_execute")
    def only_his(state):
        criteria = with_loader_criteria(Owner, Owner.name == state.session.info["tenant"])
        state.statement = state.statement.options(criteria)

    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"), Owner(id=2, name="Eve"))
            for tenant in ("Ann", "Eve", "Ann"):
                async with ground.session(sync_session_class=Tenant) as session:
                    session.sync_session.info["tenant"] = tenant
                    assert await names(ground, session) == [tenant]
            assert ground.figures["bypassed"] == {reasons.STATE: 3}
            for tenant in ("Ann", "Eve", "Ann"):
                async with ground.session(sync_session_class=Tenant) as session:
                    session.sync_session.info["tenant"] = tenant
                    assert await names(ground, session, vary=tenant) == [tenant]
            assert ground.figures["hits"] == 1

    run(main())


def test_without_a_shelf_or_with_it_switched_off_everything_is_executed(url):
    async def main():
        async with shop(url, memo=ValueCache(enabled=False)) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            for _ in range(2):
                async with ground.session() as session:
                    assert await names(ground, session) == ["Ann"]

                async def count():
                    return 5

                assert await ground.queries.get_or_execute("five", count, ttl=5) == 5
            assert ground.figures["bypassed"] == {reasons.OFF: 4}

    run(main())


def test_a_sync_session_is_told_what_to_do(url):
    async def main():
        async with shop(url) as ground:
            with pytest.raises(UncacheableQueryError, match="no AsyncSession"):
                await ground.queries.execute(Session(ground.engine.sync_engine), NAMES)
            async with ground.session() as session:
                with pytest.raises(UncacheableQueryError, match="several sets"):
                    await ground.queries.execute(session, NAMES, [{}, {}])

    run(main())


def test_a_session_on_a_connection_of_its_own_is_looked_at_too(url):
    async def main():
        async with shop(url) as ground:
            await warmed(ground)
            async with ground.engine.connect() as connection:
                await connection.execute(
                    Owner.__table__.insert().values(id=2, name="Eve", kind="owner")
                )
                async with type(ground.session())(connection) as session:
                    assert await names(ground, session) == ["Ann", "Eve"]
                assert ground.figures["bypassed"] == {reasons.WROTE: 1}

    run(main())


def test_rows_of_a_related_table_that_changes_its_columns_would_be_a_miss(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, items=[Item(id=1, labels={"a": Label(id=1, name="a")})]))
            wanted = select(Owner).options(selectinload(Owner.items))
            async with ground.session() as session:
                await ground.queries.execute(session, wanted)
            entities = ground.queries._made._answers._entities
            entities._digests[Item.__mapper__] = "as it will be after the next release"
            for runs in (True, False):
                async with ground.session() as session:
                    ground.runs()
                    owner = (await ground.queries.execute(session, wanted)).scalar_one()
                    assert [item.id for item in owner.items] == [1]
                    assert bool(ground.runs()) is runs

    run(main())
