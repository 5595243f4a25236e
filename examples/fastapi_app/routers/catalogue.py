"""/catalogue: categories, search and, nested, the products."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import func, select

from examples.fastapi_app.dependencies import SessionDep
from examples.fastapi_app.routers import products
from examples.fastapi_app.tables import Category, Product
from perf_middleware import cache_response

router = APIRouter(prefix="/catalogue", tags=["catalogue"])
router.include_router(products.router)


class CategoryOut(BaseModel):
    slug: str
    name: str
    products: int


@router.get("/categories")
@cache_response(tracked=True, shared=True)
async def list_categories(session: SessionDep) -> list[CategoryOut]:
    """All categories with the number of their products."""
    rows = await session.execute(
        select(Category.slug, Category.name, func.count(Product.id).label("products"))
        .outerjoin(Product)
        .group_by(Category.id)
        .order_by(Category.slug)
    )
    return [CategoryOut.model_validate(row, from_attributes=True) for row in rows]


@router.get("/search")
async def search(
    session: SessionDep,
    q: Annotated[str, Query(min_length=2, max_length=60, description="Part of a name or text.")],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> list[products.ProductOut]:
    """Products with `q` in their name or text; those whose name begins with it come first."""
    # No index helps "somewhere inside": this reads every product, as such searches do.
    rows = await session.scalars(
        products.with_category()
        .where(
            Product.name.icontains(q, autoescape=True)
            | Product.description.icontains(q, autoescape=True)
        )
        .order_by(Product.name.istartswith(q, autoescape=True).desc(), Product.name, Product.id)
        .limit(limit)
    )
    return [products.ProductOut.model_validate(product) for product in rows]
