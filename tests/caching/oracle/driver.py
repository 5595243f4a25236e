"""Lets a cache live through many requests and asks the oracle about each answer.

`make_cache(app, clock, wall_s)` wraps an ASGI app: `clock` gives whole microseconds of a monotonic
clock, `wall_s` Unix seconds; both move only when the driver moves them.  A life is a fresh cache, a
fresh app and some hundred requests in order, or in handfuls at once; lives follow each other until
enough pairs are made.  The same seed makes the same run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from tests.caching.oracle.exchanges import Exchanged, Served, Target, traced
from tests.caching.oracle.generate import Asked, Nature
from tests.caching.oracle.rules import OUR_HOUSE, House
from tests.caching.oracle.world import World

MakeCache: TypeAlias = Callable[[Any, Callable[[], int], Callable[[], int]], Any]

LIFE_REQUESTS = 250
AT_ONCE_MAX = 6
FAULTS_MAX = 25
LIFE_S_MAX = 60.0  # only a hang reaches it


@dataclass(slots=True)
class Fault:
    """What the oracle said about one answer."""

    seed: int
    sentences: list[str]
    served: Served
    sources: list[Exchanged]

    def __str__(self) -> str:
        served = self.served
        rows = [
            f"seed {self.seed}, request {served.number} at {served.at_s:.2f}:",
            *(f"  ! {sentence}" for sentence in self.sentences),
            _request_row("asked", served.method, served.target, served.request_headers),
            _head_row("  got", served.status, served.headers, served.body),
            f"      raised {served.raised!r}, complete {served.complete}, cut {served.cut}",
        ]
        for each in self.sources:
            mine = " (its own call)" if each.number in served.app_calls else ""
            rows.append(
                f"  answer {each.number} to request {each.request}{mine}, {each.at_s:.2f} to "
                f"{each.finished_s}, complete {each.complete}:"
            )
            rows.append(_request_row("saw", each.method, each.target, each.request_headers))
            rows.append(_head_row("  said", each.status, each.headers, each.body))
        return "\n".join(rows)


def _request_row(verb: str, method: str, target: Target, headers: object) -> str:
    uri = (target.host + target.path).decode("latin-1")
    return f"  {verb} {method} {target.scheme}://{uri} {headers!r:.600}"


def _head_row(verb: str, status: int | None, headers: object, body: bytes) -> str:
    return f"{verb} {status} {headers!r:.600} {len(body)} bytes {body[:40]!r}"


@dataclass(slots=True)
class Outcome:
    """Of a run."""

    pairs: int = 0
    faults: list[Fault] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """How many were passed on, reused, validated, ..."""

    def sentences(self) -> Counter[str]:
        return Counter(sentence for fault in self.faults for sentence in fault.sentences)


# --- runs ----------------------------------------------------------------------------------------


def fuzz(
    make_cache: MakeCache,
    *,
    seed: int,
    pairs: int,
    at_once: bool = False,
    house: House = OUR_HOUSE,
    faults_max: int = FAULTS_MAX,
) -> Outcome:
    """`pairs` random requests; ends early when there are faults enough."""
    outcome = Outcome()

    async def run() -> None:
        strays: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: strays.append(_stray(context)))
        while outcome.pairs < pairs and len(outcome.faults) < faults_max:
            life_seed = seed * 1_000_003 + outcome.pairs
            try:
                async with asyncio.timeout(LIFE_S_MAX):
                    await _live(make_cache, life_seed, outcome, pairs, at_once, house)
            except TimeoutError:
                strays.append("a request never came to its end")
            if strays:
                served = Served(0, 0, 0, "", Target("", b"", b""), [])
                outcome.faults.append(Fault(life_seed, list(strays), served, []))
                strays.clear()

    asyncio.run(run())
    return outcome


def _stray(context: dict[str, Any]) -> str:
    return f"an exception that nobody took: {context.get('exception') or context['message']!r}"


async def _live(
    make_cache: MakeCache, seed: int, outcome: Outcome, pairs: int, at_once: bool, house: House
) -> None:
    nature, chance = Nature(seed), Random(seed + 1)
    world = World(nature, yields=chance if at_once else None)
    cache = make_cache(world.app, world.clock, world.wall_s)
    for _ in range(LIFE_REQUESTS):
        if outcome.pairs >= pairs:
            break
        world.now_s += nature.pause_s()
        if at_once:
            handful = [
                nature.request(world.now_s) for _ in range(chance.randrange(AT_ONCE_MAX) + 1)
            ]
            if chance.random() < 0.5:
                handful = [_again(handful[0]) for _ in handful]
            answers = await asyncio.gather(*(world.ask(cache, asked) for asked in handful))
        else:
            answers = [await world.ask(cache, nature.request(world.now_s))]
        await world.settle()
        for served in answers:
            outcome.pairs += 1
            sentences = world.judge(served, house)
            outcome.answers[_kind(served, world)] += 1
            if sentences:
                sources = traced(served, world.history)
                outcome.faults.append(Fault(seed, sentences, served, sources))
    await end_strays()


def _again(asked: Asked) -> Asked:
    return Asked(
        asked.method, asked.target, list(asked.headers), asked.body, None, asked.extensions
    )


async def end_strays() -> None:
    """Tasks that a cache left running end with its life."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _kind(served: Served, world: World) -> str:
    """For the count of what a run has seen."""
    sources = traced(served, world.history)
    if served.status is None:
        return "raised" if served.raised else "cut"
    if not sources:
        return f"the cache's own {served.status}"
    mine = [each for each in sources if each.number in served.app_calls]
    whose = "passed on" if len(mine) == len(sources) else "validated" if mine else "reused"
    form = "" if served.status == sources[0].status else f" as {served.status}"
    return whose + form
