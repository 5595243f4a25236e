"""Whether a compiled statement reads or writes by primary key alone, and where its keys stand.

The conditions are those of the statement that was compiled (for the ORM that is not the one which
the app wrote), so that their parameters have the names that each execution gives values for.  Only
`column = value` and `column IN (values)` count, all columns of the key, with AND between them;
whatever else is asked leaves fewer rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, types
from sqlalchemy import Table as TableOfTheApp
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, Grouping
from sqlalchemy.sql.selectable import Select

from perf_middleware.database.tables.rows import (
    BYTES,
    INTEGER,
    TEXT,
    UNIQUE_ID,
    Keyed,
    Source,
    is_chosen,
)
from perf_middleware.database.tables.touched import AllTables, Table, Tables, Touched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.engine.interfaces import Compiled

    from perf_middleware.database.tables.relations import Relations
    from perf_middleware.database.tables.rows import Key

KINDS: Final[tuple[tuple[type[Any], str], ...]] = (
    (types.Integer, INTEGER),
    (types.Uuid, UNIQUE_ID),
    (types.String, TEXT),
    (types.LargeBinary, BYTES),
)
OTHERS: Final = (types.TypeDecorator, types.Enum)


def keyed(
    compiled: Compiled, touched: Touched, relations: Relations, names: frozenset[str]
) -> Keyed | None:
    """What `compiled` reads or writes by key; None: tables, as `touched` says.

    It must be one SELECT with one table, or one that writes, with nothing in it that is text, and
    `touched` all that it touches.  `names` are those of the tables that were chosen.
    """
    if isinstance(touched.writes, AllTables):
        return None
    state: Any = compiled.compile_state
    statement = None if state is None else state.statement
    match statement:
        case Select() if not touched.writes:
            table = only(touched.reads)
        case Insert() if statement.select is None and not state._has_multi_parameters:  # noqa: SLF001 no public name
            table = only(touched.inserts)
        case Update() | Delete() if not statement._prefixes:  # noqa: SLF001 OR REPLACE
            table = named_by(statement.table, touched.changes)
        case _:
            return None
    key = None if table is None or not is_chosen(table, names) else relations.key_of(table)
    if table is None or key is None:
        return None
    if isinstance(statement, Insert):
        sources = sources_of_insert(statement, state, key, compiled.dialect.name)
    elif isinstance(statement, Update) and sets_a_key(statement, state, compiled):
        return None
    else:
        sources = sources_of(statement, compiled, key)
    if sources is None:
        return None
    if isinstance(statement, Select):
        return Keyed(table=table, sources=sources)
    is_insert = isinstance(statement, Insert)
    beside = relations.written_beside(table, inserts=is_insert)
    if beside is None:
        return None
    return Keyed(table=table, sources=sources, beside=beside, is_insert=is_insert)


def only(tables: Tables) -> Table | None:
    """The one table that is meant."""
    if isinstance(tables, AllTables) or len(tables) != 1:
        return None
    return next(iter(tables))


def named_by(target: Any, tables: Tables) -> Table | None:
    """Which of `tables` is the target of a statement; the others follow from it."""
    if isinstance(tables, AllTables) or not isinstance(target, TableOfTheApp):
        return None
    name = Table(target.name).name
    return only(frozenset(table for table in tables if table.name == name))


def sources_of(statement: Any, compiled: Any, key: Key) -> tuple[Source, ...] | None:
    """Where the values stand that the conditions compare the key with."""
    dialect = compiled.dialect.name
    target = None if isinstance(statement, Select) else statement.table
    found: dict[str, tuple[Any, Source]] = {}
    kinds = {column.name: column.kind for column in key}
    for column, value, is_list in comparisons(statement._where_criteria):  # noqa: SLF001 the same
        table, name = column.table, column.name
        if not isinstance(table, TableOfTheApp) or name not in kinds:
            continue
        if target is not None and (table.name, table.schema) != (target.name, target.schema):
            continue
        kind, at = kind_of(column.type, dialect), compiled.bind_names.get(value)
        if kind is not None and kind == kind_of(value.type, dialect) and at is not None:
            found[name] = (table, Source(at, kind, kinds[name], is_list))
    if any(map(is_spoken, statement._where_criteria)):  # noqa: SLF001 the same
        return None
    if len(found) < len(key) or not all(has_key(table, key) for table, _ in found.values()):
        return None
    return tuple(found[column.name][1] for column in key)


def sources_of_insert(
    statement: Any, state: Any, key: Key, dialect: str
) -> tuple[Source, ...] | None:
    """Where the values stand in a row of `context.inserted_primary_key_rows`."""
    table = statement.table
    if not isinstance(table, TableOfTheApp) or not has_key(table, key):
        return None
    given = {name_of(column): value for column, value in (state._dict_parameters or {}).items()}  # noqa: SLF001 the same
    columns = list(table.primary_key.columns)
    sources = []
    for wanted in key:
        at, column = next((i, own) for i, own in enumerate(columns) if own.name == wanted.name)
        kind = kind_of(column.type, dialect)
        value = given.get(column.key)
        if value is not None and not isinstance(value, BindParameter):
            return None  # an expression: what it gave is not among the parameters
        # A value without a type of its own takes that of its column.
        if value is not None and not isinstance(value.type, types.NullType):
            kind = kind if kind == kind_of(value.type, dialect) else None
        if kind is None:
            return None
        sources.append(Source(at, kind, wanted.kind))
    return tuple(sources)


def sets_a_key(statement: Any, state: Any, compiled: Any) -> bool:
    """Whether an UPDATE may set a column of the key: its row is another one then."""
    if compiled.column_keys is None and not state._dict_parameters:  # noqa: SLF001 the same
        return True  # all columns
    names = {*(compiled.column_keys or ()), *map(name_of, state._dict_parameters or ())}  # noqa: SLF001 the same
    return any(
        column.key in names
        or column.name in names
        or column.onupdate is not None
        or column.server_onupdate is not None
        for column in statement.table.primary_key.columns
    )


def comparisons(criteria: Iterable[Any]) -> Iterator[tuple[Any, Any, bool]]:
    """Each `column = value` and `column IN values` that must hold, and whether it is the second."""
    for clause in criteria:
        if isinstance(clause, Grouping):
            yield from comparisons((clause.element,))
        elif isinstance(clause, BooleanClauseList):
            if clause.operator is operators.and_:
                yield from comparisons(clause.clauses)
        elif isinstance(clause, BinaryExpression):
            column, value = clause.left, clause.right
            if isinstance(column, BindParameter):
                column, value = value, column
            is_list = clause.operator is operators.in_op
            if not is_list and clause.operator is not operators.eq:
                continue
            if not isinstance(column, Column) or not isinstance(value, BindParameter):
                continue
            if value.expanding is is_list:
                yield column, value, is_list


def is_spoken(criterion: Any) -> bool:
    """Whether there is an operator of the app's own in it with words, such as OR."""
    used = (getattr(element, "operator", None) for element in visitors.iterate(criterion))
    return any(
        isinstance(operator, operators.custom_op) and any(map(str.isalpha, operator.opstring))
        for operator in used
    )


def has_key(table: Any, key: Key) -> bool:
    """Whether `key` of the database is the one that the app has in mind."""
    return {column.name for column in table.primary_key.columns} == {one.name for one in key}


def kind_of(type_: Any, dialect: str) -> str | None:
    """The kind of a type whose values are sent as they are; None for any other.

    One of the app's own may send two values as one.
    """
    meant = type_._variant_mapping.get(dialect, type_)  # noqa: SLF001 the same
    if isinstance(meant, OTHERS) or not type(meant).__module__.startswith("sqlalchemy."):
        return None
    return next((kind for cls, kind in KINDS if isinstance(meant, cls)), None)


def name_of(column: Any) -> str:
    return column if isinstance(column, str) else str(column.key)
