"""What a timeout and the limits of a request cost, beside the timeouts that others offer.

    python -m benchmarks.deadlines

A raw ASGI app that answers at once: the timer is set and stopped, no limit is reached.  The second
and the third are of requests with a body, which the app reads to its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import anyio

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
from perf_middleware import DeadlineMiddleware, RequestLimitsMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send

BARE: Final = "no limit"
BODY: Final = b'{"id":17,"name":"a rather ordinary item"}'
TIMEOUT_S: Final = 30.0  # reached by nobody
HEADERS: Final = (
    (b"host", b"api.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json"),
    (b"accept-language", b"en"),
    (b"accept-encoding", b"gzip, br"),
    (b"x-forwarded-for", b"198.51.100.7"),
    (b"grpc-timeout", b"20S"),
)


def scope_with(*headers: tuple[bytes, bytes]) -> Callable[[], Scope]:
    def scope() -> Scope:
        return {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1", "method": "POST", "scheme": "https", "path": "/items",
            "raw_path": b"/items", "query_string": b"", "root_path": "",
            "client": ("10.0.0.1", 50_000), "server": ("192.0.2.1", 443),
            "headers": [*HEADERS, *headers], "state": {},
        }  # fmt: skip

    return scope


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, if there is one, and answers."""
    if scope["headers"][-1][0] in (b"content-length", b"transfer-encoding"):
        while (await receive()).get("more_body", False):
            pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class AroundAsyncio:
    """The least that asyncio.timeout needs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await self.app(scope, receive, send)


class AroundAnyio:
    """The least that anyio.fail_after needs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.fail_after(TIMEOUT_S):
            await self.app(scope, receive, send)


def timed(**settings: Any) -> Callable[[], ASGIApp]:
    return lambda: DeadlineMiddleware(raw, **settings)


def limited(**settings: Any) -> Callable[[], ASGIApp]:
    return lambda: RequestLimitsMiddleware(raw, **settings)


def _case(name: str, build: Callable[[], ASGIApp], *headers: tuple[bytes, bytes]) -> Case:
    expected = Answer(status=200, body=BODY)
    return Case(name=name, build=build, scope=scope_with(*headers), expected=expected)


def head_cases() -> list[Case]:
    rules = [{"path": "/other", "timeout_s": TIMEOUT_S}]
    return [
        _case(BARE, lambda: raw),
        _case("DeadlineMiddleware", timed(timeout_s=TIMEOUT_S)),
        _case(
            "  told by a caller",
            timed(timeout_s=TIMEOUT_S, follow_header=True, trusts=lambda scope: True),
        ),
        _case("  rules, and none holds", timed(rules=rules)),
        _case("asyncio.timeout", lambda: AroundAsyncio(raw)),
        _case("anyio.fail_after", lambda: AroundAnyio(raw)),
        _case("RequestLimitsMiddleware: no body", limited(body_bytes_max=1_000)),
        _case(
            "  all limits of the head",
            limited(header_bytes_max=9_000, header_count_max=90, url_bytes_max=900),
        ),
    ]


def body_cases(name: bytes, value: bytes) -> list[Case]:
    told = (name, value)
    return [
        _case(BARE, lambda: raw, told),
        _case("body_bytes_max", limited(body_bytes_max=1_000), told),
        _case("body_idle_s", limited(body_idle_s=TIMEOUT_S), told),
    ]


def run(plan: Plan) -> list[Report]:
    """One report for each table."""
    known = body_cases(b"content-length", b"1")
    chunked = body_cases(b"transfer-encoding", b"chunked")
    return [
        measure("no body", head_cases(), plan, baseline=BARE),
        measure("a body of known length", known, plan, baseline=BARE),
        measure("a body in chunks", chunked, plan, baseline=BARE),
    ]


def main() -> None:
    """Print every table."""
    defaults = Plan(rounds=200, requests=200, seconds_max=20)
    options = plan_arguments(__doc__, defaults=defaults).parse_args()
    reports = run(plan_of(options))
    for report in reports:
        print(table(report), "\n")
    write_json(options.json, reports)


if __name__ == "__main__":
    main()
