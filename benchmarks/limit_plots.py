"""Limits over time as an SVG, written by hand: one small plot for each scenario."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS: Final = 2
WIDTH, HEIGHT = 430, 170  # of one plot, with its margins
LEFT, TOP, RIGHT, BOTTOM = 38, 30, 12, 22
COLOURS: Final = ("#1f6feb", "#d1730f")
GREY: Final = "#6e7781"
FONT: Final = 'font-family="system-ui, sans-serif" font-size="11" fill="#24292f"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Lines of (seconds, limit), which hold until the next; `level` is drawn dashed, across."""

    title: str
    seconds: int
    level: float
    lines: dict[str, list[tuple[float, float]]]


def drawn(plots: Sequence[Plot]) -> str:
    """The whole picture; a white ground, so that it reads on any page."""
    rows = -(-len(plots) // COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_legend(list(plots[0].lines) if plots else []),
    ]
    for number, plot in enumerate(plots):
        row, column = divmod(number, COLUMNS)
        parts += [f'<g transform="translate({column * WIDTH} {row * HEIGHT + 26})">']
        parts += [*_drawn(plot), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _legend(names: Sequence[str]) -> list[str]:
    entries = [*zip(names, COLOURS, strict=False), ("best fixed limit", GREY)]
    parts, left = [], LEFT
    for name, colour in entries:
        dash = ' stroke-dasharray="4 3"' if colour == GREY else ""
        parts += [
            f'<path d="M{left} 16h22" stroke="{colour}" stroke-width="2"{dash}/>',
            f'<text x="{left + 28}" y="20">{escape(name)}</text>',
        ]
        left += 60 + 7 * len(name)
    return parts


def _drawn(plot: Plot) -> list[str]:
    highest = (
        max([plot.level, *(limit for line in plot.lines.values() for _, limit in line)]) * 1.05
    )
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(seconds: float) -> float:
        return round(LEFT + seconds / plot.seconds * wide, 1)

    def y(limit: float) -> float:
        return round(TOP + high - limit / highest * high, 1)

    parts = [
        f'<text x="{LEFT}" y="{TOP - 10}" font-weight="600">{escape(plot.title)}</text>',
        f'<path d="M{LEFT} {TOP}V{TOP + high}H{LEFT + wide}" fill="none" stroke="#8c959f"/>',
        f'<path d="M{LEFT} {y(plot.level)}H{LEFT + wide}" stroke="{GREY}" stroke-dasharray="4 3"/>',
        _text(LEFT - 5, y(plot.level) + 4, f"{plot.level:.0f}", "end"),
        _text(LEFT - 5, TOP + high + 4, "0", "end"),
        *(
            _text(x(at), TOP + high + 15, f"{at} s", "middle")
            for at in range(0, plot.seconds + 1, 10)
        ),
    ]
    for (_, line), colour in zip(plot.lines.items(), COLOURS, strict=False):
        path = f"M{x(line[0][0])} {y(line[0][1])}"
        path += "".join(f"H{x(at)}V{y(limit)}" for at, limit in line[1:])
        path += f"H{x(plot.seconds)}"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{GREY}">{escape(text)}</text>'
