"""When to look next: seldom while nothing moves, often where memory runs towards a bound.

    used                                          . limit or the next step
        |                                  . '
        |                       x x x x x           the time left until it is reached, half of it
        |             x     x                       at a time: the steps get shorter
        |  x       x
        +---------------------------------------> time

What grows is what shortens the way to a limit: use, or others that push it down (the system's).
Growth is the newest rate, or half of what was believed before where that is more: a pause between
two requests is not the end of it.  A look costs something too, so the next one waits for LOOKS_PART
times what the last took: the watch stays below a hundredth of one processor, however fast memory
grows, unless `interval_us` itself asks for more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.memory_watch.ladder import Ladder
    from perf_middleware.memory_watch.reading import Bound, MemorySample

SHORTEST_US: Final = 50_000
LOOKS_PART: Final = 100
_Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes per second by which each bound comes nearer, as far as it is known; 0 while none does.

    `left_bytes` is what was left of it.
    """

    at_us: int = 0
    left_bytes: Mapping[_Key, int] = field(default_factory=dict)
    bytes_per_s: Mapping[_Key, float] = field(default_factory=dict)


def growth_after(growth: Growth, sample: MemorySample) -> Growth:
    """What is believed after one more look."""
    passed_us = sample.at_us - growth.at_us
    left: dict[_Key, int] = {}
    rates: dict[_Key, float] = {}
    for bound in sample.bounds:
        key = (bound.name, bound.where)
        left[key] = bound.limit_bytes - bound.used_bytes
        before = growth.left_bytes.get(key)
        if before is None or passed_us <= 0:
            continue
        newest = (before - left[key]) * 1e6 / passed_us
        rates[key] = max(newest, growth.bytes_per_s.get(key, 0.0) / 2, 0.0)
    return Growth(sample.at_us, left, rates)


def wait_us(
    growth: Growth, sample: MemorySample, *, ladder: Ladder, interval_us: int, look_us: int
) -> int:
    """How long to wait until the next look; `look_us` is what the last one took of a processor."""
    left_s = min((_left_s(bound, growth, ladder) for bound in sample.bounds), default=float("inf"))
    shortest_us = max(SHORTEST_US, LOOKS_PART * look_us)
    if left_s * 1e6 >= 2 * interval_us:
        return interval_us
    return min(interval_us, max(shortest_us, int(left_s * 1e6 / 2)))


def _left_s(bound: Bound, growth: Growth, ladder: Ladder) -> float:
    """Seconds until the next step or the limit is reached; inf where nothing grows."""
    rate = growth.bytes_per_s.get((bound.name, bound.where), 0.0)
    if rate <= 0:
        return float("inf")
    share = bound.share
    next_share = min((at for at in (*ladder.shares, 1.0) if at > share), default=share)
    return (next_share - share) * bound.limit_bytes / rate
