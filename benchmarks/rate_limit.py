"""What judging a request costs: ours, and what others use, in one interleaved run.

    python -m benchmarks.rate_limit        # slowapi, limits and fastapi-limiter where installed

First table: a raw ASGI app.  `limits` is a library, so it gets the least middleware that can be
written around it, with the fields that ours tells.  Second table: a FastAPI app, for peers that
need one.  Third: a refused request, whole.  All buckets are in memory, one client asks.
"""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast

from fastapi import Depends, FastAPI, Response

from benchmarks.runner import (
    Answer,
    Case,
    Plan,
    Report,
    answer_of,
    measure,
    plan_arguments,
    plan_of,
    table,
    write_json,
)
from perf_middleware.limits.rate.middleware import RateLimitLayer, RateLimitMiddleware
from perf_middleware.limits.rate.settings import RateLimitSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send

BARE: Final = "no rate limit"
INSTALLED: Final = "the layer of install: one quota"
OURS: Final = "RateLimitMiddleware: one quota"
BODY: Final = b'{"id":17,"name":"a rather ordinary item"}'
PLENTY: Final = "1000000/second"  # nobody is refused
MANY: Final = 1_000_000
ADDED_US_TARGET: Final = 4.0
REFUSED_US_TARGET: Final = 6.0
HEADERS: Final = (
    (b"host", b"api.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json"),
    (b"accept-language", b"en"),
    (b"x-forwarded-for", b"198.51.100.7, 10.0.0.2"),  # of a proxy: the peer is one
    (b"x-api-key", b"4f2a7c1e9b3d4f2a7c1e9b3d"),
)


def scope() -> Scope:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
        "method": "GET", "scheme": "https", "path": "/items", "raw_path": b"/items",
        "query_string": b"", "root_path": "", "client": ("10.0.0.1", 50_000),
        "server": ("192.0.2.1", 443), "headers": [*HEADERS], "state": {},
    }  # fmt: skip


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """The least app."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def ours(app: ASGIApp, **settings: Any) -> ASGIApp:
    return RateLimitMiddleware(app, **{"quotas": [PLENTY], **settings})


def as_installed(app: ASGIApp) -> ASGIApp:
    """The layer that `install` puts into the stack: without the frame that servers ask for."""
    rate = RateLimitSettings(quotas=(PLENTY,)).make_rate_limit()
    return RateLimitLayer(app, rate, place="outer")


class AroundLimits:
    """The least that `limits` needs: hit, then the window's figures for the fields."""

    def __init__(self, app: ASGIApp, strategy: Any, item: Any) -> None:
        self.app = app
        self._strategy = strategy
        self._item = item
        self._policy = (b"ratelimit-policy", b'"default";q=%d;w=%d' % (item.amount, item.multiples))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["client"][0]
        if not await self._strategy.hit(self._item, client):
            await send({"type": "http.response.start", "status": 429, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        _, remaining = await self._strategy.get_window_stats(self._item, client)

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                state = (b"ratelimit", b'"default";r=%d;t=1' % remaining)
                headers = [*message["headers"], self._policy, state]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, telling)


def around_limits(strategy: str) -> ASGIApp:
    from limits import RateLimitItemPerSecond
    from limits.aio import storage, strategies

    made = getattr(strategies, strategy)(storage.MemoryStorage())
    return AroundLimits(raw, made, RateLimitItemPerSecond(MANY))


def fastapi_app(*dependencies: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/items", dependencies=[Depends(each) for each in dependencies])
    async def items() -> Response:
        return Response(BODY, media_type="application/json")

    return app


def with_ours() -> ASGIApp:
    app, middleware = fastapi_app(), cast("Any", RateLimitMiddleware)
    app.add_middleware(middleware, quotas=[PLENTY])
    return app


def with_slowapi() -> ASGIApp:
    from slowapi import Limiter
    from slowapi.middleware import SlowAPIASGIMiddleware
    from slowapi.util import get_remote_address

    app = fastapi_app()
    app.state.limiter = Limiter(
        key_func=get_remote_address, default_limits=[f"{MANY}/second"], headers_enabled=True
    )
    app.add_middleware(SlowAPIASGIMiddleware)
    return app


def with_fastapi_limiter() -> ASGIApp:
    from fastapi_limiter.depends import RateLimiter
    from pyrate_limiter import Duration, Limiter, Rate

    return fastapi_app(RateLimiter(Limiter(Rate(MANY, Duration.SECOND))))


def _case(name: str, build: Callable[[], ASGIApp], *names: bytes) -> Case:
    expected = Answer(status=200, body=BODY, header_names=frozenset(names))
    return Case(name=name, build=build, scope=scope, expected=expected)


def raw_cases() -> list[Case]:
    told = (b"ratelimit", b"ratelimit-policy")
    proxied = {"trusted_proxies": ["10.0.0.0/8"]}
    by_key = {"quotas": [{"limit": PLENTY, "key": "header:x-api-key"}]}
    rules = {"rules": [{"path": "/other", "quotas": [PLENTY]}]}
    two = {"quotas": [PLENTY, {"limit": "1000000/second;burst=100000000", "name": "second"}]}
    cases = [
        _case(BARE, lambda: raw),
        _case("RateLimitMiddleware: no quota", lambda: ours(raw, quotas=[])),
        _case(INSTALLED, lambda: as_installed(raw), *told),
        _case(OURS, lambda: ours(raw), *told),
        _case("  no fields told", lambda: ours(raw, headers=False)),
        _case("  and rules", lambda: ours(raw, **rules), *told),
        _case("  behind a proxy", lambda: ours(raw, **proxied), *told),
        _case("  key: a header", lambda: ours(raw, **by_key), *told),
        _case("  two quotas", lambda: ours(raw, **two), *told),
    ]
    if find_spec("limits") is not None:
        for strategy in ("FixedWindowRateLimiter", "SlidingWindowCounterRateLimiter"):
            name = f"limits {strategy.removesuffix('RateLimiter')}"
            cases.append(_case(name, partial(around_limits, strategy), *told))
    return cases


def fastapi_cases() -> list[Case]:
    cases = [
        _case(BARE, fastapi_app),
        _case(OURS, with_ours, b"ratelimit", b"ratelimit-policy"),
    ]
    if find_spec("slowapi") is not None:
        cases.append(_case("slowapi", with_slowapi, b"x-ratelimit-remaining"))
    if find_spec("fastapi_limiter") is not None:
        cases.append(_case("fastapi-limiter (no fields)", with_fastapi_limiter))
    return cases


def refused_cases() -> list[Case]:
    told = frozenset({b"retry-after", b"ratelimit", b"ratelimit-policy"})

    async def body(app: ASGIApp) -> bytes:
        return (await answer_of(app, scope())).body

    cases = [_case(BARE, lambda: raw)]
    for name, quotas in (
        ("refused", ["1/day"]),
        ("refused by one of two quotas", [PLENTY, "1/day"]),
    ):
        app = ours(raw, quotas=quotas)
        asyncio.run(answer_of(app, scope()))  # the one request of the day
        expected = Answer(status=429, body=asyncio.run(body(app)), header_names=told)
        cases.append(Case(name=name, build=partial(_the_same, app), scope=scope, expected=expected))
    return cases


def _the_same(app: ASGIApp) -> ASGIApp:
    return app


def run(plan: Plan) -> list[Report]:
    """One report for each table."""
    return [
        measure("a raw ASGI app", raw_cases(), plan, baseline=BARE),
        measure("a FastAPI app", fastapi_cases(), plan, baseline=BARE),
        measure("refused", refused_cases(), plan, baseline=BARE),
    ]


def main() -> None:
    """Print every table."""
    defaults = Plan(rounds=200, requests=200, seconds_max=20)
    options = plan_arguments(__doc__, defaults=defaults).parse_args()
    reports = run(plan_of(options))
    for report in reports:
        print(table(report), "\n")
    print(
        f"targets: {ADDED_US_TARGET:.0f} us added by one quota, "
        f"{REFUSED_US_TARGET:.0f} us for a refused request, whole"
    )
    write_json(options.json, reports)


if __name__ == "__main__":
    main()
