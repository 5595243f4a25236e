"""Which tables a statement written as text touches: read by sqlglot, where it is installed.

Without it (the extra `sql`), and for all that it does not understand, the answer is anything:
unknown functions, CALL, DO, COPY, TRUNCATE, DDL, PRAGMA, EXPLAIN, an unfinished quote.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.tables.touched import (
    ALL_TABLES,
    ANYTHING,
    NOTHING,
    Table,
    Tables,
    Touched,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

STATEMENTS_MAX: Final = 1_000  # kept with their answers; the one used longest ago goes first
SQL_CHARS_MAX: Final = 20_000  # a longer one is not read: milliseconds, and mostly a long IN list
DIALECTS: Final = {"postgresql": "postgres", "sqlite": "sqlite"}

# What comes first, behind comments and brackets; anything else is not read.
FIRST_WORD: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(\w+)", re.DOTALL)
READ: Final = frozenset(
    {"select", "with", "insert", "update", "delete", "merge", "table", "values"}
)
# They touch no table; a second statement behind them is not among their characters.
SESSION: Final = {
    "postgres": re.compile(
        # COMMIT PREPARED brings in what another session has written.
        r"\s*(?:begin|start transaction|commit(?![^;]*\bprepared\b)|end|rollback|savepoint|release|"
        r"set|reset|show|listen|unlisten|notify|discard)\b[^;()]*;?\s*", re.IGNORECASE,
    ),
    "sqlite": re.compile(
        r"\s*(?:begin|commit|end|rollback|savepoint|release|pragma (?:foreign_keys|journal_mode|"
        r"synchronous|busy_timeout|cache_size|temp_store|mmap_size|query_only))\b[^;()]*;?\s*",
        re.IGNORECASE,
    ),
}  # fmt: skip
PIECES: Final = (
    "SELECT 1 WHERE ({}\n)", "SELECT {}\n", "SELECT 1 ORDER BY {}\n",
)  # fmt: skip
PLAIN_PIECE: Final = re.compile(
    r"\s*(?:NAME(?:\s*\.\s*NAME)*(?:\s+(?:asc|desc))?\s*,\s*)*"
    r"NAME(?:\s*\.\s*NAME)*(?:\s+(?:asc|desc))?\s*".replace("NAME", r'(?:\w+|"\w+")'),
    re.IGNORECASE,
)  # names and numbers, such as `a.b desc, 1`: no table where no table may stand

PREFIX: Final = re.compile(r"\s*or\s+(?:replace|ignore|abort|fail|rollback)\s*", re.IGNORECASE)

# What sqlglot makes of words of the grammar, of operators, and of functions that it writes for
# other databases: their names there are nobody's in SQL.
_STRUCTURE: Final = """
    And Or Xor Not Case Cast TryCast If Exists In Any All Values
    RegexpLike RegexpILike MatchAgainst SimilarTo
    ArrayContainsAll ArrayContainedBy ArrayOverlaps ArrayConcat ArraySize ArrayToString
    JSONExtract JSONExtractScalar JSONBExtract JSONBExtractScalar JSONBContains
    JSONBContainsAnyTopKeys JSONBContainsAllTopKeys JSONArrayAgg JSONObjectAgg
    TimestampTrunc DateTrunc TimeToStr StrToTime StrToDate UnixToTime TsOrDsToDate TsOrDsToTimestamp
    GenerateSeries ExplodingGenerateSeries Explode Unnest GroupConcat StrPosition AnonymousAggFunc
    CurrentTimestamp CurrentDate CurrentTime Localtime Localtimestamp Rand Uuid
"""
STRUCTURE: Final = frozenset(_STRUCTURE.split())


class RawTables:
    """The tables of statements written as text; each statement is read once."""

    def __init__(self, dialect: str, *, known_functions: frozenset[str]) -> None:
        self._dialect = DIALECTS.get(dialect)
        self._known = known_functions
        self._kept: OrderedDict[tuple[str, str], Touched] = OrderedDict()
        self._lock = Lock()

    def touched(self, sql: str) -> Touched:
        """What the statements of `sql` touch."""
        session = SESSION.get(self._dialect or "")
        if session is not None and session.fullmatch(sql):
            return NOTHING
        first = FIRST_WORD.match(sql)
        if first is None or first[1].lower() not in READ:
            return ANYTHING
        return self._kept_answer(sql, ("{}",))

    def touched_by_piece(self, sql: str) -> Touched:
        """What a piece of a statement touches: a condition, columns, an order."""
        if PLAIN_PIECE.fullmatch(sql) or PREFIX.fullmatch(sql):
            return NOTHING
        return self._kept_answer(sql, PIECES)

    def touched_by_from(self, sql: str) -> Touched:
        """What a piece in a FROM clause touches."""
        return self._kept_answer(sql, ("SELECT 1 FROM {}\n",))

    def _kept_answer(self, sql: str, forms: tuple[str, ...]) -> Touched:
        if self._dialect is None or len(sql) > SQL_CHARS_MAX:
            return ANYTHING
        key = (sql, forms[0])
        with self._lock:
            touched = self._kept.get(key)
            if touched is not None:
                self._kept.move_to_end(key)
                return touched
        touched = self._read([form.replace("{}", sql) for form in forms])
        with self._lock:
            self._kept[key] = touched
            if len(self._kept) > STATEMENTS_MAX:
                self._kept.popitem(last=False)
        return touched

    def _read(self, forms: list[str]) -> Touched:
        """By the first of `forms` that sqlglot takes; a piece is one statement with what is added.
        Whatever it raises, the statement itself goes to its database, which says what is wrong.

        All that stands in it is looked at, so a piece that breaks out of its place hides nothing.
        """
        sqlglot = parser()
        if sqlglot is None:
            return ANYTHING
        for text in forms:
            try:
                parsed = sqlglot.parse(text, dialect=self._dialect)
                return self._touched_by_all(sqlglot.exp, [one for one in parsed if one])
            except Exception:  # noqa: BLE001, S112 - of `select ->` it raises TypeError, say
                continue
        return ANYTHING

    def _touched_by_all(self, exp: Any, statements: list[Any]) -> Touched:
        together = NOTHING
        for statement in statements:
            touched = touched_by(exp, statement, self._known)
            if touched is ANYTHING:
                return ANYTHING
            together |= touched
        return together


def read_by_view(sql: str, dialect: str, known: frozenset[str]) -> Tables:
    """The tables that `CREATE VIEW … AS` reads; ALL_TABLES where that is not understood."""
    sqlglot = parser()
    if sqlglot is None:
        return ALL_TABLES
    try:
        created = sqlglot.parse_one(sql, dialect=DIALECTS[dialect])
    except Exception:  # noqa: BLE001 - whatever it trips over is not understood
        return ALL_TABLES
    if not isinstance(created, sqlglot.exp.Create) or created.expression is None:
        return ALL_TABLES
    return touched_by(sqlglot.exp, created.expression, known).reads


@cache
def parser() -> ModuleType | None:
    """Sqlglot, or None where it is not installed."""
    try:
        import sqlglot
        import sqlglot.expressions
    except ImportError:
        return None
    return sqlglot


def touched_by(exp: Any, statement: Any, known: frozenset[str]) -> Touched:
    """What one parsed statement touches."""
    if isinstance(statement, exp.Transaction | exp.Commit | exp.Rollback):
        return NOTHING
    if not isinstance(statement, exp.Query | exp.Insert | exp.Update | exp.Delete | exp.Merge):
        return ANYTHING
    reads: set[Table] = set()
    changes: set[Table] = set()
    for node in statement.walk():
        if isinstance(node, exp.Command | exp.Into | exp.DDL) and not isinstance(
            node, exp.Query | exp.Insert
        ):
            return ANYTHING
        if isinstance(node, exp.Func) and not is_known(exp, node, known):
            return ANYTHING
        if isinstance(node, exp.Insert | exp.Update | exp.Delete | exp.Merge):
            if isinstance(node.parent, exp.When):
                continue  # what MERGE does to its own target
            targets = list(targets_of(exp, node))
            if not targets:
                return ANYTHING
            # An INSERT as text counts as a change: OR REPLACE and ON CONFLICT have many spellings.
            changes.update(targets)
        elif isinstance(node, exp.Table):
            if not isinstance(node.this, exp.Identifier):
                if isinstance(node.this, exp.Func):
                    continue  # a function in FROM, which was met above or will be
                return ANYTHING
            if not is_a_cte(exp, node):
                reads.add(named(node))
    return Touched(reads=frozenset(reads), changes=frozenset(changes))


def named(node: Any) -> Table:
    """The table of a Table node, by its name and schema."""
    return Table(node.name, node.db or None)


def targets_of(exp: Any, node: Any) -> Iterator[Table]:
    """The table that an INSERT, UPDATE, DELETE or MERGE writes, or none where it is no name."""
    table = node.this.this if isinstance(node.this, exp.Schema) else node.this
    if isinstance(table, exp.Table) and isinstance(table.this, exp.Identifier):
        yield named(table)


def is_known(exp: Any, node: Any, known: frozenset[str]) -> bool:
    """Whether a function is one of those that touch no table."""
    if isinstance(node.parent, exp.Dot) and node.parent.this.name.lower() != "pg_catalog":
        return False  # a function in a schema is somebody's own
    if isinstance(node, exp.Anonymous):
        return isinstance(node.this, str) and node.this.lower() in known
    if type(node).__name__ in STRUCTURE:
        return True
    return any(name.lower() in known for name in type(node).sql_names())


def is_a_cte(exp: Any, node: Any) -> bool:
    """Whether a table's name means one of the WITH around it.

    Inside of its own definition, and of those before it, the name is a table's; where the WITH is
    recursive it may be that too, and is taken for a table.
    """
    if node.db:
        return False
    name = node.name.lower()
    inside = node
    while (above := inside.parent) is not None:
        clause = above if isinstance(above, exp.With) else with_of(above)
        if clause is not None and clause is not inside:
            before = clause.expressions
            if above is clause:  # the name stands in one of its definitions
                at = next(i for i, cte in enumerate(before) if cte is inside)
                before = before[:at]
            if any(cte.alias.lower() == name for cte in before):
                return True
        inside = above
    return False


def with_of(node: Any) -> Any:
    """The WITH of a statement; the name of the argument depends on the version of sqlglot."""
    return node.args.get("with_") or node.args.get("with")
