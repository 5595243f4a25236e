"""/live: order events as server-sent events, one order's status over a websocket, and ticks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Annotated

import anyio
from fastapi import (
    APIRouter,
    Depends,
    Header,
    HTTPException,
    Path,
    Query,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from examples.fastapi_app.dependencies import FeedDep, SessionsDep, StreamSessionDep
from examples.fastapi_app.feed import OrderFeed
from examples.fastapi_app.routers.products import ID_MAX, ProductId
from examples.fastapi_app.tables import FINAL_STATUSES, Order, OrderStatus, Product
from perf_middleware import allow_repeats

router = APIRouter(prefix="/live", tags=["live"])

EVENTS_MAX = 10_000
CLOSED_NORMALLY = 1000
CLOSED_BY_SHUTDOWN = 1001
CLOSED_NO_SUCH_ORDER = 4404


class OrderEventOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    order_id: int
    status: OrderStatus
    at: datetime


class Stock(BaseModel):
    product_id: int
    stock: int


class Tick(BaseModel):
    number: int
    at: datetime


async def _start(
    feed: FeedDep,
    after: Annotated[int | None, Query(ge=0, description="Begin after this event's id.")] = None,
    last_event_id: Annotated[int | None, Header(ge=0, description="Set by browsers.")] = None,
) -> int:
    """Where the stream begins: after what the client has seen, else now.

    A dependency, so that it is settled before the response starts: who has the headers misses
    nothing from then on.
    """
    if last_event_id is not None:
        return last_event_id
    return await feed.newest_id() if after is None else after


@router.get("/orders", response_class=EventSourceResponse)
async def stream_order_events(
    feed: FeedDep,
    start: Annotated[int, Depends(_start)],
    limit: Annotated[
        int, Query(ge=1, le=EVENTS_MAX, description="End after this many.")
    ] = EVENTS_MAX,
) -> AsyncIterator[ServerSentEvent]:
    """Every status change of every order, one event each."""
    sent = 0
    async with aclosing(feed.follow(after=start)) as events:
        async for event in events:
            yield ServerSentEvent(
                event=event.status, id=str(event.id), data=OrderEventOut.model_validate(event)
            )
            sent += 1
            if sent == limit:
                return


async def _product(session: StreamSessionDep, product_id: ProductId) -> int:
    """Before the stream begins: what is not there is a 404."""
    if await session.get(Product, product_id) is None:
        raise HTTPException(404, f"there is no product {product_id}")
    return product_id


@router.get("/stock/{product_id}", response_class=EventSourceResponse)
async def stream_stock(
    session: StreamSessionDep,
    feed: FeedDep,
    product_id: Annotated[int, Depends(_product)],
    limit: Annotated[
        int, Query(ge=1, le=EVENTS_MAX, description="End after this many.")
    ] = EVENTS_MAX,
) -> AsyncIterator[ServerSentEvent]:
    """What is left of a product, now and whenever an order changes it.

    The session is open for as long as the stream, which may be hours; a connection is not: it goes
    back to the pool before each piece of the response, and the next statement takes one again.
    """
    query = select(Product.stock).where(Product.id == product_id)
    told, sent = None, 0
    async with aclosing(feed.changes()) as changes:
        async for _ in changes:
            with allow_repeats():
                stock = await session.scalar(query)
            if stock == told:
                yield ServerSentEvent(comment="nothing new")  # with it the connection goes back
                continue
            yield ServerSentEvent(event="stock", data=Stock(product_id=product_id, stock=stock))
            told, sent = stock, sent + 1
            if sent == limit:
                return


@router.get("/ticks")
async def stream_ticks(
    count: Annotated[int, Query(ge=1, le=60)] = 5,
    interval_s: Annotated[float, Query(gt=0, le=1)] = 0.5,
) -> AsyncIterator[Tick]:
    """Lines of JSON, one after each interval."""
    for number in range(1, count + 1):
        await asyncio.sleep(interval_s)
        yield Tick(number=number, at=datetime.now(UTC))


@router.websocket("/orders/{order_id}")
async def watch_order(
    websocket: WebSocket,
    feed: FeedDep,
    sessions: SessionsDep,
    order_id: Annotated[int, Path(ge=1, le=ID_MAX)],
) -> None:
    """An order's status so far, then each change; closed once it is delivered or cancelled."""
    await websocket.accept()
    async with sessions() as session:
        order = await session.get(Order, order_id)
    if order is None:
        await websocket.close(CLOSED_NO_SUCH_ORDER, f"there is no order {order_id}")
        return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_leave_with_client, websocket, tasks.cancel_scope)
        with suppress(WebSocketDisconnect):
            await _tell_story(websocket, feed, order_id)
        tasks.cancel_scope.cancel()


async def _tell_story(websocket: WebSocket, feed: OrderFeed, order_id: int) -> None:
    async with aclosing(feed.follow(after=0, order_id=order_id)) as events:
        async for event in events:
            await websocket.send_text(OrderEventOut.model_validate(event).model_dump_json())
            if event.status in FINAL_STATUSES:
                await websocket.close(CLOSED_NORMALLY, f"the order is {event.status}")
                return
    await websocket.close(CLOSED_BY_SHUTDOWN, "the shop closes")


async def _leave_with_client(websocket: WebSocket, watching: anyio.CancelScope) -> None:
    # What the client says is of no interest here, only that it hangs up.
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    watching.cancel()
