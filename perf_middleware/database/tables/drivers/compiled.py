"""Which tables a SQLAlchemy statement touches: read while it is compiled once more.

Only the compiler knows all of a statement: what an ORM entity, `joinedload`, inheritance or
`with_loader_criteria` becomes.  So it is compiled by the dialect's own compiler, and each table and
function is noted as it is written.  That takes about as long as compiling (0.1 to 1 ms), so callers
keep the answer beside the compiled statement that SQLAlchemy keeps (see `StatementTables`).

What an app renders itself (`@compiles`, a hint) is not seen there, and means anything.
"""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ClauseElement, TextClause
from sqlalchemy.sql.selectable import TableClause
from sqlalchemy.sql.selectable import TextualSelect as Textual

from perf_middleware.database.tables.drivers.keyed import keyed
from perf_middleware.database.tables.drivers.raw import RawTables
from perf_middleware.database.tables.functions import KNOWN_FUNCTIONS
from perf_middleware.database.tables.relations import NO_RELATIONS, Relations
from perf_middleware.database.tables.rows import chosen
from perf_middleware.database.tables.touched import ALL_TABLES, ANYTHING, NOTHING, Table, Touched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import Compiled
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Delete, Insert, Update

SCHEMAS_MAX: Final = 256  # translation maps kept for one statement; it is read anew for others
SESSION_ONLY: Final = frozenset(
    {"savepoint", "rollback_to_savepoint", "release_savepoint", "next_value_func", "sequence"}
)


class StatementTables:
    """The tables of each statement, found once.

    `known_functions`: names of functions that the app vouches for, beside KNOWN_FUNCTIONS;
    `relations`: what this database does beyond its statements; None: not known yet, so that what
    touches a table may touch any.
    `rows`: names of tables whose rows are told apart in what is read and written by primary key.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        relations: Relations | None = NO_RELATIONS,
        known_functions: frozenset[str] = frozenset(),
        rows: Iterable[str] = (),
    ) -> None:
        known = KNOWN_FUNCTIONS | {name.lower() for name in known_functions}
        self._dialect = dialect
        self._rows = chosen(rows)
        self._relations: Relations | None = relations
        self._raw = RawTables(dialect.name, known_functions=known)
        self._compiler = recording_compiler(dialect, self._raw, known)
        self._of_compiled: WeakKeyDictionary[
            Compiled, dict[frozenset[tuple[str | None, str | None]] | None, Touched]
        ] = WeakKeyDictionary()
        self._turn = Lock()  # DDL comes in any thread
        self.forgotten = 0
        """How often the relations were forgotten; what was read before the last time may be old."""
        self.not_understood = 0

    def of_compiled(
        self,
        compiled: Compiled,
        *,
        schema_translate_map: Mapping[str | None, str | None] | None = None,
    ) -> Touched:
        """What a compiled statement touches, as events of an engine have it: `context.compiled`.

        One compiled statement serves all translation maps, so the map is that of the execution.
        """
        names = None if not schema_translate_map else frozenset(schema_translate_map.items())
        kept = self._of_compiled.get(compiled)
        if kept is None:
            kept = self._of_compiled[compiled] = {}
        touched = kept.get(names)
        if touched is None:
            statement = compiled.statement
            if statement is None:
                touched = self.of_text(str(compiled))
            else:
                touched = self.of_statement(
                    statement, schema_translate_map=schema_translate_map, compiled=compiled
                )
            if len(kept) < SCHEMAS_MAX:
                kept[names] = touched
        return touched

    def of_statement(
        self,
        statement: ClauseElement,
        *,
        schema_translate_map: Mapping[str | None, str | None] | None = None,
        compiled: Compiled | None = None,
    ) -> Touched:
        """What `statement` touches; anything where it cannot be compiled or understood.

        With the rows, where it is known how it is `compiled` when it is executed.
        """
        if isinstance(statement, TextClause):
            return self.of_text(statement.text)
        is_plain = False
        try:
            noted = self._recorded(statement)
            touched = NOTHING
            if noted is not None:
                touched, is_plain = noted.touched(schema_translate_map or {}), noted.is_plain
        except (SQLAlchemyError, AttributeError, TypeError, NotImplementedError):
            touched = ANYTHING
        if touched is ANYTHING:
            self.not_understood += 1
        touched = self._with_relations(touched)
        if not self._rows or not is_plain or compiled is None or self._relations is None:
            return touched
        try:
            rows = keyed(compiled, touched, self._relations, self._rows)
        except (SQLAlchemyError, AttributeError, TypeError, NotImplementedError):
            return touched  # the tables are known
        return replace(touched, keyed=rows)

    def of_text(self, sql: str) -> Touched:
        """What a statement that was written as text touches."""
        touched = self._raw.touched(sql)
        if touched is ANYTHING:
            self.not_understood += 1
        return self._with_relations(touched)

    @property
    def knows_relations(self) -> bool:
        """Whether it is known what this database does beyond its statements."""
        return self._relations is not None

    def learn(self, relations: Relations, *, read_at: int) -> None:
        """From now on these hold, and every statement is looked at anew.

        Not where they were forgotten since they began to be read: `read_at` is `forgotten` as it
        was then.
        """
        with self._turn:
            if read_at == self.forgotten:
                self._relations = relations
                self._of_compiled = WeakKeyDictionary()

    def forget_relations(self) -> None:
        """They have changed, or may have: until they are read again every table means all."""
        with self._turn:
            self.forgotten += 1
            if self._relations is not None:
                self._relations = None
                self._of_compiled = WeakKeyDictionary()

    def _with_relations(self, touched: Touched) -> Touched:
        relations = self._relations
        if relations is not None:
            return relations.applied_to(touched)
        return Touched(
            reads=ALL_TABLES if touched.reads else touched.reads,
            changes=ALL_TABLES if touched.writes else touched.changes,
        )

    def _recorded(self, statement: ClauseElement) -> Notes | None:
        """What its compilation meets; None for one that touches no table."""
        if getattr(statement, "__visit_name__", None) in SESSION_ONLY:
            return None
        if (
            not statement.supports_execution
            or getattr(statement, "is_ddl", False)
            or any(is_rendered_by_the_app(element) for element in visitors.iterate(statement))
        ):
            noted = Notes()
            noted.is_anything = True
            return noted
        compiler = self._compiler(self._dialect, statement)
        notes: Notes = compiler.notes  # type: ignore[attr-defined]
        return notes


class Notes:
    """What one compilation has met."""

    __slots__ = ("changes", "inserts", "is_anything", "reads", "tables", "targets", "texts")

    def __init__(self) -> None:
        self.reads: set[TableClause] = set()
        self.inserts: set[TableClause] = set()
        self.changes: set[TableClause] = set()
        self.texts: list[Touched] = []
        self.is_anything = False
        self.tables = 0  # how often one was met; in a query with itself more often than it reads
        self.targets = 0

    @property
    def is_plain(self) -> bool:
        """Whether one table is read once, or one is written once; and that is all of it.

        What was written as text may turn conditions around it over: `id = 1 AND …text… OR …`.
        """
        if self.is_anything or self.texts:
            return False
        if self.targets:
            return self.targets == 1 == len(self.changes | self.inserts)
        return self.tables == 1

    def touched(self, schemas: Mapping[str | None, str | None]) -> Touched:
        """All of it, with the schemas that a translation map makes of those written down."""
        if self.is_anything:
            return ANYTHING

        def named(tables: set[TableClause]) -> frozenset[Table]:
            return frozenset(
                Table(table.name, schemas.get(table.schema, table.schema)) for table in tables
            )

        touched = Touched(
            reads=named(self.reads), inserts=named(self.inserts), changes=named(self.changes)
        )
        for text in self.texts:
            if text is ANYTHING:
                return ANYTHING
            touched |= text
        return touched


def is_rendered_by_the_app(element: visitors.ExternallyTraversible) -> bool:
    """Whether code of the app (`@compiles`) writes this element's SQL."""
    return hasattr(type(element), "_compiler_dispatcher")


def recording_compiler(
    dialect: Dialect, raw: RawTables, known: frozenset[str]
) -> type[SQLCompiler]:
    """The dialect's compiler, which also notes what it meets in `notes`."""
    base: Any = dialect.statement_compiler

    class Recording(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.notes = Notes()
            super().__init__(*args, **kwargs)

        def visit_table(self, table: Any, **kwargs: Any) -> Any:
            if kwargs.get("iscrud"):
                self.notes.changes.add(table)
            self.notes.reads.add(table)
            self.notes.tables += 1
            return super().visit_table(table, **kwargs)

        def visit_insert(self, insert_stmt: Insert, *args: Any, **kwargs: Any) -> Any:
            table = insert_stmt.table
            # An upsert changes rows that are there; so may a prefix such as OR REPLACE.
            is_plain = insert_stmt._post_values_clause is None  # noqa: SLF001 no public name
            is_plain = is_plain and not insert_stmt._prefixes  # noqa: SLF001 the same
            self.notes.targets += 1
            self._note_target(table, self.notes.inserts if is_plain else self.notes.changes)
            if not is_plain or insert_stmt._returning:  # noqa: SLF001 the same
                self._note_target(table, self.notes.reads)
            return super().visit_insert(insert_stmt, *args, **kwargs)

        def visit_update(self, update_stmt: Update, *args: Any, **kwargs: Any) -> Any:
            self.notes.targets += 1
            self._note_target(update_stmt.table, self.notes.changes)
            return super().visit_update(update_stmt, *args, **kwargs)

        def visit_delete(self, delete_stmt: Delete, *args: Any, **kwargs: Any) -> Any:
            self.notes.targets += 1
            self._note_target(delete_stmt.table, self.notes.changes)
            return super().visit_delete(delete_stmt, *args, **kwargs)

        def _note_target(self, table: Any, into: set[TableClause]) -> None:
            while not isinstance(table, TableClause) and hasattr(table, "element"):
                table = table.element  # an alias of it
            if isinstance(table, TableClause):
                into.add(table)
            else:
                self.notes.is_anything = True

        def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> Any:
            packages = tuple(getattr(func, "packagenames", ()))
            if func.name.lower() not in known or packages not in ((), ("pg_catalog",)):
                self.notes.is_anything = True
            return super().visit_function(func, *args, **kwargs)

        def visit_textclause(self, textclause: TextClause, *args: Any, **kwargs: Any) -> Any:
            # The whole statement of `text().columns()`, or a piece of a larger one.
            self._note_text(textclause.text, in_from=bool(kwargs.get("asfrom")))
            return super().visit_textclause(textclause, *args, **kwargs)

        def visit_tstring(self, *args: Any, **kwargs: Any) -> Any:
            self.notes.is_anything = True
            return super().visit_tstring(*args, **kwargs)

        def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> Any:
            if column.is_literal and column.name != "*":
                self._note_text(str(column.name))
            return super().visit_column(column, *args, **kwargs)

        def visit_textual_label_reference(self, element: Any, *args: Any, **kwargs: Any) -> Any:
            self._note_text(str(element.element))
            return super().visit_textual_label_reference(element, *args, **kwargs)

        def _note_text(self, sql: str, *, in_from: bool = False) -> None:
            if not self.stack or isinstance(self.stack[-1].get("selectable"), Textual):
                self.notes.texts.append(raw.touched(sql))
            elif in_from:
                self.notes.texts.append(raw.touched_by_from(sql))
            else:
                self.notes.texts.append(raw.touched_by_piece(sql))

        def get_select_hint_text(self, byfroms: Any) -> Any:
            self.notes.is_anything = True
            return super().get_select_hint_text(byfroms)

        def get_from_hint_text(self, table: Any, text: Any) -> Any:
            self.notes.is_anything = True
            return super().get_from_hint_text(table, text)

        def get_statement_hint_text(self, hint_texts: Any) -> Any:
            self.notes.is_anything = True
            return super().get_statement_hint_text(hint_texts)

    return Recording
