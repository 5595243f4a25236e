"""What operators see of the cache over /metrics of whole apps: routes, reasons, sums."""

import logging
import re
from collections import Counter

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from perf_middleware import Settings, install
from tests.caching.stage import App, Client, Clock, ask, cached, run, settle, verdict

pytestmark = pytest.mark.usefixtures("nothing_set")
LINE = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$")


async def figures(served):
    """{(name, labels as text): number}"""
    text = (await ask(served, "/metrics")).body.decode()
    found = (LINE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return {(each[1], each[2] or ""): float(each[3]) for each in found if each}


def of_routes(seen, name):
    """{route: number}, added up over the other labels."""
    sums = Counter()
    for (family, labels), number in seen.items():
        if family == name:
            sums[re.search(r'route="([^"]*)"', labels)[1]] += number
    return {route: number for route, number in sums.items() if number and route != "/metrics"}


class Shop:
    """An app of one route, `/items/{id}`, mounted or not, below the user's middlewares or not."""

    def __init__(self, kind):
        self.headers = {"cache-control": "max-age=60", "etag": '"1"'}
        self.status = 200
        self.raises = False
        self.gate = None

        async def endpoint(request):
            if self.gate is not None:
                await self.gate.wait()
            if self.raises:
                raise RuntimeError("broken")
            if request.headers.get("if-none-match") == self.headers.get("etag"):
                return PlainTextResponse(status_code=304, headers=self.headers)
            return PlainTextResponse("hello", status_code=self.status, headers=self.headers)

        routes = [Route("/items/{id}", endpoint, methods=["GET", "PUT"])]
        self.prefix = ""
        match kind:
            case "fastapi":
                self.app = FastAPI(routes=routes)
            case "mounted":
                self.prefix = "/shop"
                self.app = Starlette(routes=[Mount("/shop", routes=routes)])
            case "behind a middleware":
                self.app = Starlette(routes=routes, middleware=[Middleware(GZipMiddleware)])
            case _:
                self.app = Starlette(routes=routes)
        self.template = self.prefix + "/items/{id}"
        self.clock = Clock()
        self.perf = install(self.app, Settings())
        self.cache = self.perf.cache
        self.cache.clock = self.clock
        self.cache.wall_s = self.clock.wall_s

    async def get(self, id=5, *headers, **more):
        return await ask(self.app, f"{self.prefix}/items/{id}", *headers, **more)


@pytest.fixture(params=["plain", "fastapi", "mounted", "behind a middleware"])
def shop(request):
    return Shop(request.param)


CONFIRM = (b"if-none-match", b'"1"')


def test_requests_are_counted_by_template_whoever_answers_them(shop):
    """A miss, hits of all kinds, a bypass, a confirmed one, a new one, a collapsed one."""

    async def act():
        await shop.get()
        await shop.get()
        await shop.get(5, CONFIRM)
        await shop.get(5, (b"range", b"bytes=0-1"))
        await shop.get(5, method="HEAD")
        await shop.get(5, (b"cookie", b"a=1"))
        await shop.get(6)
        shop.clock.pass_s(100)
        assert "fwd-status=304" in verdict(await shop.get())
        shop.clock.pass_s(100)
        shop.headers = {"cache-control": "max-age=60, stale-if-error=60", "etag": '"2"'}
        assert "stored" in verdict(await shop.get())
        shop.gate = anyio.Event()
        waiting = [Client(f"{shop.prefix}/items/7") for _ in range(3)]
        async with anyio.create_task_group() as tasks:
            for client in waiting:
                tasks.start_soon(client.ask, shop.app)
            await settle()
            shop.gate.set()
        assert sum("collapsed" in client.verdict for client in waiting) == 2
        shop.clock.pass_s(70)
        shop.status, shop.headers = 503, {}
        assert (await shop.get(7)).status == 200
        seen = await figures(shop.app)
        assert of_routes(seen, "http_requests_total") == {shop.template: 13}
        for family, number in {
            "perf_cache_hits_total": 4,
            "perf_cache_misses_total": 6,
            "perf_cache_bypassed_total": 1,
            "perf_cache_collapsed_total": 2,
            "perf_cache_revalidated_total": 1,
            "perf_cache_errors_hidden_total": 1,
            "perf_cache_stored_total": 4,
        }.items():
            assert (family, of_routes(seen, family)) == (family, {shop.template: number})

    run(act)


def test_the_failure_of_what_was_to_be_confirmed_is_counted_by_template_too(shop):
    async def act():
        await shop.get()
        shop.clock.pass_s(100)
        shop.raises = True
        client = await Client(f"{shop.prefix}/items/5").ask(shop.app)
        assert isinstance(client.raised, RuntimeError)
        assert of_routes(await figures(shop.app), "http_requests_total") == {shop.template: 2}

    run(act)


def test_a_refresh_in_the_background_is_no_request_and_is_counted_apart(shop):
    async def act():
        shop.headers["cache-control"] = "max-age=10, stale-while-revalidate=60"
        await shop.get()
        shop.clock.pass_s(20)
        assert verdict(await shop.get()) == "hit; ttl=-10"
        seen = await figures(shop.app)
        assert of_routes(seen, "http_requests_total") == {shop.template: 2}
        assert of_routes(seen, "perf_cache_refreshed_total") == {shop.template: 1}
        assert of_routes(seen, "perf_cache_stale_hits_total") == {shop.template: 1}
        assert of_routes(seen, "perf_cache_misses_total") == {shop.template: 1}

    run(act)


def test_each_request_that_was_looked_up_is_a_hit_a_miss_or_collapsed():
    async def act():
        shop = Shop("plain")
        for number in range(300):
            shop.headers = [{"cache-control": "max-age=3"}, {}, {"cache-control": "no-store"}][
                number % 3
            ]
            headers = [(b"cookie", b"a=1")] if number % 5 == 0 else []
            await shop.get(number % 7, *headers)
            shop.clock.pass_s(1)
        seen = shop.perf.status()["cache"]
        assert seen["hits"] + seen["misses"] + seen["collapsed"] + seen["bypassed"] == 300
        assert seen["bypassed"] == 60
        assert seen["hit_ratio"] == round(seen["hits"] / (seen["hits"] + seen["misses"]), 4)
        assert seen["entries"] == shop.cache.store.responses
        assert seen["bytes"] == shop.cache.store.size_bytes
        scraped = await figures(shop.app)
        assert scraped["perf_cache_bytes", ""] == shop.cache.store.size_bytes
        assert scraped["perf_cache_bytes_max", ""] == 64 << 20
        assert sum(of_routes(scraped, "perf_cache_hits_total").values()) == seen["hits"]

    run(act)


def test_bytes_of_hits_are_those_that_were_sent():
    async def act():
        shop = Shop("plain")
        for headers in ([], [], [CONFIRM], [(b"range", b"bytes=0-1")]):
            await shop.get(5, *headers)
        await shop.get(5, method="HEAD")
        seen = await figures(shop.app)
        assert of_routes(seen, "perf_cache_hit_bytes_total") == {shop.template: 5 + 2}

    run(act)


def test_no_client_can_make_new_label_sets():
    """Any credentials, conditions, directives, hosts and paths: a few reasons, one route."""

    async def act():
        shop = Shop("plain")
        names = [
            b"cookie", b"authorization", b"x-api-key", b"x-auth-token", b"proxy-authorization",
            b"if-none-match", b"if-match", b"range", b"if-range", b"content-length",
        ]  # fmt: skip
        for number in range(1_024):
            chosen = [(name, b"1") for bit, name in enumerate(names) if number >> bit & 1]
            control = [(b"cache-control", b"max-age=%d, x=%d" % (number % 3, number))]
            more = {"host": f"{number}.test"} if number % 4 == 0 else {}
            await shop.get(number, *chosen, *control[: number % 2], **more)
        for path in ("/nothing/here", "/items", "/%00", "/items/a/b"):
            await ask(shop.app, path)
        seen = await figures(shop.app)
        label_sets = {key for key in seen if key[0].startswith("perf_cache_")}
        assert len(label_sets) < 60
        routes = set(of_routes(seen, "perf_cache_misses_total"))
        routes |= set(of_routes(seen, "perf_cache_bypassed_total"))
        assert routes <= {shop.template, "unmatched"}

    run(act)


def test_only_if_cached_without_anything_stored_is_a_504_of_no_route():
    async def act():
        shop = Shop("plain")
        answer = await shop.get(5, (b"cache-control", b"only-if-cached"))
        assert answer.status == 504
        seen = await figures(shop.app)
        assert of_routes(seen, "perf_cache_misses_total") == {"unmatched": 1}

    run(act)


def test_a_reset_of_all_counts_is_one_of_the_cache_too():
    async def act():
        shop = Shop("plain")
        for _ in range(3):
            await shop.get()
        assert shop.perf.status()["cache"]["hits"] == 2
        await shop.perf.metrics.reset()
        now = shop.perf.status()["cache"]
        assert (now["hits"], now["misses"], now["stored"], now["hit_ratio"]) == (0, 0, 0, None)
        assert now["entries"] == 1, "what is stored stays"
        await shop.get()
        assert shop.perf.status()["cache"]["hits"] == 1, "and is counted on"

    run(act)


def test_evictions_are_counted_from_the_last_reset():
    async def act():
        app = Starlette(
            routes=[
                Route(
                    "/{id}",
                    lambda _: PlainTextResponse("x", headers={"cache-control": "max-age=9"}),
                )
            ]
        )
        perf = install(app, Settings(cache={"entries_max": 2}))
        for number in range(10):
            await ask(app, f"/{number}")
        evicted = perf.status()["cache"]["evictions"]
        assert evicted > 0
        await perf.metrics.reset()
        assert perf.status()["cache"]["evictions"] == 0
        assert (await figures(app))["perf_cache_evictions_total", ""] == 0

    run(act)


def test_a_route_that_cannot_be_read_is_told_once_and_counts_as_unmatched(caplog):
    async def act():
        app = App()

        async def routed(scope, receive, send):
            scope["fastapi"] = 5  # no router that we know leaves this
            await app(scope, receive, send)

        layer = cached(routed)
        with caplog.at_level(logging.ERROR, logger="perf_middleware.caching"):
            for number in range(3):
                assert (await ask(layer, f"/{number}")).status == 200
        assert layer.cache.figures.of("unmatched").stored == 3
        told = [record for record in caplog.records if "could not be named" in record.message]
        assert len(told) == 1
        assert told[0].exc_info is not None

    run(act)
