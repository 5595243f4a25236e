"""A shop whose queries are cached: an engine that is tracked, a value cache, and a query cache."""

import asyncio
import datetime as dt
import decimal
import enum
import uuid
from contextlib import asynccontextmanager

from sqlalchemy import JSON, ForeignKey, event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    attribute_keyed_dict,
    mapped_column,
    relationship,
)

from perf_middleware import ValueCache
from perf_middleware.database.queries.runtime import QueryCache
from perf_middleware.database.tables.drivers.compiled import StatementTables
from perf_middleware.database.tracking.runtime import Tracking
from perf_middleware.database.tracking.runtime.purges import CommitPurges

DEADLINE_S = 60


class Base(DeclarativeBase):
    pass


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Owner(Base):
    __tablename__ = "q_owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    kind: Mapped[str] = mapped_column(default="owner")
    items: Mapped[list["Item"]] = relationship(back_populates="owner", order_by="Item.id")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "owner"}  # noqa: RUF012


class Shop(Owner):
    street: Mapped[str | None]
    __mapper_args__ = {"polymorphic_identity": "shop", "polymorphic_load": "inline"}  # noqa: RUF012


class Item(Base):
    __tablename__ = "q_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("q_owners.id"))
    name: Mapped[str] = mapped_column(default="")
    price: Mapped[decimal.Decimal | None]
    made: Mapped[dt.datetime | None]
    token: Mapped[uuid.UUID | None]
    colour: Mapped[Colour | None]
    blob: Mapped[bytes | None]
    data: Mapped[dict | None] = mapped_column(MutableDict.as_mutable(JSON))
    note: Mapped[str] = mapped_column(default="a long note", deferred=True)
    owner: Mapped[Owner | None] = relationship(back_populates="items")
    labels: Mapped[dict[str, "Label"]] = relationship(collection_class=attribute_keyed_dict("name"))


class Label(Base):
    __tablename__ = "q_labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("q_items.id"))
    name: Mapped[str]


class Ground:
    """One process: what it has sent to the database is in `sent`."""

    def __init__(self, engine, memo, *, is_current=None, relations=None):
        self.engine = engine
        self.memo = memo
        self.purges = CommitPurges()
        self.tracking = Tracking(self.purges)
        tables = StatementTables(engine.dialect, **({} if relations is None else relations))
        self.tracking.watch(engine.sync_engine, tables)
        self.queries = QueryCache(lambda: [engine.sync_engine])
        self.queries.keep_on(memo.asides(is_current=is_current))
        self.purges.add(self.queries.purge, at_once=self.queries.purge_at_once)
        self.sent = []
        event.listen(engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection, _cursor, statement, *_rest):
        self.sent.append(statement)

    def session(self, **options):
        return AsyncSession(self.engine, expire_on_commit=False, **options)

    async def write(self, *objects):
        async with self.session() as session:
            session.add_all(objects)
            await session.commit()

    @property
    def figures(self):
        return self.queries.status()

    def runs(self, word="SELECT"):
        """How many statements with this word were sent since the last look."""
        count = sum(word in statement for statement in self.sent)
        self.sent.clear()
        return count


@asynccontextmanager
async def shop(url, *, memo=None, is_current=None, **options):
    engine = create_async_engine(url, **options)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    try:
        yield Ground(engine, memo or ValueCache(), is_current=is_current)
    finally:
        await engine.dispose()


def run(main):
    return asyncio.run(asyncio.wait_for(main, DEADLINE_S))


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)
