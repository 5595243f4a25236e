"""A share of the permits for some routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.limits.concurrency.line import WAITING

if TYPE_CHECKING:
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
