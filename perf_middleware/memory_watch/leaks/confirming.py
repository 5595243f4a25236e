"""Does what grew steadily still grow, now that nobody looks?

    window            tracing   looks
    o   o   o   o   o ~~~~~~~~~ o o o o    a leak: the same slope, but for the load
    |early half|

A growth whose rate falls may look steady in the shortest time that is judged: with the seconds
after it, there is enough to see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from perf_middleware.memory_watch.leaks.growth import is_coarse, rate_falls
from perf_middleware.memory_watch.leaks.robust_trend import robust_trend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.memory_watch.leaks.growth import Growth
    from perf_middleware.memory_watch.leaks.history import Trough

Figure: TypeAlias = "Callable[[Trough], float | None]"  # of a point

CONFIRMED_SHARE_MIN: Final = 0.7  # of the rate, after the tracing
US_PER_S: Final = 1_000_000


def load_share(growth: Growth, points: Sequence[Trough]) -> float:
    """The requests a second in `points`, of those while it grew; at most 1, and 1 if unknown."""
    first, last = points[0], points[-1]
    passed_s = (last.at_us - first.at_us) / US_PER_S
    if first.requests is None or last.requests is None or not growth.requests_per_s or not passed_s:
        return 1.0
    return min(1.0, (last.requests - first.requests) / passed_s / growth.requests_per_s)


def goes_on(growth: Growth, before: Sequence[Trough], points: Sequence[Trough]) -> bool:
    """Whether what grew steadily `before`, in the points of `growth`, still does in `points`.

    At this load.  A rate that falls all the time is no such growth.
    """
    share = load_share(growth, points) * CONFIRMED_SHARE_MIN
    seconds = [_second(point) for point in points]
    for series, figure in ((growth.blocks, _blocks), (growth.malloc, _malloc)):
        ys = [y for point in points if (y := figure(point)) is not None]
        if series is None or series.shape != "steady" or len(ys) != len(points):
            continue
        if figure is _malloc and growth.blocks.shape == "steady" and is_coarse(ys):
            continue  # the slope of a few stairs is anything: blocks, read at each look, decide
        trend = robust_trend(seconds, ys)
        if trend is None or trend.slope <= 0 or trend.slope < series.per_s.slope * share:
            continue
        # What slows down over time alone is a load that falls, and over requests alone one that
        # rises: growth that levels off does over both.
        if not (
            _slows(figure, _second, before, points, share)
            and _slows(figure, _requests, before, points, CONFIRMED_SHARE_MIN)
        ):
            return True
    return False


def _slows(
    figure: Figure,
    axis: Figure,
    before: Sequence[Trough],
    points: Sequence[Trough],
    share: float,
) -> bool:
    """Whether the slope falls, to less than `share` of what it was in the early half of `before`.

    True where nobody counts the requests.
    """
    then, now = _course(figure, axis, before), _course(figure, axis, points)
    if not then or not now:
        return True
    early = robust_trend(*zip(*then[: len(then) // 2 + 1], strict=True))
    late = robust_trend(*zip(*now, strict=True))
    if early is None or late is None or late.slope >= early.slope * share or _step(now) <= 0:
        return False
    # The points of a level are wider apart than looks, of which each alone is no rate.
    stride = max(1, round(_step(then) / _step(now)))
    return rate_falls(then, now[::stride])


def _course(figure: Figure, axis: Figure, points: Sequence[Trough]) -> list[tuple[float, float]]:
    return [
        (x, y)
        for point in points
        if (x := axis(point)) is not None and (y := figure(point)) is not None
    ]


def _step(course: Sequence[tuple[float, float]]) -> float:
    return (course[-1][0] - course[0][0]) / (len(course) - 1)


def _second(point: Trough) -> float:
    return point.at_us / US_PER_S


def _requests(point: Trough) -> float | None:
    return point.requests


def _blocks(point: Trough) -> float:
    return point.blocks


def _malloc(point: Trough) -> float | None:
    return point.malloc_bytes
