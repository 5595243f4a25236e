"""How often a bounded cache has what is asked for, and what that takes.

BoundedCache beside the classics on traces drawn from a seed, then its operations beside those of
the least LRU that can be written (an OrderedDict), in one run.
"""

from __future__ import annotations

import argparse
import gc
import tracemalloc
from collections import OrderedDict
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path
from random import Random
from time import process_time_ns
from typing import TYPE_CHECKING, Protocol

from benchmarks.figures import Cost, costs
from benchmarks.runner import write_json
from benchmarks.traces import UNBOUNDED, UNIT_BYTES, Trace, suite, zipf
from perf_middleware.caching.eviction import BoundedCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

OURS = "BoundedCache"
LRU = "LRU"
LOST_POINTS_MAX = 1.0  # behind LRU, on any trace


class Cache(Protocol):
    """What is compared."""

    def get(self, key: int) -> int | None: ...

    def put(self, key: int, value: int, size_bytes: int) -> object: ...


class LruCache:
    """Lets go what was asked for longest ago.  Values are sizes, so nothing else is kept."""

    def __init__(self, *, bytes_max: int, entries_max: int) -> None:
        self.bytes_max = bytes_max
        self.entries_max = entries_max
        self.size_bytes = 0
        self.entries: OrderedDict[int, int] = OrderedDict()

    def get(self, key: int) -> int | None:
        value = self.entries.get(key)
        if value is not None:
            self.entries.move_to_end(key)
        return value

    def put(self, key: int, value: int, size_bytes: int) -> None:
        entries = self.entries
        self.size_bytes -= entries.pop(key, 0)
        if size_bytes > self.bytes_max:
            return
        while entries and (
            self.size_bytes + size_bytes > self.bytes_max or len(entries) >= self.entries_max
        ):
            self.size_bytes -= entries.popitem(last=False)[1]
        entries[key] = size_bytes
        self.size_bytes += size_bytes


class FifoCache(LruCache):
    """Lets go what was put longest ago."""

    def get(self, key: int) -> int | None:
        return self.entries.get(key)


class LfuCache:
    """Lets go what was asked for least often since it was put; of equals the one put first."""

    def __init__(self, *, bytes_max: int, entries_max: int) -> None:
        self.bytes_max = bytes_max
        self.entries_max = entries_max
        self.size_bytes = 0
        self.sizes: dict[int, int] = {}
        self.hits: dict[int, int] = {}
        self.heap: list[tuple[int, int, int]] = []  # hits when it was noted, order, key
        self.order = 0

    def get(self, key: int) -> int | None:
        size = self.sizes.get(key)
        if size is not None:
            self.hits[key] += 1
        return size

    def put(self, key: int, value: int, size_bytes: int) -> None:
        if size_bytes > self.bytes_max:
            return
        while self.sizes and (
            self.size_bytes + size_bytes > self.bytes_max or len(self.sizes) >= self.entries_max
        ):
            noted, order, coldest = heappop(self.heap)
            hits = self.hits[coldest]
            if hits > noted:
                heappush(self.heap, (hits, order, coldest))
            else:
                del self.hits[coldest]
                self.size_bytes -= self.sizes.pop(coldest)
        self.sizes[key] = size_bytes
        self.hits[key] = 0
        self.size_bytes += size_bytes
        self.order += 1
        heappush(self.heap, (0, self.order, key))


POLICIES: dict[str, Callable[[int, int], Cache]] = {
    OURS: lambda size, entries: BoundedCache[int, int](bytes_max=size, entries_max=entries),
    LRU: lambda size, entries: LruCache(bytes_max=size, entries_max=entries),
    "FIFO": lambda size, entries: FifoCache(bytes_max=size, entries_max=entries),
    "LFU": lambda size, entries: LfuCache(bytes_max=size, entries_max=entries),
}


@dataclass(frozen=True, slots=True)
class Ratios:
    """The share of the requests, and of the bytes asked for, that a cache had."""

    hits: float
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One trace: the ratios of each policy; `bound` is Belady's, where all weigh the same."""

    trace: str
    requests: int
    weighed: bool
    ratios: dict[str, Ratios]
    bound: float | None

    @property
    def lead_points(self) -> float:
        """Ours minus LRU, in percentage points."""
        return 100 * (self.ratios[OURS].hits - self.ratios[LRU].hits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """One operation on full caches of `entries` entries."""

    operation: str
    entries: int
    costs: tuple[Cost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Bytes an entry takes beside its key and value, once the cache is full and has ghosts."""

    entries: int
    ours_bytes: float
    lru_bytes: float


def simulate(trace: Trace, cache: Cache) -> Ratios:
    """Ask an empty cache for everything in the trace, and put what it has not."""
    get, put = cache.get, cache.put
    hits = hit_bytes = asked_bytes = 0
    for key in trace.requests:
        size = trace.size_of(key)
        asked_bytes += size
        if get(key) is None:
            put(key, size, size)
        else:
            hits += 1
            hit_bytes += size
    return Ratios(hits / len(trace.requests), hit_bytes / asked_bytes)


def belady(trace: Trace) -> float:
    """The best hit ratio there can be for entries of one size: the future is known.

    Source: Belady, "A study of replacement algorithms", IBM Systems Journal 1966.
    """
    never = len(trace.requests)
    following = [never] * len(trace.requests)
    last: dict[int, int] = {}
    for at, key in enumerate(trace.requests):
        if key in last:
            following[last[key]] = at
        last[key] = at
    held: dict[int, int] = {}  # key -> when it is asked for next
    farthest: list[tuple[int, int]] = []
    hits = 0
    for key, next_at in zip(trace.requests, following, strict=True):
        if key in held:
            hits += 1
        elif next_at == never:
            continue
        elif len(held) >= trace.entries_max:
            while True:
                at, victim = farthest[0]
                if held.get(victim) == -at:
                    break
                heappop(farthest)
            if -at < next_at:
                continue
            heappop(farthest)
            del held[victim]
        held[key] = next_at
        heappush(farthest, (-next_at, key))
        if len(farthest) > 4 * trace.entries_max + 64:
            farthest = [(-at, key) for key, at in held.items()]
            heapify(farthest)
    return hits / len(trace.requests)


def compare(trace: Trace) -> Comparison:
    """Every policy on one trace."""
    return Comparison(
        trace=trace.name,
        requests=len(trace.requests),
        weighed=trace.sizes is not None,
        ratios={
            name: simulate(trace, build(trace.bytes_max, trace.entries_max))
            for name, build in POLICIES.items()
        },
        bound=belady(trace) if trace.sizes is None else None,
    )


def _ask(cache: Cache, keys: Iterable[int]) -> int:
    get = cache.get
    began_ns = process_time_ns()
    for key in keys:
        get(key)
    return process_time_ns() - began_ns


def _put(cache: Cache, keys: Iterable[int]) -> int:
    put = cache.put
    began_ns = process_time_ns()
    for key in keys:
        put(key, UNIT_BYTES, UNIT_BYTES)
    return process_time_ns() - began_ns


def _look_aside(cache: Cache, keys: Iterable[int]) -> int:
    get, put = cache.get, cache.put
    began_ns = process_time_ns()
    for key in keys:
        if get(key) is None:
            put(key, UNIT_BYTES, UNIT_BYTES)
    return process_time_ns() - began_ns


def speeds(entries: int, *, rounds: int, operations: int) -> list[Speeds]:
    """Microseconds of each operation, the loop around it included; ours and LRU in each round."""
    drawn = zipf(10 * entries, 0.9, operations * rounds, Random("speeds"))
    random = Random("hits")
    caches = {name: POLICIES[name](UNBOUNDED, entries) for name in (LRU, OURS)}
    measured: dict[str, dict[str, list[float]]] = {}

    def note(operation: str, name: str, elapsed_ns: int) -> None:
        means = measured.setdefault(operation, {name: [] for name in caches})
        means[name].append(elapsed_ns / operations / 1000)

    new = 10 * entries
    for cache in caches.values():
        _put(cache, range(new, new + 2 * entries))
    for at in range(rounds):
        new += 2 * entries + operations
        part = drawn[at * operations : (at + 1) * operations]
        for name, cache in caches.items():
            gc.collect()
            held = [key for key in range(10 * entries) if cache.get(key) is not None] or [new]
            _put(cache, held)  # notes what was asked for, so that no put below pays for it
            asked = [held[random.randrange(len(held))] for _ in range(operations)]
            note("look-aside, Zipf 0.9 over ten times the room", name, _look_aside(cache, part))
            note("get, a hit", name, _ask(cache, asked))
            note("put, evicting", name, _put(cache, range(new, new + operations)))
    return [
        Speeds(operation=operation, entries=entries, costs=costs(means, baseline=LRU))
        for operation, means in measured.items()
    ]


def overhead(entries: int) -> Overhead:
    """Memory of full caches, counted by the interpreter."""
    keys = list(range(1 << 40, (1 << 40) + 3 * entries))
    taken = {}
    for name in (OURS, LRU):
        gc.collect()
        tracemalloc.start()
        try:
            cache = POLICIES[name](UNBOUNDED, entries)
            _put(cache, keys)
            taken[name] = tracemalloc.get_traced_memory()[0] / entries
        finally:
            tracemalloc.stop()
        del cache
    return Overhead(entries=entries, ours_bytes=taken[OURS], lru_bytes=taken[LRU])


def ratio_head() -> str:
    """The line above those of `ratio_line`."""
    names = "".join(f"{name:>14}" for name in POLICIES)
    return f"{'hit ratio (of bytes)':58}{names}{'Belady':>9}{'ours - LRU':>12}"


def ratio_line(comparison: Comparison) -> str:
    """One trace for a terminal."""
    line = f"{comparison.trace:58}"
    for ratios in comparison.ratios.values():
        shown = f"{ratios.hits:.3f}"
        if comparison.weighed:
            shown += f" ({ratios.bytes:.3f})"
        line += f"{shown:>14}"
    bound = "" if comparison.bound is None else f"{comparison.bound:.3f}"
    return f"{line}{bound:>9}{comparison.lead_points:+12.1f}"


def speed_table(all_speeds: Sequence[Speeds]) -> str:
    """The operations for a terminal."""
    lines = [f"{'us (medians)':58}{'entries':>10}{OURS:>14}{LRU:>9}{'x LRU':>9}"]
    for row in all_speeds:
        lru, ours = row.costs
        lines.append(
            f"{row.operation:58}{row.entries:10,}{ours.request_us.median:14.3f}"
            f"{lru.request_us.median:9.3f}{ours.ratio:9.2f}"
        )
    return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much a run does."""

    keys: int
    requests: int
    entries: tuple[int, ...]  # of the caches whose operations are timed
    rounds: int


QUICK = Extent(keys=4_000, requests=40_000, entries=(100, 1_000), rounds=15)
NORMAL = Extent(keys=20_000, requests=200_000, entries=(100, 1_000, 10_000), rounds=40)
FULL = Extent(keys=100_000, requests=1_000_000, entries=(100, 1_000, 10_000, 100_000), rounds=60)
OPERATIONS = 5_000  # timed in each round


def compared(size: Extent) -> Iterator[Comparison]:
    """Every trace, as it is done."""
    for trace in suite(size.keys, size.requests):
        yield compare(trace)


def timings(size: Extent) -> list[Speeds]:
    """Every operation on caches of each size."""
    return [
        row
        for entries in size.entries
        for row in speeds(entries, rounds=size.rounds, operations=OPERATIONS)
    ]


def run(size: Extent) -> list[Comparison | Speeds | Overhead]:
    """The ratios, then the timings, then what an entry takes."""
    return [*compared(size), *timings(size), overhead(max(size.entries))]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_const", dest="extent", const=QUICK)
    extent.add_argument("--full", action="store_const", dest="extent", const=FULL)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.set_defaults(extent=NORMAL)
    options = parser.parse_args()
    size: Extent = options.extent
    print(f"{size.keys:,} keys, {size.requests:,} requests a trace\n\n{ratio_head()}")
    comparisons = []
    for comparison in compared(size):
        comparisons.append(comparison)
        print(ratio_line(comparison), flush=True)
    worst = min(comparisons, key=lambda comparison: comparison.lead_points)
    print(
        f"\nfarthest behind LRU: {worst.lead_points:+.2f} points, {worst.trace} "
        f"(target: none below -{LOST_POINTS_MAX})\n"
    )
    timed, held = timings(size), overhead(max(size.entries))
    print(
        f"{speed_table(timed)}\n\nbytes an entry, key and value apart: {held.ours_bytes:.0f}, "
        f"{LRU} {held.lru_bytes:.0f} ({held.entries:,} entries)\n"
    )
    write_json(options.json, [*comparisons, *timed, held])


if __name__ == "__main__":
    main()
