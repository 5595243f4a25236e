r"""The waiting line: who waits, who is served next, and who has waited too long.

    join -> | critical_plus | critical | sheddable_plus | sheddable | -> next
                 one deque each, oldest left; a higher class is served first
                         |                              |
                         v shed: full                   v shed: expired, deadline

While the line is short it is first in, first out, and each may wait `interval_us`.  A line whose
first one has been older than the target all through an interval is a standing queue: it only adds
its length to every latency.  Then each may wait for the target alone, the newest is served first,
as its client is the likeliest to be there still, and no more wait than are served within the
target.  It stands until it is empty and has shed nobody for an interval.

The target is `target_us`, or three grants where that is longer: nobody can be served sooner.

Whoever is shed comes out of the call that found it, in `shed`.  Every step is O(1), amortised.
Sources: Nichols, Jacobson, RFC 8289 (CoDel), §3 and §5.3 (the target is no less than what one
packet takes); Maurer, "Fail at Scale", ACM Queue 13(8), 2015 (adaptive LIFO, controlled delay);
J. Little, "A Proof for the Queuing Formula L = λW", 1961 (how many are served within the target).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from perf_middleware.limits.concurrency.criticality import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

WAITING: Final = 0
GRANTED: Final = 1
SHED: Final = 2
LEFT: Final = 3

GRANTS_AWAITED: Final = 3
"""With one place the app is idle whenever that one left or came late.  In the model of 20 ms of CPU
(tests/limits/concurrency/test_overloaded_gate.py) two lose 4 % at 1.2 times the capacity, and three
cost no latency at ten times, where the newest is served."""

Reason: TypeAlias = Literal["full", "expired", "level", "deadline", "left"]


def _nobody() -> None:
    return None


class Ticket:
    """One who waits.  `wake` is the shell's, called once it is granted, shed or gone.

    `hear`, where set: the shell does not know yet whether the client is there still, and asks.

    `joined_us` is when it joined the line that it is in, `arrived_us` when it came.
    """

    __slots__ = (
        "arrived_us", "criticality", "deadline_us", "hear", "joined_us", "line", "partition",
        "reason", "state", "wake",
    )  # fmt: skip

    def __init__(
        self,
        criticality: int,
        arrived_us: int,
        *,
        deadline_us: int | None = None,
        partition: str | None = None,
    ) -> None:
        self.criticality = criticality
        self.arrived_us = arrived_us
        self.joined_us = arrived_us
        self.deadline_us = deadline_us
        self.partition = partition  # whose permit it holds while it waits for the app's
        self.line: Line | None = None
        self.state = WAITING
        self.reason: Reason = "full"
        self.wake: Callable[[], object] = _nobody
        self.hear: Callable[[], object] | None = None


class Line:
    """At most `waiting_max` tickets; times in microseconds of one clock that does not go back."""

    def __init__(self, *, waiting_max: int, target_us: int, interval_us: int) -> None:
        if waiting_max < 0 or not 1 <= target_us <= interval_us:
            raise ValueError(
                f"waiting_max >= 0 and 1 <= target_us <= interval_us: {waiting_max}, "
                f"{target_us}, {interval_us}"
            )
        self.waiting_max = waiting_max
        self.target_us = target_us
        self.interval_us = interval_us
        self.grant_us = 0.0
        """Mean time between two grants while somebody waited; 0.0 before that is known."""
        self.count = 0
        self.shed: list[Ticket] = []
        """Whom a call has shed; the shell takes them out and wakes them."""
        self._queues: tuple[deque[Ticket], ...] = tuple(deque() for _ in NAMES)
        self._gone = 0  # tickets in a queue that wait no more
        self._since_us: int | None = None  # the first one in line joined, or those since were late
        self._shed_us: int | None = None  # when somebody was shed last

    @property
    def late_us(self) -> int:
        """How long one may wait in a standing line."""
        return max(self.target_us, min(int(GRANTS_AWAITED * self.grant_us), self.interval_us))

    def room(self) -> int:
        """How many of a standing line are served before they are late (Little's law)."""
        if not self.grant_us:
            return self.waiting_max
        return min(self.waiting_max, max(1, int(self.late_us / self.grant_us)))

    def is_standing(self, now_us: int) -> bool:
        """Whether its first one was late all through an interval."""
        return self._since_us is not None and now_us - self._since_us >= self.interval_us

    def join(self, ticket: Ticket, now_us: int) -> None:
        """Let `ticket` wait.  Of a full line somebody is shed, which may be `ticket` itself.

        A lower class gives way; in a standing line also the oldest of the same one, which would be
        served last.
        """
        self.expire(now_us)
        if not self.count and (self._since_us is None or self._is_well(now_us)):
            self._since_us = now_us
        most = self.room() if self.is_standing(now_us) else self.waiting_max
        while self.count >= most:
            evicted = self._last_served(ticket.criticality, now_us)
            if evicted is None:
                self._drop(ticket, "full", now_us)
                return
            self.count -= 1
            self._drop(evicted, "full", now_us)
        ticket.joined_us = now_us
        ticket.line = self
        self._queues[ticket.criticality].append(ticket)
        self.count += 1

    def next(self, now_us: int) -> Ticket | None:
        """Take out whom a permit goes to; None where nobody may have it."""
        self.expire(now_us)
        if not self.count:
            return None
        newest_first = self.is_standing(now_us)
        for queue in self._queues:
            while queue:
                ticket = queue.pop() if newest_first else queue.popleft()
                if ticket.state != WAITING:
                    self._gone -= 1
                    continue
                self.count -= 1
                if ticket.deadline_us is not None and ticket.deadline_us <= now_us:
                    self._drop(ticket, "deadline", now_us)
                    continue
                ticket.state = GRANTED
                self._note_first(now_us, newest_first)
                return ticket
        self._note_first(now_us, newest_first)
        return None

    def leave(self, ticket: Ticket, now_us: int) -> bool:
        """Take out one whose client is gone; False where it does not wait any more."""
        if ticket.state != WAITING:
            return False
        ticket.state = LEFT
        ticket.reason = "left"
        self.count -= 1
        self._gone += 1
        if not self.count:
            self._note_first(now_us, self.is_standing(now_us))
            for queue in self._queues:
                queue.clear()
            self._gone = 0
        elif self._gone > self.waiting_max:
            for queue in self._queues:
                waiting = [each for each in queue if each.state == WAITING]
                queue.clear()
                queue.extend(waiting)
            self._gone = 0
        return True

    def expire(self, now_us: int) -> None:
        """Shed all who have waited for as long as they may."""
        if not self.count:
            return
        is_standing = self.is_standing(now_us)
        due_us = now_us - (self.late_us if is_standing else self.interval_us)
        for queue in self._queues:
            while queue:
                ticket = queue[0]
                if ticket.state != WAITING:
                    self._gone -= 1
                elif ticket.joined_us <= due_us:
                    self.count -= 1
                    self._drop(ticket, "expired", now_us)
                else:
                    break
                queue.popleft()
        if not self.count:
            self._note_first(now_us, is_standing)

    def next_expiry_us(self) -> int | None:
        """When the next one will have waited too long; None where nobody waits."""
        oldest_us = self.oldest_us()
        if oldest_us is None or self._since_us is None:
            return None
        # By then the line is a standing one, if it is not served empty before.
        return max(self._since_us + self.interval_us, oldest_us + self.late_us)

    def oldest_us(self) -> int | None:
        """Since when the one who has waited the longest is in this line."""
        oldest_us: int | None = None
        if self.count:
            for queue in self._queues:
                while queue and queue[0].state != WAITING:
                    queue.popleft()
                    self._gone -= 1
                if queue and (oldest_us is None or queue[0].joined_us < oldest_us):
                    oldest_us = queue[0].joined_us
        return oldest_us

    def take_shed(self) -> list[Ticket]:
        """Whom the calls so far have shed, once."""
        shed, self.shed = self.shed, []
        return shed

    def _note_first(self, now_us: int, is_standing: bool) -> None:
        """Another one is the first in line, or nobody is."""
        if is_standing:
            if not self.count and self._is_well(now_us):
                self._since_us = None
            return
        oldest_us = self.oldest_us()
        if oldest_us is None or now_us - oldest_us < self.late_us:
            self._since_us = oldest_us

    def _is_well(self, now_us: int) -> bool:
        """Whether nobody was shed for an interval."""
        return self._shed_us is None or now_us - self._shed_us >= self.interval_us

    def _drop(self, ticket: Ticket, reason: Reason, now_us: int) -> None:
        ticket.state = SHED
        ticket.reason = reason
        self._shed_us = now_us
        self.shed.append(ticket)

    def _last_served(self, criticality: int, now_us: int) -> Ticket | None:
        """Take out the one of the lowest class who would be served last, to make room."""
        newest_first = self.is_standing(now_us)
        highest = criticality if newest_first else criticality + 1
        for queue in reversed(self._queues[highest:]):
            while queue:
                ticket = queue.popleft() if newest_first else queue.pop()
                if ticket.state == WAITING:
                    return ticket
                self._gone -= 1
        return None
