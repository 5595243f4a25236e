"""Apps that use what ASGI, Starlette and FastAPI offer, each part at a path of its own.

`shared_routes` serve every app alike (`fastapi_apps` adds what only FastAPI has).  A path that ends
in `/{key}` waits at the gate and notes in the journal of that name.
"""

import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
from tests.http.ground import (
    FROM_ENDPOINT,
    FROM_MIDDLEWARE,
    FROM_OUTSIDE,
    Ground,
    TeapotError,
    UnhandledError,
)
from tests.http.servers import Gates, Journal
from tests.http.socket_apps import socket_routes
from tests.http.timed_apps import timed_routes

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
