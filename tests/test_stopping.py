"""What runs as the server stops, before the app's own lifespan ends."""

from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from perf_middleware.resource import LifespanPlugin, Resources


def app_noting(notes):
    @asynccontextmanager
    async def lifespan(app):
        notes.append("app starts")
        yield
        notes.append("app ends")

    return Starlette(lifespan=lifespan)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_is_awaited_before_the_app_ends_and_what_fails_stops_nothing(backend, caplog):
    notes = []
    resources = Resources()

    async def finish():
        await anyio.sleep(0)
        notes.append("work ends")

    async def fail():
        raise ValueError("of the work")

    for do in (fail, finish):
        resources.when_stopping(do)
    plugin = LifespanPlugin(app_noting(notes), resources=resources)
    with TestClient(plugin, backend=backend):
        assert notes == ["app starts"]
    assert notes == ["app starts", "work ends", "app ends"]
    assert "of the work" in caplog.text
