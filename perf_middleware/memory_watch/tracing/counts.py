"""How many objects there are of each type, and which containers have become longer.

Types say what is kept, containers who keeps it: a list that had 2,000 items and has 3,200 five
seconds later is the better half of a leak's explanation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

TYPES_MAX: Final = 2_000
"""Types that are kept of one look, the most frequent ones: an app has a few hundred to thousand."""

ContainerLook: TypeAlias = Mapping[int, tuple[str, int]]
"""Kind and length by identity: the containers of one moment, none of them kept alive."""


@dataclass(frozen=True, slots=True)
class TypeCount:
    """Objects of one type that the garbage collector knows."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class TypeGrowth:
    """Objects of one type at two moments."""

    name: str
    before: int
    after: int

    @property
    def grown(self) -> int:
        """How many more; fewer is negative."""
        return self.after - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectCounts:
    """All objects that the garbage collector knows, by type: no strings, no numbers.

    `total` counts also what is not in `by_type`, which holds the most frequent types.
    """

    total: int
    by_type: Mapping[str, int]

    def top(self, most: int) -> tuple[TypeCount, ...]:
        """The `most` frequent types."""
        ranked = nlargest(most, self.by_type.items(), key=lambda item: (item[1], item[0]))
        return tuple(TypeCount(*item) for item in ranked)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrownContainer:
    """A container that is longer than it was; `name` says who holds it, empty where none is found.

    "shop.SEEN" is a global of a module, "Basket.lines" an attribute of some object of that class.
    """

    name: str
    kind: str
    before: int
    after: int

    def __str__(self) -> str:
        name = self.name or "one that nobody names"
        return f"{name} ({self.kind}): {self.after - self.before:+,} items, {self.after:,} now"


def counted(by_type: Mapping[str, int], *, types_max: int = TYPES_MAX) -> ObjectCounts:
    """The counts of one look, of the `types_max` most frequent types."""
    kept = nlargest(types_max, by_type.items(), key=lambda item: (item[1], item[0]))
    return ObjectCounts(total=sum(by_type.values()), by_type=dict(kept))


def growth(before: ObjectCounts, after: ObjectCounts, *, top: int = 20) -> tuple[TypeGrowth, ...]:
    """The types whose number changed most: those that grew first, each kind at most `top`."""
    changed = [
        TypeGrowth(name, before.by_type.get(name, 0), after.by_type.get(name, 0))
        for name in before.by_type.keys() | after.by_type.keys()
        if before.by_type.get(name, 0) != after.by_type.get(name, 0)
    ]
    more = nlargest(top, changed, key=lambda row: (row.grown, row.name))
    fewer = nsmallest(top, changed, key=lambda row: (row.grown, row.name))
    return (
        *(row for row in more if row.grown > 0),
        *(row for row in reversed(fewer) if row.grown < 0),
    )


def longest(
    seen: Iterable[tuple[int, str, int]], *, containers_max: int
) -> dict[int, tuple[str, int]]:
    """The longest containers of (identity, kind, length), which may be told more than once."""
    once = {row[0]: row for row in seen}
    kept = nlargest(containers_max, once.values(), key=lambda row: row[2])
    return {identity: (kind, length) for identity, kind, length in kept}


def grown_containers(
    before: ContainerLook, after: ContainerLook, *, top: int
) -> tuple[tuple[int, str, int, int], ...]:
    """Identity, kind, length before and after of the `top` that gained the most items.

    Only what was there before: what is new may be anything, such as a request's own list.
    """
    both = [
        (identity, kind, before[identity][1], length)
        for identity, (kind, length) in after.items()
        if identity in before and before[identity][0] == kind and length > before[identity][1]
    ]
    return tuple(nlargest(top, both, key=lambda row: (row[3] - row[2], row[0])))
