"""What is kept of one moment, and what changed between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from perf_middleware.memory_watch.tracing.counts import (
        ContainerLook,
        GrownContainer,
        ObjectCounts,
        TypeGrowth,
    )
    from perf_middleware.memory_watch.tracing.sites import TraceReport

US_PER_S = 1_000_000

Readings: TypeAlias = Mapping[str, float | None]
"""Numbers by name with their unit as last word; None is what the platform does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One moment: readings, object counts, long containers, and a trace where one was asked for.

    It holds numbers and names, none of the objects.
    """

    id: str
    at_us: int
    readings: Readings
    objects: ObjectCounts
    containers: ContainerLook
    trace: TraceReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingChange:
    """One reading at two moments; `change` is None where either is not known."""

    before: float | None
    after: float | None
    change: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changed from picture `a` to picture `b`, which may be the older one."""

    a: str
    b: str
    seconds: float
    readings: Mapping[str, ReadingChange]
    objects: int
    types: tuple[TypeGrowth, ...]
    containers: tuple[GrownContainer, ...] = ()
    trace: TraceReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A full collection of garbage: what it freed, how long it took, and the readings around it.

    `uncollectable` objects stay in `gc.garbage`.
    """

    objects: int
    uncollectable: int
    seconds: float
    readings: Mapping[str, ReadingChange]


def changes(before: Readings, after: Readings) -> dict[str, ReadingChange]:
    """Every reading of either, in the order of `before`."""
    names = dict.fromkeys((*before, *after))
    return {name: _change(before.get(name), after.get(name)) for name in names}


def _change(before: float | None, after: float | None) -> ReadingChange:
    known = before is not None and after is not None
    return ReadingChange(
        before=before,
        after=after,
        change=after - before if known else None,  # type: ignore[operator]
    )
