"""Ten times more than a server can do, for half a minute: what still gets through, and how soon.

For each app of overload_apps.py, with the bundle (`backpressure.enabled`) and without, on uvicorn
in a process of its own:

    peak        a closed loop finds the most answers per second
    unloaded    a tenth of that: what an answer takes when nobody is in the way
    at limit    nine tenths of it, open model
    overload    ten times the peak, open model, for 30 s; clients give up after 2 s
    recovery    half of the peak, at once behind it, second by second

Goodput is answers with status 200 per second that a client was still there for.

    python -m benchmarks.overload --svg docs/images
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from benchmarks.open_load import GAVE_UP, Phase, Sent, capacity_per_s, run
from benchmarks.overload_apps import KINDS, POOL
from benchmarks.plots import GREEN, ORANGE, Axis, Line, Panel, even_axis, picture, seconds_axis
from benchmarks.runner import CheckError, on_loop, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).parents[1]
OK: Final = 200
OVERLOAD: Final = 10.0  # times the peak
PATIENCE_S: Final = 2.0
RECOVERED_SHARE: Final = 0.99  # of a second's requests that must be answered well
WORKERS: Final = {"cpu": 4, "threads": 4, "pool": 2 * POOL}  # of the closed loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one app reached; times in seconds, rates per second."""

    app: str
    bundle: bool
    peak_per_s: float
    unloaded_p99_s: float
    limit_p99_s: float
    goodput_per_s: float
    admitted_p50_s: float
    admitted_p99_s: float
    shed: int
    gave_up: int
    recovered_after_s: float | None
    rss_before: int
    rss_after: int
    goodput_each_s: tuple[float, ...] = field(repr=False)
    p99_each_s: tuple[float, ...] = field(repr=False)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not pass; nan of none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def each_second(sent: Sequence[Sent], seconds: int) -> list[list[Sent]]:
    """By the second in which each was due."""
    found: list[list[Sent]] = [[] for _ in range(seconds)]
    for one in sent:
        found[min(int(one.due_s), seconds - 1)].append(one)
    return found


def good(sent: Sequence[Sent]) -> list[float]:
    return [one.took_s for one in sent if one.status == OK]


async def measured(kind: str, port: int, process: psutil.Process, plan: Plan) -> Result:
    path = f"/{kind}"
    peak = await capacity_per_s(port, path, workers=WORKERS[kind], seconds=plan.peak_s)
    unloaded = await run(port, Phase(rate_per_s=peak / 10, seconds=plan.calm_s, path=path))
    at_limit = await run(port, Phase(rate_per_s=peak * 0.9, seconds=plan.calm_s, path=path))
    rss_before = process.memory_info().rss
    seconds = plan.overload_s
    overload = await run(
        port, Phase(rate_per_s=peak * OVERLOAD, seconds=seconds, path=path), patience_s=PATIENCE_S
    )
    rss_after = process.memory_info().rss
    recovery = await run(
        port, Phase(rate_per_s=peak / 2, seconds=plan.recovery_s, path=path), patience_s=PATIENCE_S
    )
    per_second = each_second(overload, seconds) + each_second(recovery, plan.recovery_s)
    behind = per_second[seconds:]
    unwell = [i for i, sent in enumerate(behind)
              if len(good(sent)) < RECOVERED_SHARE * len(sent)]  # fmt: skip
    after_s: float | None = float(unwell[-1] + 1) if unwell else 0.0
    if unwell and unwell[-1] == len(behind) - 1:
        after_s = None
    return Result(
        app=kind,
        bundle=plan.bundle,
        peak_per_s=peak,
        unloaded_p99_s=percentile(good(unloaded), 0.99),
        limit_p99_s=percentile(good(at_limit), 0.99),
        goodput_per_s=len(good(overload)) / seconds,
        admitted_p50_s=percentile(good(overload), 0.5),
        admitted_p99_s=percentile(good(overload), 0.99),
        shed=sum(one.status not in (OK, GAVE_UP) for one in overload),
        gave_up=sum(one.status == GAVE_UP for one in overload),
        recovered_after_s=after_s,
        rss_before=rss_before,
        rss_after=rss_after,
        goodput_each_s=tuple(float(len(good(sent))) for sent in per_second),
        p99_each_s=tuple(percentile(good(sent), 0.99) for sent in per_second),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long each phase lasts, whole seconds."""

    bundle: bool
    peak_s: int = 5
    calm_s: int = 10
    overload_s: int = 30
    recovery_s: int = 10


@contextmanager
def serving(name: str) -> Iterator[tuple[int, psutil.Process]]:
    command = [sys.executable, "-m", "benchmarks.overload_apps", name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line.strip().isdigit():
                raise CheckError(f"the server did not start: it said {line!r}")
            yield int(line), psutil.Process(server.pid)
        finally:
            server.kill()


def told(results: Sequence[Result]) -> str:
    lines = [
        (
            "| app | bundle | peak/s | goodput at 10x | of peak | p99 unloaded | p99 at the limit "
            "| p50, p99 of admitted | recovered after | RSS |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in results:
        after = "not in time" if one.recovered_after_s is None else f"{one.recovered_after_s:.0f} s"
        grown = (one.rss_after - one.rss_before) / 2**20
        lines.append(
            f"| {one.app} | {'on' if one.bundle else 'off'} | {one.peak_per_s:.0f} "
            f"| {one.goodput_per_s:.0f} | {one.goodput_per_s / one.peak_per_s:.2f} "
            f"| {one.unloaded_p99_s * 1e3:.0f} ms | {one.limit_p99_s * 1e3:.0f} ms "
            f"| {one.admitted_p50_s * 1e3:.0f}, {one.admitted_p99_s * 1e3:.0f} ms | {after} "
            f"| {grown:+.1f} MiB |"
        )
    return "\n".join(lines)


def plotted(kind: str, results: Sequence[Result], *, overload_s: int) -> str:
    """Good answers per second, and the p99 of them on a logarithmic scale, as an SVG."""
    seconds = max(len(one.goodput_each_s) for one in results)
    highest = max(value for one in results for value in one.goodput_each_s)
    tenths = [(0.01, "0.01"), (0.1, "0.1"), (1.0, "1")]
    shown = (
        ("good answers per second", even_axis(highest), "goodput_each_s"),
        (
            "p99 of them, seconds",
            Axis(low=0.005, high=3.0, ticks=tenths, logarithmic=True),
            "p99_each_s",
        ),
    )
    panels = [
        Panel(
            title=title,
            x=seconds_axis(seconds, 10),
            y=scale,
            lines=[
                Line(
                    name="with the bundle" if one.bundle else "without",
                    points=[(float(at), value) for at, value in enumerate(getattr(one, figures))],
                    colour=GREEN if one.bundle else ORANGE,
                )
                for one in results
            ],
            shaded_until=float(overload_s),
        )
        for title, scale, figures in shown
    ]
    return picture(f"{kind}: ten times more than the server can do, for {overload_s} s", panels)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--apps", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--bundle", choices=("on", "off", "both"), default="both")
    parser.add_argument("--seconds", type=int, default=30, help="of overload")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path, help="a folder for the plots")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    for kind in options.apps:
        for bundle in (True, False):
            if options.bundle == ("off" if bundle else "on"):
                continue
            plan = Plan(bundle=bundle, overload_s=options.seconds)
            with serving("ours" if bundle else "bare") as (port, process):
                results.append(on_loop("uvloop", measured(kind, port, process, plan)))
            print(told(results[-1:]).splitlines()[-1], flush=True)
    print(told(results))
    if options.json:
        write_json(options.json, results)
    if options.svg:
        for kind in options.apps:
            of_kind = [one for one in results if one.app == kind]
            shown = plotted(kind, of_kind, overload_s=options.seconds)
            (options.svg / f"overload-{kind}.svg").write_text(shown, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
