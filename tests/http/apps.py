"""Apps that use what ASGI, Starlette and FastAPI offer, each part at a path of its own.

`shared_routes` serve every app alike (`fastapi_apps` adds what only FastAPI has).  A path that ends
in `/{key}` waits at the gate and notes in the journal of that name.
"""

import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
from tests.http.servers import Gates, Journal

FROM_OUTSIDE = ContextVar("FROM_OUTSIDE", default="unset")
FROM_MIDDLEWARE = ContextVar("FROM_MIDDLEWARE", default="unset")
FROM_ENDPOINT = ContextVar("FROM_ENDPOINT", default="unset")


class TeapotError(Exception):
    """Has a handler that answers 418."""


class UnhandledError(Exception):
    """Has no handler: a 500, and the server logs it."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the endpoints stand on."""

    journal: Journal
    gates: Gates
    files: Path


# --- around the app -----------------------------------------------------------------------------


def outermost(app: ASGIApp, journal: Journal) -> ASGIApp:
    """Wrap `app` as a server would: remember the task, and note what is visible after the call."""

    async def probe(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await app(scope, receive, send)
        scope["outermost.task"] = anyio.get_current_task()
        FROM_OUTSIDE.set("set around the app")
        FROM_ENDPOINT.set("unset")
        try:
            return await app(scope, receive, send)
        finally:
            journal.note(f"around {scope['path']}", FROM_ENDPOINT.get())
            journal.note(f"params {scope['path']}", scope.get("path_params"))

    return probe


class InnerMiddleware:
    """A user's own: sets a context variable and `request.state`, adds a header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        FROM_MIDDLEWARE.set("set by a middleware")
        scope.setdefault("state", {})["added"] = "by a middleware"

        async def send_stamped(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"X-Stamped", b"yes")]
            await send(message)

        await self.app(scope, receive, send_stamped)


# --- plain answers ------------------------------------------------------------------------------


async def json_answer(_: Request) -> Response:
    return JSONResponse({"text": "größe", "numbers": [1, 2.5, None, True]})


async def text_answer(_: Request) -> Response:
    return PlainTextResponse("größe", headers={"X-Plain": "yes"})


async def bytes_answer(_: Request) -> Response:
    return Response(bytes(range(256)) * 4, media_type="application/octet-stream")


async def large_answer(_: Request) -> Response:
    return PlainTextResponse("a line of text\n" * 20_000)


async def no_content(_: Request) -> Response:
    return Response(status_code=204)


async def without_type(_: Request) -> Response:
    return Response(b"no content type")


async def headers_answer(_: Request) -> Response:
    response = Response(b"")
    response.raw_headers += [
        (b"X-Twice", b"first"),
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"x-between", b""),
        (b"X-TWICE", b"second"),
        (b"set-cookie", b"a=2; Path=/; HttpOnly"),
        (b"Vary", b"Accept"),
        (b"vary", b"Cookie"),
        (b"X-Latin", "é".encode("latin-1")),
        (b"Server-Timing", b"app;dur=1.5"),
        (b"Cache-Control", b"public, max-age=60"),
    ]
    return response


async def cookies_answer(_: Request) -> Response:
    response = PlainTextResponse("two cookies")
    response.set_cookie("one", "1", httponly=True)
    response.set_cookie("two", "2", secure=True)
    return response


async def redirect(_: Request) -> Response:
    return RedirectResponse("/json?from=redirect", status_code=303)


async def teapot(_: Request) -> Response:
    raise TeapotError("short and stout")


async def teapot_answer(_: Request, exc: Exception) -> Response:
    return JSONResponse({"teapot": str(exc)}, status_code=418, headers={"X-Teapot": "1"})


async def http_error(_: Request) -> Response:
    raise HTTPException(403, "not yours", headers={"X-Reason": "policy"})


async def boom(_: Request) -> Response:
    try:
        {}["the cause"]
    except KeyError as exc:
        raise UnhandledError("boom", 7) from exc


async def late_boom(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"before the failure"
        raise UnhandledError("too late for a 500")

    return StreamingResponse(parts())


async def whole_scope(request: Request) -> Response:
    """What the app is told about the request, but for the server's own port and the state."""
    scope = request.scope
    names = ("type", "method", "path", "raw_path", "root_path", "query_string", "headers", "scheme")
    return JSONResponse(
        {name: repr(scope[name]) for name in (*names, "http_version", "asgi")}
        | {
            # Keys of our own are named after us; the app's and the server's stay what they were.
            "keys": sorted(key for key in scope if not key.startswith("perf_middleware.")),
            "state": sorted(set(scope["state"]) - {"perf"}),
        }
    )


async def urls(request: Request) -> Response:
    return JSONResponse(
        {
            "url": str(request.url),
            "base_url": str(request.base_url),
            "named": str(request.url_for("gated", key="a b")),
            "mounted": str(request.url_for("inner:where")),
            "static": str(request.url_for("static", path="plain.txt")),
            "root_path": request.scope["root_path"],
        }
    )


async def where(request: Request) -> Response:
    return JSONResponse(
        {
            "path": request.scope["path"],
            "root_path": request.scope["root_path"],
            "app_root_path": request.scope.get("app_root_path"),
            "outside": str(request.url_for("inner:where")),
            "added": request.state.added,
        }
    )


async def state(request: Request) -> Response:
    return JSONResponse(
        {
            "from lifespan": request.state.greeting,
            "from middleware": request.state.added,
            "same object": request.state.shared is request.app.state.shared,
        }
    )


async def context(request: Request) -> Response:
    FROM_ENDPOINT.set("set by the endpoint")
    return JSONResponse(
        {
            "own task": request.scope["outermost.task"] == anyio.get_current_task(),
            "outside": FROM_OUTSIDE.get(),
            "middleware": FROM_MIDDLEWARE.get(),
        }
    )


def in_thread(request: Request) -> Response:
    return JSONResponse(
        {
            "on the loop's thread": threading.current_thread().name.startswith("server-"),
            "outside": FROM_OUTSIDE.get(),
            "middleware": FROM_MIDDLEWARE.get(),
        }
    )


class ByMethod(HTTPEndpoint):
    async def get(self, _: Request) -> Response:
        return PlainTextResponse("got")

    async def put(self, request: Request) -> Response:
        return PlainTextResponse(await request.body())


# --- bodies that come in ------------------------------------------------------------------------


async def upload(request: Request) -> Response:
    digest, size = hashlib.sha256(), 0
    async for part in request.stream():
        digest.update(part)
        size += len(part)
    return JSONResponse({"size": size, "sha256": digest.hexdigest()})


async def form(request: Request) -> Response:
    async with request.form() as fields:
        document = fields["document"]
        return JSONResponse(
            {
                "title": fields["title"],
                "filename": document.filename,
                "size": len(await document.read()),
            }
        )


async def unread(_: Request) -> Response:
    return PlainTextResponse("answered without reading the body", status_code=401)


# --- what takes its time: each waits at its gate, and notes how it ended ------------------------


def timed_routes(ground: Ground) -> list[BaseRoute]:
    journal, gates = ground.journal, ground.gates

    async def release(request: Request) -> Response:
        gates.release(request.path_params["key"])
        return Response(status_code=204)

    async def counted(request: Request) -> Response:
        key = request.path_params["key"]
        journal.note(key, "called")
        headers = {"Cache-Control": "public, max-age=60", "ETag": '"always the same"'}
        return PlainTextResponse(f"call {len(journal.about(key))}", headers=headers)

    async def noting_its_end(key: str, parts: tuple[bytes, ...]) -> AsyncIterator[bytes]:
        try:
            for part in parts:
                yield part
                await gates.wait(key)
        except BaseException as exc:
            journal.note(key, f"stream ended by {type(exc).__name__}")
            raise
        else:
            journal.note(key, "stream complete")
        finally:
            with anyio.CancelScope(shield=True):  # cleaning up may wait, even when cancelled
                await anyio.lowlevel.checkpoint()
            journal.note(key, "stream cleaned up")

    async def gated(request: Request) -> Response:
        parts = noting_its_end(request.path_params["key"], (b"one", b"two", b"three"))
        return StreamingResponse(parts, media_type="text/plain")

    async def events(request: Request) -> Response:
        parts = (b"id: 1\ndata: a\n\n", b"id: 2\ndata: b\n\n", b": ping\n\n")
        return StreamingResponse(
            noting_its_end(request.path_params["key"], parts),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def wait(request: Request) -> Response:
        key = request.path_params["key"]
        journal.note(key, "waiting")
        try:
            await gates.wait(key)
        except BaseException as exc:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0)
            journal.note(key, f"cleaned up after {type(exc).__name__}")
            raise
        return PlainTextResponse(f"waited {key}")

    async def in_background(request: Request) -> Response:
        key = request.path_params["key"]
        own_task = anyio.get_current_task()
        FROM_ENDPOINT.set("set by the endpoint")

        async def first() -> None:
            await gates.wait(key)
            same = anyio.get_current_task() == own_task
            journal.note(key, f"first, own task {same}, context {FROM_ENDPOINT.get()}")

        def second() -> None:
            journal.note(key, f"second, context {FROM_ENDPOINT.get()}")

        tasks = BackgroundTasks([BackgroundTask(first), BackgroundTask(second)])
        return PlainTextResponse("answered", background=tasks)

    async def boom_in_background(_: Request) -> Response:
        async def fail() -> None:
            raise UnhandledError("after the answer")

        return PlainTextResponse("answered", background=BackgroundTask(fail))

    async def until_disconnected(request: Request) -> Response:
        key = request.path_params["key"]
        journal.note(key, f"disconnected: {await request.is_disconnected()}")
        with anyio.fail_after(10):
            while not await request.is_disconnected():
                await anyio.sleep(0.005)
        journal.note(key, "disconnected: True")
        return Response()

    async def upload_noted(request: Request) -> Response:
        key = request.path_params["key"]
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                journal.note(key, f"read up to {size}")
        except ClientDisconnect:
            journal.note(key, "the client left")
            raise
        return PlainTextResponse(f"read {size}")

    async def duplex(scope: Scope, receive: Receive, send: Send) -> None:
        """Answer every part of the body at once, before the next has come."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message.get("more_body", False)
            if message.get("body"):
                echo = b"<" + message["body"] + b">"
                await send({"type": "http.response.body", "body": echo, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return [
        Route("/release/{key}", release, methods=["POST"]),
        Route("/counted/{key}", counted),
        Route("/gated/{key}", gated, name="gated"),
        Route("/events/{key}", events),
        Route("/wait/{key}", wait, methods=["GET", "POST"]),
        Route("/background/{key}", in_background),
        Route("/boom-in-background", boom_in_background),
        Route("/until-disconnected/{key}", until_disconnected),
        Route("/upload/{key}", upload_noted, methods=["POST"]),
        Mount("/duplex", app=duplex),
    ]


# --- websockets ---------------------------------------------------------------------------------


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


# --- whole apps ---------------------------------------------------------------------------------


def shared_routes(ground: Ground) -> list[BaseRoute]:
    inner = Starlette(
        routes=[
            Route("/where", where, name="where"),
            Route("/boom", boom),
            Route("/teapot", teapot),
        ],
        exception_handlers={Exception: teapot_answer},
    )

    async def download(_: Request) -> Response:
        return FileResponse(ground.files / "numbers.bin", filename="nummern ä.bin")

    return [
        Route("/json", json_answer),
        Route("/text", text_answer),
        Route("/bytes", bytes_answer),
        Route("/large", large_answer),
        Route("/no-content", no_content),
        Route("/without-type", without_type),
        Route("/headers", headers_answer),
        Route("/cookies", cookies_answer),
        Route("/redirect", redirect),
        Route("/folder/", text_answer),
        Route("/teapot", teapot),
        Route("/http-error", http_error),
        Route("/boom", boom),
        Route("/late-boom", late_boom),
        Route("/urls", urls),
        Route("/state", state),
        Route("/context", context),
        Route("/thread", in_thread),
        Route("/by-method", ByMethod),
        Route("/upload", upload, methods=["POST", "PUT"]),
        Route("/form", form, methods=["POST"]),
        Route("/unread", unread, methods=["POST"]),
        Route("/download", download),
        Route("/scope/{rest:path}", whole_scope, methods=["GET", "POST"]),
        *timed_routes(ground),
        *socket_routes(ground),
        Mount("/static", StaticFiles(directory=ground.files), name="static"),
        Mount("/inner", inner, name="inner"),
    ]


def noting_lifespan(journal: Journal) -> Callable[[Any], Any]:
    """A lifespan with state and a task group, which must be entered and left in one task."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        task = anyio.get_current_task()
        journal.note("lifespan", "started")
        app.state.shared = ["shared"]
        async with anyio.create_task_group() as background:
            background.start_soon(anyio.sleep_forever)
            yield {"greeting": "from the lifespan", "shared": app.state.shared}
            background.cancel_scope.cancel()
        journal.note("lifespan", f"stopped in its task: {anyio.get_current_task() == task}")

    return lifespan


def starlette_app(journal: Journal, files: Path) -> Starlette:
    return Starlette(
        routes=shared_routes(Ground(journal, Gates(), files)),
        middleware=[Middleware(InnerMiddleware)],
        exception_handlers={TeapotError: teapot_answer},
        lifespan=noting_lifespan(journal),
    )


def hidden(app: ASGIApp) -> ASGIApp:
    """`app` as a plain callable: nothing shows which framework it is."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return serve
