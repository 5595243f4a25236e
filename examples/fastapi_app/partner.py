"""The partners' own API: a separate application, mounted at /partner with its own /docs."""

from typing import Annotated

from fastapi import FastAPI, HTTPException, Path
from pydantic import BaseModel
from sqlalchemy import select

from examples.fastapi_app.dependencies import SessionDep
from examples.fastapi_app.tables import Product


class Stock(BaseModel):
    sku: str
    available: int


def create_partner_app() -> FastAPI:
    app = FastAPI(title="Shop: partner API")
    app.get("/stock/{sku}")(read_stock)
    return app


async def read_stock(
    session: SessionDep, sku: Annotated[str, Path(pattern=r"^[A-Z]{3}-[0-9]{5}$")]
) -> Stock:
    """How many pieces of a product partners may promise."""
    stock = await session.scalar(select(Product.stock).where(Product.sku == sku))
    if stock is None:
        raise HTTPException(404, f"there is no product {sku}")
    return Stock(sku=sku, available=stock)
