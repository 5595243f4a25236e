"""What a transaction has written so far, with its savepoints.

    write a | savepoint s1 | write b | savepoint s2 | write c | rollback to s1 | commit  ->  {a}

A released savepoint's writes belong to the level around it; a rollback to it takes back its own and
all that came after it, and it stays (SQL:2016, 17.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.database.tables.touched import NO_TABLES, union

if TYPE_CHECKING:
    from perf_middleware.database.tables.touched import Tables


class Pending:
    """The writes of one transaction; a fresh one is empty."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: list[tuple[str, Tables]] = [("", NO_TABLES)]

    def add(self, tables: Tables) -> None:
        """`tables` are written now."""
        name, before = self._levels[-1]
        self._levels[-1] = (name, union(before, tables))

    def savepoint(self, name: str) -> None:
        """A savepoint is set; one with the same name is hidden until that one is gone."""
        self._levels.append((name, NO_TABLES))

    def release(self, name: str) -> None:
        """A savepoint is gone, and those after it; their writes stay.  An unknown one: nothing."""
        at = self._at(name)
        if at is not None:
            outer, tables = self._levels[at - 1]
            together = union(tables, *(inner for _, inner in self._levels[at:]))
            self._levels[at - 1 :] = [(outer, together)]

    def roll_back_to(self, name: str) -> None:
        """The writes since a savepoint are taken back.  An unknown one: none are."""
        at = self._at(name)
        if at is not None:
            self._levels[at:] = [(name, NO_TABLES)]

    def written(self) -> Tables:
        """All that would be in with a commit now."""
        return union(*(tables for _, tables in self._levels))

    def _at(self, name: str) -> int | None:
        for at in range(len(self._levels) - 1, 0, -1):
            if self._levels[at][0] == name:
                return at
        return None
