"""An app with customers, their orders and the orders' lines; and requests as a layer keeps them."""

from contextlib import contextmanager
from contextvars import ContextVar

from sqlalchemy import ForeignKey, String
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

CURRENT = ContextVar("tests.request", default=None)


class Request:
    """What the metrics' exchange is: the record of one request."""

    __slots__ = ("route", "statements")

    def __init__(self, route=""):
        self.statements = None
        self.route = route


class Requests:
    """The layer around an app that keeps a record of each request, and tells that it ended."""

    def __init__(self, app, watch):
        self._app = app
        self._watch = watch
        self.ended = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request()
        token = CURRENT.set(request)
        try:
            await self._app(scope, receive, send)
        finally:
            CURRENT.reset(token)
            self._watch.request_ended(request, scope["route"].path)
            self.ended.append(request)


@contextmanager
def request(watch, route="GET /test"):
    """The code within is one request."""
    record = Request(route)
    token = CURRENT.set(record)
    try:
        yield record
    finally:
        CURRENT.reset(token)
        watch.request_ended(record, route)


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", order_by="Order.id")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders")
    lines: Mapped[list["Line"]] = relationship(order_by="Line.id")


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    text: Mapped[str] = mapped_column(String(50))


def rows(customers=8):
    """So many customers with one order each, and two lines in it."""
    return [
        Customer(
            name=f"customer {n}",
            orders=[Order(lines=[Line(text=f"first of {n}"), Line(text=f"second of {n}")])],
        )
        for n in range(customers)
    ]
