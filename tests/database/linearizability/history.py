"""What clients saw of versioned rows: who wrote which version when, and who was shown which.

Times are whole microseconds of one monotonic clock, taken before a request is sent and after the
last byte of its answer has come: what happened, happened in between.

A key is one row.  Its versions grow by one with each write, also with one that deletes it or makes
it anew, and the database gives them out under the row's lock: so their order is known, and it is
the order of the commits.  Each write has a number of its own (`op`), which it leaves in the row: it
tells a version that was rolled back from the one that the next writer made of the same number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Outcome: TypeAlias = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Change:
    """One row of a write; `version` is None where no answer told it."""

    key: str
    version: int | None
    is_there: bool = True
    """False: the row was deleted."""


@dataclass(frozen=True, slots=True)
class Write:
    """A transaction.  `unknown`: no answer came, it may have been committed or not."""

    op: int
    changes: tuple[Change, ...]
    begun_us: int
    ended_us: int
    outcome: Outcome = "ok"
    what: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        if self.ended_us < self.begun_us:
            raise ValueError(f"it ends before it begins: {self}")
        if self.outcome == "ok" and any(change.version is None for change in self.changes):
            raise ValueError(f"a write that was answered tells its versions: {self}")


@dataclass(frozen=True, slots=True)
class Seen:
    """One row as it was shown; `version` and `op` are None where there was none."""

    key: str
    version: int | None
    op: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """An answer that showed some rows; of a `snapshot` all are of one moment (one statement)."""

    seen: tuple[Seen, ...]
    begun_us: int
    ended_us: int
    is_snapshot: bool = False
    what: str = ""
    by: str = ""
    is_hit: bool = False

    def __post_init__(self) -> None:
        if self.ended_us < self.begun_us:
            raise ValueError(f"it ends before it begins: {self}")


Operation: TypeAlias = Write | Read


@dataclass(slots=True)
class History:
    """All operations of a run, the writes that were there before it included."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    learned: dict[tuple[int, str], int] = field(default_factory=dict)
    """Versions of writes without an answer that were found out later, by op and key."""

    def around(self, key: str, begun_us: int, ended_us: int, *, lines_max: int = 60) -> str:
        """The operations on `key` of that time, one line each, in the order of their begin."""
        learned = self.learned
        rows = [
            (write.begun_us, _line_of_write(write, key, learned))
            for write in self.writes
            if write.begun_us <= ended_us
            and (write.ended_us >= begun_us or write.outcome == "unknown")
            and any(change.key == key for change in write.changes)
        ]
        rows += [
            (read.begun_us, _line_of_read(read, seen))
            for read in self.reads
            if read.begun_us <= ended_us and read.ended_us >= begun_us
            for seen in read.seen
            if seen.key == key
        ]
        lines = [line for _, line in sorted(rows)]
        left_out = len(lines) - lines_max
        if left_out > 0:
            lines = [f"({left_out} earlier lines are left out)", *lines[left_out:]]
        return "\n".join(lines)


def _line_of_write(write: Write, key: str, learned: Mapping[tuple[int, str], int]) -> str:
    [change] = [change for change in write.changes if change.key == key]
    version = change.version if change.version is not None else learned.get((write.op, key))
    made = "?" if version is None else f"v{version}"
    return _line(write, f"writes {made}{'' if change.is_there else ' (gone)'}, {write.outcome}, "
                        f"op {write.op}")  # fmt: skip


def _line_of_read(read: Read, seen: Seen) -> str:
    shown = "no row" if seen.version is None else f"v{seen.version} (op {seen.op})"
    return _line(read, f"reads {shown}{', hit' if read.is_hit else ''}")


def _line(operation: Operation, text: str) -> str:
    begun_s, ended_s = operation.begun_us / 1e6, operation.ended_us / 1e6
    return f"{begun_s:14.6f} .. {ended_s:14.6f}  {operation.by:>8}  {text}  {operation.what}"
