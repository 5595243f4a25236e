"""Over a real server: who would be too late is told so while there is time, and not at its end."""

import asyncio
import re
from contextlib import ExitStack

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from perf_middleware import Settings, install
from tests.http.servers import Server, serving
from tests.http.wire import eventually, http_request

TIMEOUT_S = 10.0


@pytest.fixture
def server(tmp_path):
    """A new one for each test: what is known of loans is known of its own."""
    app = FastAPI()
    perf = install(
        app,
        Settings(
            database={
                "url": f"sqlite:///{tmp_path}/app.db",
                "pool_size": 1,
                "pool_overflow_max": 0,
                "pool_wait_s": 60,
            },
            deadlines={"timeout_s": TIMEOUT_S},
        ),
    )
    opened = []

    @app.get("/slow")
    async def slow():
        async with perf.database.session() as session:
            await session.execute(text("select 1"))
            while not opened:
                await asyncio.sleep(0.01)

    @app.get("/quick")
    async def quick():
        async with perf.database.session() as session:
            await session.execute(text("select 1"))

    server = Server(app)
    server.opened, server.perf = opened, perf
    with serving(server):
        yield server


def pool(server):
    return server.perf.status()["database"]["main"]


def test_who_stands_behind_a_slow_one_is_told_so_before_its_deadline(server):
    """Nothing is known of these loans but that the one that runs goes on and on."""
    with ExitStack() as stack:
        holder, *others = [stack.enter_context(server.connect()) for _ in range(6)]
        holder.send(http_request("GET", "/slow"))
        eventually(lambda: pool(server)["lent"] == 1, what="the connection is lent")
        for wire in others:
            wire.send(http_request("GET", "/slow"))
        eventually(lambda: pool(server)["waiting"] == 5, what="five wait")
        answers = [wire.read_to_end() for wire in others]
        assert pool(server)["lent"] == 1
        server.opened.append(True)
        assert holder.read_to_end().startswith(b"HTTP/1.1 200 ")
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert re.search(rb"\r\nretry-after: [1-9]", answer)


def test_who_stands_behind_a_quick_one_is_served(server):
    server.opened.append(True)
    with ExitStack() as stack:
        wires = [stack.enter_context(server.connect()) for _ in range(20)]
        for wire in wires:
            wire.send(http_request("GET", "/quick"))
        for wire in wires:
            assert wire.read_to_end().startswith(b"HTTP/1.1 200 ")
