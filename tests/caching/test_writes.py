"""What a write makes invalid, and when: before its answer, and again when all of it is done."""

from typing import Annotated

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.responses import PlainTextResponse

from perf_middleware import Settings, install
from tests.caching.stage import Client, ask, run, settle, verdict

pytestmark = pytest.mark.usefixtures("nothing_set")


def shop(kind, commits):
    """A price that is committed behind the answer to its PUT."""
    app = FastAPI()
    prices = {"5": 100}

    async def unit_of_work():
        written = {}
        yield written
        await commits.wait()
        prices.update(written)

    @app.get("/prices/{item}")
    async def read(item: str):
        return PlainTextResponse(str(prices[item]), headers={"cache-control": "max-age=60"})

    if kind == "a dependency":

        @app.put("/prices/{item}")
        async def write(item: str, work: Annotated[dict, Depends(unit_of_work)]):
            work[item] = 90
            return {}
    else:

        @app.put("/prices/{item}")
        async def write_later(item: str, tasks: BackgroundTasks):
            async def commit():
                await commits.wait()
                prices[item] = 90

            tasks.add_task(commit)
            return {}

    install(app, Settings(runtime={"enabled": False}))
    return app


@pytest.mark.parametrize("kind", ["a dependency", "a background task"])
def test_what_was_stored_while_a_write_was_being_committed_is_not_kept(kind):
    async def act():
        commits = anyio.Event()
        app = shop(kind, commits)
        assert (await ask(app, "/prices/5")).body == b"100"
        writer = Client("/prices/5", method="PUT")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.ask, app)
            await settle()
            assert writer.messages, "the writer has its answer"
            between = await ask(app, "/prices/5")
            assert (between.body, verdict(between)) == (b"100", "fwd=uri-miss; stored")
            commits.set()
        after = await ask(app, "/prices/5")
        assert after.body == b"90"

    run(act)


def test_a_write_that_fails_behind_its_answer_invalidates_all_the_same():
    async def act():
        async def app(scope, receive, send):
            headers = [(b"cache-control", b"max-age=60")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x"})
            if scope["method"] == "PUT":
                await ask(layer, "/")  # somebody asks meanwhile
                raise RuntimeError("broken")

        from tests.caching.stage import cached

        layer = cached(app)
        writer = await Client("/", method="PUT").ask(layer)
        assert isinstance(writer.raised, RuntimeError)
        assert layer.cache.store.responses == 0

    run(act)
