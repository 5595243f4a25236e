"""Which tables a SQLAlchemy statement reads and writes, however they are hidden in it."""

import gc
from typing import ClassVar

import pytest
from sqlalchemy import (
    ForeignKey,
    Sequence,
    case,
    cast,
    column,
    create_engine,
    delete,
    event,
    exists,
    extract,
    func,
    insert,
    lateral,
    literal_column,
    schema,
    select,
    table,
    tablesample,
    text,
    types,
    union,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    with_loader_criteria,
    with_polymorphic,
)
from sqlalchemy.sql.expression import ColumnElement

from perf_middleware.database.tables.drivers import raw
from perf_middleware.database.tables.drivers.compiled import StatementTables
from perf_middleware.database.tables.touched import ANYTHING, NOTHING, Table, Touched


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    posts: Mapped[list["Post"]] = relationship(back_populates="author")
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "user"}


class Manager(User):
    __tablename__ = "managers"
    id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    level: Mapped[int]
    __mapper_args__: ClassVar = {"polymorphic_identity": "manager"}


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    author: Mapped[User] = relationship(back_populates="posts")


class Own(ColumnElement):
    inherit_cache = True
    type = types.Integer()


@compiles(Own)
def written_by_the_app(element, compiler, **options):
    return "(select count(*) from secrets)"


def touching(*, reads="", inserts="", changes=""):
    def named(names):
        return frozenset(Table(*reversed(name.split("."))) for name in names.split())

    return Touched(reads=named(reads), inserts=named(inserts), changes=named(changes))


pg = StatementTables(postgresql.asyncpg.dialect())
newest = select(Post.id).order_by(Post.id.desc()).limit(3).cte("newest")


@pytest.mark.parametrize(
    ("statement", "touched"),
    [
        pytest.param(select(User), touching(reads="users"), id="an entity"),
        pytest.param(select(Manager), touching(reads="users managers"), id="joined inheritance"),
        pytest.param(
            select(with_polymorphic(User, "*")), touching(reads="users managers"), id="polymorphic"
        ),
        pytest.param(select(aliased(Post)), touching(reads="posts"), id="an alias"),
        pytest.param(
            select(User).options(joinedload(User.posts)), touching(reads="users posts"),
            id="joinedload",
        ),
        pytest.param(
            select(User).options(selectinload(User.posts)), touching(reads="users"),
            id="selectinload is a statement of its own",
        ),
        pytest.param(
            select(User).options(
                with_loader_criteria(User, lambda cls: cls.id.in_(select(Post.author_id)))
            ),
            touching(reads="users posts"), id="criteria of a loader",
        ),
        pytest.param(
            select(User.id).join(User.posts), touching(reads="users posts"), id="a relationship"
        ),
        pytest.param(
            select(User).where(exists().where(Post.author_id == User.id)),
            touching(reads="users posts"), id="EXISTS",
        ),
        pytest.param(
            select(User).where(User.posts.any()), touching(reads="users posts"), id="any()"
        ),
        pytest.param(
            select(select(func.count()).select_from(Post).scalar_subquery()),
            touching(reads="posts"), id="a scalar subquery",
        ),
        pytest.param(
            select(User).order_by(select(Post.id).limit(1).scalar_subquery()),
            touching(reads="users posts"), id="a subquery in ORDER BY",
        ),
        pytest.param(select(newest), touching(reads="posts"), id="a CTE"),
        pytest.param(
            select(User.id).add_cte(newest), touching(reads="users posts"), id="a CTE beside it"
        ),
        pytest.param(
            union(select(User.id), select(Post.id)), touching(reads="users posts"), id="UNION"
        ),
        pytest.param(
            select(lateral(select(Post.id).where(Post.author_id == User.id))).select_from(User),
            touching(reads="users posts"), id="LATERAL",
        ),
        pytest.param(
            select(tablesample(Post.__table__, 10)), touching(reads="posts"), id="TABLESAMPLE"
        ),
        pytest.param(select(User).with_for_update(), touching(reads="users"), id="FOR UPDATE"),
        pytest.param(select(1, func.now()), NOTHING, id="no table"),
        pytest.param(
            select(column("a")).select_from(table("b", schema="c")), touching(reads="c.b"),
            id="a light table with a schema",
        ),
        pytest.param(
            select(
                cast(Post.id, types.Text), extract("year", func.now()), func.coalesce(Post.id, 1),
                case((Post.id == 1, 2)), Post.id.in_([1, 2]), func.lower("A"),
                func.row_number().over(order_by=Post.id), func.count(Post.id.distinct()),
            ),
            touching(reads="posts"), id="functions that touch no table",
        ),
        pytest.param(
            select(func.json_each(Post.id).table_valued("value")), NOTHING,
            id="a known function as a table",
        ),
        pytest.param(select(func.pay(1)), ANYTHING, id="a function that is not known"),
        pytest.param(select(func.app.count(1)), ANYTHING, id="a known name in a schema"),
        pytest.param(
            select(User).where(func.pay(User.id) == 1), ANYTHING, id="a function in a condition"
        ),
        pytest.param(select(Sequence("s").next_value()), NOTHING, id="a sequence"),
        pytest.param(insert(Post).values(id=1), touching(inserts="posts"), id="INSERT"),
        pytest.param(
            insert(Post).returning(Post.id), touching(reads="posts", inserts="posts"),
            id="INSERT RETURNING",
        ),
        pytest.param(
            insert(Post).from_select(["author_id"], select(User.id)),
            touching(reads="users", inserts="posts"), id="INSERT FROM SELECT",
        ),
        pytest.param(
            insert(Post).values(author_id=select(func.max(User.id)).scalar_subquery()),
            touching(reads="users", inserts="posts"), id="a subquery in VALUES",
        ),
        pytest.param(
            insert(Post).prefix_with("OR REPLACE"), touching(reads="posts", changes="posts"),
            id="a prefix may make it more than an INSERT",
        ),
        pytest.param(
            postgresql.insert(Post).values(id=1).on_conflict_do_update(
                index_elements=["id"],
                set_={"author_id": select(func.max(User.id)).scalar_subquery()},
            ),
            touching(reads="posts users", changes="posts"), id="an upsert",
        ),
        pytest.param(
            update(User).values(kind="x").where(User.id == 1),
            touching(reads="users", changes="users"), id="UPDATE",
        ),
        pytest.param(
            update(Manager).values(level=1), touching(reads="managers", changes="managers"),
            id="UPDATE of the own table of a subclass",
        ),
        pytest.param(
            update(Post).values(author_id=User.id).where(User.kind == "x"),
            touching(reads="posts users", changes="posts"), id="UPDATE FROM",
        ),
        pytest.param(
            delete(Post).where(Post.author_id == User.id),
            touching(reads="posts users", changes="posts"), id="DELETE USING",
        ),
        pytest.param(
            delete(aliased(Post.__table__)), touching(reads="posts", changes="posts"),
            id="DELETE of an alias",
        ),
        pytest.param(
            select(delete(Post).returning(Post.id).cte("gone")),
            touching(reads="posts", changes="posts"), id="DELETE in the CTE of a SELECT",
        ),
        pytest.param(
            insert(User).from_select(
                ["id"], select(insert(Post).returning(Post.id).cte("new").c.id)
            ),
            touching(reads="posts", inserts="users posts"), id="INSERT in the CTE of an INSERT",
        ),
        pytest.param(
            select(User).where(text("kind = 'x'")).order_by(text("id desc, kind")),
            touching(reads="users"), id="pieces of text",
        ),
        pytest.param(
            select(User).where(text("exists (select 1 from posts)")),
            touching(reads="users posts"), id="a table in a piece of text",
        ),
        pytest.param(
            select(User).where(text("pay(id) > 0")), ANYTHING, id="a function in a piece of text"
        ),
        pytest.param(
            select(text("id")).select_from(text("posts")), touching(reads="posts"), id="FROM text"
        ),
        pytest.param(
            select(User.id).suffix_with("union all select id from posts"),
            touching(reads="users posts"), id="more than a piece in a suffix",
        ),
        pytest.param(
            select(literal_column("(select 1 from z)")), touching(reads="z"), id="literal_column"
        ),
        pytest.param(
            text("select id from posts").columns(Post.id), touching(reads="posts"),
            id="text as rows",
        ),
        pytest.param(
            select(User).from_statement(text("select * from users join x on true")),
            touching(reads="users x"), id="from_statement",
        ),
        pytest.param(
            text("delete from posts"), touching(reads="posts", changes="posts"), id="text alone"
        ),
        pytest.param(schema.CreateTable(Post.__table__), ANYTHING, id="DDL"),
        pytest.param(schema.DDL("drop table posts"), ANYTHING, id="DDL as text"),
        pytest.param(func.pay(), ANYTHING, id="a function alone"),
        pytest.param(select(User).with_statement_hint("x"), ANYTHING, id="a hint"),
        pytest.param(select(Own()), ANYTHING, id="SQL that the app renders"),
        pytest.param(select(User).where(User.id == Own()), ANYTHING, id="the same, deep in it"),
    ],
)  # fmt: skip
def test_a_statement_touches(statement, touched):
    assert pg.of_statement(statement) == touched


def test_sqlite_s_own_forms_are_understood_as_well():
    lite = StatementTables(sqlite.dialect())
    upsert = sqlite.insert(Post).values(id=1).on_conflict_do_nothing()
    assert lite.of_statement(upsert) == touching(reads="posts", changes="posts")
    assert lite.of_statement(select(func.strftime("%s", "now"))) == NOTHING


def test_a_schema_that_is_translated_is_the_one_that_is_meant():
    found = pg.of_statement(select(Post), schema_translate_map={None: "tenant"})
    assert found == touching(reads="tenant.posts")


def test_the_app_may_vouch_for_its_functions():
    vouched = StatementTables(postgresql.dialect(), known_functions=frozenset({"Pay"}))
    assert vouched.of_statement(select(func.pay(1))) == NOTHING
    assert vouched.of_text("select pay(1) from users") == touching(reads="users")


def test_without_sqlglot_text_means_anything_and_statements_do_not(monkeypatch):
    monkeypatch.setattr(raw, "parser", lambda: None)
    fresh = StatementTables(postgresql.dialect())
    assert fresh.of_text("select * from users") == ANYTHING
    assert fresh.of_text("savepoint one") == NOTHING
    assert fresh.of_statement(select(User).where(text("kind = 'x'"))) == ANYTHING
    assert fresh.of_statement(select(User).order_by(text("id desc"))) == touching(reads="users")
    assert fresh.of_statement(select(User)) == touching(reads="users")
    assert fresh.not_understood == 2


def test_each_compiled_statement_is_read_once_and_forgotten_with_it():
    engine = create_engine("sqlite://")
    tables = StatementTables(engine.dialect)
    found, read = [], []
    once = tables.of_statement
    tables.of_statement = lambda *given, **options: read.append(1) or once(*given, **options)

    @event.listens_for(engine, "after_cursor_execute")
    def note(connection, cursor, statement, parameters, context, executemany):
        if context.compiled is not None:
            found.append(tables.of_compiled(context.compiled))

    Base.metadata.create_all(engine)
    del found[:], read[:]
    with Session(engine) as session:
        for number in range(5):
            session.get(User, number)
            session.scalars(select(User).where(User.id == number).options(joinedload(User.posts)))
        session.add(Manager(id=1, level=1))
        session.flush()
        session.execute(text("delete from posts"))
    assert len(read) == 5  # get, select, two inserts, text
    # The joined load, and the first of both parents for the polymorphic one.
    assert found[1] == touching(reads="users posts")
    assert found[-3:] == [
        touching(inserts="users"), touching(inserts="managers"),
        touching(reads="posts", changes="posts"),
    ]  # fmt: skip
    engine.dispose()
    kept = tables._of_compiled
    assert len(kept) > 0
    engine.clear_compiled_cache()
    gc.collect()
    assert len(kept) <= 4  # the mapper keeps its own


def test_a_statement_that_cannot_be_compiled_means_anything():
    before = pg.not_understood
    assert pg.of_statement(update(Post).values({"nothing": 1})) == ANYTHING
    assert pg.not_understood == before + 1
