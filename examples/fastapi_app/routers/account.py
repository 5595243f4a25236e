"""/account: what a customer sees of their own, cached apart for each of them."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy import func, select

from examples.fastapi_app.dependencies import SessionDep
from examples.fastapi_app.tables import Customer, Order, OrderStatus
from perf_middleware import cache_response

router = APIRouter(prefix="/account", tags=["account"])

Token = Annotated[
    HTTPAuthorizationCredentials,
    Depends(HTTPBearer(description="`customer-17`: in a demo the number is the whole secret.")),
]


class Account(BaseModel):
    name: str
    orders: int
    spent_cents: int


def account_tag(customer_id: int) -> str:
    return f"account:{customer_id}"


def _customer_id(token: Token) -> int:
    told = re.fullmatch(r"customer-([1-9][0-9]{0,8})", token.credentials)
    if told is None:
        raise HTTPException(
            401, "the token is customer-NUMBER", headers={"WWW-Authenticate": "Bearer"}
        )
    return int(told[1])


# A hit runs neither the endpoint nor its dependencies: who had the answer has it for these seconds,
# and whoever else sends another token, or none, gets here.
@router.get("")
@cache_response(ttl=60, private_by="authorization", tell_clients="private, no-cache")
async def read_account(
    session: SessionDep, customer_id: Annotated[int, Depends(_customer_id)], response: Response
) -> Account:
    """Name, orders and what was paid for those that were not cancelled."""
    row = (
        await session.execute(
            select(
                Customer.name,
                func.count(Order.id).label("orders"),
                func.coalesce(func.sum(Order.total_cents), 0).label("spent_cents"),
            )
            .outerjoin(
                Order,
                (Order.customer_id == Customer.id) & (Order.status != OrderStatus.CANCELLED),
            )
            .where(Customer.id == customer_id)
            .group_by(Customer.id)
        )
    ).one_or_none()
    if row is None:
        raise HTTPException(404, f"there is no customer {customer_id}")
    # A tag that is not in the path (RFC 9875): the answer itself names it.
    response.headers["Cache-Groups"] = f'"{account_tag(customer_id)}"'
    return Account.model_validate(row, from_attributes=True)
