"""A hit of the cache for a client that accepts gzip, with everything of ours on, and by others.

The others are the stack that is put together by hand (stack_peers.py).  What a request costs in it
that finds nothing stored stands in stacks.py, in the same rounds as ours.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from benchmarks.cache_apps import TTL_S, Calls, HandWritten
from benchmarks.codecs import json_body
from benchmarks.layers import HEADERS, scopes
from benchmarks.response_cache import (
    BARE,
    Row,
    Table,
    compared,
    markdown,
)
from benchmarks.runner import Plan, plan_arguments, plan_of, write_json
from benchmarks.stack_peers import ASSEMBLED, STACK, StackPeer
from benchmarks.stacks import ALL_ON
from perf_middleware import Settings, cache_response, install

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.asgi import ASGIApp

MINIMUM: Final = "hand-written minimum: hit, stored gzip"
OURS: Final = "install: everything: hit, stored gzip"
GZIP_ALONE: Final = "bare app in GZipMiddleware"
PATH: Final = "/orders/{item}"
BODY: Final = json_body(20_000)  # as alike as records are, not one over and over
PAYLOAD: Final = json.loads(BODY)
SPEEDUP_TARGET: Final = 12.0  # a hit: so many times as fast as the bare app, which sends no gzip
PEER_SPEEDUP_TARGET: Final = 100.0  # and as the assembled stack
HIT_US_TARGET: Final = 15.0

_numbers = count(1)  # fastapi-cache2 keeps its entries on a class: each app gets its own namespace
_accepting_gzip = scopes(
    PATH, tuple((name, b"gzip" if name == b"accept-encoding" else value) for name, value in HEADERS)
)


def orders_app(calls: Calls, decorate: Callable[[Any], Any] | None = None) -> FastAPI:
    """One route of 20 kB that FastAPI serialises, its endpoint inside `decorate`."""
    app = FastAPI()

    async def orders(item: str) -> dict[str, Any]:
        calls.count += 1
        return dict(PAYLOAD)

    # Named here, since fastapi-cache2 hides what the endpoint says that it returns: FastAPI would
    # serialise its hits in Python, three times as long.
    app.get(PATH, response_model=dict[str, Any])(orders if decorate is None else decorate(orders))
    return app


def assembled(calls: Calls) -> ASGIApp:
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    FastAPICache.init(InMemoryBackend())  # the second and later calls of a process do nothing
    app = orders_app(calls, cache(expire=TTL_S, namespace=f"assembled-{next(_numbers)}"))
    STACK.wrap(app)
    return app


def ours(calls: Calls) -> ASGIApp:
    app = orders_app(calls, cache_response(ttl=TTL_S))
    install(app, Settings(**ALL_ON))
    return app


def zipped(calls: Calls) -> FastAPI:
    app = orders_app(calls)
    app.add_middleware(GZipMiddleware)
    return app


def hand_written(calls: Calls) -> ASGIApp:
    """A dict that has the encoded answer, and nothing else of a stack."""
    app = zipped(calls)
    app.add_middleware(HandWritten)
    return app


def rows(stack: StackPeer = STACK) -> list[Row]:
    """Every row of the table, in its order."""
    coded = frozenset({b"content-encoding"})
    row = partial(Row, scope=_accepting_gzip, header_names=coded)
    found = [
        Row(name=BARE, build=orders_app, scope=_accepting_gzip, hit=False),
        row(name=GZIP_ALONE, build=zipped, hit=False),
        row(name=MINIMUM, build=hand_written, header_names=coded | {b"age"}),
        row(name=OURS, build=ours, header_names=coded | {b"age", b"ratelimit", b"cache-status"}),
    ]
    if stack.installed:
        told = coded | {b"x-fastapi-cache", b"x-ratelimit-remaining"}
        found.append(row(name=ASSEMBLED, build=assembled, header_names=told, peer=True))
    return found


def run(plan: Plan, stack: StackPeer = STACK) -> list[Table]:
    """One table.  Raises CheckError for a row that is no hit, or answers another body."""
    title = "FastAPI, 20 kB that it serialises, gzip accepted"
    skipped = [] if stack.installed else [stack.name]
    found = rows(stack)
    return [compared(title, found, plan, body=BODY, minimum=MINIMUM, ours=OURS, skipped=skipped)]


def targets(table: Table) -> str:
    """Where we stand beside our targets."""
    hit = table[OURS]
    told = (
        f"{OURS}: {hit.request_us.median:.1f} us in all (target {HIT_US_TARGET:.0f}), "
        f"{1 / hit.of_bare:.1f} times as fast as the bare app (target {SPEEDUP_TARGET:.0f})"
    )
    theirs = next((line.of_ours for line in table.lines if line.name == ASSEMBLED), None)
    if theirs is not None:
        told += f", {theirs:.0f} times as the assembled stack (target {PEER_SPEEDUP_TARGET:.0f})"
    return told


def main() -> None:
    """Print the table."""
    defaults = Plan(rounds=100, requests=20, turns=True)
    options = plan_arguments(__doc__, defaults=defaults).parse_args()
    (table,) = run(plan_of(options))
    print(f"{markdown(table)}\n\n{targets(table)}")
    write_json(options.json, [table])


if __name__ == "__main__":
    main()
