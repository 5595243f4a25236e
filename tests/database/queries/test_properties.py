"""Keys: what differs never shares one, what is equal does.  Rows and objects: a round trip."""

import datetime as dt
import decimal
import enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    bindparam,
    create_engine,
    literal,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import joinedload, load_only, raiseload, selectinload, with_loader_criteria

from perf_middleware import ValueCache
from perf_middleware.database.queries.drivers.cells import Cells
from perf_middleware.database.queries.drivers.plans import Plans
from perf_middleware.database.queries.functions import begins_as_a_read, locks_rows, steadiness
from perf_middleware.database.queries.keys import statement_key
from tests.database.queries.stage import Colour, Item, Owner

SHELF = ValueCache().asides()
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3), st.sampled_from("01aé'"),
    st.binary(max_size=2), st.decimals(-3, 3, places=1), st.uuids(), st.datetimes(),
    st.lists(st.integers(0, 2), max_size=3), st.sampled_from(Colour),
)  # fmt: skip


class Built:
    """A statement, and what tells it apart: two with the same text are the same question."""

    def __init__(self, statement, told):
        self.statement, self.told = statement, told


OPTIONS = {
    "none": (),
    "items": (selectinload(Owner.items),),
    "joined": (joinedload(Owner.items),),
    "labels": (selectinload(Owner.items).selectinload(Item.labels),),
    "some": (load_only(Owner.name),),
    "raise": (raiseload(Owner.items),),
}


@st.composite
def statements(draw):
    what = draw(st.sampled_from(["entity", "columns", "table", "labels", "text", "types"]))
    value = draw(VALUES)
    told = [what, type(value), repr(value)]
    if what == "text":
        sql = draw(st.sampled_from(["select :x", "select :x ", "select :x, 1"]))
        return Built(text(sql).bindparams(x=value), (*told, sql))
    if what == "types":
        kind = draw(st.sampled_from([String, Integer, Uuid]))
        return Built(select(type_coerce(Owner.id, kind)), (what, kind))
    made = {
        "entity": lambda: select(Owner),
        "columns": lambda: select(Owner.id, Owner.name, Owner.kind),
        "table": lambda: select(Owner.__table__),
        "labels": lambda: select(Owner.id.label("name"), Owner.name.label("id")),
    }[what]()
    if what == "entity":
        name = draw(st.sampled_from(sorted(OPTIONS)))
        made = made.options(*OPTIONS[name])
        told.append(name)
        if draw(st.booleans()):
            limit = draw(st.integers(1, 2))
            made = made.options(with_loader_criteria(Item, Item.id > limit))
            told.append(("criteria", limit))
    column = draw(st.sampled_from([Owner.name, Owner.id]))
    made = made.where(column == literal(value, String))
    told.append(column.key)
    if draw(st.booleans()):
        limit = draw(st.integers(1, 3))
        made = made.limit(limit)
        told.append(("limit", limit))
    if draw(st.booleans()):
        made = made.where(Owner.id == bindparam("given"))
        told.append("given")
    return Built(made, tuple(told))


DIALECTS = [sqlite.dialect(), postgresql.dialect()]


def key_of(plans, statement, *, dialect=DIALECTS[0], **asked):
    plan, key = plans.of(statement, dialect, None)
    assert plan.digest is not None, plan.nameless
    return statement_key(
        plan.digest, asked.get("label", "db"), schemas=asked.get("schemas"),
        vary=asked.get("vary"), values=[each.effective_value for each in key.bindparams],
        params=asked.get("params"), text_of=SHELF.text_of,
    )  # fmt: skip


@given(statements(), statements())
@settings(max_examples=100)
def test_two_statements_share_a_key_only_where_they_ask_the_same(one, other):
    here, elsewhere = Plans(), Plans()  # of two processes
    assert key_of(here, one.statement) == key_of(elsewhere, one.statement)
    same = key_of(here, one.statement) == key_of(elsewhere, other.statement)
    assert same is (one.told == other.told)


ASKED = st.fixed_dictionaries(
    {},
    optional={
        "label": st.sampled_from(["db", "db2", "d"]),
        "schemas": st.sampled_from([None, {None: "a"}, {None: "b"}, {"a": None}, {}]),
        "vary": VALUES,
        "params": st.one_of(st.none(), st.dictionaries(st.sampled_from("ab"), VALUES)),
        "dialect": st.sampled_from(DIALECTS),
    },
)


@given(ASKED, ASKED)
def test_values_schemas_database_and_what_it_varies_by_are_all_in_the_key(one, other):
    plans, wanted = Plans(), select(Owner.id)

    def told(asked):
        names = ("label", "schemas", "vary", "params")
        said = {"label": "db", **{name: asked[name] for name in names if name in asked}}
        return {n: repr(v) for n, v in said.items() if v is not None}, asked.get(
            "dialect", DIALECTS[0]
        )

    same = key_of(plans, wanted, **one) == key_of(plans, wanted, **other)
    assert same is (told(one) == told(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True), (1, 1.0), (1, "1"), (0.0, -0.0), ("a", b"a"), (None, "None"), ([1], (1,)),
        (decimal.Decimal("1.0"), decimal.Decimal("1.00")), (Colour.RED, "r"),
        (dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_values_of_other_types_have_other_keys(one, other):
    plans = Plans()
    keys = {key_of(plans, select(Owner.id), params={"x": value}) for value in (one, other)}
    assert len(keys) == 2


def test_classes_inside_of_functions_are_told_apart():
    def made(kind):
        class Local(Uuid):
            cache_ok = True
            told = kind

        return select(type_coerce(Owner.id, Local()))

    plans = Plans()
    assert key_of(plans, made("a")) != key_of(plans, made("b"))


class Size(enum.Enum):
    S = 1
    L = 2


TABLE = Table(
    "round_trip", MetaData(), Column("id", Integer, primary_key=True), Column("f", Float),
    Column("d", Numeric(12, 2)), Column("t", DateTime), Column("u", Uuid), Column("b", LargeBinary),
    Column("s", String), Column("e", Enum(Size)), Column("j", JSON(none_as_null=True)),
)  # fmt: skip
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "f": st.none() | st.floats(allow_nan=False),
            "d": st.none() | st.decimals(-1000, 1000, places=2),
            "t": st.none() | st.datetimes(),
            "u": st.none() | st.uuids(),
            "b": st.none() | st.binary(max_size=5),
            "s": st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
            "e": st.none() | st.sampled_from(Size),
            "j": st.none() | JSONS,
        }
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        TABLE.create(connection)
        yield connection
    engine.dispose()


@given(ROWS)
@settings(max_examples=40)
def test_rows_come_back_as_they_are_also_over_bytes(connection, rows):
    connection.execute(TABLE.delete())
    for row in rows:
        connection.execute(TABLE.insert().values(row))
    found = connection.execute(select(TABLE).order_by(TABLE.c.id)).all()
    memo = ValueCache()
    cells = Cells(memo.asides().register)
    kept = tuple(map(cells.row, found))
    assert kept == tuple(tuple(row) for row in found)
    back = memo.packer.unpack(memo.packer.pack(kept, key="k"), key="k")
    assert repr(back) == repr(kept)
    changes = any(isinstance(row["j"], list | dict) for row in rows)
    assert cells.is_unchanging is not changes


@given(st.text(max_size=40))
def test_any_text_is_looked_at(sql):
    begins_as_a_read(sql), locks_rows(sql), steadiness(sql)


@pytest.mark.parametrize(
    ("sql", "is_volatile", "is_of_a_session"),
    [
        ("select now() from t", True, False),
        ("select NOW ( ) from t", True, False),
        ("select a from t where d > current_date", True, False),
        ("select a from t where d > date('now')", True, False),
        ("select date() from t", True, False),
        ("select a from t tablesample system (10)", True, False),
        ("select nextval('s')", False, True),
        ("select current_user", False, True),
        ("select a from t where b = current_setting('x')", False, True),
        ("select now, random from t", False, False),
        ("select t.current_date from t", False, False),
        ("select date(created) from t", False, False),
        ('select "current_user" from t', False, False),
    ],
)
def test_functions_that_move_are_known_by_name(sql, is_volatile, is_of_a_session):
    found = steadiness(sql)
    assert (found.is_volatile, found.is_of_a_session) == (is_volatile, is_of_a_session)


@pytest.mark.parametrize(
    ("sql", "is_a_read"),
    [
        ("select 1", True), (" ( select 1)", True), ("-- a\n/* b */ WITH x as (select 1)", True),
        ("values (1)", True), ("table t", True), ("selecting", False), ("update t set a=1", False),
        ("call pay()", False), ("explain analyze delete from t", False), ("", False),
    ],
)  # fmt: skip
def test_the_first_word_tells_a_query(sql, is_a_read):
    assert begins_as_a_read(sql) is is_a_read
