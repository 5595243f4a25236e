"""What a database does beyond the statement: views, cascading foreign keys, triggers, partitions.

    DELETE FROM users      -- ON DELETE CASCADE -->  posts is changed too
    SELECT … FROM recent   -- a view of         -->  posts is read
    INSERT INTO events     -- has a trigger     -->  nobody knows: all tables

None of it is in a statement; the catalog of the database says it (drivers/catalog.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from perf_middleware.database.tables.touched import (
    ALL_TABLES,
    NO_TABLES,
    AllTables,
    Table,
    Tables,
    Touched,
    union,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.database.tables.rows import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """Facts of one database, each by the table that a statement names.

    `read_with`: what reading it reads as well (a view its tables, a partitioned table its parts);
    `changed_with`: what changing or deleting its rows changes (cascades, partitions, a view);
    `inserted_with`: what inserting changes (partitions, a view); `with_triggers`: anything.
    One that leads to itself: other rows of it than those that a statement names.
    `keys`: primary keys whose values have a text each (rows.py).
    """

    read_with: Mapping[Table, Tables] = field(default_factory=dict)
    changed_with: Mapping[Table, Tables] = field(default_factory=dict)
    inserted_with: Mapping[Table, Tables] = field(default_factory=dict)
    with_triggers: frozenset[Table] = NO_TABLES
    keys: Mapping[Table, Key] = field(default_factory=dict)

    def key_of(self, table: Table) -> Key | None:
        """The primary key of `table`, in the database's order; None where it is not sure."""
        found = {key for known, key in self.keys.items() if known.may_be(table)}
        return found.pop() if len(found) == 1 else None

    def written_beside(self, table: Table, *, inserts: bool) -> Tables | None:
        """What else changes where some rows of `table` are written; None: more rows of it too."""
        following: Tables = NO_TABLES
        if inserts:
            following = closure(_led_to(table, self.inserted_with), self.inserted_with)
        else:
            following = _led_to(table, self.changed_with)
        following = closure(following, self.changed_with)
        if isinstance(following, AllTables):
            return None
        return None if any(other.may_be(table) for other in following) else following

    def applied_to(self, touched: Touched) -> Touched:
        """All that a statement touches in this database, which itself names `touched`.

        What follows an insert counts as changed: only the named tables are sure to get no more
        than new rows.
        """
        inserted = closure(touched.inserts, self.inserted_with)
        following = inserted
        if not isinstance(inserted, AllTables) and not isinstance(touched.inserts, AllTables):
            following = inserted - touched.inserts
        changes = closure(union(touched.changes, following), self.changed_with)
        reads = closure(touched.reads, self.read_with)
        # What reads anything is a function in a view or in a row policy, and may write as well.
        if isinstance(reads, AllTables) or self._meets_a_trigger(union(inserted, changes)):
            changes = ALL_TABLES
        return Touched(reads=reads, inserts=touched.inserts, changes=changes)

    def _meets_a_trigger(self, writes: Tables) -> bool:
        if isinstance(writes, AllTables):
            return False  # that is all tables already
        return any(table.may_be(other) for table in writes for other in self.with_triggers)


def _led_to(table: Table, leads_to: Mapping[Table, Tables]) -> Tables:
    return union(*(others for known, others in leads_to.items() if known.may_be(table)))


NO_RELATIONS: Final = Relations()
OWN_STATEMENT: Final = "perf_middleware_own"
"""An execution option: a statement of ours, which is not to be looked at itself."""


def closure(tables: Tables, leads_to: Mapping[Table, Tables]) -> Tables:
    """`tables` and all that they lead to, over any number of steps."""
    if isinstance(tables, AllTables) or not leads_to:
        return tables
    by_name: dict[str, list[Table]] = {}
    for table in leads_to:
        by_name.setdefault(table.name, []).append(table)
    found = set(tables)
    waiting = list(tables)
    while waiting:
        table = waiting.pop()
        for known in by_name.get(table.name, ()):
            if known.may_be(table):
                following = leads_to[known]
                if isinstance(following, AllTables):
                    return ALL_TABLES
                new = following - found
                found |= new
                waiting += new
    return frozenset(found)
