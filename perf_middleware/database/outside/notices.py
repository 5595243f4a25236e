"""What a notification says, and those of a burst gathered until they are purged together.

["", "public", "orders"]      somebody outside has written it
["5f0c…", "public", "orders"] a process of ours, which has purged its own memory by itself
["", null, null]              anything may have changed
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from perf_middleware.database.tables.relations import closure
from perf_middleware.database.tables.touched import ALL_TABLES, NO_TABLES, Table, Tables, union

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLES_MAX: Final = 1_000  # of one purge; more of them mean all tables
PROBE: Final = "probe"


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification: who wrote (empty: nobody of ours), and what."""

    writer: str
    written: Tables


def read_notice(payload: str) -> Notice:
    """What `payload` says; one that is not understood means all tables."""
    try:
        writer, schema, name = json.loads(payload)
    except (ValueError, TypeError):
        return Notice("", ALL_TABLES)
    if not (isinstance(writer, str) and isinstance(schema, str) and isinstance(name, str)):
        return Notice("", ALL_TABLES)
    return Notice(writer, frozenset({Table(name, schema)}))


def probe_of(token: str) -> str:
    """The payload by which one who begins to listen finds out that it hears."""
    return json.dumps([PROBE, token])


@dataclass(slots=True)
class Gathered:
    """What is to be purged next; bounded by `tables_max`."""

    tables_max: int = TABLES_MAX
    tables: Tables = field(default=NO_TABLES)

    def add(self, tables: Tables) -> None:
        """`tables` too."""
        together = union(self.tables, tables)
        if isinstance(together, frozenset) and len(together) > self.tables_max:
            together = ALL_TABLES
        self.tables = together

    def take(self) -> Tables:
        """All of it; nothing is left."""
        tables, self.tables = self.tables, NO_TABLES
        return tables


class Inheritance:
    """Which tables are parts of which: partitions, and children in the older sense.

    A statement trigger is called for the table that a statement names, while its rows may be in the
    parts, or be read through what it is a part of.
    """

    def __init__(self, pairs: Iterable[tuple[Table, Table]] = ()) -> None:
        self._parts: dict[Table, frozenset[Table]] = {}
        self._wholes: dict[Table, frozenset[Table]] = {}
        for whole, part in pairs:
            _add(self._parts, whole, part)
            _add(self._wholes, part, whole)

    def with_kin(self, tables: Tables) -> Tables:
        """`tables`, all their parts, and all that they are parts of."""
        return union(closure(tables, self._parts), closure(tables, self._wholes))


def _add(mapping: dict[Table, frozenset[Table]], table: Table, other: Table) -> None:
    mapping[table] = mapping.get(table, frozenset()) | {other}
