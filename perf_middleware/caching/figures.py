"""What the cache did, counted by route, and offered at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.cache_status import NO_FRESHNESS
from perf_middleware.families import NO_LABELS, OTHER, Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROUTES_MAX: Final = 1_000  # beyond, routes count together as `other`
SILENT_UNDER: Final = {"misses": "uri-miss", "refused": NO_FRESHNESS}


class RouteCounts:
    """Plain counters of one route; a hit touches two of them."""

    __slots__ = (
        "bypassed", "collapsed", "errors_hidden", "hit_bytes", "hits", "misses", "refreshed",
        "refused", "revalidated", "shared_hits", "silent", "stale_hits", "stored", "stored_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.hits = 0
        self.shared_hits = 0
        self.stale_hits = 0
        self.hit_bytes = 0
        self.collapsed = 0
        self.refreshed = 0
        self.revalidated = 0
        self.errors_hidden = 0
        self.stored = 0
        self.stored_bytes = 0
        self.misses: dict[str, int] = {}
        self.bypassed: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.silent = 0  # misses refused as silent: most answers are, so they cost one addition

    def by_reason(self, of: str) -> dict[str, int]:
        """`misses`, `bypassed` or `refused` with the silent ones among them."""
        counts: dict[str, int] = getattr(self, of)
        reason = SILENT_UNDER.get(of)
        if reason is None or not self.silent:
            return counts
        return counts | {reason: counts.get(reason, 0) + self.silent}


class CacheFigures:
    """The counters of one cache."""

    def __init__(self) -> None:
        self.by_route: dict[str, RouteCounts] = {}
        self.invalidated = 0
        self.background_failed = 0

    def of(self, route: str) -> RouteCounts:
        """The counts of a route; after ROUTES_MAX of them, those that all further ones share."""
        counts = self.by_route.get(route)
        if counts is None:
            if len(self.by_route) >= ROUTES_MAX:
                route = OTHER
            counts = self.by_route.setdefault(route, RouteCounts())
        return counts

    def reset(self) -> None:
        """Every count back to zero, in place: what is stored holds on to those of its route."""
        for counts in self.by_route.values():
            counts.reset()
        self.invalidated = 0
        self.background_failed = 0

    def totals(self) -> dict[str, Any]:
        """The sums over all routes, JSON-able; `hit_ratio` of those requests that looked."""
        rows = self.by_route.values()
        hits = sum(row.hits for row in rows)
        misses = sum(sum(row.by_reason("misses").values()) for row in rows)
        return {
            "hits": hits,
            "shared_hits": sum(row.shared_hits for row in rows),
            "stale_hits": sum(row.stale_hits for row in rows),
            "misses": misses,
            "bypassed": sum(sum(row.bypassed.values()) for row in rows),
            "collapsed": sum(row.collapsed for row in rows),
            "revalidated": sum(row.revalidated for row in rows),
            "stored": sum(row.stored for row in rows),
            "invalidated": self.invalidated,
            "hit_ratio": round(hits / (hits + misses), 4) if hits + misses else None,
        }

    def families(
        self, *, entries: int, size_bytes: int, bytes_max: int, evictions: int, waiting: int
    ) -> Iterator[Family]:
        """Everything that /metrics tells of a cache with these sizes."""
        rows = [(LabelSet([("route", route)]), row) for route, row in self.by_route.items()]

        def per_route(name: str, text: str, of: str) -> Family:
            return counter(name, text, tuple(Value(label, getattr(row, of)) for label, row in rows))

        def by_reason(name: str, text: str, of: str) -> Family:
            return counter(name, text, tuple(_reasons(self.by_route.items(), of)))

        yield per_route("perf_cache_hits", "Requests answered from the store.", "hits")
        yield per_route(
            "perf_cache_shared_hits", "Those that came from Redis into memory.", "shared_hits"
        )
        yield per_route("perf_cache_stale_hits", "Those answered stale.", "stale_hits")
        yield per_route("perf_cache_hit_bytes", "Bytes of bodies sent from the store.", "hit_bytes")
        yield by_reason("perf_cache_misses", "Requests that went on to the app.", "misses")
        yield by_reason("perf_cache_bypassed", "Requests that were not looked up.", "bypassed")
        yield by_reason("perf_cache_refused", "Answers that were not stored.", "refused")
        yield per_route(
            "perf_cache_collapsed", "Requests answered by another's call of the app.", "collapsed"
        )
        yield per_route(
            "perf_cache_revalidated", "Stored responses that the app confirmed.", "revalidated"
        )
        yield per_route(
            "perf_cache_refreshed", "Calls of the app that no client waited for.", "refreshed"
        )
        yield per_route(
            "perf_cache_errors_hidden", "Failures answered with a stale response.", "errors_hidden"
        )
        yield per_route("perf_cache_stored", "Responses stored.", "stored")
        yield per_route("perf_cache_stored_bytes", "Bytes of their bodies.", "stored_bytes")
        yield counter(
            "perf_cache_invalidated", "Stored responses purged.",
            (Value(NO_LABELS, self.invalidated),),
        )  # fmt: skip
        yield counter(
            "perf_cache_background_failures", "Refreshes in the background that failed.",
            (Value(NO_LABELS, self.background_failed),),
        )  # fmt: skip
        yield counter("perf_cache_evictions", "Let go for room.", (Value(NO_LABELS, evictions),))
        yield gauge("perf_cache_entries", "Stored responses.", (Value(NO_LABELS, entries),))
        yield gauge("perf_cache_bytes", "Bytes stored.", (Value(NO_LABELS, size_bytes),))
        yield gauge("perf_cache_bytes_max", "Room for them.", (Value(NO_LABELS, bytes_max),))
        yield gauge(
            "perf_cache_waiting", "Requests that wait for another's.", (Value(NO_LABELS, waiting),)
        )


def _reasons(rows: Iterable[tuple[str, RouteCounts]], of: str) -> Iterator[Value]:
    for route, row in rows:
        for reason, count in row.by_reason(of).items():
            yield Value(LabelSet([("route", route), ("reason", reason)]), count)
