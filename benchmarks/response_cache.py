"""What the response cache costs: a hit, a miss and a bypass, beside a hand-written one and peers.

All rows are the same FastAPI app (cache_apps.py), measured as in runner.py: in process, in short
interleaved rounds, in CPU time.  Then over uvicorn (served.py): requests per second of a hit beside
those of a raw ASGI callable that sends the same bytes.

A hit must be one: before a run every row is asked four times, and its endpoint may have run only
once; after a run it may still have run only once.  A miss must have called it each time.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from benchmarks import served
from benchmarks.cache_apps import (
    PATH,
    ROUTES,
    Calls,
    app_of,
    fastapi_layers,
    hand_written,
    ours,
    plain_scope,
)
from benchmarks.cache_peers import PEERS
from benchmarks.figures import Spread, costs
from benchmarks.layers import HEADERS, LARGE_BYTES, scopes
from benchmarks.runner import (
    Answer,
    Case,
    CheckError,
    Plan,
    answer_of,
    on_loop,
    plan_arguments,
    plan_of,
    rounds_of,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.cache_apps import Route
    from benchmarks.cache_peers import Peer
    from perf_middleware.asgi import ASGIApp, Scope

BARE = "bare app"
BARE_WITH_COOKIE = "bare app, a cookie"
LAYERS = "FastAPI's own layers alone"
MINIMUM = "hand-written minimum: hit"
OURS = "perf_middleware: hit"

HIT_OF_MINIMUM_TARGET = 2.0  # a hit: at most so many times the hand-written one; it checks more
HIT_SPEEDUP_TARGET = 12.0  # a hit: at least so many times the throughput of the uncached route
PEER_SPEEDUP_TARGET = 5.0  # a hit: at least so many times as fast as the fastest peer's
ADDED_US_TARGET = 10.0  # a miss or a bypass: what it may add to the uncached route
RAW_SHARE_TARGET = 0.85  # a hit over uvicorn: of the requests/s of a raw callable, same bytes

scope_with_cookie = scopes(PATH, (*HEADERS, (b"cookie", b"session=0123456789abcdef")))

GZIP_HEAD = b"\x1f\x8b"
CHECKS = 4  # requests to each row before anything is timed
QUICK = Plan(rounds=60, requests=40, seconds_max=13.0)
QUICK_LOAD = served.Load(rounds=8, requests=1500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row to measure: `hit` says that only the first request may reach the endpoint."""

    name: str
    build: Callable[[Calls], ASGIApp]
    scope: Callable[[], Scope] = plain_scope
    hit: bool = True
    peer: bool = False
    header_names: frozenset[bytes] = frozenset()  # that each answer but the first must have
    baseline: str = BARE  # the same request to the bare app

    @property
    def coded(self) -> bool:
        """Its answers are gzip: others put the time into the head of theirs."""
        return b"content-encoding" in self.header_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one row took; the ratios are medians of those within a round."""

    name: str
    hit: bool
    peer: bool
    request_us: Spread
    added_us: Spread
    of_bare: float
    of_minimum: float
    of_ours: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One run of all rows on one route."""

    title: str
    rounds: int
    requests: int
    loop: str
    lines: tuple[Line, ...]
    skipped: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> Line:
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(name)


def rows(route: Route, peers: Sequence[Peer] = PEERS) -> list[Row]:
    """Every row of a table, in its order; peers that are not installed are left out."""
    age = frozenset({b"age"})
    result = [
        Row(name=BARE, build=partial(app_of, route), hit=False),
        Row(
            name=BARE_WITH_COOKIE, build=partial(app_of, route), scope=scope_with_cookie, hit=False
        ),
        Row(name=LAYERS, build=partial(fastapi_layers, route), header_names=age),
        Row(name=MINIMUM, build=partial(hand_written, route), header_names=age),
        Row(
            name="hand-written minimum: miss, stored",
            build=partial(hand_written, route),
            scope=_another_url_each_time(),
            hit=False,
        ),
    ]
    result += our_rows(route)
    result += [
        Row(name=peer.label, build=partial(peer.build, route), peer=True)
        for peer in peers
        if peer.installed
    ]
    return result


def our_rows(route: Route) -> list[Row]:
    """What our cache does to a request, one row for each way through it."""
    with_rule = partial(ours, route)
    told = frozenset({b"cache-status"})
    return [
        Row(name=OURS, build=with_rule, header_names=told | {b"age"}),
        Row(
            name="perf_middleware: miss, stored",
            build=with_rule,
            scope=_another_url_each_time(),
            hit=False,
        ),
        Row(
            name="perf_middleware: miss, may not be stored",  # no Cache-Control, no rule
            build=partial(ours, route, rule=False),
            hit=False,
        ),
        Row(
            name="perf_middleware: bypass, a cookie",
            build=with_rule,
            scope=scope_with_cookie,
            hit=False,
            baseline=BARE_WITH_COOKIE,
        ),
    ]


def _another_url_each_time() -> Callable[[], Scope]:
    numbers = count()

    def scope() -> Scope:
        made = plain_scope()
        made["query_string"] = b"n=%d" % next(numbers)
        return made

    return scope


def measured(route: Route, plan: Plan, peers: Sequence[Peer] = PEERS) -> Table:
    """Measure every row on one route.  Raises CheckError for a row that is not what it says."""
    skipped = sorted({peer.distribution for peer in peers if not peer.installed})
    return compared(route.name, rows(route, peers), plan, skipped=skipped)


def compared(
    title: str,
    all_rows: Sequence[Row],
    plan: Plan,
    *,
    body: bytes = LARGE_BYTES,
    minimum: str = MINIMUM,
    ours: str = OURS,
    skipped: Sequence[str] = (),
) -> Table:
    """These rows against each other; each must answer `body`, once it is decoded."""
    on_loop(plan.loop, _check(all_rows, body))
    calls = {row.name: Calls() for row in all_rows}
    expected = Answer(status=200, body=body)
    cases = [
        Case(
            name=row.name,
            build=partial(row.build, calls[row.name]),
            scope=row.scope,
            expected=expected,
            has_one_body=not row.coded,
        )
        for row in all_rows
    ]
    rounds = rounds_of(cases, plan)
    requests = len(rounds[BARE]) * plan.requests
    for row in all_rows:
        _check_calls(row, calls[row.name].count, at_least=requests)
    return Table(
        title=title,
        rounds=len(rounds[BARE]),
        requests=plan.requests,
        loop=plan.loop,
        lines=_lines(all_rows, rounds, minimum, ours),
        skipped=tuple(skipped),
    )


def _lines(
    all_rows: Sequence[Row], rounds: dict[str, list[float]], minimum: str, ours: str
) -> tuple[Line, ...]:
    of = {
        baseline: {cost.name: cost for cost in costs(rounds, baseline=baseline)}
        for baseline in {row.baseline for row in all_rows}
    }
    of_bare = [of[row.baseline][row.name] for row in all_rows]
    of_minimum = [cost.ratio for cost in costs(rounds, baseline=minimum)]
    of_ours: Sequence[float | None] = [None] * len(all_rows)
    if ours in rounds:
        of_ours = [cost.ratio for cost in costs(rounds, baseline=ours)]
    return tuple(
        Line(
            name=row.name,
            hit=row.hit,
            peer=row.peer,
            request_us=cost.request_us,
            added_us=cost.added_us,
            of_bare=cost.ratio,
            of_minimum=of_minimum_,
            of_ours=of_ours_,
        )
        for row, cost, of_minimum_, of_ours_ in zip(
            all_rows, of_bare, of_minimum, of_ours, strict=True
        )
    )


async def _check(all_rows: Sequence[Row], body: bytes) -> None:
    for row in all_rows:
        calls = Calls()
        app = row.build(calls)
        for number in range(CHECKS):
            got = await answer_of(app, row.scope())
            if got.status != 200 or _decoded(got) != body:
                raise CheckError(f"{row.name}: answered {got.status} {got.body[:200]!r}")
            missing = row.header_names - got.header_names
            if number and missing:
                raise CheckError(f"{row.name}: answered without {sorted(missing)}")
        _check_calls(row, calls.count, at_least=CHECKS)


def _decoded(answer: Answer) -> bytes:
    is_gzip = b"content-encoding" in answer.header_names and answer.body.startswith(GZIP_HEAD)
    return gzip.decompress(answer.body) if is_gzip else answer.body


def _check_calls(row: Row, calls: int, *, at_least: int) -> None:
    if row.hit and calls != 1:
        raise CheckError(f"{row.name}: is no hit, the endpoint ran {calls} times")
    if not row.hit and calls < at_least:
        raise CheckError(f"{row.name}: the endpoint ran only {calls} times of {at_least}")


def markdown(table: Table) -> str:
    """The table, and a line for each peer that is not installed."""
    lines = [
        f"### {table.title}: {table.rounds} rounds x {table.requests} requests, {table.loop}",
        "",
        "| | us/request | quartiles | added us | x bare | x minimum |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for line in table.lines:
        request = line.request_us
        lines.append(
            f"| {line.name} | {request.median:.2f} | {request.low:.2f} .. {request.high:.2f} "
            f"| {line.added_us.median:+.2f} | {line.of_bare:.3f} | {line.of_minimum:.2f} |"
        )
    lines += ["", *(f"{name} is not installed: no row" for name in table.skipped)]
    return "\n".join(lines).rstrip()


def targets(table: Table) -> list[str]:
    """Where we stand beside our targets in process; nothing while our cache is not there."""
    if not any(line.name == OURS for line in table.lines):
        return []
    hit = table[OURS]
    fastest = min(
        (line for line in table.lines if line.peer),
        key=lambda line: line.of_bare,
        default=None,
    )
    told = [
        _told("hit, x hand-written minimum", hit.of_minimum, HIT_OF_MINIMUM_TARGET, most=True),
        _told("hit, throughput x uncached", 1 / hit.of_bare, HIT_SPEEDUP_TARGET, most=False)
        + f" ({LAYERS}: {1 / table[LAYERS].of_bare:.2f})",
    ]
    if fastest is not None and fastest.of_ours is not None:
        what = f"hit, as fast x {fastest.name}"
        told.append(_told(what, fastest.of_ours, PEER_SPEEDUP_TARGET, most=False))
    ours_without_hit = [
        line for line in table.lines if line.name.startswith("perf_middleware") and not line.hit
    ]
    return told + [
        _told(f"{line.name}, added us", line.added_us.median, ADDED_US_TARGET, most=True)
        for line in ours_without_hit
    ]


def served_targets(lines: Sequence[served.Served]) -> list[str]:
    """The same over uvicorn."""
    return [
        _told(f"{line.name} over uvicorn, x raw", line.of_raw, RAW_SHARE_TARGET, most=False)
        for line in lines
        if line.key in served.OURS
    ]


def _told(what: str, value: float, target: float, *, most: bool) -> str:
    met = value <= target if most else value >= target
    bound = "at most" if most else "at least"
    return f"- {what}: {value:.2f} ({bound} {target:g}): {'met' if met else 'MISSED'}"


def run(plan: Plan, routes: Sequence[Route] = ROUTES) -> list[Table]:
    """One table for each route, in process."""
    return [measured(route, plan) for route in routes]


def main() -> None:
    """Print all tables."""
    parser = plan_arguments(__doc__, defaults=Plan(seconds_max=90.0))
    parser.add_argument("--quick", action="store_true", help="under a minute; for a first look")
    options = parser.parse_args()
    plan, load = plan_of(options), served.Load(loop=options.loop, seed=options.seed)
    if options.quick:
        plan = replace(QUICK, loop=plan.loop, seed=plan.seed)
        load = replace(QUICK_LOAD, loop=load.loop, seed=load.seed)
    reports: list[Any] = []
    for route in ROUTES:
        table = measured(route, plan)
        reports.append(table)
        print("\n".join([markdown(table), "", *targets(table), ""]), flush=True)
    over_uvicorn = served.measured(list(served.SERVERS), load)
    reports += over_uvicorn
    print("\n".join([served.table(over_uvicorn, load), "", *served_targets(over_uvicorn)]))
    write_json(options.json, reports)


if __name__ == "__main__":
    main()
