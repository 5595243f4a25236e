"""What a statement touches: the tables it reads, those it only inserts into, those it changes.

    Tables = frozenset[Table] | ALL_TABLES        a Table may be one row of it (rows.py)

What is not understood is ALL_TABLES: a cache may forget too much, never too little.  For the same
reason names are compared without case, and a table without a schema is any schema's: where the
search path leads is not in the statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.database.tables.rows import Keyed

NAME_BYTES_MAX: Final = 63  # PostgreSQL cuts longer names (NAMEDATALEN - 1)
WHOLE: Final = "db:t:"  # tags of who read all of a table
ROW: Final = "db:r:"  # and of who read rows of it: with the key of each, and without


@dataclass(frozen=True, slots=True)
class Table:
    """One table or view by its name, and its schema where a statement names one.

    `row` is the key of the one row that is meant; None: all of it.
    """

    name: str
    schema: str | None = None
    row: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", folded(self.name))
        object.__setattr__(self, "schema", folded(self.schema) if self.schema else None)

    def row_of(self, key: str) -> Table:
        """The row with this key."""
        row = object.__new__(Table)  # its names are folded already: this is done for each statement
        object.__setattr__(row, "name", self.name)
        object.__setattr__(row, "schema", self.schema)
        object.__setattr__(row, "row", key)
        return row

    def whole(self) -> Table:
        """The table that a row is of."""
        return self if self.row is None else Table(self.name, self.schema)

    def may_be(self, other: Table) -> bool:
        """Whether both may mean one table, or one row of it."""
        if self.name != other.name:
            return False
        if self.row != other.row and self.row is not None and other.row is not None:
            return False
        return self.schema == other.schema or self.schema is None or other.schema is None

    def __str__(self) -> str:
        name = self.name if self.schema is None else f"{self.schema}.{self.name}"
        return name if self.row is None else f"{name}#{self.row}"


def folded(name: str) -> str:
    """`name` as names are compared here: small letters, as long as PostgreSQL keeps them."""
    return name.lower().encode("utf-8", "replace")[:NAME_BYTES_MAX].decode("utf-8", "ignore")


@final
class AllTables:
    """Every table there is, also those that nobody has named yet; `ALL_TABLES` is the one value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ALL_TABLES"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllTables)

    def __hash__(self) -> int:
        return hash(AllTables)


ALL_TABLES: Final = AllTables()
Tables: TypeAlias = frozenset[Table] | AllTables
NO_TABLES: Final[frozenset[Table]] = frozenset()


def union(*several: Tables) -> Tables:
    """The tables of each; ALL_TABLES where one of them is."""
    together: set[Table] = set()
    for tables in several:
        if isinstance(tables, AllTables):
            return ALL_TABLES
        together |= tables
    return frozenset(together)


def overlap(one: Tables, other: Tables) -> bool:
    """Whether a table may be in both; ALL_TABLES overlaps with all but nothing."""
    if isinstance(one, AllTables) or isinstance(other, AllTables):
        return bool(one) and bool(other)
    if not one.isdisjoint(other):
        return True
    names = {table.name for table in other}
    return any(table.may_be(another) for table in one if table.name in names for another in other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """The tables of one statement, or of several together.

    `inserts` only got new rows; in `changes` rows may have been changed or deleted as well, which
    foreign keys may pass on to other tables.  `keyed`: which rows alone, where that is known.
    """

    reads: Tables = NO_TABLES
    inserts: Tables = NO_TABLES
    changes: Tables = NO_TABLES
    keyed: Keyed | None = None

    @property
    def writes(self) -> Tables:
        """All tables that may be other than before."""
        return union(self.inserts, self.changes)

    def __or__(self, other: Touched) -> Touched:
        return Touched(
            reads=union(self.reads, other.reads),
            inserts=union(self.inserts, other.inserts),
            changes=union(self.changes, other.changes),
        )


NOTHING: Final = Touched()
ANYTHING: Final = Touched(reads=ALL_TABLES, changes=ALL_TABLES)
"""A statement that is not understood."""


def read_tags(reads: Tables) -> frozenset[str]:
    """Tags of what was computed from `reads`: what `write_tags` of a later write will purge.

    Each table has one tag for writes that name its schema, and one for those that do not.  A row
    has those of its own, and for writes that may be to any row those of `db:r:` without a key.
    """
    if isinstance(reads, AllTables):
        return frozenset({"db:*"})
    return frozenset(tag for table in reads for tag in ("db:any", *_tags_read(table)))


def whole_tags(tags: Iterable[str]) -> set[str]:
    """Tags of reads, with those of single rows made those of their tables."""
    return {
        f"{WHOLE}{tag.removeprefix(ROW).partition('#')[0]}" if tag.startswith(ROW) else tag
        for tag in tags
    }


def write_tags(writes: Tables) -> frozenset[str]:
    """Tags that a committed write to `writes` purges.

    `read_tags(a)` and `write_tags(b)` meet exactly where `overlap(a, b)`.
    """
    if isinstance(writes, AllTables):
        return frozenset({"db:*", "db:any"})
    if not writes:
        return frozenset()
    return frozenset({"db:*"}).union(*map(_tags_written, writes))


def _tags_read(table: Table) -> Iterable[str]:
    names = _names_read(table)
    if table.row is None:
        return [f"{WHOLE}{name}" for name in names]
    return [f"{ROW}{name}{key}" for name in names for key in ("", f"#{table.row}")]


def _tags_written(table: Table) -> Iterable[str]:
    # Who read all of it is purged by any write; who read a row, by those to it or to any.
    key = "" if table.row is None else f"#{table.row}"
    names = _names_written(table)
    return [tag for name in names for tag in (f"{WHOLE}{name}", f"{ROW}{name}{key}")]


def _names_read(table: Table) -> Iterable[str]:
    name = _escaped(table.name)
    if table.schema is None:
        return (name, f"{name}@")
    return (f"{name}@{_escaped(table.schema)}", f"{name}@")


def _names_written(table: Table) -> Iterable[str]:
    # `t@` is on every read of a table with this name; `t` on those that named no schema.
    name = _escaped(table.name)
    if table.schema is None:
        return (f"{name}@",)
    return (f"{name}@{_escaped(table.schema)}", name)


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("@", "%40").replace("#", "%23")
