"""Between server and app every ASGI message passes as it is, also those that nobody here knows.

No server and no client: plain messages in, recorded messages out, with and without the bundle.
"""

import asyncio
import copy
from typing import Any

import pytest

from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from tests.http.apps import hidden
from tests.http.doors import (
    DOORS,
    END,
    FILE,
    HTTP_SCOPE,
    START,
    WEBSOCKET_SCOPE,
    Door,
    new_scope,
    play,
    sender,
)
from tests.http.servers import with_bundle


def compared(app: ASGIApp, door: Door, scope: Scope, *incoming: Message) -> list[Message]:
    """What was sent with the bundle, after the same was sent without it."""
    bare = asyncio.run(play(door.bare(app), copy.copy(scope), *incoming))
    installed = asyncio.run(play(door.installed(app), copy.copy(scope), *incoming))
    assert installed == bare
    return installed


HTTP_SEQUENCES: dict[str, list[Message]] = {
    "a file by its path": [START, {"type": "http.response.pathsend", "path": "/srv/file"}],
    "a file without a copy": [
        START,
        {"type": "http.response.zerocopysend", "file": FILE, "count": 4, "more_body": True},
        {"type": "http.response.zerocopysend", "file": FILE, "offset": 4},
    ],
    "early hints": [
        {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
        {"type": "http.response.early_hint", "links": [b"</b.js>; rel=preload"]},
        START,
        END,
    ],
    "trailers": [
        START | {"trailers": True},
        END,
        {"type": "http.response.trailers", "headers": [(b"X-Sum", b"1")], "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"2")]},
    ],
    "a push": [
        {"type": "http.response.push", "path": "/a.css", "headers": [(b"accept", b"*/*")]},
        START,
        {"type": "http.response.push", "path": "/late.css", "headers": []},
        END,
    ],
    "debug information": [{"type": "http.response.debug", "info": {"template": FILE}}, START, END],
    "a type that nobody knows": [
        {"type": "http.response.vendor", "payload": FILE},
        START,
        {"type": "vendor.note"},
        END,
        {"type": "vendor.afterwards"},
    ],
    "keys that nobody knows": [START | {"vendor": FILE}, END | {"vendor": FILE}],
    "bodies with their boundaries": [
        START,
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": True},
        {"type": "http.response.body", "body": b"two", "more_body": True},
        {"type": "http.response.body"},
    ],
    "only what is required": [{"type": START["type"], "status": 204}, {"type": END["type"]}],
    "a status that nobody knows": [START | {"status": 799}, END],
    "an interim answer": [{"type": START["type"], "status": 103, "headers": []}, START, END],
    "headers as tuples and lists": [
        START | {"headers": ([b"X-A", b"1"], (b"x-a", b"2"), (b"Set-Cookie", b"a"), (b"", b""))},
        END,
    ],
    "a body that is a view": [START, {"type": END["type"], "body": memoryview(b"view")}],
}  # fmt: skip


@pytest.mark.parametrize("sequence", HTTP_SEQUENCES)
def test_a_response_reaches_the_server_message_by_message(door, sequence):
    messages = HTTP_SEQUENCES[sequence]
    sent = compared(sender(messages), door, new_scope())
    assert [id(message) for message in sent] == [id(message) for message in messages]


WEBSOCKET_SEQUENCES: dict[str, list[Message]] = {
    "a conversation": [
        {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"X-A", b"1")]},
        {"type": "websocket.send", "text": "text"},
        {"type": "websocket.send", "bytes": b"bytes", "text": None},
        {"type": "websocket.close", "code": 4000, "reason": "enough"},
    ],
    "a denial": [
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"X-Why", b"you")]},
        {"type": "websocket.http.response.body", "body": b"no", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"!"},
    ],
    "a rejection": [{"type": "websocket.close"}],
    "a type that nobody knows": [{"type": "websocket.accept"}, {"type": "websocket.vendor"}],
}  # fmt: skip


@pytest.mark.parametrize("sequence", WEBSOCKET_SEQUENCES)
def test_a_websocket_reaches_the_server_message_by_message(door, sequence):
    messages = WEBSOCKET_SEQUENCES[sequence]
    sent = compared(sender(messages), door, new_scope(WEBSOCKET_SCOPE))
    assert [id(message) for message in sent] == [id(message) for message in messages]


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        pytest.param(
            HTTP_SCOPE,
            [
                {"type": "http.request", "body": b"a", "more_body": True, "vendor": FILE},
                {"type": "http.request", "body": b"", "more_body": True},
                {"type": "http.request"},
                {"type": "http.vendor"},
                {"type": "http.disconnect"},
                {"type": "http.disconnect"},
            ],
            id="http",
        ),
        pytest.param(
            WEBSOCKET_SCOPE,
            [
                {"type": "websocket.connect"},
                {"type": "websocket.receive", "text": "a"},
                {"type": "websocket.receive", "bytes": b"b", "text": None},
                {"type": "websocket.vendor"},
                {"type": "websocket.disconnect", "code": 4001, "reason": "enough"},
            ],
            id="websocket",
        ),
    ],
)
def test_what_the_server_tells_reaches_the_app_message_by_message(door, template, messages):
    heard: list[Message] = []

    async def listener(_: Scope, receive: Receive, send: Send) -> None:
        heard.extend([await receive() for _ in messages])
        await send({"type": "vendor.done"})

    compared(listener, door, new_scope(template), *messages)
    assert [id(message) for message in heard] == [id(message) for message in messages * 2]


def test_headers_that_can_be_read_only_once_are_left_to_the_server(door):
    """The specification says iterable (HTTP Message Format): a generator will do."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        headers = ((b"x-number", b"%d" % number) for number in range(3))
        await send(START | {"headers": headers})
        await send(END)

    for serve in (door.bare, door.installed):
        start, _ = asyncio.run(play(serve(app), new_scope()))
        assert [value for _, value in start["headers"]] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("template", [HTTP_SCOPE, WEBSOCKET_SCOPE], ids=["http", "websocket"])
def test_the_servers_headers_reach_the_app_though_they_can_be_read_only_once(template):
    """The specification says iterable of the scope's as well; here layers read them first."""
    seen: list[Any] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.extend(scope["headers"])

    limited = {
        "ratelimit": {"quotas": [{"limit": "100/minute", "key": "header:x-key"}]},
        "backpressure": {"enabled": True, "websockets_max": 9},
        "deadlines": {"timeout_s": 9},
    }
    headers = [(b"host", b"example.test"), (b"x-key", b"1"), (b"x-other", b"2")]
    scope = new_scope(template, headers=(pair for pair in headers))
    asyncio.run(play(Door(hidden, limited).installed(app), scope))
    assert seen == headers


@pytest.mark.parametrize("template", [HTTP_SCOPE, WEBSOCKET_SCOPE], ids=["http", "websocket"])
def test_an_app_that_reads_no_headers_is_served_where_the_scope_has_none(door, template):
    """As one may be that a test makes itself; the specification has no default for them."""
    scope = new_scope(template)
    del scope["headers"]
    messages = [START, END] if template is HTTP_SCOPE else [{"type": "websocket.close"}]
    compared(sender(messages), door, scope)


def test_a_message_that_the_app_uses_again_is_not_changed(door):
    start, headers = dict(START), [(b"x-mine", b"1")]
    start["headers"] = headers

    async def thrice(app: ASGIApp) -> None:
        for _ in range(3):
            await play(app, new_scope())

    asyncio.run(thrice(door.installed(sender([start, END]))))
    assert start == START | {"headers": [(b"x-mine", b"1")]}
    assert start["headers"] is headers


def test_nothing_is_received_or_sent_that_the_app_did_not_ask_for(door):
    """Reading ahead would take a body from the app, or promise `100 Continue` in its name."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        return await asyncio.Event().wait()

    async def run(app: ASGIApp) -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async with asyncio.timeout(10):
            await app(new_scope(), receive, send)
        return sent

    assert asyncio.run(run(door.installed(sender([START, END])))) == [START, END]
    assert asyncio.run(run(door.installed(sender([])))) == []
    assert received == 0


@pytest.mark.parametrize("template", [HTTP_SCOPE, WEBSOCKET_SCOPE], ids=["http", "websocket"])
def test_the_app_sees_the_servers_scope(door, template):
    """Every key and value; ours are named after us, and `state` holds the handle."""
    seen: list[Scope] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        # Two apps have two of what frameworks put in: their keys are compared, not their values.
        own = ("app", "router", "endpoint", "starlette.exception_handlers")
        seen.append(
            {
                name: "a framework's own" if name in own or name.startswith("fastapi") else value
                for name, value in scope.items()
                if not name.startswith("perf_middleware.")
            }
        )

    for serve in (door.bare, door.installed):
        asyncio.run(play(serve(app), new_scope(template, state={"mine": FILE})))
    bare, installed = seen
    assert installed["state"].pop("perf") is not None
    assert installed == bare
    assert installed["extensions"] is template["extensions"]


@pytest.mark.parametrize("kind", ["vendor.datagram", "http3", "lifespans"])
def test_a_scope_that_nobody_knows_passes_untouched(kind):
    scope = {"type": kind, "payload": FILE}
    seen: list[tuple[Any, ...]] = []

    async def app(*call: Any) -> None:
        seen.append(call)

    async def receive() -> Message:
        return {}

    async def send(_: Message) -> None:
        pass

    asyncio.run(with_bundle(app)(scope, receive, send))
    [(seen_scope, seen_receive, seen_send)] = seen
    assert seen_scope is scope
    assert scope == {"type": kind, "payload": FILE}
    assert seen_receive is receive
    assert seen_send is send


@pytest.mark.parametrize("door", ["starlette", "fastapi"])
def test_a_framework_refuses_an_unknown_scope_as_before(door):
    def refusal(app: ASGIApp) -> str:
        with pytest.raises(AssertionError) as caught:
            asyncio.run(play(app, {"type": "vendor.datagram"}))
        return repr(caught.value)

    app = sender([])
    assert refusal(DOORS[door].installed(app)) == refusal(DOORS[door].bare(app))
