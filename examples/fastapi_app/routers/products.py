"""/catalogue/products: the list, one product, its changes and its bar code."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import AliasPath, BaseModel, ConfigDict, Field
from sqlalchemy import Select, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import contains_eager

from examples.fastapi_app import barcode
from examples.fastapi_app.dependencies import SessionDep
from examples.fastapi_app.tables import Category, Product
from perf_middleware import cache_response

router = APIRouter(prefix="/products")

ID_MAX = 2**31 - 1
PRICE_CENTS_MAX = 10_000_000
STOCK_MAX = 1_000_000

ProductId = Annotated[int, Path(ge=1, le=ID_MAX)]


class ProductOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    sku: str
    name: str
    description: str
    category: str = Field(validation_alias=AliasPath("category", "slug"))
    price_cents: int
    stock: int
    updated_at: datetime


class ProductPage(BaseModel):
    items: list[ProductOut]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last.")


class NewProduct(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sku: str = Field(pattern=r"^[A-Z]{3}-[0-9]{5}$")
    name: str = Field(min_length=3, max_length=80)
    description: str = Field(default="", max_length=1_000)
    category: str = Field(max_length=40, description="The category's slug.")
    price_cents: int = Field(ge=1, le=PRICE_CENTS_MAX)
    stock: int = Field(default=0, ge=0, le=STOCK_MAX)


class ProductChanges(BaseModel):
    """What is left out, or null, stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(default=None, min_length=3, max_length=80)
    description: str | None = Field(default=None, max_length=1_000)
    price_cents: int | None = Field(default=None, ge=1, le=PRICE_CENTS_MAX)
    stock: int | None = Field(default=None, ge=0, le=STOCK_MAX)


class Filters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    category: str | None = Field(default=None, max_length=40)
    price_cents_min: int = Field(default=0, ge=0)
    price_cents_max: int = Field(default=PRICE_CENTS_MAX, ge=0, le=PRICE_CENTS_MAX)
    in_stock: bool = False
    sort: Literal["id", "price"] = "id"
    after: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,10}-[0-9]{1,10}$",
        description="`next` of the page before.",
    )
    limit: int = Field(default=50, ge=1, le=200)


def with_category() -> Select[Product]:
    """Products with their category, in one statement."""
    return select(Product).join(Product.category).options(contains_eager(Product.category))


@router.get("")
@cache_response(tracked=True, shared=True)
async def list_products(session: SessionDep, filters: Annotated[Filters, Query()]) -> ProductPage:
    """One page; the next begins after its last row, however far in and whatever was added."""
    query = with_category().where(
        Product.price_cents.between(filters.price_cents_min, filters.price_cents_max)
    )
    if filters.category is not None:
        query = query.where(Category.slug == filters.category)
    if filters.in_stock:
        query = query.where(Product.stock > 0)
    if filters.after is not None:
        price_cents, product_id = map(int, filters.after.split("-"))
        if filters.sort == "price":
            position = tuple_(Product.price_cents, Product.id)
            query = query.where(position > (price_cents, product_id))
        else:
            query = query.where(Product.id > product_id)
    if filters.sort == "price":
        query = query.order_by(Product.price_cents, Product.id)
    else:
        query = query.order_by(Product.id)

    products = (await session.scalars(query.limit(filters.limit + 1))).all()
    page = products[: filters.limit]
    more = len(products) > len(page)
    return ProductPage(
        items=[ProductOut.model_validate(product) for product in page],
        next=f"{page[-1].price_cents}-{page[-1].id}" if more else None,
    )


@router.post("", status_code=201)
async def create_product(
    session: SessionDep, new: NewProduct, request: Request, response: Response
) -> ProductOut:
    category = await session.scalar(select(Category).where(Category.slug == new.category))
    if category is None:
        raise HTTPException(422, f"there is no category {new.category}")
    product = Product(
        **new.model_dump(exclude={"category"}), category=category, updated_at=datetime.now(UTC)
    )
    session.add(product)
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(409, f"there is a product {new.sku} already") from None
    response.headers["Location"] = str(request.url_for("read_product", product_id=product.id).path)
    return ProductOut.model_validate(product)


@router.get("/{product_id}")
@cache_response(tracked=True, shared=True)
async def read_product(session: SessionDep, product_id: ProductId) -> ProductOut:
    return ProductOut.model_validate(await _find(session, product_id))


@router.patch("/{product_id}")
async def change_product(
    session: SessionDep, product_id: ProductId, changes: ProductChanges
) -> ProductOut:
    product = await _find(session, product_id)
    for field, value in changes.model_dump(exclude_none=True).items():
        setattr(product, field, value)
    product.updated_at = datetime.now(UTC)
    return ProductOut.model_validate(product)


@router.get("/{product_id}/barcode.svg", response_class=Response)
def draw_barcode(product_id: ProductId) -> Response:
    """The bar code of a product number; a plain `def`: FastAPI runs it in a thread."""
    return Response(barcode.svg(barcode.in_store_code(product_id)), media_type="image/svg+xml")


async def _find(session: AsyncSession, product_id: int) -> Product:
    product = await session.scalar(with_category().where(Product.id == product_id))
    if product is None:
        raise HTTPException(404, f"there is no product {product_id}")
    return product
