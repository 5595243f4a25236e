"""Uvicorn with one server, and with two on one Redis; a client edits and reads."""

import asyncio
import json
import urllib.request

import pytest

from tests.database.tracked.shop import Shop, prepare
from tests.http.servers import Server, serving
from tests.http.wire import eventually


def ask(server, path, method="GET", **headers):
    asking = urllib.request.Request(server.url + path, method=method, headers=headers)
    with urllib.request.urlopen(asking, timeout=30) as answer:
        text = answer.read()
        return (json.loads(text) if text else None), answer.headers["cache-status"]


@pytest.fixture(params=["one server", "two servers"])
def servers(request, tmp_path, redis_url):
    url = f"sqlite:///{tmp_path}/shop.db"
    several = request.param == "two servers"
    shops = [Shop(url, redis=redis_url if several else None, service="served") for _ in range(2)]
    chosen = shops if several else shops[:1]

    async def tables():
        async with shops[1].perf.running():
            await prepare(shops[1])

    asyncio.run(tables())
    running = [Server(shop.app) for shop in chosen]
    with serving(*running):
        yield running


def test_who_edits_and_reads_again_has_what_was_edited(servers):
    def is_stored(server):
        return "; hit" in ask(server, "/books", Host="shop.test")[1]

    for number in range(5):
        for server in servers:
            eventually(lambda server=server: is_stored(server), what="a stored answer")
        ask(servers[0], f"/books/1/flush/edition {number}".replace(" ", "%20"), "PUT")
        for server in reversed(servers):
            body, _ = ask(server, "/books", Host="shop.test")
            assert body == [f"edition {number}", "Two"]
