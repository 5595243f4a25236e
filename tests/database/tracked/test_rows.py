"""Look-ups by primary key depend on their rows, and writes by primary key purge no others."""

import contextlib
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import bindparam, delete, func, insert, or_, select, text, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from perf_middleware.database.tables.rows import key_text
from perf_middleware.database.tables.touched import Table, read_tags
from perf_middleware.database.tracking.reads import Reads
from tests.database.tracked.rows_stage import Folder, Item, Part, Seat, Stage, Word, names

items = Item.__table__


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    yield made
    made.engine.dispose()


READS = [
    ("get", lambda s: s.get(Item, 1), "items#1"),
    ("get of what is not there", lambda s: s.get(Item, 9), "items#9"),
    ("get of a key of two columns", lambda s: s.get(Part, (1, 2)), "parts#1,2"),
    ("select", lambda s: s.scalar(select(Item.name).where(Item.id == 1)), "items#1"),
    ("Core", lambda s: s.execute(select(items).where(items.c.id == 1)), "items#1"),
    ("a bool is a number", lambda s: s.get(Item, True), "items#1"),
    ("with more conditions", lambda s: s.scalars(
        select(Item).where(Item.id == 1, or_(Item.name == "a", Item.id == 2))), "items#1"),
    ("an aggregate of it", lambda s: s.scalar(
        select(func.count()).select_from(Item).where(Item.id == 1)), "items#1"),
    ("IN", lambda s: s.scalars(select(Item).where(Item.id.in_([1, 2]))).all(), "items#1 items#2"),
    ("IN in a part of the key", lambda s: s.scalars(
        select(Part).where(Part.item_id == 1, Part.number.in_([1, 2]))), "parts#1,1 parts#1,2"),
    ("a parameter by name", lambda s: s.scalars(
        select(Item).where(Item.id == bindparam("which")), {"which": 2}), "items#2"),
    ("a text in any case", lambda s: s.get(Word, "A "), "words#a"),
    ("refreshed", lambda s: s.refresh(s.get(Item, 1)), "items#1"),
    # and what depends on the table
    ("all", lambda s: s.scalars(select(Item)).all(), "items"),
    ("a part of the key", lambda s: s.scalars(select(Part).where(Part.item_id == 1)), "parts"),
    ("another column", lambda s: s.scalars(select(Item).where(Item.name == "a")), "items"),
    ("more than", lambda s: s.scalars(select(Item).where(Item.id >= 1)), "items"),
    ("or", lambda s: s.scalars(
        select(Item).where(or_(Item.id == 1, Item.name == "a"))), "items"),
    ("not", lambda s: s.scalars(select(Item).where(~(Item.id == 1))), "items"),
    ("an expression", lambda s: s.scalars(select(Item).where(Item.id + 0 == 1)), "items"),
    ("a number as text", lambda s: s.scalars(select(Item).where(items.c.id == "1")), "items"),
    ("a number written out", lambda s: s.scalars(
        select(Item).where(Item.id == text("1"))), "items"),
    ("no number", lambda s: s.execute(
        select(items).where(items.c.id == bindparam("i")), {"i": None}), "items"),
    ("an empty IN", lambda s: s.scalars(select(Item).where(Item.id.in_([]))), "items"),
    ("a long IN", lambda s: s.scalars(select(Item).where(Item.id.in_(range(300)))), "items"),
    ("itself as another", lambda s: s.scalars(
        select(aliased(Item, name="i")).where(text("i.id = 1"))), "items"),
    ("beside itself", lambda s: s.scalars(select(Item).where(
        Item.id == 1, select(aliased(Item).id).exists())), "items"),
    ("an OR as text", lambda s: s.scalars(
        select(Item).where(Item.id == 1, text("1 or 1"))), "items"),
    ("an OR as an operator", lambda s: s.scalars(
        select(Item).where(Item.id == 1, Item.id.op("or", precedence=99)(1))), "items"),
    ("beside itself as text", lambda s: s.scalars(select(Item).where(
        Item.id == 1, text("exists (select 1 from items)"))), "items"),
    ("a join", lambda s: s.execute(
        select(Item, Part).join(Part).where(Item.id == 1)), "items parts"),
    ("a union", lambda s: s.execute(select(Item.name).where(Item.id == 1).union(
        select(Item.name))), "items"),
    ("text", lambda s: s.execute(text("select * from items where id = 1")), "items"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "depends_on"), [pytest.param(*row[1:], id=row[0]) for row in READS]
)
def test_a_read_depends_on(stage, read, depends_on):
    stage.fill()
    assert names(stage.reads(read)[0]) == depends_on


def renamed(session):
    session.get(Item, 1).name = "new"


def upsert(session):
    new = sqlite.insert(Item).values(id=1, name="new")
    session.execute(new.on_conflict_do_update(index_elements=["id"], set_={"name": "new"}))


def taken_back(session):
    session.get(Item, 1).name = "new"
    session.flush()
    with session.begin_nested() as savepoint:
        session.add(Item(name="gone"))
        session.flush()
        savepoint.rollback()


WRITES = [
    ("flush", renamed, "items#1 parts"),
    ("an update", lambda s: s.execute(update(Item).where(Item.id == 1).values(name="n")),
     "items#1 parts"),
    ("Core", lambda s: s.execute(update(items).where(items.c.id == 1).values(name="n")),
     "items#1 parts"),
    ("of a key of two columns", lambda s: s.execute(
        update(Part).where(Part.item_id == 1, Part.number == 2).values(name="n")), "parts#1,2"),
    ("IN", lambda s: s.execute(delete(Part).where(Part.item_id == 1, Part.number.in_([1, 2]))),
     "parts#1,1 parts#1,2"),
    ("bulk by key", lambda s: s.execute(update(Part), [
        {"item_id": 1, "number": n, "name": "n"} for n in (1, 2)]), "parts#1,1 parts#1,2"),
    ("a delete that cascades", lambda s: s.delete(s.get(Item, 2)), "items#2 parts"),
    ("a new row with its key", lambda s: s.add(Part(item_id=2, number=5)), "parts#2,5"),
    ("new rows whose keys the database makes", lambda s: s.add_all(
        [Item(name="a"), Item(name="b")]), "items#3 items#4"),
    ("one in Core", lambda s: s.execute(insert(items).values(name="a")), "items#3"),
    ("many in Core", lambda s: s.execute(insert(items), [{"id": 5}, {"id": 6}]),
     "items#5 items#6"),
    ("RETURNING", lambda s: s.scalars(insert(Item).returning(Item), [{"name": "a"}]).all(),
     "items#3"),
    ("a savepoint taken back", taken_back, "items#1 parts"),
    # and what writes the table
    ("the key itself", lambda s: s.execute(update(Part).where(
        Part.item_id == 1, Part.number == 2).values(number=9)), "parts"),
    ("the key itself in a flush", lambda s: setattr(s.get(Part, (1, 2)), "number", 9), "parts"),
    ("many without keys in Core", lambda s: s.execute(
        insert(items), [{"name": "a"}, {"name": "b"}]), "items"),
    ("values in one statement", lambda s: s.execute(
        insert(items).values([{"id": 7}, {"id": 8}])), "items"),
    ("a key that is computed", lambda s: s.execute(insert(items).values(
        id=select(func.max(items.c.id) + 1).scalar_subquery())), "items"),
    ("from a select", lambda s: s.execute(insert(items).from_select(
        ["name"], select(items.c.name))), "items"),
    ("an upsert", upsert, "items parts"),
    ("instead of others", lambda s: s.execute(
        insert(items).prefix_with("or replace").values(id=1)), "items parts"),
    ("by another column", lambda s: s.execute(
        update(Part).where(Part.name == "a").values(name="n")), "parts"),
    ("all", lambda s: s.execute(delete(Part)), "parts"),
    ("text", lambda s: s.execute(text("update parts set name = 'n' where number = 1")), "parts"),
    ("more than are worth it", lambda s: s.add_all(
        [Part(item_id=1, number=n) for n in range(10, 80)]), "parts"),
    ("what deletes other rows of it", lambda s: s.delete(s.get(Folder, 1)), "folders"),
    ("what takes the place of others", lambda s: s.add(Seat(id=3, name="x")), "seats"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("write", "changes"), [pytest.param(*row[1:], id=row[0]) for row in WRITES]
)
def test_a_write_changes(stage, write, changes):
    stage.fill()
    assert names(stage.writes(write)) == changes


def test_only_tables_that_were_chosen_are_told_apart():
    for chosen, row in ((("Items", "none"), "items#1"), (("main.items",), "items"), ((), "items")):
        chooses = Stage(chosen)
        assert names(chooses.reads(lambda s: s.get(Item, 1))[0]) == row
        assert names(chooses.reads(lambda s: s.get(Part, (1, 2)))[0]) == "parts"
        assert names(chooses.writes(lambda s: s.delete(s.get(Part, (1, 2))))) == "parts"
        chooses.engine.dispose()


ONE_ID = uuid.UUID("0190163d-8694-739b-aea5-966c26f8ad91")


@pytest.mark.parametrize(
    ("one", "other", "kind", "kept_as"),
    [
        pytest.param(5, True + 4, "integer", "integer", id="numbers"),
        pytest.param("Straße", "STRASSE ", "text", "text", id="texts as collations compare them"),
        pytest.param(ONE_ID, str(ONE_ID).upper(), "uuid", "uuid", id="a UUID and its text"),
        pytest.param(ONE_ID, str(ONE_ID), "uuid", "text", id="kept as text"),
        pytest.param(b"a", b"a", "bytes", "bytes", id="bytes"),
    ],
)
def test_keys_that_are_equal_have_one_text(one, other, kind, kept_as):
    assert key_text(one, kind, kept_as) == key_text(other, kind, kept_as) is not None


@pytest.mark.parametrize(
    ("value", "kind", "kept_as"),
    [
        pytest.param("5", "integer", "integer", id="a text for a number"),
        pytest.param(5, "integer", "text", id="a number that is kept as text"),
        pytest.param(5.0, "integer", "integer", id="a fraction"),
        pytest.param(2**63, "integer", "integer", id="a number no database has"),
        pytest.param("no", "uuid", "uuid", id="no UUID"),
        pytest.param(None, "text", "text", id="nothing"),
    ],
)
def test_keys_without_a_sure_text_have_none(value, kind, kept_as):
    assert key_text(value, kind, kept_as) is None


@given(st.text(), st.sampled_from(["text", "bytes"]))
def test_a_text_of_a_key_is_short_and_plain(value, kind):
    given_value = value if kind == "text" else value.encode("utf-8", "surrogatepass")
    found = key_text(given_value, kind, kind)
    assert found is not None
    assert len(found) <= 40
    assert not set(found) & set(",#@% ")


def test_an_answer_made_of_many_rows_depends_on_their_table(stage):
    stage.fill()

    def read(session):
        for key in range(1, 40):
            session.get(Item, key)
        session.get(Part, (1, 1))

    tables, _, tags = stage.reads(read)
    assert Item.__tablename__ in names(tables).split()
    assert "db:r:items@#1" not in tags  # its table says it already
    assert "db:t:items@" in tags
    kept = Reads()
    for key in range(100):
        kept.add_tags(read_tags({Table("items", None, str(key))}))
    assert kept.tags() == ("db:any", "db:t:items", "db:t:items@")


# --- never an outdated answer ---------------------------------------------------------------------

LOOK_UPS = {
    "item": lambda k: lambda s: _shown(s.get(Item, k)),
    "item by select": lambda k: lambda s: s.scalars(select(Item.name).where(Item.id == k)).all(),
    "two items": lambda k: (
        lambda s: sorted(s.scalars(select(Item.name).where(Item.id.in_([k, 2]))))
    ),
    "items": lambda k: lambda s: [tuple(r) for r in s.execute(select(Item.id, Item.name))],
    "part": lambda k: lambda s: _shown(s.get(Part, (k, 1))),
    "parts of": lambda k: lambda s: sorted(s.scalars(select(Part.name).where(Part.item_id == k))),
    "folder": lambda k: lambda s: _shown(s.get(Folder, k)),
    "word": lambda k: lambda s: _shown(s.get(Word, "xABc"[k])),
    "seat": lambda k: lambda s: _shown(s.get(Seat, k)),
}


def _shown(found):
    return found and found.name


def _added(session, cls, key, **values):
    if session.get(cls, key) is None:
        session.add(cls(**values))


CHANGES = {
    "flush": lambda s, k, v: setattr(s.get(Item, k) or Item(), "name", v),
    "core": lambda s, k, v: s.execute(update(items).where(items.c.id == k).values(name=v)),
    "by name": lambda s, k, v: s.execute(update(Item).where(Item.name == v).values(name=f"{k}")),
    "move": lambda s, k, v: s.execute(update(Item).where(Item.id == k).values(id=k + 2)),
    "move all": lambda s, k, v: s.execute(update(Item).values(id=Item.id + 2)),
    "add": lambda s, k, v: _added(s, Item, k, id=k, name=v),
    "add anywhere": lambda s, k, v: s.add(Item(name=v)),
    "add several": lambda s, k, v: s.execute(insert(Item), [{"name": v}, {"name": v}]),
    "delete": lambda s, k, v: s.execute(delete(Item).where(Item.id == k)),
    "raw": lambda s, k, v: s.execute(
        text("update items set name = :v where id = :k"), {"k": k, "v": v}),
    "upsert": lambda s, k, v: s.execute(
        sqlite.insert(items).values(id=k, name=v).on_conflict_do_update(
            index_elements=["id"], set_={"name": v})),
    "part": lambda s, k, v: s.execute(update(Part), [{"item_id": k, "number": 1, "name": v}])
    if s.get(Part, (k, 1)) else None,
    "folder": lambda s, k, v: s.execute(delete(Folder).where(Folder.id == k)),
    "word": lambda s, k, v: s.execute(update(Word).where(Word.word == "xabc"[k]).values(name=v)),
    "seat": lambda s, k, v: s.execute(update(Seat).where(Seat.id == k).values(name=v)),
    "other seat": lambda s, k, v: s.execute(insert(Seat).values(name=v)),
}  # fmt: skip
KEYS = st.integers(1, 3)
STEPS = st.one_of(
    st.tuples(st.just("read"), st.sampled_from(sorted(LOOK_UPS)), KEYS),
    st.tuples(st.sampled_from("xyz"), st.sampled_from(sorted(CHANGES)), KEYS),
)


def outdated(stage):
    return [
        (form, key)
        for (form, key), (kept, _) in stage.kept.items()
        if kept != stage.truth(LOOK_UPS[form](key))
    ]


@pytest.mark.parametrize("form", CHANGES)
def test_what_a_way_of_writing_changes_is_forgotten(stage, form):
    stage.fill()
    for name, look_up in LOOK_UPS.items():
        for key in (1, 2, 3):
            stage.read((name, key), look_up(key))
    stage.writes(lambda s: CHANGES[form](s, 1, "y"))
    assert not outdated(stage)


@settings(max_examples=20)
@given(st.lists(STEPS, max_size=8))
def test_no_answer_is_ever_older_than_a_commit(stage, steps):
    stage.fill()
    for form, look_up in LOOK_UPS.items():  # all is kept, so that each write has to purge it
        stage.read((form, 1), look_up(1))
    for value, form, key in steps:
        if value == "read":
            stage.read((form, key), LOOK_UPS[form](key))
        else:
            with contextlib.suppress(IntegrityError):
                stage.writes(
                    lambda s, form=form, key=key, value=value: CHANGES[form](s, key, value)
                )
    assert not outdated(stage)


@pytest.mark.parametrize("form", ["flush", "core", "add", "delete", "add anywhere"])
def test_a_write_by_key_leaves_the_answers_of_other_rows(stage, form):
    stage.fill()
    for key in (1, 2, 3, 4):
        stage.read(key, LOOK_UPS["item"](key))
    stage.read("all", LOOK_UPS["items"](0))
    written = {"add": 3, "add anywhere": 3}.get(form, 1)
    stage.writes(lambda s: CHANGES[form](s, written, "new"))
    assert sorted(stage.kept) == [key for key in (1, 2, 3, 4) if key != written]
