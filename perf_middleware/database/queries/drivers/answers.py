"""The answer of a statement as plain values, and as a `Result` again.

(columns, rows, graph)    rows are tuples; where a column is of objects its cell is the number
                          of a record in the graph (entities.py), or None
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.sql.selectable import GenerativeSelect

from perf_middleware.database.queries.drivers.cells import Cells, Unstorable
from perf_middleware.database.queries.drivers.entities import Changed, Entities
from perf_middleware.database.queries.drivers.naming import Nameless

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy import Result
    from sqlalchemy.orm import Session

    from perf_middleware.database.queries.drivers.naming import Names
    from perf_middleware.database.queries.drivers.plans import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An answer taken apart: its own `rows`, and what of it to keep.

    `was_there`: one of its objects was in the session before, so that its values may be older than
    the statement.  `unstorable` names a type that does not come back; nothing is `kept` then.
    """

    rows: list[tuple[Any, ...]]
    metadata: SimpleResultMetaData
    kept: Any = None
    is_unchanging: bool = False
    was_there: bool = False
    unstorable: str = ""


class Answers:
    """Takes answers apart and puts them together."""

    def __init__(self, names: Names, register: Callable[[type], bool]) -> None:
        self._entities = Entities(names)
        self._register = register

    def taken(self, result: Result[Any], plan: Plan, statement: Any, had: Collection[Any]) -> Taken:
        """A result taken apart; `had` are the identities that were in the session before."""
        if result._unique_filter_state is not None:  # noqa: SLF001 no public name
            result = result.unique()  # joined collections: each row comes once for each member
        # Names of a Table's columns are no plain texts, and could not be written as bytes.
        columns, rows = tuple(map(str, result.keys())), [tuple(row) for row in result.all()]
        metadata = _metadata(plan, statement, columns)
        cells = Cells(self._register)
        try:
            kept, was_there = self._kept(columns, rows, plan, cells, had)
        except Unstorable as found:
            return Taken(rows=rows, metadata=metadata, unstorable=found.kind)
        except Nameless as found:
            return Taken(rows=rows, metadata=metadata, unstorable=repr(found.what))
        return Taken(
            rows=rows, metadata=metadata, kept=kept, is_unchanging=cells.is_unchanging,
            was_there=was_there,
        )  # fmt: skip

    def _kept(
        self, columns: tuple[str, ...], rows: list[tuple[Any, ...]], plan: Plan, cells: Cells,
        had: Collection[Any],
    ) -> tuple[Any, bool]:  # fmt: skip
        if not plan.entities:
            return (columns, tuple(map(cells.row, rows)), None), False
        numbers: dict[int, int] = {}
        found: list[Any] = []
        for row in rows:
            for at in plan.entities:
                entity = row[at]
                if entity is not None and id(entity) not in numbers:
                    numbers[id(entity)] = len(found)
                    found.append(entity)
        graph, states = self._entities.graph(found, cells)
        taken = []
        for row in rows:
            kept = [
                (None if value is None else numbers[id(value)])
                if at in plan.entities
                else cells.cell(value)
                for at, value in enumerate(row)
            ]
            taken.append(tuple(kept))
        was_there = bool(had) and any(state.key in had for state in states)
        return (columns, tuple(taken), graph), was_there

    def given(self, taken: Any, plan: Plan, statement: Any, session: Session) -> Result[Any]:
        """A result like the first one, with its objects in `session`.  Raises Changed."""
        columns, rows, graph = taken
        if graph is not None:
            objects = self._entities.objects(graph, session, plan.entities.values())
            rows = _with_objects(rows, tuple(plan.entities), objects)
        return IteratorResult(_metadata(plan, statement, columns), iter(rows))


def _metadata(plan: Plan, statement: Any, columns: tuple[str, ...]) -> SimpleResultMetaData:
    """The columns by number, by name and by what the statement itself calls them; mostly those of
    the last one like it.
    """
    asked_for = tuple(getattr(statement, "_raw_columns", ()))
    metadata: SimpleResultMetaData | None = plan.metadata
    if (
        metadata is None
        or plan.asked_for[0] != columns
        or len(asked_for) + 1 != len(plan.asked_for)
        or not all(map(is_, asked_for, plan.asked_for[1:]))
    ):
        extra = _called(plan, statement)
        if extra is not None and len(extra) != len(columns):
            extra = None
        doubled = frozenset(name for name in columns if columns.count(name) > 1)
        metadata = SimpleResultMetaData(columns, extra, _ambiguous_keys=doubled or None)
        plan.metadata, plan.asked_for = metadata, (columns, *asked_for)
    return metadata


def _called(plan: Plan, statement: Any) -> list[tuple[Any, ...]] | None:
    """By what else than its name each column is asked for: an attribute, a label, a class."""
    if not plan.is_orm:
        if not isinstance(statement, GenerativeSelect):
            return None
        return [(column,) for column in statement.selected_columns]
    descriptions = getattr(statement, "column_descriptions", None)
    if descriptions is None:
        return None
    return [() if each["expr"] is None else (each["expr"],) for each in descriptions]


def _with_objects(rows: Any, places: tuple[int, ...], objects: list[Any]) -> list[tuple[Any, ...]]:
    if places == (0,) and rows and len(rows[0]) == 1:
        return [(None if at is None else objects[at],) for (at,) in rows]
    together = []
    for row in rows:
        cells = list(row)
        for place in places:
            at = cells[place]
            cells[place] = None if at is None else objects[at]
        together.append(tuple(cells))
    return together


__all__ = ("Answers", "Changed")
