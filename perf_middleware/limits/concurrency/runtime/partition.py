"""A share of the permits for some routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.limits.concurrency.line import WAITING

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.limits.concurrency.line import Line, Ticket


class Partition:
    """Permits of some routes, beside those of the app."""

    __slots__ = ("in_flight", "limit", "line", "name")

    def __init__(self, name: str, limit: int, line: Line) -> None:
        self.name = name
        self.limit = limit
        self.line = line
        self.in_flight = 0

    def next(self, now_us: int) -> Ticket | None:
        """Who has the free permit and waits for one of the app now; None without either."""
        ticket = self.line.next(now_us) if self.in_flight < self.limit else None
        if ticket is not None:
            self.in_flight += 1
            ticket.partition = self.name
            ticket.state = WAITING
        return ticket

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {"limit": self.limit, "in_flight": self.in_flight, "waiting": self.line.count}


def give_on(
    freed: list[Partition],
    now_us: int,
    *,
    wake_shed: Callable[[Line], None],
    join: Callable[[Ticket, int], None],
) -> None:
    """Move those who wait for permits of `freed` to the app's line; `freed` is empty afterwards.

    A full line sheds who is moved there, or another, and that brings a permit back meanwhile: who
    is called then only adds to `freed`, as calls within each other would be too deep for Python.
    """
    try:
        while freed:
            partition = freed[-1]
            ticket = partition.next(now_us)
            wake_shed(partition.line)
            if ticket is None:
                freed.remove(partition)
            else:
                join(ticket, now_us)
    finally:
        freed.clear()  # what is left here would be taken for one that is being served, for ever
