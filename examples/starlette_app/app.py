"""A notepad in memory: Starlette and one call of `install`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

from perf_middleware import Settings, cache_response, install
from perf_middleware.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from perf_middleware.metrics.custom.instruments import Counter

NOTES_MAX = 1_000
NOTE_BYTES_MAX = 10_000


class State(TypedDict):
    """What the lifespan yields."""

    notes: list[str]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    yield {"notes": ["Open /metrics to see this app from outside."]}


@cache_response(ttl=60, shared=True, tags=["notes"])
async def list_notes(request: Request[State]) -> JSONResponse:
    return JSONResponse(request.state["notes"])


async def read_note(request: Request[State]) -> PlainTextResponse:
    notes, number = request.state["notes"], request.path_params["number"]
    if not 1 <= number <= len(notes):
        raise HTTPException(404, f"there is no note {number}")
    return PlainTextResponse(notes[number - 1])


async def add_note(request: Request[State]) -> Response:
    notes = request.state["notes"]
    text = (await request.body()).decode(errors="replace").strip()
    if not text:
        raise HTTPException(422, "a note needs text")
    if len(notes) == NOTES_MAX:
        raise HTTPException(507, f"the notepad is full at {NOTES_MAX} notes")
    notes.append(text)
    await request.app.state.perf.cache.purge(tags="notes")
    location = request.url_for("read_note", number=len(notes)).path
    tasks = BackgroundTasks(request=request)  # behind the answer, in the app's task queue
    tasks.add_task(count_words, request.app.state.words, text)
    return Response(status_code=201, headers={"Location": location}, background=tasks)


async def count_words(words: Counter, text: str) -> None:
    words.inc(len(text.split()))


async def echo(websocket: WebSocket[State]) -> None:
    """Send every text back, until the client leaves."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def create_app(settings: Settings | None = None) -> Starlette:
    """The notepad; without `settings` they come from `PERFORMANCE_*` and the defaults."""
    app = Starlette(
        routes=[
            Route("/notes", list_notes),
            Route("/notes", add_note, methods=["POST"], max_body_size=NOTE_BYTES_MAX),
            Route("/notes/{number:int}", read_note),
            WebSocketRoute("/echo", echo),
        ],
        lifespan=lifespan,
    )
    perf = install(app, settings or Settings())
    app.state.words = perf.metrics.counter("notes_words", "Words of all notes that were added.")
    return app


app = create_app()
