"""docs/performance.md and the README's table, from the results of a run.

What stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` is written by this module, all
else by hand.  A test makes both pages anew from docs/performance.json and compares.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import assembled, stacks
from benchmarks.stack_peers import ASSEMBLED, INSTRUMENTATOR
from benchmarks.tables import cost_of, figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.machine import Machine
    from benchmarks.parts import Part
    from benchmarks.response_cache import Table
    from benchmarks.results import Run
    from benchmarks.runner import Report

ROOT: Final = Path(__file__).parents[1]
MARKED: Final = re.compile(r"(<!-- bench:([\w-]+) -->\n).*?(<!-- /bench:\2 -->)", re.DOTALL)
NOT_MEASURED: Final = "*Not measured in this run.*"
FORMS: Final = {
    "short": "the short form (`make bench`): a first look, its quartiles are wide",
    "full": "the full form (`make bench-full`)",
    "cut": "the full form (`make bench-full`) with fewer rounds of each table",
}


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """The page with these blocks between its marks; one that there is no block for says so."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{blocks.get(match[2], NOT_MEASURED)}\n\n{match[3]}"

    return MARKED.sub(fill, page)


def blocks_of(run: Run, parts: Sequence[Part]) -> dict[str, str]:
    """What stands between the marks, by name."""
    blocks = {"machine": machine_block(run), "readme": readme_block(run)}
    for part in parts:
        found = run.found.get(part.name)
        if found:
            picture = f"\n\n![{part.name}](images/{image_of(part)})" if part.picture else ""
            blocks[part.name] = part.markdown(found) + picture
    return blocks


def pictures_of(run: Run, parts: Sequence[Part]) -> dict[str, str]:
    """The pictures by the names of their files."""
    return {
        image_of(part): part.picture(run.found[part.name])
        for part in parts
        if part.picture is not None and run.found.get(part.name)
    }


def image_of(part: Part) -> str:
    return f"performance-{part.name}.svg"


def machine_block(run: Run) -> str:
    """On what, when and with what the run was made."""
    machine = run.machine
    minutes = sum(run.seconds.values()) / 60
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| run | {machine.date}, {FORMS[run.form]}, {minutes:.0f} minutes |",
            f"| machine | {_hardware(machine)}; {machine.memory_gib} GiB, {machine.system} |",
            f"| load as it began | {machine.load} processes that want a core |",
            f"| Python | {machine.python} |",
            f"| versions | {versions} |",
            f"| revision | {machine.revision} |",
        ]
    )


def readme_block(run: Run) -> str:
    """The few figures that the README has."""
    told = [
        (
            f"Python {run.machine.python.rpartition(' ')[2]}, {_hardware(run.machine)}; "
            f"{run.machine.date}, {FORMS[run.form]}:"
        )
    ]
    reports: Sequence[Report] = run.found.get("stacks", ())
    tables: Sequence[Table] = run.found.get("hit", ())
    told += [_added(report) for report in reports[:1]]
    told += [_hits(table) for table in tables[:1]]
    return "\n\n".join(told)


def _hardware(machine: Machine) -> str:
    return f"{machine.cpu}, {machine.cores} cores"


def _added(report: Report) -> str:
    """The stack beside its parts' peers."""
    bare = report[report.baseline].request_us.median
    peers = [cost.name for cost in report.costs[_place(report, INSTRUMENTATOR) :]]
    names = {
        stacks.MINIMUM: "the least that does the work of everything, by hand",
        stacks.DEFAULTS: "**`install`, defaults**",
        stacks.EVERYTHING: "**`install`, everything on**",
    }
    lines = [
        (
            f"| {report.title}, {report.loop}: {figure(bare)} µs | µs added | of the bare app "
            "| of the instrumentator |"
        ),
        "|---|--:|--:|--:|",
    ]
    for name in [*names, *peers]:
        cost = cost_of(report, name)
        if cost is not None:
            share = "" if cost.peer_share is None else figure(cost.peer_share)
            lines.append(
                f"| {names.get(name, name)} | {figure(cost.added_us.median)} "
                f"| {figure(cost.ratio - 1)} | {share} |"
            )
    return "\n".join(lines)


def _place(report: Report, name: str) -> int:
    return [cost.name for cost in report.costs].index(name)


def _hits(table: Table) -> str:
    """A hit for who accepts gzip."""
    names = {
        assembled.OURS: "**`install`, everything on: a hit**",
        assembled.MINIMUM: "a dict by hand in the same place: a hit",
        ASSEMBLED: f"{ASSEMBLED}: a hit",
    }
    lines = [f"| {table.title} | µs in all | of the bare app | of our hit |", "|---|--:|--:|--:|"]
    for line in table.lines:
        of_ours = "" if line.of_ours is None else figure(line.of_ours)
        lines.append(
            f"| {names.get(line.name, line.name)} | {figure(line.request_us.median)} "
            f"| {figure(line.of_bare)} | {of_ours} |"
        )
    return "\n".join(lines)
