"""Drives an app with plain ASGI messages, as a server would."""

import json
from collections.abc import Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from perf_middleware.asgi import ASGIApp, Message, Scope

DEADLINE_S = 120.0  # far above anything that happens: only a hang reaches it


@dataclass(frozen=True)
class Answer:
    """All that an app sent for one request."""

    messages: list[Message]

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.messages[0]["headers"])

    def header(self, name: str) -> str | None:
        """The value of a field that is sent at most once."""
        values = [value.decode() for key, value in self.headers if key.decode().lower() == name]
        assert len(values) <= 1, f"{name} is sent {len(values)} times"
        return values[0] if values else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    def json(self) -> Any:
        return json.loads(self.body)


def http_scope(
    path: str = "/", *, method: str = "GET", headers: Iterable[tuple[str, str]] = (), **more: Any
) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("192.0.2.1", 50_000),
        "server": ("example.test", 80),
        **more,
    }


async def ask(app: ASGIApp, scope: Scope, body: bytes = b"") -> Answer:
    """One request; the client stays until the app returns."""
    messages: list[Message] = []
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not incoming:
            await anyio.sleep_forever()
        return incoming.pop()

    async def send(message: Message) -> None:
        messages.append(message)

    with anyio.fail_after(DEADLINE_S):
        await app(scope, receive, send)
    return Answer(messages)


def get(app: ASGIApp, path: str = "/", **request: Any) -> Answer:
    """One request in an event loop of its own."""
    return anyio.run(ask, app, http_scope(path, **request))


class Server:
    """The server's side of a lifespan: one message at a time, and what the app said."""

    def __init__(self, app: ASGIApp, *, state: dict[str, Any] | None = None) -> None:
        self.app = app
        self.said: list[Message] = []
        self.returned = False
        self.raised: BaseException | None = None
        self.scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        if state is not None:
            self.scope["state"] = state
        self._to_app, self._app_inbox = anyio.create_memory_object_stream[Message](8)
        self._changed = anyio.Event()

    @property
    def words(self) -> list[str]:
        return [message["type"].removeprefix("lifespan.") for message in self.said]

    async def _send(self, message: Message) -> None:
        self.said.append(message)
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def run(self) -> None:
        """The app's lifespan, from its first message until it returns or raises."""
        try:
            await self.app(self.scope, self._app_inbox.receive, self._send)
        except BaseException as exc:
            self.raised = exc
            if not isinstance(exc, Exception):
                raise
        else:
            self.returned = True
        finally:
            self._change()

    def tell(self, word: str) -> None:
        self._to_app.send_nowait({"type": f"lifespan.{word}"})

    async def until(self, *words: str) -> None:
        """Wait until the app said one of `words`, or came to its end."""
        with anyio.fail_after(DEADLINE_S):
            while not (
                self.returned
                or self.raised is not None
                or any(word in self.words for word in words)
            ):
                await self._changed.wait()

    async def ended(self) -> None:
        with anyio.fail_after(DEADLINE_S):
            while not (self.returned or self.raised is not None):
                await self._changed.wait()

    def close(self) -> None:
        self._to_app.close()
        self._app_inbox.close()


@asynccontextmanager
async def served(app: ASGIApp, *, state: dict[str, Any] | None = None):
    """The app between start-up and shutdown; afterwards it has come to its end."""
    server = Server(app, state=state)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.run)
            server.tell("startup")
            await server.until("startup.complete", "startup.failed")
            yield server
            server.tell("shutdown")
            await server.ended()
    finally:
        server.close()
