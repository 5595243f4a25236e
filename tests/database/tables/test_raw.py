"""Which tables a statement written as text touches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.database.tables.drivers.raw import (
    SQL_CHARS_MAX,
    STATEMENTS_MAX,
    RawTables,
)
from perf_middleware.database.tables.functions import KNOWN_FUNCTIONS
from perf_middleware.database.tables.touched import ANYTHING, NOTHING, Table, Touched

PG = RawTables("postgresql", known_functions=KNOWN_FUNCTIONS)
LITE = RawTables("sqlite", known_functions=KNOWN_FUNCTIONS)


def touching(reads="", changes=""):
    def named(names):
        return frozenset(Table(*reversed(name.split("."))) for name in names.split())

    return Touched(reads=named(reads), changes=named(changes))


@pytest.mark.parametrize(
    ("sql", "touched"),
    [
        ("select * from a join b using (x) where exists (select 1 from s.c)", touching("a b s.c")),
        ('SELECT * FROM "A", only b', touching("a b")),
        ("/* by */ -- me\n (select 1 from a) union (select 1 from b)", touching("a b")),
        ("with u as (select * from v) select * from u", touching("v")),
        ("with u as (select * from u) select * from u", touching("u")),
        ("with u as (select 1), v as (select * from u) select * from v, s.u", touching("s.u")),
        ("with u as (select * from w), w as (select 1) select * from u", touching("w")),
        ("select * from (with u as (select 1) select * from u) x, u", touching("u")),
        (
            "with recursive t as (select 1 from a union all select 1 from t) select 1 from t",
            touching("a t"),
        ),
        ("select 'it''s from b', $$ from c $$ from t -- from d", touching("t")),
        ("select * from a where x = $1 and y = :y and z = %(z)s for update", touching("a")),
        ("select * from a, lateral (select * from b) l, generate_series(1, 2)", touching("a b")),
        ("table a", touching("a")),
        ("insert into a select * from b returning id", touching("a b", "a")),
        ("insert into a (x) values (1) on conflict (x) do nothing", touching("a", "a")),
        ("update only s.a set x = (select 1 from b) from c", touching("s.a b c", "s.a")),
        ("delete from a using b where a.i = b.i", touching("a b", "a")),
        ("with d as (delete from a returning *) select * from d", touching("a", "a")),
        (
            "with d as (update a set x = 1 returning *) insert into b select * from d",
            touching("a b", "a b"),
        ),
        (
            "merge into a using b on a.i = b.i when matched then update set x = 1",
            touching("a b", "a"),
        ),
        ("select 1 from a; delete from b", touching("a b", "b")),
        ("select 'a\\', (select 1 from z), 'b' from t", touching("t z")),
        ("select E'a\\', (select 1 from z), b' from t", touching("t")),
        ("delete from a where x = '\\' or exists (select 1 from z)", touching("a z", "a")),
        ("begin", NOTHING),
        ("SET LOCAL statement_timeout = '1s'", NOTHING),
        ("savepoint x;", NOTHING),
        ("set local x = 1; delete from a", ANYTHING),
        ("select pay(1)", ANYTHING),
        ("select app.count(1) from a", ANYTHING),
        ("select * from pay(1)", ANYTHING),
        ("select * into b from a", ANYTHING),
        ("select nonsense from where", ANYTHING),
        ("call pay()", ANYTHING),
        ("do $$ begin delete from a; end $$", ANYTHING),
        ("copy a from stdin", ANYTHING),
        ("truncate a", ANYTHING),
        ("create table a (i int)", ANYTHING),
        ("explain analyze delete from a", ANYTHING),
        ("refresh materialized view v", ANYTHING),
        ("execute prepared", ANYTHING),
        ("commit;", NOTHING),
        ("commit and chain", NOTHING),
        ("commit prepared 'of another session'", ANYTHING),
        ("COMMIT /* that */\nPREPARED 'x'", ANYTHING),
        ("", ANYTHING),
        ("select 'unfinished", ANYTHING),
    ],
)
def test_a_text_for_postgresql_touches(sql, touched):
    assert PG.touched(sql) == touched


@pytest.mark.parametrize(
    ("sql", "touched"),
    [
        ("insert or replace into a select * from `b`", touching("a b", "a")),
        ("delete from main.a where rowid in (select x from [my table])",
         Touched(reads=frozenset({Table("a", "main"), Table("my table")}),
                 changes=frozenset({Table("a", "main")}))),
        ("select x ->> 'a', x glob 'b', strftime('%s', y) from a where z = ?", touching("a")),
        ("pragma foreign_keys = on", NOTHING),
        ("replace into a values (1)", ANYTHING),
        ("select ->", ANYTHING),
        ("pragma writable_schema = on", ANYTHING),
        ("attach 'x.db' as y", ANYTHING),
        ("select load_extension('x')", ANYTHING),
    ],
)  # fmt: skip
def test_a_text_for_sqlite_touches(sql, touched):
    assert LITE.touched(sql) == touched


@pytest.mark.parametrize(
    ("piece", "touched"),
    [
        ("x", NOTHING),
        ('a."b" desc, 2', NOTHING),
        ("x desc nulls last", NOTHING),
        ("count(*) as c", NOTHING),
        ("x = :p and y in (select y from b)", touching("b")),
        ("1) union select 1 from z where (1 = 1", touching("z")),
        ("1); delete from z where (1 = 1", touching("z", "z")),
        ("1) --", ANYTHING),
        ("pay(x) > 1", ANYTHING),
    ],
)
def test_a_piece_of_text_hides_nothing(piece, touched):
    assert PG.touched_by_piece(piece) == touched


def test_another_database_s_text_is_not_read():
    assert RawTables("oracle", known_functions=KNOWN_FUNCTIONS).touched("select 1") == ANYTHING


def test_what_is_kept_is_bounded():
    tables = RawTables("sqlite", known_functions=KNOWN_FUNCTIONS)
    for number in range(STATEMENTS_MAX + 5):
        tables.touched_by_from(f"t{number}") if number < 3 else tables._kept.setdefault(
            (f"{number}", ""), NOTHING
        )
    assert tables.touched("select 1 from a") == touching("a")
    assert len(tables._kept) <= STATEMENTS_MAX + 5
    long = "select 1 from a where " + " or ".join(["x"] * SQL_CHARS_MAX)
    assert tables.touched(long) == ANYTHING


@given(st.text(alphabet="selct from a,()'\"$*;-\n/with dinr=1", max_size=60))
def test_any_text_is_answered(sql):
    for tables in (PG, LITE):
        assert isinstance(tables.touched(sql), Touched)
        assert isinstance(tables.touched_by_piece(sql), Touched)
