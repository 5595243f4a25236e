"""Which requests made background tasks, counted by method and route, and the families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import OTHER, Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUTES_MAX: Final = 500  # further ones are counted as "other"
NO_REQUEST: Final = "none"
EVENTS: Final = {
    "accepted": "Background tasks that were taken, by the request that made them.",
    "durable": "Those of them that are in the journal: their end is counted by task.",
    "failed": "Background tasks that failed for good.",
    "cancelled": "Background tasks that were cancelled or handed back as the app stopped.",
    "in_place": "Background tasks that ran with their response, as the queue took none.",
}


class RouteCounts:
    """Plain counters of one route."""

    __slots__ = ("accepted", "cancelled", "durable", "failed", "in_place", "in_progress", "route")

    def __init__(self, route: str) -> None:
        self.route = route
        self.in_progress = 0
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.accepted = self.durable = self.failed = self.cancelled = self.in_place = 0

    def ended(self, status: str) -> None:
        """A job is over."""
        self.in_progress -= 1
        if status == "failed":
            self.failed += 1
        elif status != "succeeded":
            self.cancelled += 1


class BackgroundCounts:
    """The counts of each route, ROUTES_MAX of them and one for the others."""

    def __init__(self) -> None:
        self._routes: dict[str, RouteCounts] = {}

    def of(self, made_by: str) -> RouteCounts:
        """The counts of `made_by`, a method and route; empty where no request made it."""
        counts = self._routes.get(made_by)
        if counts is None:
            if len(self._routes) >= ROUTES_MAX:
                made_by = OTHER
            counts = self._routes.setdefault(made_by, RouteCounts(made_by or NO_REQUEST))
        return counts

    def reset(self) -> None:
        """Every count back to zero; what is in progress is no count."""
        for counts in self._routes.values():
            counts.reset()

    def status(self) -> dict[str, Any]:
        """By route, JSON-able."""
        return {
            each.route: {name: getattr(each, name) for name in (*EVENTS, "in_progress")}
            for each in self._routes.values()
        }

    def families(self) -> Iterable[Family]:
        """The families for a scrape."""
        routes = list(self._routes.values())
        labels = [LabelSet([("request", each.route)]) for each in routes]
        for name, told in EVENTS.items():
            yield counter(
                f"perf_background_{name}",
                told,
                [
                    Value(label, getattr(each, name))
                    for label, each in zip(labels, routes, strict=True)
                ],
            )
        yield gauge(
            "perf_background_in_progress",
            "Background tasks that wait or run, without those in the journal.",
            [Value(label, each.in_progress) for label, each in zip(labels, routes, strict=True)],
        )
