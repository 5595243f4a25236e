"""What a limit does to an app, without an app: each estimator beside the best fixed limit.

Simulated (`simulated_requests`): no clock, no server, the same figures in every run.
"""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

from benchmarks.plots import BLUE, GREY, ORANGE, Line, Panel, even_axis, picture, seconds_axis
from benchmarks.simulated_requests import (
    MS,
    Phase,
    Run,
    S,
    Scenario,
    exponential_us,
    fixed_us,
    lognormal_us,
    mix_us,
    simulated,
)
from perf_middleware.limits.concurrency.aimd import Aimd
from perf_middleware.limits.concurrency.estimate import Estimator, Fixed
from perf_middleware.limits.concurrency.gradient import Gradient

if TYPE_CHECKING:
    from collections.abc import Sequence


# --- scenarios ----------------------------------------------------------------------------------


def overloaded(at_s: float = 0, *, rate_per_s: float = 2_000, **kinds: float) -> Phase:
    """A pool of 50 with twice what it can do, where 50 ms are its work."""
    return Phase(at_us=int(at_s * S), rate_per_s=rate_per_s, **{"servers": 50.0, **kinds})


def drifting() -> tuple[Phase, ...]:
    """From 10 s to 30 s it becomes three times slower, for good."""
    return tuple(overloaded(at, speed=1 / (1 + min(max(at - 10, 0) / 10, 2))) for at in range(31))


POOL_LIMITS = (20, 50, 60, 80, 120)
ANY = exponential_us(50 * MS)

SCENARIOS: Final = (
    Scenario(
        name="pool of 50, even",
        phases=(overloaded(),),
        work=fixed_us(50 * MS),
        unloaded_us=50 * MS,
        limits=POOL_LIMITS,
    ),
    Scenario(
        name="pool of 50",
        phases=(overloaded(),),
        work=ANY,
        unloaded_us=50 * MS,
        limits=POOL_LIMITS,
    ),
    Scenario(
        name="pool of 50, long tail",
        phases=(overloaded(),),
        work=lognormal_us(50 * MS, 1.0),
        unloaded_us=50 * MS,
        limits=POOL_LIMITS,
    ),
    Scenario(
        name="threads and GIL",
        phases=(Phase(rate_per_s=400, servers=40, cores=1),),
        work=exponential_us(5 * MS),
        unloaded_us=5 * MS,
        limits=(1, 2, 4, 10, 40),
    ),
    Scenario(
        name="sleeps only",
        phases=(Phase(rate_per_s=2_000),),
        work=fixed_us(200 * MS),
        unloaded_us=200 * MS,
        limits=(20, 100, 200),
    ),
    Scenario(
        name="holds the loop",
        phases=(Phase(rate_per_s=180),),
        work=exponential_us(5 * MS),
        unloaded_us=5 * MS,
        limits=(1, 20),
        on_loop=True,
    ),
    Scenario(
        name="mixed routes",
        phases=(overloaded(rate_per_s=800, servers=20),),
        work=mix_us((0.9, exponential_us(1 * MS)), (0.1, exponential_us(500 * MS))),
        unloaded_us=51 * MS,
        limits=(10, 20, 25, 30, 40),
        seconds=60,
    ),
    Scenario(
        name="step load",
        phases=(overloaded(rate_per_s=600), overloaded(15), overloaded(30, rate_per_s=600)),
        work=ANY,
        unloaded_us=50 * MS,
        limits=POOL_LIMITS,
        settles_us=15 * S,
    ),
    Scenario(
        name="low traffic, burst",
        phases=(overloaded(rate_per_s=30), overloaded(20)),
        work=ANY,
        unloaded_us=50 * MS,
        limits=POOL_LIMITS,
        settles_us=20 * S,
    ),
    Scenario(
        name="five times slower for 15 s",
        phases=(overloaded(), overloaded(10, speed=0.2), overloaded(25)),
        work=ANY,
        unloaded_us=50 * MS,
        limits=POOL_LIMITS,
        seconds=50,
        settles_us=25 * S,
    ),
    Scenario(
        name="three times slower for good",
        phases=drifting(),
        work=ANY,
        unloaded_us=50 * MS,
        limits=POOL_LIMITS,
        seconds=60,
        settles_us=30 * S,
    ),
    Scenario(
        name="stands still for 3 s",
        phases=(overloaded(), overloaded(15, speed=0), overloaded(18)),
        work=ANY,
        unloaded_us=50 * MS,
        limits=POOL_LIMITS,
        settles_us=18 * S,
    ),
    Scenario(
        name="capacity doubles",
        phases=(overloaded(rate_per_s=3_000), overloaded(20, rate_per_s=3_000, servers=100)),
        work=ANY,
        unloaded_us=50 * MS,
        limits=(50, 75, 100, 110, 130),
        settles_us=20 * S,
    ),
    Scenario(
        name="refuses above 40",
        phases=(Phase(rate_per_s=1_500, refuse_above=40),),
        work=ANY,
        unloaded_us=50 * MS,
        limits=(20, 30, 40, 60),
    ),
)


def scenario_named(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


# --- figures ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row.  `settled_s` is counted from where the scenario last changed.

    Of the last third are the latencies (from permit to answer), the median `limit`, and `spread`,
    the distance of the limit's quartiles divided by their median.
    """

    name: str
    goodput_per_s: float
    p50_ms: float
    p99_ms: float
    limit: float
    spread: float
    settled_s: float
    limit_lowest: int
    limit_highest: int


def goodput_per_s(scenario: Scenario, run: Run, start_us: float = 0, end_us: float = inf) -> float:
    """Answers in time, in each second from `start_us` to `end_us`."""
    end_us = min(end_us, scenario.seconds * S)
    good = sum(
        1
        for at, _, whole in run.answered
        if start_us <= at < end_us and whole <= scenario.timeout_us
    )
    return good / (end_us - start_us) * S


def limits_at(scenario: Scenario, run: Run, step_us: int = 100 * MS) -> list[int]:
    """The limit at each `step_us`."""
    changes = deque(run.limits)
    limit, limits = changes[0][1], []
    for at in range(0, scenario.seconds * S, step_us):
        while changes and changes[0][0] <= at:
            limit = changes.popleft()[1]
        limits.append(limit)
    return limits


def settled_s(scenario: Scenario, run: Run) -> float:
    """Seconds until the limit first is within a quarter of what it is in the last third."""
    limits = limits_at(scenario, run)
    last = median(limits[-len(limits) // 3 :])
    start = scenario.settles_us // (100 * MS)
    near = max(last / 4, 2)
    for index, limit in enumerate(limits[start:]):
        if abs(limit - last) <= near:
            return index / 10
    return inf


def result(scenario: Scenario, run: Run, name: str) -> Result:
    late_us = scenario.seconds * S * 2 // 3
    latencies = sorted(latency for at, latency, _ in run.answered if at >= late_us)
    limits = limits_at(scenario, run)
    last = limits[-len(limits) // 3 :]
    low, middle, high = quantiles(last, n=4)
    return Result(
        name=name,
        goodput_per_s=goodput_per_s(scenario, run),
        p50_ms=latencies[len(latencies) // 2] / MS,
        p99_ms=latencies[int(len(latencies) * 0.99)] / MS,
        limit=middle,
        spread=(high - low) / middle,
        settled_s=settled_s(scenario, run),
        limit_lowest=min(limits),
        limit_highest=max(limits),
    )


def estimators(scenario: Scenario) -> dict[str, Estimator[Any]]:
    """Those compared.  AIMD is told what is too slow; the gradient is told nothing."""
    return {"gradient": Gradient(), "aimd": Aimd(latency_us_max=3 * scenario.unloaded_us)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`best` is the fixed limit with the most answers in time, and of those within 1 % the lowest
    p99: nobody knows it before."""

    scenario: Scenario
    best: Result
    results: dict[str, Result]
    runs: dict[str, Run]


def compared(scenario: Scenario) -> Comparison:
    fixed = [
        result(scenario, simulated(scenario, Fixed(limit=limit)), f"fixed {limit}")
        for limit in scenario.limits
    ]
    most = max(row.goodput_per_s for row in fixed)
    best = min(
        (row for row in fixed if row.goodput_per_s >= most * 0.99), key=lambda row: row.p99_ms
    )
    runs = {name: simulated(scenario, one) for name, one in estimators(scenario).items()}
    results = {name: result(scenario, run, name) for name, run in runs.items()}
    return Comparison(scenario=scenario, best=best, results=results, runs=runs)


HEAD: Final = (
    "| scenario | limit by | limit | in time/s | of best | p99 ms | of best | settles s | spread |",
    "|---|---|---|---|---|---|---|---|---|",
)


def told(comparison: Comparison) -> list[str]:
    best = comparison.best
    first = f"| {comparison.scenario.name} | best fixed | {best.limit:.0f} "
    lines = [f"{first}| {best.goodput_per_s:.0f} | | {best.p99_ms:.0f} | | | |"]
    for name, row in comparison.results.items():
        lines.append(
            f"| | {name} | {row.limit:.0f} | {row.goodput_per_s:.0f} "
            f"| {row.goodput_per_s / best.goodput_per_s:.0%} | {row.p99_ms:.0f} "
            f"| {row.p99_ms / best.p99_ms:.1f}x | {row.settled_s:.1f} | {row.spread:.0%} |"
        )
    return lines


def plotted(comparisons: Sequence[Comparison]) -> str:
    """The limits over time, as an SVG."""
    panels = [_panel(one) for one in comparisons]
    return picture("the limits over time", panels, columns=2, width=430, height=170)


def _panel(comparison: Comparison) -> Panel:
    seconds, best = comparison.scenario.seconds, comparison.best.limit
    lines = [
        Line(
            name=name,
            points=[(at / S, float(limit)) for at, limit in run.limits],
            colour=colour,
            holds=True,
        )
        for (name, run), colour in zip(comparison.runs.items(), (BLUE, ORANGE), strict=True)
    ]
    level = [(0.0, best), (float(seconds), best)]
    lines.append(Line(name="best fixed limit", points=level, colour=GREY, dashed=True))
    highest = max(value for line in lines for _, value in line.points)
    return Panel(
        title=comparison.scenario.name,
        x=seconds_axis(seconds, 10),
        y=even_axis(highest),
        lines=lines,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scenario", action="append", help="only these")
    parser.add_argument("--svg", type=Path, help="write a plot of the limits over time there")
    options = parser.parse_args(arguments)
    names = options.scenario or [scenario.name for scenario in SCENARIOS]
    comparisons = [compared(scenario_named(name)) for name in names]
    print("\n".join([*HEAD, *(line for one in comparisons for line in told(one))]))
    if options.svg:
        options.svg.write_text(plotted(comparisons), encoding="utf-8")


if __name__ == "__main__":
    main()
