"""Statement fingerprint: what two SQL texts share that differ only in their values.

    select * from T where id in (1,2,3) -- x     ->  SELECT * FROM T WHERE id IN (?)
    SELECT *  FROM T WHERE id IN ($1::INTEGER)   ->  the same

Numbers, strings, dollar quotes, constants and bind marks of every style become one mark; lists of
them, and the rows of VALUES, are one however long they are; comments go; keywords are upper case.

The invariant: no character of a literal is in the result.  What is not closed (a quote, at the end
of a text that was cut) counts as a literal to the end.
Source: the normalisation of pg_stat_statements (PostgreSQL documentation, F.32), whose lexer is
approximated; names that are not quoted keep their case, as MySQL's tables need.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CHARS_MAX: Final = 200_000  # of a text that are read; SQLAlchemy's largest batches stay below
TOKENS_MAX: Final = 3_000  # in the result: a list counts as one
TEXT_CHARS_MAX: Final = 2_000  # kept of the result; the id is made of all of it
NAME_CHARS_MAX: Final = 48
WORD_CHARS_MAX: Final = 256  # no server takes longer names; what is longer was meant as a value
MARK: Final = "?"
CUT: Final = "…"

KEYWORDS: Final = frozenset((
    "ADD", "ALL", "ALTER", "ANALYZE", "AND", "ANY", "ARRAY", "AS", "ASC", "BEGIN", "BETWEEN", "BY",
    "CASE", "CAST", "CHECK", "COLLATE", "COLUMN", "COMMIT", "CONFLICT", "CONSTRAINT", "CREATE",
    "CROSS", "CURRENT", "DECLARE", "DEFAULT", "DELETE", "DESC", "DISTINCT", "DO", "DROP", "ELSE",
    "END", "ESCAPE", "EXCEPT", "EXECUTE", "EXISTS", "EXPLAIN", "FALSE", "FETCH", "FILTER", "FIRST",
    "FOLLOWING", "FOR", "FOREIGN", "FROM", "FULL", "GLOB", "GROUP", "HAVING", "IF", "ILIKE", "IN",
    "INDEX", "INNER", "INSERT", "INTERSECT", "INTO", "IS", "ISNULL", "JOIN", "KEY", "LAST",
    "LATERAL", "LEFT", "LIKE", "LIMIT", "LOCK", "LOCKED", "MATERIALIZED", "NATURAL", "NEXT", "NO",
    "NOT", "NOTHING", "NOTNULL", "NOWAIT", "NULL", "NULLS", "OF", "OFFSET", "ON", "ONLY", "OR",
    "ORDER", "OUTER", "OVER", "PARTITION", "PRAGMA", "PRECEDING", "PRIMARY", "RECURSIVE",
    "REFERENCES", "RELEASE", "REPLACE", "RETURNING", "RIGHT", "ROLLBACK", "ROW", "ROWS",
    "SAVEPOINT", "SELECT", "SET", "SHARE", "SHOW", "SIMILAR", "SKIP", "SOME", "TABLE", "TEMPORARY",
    "THEN", "TO", "TRANSACTION", "TRUE", "TRUNCATE", "UNBOUNDED", "UNION", "UNIQUE", "UPDATE",
    "USING", "VACUUM", "VALUES", "VIEW", "WHEN", "WHERE", "WINDOW", "WITH",
))  # fmt: skip
CONSTANTS: Final = frozenset(("NULL", "TRUE", "FALSE"))
TESTED_BY: Final = frozenset(("IS", "NOT"))  # IS NULL and NOT NULL are no values
NAMES_FOLLOW: Final = frozenset(("SAVEPOINT", "RELEASE", "TO"))  # a savepoint's name is numbered
COMPARED_BY: Final = frozenset(("=", "<", ">", "<=", ">=", "<>", "!=", "==", "||", "LIKE", "GLOB",
                                "ILIKE", "ESCAPE", "MATCH", "REGEXP"))  # fmt: skip
LISTS_FOLLOW: Final = frozenset(("IN", "VALUES"))

# Plain strings double their quotes; PostgreSQL's E'…' and all of MySQL escape by a backslash.
_PLAIN = r"(?:[nNbBxX]|[uU]&)?'(?:[^']|'')*+(?:'|\Z)"
_ESCAPED = r"'(?:[^'\\]|''|\\.|\\\Z)*+(?:'|\Z)"
_DOLLAR = r"\$(?P<tag>(?:[^\W\d]\w*)?)\$(?:(?!\$(?P=tag)\$).)*+(?:\$(?P=tag)\$|\Z)"
_NUMBER = r"\.?\d\w*(?:\.\w*)?(?:(?<=[eE])[+-]\w+)?"
_BIND = r"\?\d*|%\(\w+\)s|%s|:\w+|\$\w+|(?<!@)@\w+"
_CAST = (
    r"(?:\s*::\s*(?:[^\W\d]\w*|\"[^\"]*\")(?:\.\w+)?"
    r"(?:\s+(?i:varying|precision|with(?:out)?\s+time\s+zone)\b)?"
    r"(?:\s*\(\s*\d+(?:\s*,\s*\d+)?\s*\))?(?:\s*\[\s*\])*)*+"
)


@cache  # not at import: to compile them takes 100 ms, which an app without a database need not wait
def _lexer(*, backslash_escapes: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    if backslash_escapes:
        double = '"' + _ESCAPED[1:].replace("'", '"')
        string = rf"(?:[nNbBxX]|[uU]&)?{_ESCAPED}|{double}"
        comment = r"--[^\n]*|\#[^\n]*"
    else:
        string = rf"[eE]{_ESCAPED}|{_PLAIN}"
        comment = r"--[^\n]*"
    one = rf"(?>{string}|{_NUMBER}|{_BIND}){_CAST}"
    more = rf"(?:[+-]?\s*{one}|(?i:NULL|TRUE|FALSE|DEFAULT)\b(?!\s*\())"
    listed = rf"(?:\s*,\s*{more}(?=\s*[,)]))*+"
    row = rf"\(\s*{more}{listed}\s*\)"
    tokens = re.compile(
        rf"""(?P<dollar>{_DOLLAR})"""
        rf"""|(?P<rows>{row}(?:\s*,\s*{row})*+)"""
        rf"""|(?P<constant>{one}{listed})"""
        r"""|(?P<quoted>"(?:[^"]|"")*+(?:"|\Z)|`(?:[^`]|``)*+(?:`|\Z))"""
        r"""|(?P<word>[^\W\d][\w$]*)"""
        r"""|(?P<symbol>::|:=|->>|->|\#>>|\#>|@>|<@|@@|\|\||[<>=~!^&|]+|[^\s\w])""",
        re.DOTALL,
    )
    noise = re.compile(
        rf"""(?P<kept>{_DOLLAR}|{string}|"(?:[^"]|"")*+(?:"|\Z)|`(?:[^`]|``)*+(?:`|\Z)"""
        rf"""|[^\W\d][\w$]*)|(?P<line>{comment})|(?P<block>/\*)""",
        re.DOTALL,
    )
    return tokens, noise


_BLOCK_EDGE: Final = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`text` is the statement without its values, cut; `id` stands for all of it, in 12 digits.

    `name` tells a person what it is: `select orders`.
    """

    id: str
    name: str
    text: str

    @property
    def label(self) -> str:
        """Name and id, as a metric's label shows it."""
        return f"{self.name} {self.id}"

    @property
    def verb(self) -> str:
        """The first word of the name: `select`, `insert`…"""
        return self.name.partition(" ")[0]


def fingerprint(sql: str, *, backslash_escapes: bool = False) -> Fingerprint:
    """What `sql` is without its values.

    `backslash_escapes` for MySQL and MariaDB, whose strings have them, and double quotes too.
    """
    tokens = _tokens(sql, backslash_escapes=backslash_escapes)
    text = _written(tokens)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    if len(text) > TEXT_CHARS_MAX:
        text = text[: TEXT_CHARS_MAX - 1] + CUT
    return Fingerprint(digest, _name_of(tokens), text)


def normalise(sql: str, *, backslash_escapes: bool = False) -> str:
    """All of the text without its values; normalising it again changes nothing."""
    return _written(_tokens(sql, backslash_escapes=backslash_escapes))


def _tokens(sql: str, *, backslash_escapes: bool) -> list[str]:
    lexer, noise = _lexer(backslash_escapes=backslash_escapes)
    was_cut = len(sql) > CHARS_MAX
    if was_cut:
        sql = sql[:CHARS_MAX]
    if "--" in sql or "/*" in sql or (backslash_escapes and "#" in sql):
        sql = _without_comments(sql, noise)
    out: list[str] = []
    opened: list[int] = []  # where the groups that are open begin in `out`
    for match in lexer.finditer(sql):
        if len(out) >= TOKENS_MAX:
            was_cut = True
            break
        lexeme = match[0]
        match match.lastgroup:
            case "word":
                _add_word(out, lexeme)
            case "quoted":
                _add_quoted(out, lexeme, opened)
            case "symbol":
                _add_symbol(out, lexeme, opened)
            case "rows":
                opened.append(len(out))
                out += ("(", MARK)
                _close(out, opened)
            case _:  # a constant, or a dollar quote (whose tag is a group as well)
                _add_mark(out)
    while out and out[-1] == ";":
        out.pop()
    if was_cut:
        out.append(CUT)
    return out


def _without_comments(sql: str, noise: re.Pattern[str]) -> str:
    # A scan of its own: a comment may stand inside a list, which is matched as one lexeme.
    pieces: list[str] = []
    kept_from = at = 0
    while (match := noise.search(sql, at)) is not None:
        at = match.end()
        if match.lastgroup == "kept" or match["kept"] is not None:
            continue
        pieces += (sql[kept_from : match.start()], " ")
        if match["block"]:
            depth = 1  # PostgreSQL's nest; elsewhere more is left out than is a comment, never less
            while depth and (edge := _BLOCK_EDGE.search(sql, at)) is not None:
                depth += 1 if edge[0] == "/*" else -1
                at = edge.end()
            if depth:
                at = len(sql)
        kept_from = at
    pieces.append(sql[kept_from:])
    return "".join(pieces)


def _add_mark(out: list[str]) -> None:
    if out and out[-1] in ("-", "+") and (len(out) == 1 or not _is_operand(out[-2])):
        out.pop()  # a sign: the value's own
    if len(out) >= 2 and out[-1] == "," and out[-2] == MARK:
        out.pop()
    else:
        out.append(MARK)


def _is_operand(lexeme: str) -> bool:
    if lexeme in (")", "]", MARK) or lexeme[0] in '"`':
        return True
    return lexeme not in KEYWORDS and (lexeme[0].isalpha() or lexeme[0] == "_")


def _add_word(out: list[str], lexeme: str) -> None:
    if len(lexeme) > WORD_CHARS_MAX:
        _add_mark(out)
        return
    upper = lexeme.upper()
    before = out[-1] if out else ""
    if upper not in KEYWORDS:
        out.append(MARK if before in NAMES_FOLLOW and _names_savepoint(out) else lexeme)
    elif (upper in CONSTANTS and before not in TESTED_BY) or (
        upper == "DEFAULT" and before in ("(", ",")
    ):
        _add_mark(out)
    else:
        out.append(upper)


def _names_savepoint(out: Sequence[str]) -> bool:
    # TO also stands in `SET timezone TO x` and `RENAME TO x`; a mark there is no harm.
    return out[0] in ("SAVEPOINT", "RELEASE", "ROLLBACK")


def _add_quoted(out: list[str], lexeme: str, opened: list[int]) -> None:
    # SQLite reads "x" as a string where no column has that name: in the place of a value it is one.
    in_list = bool(opened) and opened[-1] > 0 and out[opened[-1] - 1] in LISTS_FOLLOW
    is_open = len(lexeme) < 2 or lexeme[-1] != lexeme[0] or len(lexeme) > WORD_CHARS_MAX
    if is_open or in_list or (out and out[-1].upper() in COMPARED_BY):
        _add_mark(out)
    else:
        out.append(lexeme)


def _add_symbol(out: list[str], lexeme: str, opened: list[int]) -> None:
    if lexeme == "(":
        opened.append(len(out))
        out.append(lexeme)
    elif lexeme == ")" and opened:
        _close(out, opened)
    else:
        out.append(lexeme)


def _close(out: list[str], opened: list[int]) -> None:
    """End a group; one that repeats its neighbour, as rows of VALUES do, is left out."""
    out.append(")")
    begin = opened.pop()
    if begin and out[begin - 1] == ",":
        length = len(out) - begin
        if out[max(begin - 1 - length, 0) : begin - 1] == out[begin:]:
            del out[begin - 1 :]


_TIGHT_BEFORE: Final = frozenset((",", ")", "]", ".", ";", "::", "["))
_TIGHT_AFTER: Final = frozenset(("(", "[", ".", "::"))


def _written(tokens: Sequence[str]) -> str:
    pieces: list[str] = []
    before = "("
    for lexeme in tokens:
        is_call = lexeme == "(" and before not in KEYWORDS and before[0] not in ",)=<>?"
        if lexeme not in _TIGHT_BEFORE and before not in _TIGHT_AFTER and not is_call:
            pieces.append(" ")
        pieces.append(lexeme)
        before = lexeme
    return "".join(pieces)


def _name_of(tokens: Sequence[str]) -> str:
    """What is done, and to which table first; `statement` where there is no word."""
    verb = next((lexeme for lexeme in tokens if lexeme[0].isalpha()), "statement").lower()
    for at, lexeme in enumerate(tokens[:-1]):
        if lexeme in ("FROM", "INTO", "UPDATE", "TABLE", "JOIN"):
            table = _table_at(tokens, at + 1)
            if table:
                return f"{verb} {table}"[:NAME_CHARS_MAX]
    return verb[:NAME_CHARS_MAX]


def _table_at(tokens: Sequence[str], at: int) -> str:
    parts: list[str] = []
    while at < len(tokens):
        lexeme = tokens[at]
        if lexeme in KEYWORDS or not (lexeme[0].isalpha() or lexeme[0] in '_"`'):
            break
        parts.append(lexeme.strip('"`'))
        if at + 2 >= len(tokens) or tokens[at + 1] != ".":
            break
        at += 2
    return ".".join(parts)
