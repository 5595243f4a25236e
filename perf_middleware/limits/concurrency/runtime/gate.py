r"""Permits on one event loop: how many are out, and when the line is served.

An `async def` endpoint that burns 20 ms runs to its end inside its own task.  Ten requests that
arrive meanwhile are ten ready tasks: each finds nobody in flight, is admitted and burns 20 ms.  A
count alone never sees that queue.  So admission has a budget in each turn of the loop:

    turn n      arrival: admitted, burns 20 ms | arrival: over the budget, joins the line | ...
    turn n+1    mark: the turn is over; sockets are read, tasks are made of what they had
    ... n+SETTLE_TURNS   those join the line: now all who came meanwhile can be seen
    then        a permit for `batch` of them; who was not listened to so far is, for a turn: a
                client that has left gets none
    then        they are woken, and behind their work the clock is read again:
                over the budget -> batch 1, settle; within -> twice as many in the next turn

While the line is pumped so, who arrives joins it and is judged with the others.  Whatever is
asked for quickly never gets here: a turn within its budget costs one call_soon.

Invariant: while one waits and a permit is free, a call of `_mark`, `_hop`, `_rouse` or
`_after` is due.
Without asyncio there is no call_soon: permits are counted, and given on at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.limits.concurrency.line import GRANTED, Line, Ticket
from perf_middleware.limits.concurrency.runtime.partition import Partition, give_on

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from perf_middleware.clock import Clock
    from perf_middleware.limits.concurrency.figures import BackpressureFigures
    from perf_middleware.limits.concurrency.fold import LimitFold

SETTLE_TURNS: Final = 6
"""From a connection in the kernel's backlog to its request at this layer, on asyncio: accepted,
made, read, parsed, begun."""
BATCH_MAX: Final = 64
GRANT_SHARE: Final = 1 / 8  # of the newest time between grants in its mean


class Gate:
    """Gives permits to requests on `loop` (None: not asyncio).

    `on_shed(ticket)` is called for each waiter that is shed, before it is woken; where it raises,
    that is counted in `figures.failures`, and the waiter is woken all the same.
    """

    __slots__ = (
        "_batch", "_begun_us", "_chosen", "_clock", "_fold", "_freed", "_granted", "_granted_us",
        "_is_pumping", "_is_turn_open", "_on_shed", "_settle_left", "_settle_until_us", "_soon",
        "_timer", "_timer_us", "_turn_budget_us", "_turn_us", "figures", "in_flight", "is_lined",
        "last_us", "limit", "line", "loop", "partitions", "wait_us",
    )  # fmt: skip

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop | None,
        fold: LimitFold,
        new_line: Callable[[int | None], Line],
        partitions: Mapping[str, int],
        turn_budget_us: int | None,
        on_shed: Callable[[Ticket], None],
        figures: BackpressureFigures,
        clock: Clock,
    ) -> None:
        self.loop = loop
        self.figures = figures
        self.line = new_line(None)
        # As many may wait for a partition as may be in it: a slow route fills no line either.
        self.partitions = {
            name: Partition(name, limit, new_line(limit)) for name, limit in partitions.items()
        }
        self.in_flight = 0
        self.limit = fold.limit
        self.is_lined = False  # who comes now joins the line
        self.last_us = 0  # the newest moment at which work was seen in this turn
        self._fold = fold
        self._on_shed = on_shed
        self._clock = clock
        self._turn_budget_us = turn_budget_us
        self.wait_us = 0  # of who was granted last
        self._soon = None if loop is None else loop.call_soon
        self._is_turn_open = False
        self._turn_us = 0
        self._is_pumping = False
        self._batch = 1
        self._begun_us = 0
        self._settle_left = 0
        self._settle_until_us = 0
        self._granted = 0  # in the last round of grants; 0: nobody waited since
        self._granted_us = 0
        self._chosen: list[Ticket] = []  # who has a permit, and is woken in this turn or the next
        self._freed: list[Partition] = []  # whose waiters are being moved to the app's line
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0

    @property
    def waiting(self) -> int:
        return self.line.count + sum(each.line.count for each in self.partitions.values())

    def oldest_us(self) -> int | None:
        """When the one who has waited the longest joined its line; None where nobody waits."""
        joined = [
            self.line.oldest_us(),
            *(each.line.oldest_us() for each in self.partitions.values()),
        ]
        return min((each for each in joined if each is not None), default=None)

    # --- arrivals -------------------------------------------------------------------------------

    def enter(self, now_us: int) -> bool:
        """Take a permit for one who has just arrived; False where it has to wait."""
        if self.is_lined or self.in_flight >= self.limit:
            return False
        if self._is_turn_open:
            if now_us - self._turn_us > self._turn_budget_us:  # type: ignore[operator]
                self.last_us = now_us
                return False
        elif self._soon is not None and self._turn_budget_us is not None:
            self._is_turn_open = True
            self._turn_us = now_us
            self._soon(self._mark)
        self.last_us = now_us
        self.in_flight = in_flight = self.in_flight + 1
        if in_flight > self._fold.in_flight_max:
            self._fold.in_flight_max = in_flight
        return True

    def force(self, ticket: Ticket, partition: str | None) -> None:
        """Take the permits that `ticket` lacks, also beyond the limits: a dry run."""
        if partition is not None and ticket.partition is None:
            self.partitions[partition].in_flight += 1
            ticket.partition = partition
        ticket.state = GRANTED
        self.in_flight += 1
        self._fold.in_flight_max = max(self._fold.in_flight_max, self.in_flight)

    def enter_both(self, name: str, ticket: Ticket, now_us: int) -> bool:
        """Take a permit of the partition and one of the app; False where it has to wait.

        Then `ticket.partition` says whether it holds that of the partition already.
        """
        partition = self.partitions[name]
        if partition.in_flight >= partition.limit or partition.line.count:
            return False
        partition.in_flight += 1
        ticket.partition = name
        return self.enter(now_us)

    def wait(self, ticket: Ticket, partition: str | None, now_us: int) -> None:
        """Let `ticket` wait; it, or another one, may be shed at once."""
        if partition is None or ticket.partition is not None:
            self._join(ticket, now_us)
        else:
            line = self.partitions[partition].line
            line.join(ticket, now_us)
            self._wake_shed(line)
            self._arm_timer(line, now_us)

    def _join(self, ticket: Ticket, now_us: int) -> None:
        self.line.join(ticket, now_us)
        self._wake_shed(self.line)
        if self.line.count > self._fold.waiting_max:
            self._fold.waiting_max = self.line.count
        self._look(now_us)
        self._arm_timer(self.line, now_us)

    # --- who waits ------------------------------------------------------------------------------

    def abandon(self, ticket: Ticket, now_us: int) -> None:
        """Its task was cancelled while it waited, or just when it was granted a permit."""
        if ticket.state == GRANTED:
            self.release(ticket.partition)
            ticket.partition = None
        elif not self.leave(ticket, now_us):
            self.give_back_partition(ticket)

    def leave(self, ticket: Ticket, now_us: int) -> bool:
        """Its client has left; False where it does not wait any more."""
        line = ticket.line
        if line is None or not line.leave(ticket, now_us):
            return False
        self.give_back_partition(ticket)
        self._look(now_us)
        ticket.wake()
        return True

    def begun(self, now_us: int) -> None:
        """One that was woken with its permit goes to work."""
        if not self._begun_us:
            self._begun_us = now_us
        self.last_us = now_us

    def expire(self, now_us: int) -> None:
        """Shed all who have waited for too long, in any line."""
        self.line.expire(now_us)
        self._wake_shed(self.line)
        for partition in self.partitions.values():
            if partition.line.count:
                partition.line.expire(now_us)
                self._wake_shed(partition.line)
        self._look(now_us)

    def _wake_shed(self, line: Line) -> None:
        if line.shed:
            for ticket in line.take_shed():
                self.give_back_partition(ticket)
                try:
                    self._on_shed(ticket)
                except Exception:  # noqa: BLE001 - a log's filter, say; the others wait all the same
                    self.figures.failures += 1
                ticket.wake()

    # --- permits come back ----------------------------------------------------------------------

    def release(self, partition: str | None = None) -> None:
        """Give a permit back."""
        self.in_flight -= 1
        if partition is not None:
            self._release_partition(partition)
        if self.is_lined and not self._is_pumping:
            self._look(None)

    def note_head(self, granted_us: int, status: Any) -> None:
        """The answer to a request that got its permit at `granted_us` begins."""
        clock = self._clock
        self.last_us = now_us = clock()
        if self._fold.note(now_us - granted_us, status, now_us, self.in_flight):
            self.limit = self._fold.limit
            if self.is_lined:
                self._look(now_us)

    def give_back_partition(self, ticket: Ticket) -> None:
        """One that held a partition's permit while it waited will not be served."""
        if ticket.partition is not None:
            name, ticket.partition = ticket.partition, None
            self._release_partition(name)

    def _release_partition(self, name: str) -> None:
        partition, freed = self.partitions[name], self._freed
        partition.in_flight -= 1
        if not partition.line.count or partition in freed:
            return
        freed.append(partition)
        if len(freed) == 1:  # else a call further out does it
            give_on(freed, self._clock(), wake_shed=self._wake_shed, join=self._join)

    # --- serving the line -----------------------------------------------------------------------

    def _look(self, now_us: int | None) -> None:
        """Serve the line where that is possible and not on its way already."""
        waits = self.line.count > 0
        if self._is_pumping:
            return
        self.is_lined = waits
        if not waits:
            self._granted = 0  # what follows is not the time of a grant alone
        if not waits or self.in_flight >= self.limit:
            return
        if self._soon is None:
            self._serve(self._clock() if now_us is None else now_us, BATCH_MAX)
            self.is_lined = self.line.count > 0
        elif not self._is_turn_open:  # its mark looks here again
            now_us = self._clock() if now_us is None else now_us
            # In a standing line the newest is to be served, and it may not be read yet: threads
            # that hold the GIL keep the loop from its sockets.
            self._pump(SETTLE_TURNS if self.line.is_standing(now_us) else 0)

    def _pump(self, settle_turns: int) -> None:
        if self.loop.is_closed():  # type: ignore[union-attr]
            return  # a permit that came back when all was over: nobody is left to be served
        self._is_pumping = self.is_lined = True
        self._settle_left = settle_turns
        if settle_turns:
            self._settle_until_us = self._clock() + (self._turn_budget_us or 0)
        self._soon(self._hop)  # type: ignore[misc]

    def _mark(self) -> None:
        """The turn that admitted somebody is over."""
        self._is_turn_open = False
        if self._is_pumping:
            return
        if self.last_us - self._turn_us > self._turn_budget_us:  # type: ignore[operator]
            self._batch = 1
            self._pump(SETTLE_TURNS)
        elif self.is_lined:
            self._look(None)

    def _hop(self) -> None:
        now_us = self._clock()
        if self._settle_left > 0 and now_us < self._settle_until_us:
            self._settle_left -= 1
            self._soon(self._hop)  # type: ignore[misc]
            return
        self._settle_left = 0
        self._begun_us = 0
        if not self._serve(now_us, self._batch):
            self._stop()
            return
        unheard = [ticket for ticket in self._chosen if ticket.hear is not None]
        if not unheard:
            self._rouse()
            return
        for ticket in unheard:
            ticket.hear()  # type: ignore[misc]
        self._soon(self._rouse)  # type: ignore[misc]

    def _rouse(self) -> None:
        for ticket in self._chosen:
            ticket.wake()
        self._chosen.clear()
        self._soon(self._after)  # type: ignore[misc]

    def _after(self) -> None:
        """Behind the work of those who were granted last, in their turn."""
        began = self._begun_us > 0  # else each of them had left
        spent_us = self._clock() - self._begun_us if began else 0
        self._begun_us = 0
        if self._turn_budget_us is not None and spent_us > self._turn_budget_us:
            self._batch = 1
            self._pump(SETTLE_TURNS)
            return
        if began:
            self._batch = min(2 * self._batch, BATCH_MAX)
        if self.line.count and self.in_flight < self.limit:
            self._hop()
        else:
            self._stop()

    def _stop(self) -> None:
        self._is_pumping = False
        self._look(None)  # somebody may have joined when the last one was shed

    def _serve(self, now_us: int, most: int) -> int:
        """Grant permits; returns how many."""
        granted = 0
        line = self.line
        while granted < most and self.in_flight < self.limit:
            ticket = line.next(now_us)
            if ticket is None:
                break
            self.in_flight += 1
            granted += 1
            if self._soon is None:
                ticket.wake()
            else:
                self._chosen.append(ticket)
        if granted:
            self._note_grants(granted, now_us)
        if self.in_flight > self._fold.in_flight_max:
            self._fold.in_flight_max = self.in_flight
        self._wake_shed(line)
        return granted

    def _note_grants(self, granted: int, now_us: int) -> None:
        """How far apart grants are, while somebody waits for one."""
        if self._granted:
            line, each_us = self.line, (now_us - self._granted_us) / self._granted
            line.grant_us += (each_us - line.grant_us) * (GRANT_SHARE if line.grant_us else 1.0)
        self._granted, self._granted_us = granted, now_us

    # --- one timer for all ----------------------------------------------------------------------

    def _arm_timer(self, line: Line, now_us: int) -> None:
        due_us = line.next_expiry_us()
        if due_us is None or self.loop is None:
            return
        if self._timer is not None:
            if due_us >= self._timer_us:
                return
            self._timer.cancel()
        self._timer_us = due_us
        self._timer = self.loop.call_later(max(due_us - now_us, 1) / 1e6, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_us = self._clock()
        self.expire(now_us)
        self._arm_timer(self.line, now_us)
        for partition in self.partitions.values():
            self._arm_timer(partition.line, now_us)

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {
            "in_flight": self.in_flight,
            "waiting": self.waiting,
            "partitions": {name: each.status() for name, each in self.partitions.items()},
        }
