"""The triggers on a real PostgreSQL: made where they are missing, told where they are."""

import asyncio
import re

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from perf_middleware.database.outside.names import (
    FUNCTION_PREFIX,
    lock_halves,
    lock_of,
    mark_of,
    name_of,
)
from perf_middleware.database.outside.notices import Gathered, Inheritance, read_notice
from perf_middleware.database.outside.triggers import Triggers, quoted
from perf_middleware.database.tables.drivers.catalog import relations_of
from perf_middleware.database.tables.touched import ALL_TABLES, Table
from perf_middleware.errors import OutsideWritesError
from tests.database.outside.listening import listening, psql

SCHEMA = """
    drop schema if exists own cascade;
    create schema own;
    create table own.items (id int);
    create table own."Odd.name" (id int);
    create view own.seen as select * from own.items;
    create foreign data wrapper nothing;
    create server elsewhere foreign data wrapper nothing;
    create foreign table own.far (id int) server elsewhere;
"""
MADE = """
    select string_agg(t, ' ' order by t collate "C")
    from (select tgrelid::regclass::text as t, * from pg_trigger) made
    where not tgisinternal and tgname like 'perf_middleware_written_triggers%'
"""


@pytest.fixture(scope="module")
def schema(database):
    async def ask(statement):
        async with psql(database) as connection:
            await connection.execute(statement)

    asyncio.run(ask(SCHEMA))
    yield database
    asyncio.run(ask("drop schema own cascade; drop foreign data wrapper nothing cascade"))


@pytest.fixture
def on_server(run, schema):
    """Run a test with a connection; the triggers of the namespace are gone after it."""

    def running(test):
        async def main():
            async with psql(schema) as connection:
                try:
                    await test(connection)
                finally:
                    await connection.execute(Triggers(namespace="triggers").drop_sql())
                    assert await connection.fetchval(MADE) is None

        run(main())

    return running


OF_OWN = Triggers(namespace="triggers", tables=("own.items", 'own."Odd.name"'))
FUNCTIONS = "select count(*) from pg_proc where proname = 'perf_middleware_written_triggers'"


def test_they_are_made_where_they_are_missing_and_removed_with_their_function(on_server):
    async def test(connection):
        await connection.execute(OF_OWN.sql())
        assert await connection.fetchval(MADE) == 'own."Odd.name" own.items'
        before = await connection.fetchval("select max(oid::int) from pg_trigger")
        await connection.execute(OF_OWN.sql())
        assert await connection.fetchval("select max(oid::int) from pg_trigger") == before
        await connection.execute(Triggers(namespace="triggers", tables=("own.items",)).drop_sql())
        assert await connection.fetchval(MADE) == 'own."Odd.name"'
        assert await connection.fetchval(FUNCTIONS) == 1
        await connection.execute(OF_OWN.drop_sql())
        assert await connection.fetchval(FUNCTIONS) == 0

    on_server(test)


def test_all_tables_are_those_of_people_but_what_is_left_out(on_server):
    async def test(connection):
        notices = []
        connection.add_log_listener(lambda _, message: notices.append(message.message))
        await connection.execute(
            Triggers(namespace="triggers", tables_except=('own."Odd.name"', "not.there")).sql()
        )
        made = (await connection.fetchval(MADE)).split()
        assert "own.items" in made
        assert not {'own."Odd.name"', "own.seen", "own.far"} & set(made)
        assert notices == [
            "own.far is a foreign table: what is written at its own server is not heard"
        ]
        assert await connection.fetchval("show lock_timeout") == "0"

    on_server(test)


def test_a_migration_that_runs_the_statement_has_everything_purged(on_server, schema):
    async def test(connection):
        async with listening(schema, namespace="triggers", tables=OF_OWN.tables) as (_, heard):
            await heard.everything()
            async with connection.transaction():
                await connection.execute("alter table own.items add column price int default 5")
                await connection.execute(OF_OWN.sql())
            await heard.everything(times=2)

    on_server(test)


@pytest.mark.parametrize("table", ["own.seen", "own.not_there", "not_there"])
def test_a_name_that_is_no_table_is_an_error(on_server, table):
    async def test(connection):
        with pytest.raises(asyncpg.RaiseError, match=re.escape(f"{table} is no table that could")):
            await connection.execute(Triggers(namespace="triggers", tables=(table,)).sql())

    on_server(test)


def test_what_has_no_trigger_is_told_by_name_also_later(on_server, schema, caplog):
    async def test(connection):
        names = ("own.items", 'own."Odd.name"', "own.far", "own.seen", "own.gone")
        async with listening(schema, namespace="triggers", tables=names) as (outside, heard):
            await heard.everything()
            assert outside.status()["not_heard"] == [
                'own."Odd.name"',
                "own.far (a foreign table)",
                "own.gone (no such table)",
                "own.items",
                "own.seen (a view: name the tables that it is made of)",
            ]
            assert 'are not heard of own."Odd.name", own.far (a foreign table), ' in caplog.text
            await connection.execute(OF_OWN.sql())
            await connection.execute(f"alter table own.items disable trigger {OF_OWN.name}")
            while outside.status()["not_heard_count"] != 4:
                await asyncio.sleep(0.01)
            assert "own.items" in outside.status()["not_heard"]

    on_server(test)


def test_installing_says_what_is_not_heard_even_so(on_server, schema):
    async def test(connection):
        await connection.execute(OF_OWN.sql())
        await connection.execute(f"alter table own.items disable trigger {OF_OWN.name}")
        async with listening(schema, namespace="triggers") as (outside, _):
            assert await outside.install() == ("own.far (a foreign table)",)
            made = await connection.fetchval(MADE)
            assert {"own.items", "own.far", "own.seen"} & set(made.split()) == {"own.items"}
            assert "own.items" in await outside.drop()

    on_server(test)


def test_nobody_has_to_be_a_superuser(on_server, schema):
    async def test(connection):
        await connection.execute("""
            create role perf_writer; grant usage, create on schema own to perf_writer;
            grant trigger, insert on own.items to perf_writer
        """)
        try:
            await connection.execute("set role perf_writer; set search_path = own")
            await connection.execute(Triggers(namespace="triggers", tables=("items",)).sql())
            await connection.execute("insert into items values (1)")
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"Odd\.name"):
                await connection.execute(OF_OWN.sql())
        finally:
            await connection.execute("reset role; reset search_path")
            await connection.execute(OF_OWN.drop_sql())
            await connection.execute("drop owned by perf_writer; drop role perf_writer")

    on_server(test)


def test_what_postgresql_says_when_it_refuses_is_our_error(on_server, schema):
    async def test(_connection):
        async with listening(schema, namespace="triggers", tables=("own.seen",)) as (outside, _):
            with pytest.raises(OutsideWritesError, match=r"own\.seen is no table that could"):
                await outside.install()

    on_server(test)


def test_a_table_with_our_trigger_writes_nothing_else(on_server, schema):
    async def test(connection):
        await connection.execute(OF_OWN.sql())
        engine = create_async_engine(schema.replace("postgresql://", "postgresql+asyncpg://"))
        async with engine.begin() as sqlalchemys:
            await sqlalchemys.execute(text(OF_OWN.sql()))  # as a migration does
            relations = await sqlalchemys.run_sync(relations_of)
        await engine.dispose()
        assert Table("items", "own") not in relations.with_triggers
        await connection.execute("""
            create function own.other() returns trigger language plpgsql as 'begin end';
            create trigger other after insert on own.items execute function own.other()
        """)
        engine = create_async_engine(schema.replace("postgresql://", "postgresql+asyncpg://"))
        async with engine.begin() as sqlalchemys:
            relations = await sqlalchemys.run_sync(relations_of)
        await engine.dispose()
        assert Table("items", "own") in relations.with_triggers

    on_server(test)


# --- names and notices --------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=100))
def test_any_namespace_is_a_name_that_needs_no_quotes(namespace):
    name = name_of(namespace)
    assert re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    assert len(name) <= 63
    assert name.startswith(FUNCTION_PREFIX)
    assert "*/" not in mark_of(namespace, "fleet")[:-2]


def test_namespaces_that_look_alike_are_not_the_same():
    names = ["shop", "Shop", "shop.eu", "shop-eu", "shop_eu", "s" * 40, "s" * 41]
    assert len({name_of(name) for name in names}) == len(names)
    assert name_of("shop") == f"{FUNCTION_PREFIX}shop"


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_lock_is_found_again_among_all(lock):
    high, low = lock_halves(lock)
    assert (high << 32 | low) == lock % 2**64
    assert -(2**63) <= lock_of(str(lock)) < 2**63


@pytest.mark.parametrize(
    ("payload", "tables"),
    [
        pytest.param('["", "Own", "Items"]', {Table("items", "own")}, id="as names are compared"),
        pytest.param('["", null, null]', None, id="anything"),
        pytest.param('["a", "b"]', None, id="too short"),
        pytest.param("{}", None, id="no list"),
        pytest.param("5", None, id="a number"),
        pytest.param("", None, id="nothing"),
        pytest.param('["", 1, 2]', None, id="other kinds"),
    ],
)
def test_a_notification_means_its_table_or_all(payload, tables):
    assert read_notice(payload).written == (ALL_TABLES if tables is None else tables)


@given(st.text())
def test_no_notification_can_fail(payload):
    assert read_notice(payload).written


def test_more_tables_than_are_kept_mean_all():
    gathered = Gathered(tables_max=2)
    for name in "ab":
        gathered.add(frozenset({Table(name)}))
    assert gathered.take() == {Table("a"), Table("b")}
    for name in "abc":
        gathered.add(frozenset({Table(name)}))
    assert gathered.take() == ALL_TABLES
    assert gathered.take() == frozenset()


def test_parts_are_written_with_the_whole_and_it_with_them_but_not_their_likes():
    kin = Inheritance(
        [(Table("log"), Table("y24")), (Table("log"), Table("y25")), (Table("y25"), Table("q1"))]
    )
    assert kin.with_kin({Table("log")}) == set(map(Table, ("log", "y24", "y25", "q1")))
    assert kin.with_kin({Table("q1")}) == set(map(Table, ("log", "y25", "q1")))
    assert kin.with_kin(frozenset({Table("other")})) == {Table("other")}
    assert kin.with_kin(ALL_TABLES) == ALL_TABLES


@pytest.mark.parametrize("name", ["a\x00b", "a\tb"])
def test_no_control_character_comes_into_the_sql(name):
    with pytest.raises(ValueError, match="control character"):
        quoted(name)
