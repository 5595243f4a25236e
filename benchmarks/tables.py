"""The results of each benchmark as Markdown, and some as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks import assembled, eviction, response_cache
from benchmarks.plots import BLUE, GREEN, GREY, ORANGE, Bar, bars, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.compression import Coded
    from benchmarks.exposition import Row
    from benchmarks.figures import Cost, Spread
    from benchmarks.response_cache import Table
    from benchmarks.runner import Report

# How rows begin that are ours, and those that are nobody's: the app, and what is the least.
OURS: Final = (
    "install:", "MetricsMiddleware", "perf_middleware", "  ", "metrics alone", "operator endpoints",
    "rate limit alone", "compression alone", "cache alone", "memory watch", "backpressure",
)  # fmt: skip
FLOORS: Final = (
    "bare app", "no ", "pass-through", "hand-written", "FastAPI's own", "install: all off",
)  # fmt: skip


def colour(name: str) -> str:
    """Green for ours, grey for what everybody pays or nobody can avoid, orange for the others."""
    if name.startswith(FLOORS):
        return GREY
    return GREEN if name.startswith(OURS) else ORANGE


def report_table(report: Report) -> str:
    """What each row takes, what it adds, and how that is beside the first row's and the peer's."""
    extent = f"{report.rounds} rounds x {report.requests}, {report.loop}"
    peer = f" of {report.peer} |" if report.peer else ""
    lines = [
        f"**{report.title}** ({extent})",
        "",
        f"| | µs | added µs | quartiles | x {report.baseline} |{peer}",
        f"|---|--:|--:|--:|--:|{'--:|' if report.peer else ''}",
    ]
    for cost in report.costs:
        is_baseline = cost.name == report.baseline
        added = "" if is_baseline else figure(cost.added_us.median)
        around = quartiles(cost.request_us if is_baseline else cost.added_us)
        line = f"| {shown(cost.name)} | {figure(cost.request_us.median)} | {added} | {around} "
        line += f"| {'' if is_baseline else figure(cost.ratio)} |"
        if report.peer:
            share = cost.peer_share
            line += f" {'' if is_baseline or share is None else figure(share)} |"
        lines.append(line)
    return "\n".join(lines)


def hits_table(table: Table) -> str:
    """The same of a cache: what a row takes is more to the point than what it adds."""
    lines = [
        f"**{table.title}** ({table.rounds} rounds x {table.requests}, {table.loop})",
        "",
        "| | µs | quartiles | x bare app | x hand-written hit | x our hit |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for line in table.lines:
        of_ours = "" if line.of_ours is None else figure(line.of_ours)
        lines.append(
            f"| {shown(line.name)} | {figure(line.request_us.median)} "
            f"| {quartiles(line.request_us)} | {figure(line.of_bare)} "
            f"| {figure(line.of_minimum)} | {of_ours} |"
        )
    lines += ["", *(f"{name} was not installed: no row." for name in table.skipped)]
    return "\n".join(lines).rstrip()


def coded_table(coded: Coded) -> str:
    """A report, and how long each answer got."""
    told = report_table(coded.report)
    if coded.lengths:
        lengths = "; ".join(f"{name} {size:,}" for name, size in coded.lengths.items())
        told += f"\n\nBytes: {lengths}."
    return told


def scrapes_table(rows: Sequence[Row]) -> str:
    """What a scrape takes, and for how long at once nothing else ran."""
    lines = ["| | series | total ms | loop held ms | quartiles |", "|---|--:|--:|--:|--:|"]
    lines += [
        f"| {row.name} | {row.series:,} | {figure(row.total_ms.median)} "
        f"| {figure(row.held_ms.median)} | {quartiles(row.held_ms)} |"
        for row in rows
    ]
    return "\n".join(lines)


def evictions_tables(
    found: Sequence[eviction.Comparison | eviction.Speeds | eviction.Overhead],
) -> str:
    """The hit ratios of every trace, then what the operations take, then what an entry takes."""
    names = list(eviction.POLICIES)
    lines = [
        f"| share of the requests that were there | {' | '.join(names)} | Belady | ours - LRU |",
        f"|---|{'--:|' * (len(names) + 2)}",
    ]
    for one in comparisons_of(found):
        shares = " | ".join(f"{one.ratios[name].hits:.3f}" for name in names)
        bound = "" if one.bound is None else f"{one.bound:.3f}"
        lines.append(f"| {one.trace} | {shares} | {bound} | {one.lead_points:+.1f} |")
    lines += [
        "",
        f"| µs, medians | entries | {eviction.OURS} | {eviction.LRU} | x {eviction.LRU} |",
        "|---|--:|--:|--:|--:|",
    ]
    for speeds in found:
        if isinstance(speeds, eviction.Speeds):
            lru, ours = speeds.costs
            lines.append(
                f"| {speeds.operation} | {speeds.entries:,} | {ours.request_us.median:.3f} "
                f"| {lru.request_us.median:.3f} | {ours.ratio:.2f} |"
            )
    lines += [
        f"\nBytes an entry, key and value apart: {held.ours_bytes:.0f}, {eviction.LRU} "
        f"{held.lru_bytes:.0f} ({held.entries:,} entries)."
        for held in found
        if isinstance(held, eviction.Overhead)
    ]
    return "\n".join(lines)


def comparisons_of(found: Sequence[object]) -> list[eviction.Comparison]:
    return [one for one in found if isinstance(one, eviction.Comparison)]


# --- pictures -----------------------------------------------------------------------------------


def added_picture(reports: Sequence[Report]) -> str:
    """What the rows of the first report add."""
    report = reports[0]
    rows = [
        Bar(
            name=cost.name.strip(),
            value=cost.added_us.median,
            quartiles=cost.added_us,
            colour=colour(cost.name),
        )
        for cost in report.costs
        if cost.name != report.baseline
    ]
    return bars(f"Added to a request: {report.title}, {report.loop}", rows, unit="µs")


def hits_picture(tables: Sequence[Table]) -> str:
    """What the rows of the last table take that answer from a store, and the bare app."""
    table = tables[-1]
    rows = [
        Bar(
            name=line.name,
            value=line.request_us.median,
            quartiles=line.request_us,
            colour=colour(line.name),
        )
        for line in table.lines
        if line.hit or line.name in (response_cache.BARE, assembled.GZIP_ALONE)
    ]
    return bars(f"A request: {table.title}", rows, unit="µs")


def evictions_picture(found: Sequence[object]) -> str:
    """How far ahead of LRU, trace by trace."""
    rows = [
        Bar(name=one.trace, value=one.lead_points, colour=GREEN if one.lead_points > 0 else BLUE)
        for one in comparisons_of(found)
    ]
    return bars("Hits more than LRU has of the same requests", rows, unit="percentage points")


# --- words --------------------------------------------------------------------------------------


def figure(value: float) -> str:
    """Three digits or so; what is a hair below zero is zero."""
    return rounded(value if abs(value) >= 0.005 else 0.0)


def quartiles(values: Spread) -> str:
    return f"{figure(values.low)} .. {figure(values.high)}"


def shown(name: str) -> str:
    """A name in a table: what is indented in a terminal belongs to the row above."""
    return f"… {name.strip()}" if name.startswith("  ") else name


def cost_of(report: Report, name: str) -> Cost | None:
    """The row of this name, None where it was not measured."""
    return next((cost for cost in report.costs if cost.name == name), None)
