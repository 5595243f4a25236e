"""Does a request cost more when there is more: stored entries, routes, keys of a limit, workers?

    10 entries | 1,000 | 100,000      every size of every row in the same interleaved rounds,
    dict  .. us   ..      .. us       CPU time; what is compared is compared within a round
    hit   .. us   ..      .. us

Target: the largest costs at most 1.2 times the smallest.  The whole request is FastAPI's 20 kB one
with everything on; the other rows show a layer by itself.  Where one misses it, the floor beside it
says how much of that is the machine's (a dict of 100,000 entries has its cache misses, too), or
FastAPI's own: of routes what counts is what ours adds to the bare app with as many.

    python -m benchmarks.growth --quick
    python -m benchmarks.growth --redis redis://127.0.0.1:6379/15    # keys in Redis, too
"""

from __future__ import annotations

import platform
import random
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks import runner
from benchmarks.figures import Spread, spread
from benchmarks.growth_cases import (
    Row,
    address,
    drawn,
    limiter_keys,
    routes,
    stored_entries,
    whole_requests,
)
from benchmarks.runner import on_loop, plan_arguments, plan_of, rounds_of, write_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from benchmarks.runner import LoopName

ENTRIES: Final = (10, 1_000, 100_000)
ROUTES: Final = (5, 50, 500)
WORKERS: Final = (1, 2, 3, 4)
GROWTH_TARGET: Final = 1.2
PARTS: Final = ("entries", "routes", "keys", "whole", "workers")
ROUTES_SHARE: Final = 5  # a request that asks a router takes so much longer
REDIS_CALLS: Final = 50
KEYS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(runner.Plan):
    """Long rounds: what one has touched is then as warm as a busy server finds it."""

    rounds: int = 60
    requests: int = 3_000
    seconds_max: float = 90.0


QUICK: Final = Plan(rounds=12, requests=2_000, seconds_max=20.0)


class Floor(NamedTuple):
    """What a row stands on; `added`: only what it adds to that is compared."""

    name: str | None = None
    added: bool = False
    is_ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one row took at each size, microseconds per request.

    `growth` is the largest size's share of the smallest's, within a round: of what is added to the
    floor where `added`, else of the whole request.  `grown_us` is the difference itself, and
    `floor_us` that of the floor.
    """

    name: str
    request_us: tuple[Spread, ...]
    growth: float | None
    grown_us: float
    added: bool
    floor: str | None
    floor_us: float | None
    is_ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One table."""

    title: str
    sizes: tuple[int, ...]
    rounds: int
    requests: int
    loop: LoopName
    python: str
    lines: tuple[Line, ...]


def run(
    plan: runner.Plan, *, parts: Sequence[str] = PARTS, redis: str | None = None
) -> list[Growth]:
    """A table for each part, one after the other."""
    made = []
    if "entries" in parts:
        made.append(in_process("stored entries", ENTRIES, stored_entries, plan))
    if "routes" in parts:
        fewer = replace(plan, requests=max(1, plan.requests // ROUTES_SHARE))
        made.append(in_process("routes", ROUTES, routes, fewer))
    if "keys" in parts:
        made.append(in_process("keys of a rate limit", ENTRIES, limiter_keys, plan))
        if redis is not None:
            made.append(on_loop(plan.loop, keys_in_redis(redis, ENTRIES, plan)))
    if "whole" in parts:
        fewer = replace(plan, requests=max(1, plan.requests // ROUTES_SHARE))
        made.append(in_process("whole requests", ENTRIES, whole_requests, fewer))
    if "workers" in parts:
        made.append(with_workers(WORKERS, plan))
    return made


def in_process(
    title: str,
    sizes: Sequence[int],
    rows_of: Callable[[Sequence[int], LoopName], list[Row]],
    plan: runner.Plan,
) -> Growth:
    """Measure every row at every size.  Raises CheckError for one that answers wrongly."""
    rows = rows_of(sizes, plan.loop)
    cases = {row.name: [case.name for case in row.cases] for row in rows}
    rounds = rounds_of([case for row in rows for case in row.cases], plan)
    taken = {name: [rounds[case] for case in of] for name, of in cases.items()}
    floors = {row.name: Floor(row.floor, row.added, row.is_ours) for row in rows}
    return growth(title, sizes, taken, floors, plan)


def growth(
    title: str,
    sizes: Sequence[int],
    taken: Mapping[str, Sequence[Sequence[float]]],
    floors: Mapping[str, Floor],
    plan: runner.Plan,
) -> Growth:
    """From microseconds by row, size and round to the table; pure."""
    lines = []
    for name, by_size in taken.items():
        floor, added, is_ours = floors[name]
        compared = [list(of_size) for of_size in by_size]
        if floor is not None and added:
            compared = [
                [us - of for us, of in zip(mine, its, strict=True)]
                for mine, its in zip(by_size, taken[floor], strict=True)
            ]
        lines.append(
            Line(
                name=name,
                request_us=tuple(map(spread, by_size)),
                growth=_growth(compared[0], compared[-1], added=added),
                grown_us=_grown_us(compared[0], compared[-1]),
                added=added,
                floor=floor,
                floor_us=None if floor is None else _grown_us(taken[floor][0], taken[floor][-1]),
                is_ours=is_ours,
            )
        )
    return Growth(
        title=title,
        sizes=tuple(sizes),
        rounds=len(next(iter(taken.values()))[0]),
        requests=plan.requests,
        loop=plan.loop,
        python=platform.python_version(),
        lines=tuple(lines),
    )


def _growth(smallest: Sequence[float], largest: Sequence[float], *, added: bool) -> float | None:
    if added:
        # A difference of a single round may be near zero: no ratio is made of that.
        least = median(smallest)
        return median(largest) / least if least > 0 else None
    return median(large / small for small, large in zip(smallest, largest, strict=True))


def _grown_us(smallest: Sequence[float], largest: Sequence[float]) -> float:
    return median(large - small for small, large in zip(smallest, largest, strict=True))


# --- what is not in this process ----------------------------------------------------------------


async def keys_in_redis(url: str, sizes: Sequence[int], plan: runner.Plan) -> Growth:
    """The keys of a quota in Redis, beside a GET of as many keys: by the clock."""
    from benchmarks.quotas import NAMESPACE, fleet_at
    from perf_middleware.limits.rate.gcra import Demand, Quota
    from perf_middleware.limits.rate.stores.redis import SharedQuotas

    quota = Quota.per(1_000_000, 3_600)
    floor, ours = "a GET of one of as many keys", "one quota, judged in Redis"
    async with fleet_at(url) as fleet:
        link = fleet.link
        shared = SharedQuotas(link, namespace=NAMESPACE)
        rows: dict[tuple[str, int], Callable[[], Awaitable[Any]]] = {}
        for place, size in enumerate(sizes):
            stem = f"growth-{size}:"
            numbers, others = drawn(size), drawn(size)
            for first in range(0, size, KEYS_AT_ONCE):
                keys = range(first, min(size, first + KEYS_AT_ONCE))
                # In the quotas' own place: what is left there is removed at the end.
                plain = [_plain_key(NAMESPACE, stem, number) for number in keys]
                await link.command("MSET", *(part for key in plain for part in (key, b"1")))
                for number in keys:
                    await shared.take([Demand((stem + address(number)).encode(), quota)])

            def get(stem: str = stem, draw: Callable[[], int] = others) -> Awaitable[Any]:
                return link.command("GET", _plain_key(NAMESPACE, stem, draw()))

            def take(stem: str = stem, draw: Callable[[], int] = numbers) -> Awaitable[Any]:
                return shared.take([Demand((stem + address(draw())).encode(), quota)])

            rows[floor, place], rows[ours, place] = get, take
        taken: dict[str, list[list[float]]] = {name: [[] for _ in sizes] for name in (floor, ours)}
        order, shuffle = list(rows), random.Random(plan.seed).shuffle
        for _ in range(plan.rounds):
            shuffle(order)
            for name, place in order:
                ask = rows[name, place]
                await ask()
                began_ns = perf_counter_ns()
                for _ in range(REDIS_CALLS):
                    await ask()
                taken[name][place].append((perf_counter_ns() - began_ns) / REDIS_CALLS / 1000)
    floors = {floor: Floor(is_ours=False), ours: Floor(floor)}
    calls = replace(plan, requests=REDIS_CALLS)
    return growth("keys of a rate limit in Redis, by the clock", sizes, taken, floors, calls)


def _plain_key(namespace: str, stem: str, number: int) -> bytes:
    return f"{{{namespace}:quota}}:plain:{stem}{address(number)}".encode()


def with_workers(sizes: Sequence[int], plan: runner.Plan) -> Growth:
    """So many workers of uvicorn, all alive, loaded in turns: CPU time of all for each request."""
    from contextlib import ExitStack

    from benchmarks import servers
    from benchmarks.generators import Asked, generator
    from benchmarks.layers import LARGE_BYTES

    floor, ours = "bare app", "everything, miss"
    factories = {floor: "bare", ours: "miss"}
    rounds = max(3, plan.rounds // 4)
    with ExitStack() as stack:
        loading = stack.enter_context(generator(4 * max(sizes)))
        running = {
            (name, place): stack.enter_context(
                servers.uvicorn(factory, workers=workers, loop=plan.loop)
            )
            for place, workers in enumerate(sizes)
            for name, factory in factories.items()
        }
        taken: dict[str, list[list[float]]] = {name: [[] for _ in sizes] for name in factories}
        order, shuffle = list(running), random.Random(plan.seed).shuffle
        requests = 0
        for number in range(rounds + 1):
            shuffle(order)
            for name, place in order:
                server = running[name, place]
                asked = Asked(
                    name=f"{name}, {sizes[place]} workers", port=server.port, coding="identity",
                    body_bytes=len(LARGE_BYTES),
                )  # fmt: skip
                before_s = server.cpu_s()
                reached = loading.load(asked, seconds=1)
                spent_s = server.cpu_s() - before_s
                requests = reached.requests
                if number:  # the first round warms up
                    taken[name][place].append(spent_s / requests * 1_000_000)
    floors = {floor: Floor(is_ours=False), ours: Floor(floor)}
    title = f"workers of uvicorn, {loading.name}"
    return growth(title, sizes, taken, floors, replace(plan, requests=requests))


# --- what is told -------------------------------------------------------------------------------


def markdown(made: Growth) -> str:
    """The table, and each row beside the target."""
    sizes = " | ".join(f"{size:,}" for size in made.sizes)
    lines = [
        (
            f"### {made.title}: {made.rounds} rounds x {made.requests} requests, {made.loop}, "
            f"Python {made.python}"
        ),
        "",
        f"| us/request | {sizes} | largest / smallest | grown us | of its floor |",
        f"|---|{'--:|' * len(made.sizes)}--:|--:|--:|",
    ]
    for line in made.lines:
        figures = " | ".join(f"{us.median:.2f}" for us in line.request_us)
        times = "" if line.growth is None else f"{line.growth:.2f}"
        floor = "" if line.floor_us is None else f"{line.floor_us:.2f}"
        what = f"{line.name}, what it adds" if line.added else line.name
        lines.append(f"| {what} | {figures} | {times} | {line.grown_us:.2f} | {floor} |")
    return "\n".join([*lines, "", *targets(made)])


def targets(made: Growth) -> list[str]:
    """Each row of ours beside the target."""
    told = []
    for line in made.lines:
        if not line.is_ours or line.growth is None:
            continue
        is_met = line.growth <= GROWTH_TARGET
        said = (
            f"- {made.title}, {line.name}: {line.growth:.2f} x from {made.sizes[0]:,} to "
            f"{made.sizes[-1]:,} (at most {GROWTH_TARGET:g}): {'met' if is_met else 'MISSED'}"
        )
        if not is_met and line.floor_us is not None and not line.added:
            said += f"; {line.grown_us:.2f} us more, {line.floor}: {line.floor_us:.2f} us more"
        told.append(said)
    return told


def main() -> None:
    """Print every table."""
    parser = plan_arguments(__doc__, defaults=Plan())
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--redis", metavar="URL", help="keys in this Redis, too")
    parser.add_argument("--quick", action="store_true", help="two minutes; for a first look")
    options = parser.parse_args()
    plan: runner.Plan = plan_of(options)
    if options.quick:
        plan = replace(QUICK, loop=plan.loop, seed=plan.seed)
    made = []
    for part in options.parts:
        for table in run(plan, parts=[part], redis=options.redis):
            made.append(table)
            print(f"{markdown(table)}\n", flush=True)
    write_json(options.json, made)


if __name__ == "__main__":
    main()
