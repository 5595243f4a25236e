"""How much memory is used, and of what: the values that the rest of this room decides on.

MemorySample   what each look reads: cheap, often
Witness        what the hunt for leaks keeps of it
Bound          one limit, and how much of it is used
MemoryReading  the whole picture, for people and their tools
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

BoundName: TypeAlias = Literal["configured", "cgroup", "rlimit_data", "rlimit_as", "system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One limit that holds for this process, bytes.

    `where` tells it from others of its kind: the path of a control group; else it is empty.
    """

    name: BoundName
    used_bytes: int
    limit_bytes: int
    where: str = ""

    def __post_init__(self) -> None:
        if self.used_bytes < 0 or self.limit_bytes < 1:
            raise ValueError(f"used_bytes must be >= 0 and limit_bytes >= 1: {self}")

    @property
    def share(self) -> float:
        """Used of the limit: 1.0 where nothing is left; a limit that was lowered may give more."""
        return self.used_bytes / self.limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """One cheap look; `at_us` is the monotonic clock's.

    `rss_bytes` is what this process has in RAM; `bounds` are all that are known, in no order.
    """

    at_us: int
    rss_bytes: int
    bounds: tuple[Bound, ...] = ()

    @property
    def tightest(self) -> Bound | None:
        """The bound of which the largest share is used; None where there is none."""
        return max(self.bounds, key=lambda bound: bound.share, default=None)

    @property
    def share(self) -> float | None:
        """Used of the tightest bound; None where there is none."""
        tightest = self.tightest
        return None if tightest is None else tightest.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What tells growth from use, at one moment; None is what the platform does not tell.

    `anonymous_bytes` is what the process has written itself (RssAnon and what of it was swapped
    out), so no file that is mapped; `blocks` the small objects that Python's own allocator has
    given out; `malloc_bytes` what the C library has given out and not got back; `known_bytes` what
    caches that know their bounds say they hold; `requests` how many were served so far.
    """

    at_us: int
    anonymous_bytes: int
    blocks: int
    malloc_bytes: int | None = None
    known_bytes: int = 0
    requests: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Where the memory of this process is, bytes; None is what the platform does not tell.

    `anonymous_bytes`, `file_bytes` and `shared_bytes` are in RAM and sum up to the RSS: written by
    itself, mapped files, memory that is shared with others on purpose.  `proportional_bytes` (PSS)
    counts a page that n processes share as an n-th of it, so that workers can be added up;
    `unique_bytes` (USS) is what would be free without this process.
    """

    rss_bytes: int
    peak_bytes: int | None = None
    anonymous_bytes: int | None = None
    file_bytes: int | None = None
    shared_bytes: int | None = None
    swapped_bytes: int | None = None
    virtual_bytes: int | None = None
    data_bytes: int | None = None
    proportional_bytes: int | None = None
    unique_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMemory:
    """One control group, bytes.

    `usage_bytes` is all that it is charged for, `used_bytes` what of it cannot be taken back
    easily; `limit_bytes` is the limit that it is held to, the smaller one of `max_bytes` (the OOM
    killer's) and `high_bytes` (from which on it is slowed down).  `events` counts since the group
    was made: how often it ran into a limit, and how many of its processes were killed for it.
    """

    version: int
    path: str
    usage_bytes: int
    used_bytes: int
    limit_bytes: int | None = None
    max_bytes: int | None = None
    high_bytes: int | None = None
    peak_bytes: int | None = None
    swap_bytes: int | None = None
    swap_limit_bytes: int | None = None
    events: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """Time in which tasks waited for memory: all so far, and its share of the last 10 and 60 s."""

    total_us: int
    share_10s: float
    share_60s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Pressure stall information: `some` tasks waited, or all that had work did (`full`).

    `where` is the path of the control group that it is of; empty: the whole system.
    """

    where: str
    some: Stalls
    full: Stalls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemMemory:
    """The memory of the machine, bytes; `available_bytes` is what new work may get without swap."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None

    @property
    def used_bytes(self) -> int:
        """What is not available."""
        return max(0, self.total_bytes - self.available_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MallocMemory:
    """The C library's allocator, bytes: given out and not got back; got back and kept for later."""

    used_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageCollector:
    """The collector as it is now, one figure for each generation, the youngest first.

    `pending` counts what leads to the next collection: objects made and not freed, then younger
    collections.
    """

    is_enabled: bool
    thresholds: tuple[int, ...]
    pending: tuple[int, ...]
    collections: tuple[int, ...]
    uncollectable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """The whole picture at `at_us`; None is what the platform does not tell.

    `group` is the control group with the tightest limit, or this process's own where none has one.
    """

    at_us: int
    process: ProcessMemory
    bounds: tuple[Bound, ...]
    blocks: int
    gc: GarbageCollector
    group: GroupMemory | None = None
    pressure: Pressure | None = None
    system: SystemMemory | None = None
    malloc: MallocMemory | None = None

    @property
    def sample(self) -> MemorySample:
        """What of it the watch decides on."""
        return MemorySample(at_us=self.at_us, rss_bytes=self.process.rss_bytes, bounds=self.bounds)
