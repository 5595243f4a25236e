"""Statements: a hit gives what the query itself gave, until a commit writes what it read."""

import datetime as dt
import decimal
import uuid

import pytest
from sqlalchemy import bindparam, func, insert, literal, select, text, union_all, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, load_only, selectinload

from perf_middleware import UncacheableQueryError
from tests.database.queries.stage import Colour, Item, Label, Owner, Shop, run, shop

MADE = dt.datetime.fromisoformat("2026-01-02T03:04:05.000006")


@pytest.fixture
def url(tmp_path):
    return f"sqlite+aiosqlite:///{tmp_path}/app.db"


def test_the_second_call_asks_no_database(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"), Owner(id=2, name="Eve"))
            ground.runs()
            for _ in range(3):
                async with ground.session() as session:
                    result = await ground.queries.execute(
                        session, select(Owner.id, Owner.name).where(Owner.id == 1)
                    )
                    assert result.all() == [(1, "Ann")]
                    other = await ground.queries.execute(
                        session, select(Owner.id, Owner.name).where(Owner.id == 2)
                    )
                    assert other.one().name == "Eve"
            assert ground.runs() == 2
            assert ground.figures["hits"] == 4
            assert ground.figures["stored"] == 2

    run(main())


def test_a_commit_to_one_of_its_tables_ends_it_and_no_other(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))

            async def names():
                async with ground.session() as session:
                    result = await ground.queries.execute(session, select(Owner.name))
                    return result.scalars().all()

            assert await names() == ["Ann"]
            await ground.write(Item(id=1))
            ground.runs()
            assert await names() == ["Ann"]
            assert ground.runs() == 0
            async with ground.session() as session:
                await session.execute(update(Owner).values(name="Eve"))
                assert await names() == ["Ann"]  # not committed
                await session.commit()
            assert await names() == ["Eve"]
            async with ground.session() as session:
                await session.execute(update(Owner).values(name="Bob"))
                await session.rollback()
            ground.runs()
            assert await names() == ["Eve"]
            assert ground.runs() == 0

    run(main())


def test_entities_are_objects_of_the_session_that_asks(url):
    async def main():
        async with shop(url) as ground:
            item = Item(
                id=1, name="cup", price=decimal.Decimal("1.50"), made=MADE,
                token=uuid.UUID(int=7), colour=Colour.BLUE, blob=b"\0x", data={"a": [1]},
            )  # fmt: skip
            await ground.write(Shop(id=1, name="S", street="Main", items=[item]))
            for attempt in range(2):
                async with ground.session() as session:
                    ground.runs()
                    result = await ground.queries.execute(session, select(Item))
                    found = result.scalars().one()
                    assert ground.runs() == 1 - attempt
                    assert found in session
                    assert not session.dirty
                    assert found.price == decimal.Decimal("1.50")
                    assert (found.made, found.token) == (MADE, item.token)
                    assert (found.colour, found.blob) == (Colour.BLUE, b"\0x")
                    assert found.data == {"a": [1]}
                    assert await session.get(Item, 1) is found
                    assert ground.runs() == 0
                    await session.refresh(found, ["note"])
                    assert found.note == "a long note"
                    found.data["b"] = attempt
                    assert found in session.dirty
                    found.name = f"mug {attempt}"
                    await session.rollback()

    run(main())


def test_a_kept_object_is_changed_and_committed_like_a_loaded_one(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            for name in ("first", "second"):
                async with ground.session() as session:
                    await ground.queries.execute(session, select(Owner))
                async with ground.session() as session:
                    owner = (await ground.queries.execute(session, select(Owner))).scalar_one()
                    owner.name = name
                    await session.commit()
                async with ground.session() as session:
                    result = await ground.queries.execute(session, select(Owner.name))
                    assert result.scalar_one() == name

    run(main())


@pytest.mark.parametrize("option", [selectinload, joinedload], ids=["selectinload", "joinedload"])
def test_loaded_collections_come_along(url, option):
    async def main():
        async with shop(url) as ground:
            labels = {"new": Label(id=1, name="new"), "old": Label(id=2, name="old")}
            items = [Item(id=2, name="b", labels=labels), Item(id=1, name="a")]
            await ground.write(Shop(id=1, name="S", street="Main", items=items), Owner(id=2))
            wanted = select(Owner).order_by(Owner.id).options(
                option(Owner.items).options(option(Item.labels), joinedload(Item.owner))
            )  # fmt: skip
            for attempt in range(2):
                ground.runs()
                async with ground.session() as session:
                    result = await ground.queries.execute(session, wanted)
                    one, two = result.unique().scalars().all()
                    assert bool(ground.runs()) is (attempt == 0)
                    assert type(one) is Shop
                    assert one.street == "Main"
                    assert [item.name for item in one.items] == ["a", "b"]
                    assert set(one.items[1].labels) == {"new", "old"}
                    assert one.items[0].owner is one
                    assert two.items == []
                    assert ground.runs() == 0
            async with ground.session() as session:
                await session.execute(insert(Label).values(id=3, item_id=1, name="x"))
                await session.commit()
            async with ground.session() as session:
                result = await ground.queries.execute(session, wanted)
                assert set(result.unique().scalars().first().items[0].labels) == {"x"}

    run(main())


def test_statements_with_other_options_share_nothing(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann", items=[Item(id=1)]))
            statements = [
                select(Owner),
                select(Owner).options(selectinload(Owner.items)),
                select(Owner).options(load_only(Owner.name)),
                select(Owner.__table__),
                select(Owner.id, Owner.name, Owner.kind, Shop.street),
            ]
            for _ in range(2):
                for statement in statements:
                    async with ground.session() as session:
                        await ground.queries.execute(session, statement)
            assert ground.figures["stored"] == ground.figures["hits"] == len(statements)

    run(main())


def test_the_result_is_one_of_sqlalchemy(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"), Owner(id=2, name="Eve"))
            for _ in range(2):
                async with ground.session() as session:
                    execute = ground.queries.execute
                    label = func.count().label("n")
                    result = await execute(session, select(Owner.name, label).group_by(Owner.name))
                    row = result.mappings().first()
                    assert row["name"] == row[Owner.name] == "Ann"
                    assert row["n"] == row[label] == 1
                    result = await execute(session, select(Owner, Owner.id).order_by(Owner.id))
                    rows = result.all()
                    assert rows[1].Owner.name == "Eve"
                    assert rows[1].id == 2
                    assert list(result.keys()) == ["Owner", "id"]
                    text_ = text("select name as who from q_owners where id = :id")
                    assert (await execute(session, text_, {"id": 2})).scalar_one() == "Eve"
                    both = union_all(select(Owner.id), select(Owner.id + literal(10)))
                    assert sorted((await execute(session, both)).scalars()) == [1, 2, 11, 12]
                    given = select(Owner.name).where(Owner.id == bindparam("which"))
                    assert (await execute(session, given, {"which": 1})).scalar() == "Ann"
                    assert (await execute(session, given, {"which": 2})).scalar() == "Eve"
            assert ground.figures["hits"] == 6

    run(main())


def test_a_name_that_two_columns_have_is_ambiguous_from_the_cache_too(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            owners = Owner.__table__.c
            twice = select(owners.id.label("one"), owners.name.label("one"))
            for execute in (AsyncSession.execute, ground.queries.execute, ground.queries.execute):
                async with ground.session() as session:
                    row = (await execute(session, twice)).one()
                    assert row == (1, "Ann")
                    with pytest.raises(InvalidRequestError, match="Ambiguous column name 'one'"):
                        _ = row.one
                    with pytest.raises(InvalidRequestError, match="Ambiguous column name 'one'"):
                        _ = row._mapping["one"]
            assert ground.figures["hits"] == 1

    run(main())


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        pytest.param(insert(Owner), "writes", id="insert"),
        pytest.param(text("update q_owners set name = ''"), "no query", id="text that writes"),
        pytest.param(text("call pay()"), "no query", id="a procedure"),
        pytest.param(
            text("with x as (delete from q_owners returning id) select * from x"), "writes",
            id="text that writes within",
        ),
        pytest.param(
            select(insert(Owner).values(id=5).returning(Owner.id).cte()), "Insert", id="a CTE"
        ),
        pytest.param(select(Owner).with_for_update(), "locks", id="for update"),
        pytest.param(text("select 1 from q_owners for update"), "locks", id="text for update"),
        pytest.param("select 1", "str is no query", id="a plain text"),
    ],
)  # fmt: skip
def test_what_writes_or_locks_is_an_error_and_does_not_run(url, statement, says):
    async def main():
        async with shop(url) as ground, ground.session() as session:
            ground.sent.clear()
            with pytest.raises(UncacheableQueryError, match=says):
                await ground.queries.execute(session, statement)
            assert ground.sent == []
            assert ground.figures["refused"] == 1

    run(main())
