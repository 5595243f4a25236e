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
    from collections.abc import Callable, Iterable, Mapping

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SheddingChanged:
    """Backpressure has begun to shed requests, or has not for some seconds.

    `shed` requests in `lasted_s` seconds since it began; the others are what holds now.
    """

    is_shedding: bool
    limit: int
    in_flight: int
    waiting: int
    shed: int
    lasted_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStepChanged:
    """The memory watch went from step `before` to `step`: 0 normal, 1 soft, 2 hard, 3 critical.

    `share` is used of `bound` ("configured", "cgroup", "rlimit_data", "rlimit_as", "system"), which
    holds the step; None where no limit is known any more.  Published on the watch's thread.
    """

    step: int
    before: int
    share: float | None = None
    bound: str | None = None
    used_bytes: int | None = None
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCleaned:
    """A cleanup has ended: bytes in use before and after it, of `bound` or else RSS.

    `freed_bytes` is what each callback says it has freed, None where it says nothing; `failed`,
    `overran` and `skipped` are the names of those that brought nothing.  `collected` and
    `trimmed_bytes` are None where that was not done.  Published on the watch's thread.
    """

    step: int
    before_bytes: int
    after_bytes: int
    took_s: float
    bound: str | None = None
    limit_bytes: int | None = None
    freed_bytes: Mapping[str, int | None]
    failed: tuple[str, ...] = ()
    overran: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    collected: int | None = None
    trimmed_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFinishing:
    """This worker was short of memory and is asked to drain and exit, once.

    `cause` is "critical", or "stuck" where it did nothing but refuse requests; `share` is used of
    the tightest limit, named by `bound` (empty where there is none); `in_flight` requests are left
    to drain.  It is told on the memory watch's thread, before the server is asked.
    """

    cause: Literal["critical", "stuck"]
    rss_bytes: int
    share: float | None
    bound: str
    in_flight: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryVerdict:
    """How memory that grew was judged: a leak, growth that levels off, or fragmentation.

    `reason` is the verdict's own word, `text` it with all its evidence; `where` the line that
    explains a leak, empty where none does.  With `taken_back` a leak told of before is none.
    """

    kind: Literal["leak", "levels_off", "fragmentation"]
    reason: str
    text: str
    bytes_per_s: float | None = None
    bytes_per_request: float | None = None
    where: str = ""
    taken_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHoldsConnection:
    """A response streams and keeps a connection of `database`, which it may not need.

    Told once for each route and reason; `dependency` is the one that gave the session, with its
    file and line, or empty; `text` says all of it, and what to do.
    """

    route: str
    database: str
    reason: Literal["uncommitted", "thread"]
    dependency: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedStatements:
    """One request ran the same statement again and again from the same place (N+1).

    Told once for each route, fingerprint and place; `statement` is without its values, `where` the
    line with its text `source`, `fix` what to write instead.
    """

    route: str
    fingerprint: str
    statement: str
    count: int
    elapsed_s: float
    where: str
    source: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudgetChanged:
    """The tokens for one kind of retry of `database` are used up, or a retry was made again since.

    While `is_exhausted` each transaction is tried once: mostly the database is down (`kind`
    "connection"), or many transactions want the same rows ("conflict").
    """

    database: str
    kind: Literal["conflict", "connection"]
    is_exhausted: bool
