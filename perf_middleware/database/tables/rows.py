"""Single rows of a table by their primary key: the text of a key, and whose rows a statement means.

    select … where id = 5            reads  t#5       instead of t
    update … where id = 5            writes t#5       other rows of t are as they were
    insert … values (5, …)           writes t#5       whoever looked for it and found none knows it
    any other statement              reads or writes t, and so every row of it

What makes it sound is that equal keys have equal texts, not that different keys differ: where two
share a text too much is forgotten.  So texts are compared without case and closing spaces, as the
collations of SQLite may, and long ones by a digest.  A key without a text here means its table.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from perf_middleware.database.tables.touched import (
    NO_TABLES,
    AllTables,
    Table,
    Tables,
    folded,
    union,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

INTEGER: Final = "integer"
TEXT: Final = "text"
UNIQUE_ID: Final = "uuid"
BYTES: Final = "bytes"

ROWS_OF_A_STATEMENT_MAX: Final = 64
"""More in one statement mean its table: a purge by so many tags would cost more than it spares."""
INTEGER_MAX: Final = 2**63
ALL_NAMES: Final = "*"
PLAIN: Final = re.compile(r"[a-z0-9._-]{1,40}")  # short enough to read, and to purge by hand

Key: TypeAlias = tuple["KeyColumn", ...]


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of a table's primary key as the database has it; `kind` is one of those above."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where the value of a key's column stands: in `parameters[at]`, of which `kind` in the app.

    `is_list`: there are several (IN).  `kept_as` is the kind that the column has in the database.
    """

    at: str | int
    kind: str
    kept_as: str
    is_list: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """A statement that reads or writes no other rows of `table` than those of the keys given to it.

    `sources` are in the order of the key.  `beside`: what is written beside these rows, as cascades
    do.  Of one that `is_insert` the keys are known when it is done.
    """

    table: Table
    sources: tuple[Source, ...]
    beside: Tables = NO_TABLES
    is_insert: bool = False

    def rows(self, parameters: Sequence[Mapping[Any, Any] | Sequence[Any]]) -> Tables | None:
        """The rows meant by these sets of parameters; None where only the table is sure."""
        if not 0 < len(parameters) <= ROWS_OF_A_STATEMENT_MAX:
            return None
        found: set[Table] = set()
        for given in parameters:
            texts = self._texts(given)
            if texts is None:
                return None
            if len(parameters) == len(texts) == len(texts[0]) == 1:  # mostly
                return frozenset((self.table.row_of(texts[0][0]),))
            for parts in itertools.product(*texts):
                found.add(self.table.row_of(",".join(parts)))
                if len(found) > ROWS_OF_A_STATEMENT_MAX:
                    return None
        return frozenset(found)

    def written(self, parameters: Sequence[Mapping[Any, Any] | Sequence[Any]]) -> Tables | None:
        """All that is written with them; None where only the table is sure."""
        rows = self.rows(parameters)
        return None if rows is None else union(rows, self.beside)

    def _texts(self, given: Any) -> list[list[str]] | None:
        several: list[list[str]] = []
        for source in self.sources:
            try:
                value = given[source.at]
            except LookupError:
                return None
            known: list[str] = []
            for each in value if source.is_list else (value,):
                text = key_text(each, source.kind, source.kept_as)
                if text is None:
                    return None
                known.append(text)
            if not known:
                return None
            several.append(known)
        return several


def key_text(value: object, kind: str, kept_as: str) -> str | None:
    """One text for all that the database holds equal to `value`; None where that is not sure.

    `kind` is that of the column in the app, `kept_as` that in the database.
    """
    match kind, kept_as, value:
        case ("integer", "integer", int()):
            return str(int(value)) if abs(value) < INTEGER_MAX else None
        case ("text", "text", str()):
            return text_of(value)
        case ("uuid", "uuid" | "text", UUID()):
            return value.hex
        case ("uuid", "uuid", str()):
            try:
                return UUID(value).hex
            except ValueError:
                return None
        case ("uuid", "text", str()):
            return text_of(value.replace("-", ""))
        case ("bytes", "bytes", bytes()):
            return f"~{blake2b(value, digest_size=16).hexdigest()}"
        case _:
            return None


def text_of(value: str) -> str:
    """The same for texts that differ in case or in closing spaces only."""
    same = value.rstrip(" ").casefold()
    if PLAIN.fullmatch(same):
        return same
    return f"~{blake2b(same.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def without_rows(tables: Tables) -> Tables:
    """The tables of all rows, whole."""
    if isinstance(tables, AllTables):
        return tables
    return frozenset(table.whole() for table in tables)


def within(tables: Tables, rows_max: int) -> Tables:
    """`tables`; where single rows are more than `rows_max`, the tables of all."""
    if isinstance(tables, AllTables) or len(tables) <= rows_max:
        return tables
    is_over = sum(table.row is not None for table in tables) > rows_max
    return without_rows(tables) if is_over else tables


def chosen(names: Iterable[str]) -> frozenset[str]:
    """Names of tables as they are compared; `*` is any."""
    return frozenset(folded(name) for name in names)


def is_chosen(table: Table, names: frozenset[str]) -> bool:
    """Whether `table` is among them: by its name, or with its schema (`public.items`)."""
    return ALL_NAMES in names or table.name in names or str(table) in names
