"""What the hunt for leaks has counted, and its families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf_middleware.memory_watch.leaks.growth import Growth
    from perf_middleware.memory_watch.leaks.route_growth import GrowingRoute
    from perf_middleware.memory_watch.leaks.verdict import Verdict

KINDS: Final = ("leak", "levels_off", "fragmentation")
_KIND_LABELS: Final = {kind: LabelSet([("verdict", kind)]) for kind in KINDS}


class LeakCounts:
    """Verdicts by kind, and what was done to come to them."""

    __slots__ = ("failures", "inquiries", "taken_back", "tracings", "verdicts")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.verdicts = dict.fromkeys(KINDS, 0)
        self.inquiries = self.tracings = self.taken_back = self.failures = 0

    def families(
        self,
        *,
        standing: Verdict | None,
        growth: Growth | None,
        routes: Sequence[GrowingRoute],
        route_samples: int,
    ) -> Iterable[Family]:
        """The families for a scrape; `growth` is the finest level's."""
        yield gauge(
            "perf_memory_leak_suspected",
            "Whether a leak has been told of and not been taken back: 1 or 0.",
            [Value(NO_LABELS, int(standing is not None and standing.kind == "leak"))],
            across="max",
        )
        yield gauge(
            "perf_memory_growth_bytes_per_second",
            "Slope of the memory that is occupied, over the shortest time that is judged.",
            [] if growth is None else [Value(NO_LABELS, growth.occupied.per_s.slope)],
        )
        yield gauge(
            "perf_memory_growth_blocks_per_second",
            "Slope of the blocks that Python's allocator has given out, over the same time.",
            [] if growth is None else [Value(NO_LABELS, growth.blocks.per_s.slope)],
        )
        yield counter(
            "perf_memory_leak_verdicts",
            "Verdicts about memory that grew.",
            [Value(_KIND_LABELS[kind], count) for kind, count in self.verdicts.items()],
        )
        yield counter(
            "perf_memory_leak_verdicts_taken_back",
            "Leaks that have levelled off after all.",
            [Value(NO_LABELS, self.taken_back)],
        )
        yield counter(
            "perf_memory_leak_inquiries",
            "Times that growth was looked into.",
            [Value(NO_LABELS, self.inquiries)],
        )
        yield counter(
            "perf_memory_leak_tracings",
            "Times that Python's allocations were traced for it.",
            [Value(NO_LABELS, self.tracings)],
        )
        yield counter(
            "perf_memory_leak_failures",
            "Inquiries that raised.",
            [Value(NO_LABELS, self.failures)],
        )
        yield counter(
            "perf_memory_leak_route_samples",
            "Requests that were measured while they ran alone.",
            [Value(NO_LABELS, route_samples)],
        )
        yield gauge(
            "perf_memory_route_growth_blocks",
            "Blocks that a request of a route leaves behind, where it surely does.",
            [Value(LabelSet([("route", route.route)]), route.blocks) for route in routes],
            across="max",
        )
        yield gauge(
            "perf_memory_route_growth_bytes",
            "Bytes of malloc that a request of a route leaves behind, where it surely does.",
            [
                Value(LabelSet([("route", route.route)]), route.bytes)
                for route in routes
                if route.bytes is not None
            ],
            unit="bytes",
            across="max",
        )
