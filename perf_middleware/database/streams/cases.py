"""What becomes of a session's connection when a response begins to stream, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES_TOLD: Final = 3


class Case(Enum):
    """`NOTHING` is held; it is idle and given back; or it stays, and why."""

    NOTHING = "nothing"
    RELEASE = "release"
    UNCOMMITTED = "uncommitted"
    THREAD = "thread"
    NEEDED = "needed"


KEPT: Final = (Case.UNCOMMITTED, Case.THREAD, Case.NEEDED)


def judge(*, holds: bool, has_written: bool, is_async: bool, is_in_use: bool) -> Case:
    """The case of one session.

    `has_written`: something would be lost with its transaction; `is_in_use`: a statement or a
    cursor runs, somebody has the connection itself, or it keeps a snapshot.
    """
    if not holds:
        return Case.NOTHING
    if has_written:
        return Case.UNCOMMITTED
    if is_in_use:
        return Case.NEEDED
    return Case.RELEASE if is_async else Case.THREAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A connection of `database` that stays with a session; `lines` took it, innermost first.

    `dependency` is the one that gives the session, as `get_session (/srv/app/db.py:12)`, or empty.
    """

    case: Case
    route: str
    database: str
    dependency: str = ""
    lines: Sequence[object] = ()

    def __str__(self) -> str:
        where = ", called by ".join(str(line) for line in self.lines[:LINES_TOLD])
        taken = f", taken at {where}" if where else ""
        session = f"the session of {self.dependency}" if self.dependency else "a session"
        name = self.dependency.partition(" ")[0] or "…"
        end_it = f'let the dependency end before the response, Depends({name}, scope="function")'
        if self.case is Case.UNCOMMITTED:
            why = "has work that is not committed"
            do = f"Commit before the response begins, or {end_it}."
        else:
            why = "is one of threads, from which no connection is taken away"
            do = f"Close it before the response begins, or {end_it}; or use an AsyncSession."
        return (
            f"{self.route} streams its response while {session} holds a connection of "
            f"{self.database}{taken}: it {why}, so the connection is held until the stream ends.  "
            f"{do}"
        )


def is_whole(status: object, content_length: bytes | None, content_type: bytes | None) -> bool:
    """Whether a response with this head comes, as it looks, in one piece right after it."""
    if content_type is not None and content_type.startswith(b"text/event-stream"):
        return False
    return content_length is not None or status in (204, 304)
