"""Throughput and latency over real servers: bare, everything on, a hit, and what the limit is.

    wrk  ->  uvicorn, granian    bare app | everything, a miss | everything, a hit, plain and gzip
             (one worker)        the least of both that can be written by hand
                                 a raw ASGI callable that answers with the hit's own bytes
         ->  nginx               its proxy_cache, the same bytes: the limit to look at

Every server is alive all the time; short runs of wrk go to one after the other, in an order that
is drawn anew in each round.  What is compared is compared within a round.  The first hit is
recorded, and the raw callables get its bytes, headers included.

Where it can be said (Linux), the generator has one core and all servers share the others: each
server then has the same, and takes none from its load.

    python -m benchmarks.over_servers --quick     # two minutes; all: eight
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import sleep
from typing import TYPE_CHECKING, Final

from benchmarks import servers
from benchmarks.figures import Spread, spread
from benchmarks.generators import Asked, Reached, generator
from benchmarks.layers import LARGE_BYTES
from benchmarks.runner import CheckError, write_json
from benchmarks.served_apps import ANSWER_FILE, CALLS_PATH, have_peers
from benchmarks.servers import Fetched, Running, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.generators import Generator
    from benchmarks.runner import LoopName

HIT_OF_RAW_TARGET: Final = 0.85
MISS_OF_BARE_TARGET: Final = 0.9
PLAIN, GZIP = "identity", "gzip"
WARM_UP_REQUESTS: Final = 40  # the gzip form for keeping is made behind the eighth
SETTLE_S: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is asked: rounds of so many seconds for each row."""

    rounds: int = 15
    seconds: int = 1
    connections: int = 8
    seed: int = 1
    loop: LoopName = "uvloop"
    under: tuple[str, ...] = ("uvicorn", "granian")

    def __post_init__(self) -> None:
        if min(self.rounds, self.seconds, self.connections) < 1 or not self.under:
            raise ValueError(f"rounds, seconds and connections must be positive: {self}")


QUICK: Final = Plan(rounds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is asked of one server; `beside` is the row that it is compared with."""

    server: str
    what: str
    coding: str
    running: Running
    beside: tuple[str, str] | None
    target: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.server, self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one row reached: medians over the rounds, and of the ratios within a round.

    `cpu_us` is CPU time of the server's processes per request.  `ratio` compares requests per
    second, `cpu_ratio` what a core could answer by that CPU time: less of the neighbours is in it.
    """

    server: str
    what: str
    requests_per_s: Spread
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_us: float
    beside: str | None
    ratio: Spread | None
    cpu_ratio: Spread | None
    target: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run; `missing` says why a server has no row."""

    title: str
    generator: str
    rounds: int
    loop: LoopName
    python: str
    lines: tuple[Line, ...]
    missing: tuple[str, ...]


def run(plan: Plan) -> Report:
    """Start every server, load them in turns, end them.

    Raises CheckError for one that does not start or answers wrongly.
    """
    missing = servers.missing_servers()
    with ExitStack() as stack:
        loading = stack.enter_context(generator(plan.connections))
        with on_cores(_cores()[1]):
            rows = _rows(stack, plan, missing)
        for row in rows:
            check(row)
        with on_cores(_cores()[0]):
            found = _rounds(rows, loading, plan)
    told = [f"{name} {why}" for name, why in missing.items()]
    if not have_peers():
        told.append('the assembled stack is not installed: no row (the extra "bench-peers" has it)')
    return Report(
        title="20 kB of JSON over real servers, one worker each",
        generator=loading.name,
        rounds=plan.rounds,
        loop=plan.loop,
        python=platform.python_version(),
        lines=tuple(_line(row, found) for row in rows),
        missing=tuple(told),
    )


# --- what is asked ------------------------------------------------------------------------------


def _rows(stack: ExitStack, plan: Plan, missing: Mapping[str, str]) -> list[Row]:
    hit = stack.enter_context(servers.uvicorn("hit", loop=plan.loop))
    made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perf-answers-")))
    files = {coding: _record(hit, coding, made / coding) for coding in (PLAIN, GZIP)}
    rows: list[Row] = []
    raw: dict[str, Running] = {}
    for name in plan.under:
        if name in missing:
            continue
        start = servers.uvicorn if name == "uvicorn" else servers.granian
        started = {
            factory: stack.enter_context(start(factory, loop=plan.loop))
            for factory in ("bare", "miss", "minimum", "minimum_hit",
                            *(["hit"] if name != "uvicorn" else []),
                            *(["peers"] if have_peers() else []))
        }  # fmt: skip
        started.setdefault("hit", hit)
        of_raw = {
            coding: stack.enter_context(
                start("raw", loop=plan.loop, environment={ANSWER_FILE: str(file)})
            )
            for coding, file in files.items()
        }
        raw = raw or of_raw
        rows += _rows_under(name, started, of_raw)
    if "nginx" not in missing:
        ports = {("plain" if coding == PLAIN else "gzip"): of.port for coding, of in raw.items()}
        cache = stack.enter_context(servers.nginx(**ports))
        under = rows[0].server
        rows += [
            Row(
                server="nginx", what=f"proxy_cache hit, {said}", coding=coding, running=cache,
                beside=(under, f"raw callable, {said}"),
            )
            for said, coding in (("plain", PLAIN), ("gzip", GZIP))
        ]  # fmt: skip
    return rows


def _rows_under(
    server: str, started: Mapping[str, Running], raw: Mapping[str, Running]
) -> list[Row]:
    def row(what: str, coding: str, running: Running, beside: str | None = None,
            target: float | None = None) -> Row:  # fmt: skip
        return Row(
            server=server, what=what, coding=coding, running=running, target=target,
            beside=None if beside is None else (server, beside),
        )  # fmt: skip

    rows = [
        row("bare app", PLAIN, started["bare"]),
        row("everything, miss", PLAIN, started["miss"], "bare app", MISS_OF_BARE_TARGET),
        row("by hand, miss", PLAIN, started["minimum"], "bare app"),
    ]
    for said, coding in (("plain", PLAIN), ("gzip", GZIP)):
        floor = f"raw callable, {said}"
        rows += [
            row(floor, coding, raw[coding]),
            row(f"everything, hit, {said}", coding, started["hit"], floor, HIT_OF_RAW_TARGET),
            row(f"by hand, hit alone, {said}", coding, started["minimum_hit"], floor),
        ]
        if "peers" in started:
            rows.append(row(f"assembled stack, hit, {said}", coding, started["peers"], floor))
    return rows


def _record(hit: Running, coding: str, file: Path) -> Path:
    answer = _warmed(hit, coding)
    file.write_bytes(answer.head + b"\r\n\r\n" + answer.body)
    return file


def _warmed(running: Running, coding: str) -> Fetched:
    for _ in range(WARM_UP_REQUESTS):
        fetch(running.port, coding)
    sleep(SETTLE_S)  # a form is made behind the answer
    return fetch(running.port, coding)


def check(row: Row) -> Fetched:
    """Warm it up, and see that it answers as its name says.  Raises CheckError."""
    answer = _warmed(row.running, row.coding)
    told = answer.headers
    is_hit = {
        "everything": "age" in told and "hit" in told.get("cache-status", ""),
        "raw callable": "age" in told,
        "proxy_cache hit": told.get("x-cache") == "HIT",
        "assembled stack": row.what.startswith("assembled") and _calls(row.running) == 1,
        "by hand": "age" in told,
        "bare app": False,
    }[row.what.partition(",")[0]]
    is_gzip = told.get("content-encoding") == "gzip"
    wanted = "miss" not in row.what and row.what != "bare app"
    if answer.status != 200 or answer.plain != LARGE_BYTES:
        raise CheckError(f"{row.key}: answered {answer.status} {answer.body[:100]!r}")
    if is_hit != wanted or is_gzip != (row.coding == GZIP):
        raise CheckError(f"{row.key}: is not what it says: {told}")
    return answer


def _calls(running: Running) -> int:
    return int(fetch(running.port, PLAIN, CALLS_PATH).body)


# --- the rounds ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Run:
    reached: Reached
    cpu_us: float


def _rounds(
    rows: Sequence[Row], loading: Generator, plan: Plan
) -> dict[tuple[str, str], list[_Run]]:
    asked = {
        row.key: Asked(
            name=" ".join(row.key),
            port=row.running.port,
            coding=row.coding,
            body_bytes=len(fetch(row.running.port, row.coding).body),
        )
        for row in rows
    }
    found: dict[tuple[str, str], list[_Run]] = {row.key: [] for row in rows}
    order, shuffle = list(rows), random.Random(plan.seed).shuffle
    for _ in range(plan.rounds):
        shuffle(order)
        for row in order:
            before_s = row.running.cpu_s()
            reached = loading.load(asked[row.key], seconds=plan.seconds)
            spent_s = row.running.cpu_s() - before_s
            found[row.key].append(_Run(reached, spent_s / reached.requests * 1_000_000))
    return found


def _line(row: Row, found: Mapping[tuple[str, str], Sequence[_Run]]) -> Line:
    runs = found[row.key]
    rates = [run.reached.requests_per_s for run in runs]
    ratio = cpu_ratio = None
    if row.beside is not None:
        pairs = [*zip(runs, found[row.beside], strict=True)]
        ratio = spread(
            [run.reached.requests_per_s / other.reached.requests_per_s for run, other in pairs]
        )
        cpu_ratio = spread([other.cpu_us / run.cpu_us for run, other in pairs])
    return Line(
        server=row.server,
        what=row.what,
        requests_per_s=spread(rates),
        p50_ms=median(run.reached.p50_ms for run in runs),
        p90_ms=median(run.reached.p90_ms for run in runs),
        p99_ms=median(run.reached.p99_ms for run in runs),
        cpu_us=median(run.cpu_us for run in runs),
        beside=None if row.beside is None else " ".join(row.beside),
        ratio=ratio,
        cpu_ratio=cpu_ratio,
        target=row.target,
    )


def _cores() -> tuple[set[int], set[int]]:
    """Those of the generator, and those of the servers."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    cores = sorted(os.sched_getaffinity(0))
    return ({cores[-1]}, set(cores[:-1])) if len(cores) > 1 else (set(cores), set(cores))


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """What is started meanwhile runs on these; of an empty set nothing is said."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# --- what is told -------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """The table, what is missing and where we stand beside our targets."""
    lines = [
        (
            f"### {report.title}: {report.rounds} rounds, {report.generator}, {report.loop}, "
            f"Python {report.python}"
        ),
        "",
        (
            "| | | requests/s | quartiles | p50 ms | p90 | p99 | CPU us/request "
            "| ratio | quartiles | by CPU |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for line in report.lines:
        rate, ratio, by_cpu = line.requests_per_s, line.ratio, line.cpu_ratio
        compared = "| | |"
        if ratio is not None and by_cpu is not None:
            quartiles = f"{ratio.low:.3f} .. {ratio.high:.3f}"
            compared = f"{ratio.median:.3f} | {quartiles} | {by_cpu.median:.3f} |"
        lines.append(
            f"| {line.server} | {line.what} | {rate.median:,.0f} | {rate.low:,.0f} .. "
            f"{rate.high:,.0f} | {line.p50_ms:.2f} | {line.p90_ms:.2f} | {line.p99_ms:.2f} "
            f"| {line.cpu_us:.1f} | {compared}"
        )
    return "\n".join([*lines, "", *report.missing, *targets(report)])


def targets(report: Report) -> list[str]:
    """Each target with what was reached."""
    return [
        f"- {line.server}, {line.what}: {line.ratio.median:.2f} x {line.beside} (at least "
        f"{line.target:g}): {'met' if line.ratio.median >= line.target else 'MISSED'}"
        f" (by CPU {line.cpu_ratio.median:.2f})"
        for line in report.lines
        if line.ratio is not None and line.cpu_ratio is not None and line.target is not None
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=Plan().rounds)
    parser.add_argument("--seconds", type=int, default=1, help="of each round and row")
    parser.add_argument("--connections", type=int, default=Plan().connections)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--under", nargs="+", choices=Plan().under, default=Plan().under)
    parser.add_argument("--quick", action="store_true", help="three rounds; for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    plan = Plan(
        rounds=QUICK.rounds if options.quick else options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        seed=options.seed,
        loop=options.loop,
        under=tuple(options.under),
    )
    report = run(plan)
    write_json(options.json, [report])
    print(markdown(report))


if __name__ == "__main__":
    main()
