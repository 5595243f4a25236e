"""Where no lifespan runs, where event loops come and go, where processes are forked."""

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.driving import get
from tests.fleet.processes import Pages, Process, running, until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("nothing_set")


def test_each_request_in_a_loop_of_its_own_is_answered_and_leaves_nothing(redis_server, caplog):
    process = Process(Pages(), redis_server.url, namespace="loops")
    for number in range(3):
        answer = anyio.run(process.get, f"/{number}")
        assert answer.body == f"/{number} 0".encode()
    of_links = {"perf_middleware.redis", "perf_middleware.caching", "asyncio"}
    told = [r for r in caplog.records if r.name in of_links and r.levelno >= logging.WARNING]
    assert told == []


def test_without_a_lifespan_it_connects_at_the_first_request_of_each_loop(redis_server):
    pages = Pages()
    one, two = (Process(pages, redis_server.url, namespace="unled") for _ in range(2))

    async def use(number):
        for process in (one, two):
            await process.get(f"/first-of-loop/{number}")
            await until(lambda process=process: process.is_up)
        await one.reads(f"/{number}")
        await one.settled()
        assert await two.reads(f"/{number}") == (f"/{number} 0".encode(), True)

    for number in range(3):
        asyncio.run(use(number))
        assert not one.is_up
        assert not two.is_up


def test_a_test_client_with_and_without_a_lifespan(redis_server):
    async def page(request):
        return PlainTextResponse("page", headers={"cache-control": "max-age=60"})

    app = Starlette(routes=[Route("/{name}", page)])
    process = Process(Pages(), redis_server.url, namespace="client", app=app)
    client = TestClient(app)
    assert client.get("/before").text == "page"
    with client:
        assert client.get("/in").text == "page"
        assert process.is_up
    assert not process.is_up
    assert client.get("/after").text == "page"


def test_a_connection_of_one_loop_is_left_alone_by_another(redis_server):
    """The app is served in one loop and asked in a second one, as some test suites do."""
    process = Process(Pages(), redis_server.url, namespace="two")
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve():
        async with running(process):
            await ended.wait()

    async def connected():
        await until(lambda: process.is_up)

    async def purge():
        await process.cache.purge(everything=True)

    serving = loop.create_task(serve())
    try:
        loop.run_until_complete(connected())
        for number in range(3):
            assert get(process.perf, f"/{number}").body == f"/{number} 0".encode()
        assert process.is_up
        anyio.run(purge)  # is made up for before the connection is used again
        assert process.shared.purges.pending == 1
        assert loop.run_until_complete(process.get("/x")).status == 200
        loop.run_until_complete(connected())
        assert process.shared.purges.pending == 0
    finally:
        ended.set()
        loop.run_until_complete(serving)
        loop.close()


def test_an_app_on_trio_goes_on_without(redis_server):
    """The link is asyncio's."""
    process = Process(Pages(), redis_server.url, namespace="trio")

    async def use():
        async with process.perf.running():
            for _ in range(2):
                assert (await process.get("/p")).body == b"/p 0"
            await process.cache.purge(everything=True)
            assert process.state == "degraded"

    anyio.run(use, backend="trio")
    assert anyio.run(process.get, "/q", backend="trio").body == b"/q 0"


def test_workers_that_are_forked_off_a_loaded_app_hear_each_other(redis_server):
    """`--preload`: the app is imported once, and the workers are copies of that process."""
    script = f"""
        import asyncio, os, sys
        from tests.fleet.processes import Pages, Process, running, until

        pages = Pages()
        process = Process(pages, "{redis_server.url}", namespace="forked")
        said, heard = os.pipe(), os.pipe()

        async def first():
            async with running(process):
                await process.reads("/p")
                await process.settled()
                os.write(said[1], b"x")
                pages.change("/p")
                await until(lambda: not process.cache.store.of_path(b"/p"))
                assert (await process.reads("/p"))[0] == b"/p 1"

        async def second():
            async with running(process):
                await asyncio.to_thread(os.read, said[0], 1)
                await process.cache.purge(url="/p")

        if os.fork():
            asyncio.run(first())
            sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
        try:
            asyncio.run(second())
        except BaseException:
            os._exit(1)
        os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
