"""What a transaction has written so far, with its savepoints.

    write a | savepoint s1 | write b | savepoint s2 | write c | rollback to s1 | commit  ->  {a}

A released savepoint's writes belong to the level around it; a rollback to it takes back its own and
all that came after it, and it stays (SQL:2016, 17.6).
Some writes are known later only: the row of an INSERT whose key the database makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.database.tables.rows import within
from perf_middleware.database.tables.touched import NO_TABLES, union

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.database.tables.touched import Tables

ROWS_MAX: Final = 64
"""Of more rows a transaction purges the tables: each has two tags, of the 500 that Redis' log of
purges keeps."""
LATER_MAX: Final = 64  # each holds on to its statement until then


class Pending:
    """The writes of one transaction; a fresh one is empty."""

    __slots__ = ("_later", "_levels")

    def __init__(self) -> None:
        self._levels: list[tuple[str, Tables]] = [("", NO_TABLES)]
        self._later: list[Callable[[], Tables]] = []  # of the innermost level

    def __bool__(self) -> bool:
        """Whether anything was written."""
        return bool(self._later) or any(tables for _, tables in self._levels)

    def add(self, tables: Tables) -> None:
        """`tables` are written now."""
        name, before = self._levels[-1]
        self._levels[-1] = (name, within(union(before, tables), ROWS_MAX))

    def add_later(self, written: Callable[[], Tables]) -> None:
        """What `written()` gives is written; it is asked once the next statement has come."""
        if len(self._later) >= LATER_MAX:
            self._ask()
        self._later.append(written)

    def savepoint(self, name: str) -> None:
        """A savepoint is set; one with the same name is hidden until that one is gone."""
        self._ask()
        self._levels.append((name, NO_TABLES))

    def release(self, name: str) -> None:
        """A savepoint is gone, and those after it; their writes stay.  An unknown one: nothing."""
        self._ask()
        at = self._at(name)
        if at is not None:
            outer, tables = self._levels[at - 1]
            together = union(tables, *(inner for _, inner in self._levels[at:]))
            self._levels[at - 1 :] = [(outer, within(together, ROWS_MAX))]

    def roll_back_to(self, name: str) -> None:
        """The writes since a savepoint are taken back.  An unknown one: none are."""
        self._ask()
        at = self._at(name)
        if at is not None:
            self._levels[at:] = [(name, NO_TABLES)]

    def written(self) -> Tables:
        """All that would be in with a commit now."""
        self._ask()
        return within(union(*(tables for _, tables in self._levels)), ROWS_MAX)

    def _ask(self) -> None:
        later, self._later = self._later, []
        for written in later:
            self.add(written())

    def _at(self, name: str) -> int | None:
        for at in range(len(self._levels) - 1, 0, -1):
            if self._levels[at][0] == name:
                return at
        return None
