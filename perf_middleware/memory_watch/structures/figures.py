"""What the structures have counted, and its families.

One family holds a point for each structure that is given, so that any number of them make one
family of each name, as an exposition asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from perf_middleware.families import Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind: TypeAlias = Literal["lru", "weak", "json", "chunked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureFigures:
    """One structure at one moment; None is what its kind does not know.

    `evictions` left to make room, because their time was over or because the memory watch asked
    for room; not what the app itself took out.
    """

    kind: Kind
    entries: int
    size_bytes: int | None = None
    hits: int | None = None
    misses: int | None = None
    evictions: int | None = None

    @property
    def hit_share(self) -> float | None:
        """Hits of all that was asked for; None before the first question."""
        asked = (self.hits or 0) + (self.misses or 0)
        return (self.hits or 0) / asked if asked else None


class Counted(Protocol):
    """A structure that tells its figures."""

    def figures(self) -> StructureFigures: ...


def structure_families(structures: Mapping[str, Counted]) -> Iterable[Family]:
    """The families of these structures, each under its name."""
    seen = [
        (LabelSet([("structure", name), ("kind", one.kind)]), one)
        for name, one in ((name, structure.figures()) for name, structure in structures.items())
    ]
    yield gauge(
        "perf_memory_structure_entries",
        "Entries that a structure holds.",
        [Value(labels, one.entries) for labels, one in seen],
    )
    yield gauge(
        "perf_memory_structure_bytes",
        "What a structure says its entries take.",
        [Value(labels, one.size_bytes) for labels, one in seen if one.size_bytes is not None],
        unit="bytes",
    )
    yield counter(
        "perf_memory_structure_hits",
        "Look-ups in a structure that found something.",
        [Value(labels, one.hits) for labels, one in seen if one.hits is not None],
    )
    yield counter(
        "perf_memory_structure_misses",
        "Look-ups in a structure that found nothing.",
        [Value(labels, one.misses) for labels, one in seen if one.misses is not None],
    )
    yield counter(
        "perf_memory_structure_evictions",
        "Entries that a structure let go of by itself.",
        [Value(labels, one.evictions) for labels, one in seen if one.evictions is not None],
    )
