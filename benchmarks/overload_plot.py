"""Goodput and p99 over time as one SVG: by hand, so that a benchmark needs no plotting library."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, log10
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 760
HEIGHT: Final = 240  # of each panel
LEFT: Final = 60
TOP: Final = 34
BETWEEN: Final = 56
COLOURS: Final = {True: "#0a7d55", False: "#c2410c"}


@dataclass(frozen=True, slots=True)
class Series:
    """One run, second by second; p99 in seconds, nan where nothing was answered."""

    name: str
    goodput: Sequence[float]
    p99_s: Sequence[float]
    is_ours: bool


def plot(title: str, series: Sequence[Series], *, overload_s: int) -> str:
    """Two panels: answers per second, and the p99 of them on a logarithmic scale."""
    seconds = max(len(one.goodput) for one in series)
    goodput_max = max(max(one.goodput) for one in series) * 1.1 or 1.0
    step = (WIDTH - LEFT - 20) / max(1, seconds - 1)
    second_top = TOP + HEIGHT + BETWEEN
    box = f"0 0 {WIDTH} {second_top + HEIGHT + 40}"
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" '
            'font-family="system-ui, sans-serif" font-size="12" role="img">'
        ),
        f"<title>{title}: ten times more than the server can do, for {overload_s} s</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for top, name in ((TOP, "good answers per second"), (second_top, "p99 of them, seconds")):
        parts.append(
            f'<rect x="{LEFT}" y="{top}" width="{step * (overload_s - 1):.1f}" height="{HEIGHT}" '
            'fill="#f5f5f4"/>'
            f'<text x="{LEFT}" y="{top - 10}" font-weight="600">{name}</text>'
            f'<path d="M{LEFT} {top}v{HEIGHT}h{WIDTH - LEFT - 20}" fill="none" stroke="#78716c"/>'
        )
    for value in (0.0, goodput_max / 1.1):
        y = TOP + HEIGHT * (1 - value / goodput_max)
        parts.append(f'<text x="{LEFT - 8}" y="{y:.1f}" text-anchor="end">{value:.0f}</text>')
    for exponent in (-2, -1, 0):
        y = _y_of(10.0**exponent, second_top)
        parts.append(
            f'<text x="{LEFT - 8}" y="{y:.1f}" text-anchor="end">{10.0**exponent:g}</text>'
            f'<path d="M{LEFT} {y:.1f}h{WIDTH - LEFT - 20}" stroke="#e7e5e4"/>'
        )
    for index, one in enumerate(series):
        colour = COLOURS[one.is_ours]
        points = " ".join(
            f"{LEFT + i * step:.1f},{TOP + HEIGHT * (1 - value / goodput_max):.1f}"
            for i, value in enumerate(one.goodput)
        )
        parts.append(_line(points, colour))
        points = " ".join(
            f"{LEFT + i * step:.1f},{_y_of(value, second_top):.1f}"
            for i, value in enumerate(one.p99_s) if not isnan(value)
        )  # fmt: skip
        parts.append(_line(points, colour))
        parts.append(
            f'<text x="{WIDTH - 20}" y="{16 + 16 * index}" text-anchor="end" fill="{colour}">'
            f"{one.name}</text>"
        )
    parts.append(
        f'<text x="{LEFT}" y="{second_top + HEIGHT + 20}">0 s</text>'
        f'<text x="{LEFT + step * (overload_s - 1):.1f}" y="{second_top + HEIGHT + 20}" '
        f'text-anchor="middle">{overload_s} s: back to half of the capacity</text></svg>'
    )
    return "\n".join(parts) + "\n"


def _y_of(seconds: float, top: int) -> float:
    """From 3 s at the top down to 5 ms."""
    share = (log10(max(seconds, 0.005)) - log10(0.005)) / (log10(3.0) - log10(0.005))
    return top + HEIGHT * (1 - min(1.0, share))


def _line(points: str, colour: str) -> str:
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
