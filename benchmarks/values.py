"""A hit of `@memo.cached` beside that of other caches and of a dict, in the memory of the process.

    python -m benchmarks.values            # the peers are in the extra bench-peers

Every row is the same coroutine function of one argument, decorated as each library's own
documentation shows it; before anything is timed its second call must be one that does not run the
function.  All rows run in one process and one event loop, in interleaved rounds.

- `a dict, by hand`: the floor.  The argument is the key; no lifetime, no bound, nothing counted.
- `str`, `row`, `rows`: what is returned: a text, a dict of five plain values, ten dicts in a dict.
  Of what can be changed we give each caller a copy; `copy=False` and the peers give all of them the
  same object (fastapi-cache2 stores JSON: it parses at each hit).
"""

from __future__ import annotations

import gc
import platform
import random
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from time import process_time_ns
from typing import TYPE_CHECKING, Any

from benchmarks.figures import costs
from benchmarks.runner import CheckError, Report, arguments, on_loop, ratio_table, write_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.runner import LoopName

    Load = Callable[[str], Awaitable[Any]]
    Decorate = Callable[[Load], Load]

TTL_S = 3600
BARE = "no cache: the function itself"
FLOOR = "a dict, by hand"
OURS = "@memo.cached"
ARGUMENT = "ann"
VALUES: dict[str, Any] = {
    "str": "a name",
    "row": {"id": 5, "name": "ann", "email": "a@example.org", "age": 30, "admin": False},
    "rows": {"page": 1, "items": [{"id": number, "name": "ann"} for number in range(10)]},
}
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to cache a function; `module` is what must be there to import."""

    name: str
    decorate: Callable[[], Decorate]
    module: str = "perf_middleware"


def by_hand() -> Decorate:
    def decorate(load: Load) -> Load:
        kept: dict[str, Any] = {}

        async def cached(user_id: str) -> Any:
            if user_id in kept:
                return kept[user_id]
            value = kept[user_id] = await load(user_id)
            return value

        return cached

    return decorate


def ours(**options: Any) -> Decorate:
    from perf_middleware import ValueCache

    decorate: Any = ValueCache().cached(ttl=TTL_S, **options)
    return decorate  # type: ignore[no-any-return]


def cashews() -> Decorate:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://")
    return cache(ttl=TTL_S, key="user:{user_id}")  # type: ignore[no-any-return]


def aiocache() -> Decorate:
    from aiocache import cached

    return cached(ttl=TTL_S, namespace=f"bench-{next(_numbers)}")  # type: ignore[no-any-return]


def fastapi_cache() -> Decorate:
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    FastAPICache.init(InMemoryBackend())  # the second and later calls of a process do nothing
    return cache(expire=TTL_S, namespace=f"bench-{next(_numbers)}")  # type: ignore[no-any-return]


def rows() -> list[Row]:
    found = [
        Row(BARE, lambda: lambda load: load),
        Row(FLOOR, by_hand),
        Row(OURS, ours),
        Row(f"{OURS}, copy=False", lambda: ours(copy=False)),
        Row("cashews", cashews, "cashews"),
        Row("aiocache", aiocache, "aiocache"),
        Row("fastapi-cache2", fastapi_cache, "fastapi_cache"),
    ]
    return [row for row in found if find_spec(row.module) is not None]


def label(row: Row) -> str:
    """The name, of a peer with the version that is measured."""
    if row.module == "perf_middleware":
        return row.name
    return f"{row.name} {version(row.name)}"


async def measured(value: Any, *, rounds: int, calls: int, seed: int) -> dict[str, list[float]]:
    """Microseconds of a hit of each row, round by round."""
    loads = {label(row): await _checked(row, value) for row in rows()}
    order = list(loads)
    shuffle = random.Random(seed).shuffle
    times: dict[str, list[float]] = {name: [] for name in order}
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                gc.collect()
                load = loads[name]
                await _drive(load, calls // 10)
                times[name].append(await _drive(load, calls) / calls / 1000)
    finally:
        gc.unfreeze()
    return times


async def _checked(row: Row, value: Any) -> Load:
    runs = 0

    async def load(user_id: str) -> Any:
        nonlocal runs
        runs += 1
        return value

    cached = row.decorate()(load)
    for _ in range(3):
        if await cached(ARGUMENT) != value:
            raise CheckError(f"{row.name}: another value")
    if runs != (3 if row.name == BARE else 1):
        raise CheckError(f"{row.name}: ran its function {runs} times for 3 calls")
    return cached


async def _drive(load: Load, calls: int) -> int:
    began_ns = process_time_ns()
    for _ in range(calls):
        await load(ARGUMENT)
    return process_time_ns() - began_ns


def run(*, rounds: int, calls: int, loop: LoopName, seed: int = 1) -> list[Report]:
    """One report for each kind of value."""
    reports = []
    for name, value in VALUES.items():
        times = on_loop(loop, measured(value, rounds=rounds, calls=calls, seed=seed))
        reports.append(
            Report(
                title=f"a hit that returns {name}",
                baseline=FLOOR,
                peer=None,
                rounds=rounds,
                requests=calls,
                loop=loop,
                python=platform.python_version(),
                costs=costs(times, baseline=FLOOR, peer=None),
            )
        )
    return reports


def main() -> None:
    parser = arguments(__doc__, rounds=60)
    parser.add_argument("--calls", type=int, default=2_000, help="a round and row")
    parser.add_argument("--seed", type=int, default=1, help="of the order in a round")
    options = parser.parse_args()
    reports = run(rounds=options.rounds, calls=options.calls, loop=options.loop, seed=options.seed)
    for report in reports:
        print(f"\n{ratio_table(report, unit='us/hit', ratio='x dict')}")
    write_json(options.json, reports)


if __name__ == "__main__":
    main()
