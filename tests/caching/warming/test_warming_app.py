"""What an app does as warming asks it: fails, ends, goes on behind its answer, refuses."""

import contextlib
from functools import partial
from math import inf

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, cache_response, install
from perf_middleware.caching.warming.plan import ask_of
from perf_middleware.caching.warming.runtime.asking import ask_app
from tests.caching.stage import Clock
from tests.caching.warming.shop import BASE, QUIET, Shop, WordlessError, run, shop_of, until

ASK = ask_of("http://shop.example/a", base=None)


async def asked_of(app):
    return await ask_app(app, ASK, state={}, timeout_s=600)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        anyio.get_cancelled_exc_class,
        WordlessError,
        BaseException("no Exception"),
        BaseExceptionGroup("of a task group", [SystemExit(3)]),
    ],
    ids=["an exit", "a cancellation", "an error without words", "no Exception", "a group"],
)
def test_what_an_endpoint_raises_is_a_failure_of_its_request_alone(error):
    async def app(scope, receive, send):
        raise error() if callable(error) else error

    async def scenario():
        assert (await asked_of(app)).outcome == "failed"

    run(scenario)


def test_a_run_in_an_app_that_waits_for_nothing_gives_others_their_turn():
    shop = shop_of(urls=[f"/{number}" for number in range(20)], concurrency=1, wait_s=0)
    turns = []

    async def count():
        while len(shop.calls) < 20:
            turns.append(len(shop.calls))
            await anyio.lowlevel.checkpoint()

    async def scenario():
        async with shop.perf.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await until(lambda: shop.figures["runs"] == 1)
        assert len(set(turns)) >= 10  # between most of the requests

    run(scenario)


def test_what_the_app_does_behind_its_answer_is_not_cut_off():
    left_s = []

    async def behind():
        left_s.append(anyio.current_effective_deadline())

    async def app(scope, receive, send):
        await PlainTextResponse("x", background=BackgroundTask(behind))(scope, receive, send)

    async def scenario():
        with anyio.fail_after(inf):
            await asked_of(app)
            assert left_s == [inf]

    anyio.run(scenario)


def test_the_apps_own_end_finds_no_request_of_warmings_in_the_middle():
    seen = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        seen.append("the end of the app")

    @cache_response(ttl=60)
    async def page(request):
        seen.append("asked")
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("cancelled")

    app = Starlette(routes=[Route("/{path:path}", page)], lifespan=lifespan)
    warming = BASE | {"urls": ["/a", "/b"], "wait_s": 0, "concurrency": 1}
    perf = install(app, Settings(**QUIET, warming=warming))
    to_app, from_app = (anyio.create_memory_object_stream(9) for _ in range(2))

    async def scenario():
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(app, scope, to_app[1].receive, from_app[0].send))
            await to_app[0].send({"type": "lifespan.startup"})
            assert (await from_app[1].receive())["type"] == "lifespan.startup.complete"
            await until(lambda: seen == ["asked"])
            await to_app[0].send({"type": "lifespan.shutdown"})
            assert (await from_app[1].receive())["type"] == "lifespan.shutdown.complete"
        assert seen == ["asked", "cancelled", "the end of the app"]
        last = perf.status()["resources"]["warming"]["detail"]["last_run"]
        assert (last["planned"], last["left"]) == (2, 2)

    run(scenario)
    for stream in (*to_app, *from_app):
        stream.close()


@pytest.mark.parametrize("key", ["user", "client"])
def test_quotas_are_for_clients_wherever_they_are_judged(key):
    shop = Shop(
        clock=Clock(),
        warming={"urls": ["/a", "/b", "/c"]},
        ratelimit={"enabled": True, "quotas": [{"limit": "1/minute", "key": key}]},
    )

    async def scenario():
        async with shop.perf.running():
            assert shop.figures["warmed"] == 3
            assert [(await shop.get("/a")).status for _ in range(2)] == [200, 429]

    run(scenario)
