"""Fingerprints: what differs only in its values is the same, and no value is left in it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perf_middleware.database.statements.fingerprint import (
    CHARS_MAX,
    CUT,
    TEXT_CHARS_MAX,
    TOKENS_MAX,
    fingerprint,
    normalise,
)


@pytest.mark.parametrize(
    ("sql", "normalised"),
    [
        pytest.param("select  *\n from t", "SELECT * FROM t", id="white space and keywords"),
        pytest.param("select * from T;", "SELECT * FROM T", id="names as they are, no semicolon"),
        pytest.param("where a = 1", "WHERE a = ?", id="a number"),
        pytest.param("where a = -1.5e-3", "WHERE a = ?", id="a number with a sign and exponent"),
        pytest.param("where a = 0xFF", "WHERE a = ?", id="a hexadecimal number"),
        pytest.param("select a-1, t1.b2", "SELECT a - ?, t1.b2", id="digits in names stay"),
        pytest.param("where a = 'it''s'", "WHERE a = ?", id="a string with a quote in it"),
        pytest.param(r"where a = E'it\'s'", "WHERE a = ?", id="a string with an escaped quote"),
        pytest.param(r"where a = E'it''s\' b'", "WHERE a = ?", id="and a doubled one"),
        pytest.param("where a = U&'x' or b = X'ff'", "WHERE a = ? OR b = ?", id="prefixed strings"),
        pytest.param("select $$a 'b$$, $q$ $$ $q$", "SELECT ?", id="dollar quotes"),
        pytest.param("where a = 'open", "WHERE a = ?", id="a string that is not closed"),
        pytest.param('select "open', "SELECT ?", id="a quoted name that is not closed"),
        pytest.param('where a = "x"', "WHERE a = ?", id="SQLite's string in double quotes"),
        pytest.param('where "x"."y" = 1', 'WHERE "x"."y" = ?', id="quoted names stay"),
        pytest.param("a = ? and b = $1", "a = ? AND b = ?", id="question marks, dollar numbers"),
        pytest.param("a = %s and b = %(b_1)s", "a = ? AND b = ?", id="format and pyformat"),
        pytest.param("a = :a and b = :1", "a = ? AND b = ?", id="named and numeric"),
        pytest.param("a = @p1", "a = ?", id="T-SQL's"),
        pytest.param("a = $1::VARCHAR", "a = ?", id="a mark with a cast"),
        pytest.param(
            "a = $1::TIMESTAMP WITH TIME ZONE and b = $2::NUMERIC(10, 2)", "a = ? AND b = ?",
            id="a mark with a cast of several words",
        ),
        pytest.param("a::text = 1", "a::text = ?", id="the cast of a name stays"),
        pytest.param("a in (1, 2, 3)", "a IN (?)", id="a list of numbers"),
        pytest.param("a in ($1, $2::INT)", "a IN (?)", id="a list of marks"),
        pytest.param("a in ('x', NULL, -1)", "a IN (?)", id="a list of anything"),
        pytest.param("a in (1, /* 2 */ 3)", "a IN (?)", id="a list with a comment in it"),
        pytest.param('a in ("x", "y")', "a IN (?)", id="a list of SQLite's double quotes"),
        pytest.param("(a, b) in ((1, 2), (3, 4))", "(a, b) IN ((?))", id="a list of rows"),
        pytest.param(
            "insert into t (a) values (1, 'x'), (2, NULL)", "INSERT INTO t(a) VALUES (?)",
            id="rows of VALUES",
        ),
        pytest.param(
            "values (1, now()), (2, now()), (3, now())", "VALUES (?, now())",
            id="rows of VALUES with a call in them",
        ),
        pytest.param("values (DEFAULT, 1)", "VALUES (?)", id="DEFAULT in a row"),
        pytest.param("a is null", "a IS NULL", id="a test for NULL is no value"),
        pytest.param("a is not true", "a IS NOT TRUE", id="a test for truth is no value"),
        pytest.param("set a = null", "SET a = ?", id="NULL as a value"),
        pytest.param("select 1 -- note\nfrom t", "SELECT ? FROM t", id="a comment in a line"),
        pytest.param("/* /* a */ b */ select 1", "SELECT ?", id="comments nest"),
        pytest.param("select '/*', 1 from t -- '", "SELECT ? FROM t", id="no comment in a string"),
        pytest.param("/* open", "", id="a comment that is not closed"),
        pytest.param("savepoint sa_savepoint_7", "SAVEPOINT ?", id="numbered savepoints"),
        pytest.param(
            "rollback to savepoint s1", "ROLLBACK TO SAVEPOINT ?", id="and the way back to one"
        ),
        pytest.param("a ->> 'k' || b", "a ->> ? || b", id="operators"),
        pytest.param("count ( * )", "count(*)", id="space in calls"),
        pytest.param("", "", id="nothing"),
    ],
)  # fmt: skip
def test_a_statement_without_its_values(sql, normalised):
    assert normalise(sql) == normalised
    assert normalise(normalised) == normalised


@pytest.mark.parametrize(
    ("sql", "normalised"),
    [
        pytest.param(r"a = 'it\'s secret'", "a = ?", id="a backslash escapes"),
        pytest.param(r'a = "it\"s secret"', "a = ?", id="in double quotes as well"),
        pytest.param("select 1 # secret\nfrom `t`", "SELECT ? FROM `t`", id="a comment"),
    ],
)
def test_mysql_has_quotes_and_comments_of_its_own(sql, normalised):
    assert normalise(sql, backslash_escapes=True) == normalised


@pytest.mark.parametrize("size", [1, 2, 7, 1_000, 15_000])
def test_lists_of_any_length_are_one_fingerprint(size):
    numbers = ", ".join(str(n) for n in range(size))
    rows = ", ".join(["($1::INTEGER, 'x', 0)"] * min(size, 8_000))
    assert normalise(f"a in ({numbers}) and b") == "a IN (?) AND b"
    assert normalise(f"insert into t values {rows} returning id") == (
        "INSERT INTO t VALUES (?) RETURNING id"
    )


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("select * from orders o join lines", "select orders"),
        ('select 1 from "Order"', "select Order"),
        ("insert into shop.orders (a) values (1)", "insert shop.orders"),
        ("update orders set a = 1", "update orders"),
        ("delete from orders", "delete orders"),
        ("with x as (select 1 from a) select * from x", "with a"),
        ("select * from (select 1 from inside) as x", "select inside"),
        ("select 1", "select"),
        ("", "statement"),
    ],
)
def test_its_name_tells_what_is_done_to_which_table(sql, name):
    found = fingerprint(sql)
    assert found.name == name
    assert found.label == f"{name} {found.id}"
    assert len(found.id) == 12


def test_what_is_too_long_is_cut_and_still_told_apart():
    columns = ", ".join(f"a{n}" for n in range(1_200))
    one, other = fingerprint(f"select {columns}"), fingerprint(f"select {columns} from t")
    assert one.id != other.id
    assert one.text == other.text
    assert (len(one.text), one.text[-1]) == (TEXT_CHARS_MAX, CUT)


@pytest.mark.parametrize(
    "sql",
    [
        "select " + "a b " * TOKENS_MAX,
        "select '" + "x" * CHARS_MAX,
        "((1)" * CHARS_MAX,
        "$a" * CHARS_MAX,
        "/*" * CHARS_MAX,
        "1::a " * CHARS_MAX,
        "(1," * CHARS_MAX,
        "'a" * CHARS_MAX,
        "x" * CHARS_MAX,
    ],
    ids=lambda sql: sql[:12],
)
def test_the_work_for_one_text_is_bounded(sql):
    assert len(normalise(sql)) <= 3 * TOKENS_MAX + 100


# --- no value is ever in it ---------------------------------------------------------------------

SECRET = "zq9"
SECRETS = st.lists(st.sampled_from(["zq9", "'", "''", " ", "\\", '"', "$", "--", "/*", "(", ","]),
                   min_size=1, max_size=8).map(lambda parts: "".join(["zq9", *parts]))  # fmt: skip
# A space before those that a name or a number would swallow: aE'x' is the name aE and 'x'.
# And one after E'x': in E'x''y\' what begins as 'y\' goes on to the next quote.
LITERALS = st.one_of(
    SECRETS.map(lambda text: "'" + text.replace("'", "''") + "'"),
    SECRETS.map(lambda text: " E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "' "),
    SECRETS.filter(lambda text: "$t$" not in text + "$").map(lambda text: f" $t${text} $t$"),
    st.integers(10**6, 10**9).map(str),
    st.decimals(10**6, 10**9, places=3).map(str),
)
AROUND = st.sampled_from(
    ["select {} from t", "a = {}", "a in ({}, {})", "f({}, b)", "values ({}, now()), ({}, {})",
     "a{}", "{}::text", "-- {}\n{}", "/* {} */ {}", "set x to {}", "t.{}", "{}{}", "x {} y", "({}"]
)  # fmt: skip


@given(st.lists(st.tuples(AROUND, st.lists(LITERALS, min_size=3, max_size=3)), max_size=5))
@example([("a = {}", ["'zq9\\'", "", ""]), ("b = {}", ["'zq9'", "", ""])])
def test_no_character_of_a_literal_is_left(parts):
    sql = " and ".join(shape.format(*literals) for shape, literals in parts)
    found = fingerprint(sql)
    assert SECRET not in found.text
    assert SECRET not in found.name
    digits = [char for char in found.text.replace("a", "") if char.isdigit()]
    # A number that is glued to a name is a part of it: `a1000000` is no value.
    assert not digits or any(shape == "a{}" for shape, _ in parts)


def closed(sql):
    """Whether nothing is open at the end of `sql`, into which what follows would be read."""
    return not any(each in sql for each in ("'", '"', "`", "$", "--", "/*", "#", ":", ".", "("))


@given(st.text(alphabet="ab1 '\"$?:%(),.-/*\\`[]\n;=@#sINnull", max_size=60), st.booleans())
def test_any_text_has_a_fingerprint_that_space_around_it_does_not_change(sql, backslashes):
    found = fingerprint(sql, backslash_escapes=backslashes)
    assert found == fingerprint(sql, backslash_escapes=backslashes)
    assert found.text == normalise(f"  {sql}\n;", backslash_escapes=backslashes) or not closed(sql)


@given(st.integers(0, 400))
def test_a_text_that_is_cut_anywhere_shows_no_value(end):
    sql = (
        "select a, 'zq9 zq9', E'zq9\\'zq9', $t$zq9 'zq9$t$, x from t where b in ('zq9', 'zq9') "
        "/* zq9 */ and c = U&'zq9' and d = $$zq9$$ -- zq9\n and \"e\" = \"zq9\" values ('zq9', 1)"
    )
    assert SECRET not in normalise(sql[:end])
