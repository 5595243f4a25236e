"""Commits between a read and its keeping: what is kept is never older than the last purge."""

import asyncio
import contextlib
import sqlite3

import pytest
from sqlalchemy import event, select, text

from perf_middleware.database.queries import reasons
from tests.database.queries.stage import Item, Owner, run, settled, shop

NAMES = select(Owner.name).order_by(Owner.id)


@pytest.fixture
def url(tmp_path):
    return f"sqlite+aiosqlite:///{tmp_path}/app.db"


class Gate:
    """Holds functions up between their read and their return."""

    def __init__(self, ground):
        self.ground = ground
        self.has_read = asyncio.Event()
        self.may_go = asyncio.Event()
        self.runs = 0

    async def names(self):
        self.runs += 1
        async with self.ground.session() as session:
            found = (await session.scalars(NAMES)).all()
        self.has_read.set()
        await self.may_go.wait()
        return found


def test_what_was_read_before_a_commit_is_not_kept_after_it(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            gate = Gate(ground)
            get = ground.queries.get_or_execute
            first = asyncio.create_task(get("names", gate.names))
            await gate.has_read.wait()
            await ground.write(Owner(id=2, name="Eve"))
            later = asyncio.create_task(get("names", gate.names))
            await settled()
            gate.may_go.set()
            assert await first == ["Ann"]
            assert await later == [
                "Ann",
                "Eve",
            ]  # who came after the commit waited for no older run
            assert await get("names", gate.names) == ["Ann", "Eve"]
            assert gate.runs == 2
            assert ground.figures["unkept"] == {reasons.FORGOTTEN: 1}

    run(main())


def test_a_commit_to_another_table_spoils_nothing(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            gate = Gate(ground)
            first = asyncio.create_task(ground.queries.get_or_execute("names", gate.names))
            await gate.has_read.wait()
            await ground.write(Item(id=1))
            gate.may_go.set()
            assert await first == ["Ann"]
            assert await ground.queries.get_or_execute("names", gate.names) == ["Ann"]
            assert gate.runs == 1

    run(main())


def test_a_transaction_that_began_before_a_commit_keeps_nothing(url):
    """A file in WAL mode: what a reader sees is what there was when its transaction began."""

    async def main():
        async with shop(url) as ground:
            engine = ground.engine.sync_engine
            event.listen(engine, "connect", lambda c, _: setattr(c, "isolation_level", None))
            event.listen(engine, "begin", lambda c: c.exec_driver_sql("begin"))
            await ground.engine.dispose()
            with contextlib.closing(sqlite3.connect(ground.engine.url.database)) as file:
                file.execute("pragma journal_mode=wal")
            await ground.write(Owner(id=1, name="Ann"))
            async with ground.session() as warm:
                await ground.queries.execute(warm, select(Item.id))  # the first use: all is watched
            ground.queries.reset_counts()
            async with ground.session() as old:
                assert await old.scalar(text("select count(*) from q_owners")) == 1
                await ground.write(Owner(id=2, name="Eve"))

                async def from_the_old_one():
                    return (await old.scalars(NAMES)).all()

                get = ground.queries.get_or_execute
                assert await get("names", from_the_old_one) == ["Ann"]
                assert ground.figures["unkept"] == {reasons.OLD: 1}
                found = await ground.queries.execute(old, NAMES)
                assert found.scalars().all() == ["Ann"]
                assert ground.figures["bypassed"] == {reasons.SNAPSHOT: 1}
            async with ground.session() as new:

                async def from_the_new_one():
                    return (await new.scalars(NAMES)).all()

                assert await get("names", from_the_new_one) == ["Ann", "Eve"]
                assert (await ground.queries.execute(new, NAMES)).scalars().all() == ["Ann", "Eve"]

    run(main())


def test_who_holds_a_connection_does_not_wait_for_who_needs_one(url):
    """Or all of a pool would be held by those who wait for the one that waits for the pool."""

    async def main():
        async with shop(url, pool_size=1, max_overflow=0) as ground:
            await ground.write(Owner(id=1, name="Ann"))

            async def names(session):
                return (await session.scalars(NAMES)).all()

            get = ground.queries.get_or_execute
            async with ground.session() as holding, ground.session() as wanting:
                await holding.scalar(select(Item.id))  # the one connection there is
                first = asyncio.create_task(get("names", names, session=wanting))
                await settled()
                assert await get("names", names, session=holding) == ["Ann"]
                await holding.commit()
                assert await first == ["Ann"]

    run(main())


def test_a_leader_that_is_cancelled_is_followed_by_another(url):
    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="Ann"))
            gate = Gate(ground)
            get = ground.queries.get_or_execute
            first = asyncio.create_task(get("names", gate.names))
            await gate.has_read.wait()
            second = asyncio.create_task(get("names", gate.names))
            await settled()
            first.cancel()
            gate.may_go.set()
            assert await second == ["Ann"]
            assert gate.runs == 2

    run(main())


def test_under_writes_from_all_sides_no_reader_sees_what_was_before_a_finished_commit(url):
    """Each writer raises a number; a reader that begins after its commit must not see less."""

    async def main():
        async with shop(url) as ground:
            await ground.write(Owner(id=1, name="0"))
            done = 0

            async def write():
                nonlocal done
                for _ in range(12):
                    async with ground.session() as session:
                        owner = await session.get(Owner, 1)
                        owner.name = str(int(owner.name) + 1)
                        await session.commit()
                        done = int(owner.name)
                    await asyncio.sleep(0)

            async def load(session):
                return int(await session.scalar(select(Owner.name).where(Owner.id == 1)))

            async def read(kind):
                while not writer.done():
                    known = done
                    async with ground.session() as session:
                        if kind == 0:
                            seen = await ground.queries.get_or_execute("n", load, session=session)
                        elif kind == 1:
                            result = await ground.queries.execute(session, select(Owner.name))
                            seen = int(result.scalar_one())
                        else:
                            result = await ground.queries.execute(session, select(Owner))
                            seen = int(result.scalar_one().name)
                    assert seen >= known
                    await asyncio.sleep(0)

            writer = asyncio.create_task(write())
            await asyncio.gather(writer, *(read(at % 3) for at in range(6)))
            assert ground.figures["hits"] > 0

    run(main())
