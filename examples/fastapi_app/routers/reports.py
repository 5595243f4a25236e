"""/reports: figures for the shop's owners, and all orders as a file."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import func, select

from examples.fastapi_app.database import Sessions
from examples.fastapi_app.dependencies import FiguresDep, QueriesDep, SessionDep, SessionsDep
from examples.fastapi_app.tables import (
    Category,
    Customer,
    Order,
    OrderLine,
    OrderStatus,
    Product,
)
from perf_middleware import allow_repeats, criticality

router = APIRouter(prefix="/reports", tags=["reports"])

EXPORT_COLUMNS = ("id", "placed_at", "status", "customer", "email", "lines", "total_cents")
ROWS_PER_CHUNK = 250


class MonthlySales(BaseModel):
    category: str
    month: str
    units: int
    revenue_cents: int
    running_revenue_cents: int
    rank: int


class Bestseller(BaseModel):
    category: str
    rank: int
    product_id: int
    name: str
    units: int


@router.get("/sales")
@criticality("sheddable")  # first to go while the shop has too much to do
async def report_sales(
    session: SessionDep,
    figures: FiguresDep,
    year: Annotated[int, Query(ge=2000, le=2100)] = 2025,
) -> list[MonthlySales]:
    """Sales of a year by category and month, with the sum so far and the place in the month."""
    month = (
        func.to_char(Order.placed_at, "YYYY-MM")
        if session.get_bind().dialect.name == "postgresql"
        else func.strftime("%Y-%m", Order.placed_at)
    ).label("month")
    monthly = (
        select(
            Category.slug.label("category"),
            month,
            func.sum(OrderLine.quantity).label("units"),
            func.sum(OrderLine.quantity * OrderLine.unit_price_cents).label("revenue_cents"),
        )
        .select_from(OrderLine)
        .join(Order)
        .join(Product)
        .join(Category)
        .where(
            Order.status != OrderStatus.CANCELLED,
            Order.placed_at >= datetime(year, 1, 1, tzinfo=UTC),
            Order.placed_at < datetime(year + 1, 1, 1, tzinfo=UTC),
        )
        .group_by(Category.slug, month)
        .subquery()
    )
    report = select(
        monthly,
        func.sum(monthly.c.revenue_cents)
        .over(partition_by=monthly.c.category, order_by=monthly.c.month)
        .label("running_revenue_cents"),
        func.rank()
        .over(partition_by=monthly.c.month, order_by=monthly.c.revenue_cents.desc())
        .label("rank"),
    ).order_by(monthly.c.category, monthly.c.month)
    with figures.time_sales_report():
        rows = (await session.execute(report)).all()
    return [MonthlySales.model_validate(row, from_attributes=True) for row in rows]


@router.get("/bestsellers")
async def report_bestsellers(
    sessions: SessionsDep,
    queries: QueriesDep,
    per_category: Annotated[int, Query(ge=1, le=20)] = 3,
) -> list[Bestseller]:
    """The products of each category that sold most pieces, counted once after each order.

    Kept in the query cache: the next commit to one of the tables that are read forgets it.
    """

    async def count() -> list[Bestseller]:
        return await _bestsellers(sessions, per_category)

    return await queries.get_or_execute(f"bestsellers:{per_category}", count)


async def _bestsellers(sessions: Sessions, per_category: int) -> list[Bestseller]:
    units = func.sum(OrderLine.quantity)
    ranked = (
        select(
            Category.slug.label("category"),
            func.row_number()
            .over(partition_by=Category.slug, order_by=(units.desc(), Product.id))
            .label("rank"),
            Product.id.label("product_id"),
            Product.name.label("name"),
            units.label("units"),
        )
        .select_from(OrderLine)
        .join(Order)
        .join(Product)
        .join(Category)
        .where(Order.status != OrderStatus.CANCELLED)
        .group_by(Category.slug, Product.id)
        .subquery()
    )
    async with sessions() as session:
        rows = await session.execute(
            select(ranked)
            .where(ranked.c.rank <= per_category)
            .order_by(ranked.c.category, ranked.c.rank)
        )
    return [Bestseller.model_validate(row, from_attributes=True) for row in rows]


@router.get("/orders.csv", response_class=StreamingResponse)
async def export_orders(sessions: SessionsDep) -> StreamingResponse:
    """All orders, streamed: in memory is only a chunk, however many there are."""
    return StreamingResponse(
        _export(sessions),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="orders.csv"'},
    )


async def _export(sessions: Sessions) -> AsyncIterator[str]:
    async with sessions() as session:
        last_id = await session.scalar(select(func.max(Order.id))) or 0
    yield _as_csv([EXPORT_COLUMNS])
    lines = (
        select(func.count())
        .where(OrderLine.order_id == Order.id)
        .correlate(Order)
        .scalar_subquery()
    )
    query = (
        select(
            Order.id,
            Order.placed_at,
            Order.status,
            Customer.name,
            Customer.email,
            lines,
            Order.total_cents,
        )
        .join(Customer)
        .where(Order.id <= last_id)  # what is ordered meanwhile belongs to the next export
        .order_by(Order.id)
        .limit(ROWS_PER_CHUNK)
    )
    done_id = 0
    while done_id < last_id:
        # A session for each chunk: a slow reader holds no connection while it reads.
        # The same statement again and again, on purpose: nothing that the log should tell.
        with allow_repeats():
            async with sessions() as session:
                rows = (await session.execute(query.where(Order.id > done_id))).all()
        yield _as_csv((id_, placed_at.isoformat(), *rest) for id_, placed_at, *rest in rows)
        done_id = rows[-1].id


def _as_csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
