r"""Journal entries: their states, who may claim them, and what becomes of them.

    accept -> accepted --begin--> running --ended well, cancelled by the app--> gone
                 ^  ^                |  \--failed for good--> dead
                 |  |                |
                 |  +--its owner closed (the start does not count)
                 +-----its owner died (the start counts)      bury --> dead --replay--> accepted

- Each entry that is not dead has one owner at most: a process, as long as it lives.  Only an entry
  without a living owner may be claimed, so none runs twice at once.
- An entry leaves the file after it has run, never before: at least once.
- `starts` counts the processes that began it and did not tell its end.  Who began it and died may
  have died of it: such a suspect is run while no other suspect is, and after `starts_max` starts it
  is dead.  So what merely ran beside a task that kills the process is cleared by its next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

ACCEPTED: Final = 0
RUNNING: Final = 1
DEAD: Final = 2
STATES: Final = ("accepted", "running", "dead")

NOBODY: Final = ""  # the owner of what was handed back, and of the dead
ENTRY_BYTES: Final = 100  # measured: what a row and its index take besides name and arguments
REASON_CHARS_MAX: Final = 1_000

End: TypeAlias = Literal["gone", "dead", "kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One accepted call.  `accepted_us` is Unix time; `made_by` the request's method and route."""

    number: int
    task: str
    arguments: bytes
    made_by: str
    owner: str
    starts: int
    accepted_us: int
    state: int = ACCEPTED
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLimits:
    """The bounds of one journal, over all processes that share its file.

    `unregistered_s`: how long entries of a task that is not registered here are left to processes
    that know it, before they are dead letters.
    """

    entries_max: int = 100_000
    bytes_max: int = 64 << 20
    starts_max: int = 3
    unregistered_s: float = 600.0

    def __post_init__(self) -> None:
        if min(self.entries_max, self.bytes_max, self.starts_max) < 1:
            raise ValueError(f"the bounds of a journal are 1 or more: {self}")
        if self.unregistered_s < 0:
            raise ValueError(f"unregistered_s is 0 or more: {self}")


def entry_bytes(task: str, arguments: bytes) -> int:
    """About how many bytes of the file an entry takes."""
    return ENTRY_BYTES + len(task) + len(arguments)


def has_room(limits: JournalLimits, *, entries: int, kept_bytes: int, size: int) -> bool:
    """Whether one more entry of `size` bytes fits beside those that are there."""
    return entries < limits.entries_max and kept_bytes + size <= limits.bytes_max


def may_claim(state: int, owner: str, *, owner_lives: bool) -> bool:
    """Whether another process may have an entry."""
    return state != DEAD and (owner == NOBODY or not owner_lives)


def is_suspect(starts: int) -> bool:
    """Whether a process may have died of it: it is run while no other suspect is."""
    return starts > 0


def is_poison(starts: int, limits: JournalLimits) -> bool:
    """Whether it has been begun often enough."""
    return starts >= limits.starts_max


def starts_when_handed_back(state: int, starts: int) -> int:
    """How many starts count of an entry whose owner closes: what it ended itself does not."""
    return starts - 1 if state == RUNNING and starts > 0 else starts


def end_of(status: str, *, is_unwanted: bool) -> End:
    """What becomes of an entry whose job has finished so.

    One that is cancelled by whatever ends the process is kept: only the app's own `cancel()` says
    that nobody wants it any more.
    """
    if status == "succeeded" or (status == "cancelled" and is_unwanted):
        return "gone"
    return "dead" if status == "failed" else "kept"
