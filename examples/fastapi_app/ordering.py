"""What may happen to an order, each step a unit for `perf.database.run`: one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from examples.fastapi_app.tables import (
    MAY_FOLLOW,
    Customer,
    Order,
    OrderEvent,
    OrderLine,
    OrderStatus,
    Product,
)


class UnknownError(Exception):
    """The order names something that the shop does not have."""


class ConflictError(Exception):
    """The shop has it, but not in a state that allows the step."""


@dataclass(frozen=True, slots=True)
class Wanted:
    product_id: int
    quantity: int


async def place(session: AsyncSession, *, customer_id: int, wanted: Sequence[Wanted]) -> Order:
    """A new order with its stock taken.

    Raises UnknownError for a customer or product that does not exist, ConflictError where the
    stock does not suffice; neither leaves anything behind.
    """
    if await session.get(Customer, customer_id) is None:
        raise UnknownError(f"there is no customer {customer_id}")
    now = datetime.now(UTC)
    order = Order(
        customer_id=customer_id, status=OrderStatus.PLACED, placed_at=now, total_cents=0, lines=[]
    )
    for position, line in enumerate(wanted, start=1):
        price_cents = await _take_from_stock(session, line)
        order.total_cents += line.quantity * price_cents
        order.lines.append(
            OrderLine(
                position=position,
                product_id=line.product_id,
                quantity=line.quantity,
                unit_price_cents=price_cents,
            )
        )
    session.add(order)
    await session.flush()  # gives the order its id
    session.add(OrderEvent(order_id=order.id, status=order.status, at=now))
    return order


async def advance(session: AsyncSession, order_id: int, status: OrderStatus) -> None:
    """Bring an order to `status`; a cancelled one gives its stock back.

    Raises UnknownError for an order that does not exist, ConflictError where its present status
    does not lead to the new one.
    """
    advanced: int | None = await session.scalar(
        update(Order)
        .where(Order.id == order_id, Order.status.in_(MAY_FOLLOW.get(status, ())))
        .values(status=status)
        .returning(Order.id)
    )
    if advanced is None:
        present = await session.scalar(select(Order.status).where(Order.id == order_id))
        if present is None:
            raise UnknownError(f"there is no order {order_id}")
        raise ConflictError(f"an order that is {present} cannot become {status}")
    if status is OrderStatus.CANCELLED:
        await _return_to_stock(session, order_id)
    session.add(OrderEvent(order_id=order_id, status=status, at=datetime.now(UTC)))


async def _take_from_stock(session: AsyncSession, line: Wanted) -> int:
    # One statement looks and takes: between two, another order could take the same piece.
    price_cents: int | None = await session.scalar(
        update(Product)
        .where(Product.id == line.product_id, Product.stock >= line.quantity)
        .values(stock=Product.stock - line.quantity)
        .returning(Product.price_cents)
    )
    if price_cents is None:
        stock = await session.scalar(select(Product.stock).where(Product.id == line.product_id))
        if stock is None:
            raise UnknownError(f"there is no product {line.product_id}")
        raise ConflictError(f"of product {line.product_id} only {stock} are left")
    return price_cents


async def _return_to_stock(session: AsyncSession, order_id: int) -> None:
    returned = (
        select(func.sum(OrderLine.quantity))
        .where(OrderLine.order_id == order_id, OrderLine.product_id == Product.id)
        .scalar_subquery()
    )
    await session.execute(
        update(Product)
        .where(Product.id.in_(select(OrderLine.product_id).where(OrderLine.order_id == order_id)))
        .values(stock=Product.stock + returned)
        .execution_options(synchronize_session=False)
    )
