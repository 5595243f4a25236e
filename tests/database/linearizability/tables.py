"""The rows of the linearizability check: groups of tables, and the statements that show them."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, func, select
from sqlalchemy.orm import registry

GROUPS = 3  # each with tables of its own: a write leaves the others' answers alone
BOOKS = 3
Rows: TypeAlias = list[tuple[str, int, int]]
"""Key, version, op."""

metadata = MetaData()
mappings = registry(metadata=metadata)


def _table(name: str, *more: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        *more,
        Column("version", Integer, nullable=False),
        Column("op", BigInteger, nullable=False),
    )


class Group:
    """Books, what was deleted of them, and one loan of each book."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.books = _table(f"books{number}")
        self.graves = _table(f"graves{number}")
        self.loans = _table(f"loans{number}", Column("book", Integer, nullable=False))
        self.Book: Any = type(f"Book{number}", (), {})
        mappings.map_imperatively(self.Book, self.books)
        books, loans = self.books.c, self.loans.c
        self.all_books = select(books.id, books.version, books.op).order_by(books.id)
        self.all_loans = select(loans.id, loans.version, loans.op).order_by(loans.id)
        # One loan a book: the sum is its version.
        self.totals = (
            select(books.id, books.version, books.op, func.sum(loans.version), func.max(loans.op))
            .join(self.loans, loans.book == books.id)
            .group_by(books.id, books.version, books.op)
        )

    def rows(self, kind: str, found: Any) -> Rows:
        return [(f"{self.number}{kind}{row[0]}", int(row[1]), int(row[2])) for row in found]


GROUPS_MADE = [Group(number) for number in range(GROUPS)]
