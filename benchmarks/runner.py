"""Drives ASGI apps in process, case by case in interleaved rounds, and tells what each one costs.

    built, checked, warmed up          then, until `rounds` or `seconds_max`:
    bare   ours   peer        ->       round 1: ours bare peer | round 2: peer ours bare | ...

There is no server and no socket: a server's own microseconds vary by more than a layer costs.  One
request is awaited after the other in one task of a real event loop.

- Checked: before anything is timed each case must give the expected answer, or CheckError ends the
  run.  A benchmark that measures an error page is worthless.
- Order: anew for each round, from a seed: no case always follows the same neighbour.
- Clock: CPU time of the process, helper threads included.  The apps wait for nothing, so it is what
  a quiet machine would show on the wall.  On a busy one the wall clock counts the neighbours: the
  quartiles of one and the same difference were 4 .. 11 us in CPU time and -14 .. 90 on the wall.
- Garbage collection: on, as in production, so that a layer pays for the cycles it leaves behind.
  Every case begins its round right after a full collection, so that none pays for another's, and
  what is alive before the first round is frozen: a collection costs the same in a run of two cases
  and in one of twenty.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, process_time_ns
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from benchmarks.figures import Cost, costs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from perf_middleware.asgi import ASGIApp, Message, Scope

LoopName = Literal["uvloop", "asyncio"]
T = TypeVar("T")

WARM_UP_REQUESTS = 200  # routers, caches and the interpreter's own specialisation settle
SETTLE_SHARE = 10  # of each round's requests one in so many runs untimed first, after the others


class CheckError(AssertionError):
    """A case did not answer as expected: its figures would say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response: `header_names` are those it must have at least."""

    status: int
    body: bytes
    header_names: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One app to measure: what builds it, what makes the scope of a request, what must come back.

    `scope` is called for each request: servers make a new one, and apps write into it.
    """

    name: str
    build: Callable[[], ASGIApp]
    scope: Callable[[], Scope]
    expected: Answer
    has_one_body: bool = True
    """False: each answer has other bytes, which whoever made the case has compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.  `seconds_max` ends a run between two rounds, after one at least."""

    # Many short rounds: cases that are compared run within milliseconds of each other.
    rounds: int = 300
    requests: int = 80
    seconds_max: float = 45.0
    seed: int = 1
    loop: LoopName = "uvloop"
    # A server's loop turns between two requests; to see single microseconds, better not (False).
    turns: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.requests < 1 or self.seconds_max <= 0:
            raise ValueError(f"rounds, requests and seconds_max must be positive: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run has found; `rounds` is how many there was time for."""

    title: str
    baseline: str
    peer: str | None
    rounds: int
    requests: int
    loop: LoopName
    python: str
    costs: tuple[Cost, ...]

    def __getitem__(self, name: str) -> Cost:
        for cost in self.costs:
            if cost.name == name:
                return cost
        raise KeyError(name)


def measure(
    title: str, cases: Sequence[Case], plan: Plan, *, baseline: str, peer: str | None = None
) -> Report:
    """Run the cases against each other.  Raises CheckError for one that answers wrongly."""
    rounds = rounds_of(cases, plan)
    return Report(
        title=title,
        baseline=baseline,
        peer=peer,
        rounds=len(rounds[baseline]),
        requests=plan.requests,
        loop=plan.loop,
        python=platform.python_version(),
        costs=costs(rounds, baseline=baseline, peer=peer),
    )


def rounds_of(cases: Sequence[Case], plan: Plan) -> dict[str, list[float]]:
    """Microseconds per request of each case in each round, for what compares in its own way.

    Raises CheckError for a case that answers wrongly.
    """
    return on_loop(plan.loop, _measured(cases, plan))


def on_loop(name: LoopName, run: Coroutine[Any, Any, T]) -> T:
    """The result of `run` on a new event loop of this kind."""
    factory = None
    if name == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run)


async def check(case: Case, app: ASGIApp) -> None:
    """Ask once.  Raises CheckError where the answer is not the expected one."""
    await _check(case, app)


async def spent_ns(app: ASGIApp, scope: Callable[[], Scope], requests: int) -> int:
    """CPU nanoseconds for so many requests, in a turn of the loop of their own."""
    await asyncio.sleep(0)
    return await _drive(app, scope, requests)


async def answer_of(app: ASGIApp, scope: Scope) -> Answer:
    """What `app` answers to one request without a body."""
    status = 0
    body = bytearray()
    names: set[bytes] = set()

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            names.update(name for name, _ in message["headers"])
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))

    await app(scope, _Receive(), send)
    return Answer(status=status, body=bytes(body), header_names=frozenset(names))


async def _measured(cases: Sequence[Case], plan: Plan) -> dict[str, list[float]]:
    apps = {case.name: case.build() for case in cases}
    if len(apps) != len(cases):
        raise ValueError("two cases have the same name")
    for case in cases:
        await _check(case, apps[case.name])
        await _drive(apps[case.name], case.scope, WARM_UP_REQUESTS, turns=plan.turns)
    rounds: dict[str, list[float]] = {case.name: [] for case in cases}
    order = list(cases)
    shuffle = random.Random(plan.seed).shuffle
    settle = max(1, plan.requests // SETTLE_SHARE)
    until_s = monotonic() + plan.seconds_max
    gc.collect()
    gc.freeze()
    try:
        for _ in range(plan.rounds):
            shuffle(order)
            for case in order:
                await asyncio.sleep(0)  # no round is one turn of the loop with those before
                app = apps[case.name]
                gc.collect()
                await _drive(app, case.scope, settle, turns=plan.turns)
                elapsed_ns = await _drive(app, case.scope, plan.requests, turns=plan.turns)
                rounds[case.name].append(elapsed_ns / plan.requests / 1000)
            if monotonic() >= until_s:
                break
    finally:
        gc.unfreeze()
    return rounds


async def _check(case: Case, app: ASGIApp) -> None:
    got = await answer_of(app, case.scope())
    expected = case.expected
    is_same = got.body == expected.body or not case.has_one_body
    if got.status != expected.status or not is_same:
        raise CheckError(f"{case.name}: answered {got.status} {got.body[:200]!r}")
    missing = expected.header_names - got.header_names
    if missing:
        raise CheckError(f"{case.name}: answered without {sorted(missing)}")


async def _drive(
    app: ASGIApp, scope: Callable[[], Scope], requests: int, *, turns: bool = False
) -> int:
    """CPU nanoseconds for so many requests, those of `scope` and of this loop included."""
    began_ns = process_time_ns()
    for _ in range(requests):
        await app(scope(), _Receive(), _ignore)
        if turns:
            await asyncio.sleep(0)
    return process_time_ns() - began_ns


class _Receive:
    """A request's empty body, and then a client that stays: as a server does for a GET."""

    __slots__ = ("_read",)

    def __init__(self) -> None:
        self._read = False

    async def __call__(self) -> Message:
        if self._read:
            await asyncio.get_running_loop().create_future()
        self._read = True
        return {"type": "http.request", "body": b"", "more_body": False}


async def _ignore(message: Message) -> None:
    """The client end of a request that is timed."""


def table(report: Report) -> str:
    """The report for a terminal."""
    measured = f"{report.rounds} rounds x {report.requests} requests"
    names = max([42, *(len(cost.name) for cost in report.costs)]) + 2
    head = f"{'':{names}}{'us/request':>11}{'added us':>10}{'quartiles':>18}{'x bare':>8}"
    lines = [
        f"{report.title}: {measured}, {report.loop}, Python {report.python}",
        "",
        f"{head}{'x peer':>8}" if report.peer else head,
    ]
    for cost in report.costs:
        added = cost.added_us
        line = f"{cost.name:{names}}{cost.request_us.median:11.2f}"
        if cost.name == report.baseline:
            request = cost.request_us
            line += f"{'':10}{f'{request.low:.2f} .. {request.high:.2f}':>18}"
        else:
            line += f"{added.median:10.2f}{f'{added.low:.2f} .. {added.high:.2f}':>18}"
            line += f"{cost.ratio:8.3f}"
            if cost.peer_share is not None:
                line += f"{cost.peer_share:8.3f}"
        lines.append(line)
    return "\n".join(lines)


def arguments(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--loop", choices=("uvloop", "asyncio"),
        default="asyncio" if sys.platform == "win32" else "uvloop",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def plan_arguments(description: str | None, *, defaults: Plan) -> argparse.ArgumentParser:
    """Those, and the other fields of a plan; `plan_of` reads them."""
    parser = arguments(description, rounds=defaults.rounds)
    parser.add_argument("--requests", type=int, default=defaults.requests, help="a round and case")
    parser.add_argument(
        "--seconds-max", type=float, default=defaults.seconds_max, help="for all rounds of a table"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the order in a round")
    return parser


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that these options describe."""
    return Plan(
        rounds=options.rounds,
        requests=options.requests,
        seconds_max=options.seconds_max,
        seed=options.seed,
        loop=options.loop,
    )


def ratio_table(report: Report, *, unit: str, ratio: str) -> str:
    """A report whose `requests` are calls of something, for a terminal: each as so many of the
    first.
    """
    lines = [
        (
            f"{report.title}: {report.rounds} rounds x {report.requests} calls, {report.loop}, "
            f"Python {report.python}"
        ),
        "",
        f"{'':38}{unit:>11}{'quartiles':>18}{ratio:>9}",
    ]
    for cost in report.costs:
        took = cost.request_us
        quartiles = f"{took.low:.2f} .. {took.high:.2f}"
        lines.append(f"{cost.name:38}{took.median:11.2f}{quartiles:>18}{cost.ratio:9.2f}")
    return "\n".join(lines)


def write_json(path: Path | None, reports: Sequence[Any]) -> None:
    """The reports (dataclasses) as one JSON list; nothing without a path."""
    if path is not None:
        path.write_text(json.dumps([asdict(report) for report in reports], indent=2) + "\n")
