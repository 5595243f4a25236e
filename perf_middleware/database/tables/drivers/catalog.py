"""What a database does beyond its statements, read from its catalog: PostgreSQL and SQLite.

A handful of queries, once at the start and after a migration.  Triggers and functions are not
looked into: a table with a trigger means anything, unless the app vouches for it by name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from perf_middleware.database.tables.drivers.raw import read_by_view
from perf_middleware.database.tables.functions import KNOWN_FUNCTIONS
from perf_middleware.database.tables.relations import OWN_STATEMENT, Relations
from perf_middleware.database.tables.rows import BYTES, INTEGER, TEXT, UNIQUE_ID, Key, KeyColumn
from perf_middleware.database.tables.touched import ALL_TABLES, NO_TABLES, Table, Tables, union

if TYPE_CHECKING:
    from sqlalchemy import Connection

# c, n, d: cascade, set null, set default; what does nothing or refuses changes no other table.
_CASCADES: Final = """
    select pn.nspname, p.relname, cn.nspname, c.relname from pg_constraint f
    join pg_class p on p.oid = f.confrelid join pg_namespace pn on pn.oid = p.relnamespace
    join pg_class c on c.oid = f.conrelid join pg_namespace cn on cn.oid = c.relnamespace
    where f.contype = 'f'
      and (f.confdeltype in ('c', 'n', 'd') or f.confupdtype in ('c', 'n', 'd'))
"""
# The relations (or, without a name, functions) that views, rules and row policies are made of.
_MADE_OF: Final = """
    select vn.nspname, v.relname, v.relkind in ('v', 'm'), tn.nspname, t.relname, p.proname
    from (
        select ev_class as owner, oid, 'pg_rewrite'::regclass as kind from pg_rewrite
        union all select polrelid, oid, 'pg_policy'::regclass from pg_policy
    ) r
    join pg_class v on v.oid = r.owner join pg_namespace vn on vn.oid = v.relnamespace
    join pg_depend d on d.classid = r.kind and d.objid = r.oid
    left join pg_class t on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid
    left join pg_namespace tn on tn.oid = t.relnamespace
    left join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
    where (t.oid <> v.oid and t.relkind <> 'S' or p.oid is not null)
      and vn.nspname not in ('pg_catalog', 'information_schema')
"""
_PARTS: Final = """
    select pn.nspname, p.relname, cn.nspname, c.relname from pg_inherits i
    join pg_class p on p.oid = i.inhparent join pg_namespace pn on pn.oid = p.relnamespace
    join pg_class c on c.oid = i.inhrelid join pg_namespace cn on cn.oid = c.relnamespace
    where p.relkind in ('r', 'p', 'f')
"""
# But those of outside/triggers.py: they write nothing.
_TRIGGERS: Final = """
    select n.nspname, c.relname, t.tgname from pg_trigger t
    join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_proc p on p.oid = t.tgfoid
    where not t.tgisinternal and left(p.proname, 24) <> 'perf_middleware_written_'
    union all
    select n.nspname, c.relname, r.rulename from pg_rewrite r
    join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
    where r.ev_type <> '1' and n.nspname not in ('pg_catalog', 'information_schema')
"""
_SQLITE_OBJECTS: Final = """
    select type, name, tbl_name, sql from sqlite_master
    union all select type, name, tbl_name, sql from sqlite_temp_master
"""
_SQLITE_CASCADES: Final = """
    select m.name, f."table", f.on_update, f.on_delete
    from sqlite_master m join pragma_foreign_key_list(m.name) f where m.type = 'table'
"""
# Columns of a primary key; those that an index only carries along are not of it.
_KEYS: Final = """
    select n.nspname, c.relname, a.attname, t.typname, coalesce(l.collisdeterministic, true)
    from pg_index i
    join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a
      on a.attrelid = c.oid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])
    join pg_type t on t.oid = a.atttypid left join pg_collation l on l.oid = a.attcollation
    where i.indisprimary and n.nspname not in ('pg_catalog', 'information_schema')
    order by c.oid, a.attnum
"""
_POSTGRES_KINDS: Final = {
    "int2": INTEGER, "int4": INTEGER, "int8": INTEGER, "uuid": UNIQUE_ID, "bytea": BYTES,
    "text": TEXT, "varchar": TEXT, "bpchar": TEXT,
}  # fmt: skip
_SQLITE_KEYS: Final = """
    select m.name, p.name, p.type, m.sql
    from sqlite_master m join pragma_table_info(m.name) p where m.type = 'table' and p.pk > 0
    order by m.name, p.cid
"""
_REPLACES: Final = re.compile(r"\bconflict\b.*\breplace\b", re.IGNORECASE | re.DOTALL)
_COLLATES_OTHERWISE: Final = re.compile(
    r"\bcollate\b(?!\s+[\"'`\[]?(?:binary|nocase|rtrim)\b)", re.IGNORECASE
)
_NOTHING_DONE: Final = frozenset({"NO ACTION", "RESTRICT", "NONE"})


def relations_of(
    connection: Connection,
    *,
    known_functions: frozenset[str] = frozenset(),
    known_triggers: frozenset[str] = frozenset(),
    with_keys: bool = False,
) -> Relations:
    """The relations of the database behind `connection` (`await c.run_sync(relations_of)`).

    `known_triggers`: names of triggers that write nothing but the row they are called for, such as
    one that sets `updated_at`.  `with_keys`: the primary keys as well.

    Raises ValueError for another database than PostgreSQL and SQLite.
    """
    building = Building()
    # In a view or policy of PostgreSQL only functions that are not its own are listed.
    vouched = frozenset(name.lower() for name in known_functions)
    match connection.dialect.name:
        case "postgresql":
            building.read_postgres(connection, vouched, known_triggers)
            if with_keys:
                building.read_postgres_keys(connection)
        case "sqlite":
            building.read_sqlite(connection, KNOWN_FUNCTIONS | vouched, known_triggers)
            if with_keys:
                building.read_sqlite_keys(connection)
        case other:
            raise ValueError(f"the catalog of {other} is not known")
    return building.relations()


class Building:
    """Relations while they are read."""

    def __init__(self) -> None:
        self._read_with: dict[Table, Tables] = {}
        self._changed_with: dict[Table, Tables] = {}
        self._inserted_with: dict[Table, Tables] = {}
        self._with_triggers: set[Table] = set()
        self._keys: dict[Table, list[KeyColumn | None]] = {}

    def relations(self) -> Relations:
        return Relations(
            read_with=self._read_with,
            changed_with=self._changed_with,
            inserted_with=self._inserted_with,
            with_triggers=frozenset(self._with_triggers),
            keys={table: key for table, columns in self._keys.items() if (key := whole(columns))},
        )

    def read_postgres(
        self, connection: Connection, known: frozenset[str], known_triggers: frozenset[str]
    ) -> None:
        for schema, name, child_schema, child in rows(connection, _CASCADES):
            add(self._changed_with, Table(name, schema), {Table(child, child_schema)})
        for schema, name, child_schema, child in rows(connection, _PARTS):
            self._add_same(Table(name, schema), {Table(child, child_schema)})
        for schema, name, is_view, of_schema, of, function in rows(connection, _MADE_OF):
            if function is not None and function.lower() in known:
                continue
            made_of = ALL_TABLES if of is None else frozenset({Table(of, of_schema)})
            if is_view:
                self._add_same(Table(name, schema), made_of)
            else:
                add(self._read_with, Table(name, schema), made_of)
        for schema, name, trigger in rows(connection, _TRIGGERS):
            if trigger not in known_triggers:
                self._with_triggers.add(Table(name, schema))

    def read_sqlite(
        self, connection: Connection, known: frozenset[str], known_triggers: frozenset[str]
    ) -> None:
        for kind, name, table, sql in rows(connection, _SQLITE_OBJECTS):
            if kind == "view":
                self._add_same(Table(name), read_by_view(sql, "sqlite", known))
            elif kind == "trigger" and name not in known_triggers:
                self._with_triggers.add(Table(table))
        for child, parent, on_update, on_delete in rows(connection, _SQLITE_CASCADES):
            if not {on_update, on_delete} <= _NOTHING_DONE:
                add(self._changed_with, Table(parent), {Table(child)})

    def read_postgres_keys(self, connection: Connection) -> None:
        for schema, name, column, type_, is_exact in rows(connection, _KEYS):
            kind = _POSTGRES_KINDS.get(type_) if is_exact else None
            self._add_key(Table(name, schema), column, kind)

    def read_sqlite_keys(self, connection: Connection) -> None:
        for name, column, type_, sql in rows(connection, _SQLITE_KEYS):
            kind = sqlite_kind(type_)
            self._add_key(
                Table(name, "main"),
                column,
                None if kind == TEXT and _COLLATES_OTHERWISE.search(sql) else kind,
            )
        for kind, _, name, sql in rows(connection, _SQLITE_OBJECTS):
            if kind == "table" and _REPLACES.search(sql or ""):
                # What conflicts in another column is deleted, whatever key a statement names.
                for mapping in (self._changed_with, self._inserted_with):
                    add(mapping, Table(name), {Table(name)})

    def _add_key(self, table: Table, column: str, kind: str | None) -> None:
        known = None if kind is None else KeyColumn(column, kind)
        self._keys.setdefault(table, []).append(known)

    def _add_same(self, table: Table, others: Tables | set[Table]) -> None:
        """What reads or writes `table` does so to `others`."""
        for mapping in (self._read_with, self._changed_with, self._inserted_with):
            add(mapping, table, others)


def add(mapping: dict[Table, Tables], table: Table, others: Tables | set[Table]) -> None:
    """`others` beside what `table` leads to already."""
    added: Tables = frozenset(others) if isinstance(others, set) else others
    mapping[table] = union(mapping.get(table, NO_TABLES), added)


def whole(columns: list[KeyColumn | None]) -> Key | None:
    """A primary key, where each of its columns has values that can be told apart."""
    known = tuple(column for column in columns if column is not None)
    return known if len(known) == len(columns) else None


def sqlite_kind(declared: str) -> str | None:
    """What a column of SQLite holds by its declared type (its affinity), or None."""
    name = declared.upper()
    if "INT" in name:
        return INTEGER
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return TEXT
    return BYTES if name == "BLOB" else None


def rows(connection: Connection, sql: str) -> list[Any]:
    options = {OWN_STATEMENT: True}
    return list(connection.execute(text(sql), execution_options=options).all())
