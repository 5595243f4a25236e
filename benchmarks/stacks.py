"""What the whole stack costs beside the least that could do its work: µs added to a request.

    python -m benchmarks.stacks            # a table for 20 kB, and one for 200 B

Each layer alone, the defaults, and everything on: nobody is refused, no coding of ours is accepted
(it is negotiated), and the cache misses and has nothing to store.  The event loop turns after each
request, as in a server: what backpressure does at the end of a turn is counted, and it does not
take all requests of a round for one long turn.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from benchmarks.layers import (
    HEADERS,
    OFF,
    PassThrough,
    Route,
    bare_app,
    scopes,
)
from benchmarks.layers import ROUTES as BODIES
from benchmarks.runner import (
    Answer,
    Case,
    Plan,
    Report,
    measure,
    plan_arguments,
    plan_of,
    table,
    write_json,
)
from benchmarks.stack_peers import INSTRUMENTATOR as PEER
from benchmarks.stack_peers import PEERS, instrumentator
from benchmarks.stack_peers import installed as installed_ones
from perf_middleware import Settings, install

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi import FastAPI

    from benchmarks.stack_peers import StackPeer
    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send

BARE: Final = "bare app"
MINIMUM: Final = "hand-written minimum of everything"
DEFAULTS: Final = "install: defaults"
EVERYTHING: Final = "install: everything"
ADDED_US_TARGET: Final = 15.0
PEER_SHARE_TARGET: Final = 0.5
PATH: Final = "/large/{item}"
PLENTY: Final = "1000000/minute"  # nobody is refused
TELLING: Final = (b"ratelimit", b"ratelimit-policy", b"cache-status")

_OFF: Final[dict[str, Any]] = {
    "metrics": {**OFF, "overhead": False}, "runtime": OFF, "dashboard": OFF, "cache": OFF,
    "compression": OFF, "memory": OFF, "ratelimit": OFF, "lifespan": OFF,  # none is run here
}  # fmt: skip
LIMITED: Final = {"quotas": [PLENTY]}
ALL_ON: Final[dict[str, Any]] = {
    "lifespan": OFF, "ratelimit": LIMITED, "backpressure": {"enabled": True},
    "memory": {"shed": True},
}  # fmt: skip


class Minimum:
    """The least that does the work of all layers, as one callable with one wrapped `send`.

    Duration by route and status, in flight, a token bucket by client and its fields, the coding
    that was negotiated, and a look into a cache that has nothing and is given nothing to store.
    It misses what makes these fit for every app: whatever can go wrong, and every bound.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bounds_ns = [50_000 * 2**power for power in range(20)]
        self._counts: dict[tuple[str, str, int], list[int]] = {}
        self._buckets: dict[str, tuple[float, int]] = {}
        self._codings: dict[bytes, tuple[str, ...]] = {b"identity": ()}
        self._stored: dict[tuple[bytes, str, bytes], Any] = {}
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_ns = perf_counter_ns()
        client = scope["client"][0]
        tokens, then_ns = self._buckets.get(client, (1e6, began_ns))
        tokens = min(tokens + (began_ns - then_ns) * 1e-3, 1e6) - 1.0
        self._buckets[client] = tokens, began_ns
        accepted, host = b"", b""
        for name, value in scope["headers"]:
            if name == b"accept-encoding":
                accepted = value
            elif name == b"host":
                host = value
        codings = self._codings.get(accepted)
        stored = self._stored.get((host, scope["path"], scope["query_string"]))
        if tokens < 0 or self._in_flight >= 1_000 or codings or stored:
            raise NotImplementedError  # none of these happens here
        self._in_flight += 1
        status = 500

        def sending(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [
                    *message["headers"],
                    (b"ratelimit-policy", b'"default";q=1000000;w=60'),
                    (b"ratelimit", b'"default";r=%d;t=1' % tokens),
                    (b"cache-status", b"perf; fwd=uri-miss"),
                ]
                return send({**message, "headers": headers})
            return send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._in_flight -= 1
            key = (scope["method"], scope["route"].path, status)
            counts = self._counts.get(key)
            if counts is None:
                counts = self._counts[key] = [0] * (len(self._bounds_ns) + 1)
            counts[bisect_left(self._bounds_ns, perf_counter_ns() - began_ns)] += 1


def installed(sections: dict[str, Any], app: Callable[[], FastAPI] = bare_app) -> ASGIApp:
    """A fresh app with these settings."""
    made = app()
    install(made, Settings(**sections))
    return made


def inside(peer: Callable[[FastAPI], None]) -> ASGIApp:
    """A fresh app with what others put around it."""
    app = bare_app()
    peer(app)
    return app


def cases(route: Route, peers: Sequence[StackPeer] = PEERS) -> list[Case]:
    """Every row of the table, in its order; peers that are not installed are left out."""
    scope = scopes(route.path, HEADERS)

    def case(name: str, build: Callable[[], ASGIApp], *headers: bytes) -> Case:
        expected = Answer(status=200, body=route.body, header_names=frozenset(headers))
        return Case(name=name, build=build, scope=scope, expected=expected)

    def alone(name: str, section: str, settings: Any, *headers: bytes) -> Case:
        return case(name, lambda: installed({**_OFF, section: settings}), *headers)

    return [
        case(BARE, bare_app),
        case("pass-through layer", lambda: PassThrough(bare_app())),
        case("install: all off", lambda: installed(_OFF)),
        alone("metrics alone", "metrics", {"overhead": False}),
        alone("operator endpoints alone", "dashboard", {}),
        alone("rate limit alone", "ratelimit", LIMITED, *TELLING[:2]),
        alone("compression alone, nothing accepted", "compression", {}),
        alone("cache alone, nothing to store", "cache", {}, b"cache-status"),
        alone("memory watch alone", "memory", {"shed": True}),
        alone("backpressure alone", "backpressure", {"enabled": True}),
        case(DEFAULTS, lambda: installed({"lifespan": OFF}), b"cache-status"),
        case(EVERYTHING, lambda: installed(ALL_ON), *TELLING),
        case(MINIMUM, lambda: Minimum(bare_app()), *TELLING),
        case(PEER, partial(inside, instrumentator)),
        *(case(peer.label, partial(inside, peer.wrap)) for peer in installed_ones(peers)),
    ]


def run(plan: Plan, routes: Sequence[Route] = BODIES) -> list[Report]:
    """One report for each route."""
    return [measure(route.name, cases(route), plan, baseline=BARE, peer=PEER) for route in routes]


def targets(report: Report) -> str:
    """Where we stand beside our targets."""
    cost, minimum = report[EVERYTHING], report[MINIMUM]
    share = "?" if cost.peer_share is None else f"{cost.peer_share:.2f}"
    return (
        f"{EVERYTHING}: {cost.added_us.median:.1f} us (target {ADDED_US_TARGET:.0f}; by hand "
        f"{minimum.added_us.median:.1f}), {share} x {PEER} (target {PEER_SHARE_TARGET})"
    )


def main() -> None:
    """Print the tables."""
    options = plan_arguments(__doc__, defaults=Plan()).parse_args()
    reports = run(replace(plan_of(options), turns=True))
    for report in reports:
        print(f"{table(report)}\n\n{targets(report)}\n")
    write_json(options.json, reports)


if __name__ == "__main__":
    main()
