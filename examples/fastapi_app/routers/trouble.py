"""/trouble: what goes wrong in real services, on purpose and within bounds."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from examples.fastapi_app.database import Sessions
from examples.fastapi_app.dependencies import SessionDep, SessionsDep
from examples.fastapi_app.tables import Order, OrderLine
from perf_middleware import batched, rate_limit, timeout

router = APIRouter(prefix="/trouble", tags=["trouble"])

KEPT_MAX = 100_000  # a hundred megabytes: this is an example
_kept: list[bytes] = []


class Slept(BaseModel):
    slept_s: float


class Kept(BaseModel):
    kept: int


class Chatty(BaseModel):
    orders: int
    units: int
    statements: int


class Units(BaseModel):
    orders: int
    units: int


class OrderUnits:
    """How many pieces an order has."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @batched(wait_s=0, default=0, name="order_units")
    async def of(self, order_ids: list[int]) -> dict[int, int]:
        """Written for all orders that are asked for in one moment, asked for one."""
        query = (
            select(OrderLine.order_id, func.sum(OrderLine.quantity))
            .where(OrderLine.order_id.in_(order_ids))
            .group_by(OrderLine.order_id)
        )
        async with self._sessions() as session:
            rows = await session.execute(query)
        return dict(rows.tuples().all())


class DeliberateError(Exception):
    """What /trouble/error raises; no part of the shop catches it."""


@router.get("/slow")
async def be_slow(seconds: Annotated[float, Query(ge=0, le=30)] = 1.0) -> Slept:
    """Wait without work: slow for this client, harmless for the others."""
    await asyncio.sleep(seconds)
    return Slept(slept_s=seconds)


@router.get("/late")
@timeout(1)
async def be_late(seconds: Annotated[float, Query(ge=0, le=30)] = 2.0) -> Slept:
    """The same with one second to answer: 504, and the rest of the wait is cancelled."""
    await asyncio.sleep(seconds)
    return Slept(slept_s=seconds)


@router.get("/eager")
@rate_limit("3/minute", name="eager")
async def be_asked_too_often() -> str:
    """Three times a minute for each client, then 429 until its time has come."""
    return "ask again: the answer's RateLimit says how often"


@router.get("/block")
async def block_the_loop(seconds: Annotated[float, Query(ge=0, le=3)] = 0.5) -> Slept:
    """Block the event loop: while this sleeps, nobody is served."""
    time.sleep(seconds)
    return Slept(slept_s=seconds)


@router.get("/leak")
async def keep_too_much() -> Kept:
    """Keep a kilobyte of every request: asked often, it is named in the log within a minute."""
    if len(_kept) == KEPT_MAX:
        _kept.clear()
    _kept.append(bytes(1_000))
    return Kept(kept=len(_kept))


@router.get("/error")
async def fail() -> None:
    """Raise what nobody catches: 500."""
    raise DeliberateError("raised on purpose by /trouble/error")


@router.get("/chatty")
async def ask_row_by_row(
    session: SessionDep, orders: Annotated[int, Query(ge=1, le=200)] = 25
) -> Chatty:
    """One statement for the orders and one more for each of them ("N+1")."""
    newest = (await session.scalars(select(Order).order_by(Order.id.desc()).limit(orders))).all()
    units = 0
    for order in newest:
        lines = await session.scalars(select(OrderLine).where(OrderLine.order_id == order.id))
        units += sum(line.quantity for line in lines)
    return Chatty(orders=len(newest), units=units, statements=1 + len(newest))


@router.get("/n-plus-one")
async def load_each_lazily(
    session: SessionDep, orders: Annotated[int, Query(ge=1, le=200)] = 25
) -> Units:
    """The same by accident: each order's lines are loaded when they are looked at.

    The log names the line, the relationship and what to write instead.
    """
    newest = (await session.scalars(select(Order).order_by(Order.id.desc()).limit(orders))).all()
    units = 0
    for order in newest:
        units += sum(line.quantity for line in await order.awaitable_attrs.lines)
    return Units(orders=len(newest), units=units)


@router.get("/n-plus-one/fixed")
async def load_all_at_once(
    session: SessionDep, orders: Annotated[int, Query(ge=1, le=200)] = 25
) -> Units:
    """The same as the log advises: two statements, however many orders."""
    query = select(Order).order_by(Order.id.desc()).limit(orders)
    newest = (await session.scalars(query.options(selectinload(Order.lines)))).all()
    return Units(
        orders=len(newest), units=sum(line.quantity for order in newest for line in order.lines)
    )


@router.get("/n-plus-one/batched")
async def load_each_in_one_call(
    session: SessionDep,
    sessions: SessionsDep,
    orders: Annotated[int, Query(ge=1, le=200)] = 25,
) -> Units:
    """The same where each part asks for its own, as resolvers do: `@batched` makes one call."""
    newest = await session.scalars(select(Order.id).order_by(Order.id.desc()).limit(orders))
    units_of = OrderUnits(sessions).of
    units = await asyncio.gather(*[units_of(order_id) for order_id in newest])
    return Units(orders=len(units), units=sum(units))
