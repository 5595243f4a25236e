"""What is known of a connection that is lent, and in which words a long loan is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

US_PER_S: Final = 1_000_000
LINES_TOLD: Final = 3  # how many lines of the app are kept of each loan


class Line(NamedTuple):
    """A line of the app's code: where a connection was taken."""

    file: str
    number: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number} in {self.function}"


@dataclass(slots=True, eq=False)
class Loan:
    """One connection, lent at `since_us`; its lines are from the innermost on.

    `spots` are what they are made of once somebody wants to read them.  `answered_us` is when its
    request began its response; `is_ours`: lent to a ping; `left_by`: of a task that goes on after
    its request, the route of that; `holder` is equal for those of one task.
    """

    since_us: int
    route: str | None
    lines: tuple[Line, ...] = ()
    spots: Sequence[object] = ()
    is_told: bool = False
    is_ours: bool = False
    answered_us: int | None = None
    left_by: str | None = None
    holder: object = None

    def work_us(self, now_us: int) -> int:
        """How long its request has needed it: not while it only sends what it has."""
        return (now_us if self.answered_us is None else self.answered_us) - self.since_us


def overdue(loans: Iterable[Loan], *, now_us: int, held_us_told: int) -> list[Loan]:
    """The loans that are longer than `held_us_told` and not told yet; they count as told now."""
    found = [loan for loan in loans if not loan.is_told and now_us - loan.since_us >= held_us_told]
    for loan in found:
        loan.is_told = True
    return found


def told(loan: Loan, *, pool: str, now_us: int) -> str:
    """The sentence for the log."""
    by = loan.route or "no request"
    if loan.left_by is not None:
        by = f"a task that a request of {loan.left_by} has left behind"
    where = ", called by ".join(str(line) for line in loan.lines[:LINES_TOLD])
    taken = f", taken at {where}" if where else ""
    seconds = (now_us - loan.since_us) / US_PER_S
    return f"a connection of {pool} is held for {seconds:.1f} s by {by}{taken}"


def told_nested(
    own: Sequence[Loan], *, route: str | None, pool: str, connections: int, waited_s: float
) -> str:
    """The sentence for one that has waited in vain while it held connections itself."""
    places = "; ".join(str(loan.lines[0]) for loan in own if loan.lines)
    taken = f", taken at {places}" if places else ""
    return (
        f"{route or 'a task of no request'} has waited {waited_s:.1f} s for a connection of {pool} "
        f"in vain, and has held {len(own)} of its {connections} itself meanwhile{taken}: use one "
        "session, or leave the first before the next is used"
    )
