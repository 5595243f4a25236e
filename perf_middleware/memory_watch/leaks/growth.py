"""Does it grow, how fast, and of what shape: the trends of one level of the history.

    steady    rises in every third of the time, the last one not much slower than the first
    slowing   has risen, and now rises clearly slower: a cache that fills, a start that ends
    flat      all else: no rise that is sure, or one step

Shapes are judged over time and, where requests are counted, over requests: a leak of a request
grows with them, whatever the load does, one of a background task with time.  It is enough to be
steady over one of them, but not while it slows down over requests: a cache that fills under a load
that rises looks steady over time.  What slows down over time alone is a load that falls.
What the allocators have given out (blocks, malloc) decides the shape, for it is exact; what the
process occupies (anonymous bytes) decides how much, for that is what runs out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from perf_middleware.memory_watch.leaks.robust_trend import Trend, robust_trend

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf_middleware.memory_watch.leaks.history import Trough

Shape: TypeAlias = Literal["flat", "steady", "slowing"]

US_PER_S: Final = 1_000_000
POINTS_MIN: Final = 6  # fewer have no thirds
# Of the slope, its lower bound: about four deviations above zero.  At two, noise that is judged
# every two seconds would look like growth once in a few minutes.
SURE_SHARE_MIN: Final = 0.5
THIRD_SHARE_MIN: Final = 0.2  # of the whole slope, in each third: else it was a step
LAST_SHARE_MIN: Final = 0.7  # of the first third's slope, in the last: else it slows down
# Of the early half's slope: slowing, where that is sure.  A leak that is taken for slowing once is
# judged again with the next point; a cache that is taken for a leak is a false alarm.
LATE_SHARE_MAX: Final = 0.85
Z_FALLING: Final = 2.58  # 99 % on both sides: a leak's rate looks as if it fell in one of 200 looks
LOAD_SHARE_MIN: Final = 0.25  # of the requests of the first third, in the last
SMALL_BLOCK_BYTES_MAX: Final = 512  # SMALL_REQUEST_THRESHOLD of CPython's obmalloc
IN_USE_SHARE_MIN: Final = 0.5  # of what is occupied more must be given out: else it is in pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One figure over a span: its trend a second, its trend a request, and its shape.

    `is_coarse`: it goes by stairs, so that its shape is a guess.
    """

    per_s: Trend
    per_request: Trend | None
    shape: Shape
    is_coarse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How the memory went on one level; `malloc` is None where the C library does not tell.

    `requests_per_s` None: nobody counts them.
    """

    level: int
    since_us: int
    until_us: int
    occupied: Series
    blocks: Series
    malloc: Series | None
    requests_per_s: float | None

    @property
    def span_s(self) -> float:
        """Time between the first point and the last."""
        return (self.until_us - self.since_us) / US_PER_S

    @property
    def amount(self) -> Series:
        """What says how much: what is occupied, or given out, whichever surely grew more.

        What is given out grows alone while it fills holes that were left before.
        """
        malloc = self.malloc
        if malloc is not None and malloc.per_s.low > max(0.0, self.occupied.per_s.low):
            return malloc
        return self.occupied

    @property
    def grown_bytes(self) -> float:
        """What surely has been added in the span: by the lower bound of the slope."""
        return max(0.0, self.amount.per_s.low) * self.span_s

    @property
    def is_in_use_growing(self) -> bool:
        """Whether what the allocators have given out grows steadily, and explains the growth."""
        enough = self.amount.per_s.low * IN_USE_SHARE_MIN
        malloc = self.malloc
        if malloc is not None and malloc.shape == "steady" and malloc.per_s.high >= enough:
            # Stairs of a reading that is dear, and so seldom made, look steady whatever is below.
            return not (malloc.is_coarse and self.blocks.shape == "slowing")
        # A block may be larger than small ones where malloc gave it: then malloc has to show it.
        return self.blocks.shape == "steady" and (
            malloc is None or _reach(self.blocks, malloc) >= enough
        )

    @property
    def is_slowing(self) -> bool:
        """Whether what grew is about to end."""
        shapes = {series.shape for series in (self.occupied, self.blocks, self.malloc) if series}
        return "slowing" in shapes and not self.is_in_use_growing


def _reach(blocks: Series, malloc: Series) -> float:
    """The most bytes a second that the blocks can be."""
    return max(0.0, blocks.per_s.high) * SMALL_BLOCK_BYTES_MAX + max(0.0, malloc.per_s.high)


def growth_of(points: Sequence[Trough], *, level: int) -> Growth:
    """The trends of the points of a level."""
    if len(points) < POINTS_MIN:
        raise ValueError(f"{POINTS_MIN} points at least: {len(points)}")
    seconds = [(point.at_us - points[0].at_us) / US_PER_S for point in points]
    counted = [point.requests for point in points if point.requests is not None]
    requests = [float(count) for count in counted] if len(counted) == len(points) else None
    mallocs = [float(p.malloc_bytes) for p in points if p.malloc_bytes is not None]
    span_s = seconds[-1] or 1.0
    return Growth(
        level=level,
        since_us=points[0].at_us,
        until_us=points[-1].at_us,
        occupied=_series(seconds, requests, [float(p.anonymous_bytes) for p in points]),
        blocks=_series(seconds, requests, [float(p.blocks) for p in points]),
        malloc=_series(seconds, requests, mallocs) if len(mallocs) == len(points) else None,
        requests_per_s=None if requests is None else (requests[-1] - requests[0]) / span_s,
    )


def _series(
    seconds: Sequence[float], requests: Sequence[float] | None, ys: Sequence[float]
) -> Series:
    per_s = robust_trend(seconds, ys) or Trend(0.0, 0.0, 0.0)
    shape = shape_of(seconds, ys, per_s)
    per_request = None
    if requests is not None:
        per_request = robust_trend(requests, ys)
        if per_request is not None and not _load_fell(requests):
            by_request = shape_of(requests, ys, per_request)
            if by_request == "slowing" or (by_request == "steady" and shape != "steady"):
                shape = by_request
            elif by_request == "flat" and shape == "slowing":
                shape = "flat"
        elif shape == "slowing":
            shape = "flat"  # with the load: nothing is said of the growth itself
    return Series(per_s=per_s, per_request=per_request, shape=shape, is_coarse=is_coarse(ys))


def _load_fell(requests: Sequence[float]) -> bool:
    third = len(requests) // 3
    first, last = requests[third] - requests[0], requests[-1] - requests[-1 - third]
    return last < first * LOAD_SHARE_MIN


def shape_of(xs: Sequence[float], ys: Sequence[float], whole: Trend) -> Shape:
    """The shape of one series whose trend is `whole`."""
    if not whole.is_rising:
        return "flat"
    half, third = len(xs) // 2, len(xs) // 3
    early = robust_trend(xs[: half + 1], ys[: half + 1])
    late = robust_trend(xs[half:], ys[half:])
    if early is None or late is None:
        return "flat"
    if (
        early.is_rising
        and late.slope < early.slope * LATE_SHARE_MAX
        and (late.high < early.low or rate_falls(zip(xs, ys, strict=True)))
    ):
        return "slowing"
    parts = [
        robust_trend(xs[start : start + third + 1], ys[start : start + third + 1])
        for start in (0, third, len(xs) - third - 1)
    ]
    first, last = parts[0], parts[-1]
    if first is None or last is None:
        return "flat"
    if any(part is None or part.slope < whole.slope * THIRD_SHARE_MIN for part in parts):
        slowed = first.slope > whole.slope and last.slope < whole.slope * THIRD_SHARE_MIN
        return "slowing" if slowed and early.is_rising else "flat"
    if last.slope < first.slope * LAST_SHARE_MIN:
        return "slowing"
    return "steady" if whole.low >= whole.slope * SURE_SHARE_MIN else "flat"


def is_coarse(ys: Sequence[float]) -> bool:
    """Whether a figure stands still, to the byte, between two points and moves between others.

    It was not read for each of them, or grows by leaps.
    """
    return len(ys) > len(set(ys)) > 1 and any(before == after for before, after in pairwise(ys))


def rate_falls(*courses: Iterable[tuple[float, float]]) -> bool:
    """Whether the slope from one point (x, y) to the next surely becomes less and less.

    Between two courses nothing is compared but their slopes.  Halves of a smooth curve cannot tell
    it: the slope changes within each of them as well, so that the interval of the early one
    reaches down to where that of the late one begins.
    """
    middles, rates = [], []
    for course in courses:
        for (x, y), (next_x, next_y) in pairwise(course):
            if next_x > x:
                middles.append((x + next_x) / 2)
                rates.append((next_y - y) / (next_x - x))
    trend = robust_trend(middles, rates, z=Z_FALLING)
    return trend is not None and trend.high < 0
