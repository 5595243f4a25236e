"""Pictures as SVG, written by hand, so that a benchmark needs no plotting library.

bars      one bar for each row of a table, with its quartiles
picture   panels of lines side by side, over time or over anything that grows
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import floor, isnan, log10
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.figures import Spread

GREEN: Final = "#0a7d55"
ORANGE: Final = "#c2410c"
BLUE: Final = "#1f6feb"
GREY: Final = "#6e7781"
AXIS: Final = "#8c959f"
TEXT: Final = "#24292f"
LEFT, TOP, RIGHT, BOTTOM = 52, 30, 14, 24  # margins of a panel
BAR: Final = 22  # height of a row of bars
LETTER: Final = 6.6  # width of one, in the mean
BARS: Final = 400  # of the longest bar
FIGURES: Final = 70  # of the figures behind them


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row; without `quartiles` it has no whisker."""

    name: str
    value: float
    quartiles: Spread | None = None
    colour: str = GREY


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From `low` to `high`; on a logarithmic one both are positive.  What is outside is at its end.

    `ticks` are where a number stands, and what stands there.
    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where `value` is between the ends, from 0 to 1."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.logarithmic:
            low, high, value = log10(low), log10(high), log10(value)
        return (value - low) / (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points in the order of x; a value of y that is no number is left out.

    `holds`: each value is that until the next, as a limit's is.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    holds: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """`shaded_until`: from the left to this x the ground is grey."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    shaded_until: float | None = None


def bars(title: str, rows: Sequence[Bar], *, unit: str) -> str:
    """Bars from zero, the longest as wide as there is room; one below zero has no length."""
    ends = [row.quartiles.high if row.quartiles else row.value for row in rows]
    widest = max([*ends, *(row.value for row in rows), 0.0]) or 1.0
    per_unit = BARS / widest
    names = 20 + round(LETTER * max((len(row.name) for row in rows), default=0))
    height = 40 + BAR * len(rows)
    parts = [
        *_head(names + BARS + FIGURES, height, f"{title}, {unit}"),
        _text(10, 20, f"{title}, {unit}", bold=True),
    ]
    for number, row in enumerate(rows):
        top = 32 + BAR * number
        length = max(0.0, row.value * per_unit)
        end = length
        parts.append(_text(names - 8, top + 14, row.name, anchor="end"))
        parts.append(
            f'<rect x="{names}" y="{top + 3}" width="{length:.1f}" height="{BAR - 7}" '
            f'fill="{row.colour}" fill-opacity="0.75"/>'
        )
        if row.quartiles is not None:
            edges = row.quartiles.low, row.quartiles.high
            low, high = (max(0.0, edge * per_unit) for edge in edges)
            end = max(length, high)
            middle = top + 3 + (BAR - 7) / 2
            parts.append(
                f'<path d="M{names + low:.1f} {middle:.1f}H{names + high:.1f}" stroke="{TEXT}"/>'
            )
        parts.append(_text(names + end + 6, top + 14, rounded(row.value), colour=GREY))
    return _svg(parts)


def picture(
    title: str, panels: Sequence[Panel], *, columns: int = 1, width: int = 760, height: int = 280
) -> str:
    """The panels in rows, each of this size with its margins; one legend above them all."""
    rows = -(-len(panels) // columns)
    parts = [*_head(columns * width, rows * height + 26, title), *_legend(panels)]
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        parts += [
            f'<g transform="translate({column * width} {row * height + 26})">',
            *_drawn(panel, width - LEFT - RIGHT, height - TOP - BOTTOM),
            "</g>",
        ]
    return _svg(parts)


def even_axis(high: float, unit: str = "") -> Axis:
    """From 0 to a little above `high`, with about four round numbers."""
    high = high or 1.0
    power = 10.0 ** floor(log10(high))
    step = next(size * power for size in (0.2, 0.25, 0.5, 1, 2, 2.5) if high / (size * power) <= 5)
    ticks = [(at * step, f"{at * step:g}{unit}") for at in range(int(high / step + 1e-9) + 1)]
    return Axis(low=0.0, high=high * 1.05, ticks=ticks)


def seconds_axis(seconds: int, step: int) -> Axis:
    """From 0 to `seconds`."""
    ticks = [(float(at), f"{at} s") for at in range(0, seconds + 1, step)]
    return Axis(low=0.0, high=float(seconds), ticks=ticks)


def rounded(value: float) -> str:
    """Three digits, and whole numbers above."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _drawn(panel: Panel, wide: int, high: int) -> list[str]:
    def x(value: float) -> float:
        return round(LEFT + panel.x.share(value) * wide, 1)

    def y(value: float) -> float:
        return round(TOP + high * (1 - panel.y.share(value)), 1)

    parts = []
    if panel.shaded_until is not None:
        width = x(panel.shaded_until) - LEFT
        parts.append(
            f'<rect x="{LEFT}" y="{TOP}" width="{width:.1f}" height="{high}" fill="#f3f4f6"/>'
        )
    parts.append(_text(LEFT, TOP - 10, panel.title, bold=True))
    for at, name in panel.y.ticks:
        parts.append(f'<path d="M{LEFT} {y(at)}h{wide}" stroke="#e5e7eb"/>')
        parts.append(_text(LEFT - 5, y(at) + 4, name, anchor="end", colour=GREY))
    parts += [
        _text(x(at), TOP + high + 15, name, anchor="middle", colour=GREY)
        for at, name in panel.x.ticks
    ]
    parts.append(
        f'<path d="M{LEFT} {TOP}V{TOP + high}H{LEFT + wide}" fill="none" stroke="{AXIS}"/>'
    )
    for line in panel.lines:
        points = [(x(at), y(value)) for at, value in line.points if not isnan(value)]
        if points:
            parts.append(_path(line, points, end=LEFT + wide))
    return parts


def _path(line: Line, points: Sequence[tuple[float, float]], *, end: float) -> str:
    (left, top), *others = points
    path = f"M{left} {top}"
    if line.holds:
        path += "".join(f"H{x}V{y}" for x, y in others) + f"H{end}"
    else:
        path += "".join(f"L{x} {y}" for x, y in others)
    dash = ' stroke-dasharray="4 3"' if line.dashed else ""
    return f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="1.5"{dash}/>'


def _legend(panels: Iterable[Panel]) -> list[str]:
    entries = {line.name: line for panel in panels for line in panel.lines}
    parts, left = [], LEFT
    for name, line in entries.items():
        dash = ' stroke-dasharray="4 3"' if line.dashed else ""
        parts += [
            f'<path d="M{left} 16h22" stroke="{line.colour}" stroke-width="2"{dash}/>',
            _text(left + 28, 20, name),
        ]
        left += 60 + 7 * len(name)
    return parts


def _head(width: int, height: int, title: str) -> list[str]:
    """The ground is white, so that it reads on any page."""
    return [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="12">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = TEXT, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{weight}>'
        f"{escape(text)}</text>"
    )


def _svg(parts: Sequence[str]) -> str:
    return "\n".join([*parts, "</svg>", ""])
