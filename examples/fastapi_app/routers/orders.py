"""/orders: the list, one order, placing and advancing."""

from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import AliasPath, BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from examples.fastapi_app import ordering
from examples.fastapi_app.database import Run
from examples.fastapi_app.dependencies import (
    CacheDep,
    FeedDep,
    FiguresDep,
    RunDep,
    SessionDep,
)
from examples.fastapi_app.feed import OrderFeed
from examples.fastapi_app.routers.account import account_tag
from examples.fastapi_app.routers.products import ID_MAX
from examples.fastapi_app.tables import Category, Order, OrderStatus, Product
from perf_middleware.tasks import RequestTasks

router = APIRouter(prefix="/orders", tags=["orders"])

LINES_MAX = 50
QUANTITY_MAX = 100

OrderId = Annotated[int, Path(ge=1, le=ID_MAX)]


class OrderSummary(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    customer_id: int
    status: OrderStatus
    placed_at: datetime
    total_cents: int


class LineOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    product_id: int
    quantity: int
    unit_price_cents: int


class OrderOut(OrderSummary):
    customer: str = Field(validation_alias=AliasPath("customer", "name"))
    lines: list[LineOut]


class OrderPage(BaseModel):
    items: list[OrderSummary]
    next: int | None = Field(description="Pass it as `before` for the next page; null on the last.")


class NewLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    product_id: int = Field(ge=1, le=ID_MAX)
    quantity: int = Field(ge=1, le=QUANTITY_MAX)


class NewOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")

    customer_id: int = Field(ge=1, le=ID_MAX)
    lines: list[NewLine] = Field(min_length=1, max_length=LINES_MAX)


class OrderChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: OrderStatus


@router.get("")
async def list_orders(
    session: SessionDep,
    customer_id: Annotated[int | None, Query(ge=1, le=ID_MAX)] = None,
    status: OrderStatus | None = None,
    before: Annotated[int | None, Query(ge=1, le=ID_MAX)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> OrderPage:
    """One page of orders, the newest first."""
    query = select(Order).order_by(Order.id.desc()).limit(limit + 1)
    if customer_id is not None:
        query = query.where(Order.customer_id == customer_id)
    if status is not None:
        query = query.where(Order.status == status)
    if before is not None:
        query = query.where(Order.id < before)
    orders = (await session.scalars(query)).all()
    page = orders[:limit]
    return OrderPage(
        items=[OrderSummary.model_validate(order) for order in page],
        next=page[-1].id if len(orders) > limit else None,
    )


@router.post("", status_code=201)
async def place_order(
    new: NewOrder,
    session: SessionDep,
    run: RunDep,
    feed: FeedDep,
    figures: FiguresDep,
    cache: CacheDep,
    request: Request,
    response: Response,
    background: RequestTasks,
) -> OrderOut:
    """Place an order; it is confirmed in the background, after the answer.

    The confirmation runs in the app's task queue: whoever closes the shop waits for it.

    Of two orders for one product the second waits, or is told that the first was there: `run`
    does its whole transaction again then, a few times.
    """
    wanted = [ordering.Wanted(line.product_id, line.quantity) for line in new.lines]
    try:
        order = await run(partial(ordering.place, customer_id=new.customer_id, wanted=wanted))
    except ordering.UnknownError as unknown:
        raise HTTPException(422, str(unknown)) from None
    except ordering.ConflictError as conflict:
        raise HTTPException(409, str(conflict)) from None
    feed.announce()
    figures.orders_created.inc(category=await _category_of(session, wanted[0].product_id))
    background.add_task(_confirm, order.id, run, feed)
    response.headers["Location"] = str(request.url_for("read_order", order_id=order.id).path)
    order = await _find(session, order.id)
    await cache.purge(tags=[account_tag(order.customer_id)])
    return OrderOut.model_validate(order)


@router.get("/{order_id}")
async def read_order(session: SessionDep, order_id: OrderId) -> OrderOut:
    return OrderOut.model_validate(await _find(session, order_id))


@router.patch("/{order_id}")
async def change_order(
    session: SessionDep,
    run: RunDep,
    feed: FeedDep,
    cache: CacheDep,
    order_id: OrderId,
    change: OrderChange,
) -> OrderOut:
    """Ship, deliver or cancel an order."""
    try:
        await run(partial(ordering.advance, order_id=order_id, status=change.status))
    except ordering.UnknownError as unknown:
        raise HTTPException(404, str(unknown)) from None
    except ordering.ConflictError as conflict:
        raise HTTPException(409, str(conflict)) from None
    feed.announce()
    order = await _find(session, order_id)
    await cache.purge(tags=[account_tag(order.customer_id)])
    return OrderOut.model_validate(order)


async def _confirm(order_id: int, run: Run, feed: OrderFeed) -> None:
    try:
        await run(partial(ordering.advance, order_id=order_id, status=OrderStatus.CONFIRMED))
    except ordering.ConflictError:
        return  # cancelled in the meantime: nothing is left to confirm
    feed.announce()


async def _find(session: AsyncSession, order_id: int) -> Order:
    order = await session.scalar(
        select(Order)
        .where(Order.id == order_id)
        .options(joinedload(Order.customer), selectinload(Order.lines))
    )
    if order is None:
        raise HTTPException(404, f"there is no order {order_id}")
    return order


async def _category_of(session: AsyncSession, product_id: int) -> str:
    return (
        await session.execute(select(Category.slug).join(Product).where(Product.id == product_id))
    ).scalar_one()
