"""The world around a cache, in ASGI messages: the clock, the app below, the clients above."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.caching.oracle.exchanges import Exchanged, Served, Target
from tests.caching.oracle.fields import members
from tests.caching.oracle.rules import OUR_HOUSE, House, unsafe

if TYPE_CHECKING:
    from random import Random

    from tests.caching.oracle.generate import Asked, Reply

START_S = 1_800_000_000.0
SETTLE_STEPS_MAX = 200
WAITING_STEPS_MAX = 5_000
BY_WHOM = b"x-request"
"""Request field that tells the app for which request it is called."""


class AppError(Exception):
    """The app broke off."""


class World:
    """The clock, the app and all that it ever answered, in one life of a cache."""

    def __init__(self, nature: Any, *, yields: Random | None = None) -> None:
        self.now_s = START_S
        self.tick = 0
        self.history: list[Exchanged] = []
        self.asked_s: list[float] = []
        self.open_calls = 0
        self._nature = nature
        self._yields = yields

    def clock(self) -> int:
        return 5_000_000 + int((self.now_s - START_S) * 1_000_000)

    def wall_s(self) -> float:
        return self.now_s

    def next_tick(self) -> int:
        self.tick += 1
        return self.tick

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Records the call, then gives the next answer."""
        headers = list(scope["headers"])
        request = next(int(value) for name, value in headers if name == BY_WHOM)
        exchanged = Exchanged(
            number=len(self.history),
            request=request,
            began=self.next_tick(),
            at_s=self.now_s,
            asked_s=self.asked_s[request],
            method=scope["method"],
            target=target_of(scope),
            request_headers=headers,
        )
        self.history.append(exchanged)
        self.open_calls += 1
        try:
            exchanged.request_body = await _body(receive)
            reply = self._nature.answer(exchanged, scope.get("extensions"))
            await self._others_turn()
            self.now_s += reply.delay_s
            await self._say(reply, exchanged, scope, send)
        except AppError:
            exchanged.raised = True
            raise
        finally:
            self.open_calls -= 1
            exchanged.finished_s = self.now_s
            exchanged.ended = self.next_tick()

    async def _others_turn(self) -> None:
        if self._yields is not None:
            for _ in range(self._yields.randrange(4)):
                await asyncio.sleep(0)

    async def _say(self, reply: Reply, exchanged: Exchanged, scope: Any, send: Any) -> None:
        extensions = scope.get("extensions") or {}
        if "http.response.early_hint" in extensions:
            for message in reply.interim:
                exchanged.others.append(message)
                await send(message)
        trailers = reply.trailers if "http.response.trailers" in extensions else None
        for count, message in enumerate(self._messages(reply, trailers, extensions)):
            if count == reply.raises_after:
                raise AppError(exchanged.number)
            kind = message["type"]
            if kind == "http.response.start":
                exchanged.status = reply.status
                exchanged.headers = list(reply.headers)
                message["headers"] = list(reply.headers)
            elif kind == "http.response.body":
                exchanged.body += message["body"]
                await self._others_turn()
            elif kind == "http.response.trailers":
                exchanged.trailers = list(message["headers"])
            else:
                exchanged.others.append(message)
            if _is_last(message, trailers) and kind != "http.response.pathsend":
                # Before it is sent: who gets the last message may ask again at once.
                exchanged.complete = _length_is_right(exchanged)
            await send(message)

    def _messages(self, reply: Reply, trailers: Any, extensions: Any) -> list[dict[str, Any]]:
        start: dict[str, Any] = {"type": "http.response.start", "status": reply.status}
        if trailers is not None:
            start["trailers"] = True
        if reply.sends_path and "http.response.pathsend" in extensions and not trailers:
            return [start, {"type": "http.response.pathsend", "path": "/nowhere/file"}]
        bodies: list[dict[str, Any]] = [
            {"type": "http.response.body", "body": chunk, "more_body": True}
            for chunk in reply.chunks
        ]
        bodies[-1]["more_body"] = False
        if trailers is None:
            return [start, *bodies]
        end = {"type": "http.response.trailers", "headers": trailers, "more_trailers": False}
        return [start, *bodies, end]

    # --- the client ------------------------------------------------------------------------------

    async def ask(self, cache: Any, asked: Asked) -> Served:
        """One request, until the cache returns or raises."""
        number = len(self.asked_s)
        self.asked_s.append(self.now_s)
        headers = [*asked.headers, (BY_WHOM, b"%d" % number)]
        served = Served(
            number=number,
            began=self.next_tick(),
            at_s=self.now_s,
            method=asked.method,
            target=asked.target,
            request_headers=headers,
            request_body=asked.body,
        )
        client = Client(self, served, asked)
        try:
            await cache(scope_of(asked, list(headers)), client.receive, client.send)
        except Exception as exc:  # noqa: BLE001 - the oracle judges it
            served.raised = None if served.cut and isinstance(exc, OSError) else exc
        served.answered_s = self.now_s if served.answered_s is None else served.answered_s
        return served

    async def settle(self) -> None:
        """Let background calls of the app come to their end."""
        for step in range(SETTLE_STEPS_MAX):
            if step > 4 and not self.open_calls:
                return
            await asyncio.sleep(0)

    def judge(self, served: Served, house: House = OUR_HOUSE) -> list[str]:
        served.app_calls = tuple(
            each.number for each in self.history if each.request == served.number
        )
        return unsafe(served, self.history, served.answered_s or served.at_s, house)


class Client:
    """The server's side of one request; keeps what it is sent."""

    def __init__(self, world: World, served: Served, asked: Asked) -> None:
        self._world = world
        self._served = served
        self._asked = asked
        self._said = False
        self._count = 0
        self._promised_trailers = False

    async def receive(self) -> dict[str, Any]:
        if not self._said:
            self._said = True
            return {"type": "http.request", "body": self._asked.body, "more_body": False}
        for _ in range(WAITING_STEPS_MAX):
            if self._served.cut or self._served.complete:
                break
            await asyncio.sleep(0)
        else:
            self._served.disorder.append("waits for the client, who waits for the answer")
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        served = self._served
        if self._count == self._asked.breaks_after:
            served.cut = True
            raise OSError("the client is gone")
        self._count += 1
        kind = message["type"]
        if kind == "http.response.start":
            if served.status is not None:
                served.disorder.append("two heads")
            served.status = message["status"]
            served.headers = [
                (bytes(name).lower(), bytes(value)) for name, value in message["headers"]
            ]
            served.answered_s = self._world.now_s
            self._promised_trailers = bool(message.get("trailers"))
            return
        if kind == "http.response.early_hint":
            served.others.append(dict(message))
            return
        if served.status is None or served.complete:
            served.disorder.append(f"{kind} before the head or after the end")
        if kind == "http.response.body":
            served.body += message.get("body", b"")
            served.complete = not message.get("more_body", False) and not self._promised_trailers
        elif kind == "http.response.trailers":
            served.trailers = list(message["headers"])
            served.complete = not message.get("more_trailers", False)
        elif kind == "http.response.pathsend":
            served.others.append(dict(message))
            served.complete = True
        else:
            served.disorder.append(f"unknown message {kind}")


# --- scopes --------------------------------------------------------------------------------------


def scope_of(asked: Asked, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    raw_path, _, query = asked.target.path.partition(b"?")
    host, _, port = asked.target.host.partition(b":")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": asked.target.scheme,
        "path": _decoded(raw_path),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.1", 50_000),
        "server": (host.decode(), int(port or 80)),
        "state": {},
        "extensions": dict(asked.extensions),
    }


def _decoded(raw_path: bytes) -> str:
    text = bytearray()
    at = 0
    while at < len(raw_path):
        if raw_path[at] == 0x25:
            text.append(int(raw_path[at + 1 : at + 3], 16))
            at += 3
        else:
            text.append(raw_path[at])
            at += 1
    return text.decode("utf-8", "replace")


def target_of(scope: Any) -> Target:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    query = scope["query_string"]
    return Target(scope["scheme"], host, scope["raw_path"] + (b"?" + query if query else b""))


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


def _is_last(message: dict[str, Any], trailers: Any) -> bool:
    kind = message["type"]
    if trailers is not None:
        return kind == "http.response.trailers"
    return kind == "http.response.body" and not message["more_body"]


def _length_is_right(exchanged: Exchanged) -> bool:
    lengths = members(exchanged.headers, b"content-length")
    named = any(name.lower() == b"content-length" for name, _ in exchanged.headers)
    if exchanged.method == "HEAD" or exchanged.status == 304 or not named:
        return True
    return set(lengths) == {b"%d" % len(exchanged.body)}
