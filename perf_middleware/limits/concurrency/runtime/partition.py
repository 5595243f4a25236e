"""A share of the permits for some routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perf_middleware.limits.concurrency.line import Line


class Partition:
    """Permits of some routes, beside those of the app."""

    __slots__ = ("in_flight", "limit", "line", "name")

    def __init__(self, name: str, limit: int, line: Line) -> None:
        self.name = name
        self.limit = limit
        self.line = line
        self.in_flight = 0
