"""What telemetry costs: microseconds added to a request of a FastAPI app, option by option.

The same app is measured bare, inside what is measured by hand, by ours as far as settings can take
it apart, and by what others use; the other layers and their stack are in stacks.py.  Two routes:

    20 kB   a Response of prebuilt JSON bytes: little work of the app's own, so a layer shows best
    200 B   a dict that FastAPI serialises: what most endpoints do
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from prometheus_client import CollectorRegistry, Histogram
from starlette.middleware.base import BaseHTTPMiddleware

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
from benchmarks.stack_peers import instrumentator
from perf_middleware import Settings, install
from perf_middleware.metrics.middleware import MetricsMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send

BARE = "bare app"
DEFAULTS = "install: telemetry as by default"
EVERYTHING = "install: all telemetry on"
ADDED_US_TARGET = 8.0  # what everything on may add to a request
PEER_SHARE_TARGET = 0.25  # of what the instrumentator adds

SMALL = {
    "id": 17,
    "name": "a rather ordinary item",
    "price": 12.5,
    "tags": ["new", "blue", "sale"],
    "stock": {"here": 4, "elsewhere": 120},
    "description": "Comes in a box of twelve; the colour may differ from the picture.",
}
SMALL_BYTES = json.dumps(SMALL, separators=(",", ":")).encode()
LARGE_BYTES = json.dumps([SMALL] * 100, separators=(",", ":")).encode()

HEADERS = (
    (b"host", b"api.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json"),
    (b"accept-language", b"en"),
    (b"accept-encoding", b"identity"),  # what a coding costs says benchmarks/compression.py
    (b"connection", b"keep-alive"),
)
SAMPLED_TRACE = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

METRICS_ALONE = {"trace_context": False, "exemplars": False, "slow_request_s": None,
                 "overhead": False, "default_registry": False}  # fmt: skip
OFF = {"enabled": False}


class PassThrough:
    """The least that a layer can be."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class HandWritten:
    """The least that measures: duration by route and status, its prometheus_client child kept.

    It misses what MetricsMiddleware does beside: bytes, first byte, exceptions, clients that left,
    templates of mounted routes, bounded labels, exemplars, slow requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._seconds = Histogram(
            "seconds", "Duration.", ("method", "route", "status"), registry=CollectorRegistry()
        )
        self._children: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = perf_counter()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            key = (scope["method"], scope["route"].path, status)
            child = self._children.get(key)
            if child is None:
                child = self._children[key] = self._seconds.labels(*key)
            child.observe(perf_counter() - began)


class NothingToDo(BaseHTTPMiddleware):
    """A BaseHTTPMiddleware that does nothing, for scale."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@dataclass(frozen=True, slots=True)
class Route:
    """What is asked for, and what must come back."""

    name: str
    path: str
    body: bytes


ROUTES = (
    Route("FastAPI, 20 kB of prebuilt bytes", "/large/{item}", LARGE_BYTES),
    Route("FastAPI, 200 B from a dict", "/small/{item}", SMALL_BYTES),
)


def bare_app() -> FastAPI:
    """The app that all cases share, fresh."""
    app = FastAPI()

    @app.get("/large/{item}")
    async def large(item: str) -> Response:
        return Response(LARGE_BYTES, media_type="application/json")

    @app.get("/small/{item}")
    async def small(item: str) -> dict[str, Any]:
        return SMALL

    return app


def _inside(middleware: Any, **options: Any) -> Callable[[], ASGIApp]:
    def build() -> ASGIApp:
        app = bare_app()
        app.add_middleware(middleware, **options)
        return app

    return build


def _installed(**sections: Any) -> Callable[[], ASGIApp]:
    def build() -> ASGIApp:
        app = bare_app()
        install(app, Settings(lifespan=OFF, **sections))  # none is run here, so none is missed
        return app

    return build


def _instrumented() -> ASGIApp:
    app = bare_app()
    instrumentator(app)
    return app


def scopes(path: str, headers: Sequence[tuple[bytes, bytes]]) -> Callable[[], Scope]:
    """What makes the scope of each GET of `path`, as a server behind TLS does."""
    path = path.replace("{item}", "17")
    template = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
        "method": "GET", "scheme": "https", "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "client": ("203.0.113.7", 50_000),
        "server": ("192.0.2.1", 443),
    }  # fmt: skip

    def scope() -> Scope:
        return {**template, "headers": [*headers], "state": {}}

    return scope


def cases(route: Route) -> list[Case]:
    """Every row of the table, in its order."""
    plain = scopes(route.path, HEADERS)
    traced = scopes(route.path, (*HEADERS, SAMPLED_TRACE))

    def case(name: str, build: Callable[[], ASGIApp], *headers: bytes, scope: Any = plain) -> Case:
        expected = Answer(status=200, body=route.body, header_names=frozenset(headers))
        return Case(name=name, build=build, scope=scope, expected=expected)

    timing, trace = b"server-timing", b"traceresponse"
    telemetry = {"server_timing": True, "trace_response": True}
    everything = _installed(metrics=telemetry, cache=OFF, compression=OFF, memory=OFF)
    alone = {
        "runtime": OFF, "dashboard": OFF, "cache": OFF, "compression": OFF, "memory": OFF,
    }  # fmt: skip
    off = {**OFF, "overhead": False}
    return [
        case(BARE, bare_app),
        case("pass-through layer", _inside(PassThrough)),
        case("hand-written metrics", _inside(HandWritten)),
        case(
            "MetricsMiddleware, options off, no install",
            _inside(MetricsMiddleware, trace_context=False, exemplars=False, slow_request_s=None),
        ),
        case("MetricsMiddleware, no install", _inside(MetricsMiddleware)),
        case("install: all off", _installed(metrics=off, **alone)),
        case(
            "install: operator endpoints only",
            _installed(metrics=off, **{**alone, "dashboard": {}}),
        ),
        case("install: metrics only, options off", _installed(metrics=METRICS_ALONE, **alone)),
        case(
            "  + server_timing",
            _installed(metrics={**METRICS_ALONE, "server_timing": True}, **alone),
            timing,
        ),
        case(
            "  + trace_context, exemplars",
            _installed(
                metrics={**METRICS_ALONE, "trace_context": True, "exemplars": True}, **alone
            ),
        ),
        case(
            "  + trace_context, trace_response",
            _installed(
                metrics={**METRICS_ALONE, "trace_context": True, "trace_response": True}, **alone
            ),
            trace,
        ),
        case("  + self-metering", _installed(metrics={**METRICS_ALONE, "overhead": True}, **alone)),
        case(DEFAULTS, _installed(cache=OFF, compression=OFF, memory=OFF)),
        case(
            "  + a database that this request does not use",
            _installed(cache=OFF, compression=OFF, memory=OFF, database={"url": "sqlite://"}),
        ),
        case(EVERYTHING, everything, timing, trace),
        case(f"{EVERYTHING}, traced client", everything, timing, trace, scope=traced),
        case(PEER, _instrumented),
        case("BaseHTTPMiddleware, nothing to do", _inside(NothingToDo)),
    ]


def run(plan: Plan) -> list[Report]:
    """One report for each route."""
    return [measure(route.name, cases(route), plan, baseline=BARE, peer=PEER) for route in ROUTES]


def targets(report: Report) -> str:
    """Where we stand beside our targets."""
    cost = report[EVERYTHING]
    share = "?" if cost.peer_share is None else f"{cost.peer_share:.2f}"
    return (
        f"{EVERYTHING}: {cost.added_us.median:.1f} us (target {ADDED_US_TARGET:.0f}), "
        f"{share} x {PEER} (target {PEER_SHARE_TARGET})"
    )


def main() -> None:
    """Print both tables."""
    options = plan_arguments(__doc__, defaults=Plan()).parse_args()
    plan = plan_of(options)
    reports = []
    for report in run(plan):
        reports.append(report)
        print(f"{table(report)}\n\n{targets(report)}\n")
    write_json(options.json, reports)


if __name__ == "__main__":
    main()
