"""Leak, growth that levels off, or fragmentation: evidence in, verdict out.

    steady growth  ->  caches that know their bound and fill: is it they?      yes: levels off
                   ->  some seconds of tracing: which lines allocate what stays alive
                   ->  some seconds after it: does it still grow?              no: levels off
                   ->  from one collection of garbage to the next as well?     no: levels off
                   ->  do those lines explain it?                              yes: a leak, there

What no line of Python explains is said to be a leak of native code, after a longer time; the same
where nothing could be traced.  Growth of what the process occupies, while the allocators have not
given out more, is fragmentation.  Nobody can tell a cache without a bound, which fills for hours,
from a leak: until it stops, it is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from perf_middleware.memory_watch.leaks.confirming import CONFIRMED_SHARE_MIN
from perf_middleware.memory_watch.leaks.growth import IN_USE_SHARE_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.memory_watch.leaks.growth import Growth
    from perf_middleware.memory_watch.leaks.history import Trough
    from perf_middleware.memory_watch.leaks.route_growth import GrowingRoute, InUse

Kind: TypeAlias = Literal["leak", "levels_off", "fragmentation"]
Reason: TypeAlias = Literal[
    "traced",  # leak: lines of Python that explain it
    "native",  # leak: malloc has given it out, and no line of Python explains it
    "untraced",  # leak: nothing could be traced
    "cache",  # levels off: caches that know their bound fill
    "garbage",  # levels off: a collection frees it
    "ended",  # levels off: it has ended, or clearly slowed down
    "pieces",  # fragmentation: more is occupied, no more is given out
    "kept",  # fragmentation: it was given back, and is still occupied
]

EXPLAINED_SHARE_MIN: Final = 0.5  # of the growth, by traced lines or by caches that fill
ENDED_SHARE_MAX: Final = 0.5  # of the rate of a leak, for its being taken back
ALIVE_SHARE_MIN: Final = 0.5  # of the rate, from one collection to the next
NATIVE_LEVEL_MIN: Final = 1  # two minutes at default settings
UNTRACED_LEVEL_MIN: Final = 2  # eight
PIECES_FACTOR: Final = 16  # times the bytes of a leak: fragmentation is slow, common and harmless
KEPT_BYTES_MIN: Final = 64 << 20
KEPT_SHARE_MIN: Final = 0.75  # of what was given back, still occupied
SITE_SHARE_MIN: Final = 0.05  # of the growth: less is not worth a line
BURST_LOOKS_MIN: Final = 4
BURST_REST_SHARE_MAX: Final = 0.2  # of the requests, in the quieter half of the looks
SITES_MAX: Final = 5
US_PER_S: Final = 1_000_000


class GrowingSite(Protocol):
    """A line that allocated, while it was traced, what was still alive in the end."""

    @property
    def where(self) -> str:
        """`file:line`."""

    @property
    def bytes_per_s(self) -> float: ...

    @property
    def bytes(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def sure_bytes_per_s(self) -> float:
        """The same of the half that grew less: what is alive for a moment alone has none."""

    @property
    def is_own(self) -> bool:
        """Whether it is a line of the app, not of a library."""


class TraceReport(Protocol):
    """What some seconds of tracing have shown; `ended_early` says why they were fewer."""

    @property
    def sites(self) -> Sequence[GrowingSite]: ...

    @property
    def ended_early(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A line of the verdict."""

    where: str
    bytes_per_s: float
    sure_bytes_per_s: float
    bytes: int
    count: int
    is_own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FillingCache:
    """A cache that knows its bound; `bytes_per_s` None: its entries could not be measured."""

    name: str
    entries: int
    entries_max: int
    entries_per_s: float
    bytes_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingType:
    """So many more objects of a type than some seconds ago."""

    name: str
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """From when on growth is worth a look; `growth_bytes_min` holds for the finest level."""

    growth_bytes_min: int = 1 << 20

    def bytes_min(self, level: int) -> int:
        """Each level is four times as long, and a figure that wanders strays twice as far in it."""
        return self.growth_bytes_min << level


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One verdict with its evidence; `left_s`: until the tightest bound, at this rate."""

    kind: Kind
    reason: Reason
    at_us: int
    growth: Growth | None = None
    left_s: float | None = None
    sites: tuple[Site, ...] = ()
    caches: tuple[FillingCache, ...] = ()
    types: tuple[GrowingType, ...] = ()
    by_route: tuple[GrowingRoute, ...] = ()
    bytes: int = 0


def is_suspect(growth: Growth, rules: Rules) -> bool:
    """Whether it grows steadily, and enough to look into."""
    return growth.is_in_use_growing and growth.grown_bytes >= rules.bytes_min(growth.level)


def is_above_before(growth: Growth, points: Sequence[Trough], all_points: Sequence[Trough]) -> bool:
    """Whether what grows is higher than it ever was before `points`, as far as that is kept.

    Sessions that come and go, and work that needs much for a while, grow up to a height that was
    there before; a leak goes beyond it, and until then it needs no memory that the process has not
    had.
    """
    earlier = [point for point in all_points if point.at_us < growth.since_us]
    last = points[-(len(points) // 3) :]
    blocks_before = max((point.blocks_max for point in earlier), default=0)
    if growth.blocks.shape == "steady" and max(point.blocks for point in last) > blocks_before:
        return True
    before = max((p.malloc_bytes_max for p in earlier if p.malloc_bytes_max is not None), default=0)
    now = max((p.malloc_bytes for p in last if p.malloc_bytes is not None), default=0)
    return growth.malloc is not None and growth.malloc.shape == "steady" and now > before


def is_in_pieces(growth: Growth, rules: Rules) -> bool:
    """Whether more is occupied while no more is given out.

    False where the C library does not tell what it has given out: it could as well be in use.
    """
    occupied, malloc = growth.occupied, growth.malloc
    if malloc is None or occupied.shape != "steady" or growth.is_in_use_growing:
        return False
    surely = occupied.per_s.low
    if surely * growth.span_s < rules.bytes_min(growth.level) * PIECES_FACTOR:
        return False
    # By their slopes: an interval of figures that jump about reaches any growth.
    given_out = max(0.0, growth.blocks.per_s.slope) * 512 + max(0.0, malloc.per_s.slope)
    return given_out < surely * IN_USE_SHARE_MIN


def kept_bytes(points: Sequence[Trough]) -> int:
    """What is still occupied of what malloc has got back since its peak; 0 where that is little."""
    told = [point for point in points if point.malloc_bytes is not None]
    if not told:
        return 0
    peak = max(told, key=lambda point: point.malloc_bytes or 0)
    now = max(told, key=lambda point: point.at_us)
    returned = (peak.malloc_bytes or 0) - (now.malloc_bytes or 0)
    occupied_less = peak.anonymous_bytes - now.anonymous_bytes
    kept = returned - max(0, occupied_less)
    return kept if returned >= KEPT_BYTES_MIN and kept >= returned * KEPT_SHARE_MIN else 0


def caches_explain(growth: Growth, caches: Sequence[FillingCache]) -> bool:
    """Whether caches that fill are the reason.

    One whose entries could not be measured is taken for it: what it does not explain, shows when
    it is full.
    """
    if any(cache.bytes_per_s is None for cache in caches):
        return True
    explained = sum(cache.bytes_per_s or 0.0 for cache in caches)
    return explained >= growth.amount.per_s.slope * EXPLAINED_SHARE_MIN


def is_alive(growth: Growth, before: InUse, after: InUse, *, passed_s: float, load: float) -> bool:
    """Whether what grows is still in use after a collection of garbage.

    `before` and `after` are what was given out right after a collection each: what one frees is no
    evidence by itself, for every app has some garbage that waits.
    """
    share = load * ALIVE_SHARE_MIN
    blocks = (after[0] - before[0]) / passed_s
    if growth.blocks.shape == "steady" and blocks >= growth.blocks.per_s.slope * share:
        return True
    malloc = growth.malloc
    if malloc is None or malloc.shape != "steady" or before[1] is None or after[1] is None:
        return False
    return (after[1] - before[1]) / passed_s >= malloc.per_s.slope * share


def is_bursty(points: Sequence[Trough]) -> bool:
    """Whether requests came in bursts: half of the looks saw hardly any of them."""
    counts = [point.requests for point in points if point.requests is not None]
    more = sorted(after - before for before, after in pairwise(counts))
    return len(more) >= BURST_LOOKS_MIN and (
        sum(more[: len(more) // 2]) < sum(more) * BURST_REST_SHARE_MAX
    )


def sites_of(
    growth: Growth, report: TraceReport | None, *, bursty: bool = False
) -> tuple[Site, ...]:
    """The lines that are worth naming, the largest first.

    `bursty`: requests may have come in one half of the time alone, and so what they leave.
    """
    if report is None:
        return ()
    least = growth.amount.per_s.slope * SITE_SHARE_MIN
    sites = sorted(
        report.sites,
        key=lambda site: (
            0 if bursty else -site.sure_bytes_per_s,
            -site.bytes_per_s,
            site.where,
        ),
    )
    return tuple(
        Site(
            where=site.where,
            bytes_per_s=site.bytes_per_s,
            sure_bytes_per_s=site.sure_bytes_per_s,
            bytes=site.bytes,
            count=site.count,
            is_own=site.is_own,
        )
        for site in sites[:SITES_MAX]
        if site.bytes_per_s > 0 and site.bytes_per_s >= least
    )


def leak_reason(
    growth: Growth,
    report: TraceReport | None,
    sites: Sequence[Site],
    *,
    load: float,
    bursty: bool = False,
) -> Reason | None:
    """What kind of leak growth that has been confirmed is; None: not to be told yet.

    `load` is the share of the requests while it was traced; `bursty` as for sites_of().
    """
    if report is None:
        return "untraced" if growth.level >= UNTRACED_LEVEL_MIN else None
    perhaps = sum(site.bytes_per_s for site in sites)
    explained = perhaps if bursty else sum(site.sure_bytes_per_s for site in sites)
    if explained > 0 and explained >= growth.amount.per_s.slope * load * EXPLAINED_SHARE_MIN:
        return "traced"
    if report.ended_early:
        return None
    malloc = growth.malloc
    is_native = malloc is not None and malloc.shape == "steady" and malloc.per_s.is_rising
    return "native" if is_native and growth.level >= NATIVE_LEVEL_MIN else None


def has_ended(verdict: Verdict, growth: Growth) -> bool:
    """Whether a leak that was told of has stopped: `growth` is of the time since, as long.

    With a fraction of the requests that were there, nothing is said.
    """
    then = verdict.growth
    if then is None or growth.level < then.level or growth.since_us < verdict.at_us:
        return False
    if growth.requests_per_s is not None and (
        growth.requests_per_s < (then.requests_per_s or 0.0) * CONFIRMED_SHARE_MIN
    ):
        return False
    pairs = [(then.blocks, growth.blocks)]
    if then.malloc is not None and growth.malloc is not None:
        pairs.append((then.malloc, growth.malloc))
    return all(
        now.per_s.high < before.per_s.slope * ENDED_SHARE_MAX
        for before, now in pairs
        if before.shape == "steady"
    )
