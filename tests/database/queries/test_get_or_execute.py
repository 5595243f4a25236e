"""Functions: cache-aside, with what they read as its tags."""

import asyncio

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from perf_middleware import DatabaseBusyError, UncacheableQueryError
from perf_middleware.database.queries import reasons
from perf_middleware.database.tracking.runtime import collecting_reads
from tests.database.queries.stage import Item, Owner, run, settled, shop


@pytest.fixture
def url(tmp_path):
    return f"sqlite+aiosqlite:///{tmp_path}/app.db"


class Counting:
    """Counts owners; how often it ran is in `runs`."""

    def __init__(self, ground):
        self.ground = ground
        self.runs = 0

    async def __call__(self):
        self.runs += 1
        async with self.ground.session() as session:
            return await session.scalar(select(func.count()).select_from(Owner))


def test_a_function_runs_again_once_its_tables_were_written(url):
    async def main():
        async with shop(url) as ground:
            count = Counting(ground)
            get = ground.queries.get_or_execute
            assert [await get("owners:all", count) for _ in range(3)] == [0, 0, 0]
            await ground.write(Item(id=1))
            assert await get("owners:all", count) == 0
            assert count.runs == 1
            await ground.write(Owner(id=1))
            assert await get("owners:all", count) == 1
            assert count.runs == 2
            assert await ground.queries.forget("owners:all")
            assert not await ground.queries.forget("owners:all")
            assert await get("owners:all", count) == 1
            assert count.runs == 3
            assert (ground.figures["hits"], ground.figures["misses"]) == (3, 3)
            [row] = ground.queries.figures.by_name.items()
            assert row[0] == "owners"

    run(main())


def test_tags_of_the_callers_own_purge_it_too(url):
    async def main():
        async with shop(url) as ground:
            count = Counting(ground)
            await ground.queries.get_or_execute("n", count, 60, ("prices",))
            assert await ground.memo.purge(tags="prices") == 1
            await ground.queries.get_or_execute("n", count)
            assert count.runs == 2

    run(main())


def test_all_who_ask_meanwhile_wait_for_one_run(url):
    async def main():
        async with shop(url) as ground:
            gate, runs = asyncio.Event(), []

            async def slow():
                runs.append(1)
                await gate.wait()
                async with ground.session() as session:
                    return (await session.scalars(select(Owner.name))).all()

            await ground.write(Owner(id=1, name="Ann"))
            calls = [
                asyncio.create_task(ground.queries.get_or_execute("names", slow)) for _ in range(5)
            ]
            await settled()
            gate.set()
            results = await asyncio.gather(*calls)
            assert results == [["Ann"]] * 5
            assert len(runs) == 1
            results[0].append("mine")
            assert await ground.queries.get_or_execute("names", slow) == ["Ann"]
            assert ground.figures["collapsed"] == 4

    run(main())


def test_an_error_reaches_all_who_wait_and_is_not_kept(url):
    async def main():
        async with shop(url) as ground:
            gate, runs = asyncio.Event(), []

            async def failing():
                runs.append(1)
                await gate.wait()
                raise LookupError("no such owner")

            calls = [
                asyncio.create_task(ground.queries.get_or_execute("x", failing)) for _ in range(3)
            ]
            await settled()
            gate.set()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [LookupError] * 3
            with pytest.raises(LookupError):
                await ground.queries.get_or_execute("x", failing)
            assert len(runs) == 2

    run(main())


def test_what_ends_one_request_alone_is_no_answer_for_the_others(url):
    async def main():
        async with shop(url) as ground:
            gate, runs = asyncio.Event(), []

            async def busy_at_first():
                runs.append(1)
                await gate.wait()
                if len(runs) == 1:
                    raise DatabaseBusyError("main")
                return 7

            get = ground.queries.get_or_execute
            calls = [asyncio.create_task(get("x", busy_at_first, 5)) for _ in range(3)]
            await settled()
            gate.set()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert type(results[0]) is DatabaseBusyError
            assert results[1:] == [7, 7]
            assert len(runs) == 2

    run(main())


def test_what_wrote_or_read_nothing_is_not_kept(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))

            async def rename():
                async with ground.session() as session:
                    await session.execute(update(Owner).values(name="Eve"))
                    await session.commit()
                    return await session.scalar(select(Owner.name))

            async def seven():
                return 7

            async def unclear():
                async with ground.session() as session:
                    return await session.scalar(text("select likely(1)"))

            for key, function, ttl in (
                ("a", rename, None), ("a", rename, 60), ("b", seven, None), ("c", unclear, 60),
            ):  # fmt: skip
                await ground.queries.get_or_execute(key, function, ttl)
            assert ground.figures["stored"] == 0
            assert ground.figures["unkept"] == {
                reasons.WROTE: 2, reasons.NO_TABLES: 1, reasons.ANY_TABLE: 1,
            }  # fmt: skip
            await ground.queries.get_or_execute("b", seven, 60)
            assert ground.figures["stored"] == 1

    run(main())


def test_a_function_with_a_session_sees_what_the_session_has_written(url):
    async def main():
        async with shop(url) as ground:
            runs = []

            async def names(session):
                runs.append(1)
                return (await session.scalars(select(Owner.name).order_by(Owner.id))).all()

            await ground.write(Owner(id=1, name="Ann"))
            get = ground.queries.get_or_execute
            for _ in range(2):
                async with ground.session() as session:
                    assert await get("names", names, session=session) == ["Ann"]
            assert len(runs) == 1
            async with ground.session() as session:
                session.add(Owner(id=2, name="Eve"))
                assert await get("names", names, session=session) == ["Ann", "Eve"]
                await session.rollback()
            async with ground.session() as session:
                assert await get("names", names, session=session) == ["Ann"]

    run(main())


def test_the_outer_request_depends_on_what_a_hit_was_made_of(url):
    async def main():
        async with shop(url) as ground:
            count = Counting(ground)

            async def outer():
                return await ground.queries.get_or_execute("inner", count)

            for _ in range(2):
                with collecting_reads() as reads:
                    await ground.queries.get_or_execute("inner", count)
                    async with ground.session() as session:
                        await ground.queries.execute(session, select(Item.id))
                assert {"db:t:q_owners@", "db:t:q_items@"} <= set(reads.tags())
                assert reads.refusal() is None
            assert await ground.queries.get_or_execute("outer", outer) == 0
            await ground.write(Owner(id=1))
            assert await ground.queries.get_or_execute("outer", outer) == 1

    run(main())


async def returned_rows(session):
    return (await session.execute(select(Owner.id))).all()


async def returned_objects(session):
    return {"owner": await session.get(Owner, 1)}


async def returned_a_result(session):
    return await session.execute(select(Owner.id))


@pytest.mark.parametrize(
    ("function", "says"),
    [(returned_rows, "_mapping"), (returned_objects, "Owner"), (returned_a_result, "read once")],
)
def test_what_belongs_to_a_session_is_an_error(url, function, says):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1))
            async with ground.session() as session:
                with pytest.raises(UncacheableQueryError, match=says):
                    await ground.queries.get_or_execute("x", function, session=session)

    run(main())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ttl": 0}, ValueError),
        ({"ttl": float("nan")}, ValueError),
        ({"ttl": True}, TypeError),
        ({"ttl": "60"}, TypeError),
        ({"tags": [1]}, TypeError),
        ({"tags": ["x"] * 65}, TypeError),
        ({"key": 5}, TypeError),
        ({"fn": lambda: 5}, TypeError),
    ],
)
def test_wrong_arguments_are_told_at_the_call(url, options, error):
    async def five():
        return 5

    async def main():
        async with shop(url) as ground:
            with pytest.raises(error):
                await ground.queries.get_or_execute(**{"key": "k", "fn": five} | options)

    run(main())


def test_a_session_whose_classes_have_engines_of_their_own_is_looked_at_too(url):
    async def main():
        async with shop(url) as ground:
            engine = ground.engine

            def session():
                return AsyncSession(binds={Owner: engine, Item: engine})

            async def names(session):
                return (await session.scalars(select(Owner.name).order_by(Owner.id))).all()

            await ground.write(Owner(id=1, name="Ann"))
            get = ground.queries.get_or_execute
            async with session() as reading:
                assert await get("names", names, session=reading) == ["Ann"]
            async with session() as writing:
                writing.add(Owner(id=2, name="Eve"))
                await writing.flush()
                assert await get("names", names, session=writing) == ["Ann", "Eve"]
                result = await ground.queries.execute(writing, select(Owner.name))
                assert len(result.all()) == 2
            assert ground.figures["bypassed"] == {reasons.WROTE: 2}

    run(main())
