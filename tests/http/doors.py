"""Ways into an app without a server: plain messages in, recorded messages out."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from perf_middleware import Settings
from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from tests.http.apps import hidden
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


def sender(messages: list[Message]) -> ASGIApp:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app
