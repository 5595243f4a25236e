"""Websockets: judged at their handshake, and message by message."""

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from perf_middleware.limits.rate.gcra import Left, Outcome
from perf_middleware.limits.rate.middleware import RateLimitMiddleware
from tests.driving import http_scope
from tests.http.servers import Journal, Server, serving
from tests.limits.rate.rate_stage import Stage, quota

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Echo:
    """Accepts, answers each message, notes what it was told."""

    def __init__(self) -> None:
        self.told = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "websocket":
            return
        while True:
            message = await receive()
            self.told.append(message["type"])
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            elif message["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
            else:
                self.told.append(message.get("code"))
                return


async def converse(stage, *texts, extensions=None):
    """All that the server is told, for one websocket with these messages."""
    incoming = [{"type": "websocket.connect"}]
    incoming += [{"type": "websocket.receive", "text": text} for text in texts]
    incoming += [{"type": "websocket.disconnect", "code": 1000}]
    sent = []

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message)

    scope = http_scope("/ws") | {"type": "websocket"}
    del scope["method"]
    if extensions is not None:
        scope["extensions"] = extensions
    await stage.layer(scope, receive, send)
    return sent


async def test_a_handshake_over_the_quota_is_closed_before_it_is_accepted():
    stage = Stage(quota("1/minute"), app=Echo())
    assert (await converse(stage))[0] == {"type": "websocket.accept"}
    [closed] = await converse(stage, extensions={})
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
    assert stage.app.told.count("websocket.connect") == 1


async def test_it_is_answered_with_429_where_the_server_can():
    stage = Stage(quota("1/minute"), app=Echo())
    await converse(stage)
    start, body = await converse(stage, extensions={"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert dict(start["headers"])[b"retry-after"] == b"60"
    assert body["type"] == "websocket.http.response.body"
    assert b'"quota":"default"' in body["body"]


async def test_a_message_too_many_ends_the_conversation():
    stage = Stage(quota("2/minute", name="chat", per="message"), app=Echo())
    sent = await converse(stage, "1", "2", "3", "4")
    assert [message["type"] for message in sent] == [
        "websocket.accept", "websocket.send", "websocket.send", "websocket.close",
    ]  # fmt: skip
    assert (sent[-1]["code"], sent[-1]["reason"]) == (1008, "too many messages: chat (2/minute)")
    assert stage.app.told[-3:] == ["websocket.receive", "websocket.disconnect", 1008]
    assert stage.counts("chat") == {"admitted": 2, "refused": 1}


async def test_messages_are_counted_for_the_client_over_all_its_websockets():
    stage = Stage(quota("2/minute", per="message"), app=Echo())
    await converse(stage, "1", "2")
    assert [m["type"] for m in await converse(stage, "3")] == [
        "websocket.accept",
        "websocket.close",
    ]


async def test_a_quota_of_messages_counts_no_handshake_and_no_request():
    stage = Stage(quota("1/minute", per="message"), app=Echo())
    for _ in range(3):
        await converse(stage)
    assert stage.counts("default") == {}


async def test_what_the_app_sends_behind_the_end_fails_as_to_a_client_that_left():
    outcomes = []

    async def stubborn(scope, receive, send):
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "more"})
        await send({"type": "websocket.close"})
        outcomes.append((await receive())["type"])

    stage = Stage(quota("1/minute", per="message"), app=stubborn)
    sent = await converse(stage, "1", "2")
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert outcomes == ["websocket.disconnect"]


class Slow:
    """Stands for quotas in Redis that answer when they are let to."""

    def __init__(self) -> None:
        self.may_answer = anyio.Event()

    async def take(self, demands):
        await self.may_answer.wait()
        return Outcome(True, (Left(1, 0, 1),) * len(demands))


async def test_an_app_that_stops_waiting_loses_no_message():
    got = []

    async def impatient(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        with anyio.move_on_after(0.01):
            got.append(await receive())
        assert got == []
        stage.rate.shared.may_answer.set()
        got.append(await receive())
        got.append(await receive())

    stage = Stage(quota("9/minute", per="message"), app=impatient)
    stage.rate.shared = Slow()
    await converse(stage, "1", "2")
    assert [message["text"] for message in got] == ["1", "2"]


async def test_behind_the_end_nothing_of_the_client_comes_through():
    got = []

    async def greedy(scope, receive, send):
        for _ in range(5):
            got.append((await receive())["type"])  # noqa: PERF401

    await converse(Stage(quota("1/minute", per="message"), app=greedy), "1", "2", "3", "4")
    assert got == ["websocket.connect", "websocket.receive", *["websocket.disconnect"] * 3]


async def test_a_dry_run_ends_no_conversation():
    stage = Stage(quota("1/minute", per="message"), app=Echo(), dry_run=True)
    sent = await converse(stage, "1", "2", "3")
    assert [m["type"] for m in sent].count("websocket.send") == 3
    assert stage.counts() == {"admitted": 1, "would_refuse": 2}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("implementation", ["wsproto", "websockets-sansio"])
async def test_over_a_real_server(implementation):
    stage = Stage(quota("2/minute"), quota("2/minute", name="chat", per="message"), app=Echo())
    layer = RateLimitMiddleware(stage.app, stage.rate)
    server = Server(layer, journal=Journal(), ws=implementation, lifespan="off")
    with serving(server):
        url = f"ws://127.0.0.1:{server.port}/ws"
        with anyio.fail_after(120):
            async with connect(url) as socket:
                for text in ("1", "2"):
                    await socket.send(text)
                    assert await socket.recv() == text
                await socket.send("3")
                with pytest.raises(ConnectionClosedError) as closed:
                    await socket.recv()
                assert closed.value.rcvd.code == 1008
                assert closed.value.rcvd.reason == "too many messages: chat (2/minute)"
            async with connect(url):
                pass
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url):
                    pass
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["retry-after"] == "30"
