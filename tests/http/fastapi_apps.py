"""The FastAPI app of the suite: the shared routes, and what only FastAPI has."""

from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    File,
    Header,
    HTTPException,
    Request,
    WebSocket,
    WebSocketException,
)
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from tests.http.apps import InnerMiddleware, noting_lifespan, shared_routes, teapot_answer
from tests.http.ground import FROM_ENDPOINT, FROM_MIDDLEWARE, FROM_OUTSIDE, Ground, TeapotError
from tests.http.servers import Gates, Journal

FROM_DEPENDENCY = ContextVar("FROM_DEPENDENCY", default="unset")


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)
    secret: str = "kept"


class PublicItem(BaseModel):
    name: str
    price: float


async def set_context() -> str:
    FROM_DEPENDENCY.set("set by a dependency")
    return FROM_MIDDLEWARE.get()


def fastapi_app(journal: Journal, files: Path) -> FastAPI:
    ground = Ground(journal, Gates(), files)
    app = FastAPI(
        routes=shared_routes(ground),
        exception_handlers={TeapotError: teapot_answer},
        lifespan=noting_lifespan(journal),
    )
    app.add_middleware(InnerMiddleware)
    app.include_router(item_routes(ground), prefix="/v1")
    return app


def item_routes(ground: Ground) -> APIRouter:
    journal, gates = ground.journal, ground.gates
    routes = APIRouter()

    async def noting_its_end(key: str) -> AsyncIterator[str]:
        try:
            yield "resource"
        finally:
            journal.note(key, f"dependency closed, context {FROM_ENDPOINT.get()}")

    def in_thread_noting_its_end(key: str) -> Iterator[str]:
        try:
            yield "resource"
        except HTTPException as exc:
            journal.note(key, f"dependency saw {exc.status_code}")
            raise
        finally:
            journal.note(key, "dependency closed")

    @routes.post("/items", response_model=PublicItem, status_code=201)
    async def create(item: Item) -> Item:
        return item

    @routes.get("/items/{item_id}")
    async def read(item_id: int, q: str | None = None, x_token: str = Header("none")) -> dict:
        return {"item_id": item_id, "q": q, "token": x_token}

    @routes.get("/context")
    async def context(
        request: Request, in_dependency: Annotated[str, Depends(set_context)]
    ) -> dict:
        FROM_ENDPOINT.set("set by the endpoint")
        return {
            "own task": request.scope["outermost.task"] == anyio.get_current_task(),
            "outside": FROM_OUTSIDE.get(),
            "middleware": in_dependency,
            "dependency": FROM_DEPENDENCY.get(),
        }

    @routes.get("/thread")
    def in_thread(_: Annotated[str, Depends(set_context)]) -> dict:
        return {"dependency": FROM_DEPENDENCY.get(), "middleware": FROM_MIDDLEWARE.get()}

    @routes.get("/resource/{key}")
    async def resource(
        key: str, held: Annotated[str, Depends(noting_its_end)], later: BackgroundTasks
    ) -> dict:
        FROM_ENDPOINT.set("set by the endpoint")
        later.add_task(journal.note, key, "background")
        return {"held": held}

    @routes.get("/refused/{key}")
    def refused(key: str, held: Annotated[str, Depends(in_thread_noting_its_end)]) -> None:
        raise HTTPException(409, {"held": held, "key": key})

    @routes.post("/files")
    async def files(document: Annotated[bytes, File()]) -> dict:
        return {"size": len(document)}

    @routes.get("/events/{key}", response_class=EventSourceResponse)
    async def events(key: str) -> AsyncIterator[ServerSentEvent]:
        try:
            for number in range(3):
                yield ServerSentEvent(data={"number": number}, event="count", id=str(number))
                await gates.wait(key)
        finally:
            journal.note(key, "stream cleaned up")

    @routes.get("/lines/{key}")
    async def lines(key: str) -> AsyncIterator[PublicItem]:
        for price in (1, 2):
            yield PublicItem(name="line", price=price)
            await gates.wait(key)

    @routes.websocket("/ws")
    async def guarded(ws: WebSocket, token: str = "") -> None:
        if token != "right":
            raise WebSocketException(1008, "wrong token")
        await ws.accept()
        await ws.send_json({"token": token})
        await ws.close(4002)

    return routes
