"""A verdict as people read it: one sentence, the figures, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, assert_never

if TYPE_CHECKING:
    from perf_middleware.memory_watch.leaks.growth import Growth, Series
    from perf_middleware.memory_watch.leaks.robust_trend import Trend
    from perf_middleware.memory_watch.leaks.route_growth import GrowingRoute
    from perf_middleware.memory_watch.leaks.verdict import Verdict

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
FRAGMENTATION_FIX: Final = (
    "malloc_trim gives free memory back, MALLOC_ARENA_MAX=2 keeps threads from having heaps of "
    "their own, jemalloc keeps pieces together"
)


def bytes_text(value: float) -> str:
    """`212 kB`; units of 1000."""
    value, unit = _scaled(value)
    return f"{_three_digits(value)} {unit}"


def _scaled(value: float) -> tuple[float, str]:
    index = 0
    while abs(value) >= 999.5 and index < len(_UNITS) - 1:
        value, index = value / 1000, index + 1
    return value, _UNITS[index]


def _three_digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def rate_text(trend: Trend) -> str:
    """`212 kB/s (198-230, 95 %)`."""
    value, unit = _scaled(trend.slope)
    factor = value / trend.slope if trend.slope else 1.0
    low, high = _three_digits(trend.low * factor), _three_digits(trend.high * factor)
    return f"{_three_digits(value)} {unit}/s ({low}-{high}, 95 %)"


def seconds_text(seconds: float) -> str:
    """`40 min`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def growth_text(growth: Growth) -> str:
    """How it grows: the rate, of a request, and the witnesses."""
    amount = growth.amount
    parts = [f"{rate_text(amount.per_s)} over {seconds_text(growth.span_s)}"]
    if amount.per_request is not None and amount.per_request.slope > 0:
        parts.append(f"{bytes_text(amount.per_request.slope)} a request")
    parts.append(f"blocks {growth.blocks.per_s.slope:+.0f}/s")
    if growth.malloc is not None:
        sign = "+" if growth.malloc.per_s.slope >= 0 else ""
        parts.append(f"malloc {sign}{bytes_text(growth.malloc.per_s.slope)}/s")
    return ", ".join(parts)


def route_text(route: GrowingRoute) -> str:
    """`/orders/{id} grows by 1.1 kB and 1 block a request (n=240)`."""
    left = [] if not route.bytes else [bytes_text(route.bytes)]
    left.append(f"{route.blocks:.3g} block{'' if f'{route.blocks:.3g}' == '1' else 's'}")
    return f"{route.route} grows by {' and '.join(left)} a request (n={route.samples})"


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count:,} blocks"


def headline(verdict: Verdict) -> str:
    """The verdict itself."""
    match verdict.reason:
        case "traced":
            first = verdict.sites[0]
            own = next((site.where for site in verdict.sites if site.is_own), "")
            nearest = "" if first.is_own or not own else f" (of the app's own lines {own})"
            return f"memory leak at {first.where}{nearest}"
        case "native":
            return (
                "memory leak outside Python's allocator: malloc gives it out and no line of Python "
                "explains it (memray run --native names it)"
            )
        case "untraced":
            return "memory leak, not traced"
        case "cache":
            fill = ", ".join(
                f"{cache.name} fills, {cache.entries:,} of {cache.entries_max:,}"
                for cache in verdict.caches
            )
            return f"memory growth levels off: {fill}"
        case "garbage":
            return (
                f"memory growth levels off: it is garbage, a collection freed {verdict.bytes:,} "
                "blocks"
            )
        case "ended":
            return "memory growth levels off: what grew has ended or slowed down"
        case "pieces":
            return (
                "memory fragmentation: more is occupied while the allocators have not given out "
                f"more ({FRAGMENTATION_FIX})"
            )
        case "kept":
            return (
                f"memory fragmentation: {bytes_text(verdict.bytes)} that was given back is still "
                f"occupied ({FRAGMENTATION_FIX})"
            )
        case reason:
            assert_never(reason)


def verdict_text(verdict: Verdict) -> str:
    """The verdict with its evidence, in one line."""
    parts = [headline(verdict)]
    if verdict.growth is not None:
        parts.append(growth_text(verdict.growth))
    if verdict.left_s is not None:
        parts.append(f"the tightest limit is reached in {seconds_text(verdict.left_s)}")
    if verdict.sites:
        parts.append(
            "allocated and kept: "
            + ", ".join(
                f"{site.where} {bytes_text(site.bytes_per_s)}/s ({_blocks(site.count)})"
                for site in verdict.sites
            )
        )
    if verdict.types:
        parts.append(
            "objects: " + ", ".join(f"{kind.name} +{kind.more:,}" for kind in verdict.types)
        )
    if verdict.by_route:
        parts.append(", ".join(route_text(route) for route in verdict.by_route))
    return "; ".join(parts)


def growth_picture(growth: Growth) -> dict[str, Any]:
    """JSON-able; intervals as lists, infinities as None."""
    return {
        "span_s": round(growth.span_s, 3),
        "suspect_share_in_use": growth.is_in_use_growing,
        "occupied_bytes_per_s": _series(growth.occupied),
        "malloc_bytes_per_s": None if growth.malloc is None else _series(growth.malloc),
        "blocks_per_s": _series(growth.blocks),
        "requests_per_s": None
        if growth.requests_per_s is None
        else round(growth.requests_per_s, 3),
    }


def _series(series: Series) -> dict[str, Any]:
    of_request = series.per_request
    return {
        "slope": round(series.per_s.slope, 3),
        "interval": [_finite(series.per_s.low), _finite(series.per_s.high)],
        "per_request": None if of_request is None else round(of_request.slope, 3),
        "shape": series.shape,
    }


def _finite(value: float) -> float | None:
    return round(value, 3) if abs(value) < float("inf") else None


def verdict_picture(verdict: Verdict) -> dict[str, Any]:
    """JSON-able: the verdict, its sentence and all its evidence."""
    return {
        "kind": verdict.kind,
        "reason": verdict.reason,
        "text": verdict_text(verdict),
        "growth": None if verdict.growth is None else growth_picture(verdict.growth),
        "left_s": None if verdict.left_s is None else round(verdict.left_s, 1),
        "sites": [
            {
                "where": site.where,
                "bytes_per_s": round(site.bytes_per_s, 1),
                "bytes": site.bytes,
                "count": site.count,
            }
            for site in verdict.sites
        ],
        "caches": [
            {"name": cache.name, "entries": cache.entries, "entries_max": cache.entries_max}
            for cache in verdict.caches
        ],
        "types": {kind.name: kind.more for kind in verdict.types},
        "routes": [
            {
                "route": route.route,
                "samples": route.samples,
                "bytes": None if route.bytes is None else round(route.bytes, 1),
                "blocks": round(route.blocks, 3),
            }
            for route in verdict.by_route
        ],
    }
