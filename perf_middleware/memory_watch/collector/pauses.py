"""Long pauses of the collector: the last of them, and how they add up by route.

A pause holds the whole process.  Whose request it met is known of the thread in which it began, so
it is charged to that route: the route that waited, which need not be the one that made the garbage.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import OTHER, Family, LabelSet, Value, counter

if TYPE_CHECKING:
    from collections.abc import Iterable

US_PER_S: Final = 1_000_000
US_PER_MINUTE: Final = 60 * US_PER_S
ROUTES_MAX: Final = 200  # what more of them there are counts as `other`
NO_ROUTE: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """One long pause: `at_us` is its end.

    `route` is what was served where it began, None outside of a request; `load` what else the
    process did; `where` the line of Python at which the collector was due.
    """

    at_us: int
    took_us: int
    generation: int
    collected: int
    uncollectable: int
    on_loop: bool
    route: str | None = None
    load: str | None = None
    where: str | None = None

    def sentence(self) -> str:
        """The pause as a line of a log."""
        took_s = self.took_us / US_PER_S
        parts = [f"garbage collection of generation {self.generation} took {took_s:.3f} s"]
        parts.append(f"freed {self.collected} objects")
        if self.uncollectable:
            parts.append(f"{self.uncollectable} could not be freed")
        if self.route is not None:
            parts.append(f"while {self.route} was served")
        elif not self.on_loop:
            parts.append("in another thread than the event loop's")
        if self.load:
            parts.append(self.load)
        if self.where:
            parts.append(f"at {self.where}")
        return ", ".join(parts)

    def picture(self, now_us: int) -> dict[str, Any]:
        """JSON-able."""
        return {
            "ago_s": round((now_us - self.at_us) / US_PER_S, 3),
            "pause_s": self.took_us / US_PER_S,
            "generation": self.generation,
            "collected": self.collected,
            "uncollectable": self.uncollectable,
            "on_loop": self.on_loop,
            "route": self.route,
            "load": self.load,
            "where": self.where,
        }


class LongPauses:
    """The last `pauses_max` of them, and sums by route."""

    __slots__ = ("_by_route", "last")

    def __init__(self, *, pauses_max: int) -> None:
        self.last: deque[Pause] = deque(maxlen=pauses_max)
        self._by_route: dict[str, tuple[int, int]] = {}  # how many, how long together

    def add(self, pause: Pause) -> None:
        """One more."""
        self.last.append(pause)
        route = pause.route or NO_ROUTE
        if route not in self._by_route and len(self._by_route) >= ROUTES_MAX:
            route = OTHER
        count, took_us = self._by_route.get(route, (0, 0))
        self._by_route[route] = (count + 1, took_us + pause.took_us)

    @property
    def count(self) -> int:
        return sum(sums[0] for sums in self._by_route.copy().values())

    def reset(self) -> None:
        """Forget them."""
        self.last.clear()
        self._by_route.clear()

    def families(self) -> Iterable[Family]:
        # A copy in one step: a collection may begin at any object that is made from here on.
        seen = [
            (LabelSet([("route", route)]), count, took_us)
            for route, (count, took_us) in self._by_route.copy().items()
        ]
        yield counter(
            "perf_memory_gc_long_pauses",
            "Garbage collections from gc.pause_told_s on, by the route that they met.",
            [Value(labels, count) for labels, count, _ in seen],
        )
        yield counter(
            "perf_memory_gc_long_pause_seconds",
            "How long these held the process, by the route that they met.",
            [Value(labels, took_us / US_PER_S) for labels, _, took_us in seen],
            unit="seconds",
        )


class LinesPerMinute:
    """At most so many lines a minute; what is held back is said with the next line."""

    __slots__ = ("_held_back", "_lines_max", "_minute", "_spent")

    def __init__(self, lines_max: int) -> None:
        self._lines_max = lines_max
        self._minute = -1
        self._spent = 0
        self._held_back = 0

    def spend(self, now_us: int) -> int | None:
        """How many were held back before this line, or None where it is held back too."""
        minute = now_us // US_PER_MINUTE
        if minute != self._minute:
            self._minute, self._spent = minute, 0
        if self._spent >= self._lines_max:
            self._held_back += 1
            return None
        self._spent += 1
        held_back, self._held_back = self._held_back, 0
        return held_back
