"""The shop's tables.  Money is whole cents, time is UTC."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, ForeignKey, Index, String
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator


class OrderStatus(StrEnum):
    PLACED = "placed"
    CONFIRMED = "confirmed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


FINAL_STATUSES = frozenset({OrderStatus.DELIVERED, OrderStatus.CANCELLED})

MAY_FOLLOW = {
    OrderStatus.CONFIRMED: (OrderStatus.PLACED,),
    OrderStatus.SHIPPED: (OrderStatus.CONFIRMED,),
    OrderStatus.DELIVERED: (OrderStatus.SHIPPED,),
    OrderStatus.CANCELLED: (OrderStatus.PLACED, OrderStatus.CONFIRMED),
}
"""The statuses from which an order may come to each other one."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes over SQLite, which keeps no time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Table(AsyncAttrs, DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime, OrderStatus: String(10)}  # noqa: RUF012 - SQLAlchemy's declaration


class Category(Table):
    __tablename__ = "category"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


class Product(Table):
    __tablename__ = "product"
    __table_args__ = (
        Index("product_by_price", "price_cents", "id"),
        Index("product_by_category", "category_id", "price_cents", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    description: Mapped[str]
    category_id: Mapped[int] = mapped_column(ForeignKey("category.id"))
    price_cents: Mapped[int]
    stock: Mapped[int]
    updated_at: Mapped[datetime]

    category: Mapped[Category] = relationship()


class Customer(Table):
    __tablename__ = "customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)


class Order(Table):
    __tablename__ = "customer_order"  # "order" is a word of SQL
    __table_args__ = (Index("customer_order_by_customer", "customer_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    status: Mapped[OrderStatus]
    placed_at: Mapped[datetime]
    total_cents: Mapped[int]

    customer: Mapped[Customer] = relationship()
    lines: Mapped[list["OrderLine"]] = relationship(order_by="OrderLine.position")


class OrderLine(Table):
    __tablename__ = "order_line"

    order_id: Mapped[int] = mapped_column(ForeignKey("customer_order.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), index=True)
    quantity: Mapped[int]
    unit_price_cents: Mapped[int]


class OrderEvent(Table):
    """What happened to an order, written in the transaction that made it happen."""

    __tablename__ = "order_event"
    # AUTOINCREMENT: an id is never used twice, so "everything after 17" means one thing for ever.
    __table_args__ = (
        Index("order_event_by_order", "order_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("customer_order.id"))
    status: Mapped[OrderStatus]
    at: Mapped[datetime]
