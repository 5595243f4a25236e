"""Websocket endpoints: what they accept, say, refuse and hear at the end."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from tests.http.ground import Ground, UnhandledError


async def socket_echo(ws: WebSocket) -> None:
    await ws.accept(headers=[(b"X-Accepted", b"yes"), (b"x-accepted", b"again")])
    async for message in _messages(ws):
        if "text" in message and message["text"] is not None:
            await ws.send_text(f"text {message['text']}")
        else:
            await ws.send_bytes(b"bytes " + message["bytes"])


async def _messages(ws: WebSocket) -> AsyncIterator[dict[str, Any]]:
    while (message := await ws.receive())["type"] == "websocket.receive":
        yield message


async def socket_subprotocol(ws: WebSocket) -> None:
    await ws.accept(subprotocol=ws.scope["subprotocols"][-1])
    own_task = ws.scope["outermost.task"] == anyio.get_current_task()
    await ws.send_json({"offered": ws.scope["subprotocols"], "own task": own_task})
    await ws.close(code=4001, reason="told all")


async def socket_rejected(ws: WebSocket) -> None:
    await ws.close(code=1008)


async def socket_denied(ws: WebSocket) -> None:
    response = JSONResponse({"denied": True}, status_code=401, headers={"X-Denied": "yes"})
    await ws.send_denial_response(response)


async def socket_boom(ws: WebSocket) -> None:
    await ws.accept()
    raise UnhandledError("in a websocket")


async def socket_boom_early(_: WebSocket) -> None:
    raise UnhandledError("before accepting")


async def socket_http_error(_: WebSocket) -> None:
    raise HTTPException(403, "not here")


def socket_routes(ground: Ground) -> list[BaseRoute]:
    async def until_closed(ws: WebSocket) -> None:
        key = ws.path_params["key"]
        await ws.accept()
        message = await ws.receive()
        ground.journal.note(key, (message["code"], message.get("reason") or ""))

    async def on_command(ws: WebSocket) -> None:
        """One message per released gate, without hearing anything from the client."""
        await ws.accept()
        for number in range(3):
            await ws.send_text(f"number {number}")
            await ground.gates.wait(ws.path_params["key"])
        await ws.close()

    return [
        WebSocketRoute("/ws/echo", socket_echo),
        WebSocketRoute("/ws/subprotocol", socket_subprotocol),
        WebSocketRoute("/ws/rejected", socket_rejected),
        WebSocketRoute("/ws/denied", socket_denied),
        WebSocketRoute("/ws/boom", socket_boom),
        WebSocketRoute("/ws/boom-early", socket_boom_early),
        WebSocketRoute("/ws/http-error", socket_http_error),
        WebSocketRoute("/ws/until-closed/{key}", until_closed),
        WebSocketRoute("/ws/on-command/{key}", on_command),
    ]
