"""A shop whose pages are warmed, driven in process."""

import anyio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, cache_response, install
from tests.caching.stage import Clock
from tests.driving import DEADLINE_S, ask, http_scope

HOST = ("host", "shop.example")
BASE = {
    "base_url": "http://shop.example",
    # No test is about these unless it says so: a process may be paused for seconds.
    "wait_s": 2 * DEADLINE_S,
    "run_s": 4 * DEADLINE_S,
    "request_s": 4 * DEADLINE_S,
}
QUIET = {
    "metrics": {"workers": False},
    "runtime": {"enabled": False},
    "dashboard": {"enabled": False},
    "overload": {"enabled": False},
    "threads": {"enabled": False},
}


class WordlessError(Exception):
    """Its text cannot be had."""

    def __str__(self):
        raise RuntimeError("no words")


class Shop:
    """An app on a clock of the test's; notes each call of an endpoint."""

    def __init__(self, *, middleware=(), clock=None, **settings):
        self.calls = []
        self.gate = None
        self.failing = False
        self.status = 200

        @cache_response(ttl=60)
        async def item(request):
            self.calls.append((request.url.path, request.headers.get("accept-language")))
            if self.gate is not None:
                await self.gate.wait()
            if self.failing:
                raise RuntimeError("the shop is closed")
            body = f"{request.url.path} {len(self.calls)} " + "x" * 2_000
            headers = {"vary": "accept-language"} if "lang" in request.url.path else {}
            return PlainTextResponse(body, headers=headers, status_code=self.status)

        async def never(request):
            self.calls.append((request.url.path, None))
            return PlainTextResponse("never", headers={"cache-control": "no-store"})

        self.app = Starlette(
            routes=[Route("/never", never), Route("/{path:path}", item)],
            middleware=list(middleware),
        )
        warming = BASE | settings.pop("warming", {})
        self.perf = install(self.app, Settings(**(QUIET | settings), warming=warming))
        self.cache = self.perf.cache
        self.clock = clock
        if clock is not None:
            clock.us = self.cache.clock()
            self.cache.clock, self.cache.wall_s = clock, clock.wall_s

    @property
    def figures(self):
        return self.perf.status()["resources"]["warming"]["detail"]

    async def get(self, path, *headers):
        return await ask(self.app, http_scope(path, headers=[HOST, *headers]))


def shop_of(**warming):
    return Shop(clock=Clock(), warming=warming)


def paths(shop):
    return sorted(path for path, _ in shop.calls)


def run(scenario):
    async def bounded():
        with anyio.fail_after(DEADLINE_S):
            await scenario()

    anyio.run(bounded)


async def until(look):
    with anyio.fail_after(DEADLINE_S):
        while not look():
            await anyio.sleep(0.005)


def by_hand(warming):
    """`refresh_due`, which from now on only the test calls."""
    refresh_due = warming.refresh_due

    async def nothing():
        return 0

    warming.refresh_due = nothing
    return refresh_due
