"""Between server and app every ASGI message passes as it is, also those that nobody here knows.

No server and no client: plain messages in, recorded messages out, with and without the bundle.
"""

import asyncio
import copy
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from perf_middleware import Settings
from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from tests.http.apps import InnerMiddleware, hidden
from tests.http.servers import EVERY_REQUEST_MEASURED, with_bundle

Dress: TypeAlias = Callable[[ASGIApp], ASGIApp]

HTTP_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.5"},
    "http_version": "2",
    "method": "GET",
    "scheme": "https",
    "path": "/somewhere",
    "raw_path": b"/somewhere",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"example.test")],
    "client": ("192.0.2.1", 4711),
    "server": ("192.0.2.2", 443),
    "extensions": {
        "http.response.pathsend": {},
        "http.response.zerocopysend": {},
        "http.response.push": {},
        "http.response.early_hint": {},
        "http.response.trailers": {},
        "http.response.debug": {},
        "vendor.extension": {"with": object()},
    },
}
WEBSOCKET_SCOPE = HTTP_SCOPE | {"type": "websocket", "scheme": "wss", "subprotocols": ["chat"]}
FILE = io.BytesIO(b"a file that only the server reads")
START = {"type": "http.response.start", "status": 200, "headers": [(b"X-Case", b"Kept")]}
END = {"type": "http.response.body", "body": b"end", "more_body": False}


def new_scope(template: Scope = HTTP_SCOPE, **changes: Any) -> Scope:
    return template | {"headers": list(template.get("headers", [])), **changes}


async def play(
    app: ASGIApp, scope: Scope, *incoming: Message, send: Send | None = None
) -> list[Message]:
    """Run `app` once as a server would; what it sent."""
    waiting, sent = list(incoming), []

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        return await asyncio.Event().wait()  # as a server that has nothing more to tell

    async def record(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(10):
        await app(scope, receive, send or record)
    return sent


@dataclass(frozen=True, slots=True)
class Door:
    """A way into the app: dressed as a plain callable or inside a framework."""

    bare: Dress
    settings: dict[str, Any] = field(default_factory=dict)

    def installed(self, app: ASGIApp) -> ASGIApp:
        return with_bundle(self.bare(app), Settings(**self.settings))


DOORS = {
    "callable": Door(hidden),
    "callable-measured": Door(hidden, EVERY_REQUEST_MEASURED),
    "starlette": Door(lambda app: Starlette(routes=[Mount("/", app)])),
    "fastapi": Door(lambda app: FastAPI(routes=[Mount("/", app)])),
}


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]


def compared(app: ASGIApp, door: Door, scope: Scope, *incoming: Message) -> list[Message]:
    """What was sent with the bundle, after the same was sent without it."""
    bare = asyncio.run(play(door.bare(app), copy.copy(scope), *incoming))
    installed = asyncio.run(play(door.installed(app), copy.copy(scope), *incoming))
    assert installed == bare
    return installed


def sender(messages: list[Message]) -> ASGIApp:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


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


# --- what raises, and what is cancelled ---------------------------------------------------------


class ServerRefusalError(Exception):
    """What a server raises out of `send` or `receive`."""


class BareExit(BaseException):
    """Neither an Exception nor known to anyone."""


@pytest.mark.parametrize("error", [ServerRefusalError("x"), OSError("client left"), BareExit("x")])
@pytest.mark.parametrize("place", ["endpoint", "send", "receive"])
@pytest.mark.parametrize("template", [HTTP_SCOPE, WEBSOCKET_SCOPE], ids=["http", "websocket"])
def test_what_is_raised_arrives_as_the_same_object(template, place, error):
    caught_by_the_app: list[BaseException] = []

    async def raising(*_: Any) -> Any:
        raise error

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        step: dict[str, Callable[[], Awaitable[Any]]] = {
            "endpoint": raising,
            "send": lambda: send(START),
            "receive": receive,
        }
        try:
            await step[place]()
        except BaseException as exc:
            caught_by_the_app.append(exc)
            raise

    async def run() -> None:
        await with_bundle(app)(new_scope(template), raising, raising)

    with pytest.raises(type(error)) as caught:
        asyncio.run(run())
    assert caught_by_the_app == [error]
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    error.__traceback__ = None


@pytest.mark.parametrize("template", [HTTP_SCOPE, WEBSOCKET_SCOPE], ids=["http", "websocket"])
def test_cancellation_reaches_the_app_once_and_waits_for_its_cleanup(door, template):
    async def run(dress: Dress) -> list[str]:
        steps: list[str] = []
        inside = asyncio.Event()

        async def app(*_: Any) -> None:
            try:
                inside.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError as exc:
                steps.append(f"cancelled {exc.args}")
                await asyncio.sleep(0)  # a second cancellation would land here
                raise
            finally:
                await asyncio.sleep(0)
                steps.append("cleaned up")

        task = asyncio.create_task(play(dress(app), new_scope(template)))
        await inside.wait()
        task.cancel("server stops")
        await asyncio.wait([task])
        return [*steps, f"task cancelled: {task.cancelled()}"]

    bare = asyncio.run(run(door.bare))
    assert bare == ["cancelled ('server stops',)", "cleaned up", "task cancelled: True"]
    assert asyncio.run(run(door.installed)) == bare


def test_an_app_may_refuse_to_be_cancelled(door):
    """It answers instead; nothing outside repeats the cancellation."""

    async def run(dress: Dress) -> list[Message]:
        inside = asyncio.Event()

        async def app(_: Scope, __: Receive, send: Send) -> None:
            try:
                inside.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
                await send(START)
                await send(END)

        task = asyncio.create_task(play(dress(app), new_scope()))
        await inside.wait()
        task.cancel()
        return await task

    assert asyncio.run(run(door.bare)) == [START, END]
    assert asyncio.run(run(door.installed)) == [START, END]


def test_a_deadline_around_the_app_works(door):
    """`asyncio.timeout` in a layer outside: it cancels, and turns it into TimeoutError."""

    async def app(*_: Any) -> None:
        await asyncio.Event().wait()

    async def run(dressed: ASGIApp) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await dressed(new_scope(), asyncio.Event().wait, asyncio.Event().wait)

    asyncio.run(run(door.bare(app)))
    asyncio.run(run(door.installed(app)))


def test_middlewares_that_end_the_request_themselves_are_obeyed():
    """A layer of the user's may answer, or raise, without calling what is inside it."""

    class Shortcut:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(END)

    called: list[str] = []

    async def endpoint(_: Any) -> None:
        called.append("endpoint")

    app = Starlette(routes=[Route("/somewhere", endpoint)])
    app.add_middleware(InnerMiddleware)
    served = with_bundle(app)
    app.add_middleware(Shortcut)
    assert asyncio.run(play(served, new_scope())) == [START, END]
    assert called == []
