"""Sessions of a real PostgreSQL: its settings, cancellations, and servers that go away."""

import asyncio
import contextlib
import random
from urllib.parse import parse_qs, urlsplit

import anyio
import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from perf_middleware.errors import DatabaseUnavailableError
from tests.database.pool.pooler import TransactionPooler

OURS = (
    "select state, count(*) from pg_stat_activity "
    "where application_name = 'pooled' and pid <> pg_backend_pid() group by state"
)


async def asked(database, statement):
    async with database.session() as session:
        return (await session.execute(text(statement))).scalar_one()


async def states(admin):
    return {row["state"]: row["count"] for row in await admin.fetch(OURS)}


@pytest.mark.parametrize("pgbouncer", ["off", "on"])
def test_sessions_are_as_the_settings_say_also_in_the_way_of_pgbouncer(
    opened, run, postgres, pgbouncer
):
    async def main():
        async with opened(
            postgres, pgbouncer=pgbouncer, application_name="pooled", time_zone="Asia/Tokyo",
            work_mem="3MB", statement_s=20, session_parameters={"search_path": "elsewhere"},
        ) as database:  # fmt: skip
            assert database.status()["main"]["pgbouncer"] == (pgbouncer == "on")
            for name, value in (
                ("application_name", "pooled"), ("TimeZone", "Asia/Tokyo"), ("work_mem", "3MB"),
                ("search_path", "elsewhere"), ("idle_in_transaction_session_timeout", "1min"),
                ("statement_timeout", "20s"),
            ):  # fmt: skip
                assert await asked(database, f"show {name}") == value
            async with database.session() as session:
                # Short for that one alone: the machine may pause in any other.
                await session.execute(text("set local statement_timeout = '50ms'"))
                with pytest.raises(DBAPIError, match="statement timeout"):
                    await session.execute(text("select pg_sleep(20)"))
                await session.rollback()
            prepared = "select count(*) from pg_prepared_statements"
            found = [await asked(database, prepared) for _ in range(3)]
            assert (max(found) == 0) == (pgbouncer == "on")

    run(main())


@pytest.mark.parametrize("pgbouncer", ["off", "on"])
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"session_parameters": {"no_such": "1"}}, 'parameter "no_such"'),
        ({"time_zone": "Mars/City"}, "Mars/City"),
    ],
)
def test_a_server_that_refuses_our_settings_is_not_said_to_be_away(
    opened, run, postgres, pgbouncer, settings, why
):
    async def main():
        with pytest.raises(DatabaseUnavailableError) as refused:
            async with opened(postgres, pgbouncer=pgbouncer, **settings):
                pass
        assert "refuses our sessions: " in str(refused.value)
        assert why in str(refused.value)
        assert "does not answer" not in str(refused.value)

    run(main())


def test_a_server_that_is_asked_directly_is_told_from_pgbouncer(opened, run, postgres):
    async def main():
        async with opened(postgres, statement_s=7) as database:
            assert database.status()["main"]["pgbouncer"] is False
            assert await asked(database, "show statement_timeout") == "7s"

    run(main())


def test_a_process_id_that_is_not_the_servers_means_pgbouncer(opened, run, postgres, monkeypatch):
    """As pgbouncer says it: any number, for it cannot know which server it will ask."""
    monkeypatch.setattr(asyncpg.Connection, "get_server_pid", lambda connection: 4711)

    async def main():
        async with opened(postgres, statement_s=7) as database:
            assert database.status()["main"]["pgbouncer"] is True
            assert await asked(database, "show statement_timeout") == "7s"

    run(main())


@pytest.mark.parametrize("way", ["task", "scope"])
def test_a_thousand_cancellations_leave_no_session_in_a_transaction(opened, run, postgres, way):
    async def main():
        rng = random.Random(8)
        admin = await asyncpg.connect(postgres, server_settings={"application_name": "admin"})
        cancelled = done = 0

        async def work(database, scope):
            nonlocal cancelled, done
            try:
                with scope:
                    async with database.session() as session:
                        await session.execute(text("insert into perf_items values (1)"))
                        await session.execute(text("select count(*) from perf_items"))
                    done += 1
            except asyncio.CancelledError:
                cancelled += 1
                raise
            finally:
                cancelled += scope.cancelled_caught

        async def end(scope, task):
            await asyncio.sleep(rng.random() * 0.03)
            scope.cancel() if way == "scope" else task.cancel()

        async with opened(
            postgres, application_name="pooled", pool_size=4, pool_overflow_max=2
        ) as database:
            await admin.execute("drop table if exists perf_items")
            await admin.execute("create table perf_items (id integer)")
            while cancelled < 500:
                scopes = [anyio.CancelScope() for _ in range(25)]
                tasks = [asyncio.create_task(work(database, scope)) for scope in scopes]
                ends = [end(scope, task) for scope, task in zip(scopes, tasks, strict=True)]
                await asyncio.gather(*ends)
                found = await asyncio.gather(*tasks, return_exceptions=True)
                assert [e for e in found if isinstance(e, Exception)] == []
            pool = database.engine().pool
            now = database.status()["main"]
            assert (pool.checkedout(), now["lent"], now["waiting"]) == (0, 0, 0)
            async with asyncio.timeout(120):
                while set(await states(admin)) - {"idle"}:  # those that are just being ended
                    await asyncio.sleep(0.01)
            assert sum((await states(admin)).values()) <= 6
            # Whoever was told that all went well finds it there.
            assert await asked(database, "select count(*) from perf_items") >= done
        await admin.execute("drop table perf_items")
        await admin.close()

    run(main())


def test_connections_that_the_server_has_ended_are_replaced_before_they_are_lent(
    opened, run, postgres
):
    async def main():
        admin = await asyncpg.connect(postgres)
        async with opened(postgres, application_name="pooled") as database:
            before = await asked(database, "select pg_backend_pid()")
            assert await admin.fetchval("select pg_terminate_backend($1, 5000)", before)
            assert await asked(database, "select pg_backend_pid()") != before
        await admin.close()

    run(main())


def test_a_server_that_is_away_is_told_at_the_start(opened, run):
    async def main():
        async with opened("postgresql://u:geheim@127.0.0.1:1/none"):
            pass

    away = r"main \(postgresql://127\.0\.0\.1:1/none\) does not answer"
    with pytest.raises(DatabaseUnavailableError, match=away) as told:
        run(main())
    assert "geheim" not in str(told.value)


def test_a_server_that_says_nothing_is_given_up_in_time(opened, run):
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async def main():
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, opened(f"postgresql://u@127.0.0.1:{port}/none", connect_s=0.2):
            pass

    with pytest.raises(DatabaseUnavailableError, match="does not answer"):
        run(main())


class Way:
    """A TCP port that leads to the server, and swallows everything while it is shut."""

    def __init__(self, url):
        host = parse_qs(urlsplit(url).query).get("host", [None])[0]
        self._socket = None if host is None else f"{host}/.s.PGSQL.5432"
        self._parts = urlsplit(url)
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.hangs_up = asyncio.Event()
        self.hangs_up.set()
        self.passed_bytes = 0

    async def serve(self, reader, writer):
        if self._socket is None:
            there = await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)
        else:
            there = await asyncio.open_unix_connection(self._socket)
        await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))

    async def _pass(self, reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                await self.is_open.wait()
                writer.write(piece)
                self.passed_bytes += len(piece)
            await self.hangs_up.wait()
        writer.close()

    def url(self, port):
        user = self._parts.netloc.rpartition("@")[0] or "postgres"
        return f"postgresql://{user}@127.0.0.1:{port}{self._parts.path}?sslmode=disable"


def test_what_is_lent_as_its_database_closes_is_closed_when_it_comes_back(opened, run, postgres):
    async def main():
        async with opened(postgres) as database:
            async with database.engine().connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                await database.close()
                assert (await connection.exec_driver_sql("select 1")).scalar_one() == 1
            assert driver.is_closed()

    run(main())


def test_one_whose_end_was_said_but_not_seen_yet_is_replaced_too(opened, run, postgres):
    """asyncpg is between both for a moment: longer here."""

    async def main():
        way = Way(postgres)
        admin = await asyncpg.connect(postgres)
        server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, opened(way.url(port)) as database:
            before = await asked(database, "select pg_backend_pid()")
            way.hangs_up.clear()
            passed_bytes = way.passed_bytes
            assert await admin.fetchval("select pg_terminate_backend($1, 5000)", before)
            while way.passed_bytes == passed_bytes:
                await asyncio.sleep(0.01)
            for _ in range(10):  # turns of the loop, which reads what has arrived
                await asyncio.sleep(0)
            try:
                assert await asked(database, "select pg_backend_pid()") != before
            finally:
                way.hangs_up.set()
        await admin.close()

    run(main())


def test_a_connection_that_answers_its_ping_is_lent_again(opened, run, postgres):
    async def main():
        async with opened(postgres) as database:
            await database.ping()
            made = database.instruments.watches["main"].counts.made
            for _ in range(5):
                async with database.session() as session:
                    await session.execute(text("select 1"))
            assert database.instruments.watches["main"].counts.made == made

    run(main())


def test_a_network_that_swallows_all_ends_statements_and_rollbacks_and_leaks_no_connection(
    opened, run, postgres
):
    async def main():
        way = Way(postgres)
        server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
        async with server, opened(
            way.url(server.sockets[0].getsockname()[1]),
            statement_s=0.5, connect_s=1.0, finish_s=0.3, pool_size=3, pool_overflow_max=0,
        ) as database:  # fmt: skip

            async def work(then):
                async with database.session() as session:
                    await session.execute(text("select 1"))
                    inside.release()
                    await way_is_shut.wait()
                    await then(session)

            async def fail(_session):
                raise LookupError

            inside, way_is_shut = asyncio.Semaphore(0), asyncio.Event()
            works = [
                asyncio.create_task(work(lambda session: session.execute(text("select 2")))),
                asyncio.create_task(work(fail)),
                asyncio.create_task(work(lambda session: asyncio.sleep(30))),
            ]
            for _ in works:
                await inside.acquire()
            way.is_open.clear()
            way_is_shut.set()
            await asyncio.sleep(0)
            works[2].cancel()
            ends = await asyncio.gather(*works, return_exceptions=True)
            kinds = [type(end) for end in ends]
            assert kinds[1:] == [LookupError, asyncio.CancelledError]
            assert issubclass(kinds[0], DatabaseUnavailableError), ends[0]
            assert isinstance(ends[0].__cause__, TimeoutError | DBAPIError)
            assert database.engine().pool.checkedout() == 0
            with pytest.raises(DatabaseUnavailableError, match="does not answer"):
                await database.ping()
            way.is_open.set()
            assert await database.ping() > 0

    run(main())


@pytest.mark.parametrize("pgbouncer", ["auto", "on", "off"])
def test_through_a_pooler_of_transactions_all_holds_on_every_server_connection(
    opened, run, postgres, pgbouncer
):
    async def main():
        async with TransactionPooler(postgres) as pooler, opened(
            pooler.url, pgbouncer=pgbouncer, pool_size=3, pool_overflow_max=0,
            statement_s=9, work_mem="3MB",
        ) as database:  # fmt: skip
            assert database.status()["main"]["pgbouncer"] == (pgbouncer != "off")
            asked_for = text("select :a + 1, current_setting('statement_timeout'),"
                             " current_setting('work_mem'), cast(:b as jsonb)")  # fmt: skip

            async def ask(number):
                async with database.session() as session:
                    given = {"a": number, "b": '{"c": 1}'}
                    for _ in range(2):
                        row = (await session.execute(asked_for, given)).one()
                    await asyncio.sleep(0)
                    return tuple(row)

            spare = await asyncpg.connect(pooler.url)  # brings one more server connection
            is_off = pgbouncer == "off"
            answers = await asyncio.gather(*map(ask, range(60)), return_exceptions=is_off)
            await spare.close()
            expected = [(number + 1, "9s", "3MB", {"c": 1}) for number in range(60)]
            assert (answers == expected) != is_off  # so it would be: not set, or not prepared
            assert pooler.changes > 30

    run(main())
