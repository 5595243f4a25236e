"""Real conflicts, deadlocks and killed backends of a PostgreSQL, and what `run` makes of them."""

import asyncio
import contextlib
import traceback

import pytest
from sqlalchemy import BigInteger, event, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from perf_middleware.database.retry.settings import RetrySettings
from perf_middleware.errors import CommitOutcomeUnknownError
from tests.database.real_postgres import postgres
from tests.database.retry.severed import severing_proxy


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "retry_accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger)


# At COMMIT, so that it can be met there.
SLOW_COMMIT = """
    create or replace function retry_slow() returns trigger language plpgsql as
        $$ begin perform pg_sleep(5); return null; end $$;
    drop trigger if exists retry_slow on retry_accounts;
    create constraint trigger retry_slow after insert on retry_accounts
        deferrable initially deferred for each row when (new.balance = 666)
        execute function retry_slow();
"""


@pytest.fixture(scope="module")
def url():
    with postgres() as given:
        yield make_url(given).set(drivername="postgresql+asyncpg")


class Bank:
    def __init__(self, engine):
        self.engine = engine
        self.session = async_sessionmaker(engine)
        self.retry = RetrySettings(first_s=0.005, attempts_max=10).make_retry()

    async def balances(self):
        async with self.session() as session:
            return dict((await session.execute(select(Account.id, Account.balance))).all())

    async def kill(self, pid):
        async with self.session() as session:
            assert await session.scalar(text("select pg_terminate_backend(:p, 5000)"), {"p": pid})

    def retries(self):
        return self.retry.status()["retries"]

    def run(self, unit, **options):
        return self.retry.run(unit, session=self.session, **options)


@contextlib.asynccontextmanager
async def bank_at(url, **options):
    engine = create_async_engine(url, pool_size=8, **options)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        for statement in SLOW_COMMIT.split(";\n"):
            if statement.strip():
                await connection.execute(text(statement))
        await connection.execute(text("insert into retry_accounts values (1, 100), (2, 100)"))
    try:
        yield Bank(engine)
    finally:
        await engine.dispose()


def run(main):
    return asyncio.run(asyncio.wait_for(main, 600))


async def pid_of(session):
    return await session.scalar(text("select pg_backend_pid()"))


def test_serializable_transactions_that_meet_all_succeed_and_none_is_lost(url):
    async def main():
        async with bank_at(url, isolation_level="SERIALIZABLE") as bank:

            async def deposit(session):
                account = await session.get_one(Account, 1)
                await asyncio.sleep(0.005)
                account.balance += 1

            async def often():
                for _ in range(5):
                    await bank.run(deposit)

            await asyncio.gather(*(often() for _ in range(4)))
            assert (await bank.balances())[1] == 120
            assert bank.retries()["serialization"]["retried"] > 0

    run(main())


def test_write_skew_found_at_commit_alone_is_tried_again(url):
    async def main():
        async with bank_at(url, isolation_level="SERIALIZABLE") as bank:
            both = asyncio.Barrier(2)
            seen = []

            def withdraw(number):
                async def unit(session):
                    total = sum((await session.scalars(select(Account.balance))).all())
                    seen.append(total)
                    if len(seen) <= 2:
                        await both.wait()
                    if total >= 200:
                        (await session.get_one(Account, number)).balance -= 100
                        await session.flush()
                        if len(seen) <= 2:
                            await both.wait()

                return unit

            await asyncio.gather(bank.run(withdraw(1)), bank.run(withdraw(2)))
            # Each alone may take 100 while both hold 200: the second look refuses.
            assert sum((await bank.balances()).values()) == 100
            # One more 200 where the loser was back before the winner's commit was to be seen.
            assert set(seen[:-1]) == {200}
            assert seen[-1] == 100
            assert bank.retries() == {"serialization": {"retried": len(seen) - 2}}

    run(main())


def test_a_deadlock_s_victim_is_tried_again(url):
    async def main():
        async with bank_at(url) as bank:
            both = asyncio.Barrier(2)
            attempts = []

            def move(first, second):
                async def unit(session):
                    attempts.append(first)
                    await session.execute(text("set local deadlock_timeout = '20ms'"))
                    for number in (first, second):
                        await session.get_one(Account, number, with_for_update=True)
                        if number == first and len(attempts) <= 2:
                            await both.wait()
                    (await session.get_one(Account, first)).balance -= 10
                    (await session.get_one(Account, second)).balance += 10

                return unit

            await asyncio.gather(bank.run(move(1, 2)), bank.run(move(2, 1)))
            assert await bank.balances() == {1: 100, 2: 100}
            # Once, and once more where the victim was back before the other one had its lock.
            assert len(attempts) > 2
            assert bank.retries() == {"deadlock": {"retried": len(attempts) - 2}}

    run(main())


def test_a_backend_killed_in_the_middle_is_replaced_and_the_whole_is_done_again(url):
    async def main():
        async with bank_at(url) as bank:
            pids = []

            async def unit(session):
                pids.append(await pid_of(session))
                (await session.get_one(Account, 1)).balance += 1
                await session.flush()
                if len(pids) == 1:
                    await bank.kill(pids[0])
                (await session.get_one(Account, 2)).balance += 1
                await session.flush()

            await bank.run(unit)
            assert await bank.balances() == {1: 101, 2: 101}
            assert len(set(pids)) == 2
            assert bank.retries() == {"connection": {"retried": 1}}

    run(main())


def test_a_backend_killed_while_a_statement_runs_is_replaced(url):
    async def main():
        async with bank_at(url) as bank:
            attempts = []

            async def unit(session):
                attempts.append(await pid_of(session))
                if len(attempts) == 1:
                    asyncio.get_running_loop().call_later(
                        0.05, lambda: killers.append(asyncio.ensure_future(bank.kill(attempts[0])))
                    )
                    await session.execute(text("select pg_sleep(20)"))

            killers = []
            await bank.run(unit)
            await asyncio.gather(*killers)
            assert bank.retries() == {"connection": {"retried": 1}}

    run(main())


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_backend_killed_during_commit_is_tried_again_only_where_it_does_no_harm(url, idempotent):
    async def main():
        async with bank_at(url) as bank:
            pids, killers = [], []

            async def kill_at_commit():
                async with bank.session() as session:
                    while not await session.scalar(
                        text("select 1 from pg_stat_activity where pid = :p and query ~* 'commit'"
                             " and wait_event = 'PgSleep'"), {"p": pids[0]},
                    ):  # fmt: skip
                        await session.rollback()
                        await asyncio.sleep(0.005)
                await bank.kill(pids[0])

            async def unit(session):
                pids.append(await pid_of(session))
                slow = len(pids) == 1
                session.add(Account(id=3, balance=666 if slow else 1))
                if slow:
                    killers.append(asyncio.ensure_future(kill_at_commit()))

            if idempotent:
                await bank.run(unit, idempotent=True)
                assert (await bank.balances())[3] == 1
                assert bank.retries() == {"connection": {"retried": 1}}
            else:
                with pytest.raises(CommitOutcomeUnknownError, match="may have been committed"):
                    await bank.run(unit)
                assert len(pids) == 1
                assert 3 not in await bank.balances()
                assert bank.retries() == {"connection": {"commit_unknown": 1}}
            await asyncio.gather(*killers)

    run(main())


def test_a_commit_that_was_done_while_its_answer_was_lost_is_not_done_twice(url):
    async def main():
        async with bank_at(url) as bank, severing_proxy(url, b"COMMIT") as (through, cut):
            engine = create_async_engine(through)
            attempts = []

            async def deposit(session):
                attempts.append(1)
                (await session.get_one(Account, 1)).balance += 1

            with pytest.raises(CommitOutcomeUnknownError):
                await bank.retry.run(deposit, session=async_sessionmaker(engine))
            await cut.wait()
            await engine.dispose()
            assert attempts == [1]
            assert (await bank.balances())[1] == 101

    run(main())


def test_a_part_that_the_unit_has_committed_itself_is_not_done_twice(url):
    async def main():
        async with bank_at(url) as bank:

            async def unit(session):
                (await session.get_one(Account, 1)).balance += 1
                await session.commit()
                await bank.kill(await pid_of(session))
                await session.execute(text("select 1"))

            with pytest.raises(DBAPIError):
                await bank.run(unit)
            assert (await bank.balances())[1] == 101
            assert bank.retries() == {"connection": {"committed": 1}}

    run(main())


def test_a_savepoint_that_was_released_or_rolled_back_is_no_commit(url):
    async def main():
        async with bank_at(url) as bank:
            attempts = []

            async def unit(session):
                attempts.append(await pid_of(session))
                with contextlib.suppress(IntegrityError):
                    async with session.begin_nested():
                        session.add(Account(id=1, balance=0))  # there is one
                async with session.begin_nested():
                    (await session.get_one(Account, 2)).balance += 1
                if len(attempts) == 1:
                    await bank.kill(attempts[0])
                await session.execute(text("select 1"))

            await bank.run(unit)
            assert await bank.balances() == {1: 100, 2: 101}
            assert bank.retries() == {"connection": {"retried": 1}}

    run(main())


def test_nothing_is_retried_inside_a_transaction_of_somebody_else(url):
    async def main():
        async with bank_at(url) as bank, bank.session() as mine:
            (await mine.get_one(Account, 1)).balance = 7
            await mine.flush()
            attempts = []

            async def unit(session):
                attempts.append(session)
                await bank.kill(await pid_of(session))
                await session.execute(text("select 1"))

            with pytest.raises(DBAPIError) as caught:
                await bank.retry.run(unit, session=lambda: contextlib.nullcontext(mine))
            assert attempts == [mine]
            assert "somebody else's" in caught.value.__notes__[0]
            assert bank.retries() == {"connection": {"joined": 1}}

    run(main())


def test_the_transaction_of_somebody_else_is_left_to_him(url):
    async def main():
        async with bank_at(url) as bank, bank.session() as mine:
            await mine.execute(text("select 1"))

            async def unit(session):
                (await session.get_one(Account, 1)).balance = 7
                return "done"

            given = lambda: contextlib.nullcontext(mine)  # noqa: E731
            assert await bank.retry.run(unit, session=given) == "done"
            assert mine.in_transaction()
            await mine.rollback()
            assert (await bank.balances())[1] == 100

    run(main())


def test_a_session_bound_to_a_connection_in_a_transaction_is_somebody_else_s(url):
    async def main():
        async with bank_at(url) as bank, bank.engine.connect() as connection:
            await connection.begin()

            async def unit(session):
                await bank.kill(await pid_of(session))
                await session.execute(text("select 1"))

            with pytest.raises(DBAPIError):
                await bank.retry.run(unit, session=lambda: AsyncSession(connection))
            assert bank.retries() == {"connection": {"joined": 1}}

    run(main())


@pytest.mark.parametrize("kind", ["maker", "begin"])
def test_a_maker_of_sessions_and_one_that_begins_are_both_taken(url, kind):
    async def main():
        async with bank_at(url) as bank:
            attempts = []

            async def unit(session):
                attempts.append(await pid_of(session))
                (await session.get_one(Account, 1)).balance += 1
                if len(attempts) == 1:
                    await bank.kill(attempts[0])

            make = bank.session if kind == "maker" else bank.session.begin
            await bank.retry.run(unit, session=make)
            assert (await bank.balances())[1] == 101
            assert bank.retries() == {"connection": {"retried": 1}}

    run(main())


def test_a_server_that_is_not_there_is_tried_and_told(url):
    async def main():
        engine = create_async_engine("postgresql+asyncpg://x:y@127.0.0.1:1/none")
        retry = RetrySettings(first_s=0.001, most_s=0.001, attempts_max=3).make_retry()

        async def unit(session):
            await session.execute(text("select 1"))

        with pytest.raises(ConnectionRefusedError):
            await retry.run(unit, session=async_sessionmaker(engine))
        assert retry.status()["retries"] == {"connection": {"retried": 2, "attempts": 1}}

    run(main())


def test_cancelled_units_leave_the_pool_full_and_nothing_listening(url):
    async def main():
        async with bank_at(url) as bank:

            async def unit(session):
                (await session.get_one(Account, 1)).balance += 1
                await session.flush()
                await session.execute(text("select pg_sleep(20)"))

            async def one():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bank.run(unit), 0.03)

            await asyncio.gather(*(one() for _ in range(4)))
            assert bank.engine.pool.checkedout() == 0
            assert (await bank.balances())[1] == 100
            assert bank.retries() == {}

    run(main())


def test_an_error_of_the_session_s_own_listeners_after_the_commit_is_not_a_reason_to_repeat(url):
    async def main():
        async with bank_at(url) as bank:
            attempts = []

            class LostError(Exception):
                sqlstate = "08006"

            def after_commit(session):
                raise LostError

            async def unit(session):
                attempts.append(1)
                event.listen(session.sync_session, "after_commit", after_commit)
                (await session.get_one(Account, 1)).balance += 1

            with pytest.raises((LostError, CommitOutcomeUnknownError)) as caught:
                await bank.run(unit)
            assert attempts == [1], traceback.format_exception(caught.value)
            assert (await bank.balances())[1] == 101

    run(main())
