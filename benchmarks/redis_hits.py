"""What a hit from Redis costs: the whole request, beside a bare `GET` of the same bytes.

Each request is one for a response that is in Redis and not in memory: the URLs come one after the
other, and memory, which is full, has let go of each long before it comes again.  So what is taken
into memory drives something else out, as it does in a process that has run for a while.  (A memory
that is emptied before each round gives its pages back to the system, and pays for 3.7 page faults
a request to get them again: a fifth of a GET, and nothing of the cache's.)  Wall time, for a hit
waits for Redis; in short interleaved rounds on one event loop, so that what else the machine does
meets all rows alike.

    python -m benchmarks.redis_hits --redis redis://127.0.0.1:6379/15

Keys are written under names of their own and deleted afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
from contextlib import AsyncExitStack
from itertools import count, cycle
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from benchmarks.cache_apps import (
    CACHE_ALONE,
    PATH,
    PREBUILT,
    STORE_FOR_AN_HOUR,
    TTL_S,
    Calls,
    app_of,
)
from benchmarks.cache_peers import redis_peers
from benchmarks.figures import costs
from benchmarks.layers import HEADERS, LARGE_BYTES, scopes
from benchmarks.runner import CheckError, answer_of, on_loop
from perf_middleware import Settings, cache_response, install

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI

    from perf_middleware import Perf
    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send

BARE: Final = "redis-py: GET"
OURS: Final = "perf_middleware: hit from Redis"
AROUND: Final = "perf_middleware around FastAPI: hit from Redis"
HIT_OF_GET_TARGET: Final = 1.3  # a hit from Redis: at most so many times a bare GET
URLS: Final = 512  # 10 MB
AT_ONCE: Final = 64  # requests of a round
MEMORY_BYTES: Final = 1 << 20  # for a tenth of the URLs
NAMESPACE: Final = "perf-benchmark"
ROUNDS: Final = 60
STORED_S: Final = 0.005  # stores happen behind the answer


def ours(url: str, calls: Calls) -> FastAPI:
    """The app with the cache alone, inside FastAPI's own layers as the peers are."""
    app = app_of(PREBUILT, calls, decorate=cache_response(ttl=TTL_S))
    install(app, _settings(url, NAMESPACE))
    return app


def ours_around(url: str, calls: Calls) -> Perf:
    """The same around FastAPI, as around any ASGI app: what the cache itself takes."""
    app = app_of(PREBUILT, calls, cache_control=STORE_FOR_AN_HOUR)

    async def any_app(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return install(any_app, _settings(url, f"{NAMESPACE}-around"))


def _settings(url: str, namespace: str) -> Settings:
    shared = {"url": url, "namespace": namespace, "timeout_s": 2.0}
    return Settings(**{**CACHE_ALONE, "cache": {"bytes_max": MEMORY_BYTES}}, redis=shared)


def paths() -> Callable[[], Scope]:
    """A scope of the next of URLS paths at each call."""
    scope_of = [scopes(PATH.replace("{item}", str(n)), HEADERS) for n in range(URLS)]
    numbers = count()

    def scope() -> Scope:
        return scope_of[next(numbers) % URLS]()

    return scope


async def measured(url: str, *, rounds: int) -> dict[str, list[float]]:
    """Microseconds for each request, by row and round.

    Raises CheckError for a row that is no hit from Redis.
    """
    from redis.asyncio import Redis

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Redis.from_url(url))
        stack.push_async_callback(_forget, client)
        keys = [f"{NAMESPACE}:bare:{number}" for number in range(URLS)]
        for key in keys:
            await client.set(key, LARGE_BYTES)
        next_key = cycle(keys)
        rows: dict[str, Callable[[], Awaitable[Any]]] = {BARE: lambda: client.get(next(next_key))}
        calls: dict[str, Calls] = {}
        inside = ours(url, calls.setdefault(OURS, Calls()))
        around = ours_around(url, calls.setdefault(AROUND, Calls()))
        bundles = (inside.state.perf, around)
        apps: dict[str, Any] = {OURS: inside, AROUND: around}
        for peer in redis_peers():
            apps[peer.label] = peer.build(url, calls.setdefault(peer.label, Calls()))
        for perf in bundles:
            await stack.enter_async_context(perf.running())
        for name, app in apps.items():
            rows[name] = await _row(name, app, calls[name])
        found_before = [perf.cache.status()["shared"]["found"] for perf in bundles]
        taken: dict[str, list[float]] = {name: [] for name in rows}
        order = list(rows)
        draw = random.Random(1)
        for _ in range(rounds):
            draw.shuffle(order)
            for name in order:
                ask = rows[name]
                gc.collect()
                gc.freeze()
                began_ns = perf_counter_ns()
                for _ in range(AT_ONCE):
                    await ask()
                taken[name].append((perf_counter_ns() - began_ns) / AT_ONCE / 1_000)
        for name in apps:
            if calls[name].count:
                raise CheckError(f"{name}: the app was asked {calls[name].count} times")
        for perf, found in zip(bundles, found_before, strict=True):
            from_redis = perf.cache.status()["shared"]["found"] - found
            if from_redis != rounds * AT_ONCE:
                raise CheckError(f"{from_redis} hits of {rounds * AT_ONCE} were from Redis")
        return {name: taken[name] for name in rows}


async def _row(name: str, app: ASGIApp, calls: Calls) -> Callable[[], Awaitable[Any]]:
    """Fill Redis with every URL, and see that from then on the app is not asked."""
    next_scope = paths()
    for number in range(2 * URLS):
        got = await answer_of(app, next_scope())
        if got.status != 200 or got.body != LARGE_BYTES:
            raise CheckError(f"{name}: answered {got.status} {got.body[:200]!r}")
        if number < URLS:
            await asyncio.sleep(STORED_S)
    calls.count = 0
    return lambda: _request(app, next_scope())


async def _request(app: ASGIApp, scope: Scope) -> None:
    await app(scope, _receive, _send)


async def _receive() -> Any:
    await asyncio.Event().wait()


async def _send(message: Any) -> None:
    del message


async def _forget(client: Any) -> None:
    async for key in client.scan_iter(f"*{NAMESPACE}*", count=500):
        await client.unlink(key)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/15")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    options = parser.parse_args()
    taken = on_loop(options.loop, measured(options.redis, rounds=options.rounds))
    print(f"### A hit from Redis: {options.rounds} rounds x {AT_ONCE} requests\n")
    print("| | us/request | quartiles | x GET |\n|---|--:|--:|--:|")
    for cost in costs(taken, baseline=BARE):
        took = cost.request_us
        print(
            f"| {cost.name} | {took.median:.1f} | {took.low:.1f} .. {took.high:.1f} "
            f"| {cost.ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
