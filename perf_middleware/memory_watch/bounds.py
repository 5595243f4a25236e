"""Every limit that holds for this process, and how much of each is used.

    configured    what the settings allow, against what is in RAM (RSS)
    cgroup        each group on the way up that has a limit, against what it cannot give back
    rlimit_data   RLIMIT_DATA, against private data: a request for more fails (MemoryError)
    rlimit_as     RLIMIT_AS, against address space: the same.  Half of what malloc has free is not
                  used of these two: it is given out again before the system is asked, but only to
                  what fits into its holes
    system        what is in RAM (RSS) and what new work may get besides, against the former

What others have of the machine is none of this process's affair: a host that is 90 % full of a
database, or of a file system's own cache, would have it empty its caches for ever, and free next to
nothing.  So `system` compares what this process could give back with what is left: at a share of
0.75 it holds three times as much as anybody may still get.

Each kind ends a process in its own way, so none replaces another: the watch looks at the tightest.
Sources: getrlimit(2); proc_meminfo(5) on MemAvailable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf_middleware.memory_watch.reading import Bound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.memory_watch.reading import BoundName, SystemMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is allowed besides control groups, bytes; None is no limit."""

    configured_bytes: int | None = None
    data_bytes: int | None = None
    virtual_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnUse:
    """What this process uses, bytes; None is what the platform does not tell.

    `free_bytes` is what malloc got back and keeps.
    """

    rss_bytes: int
    data_bytes: int | None = None
    virtual_bytes: int | None = None
    free_bytes: int = 0


def bounds_of(
    limits: Limits,
    own: OwnUse,
    *,
    groups: Iterable[Bound] = (),
    system: SystemMemory | None = None,
) -> tuple[Bound, ...]:
    """All bounds that are known; a figure that is missing leaves its bound out."""
    found = [
        _bound("configured", own.rss_bytes, limits.configured_bytes),
        *groups,
        _bound("rlimit_data", _without(own.free_bytes // 2, own.data_bytes), limits.data_bytes),
        _bound("rlimit_as", _without(own.free_bytes // 2, own.virtual_bytes), limits.virtual_bytes),
    ]
    if system is not None:
        reach_bytes = own.rss_bytes + system.available_bytes
        found.append(_bound("system", own.rss_bytes, reach_bytes))
    return tuple(bound for bound in found if bound is not None)


def _without(free_bytes: int, used_bytes: int | None) -> int | None:
    return None if used_bytes is None else used_bytes - free_bytes


def _bound(name: BoundName, used_bytes: int | None, limit_bytes: int | None) -> Bound | None:
    if used_bytes is None or limit_bytes is None:
        return None
    # A limit of 0 lets nothing more in; a share needs a number to divide by.
    return Bound(name=name, used_bytes=max(0, used_bytes), limit_bytes=max(1, limit_bytes))


def tightest_of_each(bounds: Iterable[Bound]) -> dict[BoundName, Bound]:
    """The bound of each kind of which the largest share is used."""
    found: dict[BoundName, Bound] = {}
    for bound in bounds:
        before = found.get(bound.name)
        if before is None or bound.share > before.share:
            found[bound.name] = bound
    return found
