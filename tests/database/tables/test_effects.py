"""What statements really do to a SQLite and a PostgreSQL, and what is said of them: never less."""

import asyncio
import sqlite3

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from perf_middleware.database.tables.drivers.catalog import relations_of
from perf_middleware.database.tables.drivers.compiled import StatementTables
from perf_middleware.database.tables.touched import ALL_TABLES, Table, overlap
from tests.database.real_postgres import postgres

SQLITE = """
    pragma foreign_keys = on;
    create table a (i integer primary key, x int);
    create table b (i integer primary key, x int references a (i) on delete cascade);
    create table c (i integer primary key, x int references b (i) on delete set null);
    create table d (i integer primary key, x int references a (i));
    create table e (i integer primary key, x int);
    create table log (what text);
    create trigger e_log after insert on e begin insert into log values ('e'); end;
    create view v as select a.i, b.x from a join b on b.x = a.i;
    insert into a values (1, 1), (2, 2), (3, 3);
    insert into b values (1, 1), (2, 2);
    insert into c values (1, 1), (2, 2);
    insert into d values (1, 3);
    insert into e values (1, 1);
"""
TABLES = ("a", "b", "c", "d", "e", "log")


def sqlite_with_data():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SQLITE)
    return connection


@pytest.fixture(scope="module")
def lite():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.connection.driver_connection.executescript(SQLITE)
        relations = relations_of(connection)
    engine.dispose()
    return StatementTables(engine.dialect, relations=relations)


def contents(connection):
    return {name: connection.execute(f"select * from {name}").fetchall() for name in TABLES}


names = st.sampled_from(["a", "b", "c", "d", "e", "main.a", '"B"', "v"])
targets = st.sampled_from(["a", "b", "c", "d", "e", "A", "main.b", "[c]"])
number = st.sampled_from(["1", "2", "3", "4", "7"])


@st.composite
def queries(draw, depth=2):
    one = draw(names)
    if not depth:
        return f"select i, x from {one}"
    inner = draw(queries(depth=depth - 1))
    form = draw(st.integers(0, 7))
    return [
        f"select i, x from {one}",
        f"select {one.split('.')[-1]}.i, q.x from {one} join ({inner}) q on true",
        f"select i, x from {one} where exists ({inner})",
        f"select i, (select max(x) from ({inner})) as x from {one}",
        f"with q as ({inner}) select i, x from q",
        f"with {one.split('.')[-1]} as ({inner}) select i, x from {one.split('.')[-1]}",
        f"select i, x from {one} union all {inner}",
        f"select i, x from ({inner}) where i in (select x from {one})",
    ][form]


@st.composite
def writes(draw):
    target, query, n = draw(targets), draw(queries(depth=1)), draw(number)
    form = draw(st.integers(0, 8))
    return [
        f"insert into {target} values ({n}, null)",
        f"insert or replace into {target} values ({n}, null)",
        f"insert into {target} select i + 10, null from ({query})",
        f"insert into {target} values ({n}, null) on conflict (i) do update set x = null",
        f"update {target} set x = null where i = {n}",
        f"update {target} set i = i + 100 where i in (select i from ({query}))",
        f"update or ignore {target} set x = {n}",
        f"delete from {target} where i = {n}",
        f"with q as ({query}) delete from {target} where i in (select i from q)",
    ][form]


@settings(max_examples=250)
@given(sql=writes())
def test_a_table_that_a_statement_changes_in_sqlite_is_one_it_is_said_to_write(lite, sql):
    connection = sqlite_with_data()
    try:
        before = contents(connection)
        try:
            connection.execute(sql)
        except sqlite3.Error:
            return
        after = contents(connection)
    finally:
        connection.close()
    said = lite.of_text(sql).writes
    for name in TABLES:
        if before[name] != after[name]:
            assert overlap(said, frozenset({Table(name)})), (name, said)


@settings(max_examples=250)
@given(sql=queries())
def test_a_table_that_sqlite_reads_for_a_query_is_one_it_is_said_to_read(lite, sql):
    connection = sqlite_with_data()
    read = set()

    def note(action, table, *_):
        if action == sqlite3.SQLITE_READ:
            read.add(table)
        return sqlite3.SQLITE_OK

    connection.set_authorizer(note)
    try:
        connection.execute(sql)
    except sqlite3.Error:
        return
    finally:
        connection.close()
    touched = lite.of_text(sql)
    assert touched.writes == frozenset()
    for name in read & set(TABLES):
        assert overlap(touched.reads, frozenset({Table(name)})), (name, touched)


def test_what_is_said_of_sqlite_is_no_more_than_needed_either(lite):
    said = {
        name: {str(table) for table in lite.of_text(f"delete from {name}").writes}
        for name in ("a", "b", "c", "d")
    }
    assert said == {"a": {"a", "b", "c"}, "b": {"b", "c"}, "c": {"c"}, "d": {"d"}}
    assert lite.of_text("insert into a values (1, 1)").changes == frozenset(
        {Table("a"), Table("b"), Table("c")}
    )
    assert lite.of_text("insert into e values (1, 1)").writes == ALL_TABLES
    assert lite.of_text("select * from v").reads == frozenset(map(Table, "vab"))


POSTGRES = """
    create schema if not exists s;
    create table s.a (i int primary key, x int);
    create table s.b (i int primary key, x int references s.a on delete cascade);
    create table s.c (i int primary key, x int references s.b on delete set null on update cascade);
    create table s.d (i int primary key, x int references s.a);
    create table s.e (i int primary key, x int);
    create table s.log (what text);
    create table s.parts (i int, x int) partition by list (i);
    create table s.part1 partition of s.parts for values in (1);
    create table s.part2 partition of s.parts for values in (2);
    create table s.secret (i int);
    create table s.ruled (i int);
    alter table s.ruled enable row level security;
    create policy seen on s.ruled using (i in (select i from s.secret));
    create view s.v as select a.i, a.x from s.a where a.i in (select x from s.b);
    create view s.easy as select * from s.e;
    create function s.noted() returns trigger language plpgsql as
        $$ begin insert into s.log values ('e'); return new; end $$;
    create trigger noted after insert or update on s.e for each row execute function s.noted();
    create function s.pay() returns int language sql as $$ delete from s.c returning 1 $$;
    create view s.by_function as select s.pay() as paid;
    insert into s.a values (1, 1), (2, 2), (3, 3);
    insert into s.b values (1, 1), (2, 2);
    insert into s.c values (1, 1), (2, 2);
    insert into s.d values (1, 3);
    insert into s.e values (1, 1);
    insert into s.parts values (1, 1), (2, 2);
"""
PG_TABLES = ("a", "b", "c", "d", "e", "log", "part1", "part2")
PG_WRITES = [
    "delete from a where i = 1",
    "delete from s.a where i = 2",
    'DELETE FROM ONLY "s"."a" AS q USING b WHERE q.i = b.x',
    "delete from b",
    "update b set i = i + 10",
    "update a set x = 9 from b where a.i = b.x",
    "insert into a values (9, 9)",
    "insert into a values (1, 9) on conflict (i) do update set x = excluded.x",
    "insert into d select i + 10, i from a",
    "insert into e values (9, 9)",
    "update easy set x = 5",
    "insert into easy values (8, 8)",
    "insert into parts values (1, 5)",
    "update parts set i = 2 where i = 1",
    "delete from part1",
    "with gone as (delete from c returning *) select count(*) from gone",
    "with gone as (delete from c returning *) insert into d select i + 50, 1 from gone",
    "with a as (select 1 as i) delete from c using a where c.i = a.i",
    "merge into c using b on b.i = c.i when matched then delete",
    "merge into c using d on d.i = c.i + 7 when not matched then insert values (d.i + 70, null)",
    "select pay()",
    "select s.pay()",
    "select * from by_function",
    "do $$ begin delete from c; end $$",
    "truncate c",
    "truncate a cascade",
    "explain analyze delete from c",
    "select 1; delete from c",
    "set local work_mem = '1MB'",
]


@pytest.fixture(scope="module")
def url():
    with postgres() as given:
        yield make_url(given)


async def pg_contents(connection):
    return {
        name: await connection.fetch(f"select * from s.{name} order by 1") for name in PG_TABLES
    }


def test_a_table_that_a_statement_changes_in_postgresql_is_one_it_is_said_to_write(url):
    async def main():
        connection = await asyncpg.connect(url.render_as_string(hide_password=False))
        await connection.execute("drop schema if exists s cascade")
        await connection.execute(POSTGRES)
        engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
        async with engine.connect() as opened:
            relations = await opened.run_sync(relations_of)
            vouched = await opened.run_sync(
                lambda c: relations_of(
                    c, known_triggers=frozenset({"noted"}), known_functions=frozenset({"Pay"})
                )
            )
        await engine.dispose()
        tables = StatementTables(postgresql.dialect(), relations=relations)
        await connection.execute("set search_path = s")
        before = await pg_contents(connection)
        changing = 0
        for sql in PG_WRITES:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(sql)
            after = await pg_contents(connection)
            await transaction.rollback()
            said = tables.of_text(sql).writes
            for name in PG_TABLES:
                if before[name] != after[name]:
                    changing += 1
                    assert overlap(said, frozenset({Table(name, "s")})), (sql, name, said)
        assert changing > 30
        await connection.execute("drop schema s cascade")
        await connection.close()
        return tables, StatementTables(postgresql.dialect(), relations=vouched)

    tables, vouched = asyncio.run(asyncio.wait_for(main(), 30))

    def reads(sql):
        found = tables.of_text(sql).reads
        return found if found == ALL_TABLES else sorted(table.name for table in found)

    assert reads("select * from v") == ["a", "b", "v"]
    assert reads("select * from parts") == ["part1", "part2", "parts"]
    assert reads("select * from ruled") == ["ruled", "secret"]  # what its row policy looks at
    assert reads("select * from by_function") == ALL_TABLES
    assert tables.of_text("update e set x = 1").writes == ALL_TABLES
    assert vouched.of_text("select * from by_function").writes == frozenset()
    assert vouched.of_text("update e set x = 1").writes == frozenset({Table("e")})


def test_a_catalog_that_is_not_known_is_refused():
    class Connection:
        dialect = type("Dialect", (), {"name": "oracle"})

    with pytest.raises(ValueError, match="catalog of oracle"):
        relations_of(Connection)


def test_the_statements_tried_are_not_all_of_one_kind():
    assert len({sql.split()[0].lower() for sql in PG_WRITES}) > 8
