"""Endpoints that take their time: each waits at its gate and notes how it ended."""

from collections.abc import AsyncIterator

import anyio
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from perf_middleware.asgi import Receive, Scope, Send
from tests.http.ground import FROM_ENDPOINT, Ground, UnhandledError


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

    async def untold(request: Request) -> Response:
        key = request.path_params["key"]
        journal.note(key, "called")
        return PlainTextResponse(f"call {len(journal.about(key))}", headers={"ETag": '"same"'})

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
        with anyio.fail_after(120):
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
        Route("/untold/{key}", untold),
        Route("/gated/{key}", gated, name="gated"),
        Route("/events/{key}", events),
        Route("/wait/{key}", wait, methods=["GET", "POST"]),
        Route("/background/{key}", in_background),
        Route("/boom-in-background", boom_in_background),
        Route("/until-disconnected/{key}", until_disconnected),
        Route("/upload/{key}", upload_noted, methods=["POST"]),
        Mount("/duplex", app=duplex),
    ]
