"""A plan: all that is known of a statement whatever its values, found once.

    select(User).where(User.id == 5)  --cache key-->  Plan   name, columns, is it steady
                                                             what it reads is known after it ran

What would write or lock is an error here, before it runs.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.selectable import GenerativeSelect, TextualSelect, Values

from perf_middleware.database.queries.drivers.naming import Nameless, Names
from perf_middleware.database.queries.functions import begins_as_a_read, locks_rows, steadiness
from perf_middleware.database.tables.touched import ANYTHING
from perf_middleware.errors import UncacheableQueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect
    from sqlalchemy.orm import Mapper

    from perf_middleware.database.tables.touched import Touched

PLANS_MAX: Final = 1_000  # statements, whatever their values; the oldest goes
DIGEST_BYTES: Final = 16
NAME_CHARS_MAX: Final = 60


class Plan:
    """One statement.  `digest` None: it has no name and is not cached, for what `nameless` says."""

    __slots__ = (
        "asked_for", "counts", "digest", "entities", "is_orm", "is_understood", "metadata", "name",
        "nameless", "steadiness", "wants_the_database",
    )  # fmt: skip

    def __init__(self, statement: Any, dialect: Dialect, names: Names, key: Any) -> None:
        self.is_orm = statement._propagate_attrs.get("compile_state_plugin") == "orm"  # noqa: SLF001
        self.entities: dict[int, Mapper[Any]] = {}
        self.metadata: Any = None  # of the columns as the last statement had them (answers.py)
        self.asked_for: tuple[Any, ...] = ()
        self.counts: Any = None
        self.is_understood = False
        self.nameless: object = None
        self.digest: bytes | None = None
        sql = statement.text if isinstance(statement, TextClause) else _compiled(statement, dialect)
        self.name = _called(statement)
        self.steadiness = steadiness(sql)
        options = statement.get_execution_options()
        self.wants_the_database = bool(
            options.get("populate_existing")
            or options.get("yield_per")
            or options.get("stream_results")
        )
        try:
            if key is None:
                raise Nameless("a part of it that SQLAlchemy does not cache either")  # noqa: TRY301
            self._describe(statement)
            text = "\n".join((dialect.name, dialect.driver, sql, names.of_key(key.key)))
            written = text.encode("utf-8", "surrogatepass")
            self.digest = blake2b(written, digest_size=DIGEST_BYTES).digest()
        except Nameless as found:
            self.nameless = found.what

    def _describe(self, statement: Any) -> None:
        """Which columns are entities."""
        if not self.is_orm:
            return
        descriptions = getattr(statement, "column_descriptions", None)
        if descriptions is None:  # a union, or text with entities
            if _has_entities(statement):
                raise Nameless("entities of a union or of text: select them from a subquery")
            return
        for at, described in enumerate(descriptions):
            expr = described["expr"]
            if expr is not None and expr is described["entity"]:
                self.entities[at] = inspect(expr).mapper


class Plans:
    """The plans of one query cache, by cache key and dialect."""

    def __init__(self) -> None:
        self.names = Names()
        self._plans: OrderedDict[Any, Plan] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def of(
        self, statement: Any, dialect: Dialect, of_text: Callable[[str], Touched] | None
    ) -> tuple[Plan, Any]:
        """The plan and the cache key with this statement's own values (None: it has none).

        Raises UncacheableQueryError for what is no query.
        """
        try:
            key = statement._generate_cache_key()  # noqa: SLF001 no public name
        except AttributeError:
            raise not_a_query(statement) from None
        if key is None:
            require_a_query(statement, of_text)
            return Plan(statement, dialect, self.names, None), None
        known = (key.key, dialect)
        plan = self._plans.get(known)
        if plan is not None:
            return plan, key
        require_a_query(statement, of_text)
        plan = Plan(statement, dialect, self.names, key)
        self._plans[known] = plan
        if len(self._plans) > PLANS_MAX:
            self._plans.popitem(last=False)
        return plan, key


def require_a_query(statement: Any, of_text: Callable[[str], Touched] | None) -> None:
    """Raises UncacheableQueryError for what writes, locks, or is no statement of one query."""
    if isinstance(statement, TextClause):
        return _require_reading_text(statement.text, of_text)
    if isinstance(statement, TextualSelect):
        return _require_reading_text(str(statement.element), of_text)
    if getattr(statement, "is_dml", False) or getattr(statement, "is_ddl", False):
        raise UncacheableQueryError(
            f"{type(statement).__name__} writes", "use session.execute(); its commit purges"
        )
    from_text = getattr(statement, "element", None)
    if not isinstance(statement, GenerativeSelect | Values) and not (
        getattr(statement, "is_select", False) or isinstance(from_text, TextClause)
    ):
        raise not_a_query(statement)
    for element in visitors.iterate(statement):
        if getattr(element, "is_dml", False):
            raise UncacheableQueryError(
                f"it has {type(element).__name__} inside, which writes", "use session.execute()"
            )
        if getattr(element, "_for_update_arg", None) is not None:
            raise UncacheableQueryError(
                "with_for_update() locks rows, which a kept answer would not",
                "use session.execute()",
            )
    return None


def not_a_query(statement: object) -> UncacheableQueryError:
    return UncacheableQueryError(
        f"{type(statement).__name__} is no query", "give it a select(), a union or a text()"
    )


def _require_reading_text(sql: str, of_text: Callable[[str], Touched] | None) -> None:
    if not begins_as_a_read(sql):
        raise UncacheableQueryError("the text is no query", "use session.execute()")
    if locks_rows(sql):
        raise UncacheableQueryError("the text locks rows", "use session.execute()")
    touched = of_text(sql) if of_text is not None else ANYTHING
    if touched is not ANYTHING and touched.writes and touched.writes != ANYTHING.changes:
        raise UncacheableQueryError("the text writes", "use session.execute()")


def _compiled(statement: Any, dialect: Dialect) -> str:
    try:
        return str(statement.compile(dialect=dialect))
    except (SQLAlchemyError, AttributeError, TypeError, NotImplementedError):
        return ""  # executing it will say what is wrong


def _called(statement: Any) -> str:
    """A name for figures: the tables that it selects from."""
    try:
        froms = statement.get_final_froms()
        return ",".join(sorted({_name_of(each) for each in froms}))[:NAME_CHARS_MAX] or "select"
    except (SQLAlchemyError, AttributeError, TypeError, NotImplementedError):
        return "text" if isinstance(statement, TextClause) else "select"


def _name_of(each: Any) -> str:
    element = getattr(each, "element", None)  # of an alias
    name = getattr(each if element is None else element, "name", None)
    if isinstance(name, str):
        return name
    left = getattr(each, "left", None)
    return _name_of(left) if left is not None else "subquery"


def _has_entities(statement: Any) -> bool:
    """Whether rows of a union or of text have objects in them."""
    selects = getattr(statement, "selects", None)
    if selects is None:
        return True
    return any(
        described["expr"] is described["entity"]
        for each in selects
        for described in getattr(each, "column_descriptions", ())
    )
