"""Websockets are counted apart: how they ended, their messages, those that are open."""

import contextlib
import gc

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from perf_middleware import MetricsMiddleware
from perf_middleware.metrics.middleware.exchange import CURRENT
from perf_middleware.metrics.requests.sockets import SERIES_MAX
from perf_middleware.stack import RequestScope
from tests.metrics.wires import Wire, at_once, run, values, websocket

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.receive", "text": "hello"}
SEND = {"type": "websocket.send", "text": "hello"}


def left(code):
    return {"type": "websocket.disconnect", "code": code}


async def echoes_until_the_client_leaves(scope, receive, send):
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] == "websocket.receive":
        await send(SEND)


async def closes(scope, receive, send):
    await receive()
    await send(ACCEPT)
    await send({"type": "websocket.close", "code": 4001})


async def closes_with_what_is_no_code(scope, receive, send):
    await send(ACCEPT)
    await send({"type": "websocket.close", "code": "1000"})


async def closes_without_a_code(scope, receive, send):
    await send(ACCEPT)
    await send({"type": "websocket.close"})


async def rejects(scope, receive, send):
    await receive()
    await send({"type": "websocket.close", "code": 1008})


async def denies_with_a_response(scope, receive, send):
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b""})


async def returns(scope, receive, send):
    await send(ACCEPT)


async def crashes(scope, receive, send):
    await send(ACCEPT)
    raise ValueError("a mistake")


async def crashes_before_accepting(scope, receive, send):
    raise ValueError("a mistake")


async def crashes_when_the_client_left(scope, receive, send):
    await echoes_until_the_client_leaves(scope, receive, send)
    raise WebSocketDisconnect(1001)


async def sends_into_the_void(scope, receive, send):
    await send(ACCEPT)
    while True:
        await send(SEND)


@pytest.mark.parametrize(
    ("app", "incoming", "breaks_after", "outcome", "received", "sent"),
    [
        pytest.param(
            echoes_until_the_client_leaves, [CONNECT, TEXT, TEXT, left(1001)], None, "1001", 2, 2,
            id="the client closes",
        ),
        pytest.param(
            echoes_until_the_client_leaves, [CONNECT, {"type": "websocket.disconnect"}], None,
            "1005", 0, 0, id="the client closes without a code",
        ),
        pytest.param(closes, [CONNECT], None, "4xxx", 0, 0, id="the app closes"),
        pytest.param(closes_without_a_code, [], None, "1000", 0, 0, id="the app just closes"),
        pytest.param(
            closes_with_what_is_no_code, [], None, "other", 0, 0, id="the code is no number",
        ),
        pytest.param(rejects, [CONNECT], None, "rejected", 0, 0, id="the app rejects"),
        pytest.param(denies_with_a_response, [], None, "rejected", 0, 0, id="the app denies"),
        pytest.param(returns, [], None, "1000", 0, 0, id="the app returns"),
        pytest.param(crashes, [], None, "1011", 0, 0, id="the app fails"),
        pytest.param(crashes_before_accepting, [], None, "rejected", 0, 0, id="it fails at once"),
        pytest.param(
            crashes_when_the_client_left, [CONNECT, left(1001)], None, "1001", 0, 0,
            id="it fails because the client left",
        ),
        pytest.param(sends_into_the_void, [], 4, "1006", 0, 3, id="the client is gone"),
    ],
)  # fmt: skip
def test_each_connection_is_counted_once(app, incoming, breaks_after, outcome, received, sent):
    middleware = MetricsMiddleware(app)
    scope = websocket("/ws")
    wire = Wire(scope, *incoming, breaks_after=breaks_after, last=left(1005))
    with contextlib.suppress(ValueError, OSError, WebSocketDisconnect):
        at_once(wire.serve(middleware))
    told = values(middleware.families())
    assert told["perf_websocket_connections"] == {("unmatched", outcome): 1}
    assert told["perf_websocket_messages_received"] == {("unmatched",): received}
    assert told["perf_websocket_messages_sent"] == {("unmatched",): sent}
    assert told["perf_websockets_open"] == {(): 0}
    assert told["http_requests"] == {}


def test_what_is_open_is_told_while_it_is_open(clock):
    async def main():
        opened, go_on = anyio.Event(), anyio.Event()

        async def stays(scope, receive, send):
            await send(ACCEPT)
            opened.set()
            await go_on.wait()
            clock.pass_s(90)

        middleware = MetricsMiddleware(stays)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Wire(websocket()).serve, middleware)
            await opened.wait()
            middleware.recorder.sockets.reset()
            assert values(middleware.families())["perf_websockets_open"] == {(): 1}
            go_on.set()
        told = values(middleware.families())
        assert told["perf_websockets_open"] == {(): 0}
        assert told["perf_websocket_open_seconds"] == {("unmatched",): 90.0}

    run(main)


def test_a_cancelled_connection_is_open_no_more():
    async def main():
        opened = anyio.Event()

        async def stays(scope, receive, send):
            await send(ACCEPT)
            opened.set()
            await anyio.sleep_forever()

        middleware = MetricsMiddleware(stays)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Wire(websocket()).serve, middleware)
            await opened.wait()
            tasks.cancel_scope.cancel()
        told = values(middleware.families())
        assert told["perf_websockets_open"] == {(): 0}
        assert told["perf_websocket_connections"] == {("unmatched", "1011"): 1}

    run(main)
    run(main, "trio")


def test_a_connection_that_cannot_be_counted_leaves_nothing_behind(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug of ours")

    async def main():
        middleware = MetricsMiddleware(closes)
        monkeypatch.setattr(middleware.recorder.sockets, "count", fail)
        with pytest.raises(RuntimeError, match="a bug of ours"):
            await Wire(websocket(), CONNECT).serve(middleware)
        assert CURRENT.get() is None
        assert middleware.recorder.sockets.open == 0

    run(main)


def test_what_finds_no_series_of_its_own_is_counted_and_told_once(caplog):
    middleware = MetricsMiddleware(closes)
    sockets = middleware.recorder.sockets
    for number in range(SERIES_MAX):
        sockets.count(f"/{number}", 1000, received=0, sent=0, open_ns=0)
    assert values(middleware.families())["perf_websockets_overflow"] == {(): 0}
    for _ in range(3):
        at_once(Wire(websocket(), CONNECT).serve(middleware))
    assert values(middleware.families())["perf_websockets_overflow"] == {(): 3}
    (record,) = caplog.records
    assert "1000 combinations of websocket route and outcome" in record.getMessage()
    sockets.reset()
    assert values(middleware.families())["perf_websockets_overflow"] == {(): 0}


def test_starlette_in_between_changes_no_outcome():
    async def echo(socket):
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close(4000)

    app = Starlette(routes=[WebSocketRoute("/ws/{room}", echo)])
    middleware = MetricsMiddleware(app)
    with TestClient(middleware).websocket_connect("/ws/5") as client:
        client.send_text("hello")
        assert client.receive_text() == "hello"
    told = values(middleware.families())
    assert told["perf_websocket_connections"] == {("/ws/{room}", "4xxx"): 1}
    assert told["perf_websocket_messages_received"] == {("/ws/{room}",): 1}


def test_a_client_that_is_gone_is_told_from_a_mistake_through_starlette():
    async def talks(socket):
        await socket.accept()
        while True:
            await socket.send_text("hello")

    app = Starlette(routes=[WebSocketRoute("/ws", talks)])
    middleware = MetricsMiddleware(app)
    with pytest.raises(WebSocketDisconnect):
        at_once(Wire(websocket("/ws"), CONNECT, breaks_after=3).serve(middleware))
    assert values(middleware.families())["perf_websocket_connections"] == {("/ws", "1006"): 1}


async def behind_a_copy(scope, receive, send):
    await RequestScope(closes)(dict(scope), receive, send)


@pytest.mark.parametrize("app", [closes, RequestScope(closes), behind_a_copy])
def test_a_connection_leaves_no_cycle_to_the_garbage_collector(app):
    middleware = MetricsMiddleware(app)

    def connect_some():
        for _ in range(20):
            at_once(Wire(websocket(), CONNECT).serve(middleware))

    connect_some()  # what is made once
    gc.collect()
    gc.disable()
    try:
        connect_some()
        assert gc.collect() == 0
    finally:
        gc.enable()
