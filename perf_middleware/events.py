"""Rare, typed events: a resource degraded, the event loop was blocked.

Figures are pulled and never pass through here; an event is for what happens seldom enough that
somebody may want to be called.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from perf_middleware.families import NO_LABELS, Family, Value, counter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = logging.getLogger("perf_middleware.events")

Event = TypeVar("Event")
ResourceState = Literal["closed", "opening", "open", "degraded", "failed", "closing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceChanged:
    """A resource of the lifespan plugin went over to another state; `reason` is empty when well."""

    resource: str
    state: ResourceState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadChanged:
    """The overload level went from `before` to `level`: 0 normal, 1 busy, 2 overloaded.

    `reason` is the signal that did it or still holds it, empty when all is normal again or an
    operator forced it; `value` is its figure and `bound` where the level begins.  With `obeyed`
    false the layers do not act on it.
    """

    level: int
    before: int
    reason: str = ""
    value: float | None = None
    bound: float | None = None
    forced: bool = False
    obeyed: bool = True


class Events:
    """Calls the subscribers of an event's type, in the order of their subscription.

    A subscriber that raises is logged and counted; the others and the publisher go on.
    """

    def __init__(self) -> None:
        self._subscribers: dict[type, list[Callable[[Any], object]]] = {}
        self.failures = 0

    def subscribe(self, kind: type[Event], call: Callable[[Event], object]) -> None:
        """Call `call(event)` for every event of exactly this type.

        It runs where the event happens (the event loop, or a watchdog's thread): be quick, do not
        wait.
        """
        self._subscribers.setdefault(kind, []).append(call)

    def publish(self, event: object) -> None:
        """Tell the subscribers of `type(event)`."""
        for call in self._subscribers.get(type(event), ()):
            try:
                call(event)
            except Exception:
                self.failures += 1
                logger.exception("a subscriber of %s failed", type(event).__name__)

    def families(self) -> Iterable[Family]:
        """The families for a scrape."""
        yield counter(
            "perf_event_subscriber_failures",
            "Calls of event subscribers that raised.",
            [Value(NO_LABELS, self.failures)],
        )
