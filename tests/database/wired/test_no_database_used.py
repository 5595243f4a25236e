"""A request that uses no database, in an app that has one: which of our code it runs."""

import sys

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from perf_middleware import Settings, install

# The layer that looks whether a response streams: two messages, and no session is known to it.
STREAM_GUARD = ["Response.send", "Response.send", "StreamGuardMiddleware.__call__"]


@pytest.mark.parametrize(
    ("stream_guard", "expected"), [(True, STREAM_GUARD), (False, [])], ids=["guarded", "not"]
)
def test_a_request_without_a_database_runs_the_stream_guard_alone(stream_guard, expected):
    app = FastAPI()
    install(app, Settings(database={"url": "sqlite://", "stream_guard": stream_guard}))
    ran = []

    def note(frame, event, _argument):
        if event == "call" and "/perf_middleware/database/" in frame.f_code.co_filename:
            ran.append(frame.f_code.co_qualname)

    @app.get("/plain")
    async def plain() -> int:
        return 1

    async def outermost(scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        sys.setprofile(note)
        try:
            await app(scope, receive, send)
        finally:
            sys.setprofile(None)

    with TestClient(outermost) as client:
        assert client.get("/plain").json() == 1  # what is done once is done
        ran.clear()
        assert client.get("/plain").json() == 1
    assert sorted(ran) == expected
