"""A SQLite whose rows are told apart, and a cache of what was read of it, as simple as can be."""

from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from perf_middleware.database.tables.drivers.catalog import relations_of
from perf_middleware.database.tables.drivers.compiled import StatementTables
from perf_middleware.database.tables.relations import OWN_STATEMENT
from perf_middleware.database.tables.touched import NO_TABLES, union, write_tags
from perf_middleware.database.tracking.runtime import Tracking, collecting_reads


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Part(Base):
    """Goes with its item, and has a key of two columns."""

    __tablename__ = "parts"
    item_id: Mapped[int] = mapped_column(
        ForeignKey("items.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Folder(Base):
    """Goes with the folder it is in: deleting one row deletes others of the same table."""

    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    within: Mapped[int | None] = mapped_column(ForeignKey("folders.id", ondelete="CASCADE"))


class Word(Base):
    """In the database `A` and `a` are one key."""

    __tablename__ = "words"
    word: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Seat(Base):
    """Whoever takes the place of another row deletes that row."""

    __tablename__ = "seats"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


TABLES = """
    create table items (id integer primary key, name varchar);
    create table parts (item_id integer references items (id) on delete cascade on update cascade,
        number integer, name varchar, primary key (item_id, number));
    create table folders (id integer primary key, name varchar,
        within integer references folders (id) on delete cascade);
    create table words (word varchar collate nocase primary key, name varchar);
    create table seats (id integer primary key, name varchar unique on conflict replace);
"""
DATA = """
    delete from parts; delete from items; delete from folders; delete from words; delete from seats;
    insert into items values (1, 'one'), (2, 'two');
    insert into parts values (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c');
    insert into folders values (1, 'top', null), (2, 'below', 1), (3, 'else', null);
    insert into words values ('a', 'x'), ('b', 'y');
    insert into seats values (1, 'x'), (2, 'y');
"""


class Stage:
    """`read` keeps what it gave until a commit writes what it was made of."""

    def __init__(self, rows=("*",)):
        self.engine = engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            driver.executescript(f"pragma foreign_keys = on; {TABLES}")
            relations = relations_of(connection, with_keys=bool(rows))
        self.written = []
        self.tables = StatementTables(engine.dialect, relations=relations, rows=rows)
        self.tracking = Tracking(self._committed)
        self.tracking.watch(engine, self.tables)
        self.kept = {}
        self.fill()

    def fill(self):
        with self.engine.connect() as connection:
            connection.connection.driver_connection.executescript(DATA)
        self.kept.clear()

    def _committed(self, tables):
        self.written.append(tables)
        tags = write_tags(tables)
        self.kept = {
            key: (value, own) for key, (value, own) in self.kept.items() if own.isdisjoint(tags)
        }

    def reads(self, read):
        """The tables and rows that `read(session)` reads, and what it gives."""
        with Session(self.engine) as session, collecting_reads() as reads:
            value = read(session)
        return reads.tables, value, frozenset(reads.tags())

    def writes(self, write):
        """The tables and rows that a transaction of `write(session)` writes."""
        del self.written[:]
        with Session(self.engine) as session:
            write(session)
            session.commit()
        return union(NO_TABLES, *self.written)

    def read(self, key, read):
        """What is kept under `key`, or what `read` gives now."""
        if key not in self.kept:
            _, value, tags = self.reads(read)
            self.kept[key] = (value, tags)
        return self.kept[key][0]

    def truth(self, read):
        """What `read` gives now, unseen."""
        with Session(self.engine.execution_options(**{OWN_STATEMENT: True})) as session:
            return read(session)


def names(tables):
    """`items#1 parts`, or `*` for all tables."""
    return " ".join(sorted(map(str, tables))) if isinstance(tables, frozenset) else "*"
