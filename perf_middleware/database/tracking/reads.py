"""What one request has read of its databases, and whether an answer made of it may be kept.

statement -> Reads.add(tables)      tags = what a later write will purge by
write     -> has_written            its own uncommitted rows are nobody else's
replica   -> is_of_a_copy           it may be older than a purge
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from perf_middleware.database.tables.rows import without_rows
from perf_middleware.database.tables.touched import (
    AllTables,
    Table,
    Tables,
    read_tags,
    union,
    whole_tags,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

WROTE = "wrote"
COPY = "replica"
ROWS_MAX: Final = 32
"""An answer made of more rows depends on their tables: each row has two tags of its own."""
TAGS_MAX: Final = 4 * ROWS_MAX
"""Of more the rows count as their tables: what was made of many kept values has all of theirs."""


class Reads:
    """The tables that one request has read so far; its tasks and threads share it.

    `oldest` is the number of the newest purge as the oldest of its transactions began; None: none
    was older than the request.
    """

    __slots__ = ("_rows", "_several", "_tags", "has_written", "is_of_a_copy", "oldest")

    def __init__(self) -> None:
        self._several: set[Tables] = set()  # threads add to it: one step each
        self._rows: set[Table] = set()
        self._tags: set[str] = set()
        self.has_written = False
        self.is_of_a_copy = False
        self.oldest: int | None = None

    @property
    def tables(self) -> Tables:
        """All tables read so far."""
        return union(*self._several.copy(), frozenset(self._rows.copy()))

    def add(self, tables: Tables) -> None:
        """`tables` are read now; mostly they were before."""
        if tables:
            self._several.add(tables)

    def add_rows(self, rows: Tables) -> None:
        """Single rows are read now; too many of them are their tables."""
        if not isinstance(rows, AllTables) and len(self._rows) + len(rows) <= ROWS_MAX:
            self._rows |= rows
        else:
            self._several.add(without_rows(rows))

    def add_tags(self, tags: Iterable[str]) -> None:
        """What is purged by these is read: a kept value that was made of tables."""
        self._tags.update(tags)

    def begun_at(self, number: int) -> None:
        """A transaction that is read in began when purge `number` was the newest."""
        oldest = self.oldest
        if oldest is None or number < oldest:
            self.oldest = number

    def include(self, other: Reads) -> None:
        """What was collected apart counts here too."""
        self._several |= other._several
        self.add_rows(frozenset(other._rows.copy()))
        self._tags |= other._tags
        self.has_written |= other.has_written
        self.is_of_a_copy |= other.is_of_a_copy
        if other.oldest is not None:
            self.begun_at(other.oldest)

    def refusal(self) -> str | None:
        """Why nothing that was made of it may be kept; None where it may."""
        if self.has_written:
            return WROTE
        return COPY if self.is_of_a_copy else None

    def tags(self) -> tuple[str, ...]:
        """The tags of what was made of it; none where nothing was read."""
        several = frozenset(self._several.copy())
        found = _tags_of(several)
        if not self._tags and not self._rows:
            return found
        tags = self._tags.union(found, self._tags_of_rows(union(*several)))
        return tuple(sorted(tags if len(tags) <= TAGS_MAX else whole_tags(tags)))

    def _tags_of_rows(self, tables: Tables) -> frozenset[str]:
        if isinstance(tables, AllTables):
            return frozenset()
        return read_tags(frozenset(r for r in self._rows.copy() if r.whole() not in tables))

    def since(self, purges_seen: int) -> int:
        """The number of the purge that all which was read is newer than."""
        return purges_seen if self.oldest is None else min(purges_seen, self.oldest)


@lru_cache(maxsize=1_000)
def _tags_of(several: frozenset[Tables]) -> tuple[str, ...]:
    """One tuple for all answers that read the same."""
    return tuple(sorted(read_tags(union(*several))))
