"""Who may answer out of memory, and who has heard what a writer has purged?  Leases and counts.

    listener   renews its lease -> answer: what was told so far -> hears and does it -> may answer
                  |<------------------- lease ------------------|- margin ->|
                  asked                                          until      the server's until

    writer     purges -> asks all: have you heard these counts? -> each answers, or its lease ends

Invariant: whoever answers out of memory now has done what was told before its last renewal that
counts, and is waited for by every writer that has purged since.  So a purge that was waited for is
older than nothing that is answered out of memory, whoever is dead, stopped or blocked.

- A lease counts from before it was asked for, on the listener's own clock, and ends a margin early:
  the server's, which starts it later, ends later.
- The answer to a renewal may overtake messages; a process that was blocked renews before it has
  read them.  So it counts only from when all is done that had been told at the renewal.
- In a cluster messages of different nodes overtake each other: counts are told shard by shard, and
  with the name of the life that they count.  Those of another life are no counts of ours.
Source: Gray, Cheriton, Leases: an efficient fault-tolerant mechanism for distributed file cache
consistency, SOSP 1989.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Counts: TypeAlias = "Mapping[bytes, tuple[bytes, int]]"
"""By the name of each counter: the life that it counts, and how many messages there were."""
Hearing: TypeAlias = Literal["all", "less", "another life"]

MARGIN_OF_LEASE: Final = 10  # a tenth: a clock that is being corrected runs 8.3% wrong (chrony)
RENEWALS: Final = 3  # for each lease: two may be lost or late
RESOLUTION_US: Final = 2_000  # of the server's clock, which is told in whole ms, and of timers
LEASE_S_MAX: Final = 10.0
GOALS_MAX: Final = 8  # renewals that wait for messages: two leases and more
QUESTIONS_MAX: Final = 1_000  # not answered yet; who is forgotten waits for the lease


def hearing(heard: Counts, told: Counts) -> Hearing:
    """Whether who has `heard` this has heard all that was `told`; of what it keeps, that is."""
    behind = False
    for name, (life, count) in told.items():
        known = heard.get(name)
        if known is None:
            continue  # nothing of it is kept there
        if known[0] != life:
            return "another life"
        behind |= known[1] < count
    return "less" if behind else "all"


def lease_until_us(asked_us: int, lease_us: int) -> int:
    """Until when a lease lasts that was asked for at `asked_us`, on the same clock."""
    return asked_us + lease_us - lease_us // MARGIN_OF_LEASE


def out_at_us(read_us: int, *, until_ms: int, now_ms: int) -> int:
    """When a lease is over for sure, by the clock that showed `read_us` after the server's showed
    `now_ms`; never longer from then on than any lease.
    """
    left_ms = min(max(until_ms - now_ms, 0), int(LEASE_S_MAX * 1_000))
    return read_us + left_ms * 1_000 + RESOLUTION_US


@dataclass(frozen=True, slots=True)
class Question:
    """Have you heard all this?  `channel` is where to answer, `token` what to."""

    channel: bytes
    token: bytes
    told: Counts


def counts_in(lines: Sequence[bytes]) -> Counts:
    """What `ask.lua` and `lines_of` write; raises ValueError for anything else."""
    counts = {}
    for line in lines:
        name, life, count = line.rsplit(b" ", 2)
        counts[name] = life, int(count)
    return counts


def lines_of(told: Counts) -> bytes:
    """A line for each counter: its name, its life, its count."""
    return b"".join(
        b"\n%b %b %d" % (name, life, count) for name, (life, count) in sorted(told.items())
    )


def question_in(payload: bytes) -> Question:
    """What one process asks all others; raises ValueError for what is none."""
    head, *lines = payload.split(b"\n")
    channel, token = head.split(b" ")
    return Question(channel, token, counts_in(lines))


class Listener:
    """The lease of one process, and the questions that it has not answered yet."""

    def __init__(self, *, lease_us: int) -> None:
        self._lease_us = lease_us
        self._goals: deque[tuple[int, Counts]] = deque(maxlen=GOALS_MAX)
        self._questions: deque[Question] = deque(maxlen=QUESTIONS_MAX)
        self.until_us = 0
        """0: there is no lease."""

    @property
    def waits(self) -> bool:
        """Whether there is something that more messages may complete."""
        return bool(self._goals or self._questions)

    def renewed(self, asked_us: int, told: Counts) -> None:
        """The server has renewed the lease, and told what there is to hear; `asked_us` is the time
        before it was asked.
        """
        self._goals.append((lease_until_us(asked_us, self._lease_us), told))

    def ask(self, question: Question) -> None:
        self._questions.append(question)

    def lose(self) -> None:
        """Nothing is heard any more."""
        self.until_us = 0
        self._goals.clear()
        self._questions.clear()

    def step(self, heard: Counts, *, is_done: bool) -> list[Question] | None:
        """Let the lease last as long as it may, and give the questions that can be answered now.

        None where messages are lost, or of another life: nothing can be said then before it is
        found out anew.  `is_done`: all that was heard is done in memory.
        """
        if not is_done:
            return []
        is_full = len(self._goals) == GOALS_MAX
        until_us = self.until_us
        waiting: list[tuple[int, Counts]] = []
        for goal in self._goals:
            match hearing(heard, goal[1]):
                case "all":
                    until_us = max(until_us, goal[0])
                case "less" if is_full and not waiting:
                    return None  # told so many renewals ago, and not heard yet: it is lost
                case "less":
                    waiting.append(goal)
                case _:
                    return None
        answered, open_still = [], []
        for question in self._questions:
            match hearing(heard, question.told):
                case "all":
                    answered.append(question)
                case "less":
                    open_still.append(question)
                case _:
                    return None
        self._goals = deque(waiting, GOALS_MAX)
        self._questions = deque(open_still, QUESTIONS_MAX)
        self.until_us = until_us
        return answered
