"""The metrics page: families in, chunks of the Prometheus text format 0.0.4 or OpenMetrics 1.0 out.

A page of 10,000 series takes milliseconds to build.  It leaves here in chunks of CHUNK_LINES_MAX
lines, so that the shell can let other requests run between two of them; families are read lazily,
and no more than one chunk is ever held.

    families --> clash? --> header and lines of each point --> chunk --> chunk --> # EOF
                   |
                   +--> on_dropped(name, "clash" | "failed")

Invariant: whatever the families hold, the page stays readable: a scraper refuses a page as a whole.
Sources: Prometheus exposition formats; OpenMetrics 1.0.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeAlias

from perf_middleware.families import (
    Distribution,
    Exemplar,
    Family,
    Value,
)
from perf_middleware.metrics.exposition.foreign import ForeignFamily, exemplar_text, foreign_lines
from perf_middleware.metrics.exposition.textformat import (
    TextFormat,
    bound_text,
    escape_help,
    number_text,
    timestamp_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CHUNK_LINES_MAX = 200  # about 0.1 ms of work on a slow core

CONTENT_TYPES: dict[TextFormat, bytes] = {
    "text": b"text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": b"application/openmetrics-text; version=1.0.0; charset=utf-8",
}

_SUFFIXES = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
}

Dropped: TypeAlias = Literal["clash", "failed"]
"""Why a family, or the rest of it, is missing: its name was taken, or its points raised."""


def claimed_names(name: str, kind: str) -> tuple[str, ...]:
    """Every sample and family name that a family of `kind` takes, its own first."""
    return tuple([name + suffix for suffix in _SUFFIXES[kind]])


def render(
    families: Iterable[Family | ForeignFamily],
    format: TextFormat,
    *,
    on_dropped: Callable[[str, Dropped, Exception | None], None] | None = None,
) -> Iterator[bytes]:
    """The page in chunks of at most CHUNK_LINES_MAX lines (one point is never split).

    Of two families that claim one name the first is shown.  A family whose points raise ends
    there, what it gave before stays on the page.  `on_dropped` hears of both.
    """
    taken: set[str] = set()
    lines: list[str] = []
    for family in families:
        names = (
            claimed_names(family.name, family.kind)
            if isinstance(family, Family)
            else family.claimed_names
        )
        if not taken.isdisjoint(names):
            if on_dropped is not None:
                on_dropped(family.name, "clash", None)
            continue
        taken.update(names)
        try:
            for point_lines in _groups(family, format):
                if lines and len(lines) + len(point_lines) > CHUNK_LINES_MAX:
                    yield "".join(lines).encode("utf-8", "replace")
                    lines = []
                lines += point_lines
        except Exception as exc:  # noqa: BLE001 - a family that fails must not cost the others
            if on_dropped is not None:
                on_dropped(family.name, "failed", exc)
    if format == "openmetrics":
        lines.append("# EOF\n")
    if lines:
        yield "".join(lines).encode("utf-8", "replace")


def _groups(
    family: Family | ForeignFamily,
    format: TextFormat,
) -> Iterator[list[str]]:
    """The lines of `family` in groups that stay together."""
    if not isinstance(family, Family):
        yield from foreign_lines(family, format)
        return
    yield _header(family, format)
    if family.kind == "histogram":
        yield from _histogram(family, format)
    else:
        yield from _values(family)


def _header(family: Family, format: TextFormat) -> list[str]:
    name = family.name
    if family.kind == "counter" and format == "text":
        name += "_total"  # 0.0.4 knows no family name apart from its samples
    lines = []
    if family.help:
        lines.append(f"# HELP {name} {escape_help(family.help, format)}\n")
    lines.append(f"# TYPE {name} {family.kind}\n")
    if family.unit and format == "openmetrics":
        lines.append(f"# UNIT {name} {family.unit}\n")
    return lines


def _values(family: Family) -> Iterator[list[str]]:
    name = family.name + "_total" if family.kind == "counter" else family.name
    points = iter(family.points)
    # Batches: one list and one generator step for many lines, a fifth of the time of one by one.
    while batch := list(islice(points, CHUNK_LINES_MAX // 2)):
        lines = []
        for point in batch:
            if not isinstance(point, Value):
                raise TypeError(f"{family.name} is a {family.kind}: {point!r}")
            text = point.labels.text
            if text:
                lines.append(f"{name}{{{text}}} {number_text(point.value)}\n")
            else:
                lines.append(f"{name} {number_text(point.value)}\n")
        yield lines


def _histogram(family: Family, format: TextFormat) -> Iterator[list[str]]:
    name = family.name
    tails = [f'le="{bound_text(bound)}"}} ' for bound in (*family.bounds, float("inf"))]
    # OpenMetrics forbids a sum over values that may be negative: it would not only grow.
    sum_allowed = not family.bounds or family.bounds[0] >= 0
    with_exemplars = format == "openmetrics"
    for point in family.points:
        if not isinstance(point, Distribution):
            raise TypeError(f"{name} is a histogram: {point!r}")
        text = point.labels.text
        head = f"{name}_bucket{{{text}," if text else f"{name}_bucket{{"
        pairs = zip(tails, point.cumulative, strict=True)
        if with_exemplars and point.exemplars:
            exemplars = point.exemplars
            lines = [
                f"{head}{tail}{count}{_exemplar(exemplars.get(index))}\n"
                for index, (tail, count) in enumerate(pairs)
            ]
        else:
            lines = [f"{head}{tail}{count}\n" for tail, count in pairs]
        if sum_allowed and (point.sum >= 0 or format == "text"):
            labels = f"{{{text}}}" if text else ""
            lines.append(f"{name}_count{labels} {point.cumulative[-1]}\n")
            lines.append(f"{name}_sum{labels} {number_text(point.sum)}\n")
        yield lines


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    return exemplar_text(
        (("trace_id", exemplar.trace_id),), exemplar.value, timestamp_text(exemplar.at_s)
    )
