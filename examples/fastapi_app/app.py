"""The shop: one FastAPI app and one call of `install`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from examples.fastapi_app.database import filled, with_database
from examples.fastapi_app.dependencies import ShopState
from examples.fastapi_app.feed import OrderFeed
from examples.fastapi_app.figures import Figures
from examples.fastapi_app.goodbye import on_stop_signal
from examples.fastapi_app.partner import create_partner_app
from examples.fastapi_app.routers import account, catalogue, live, orders, reports, trouble
from perf_middleware import Settings, install

HERE = Path(__file__).parent


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[ShopState]:
    perf = app.state.perf
    async with filled(perf, app.state.temporary_file):
        feed = OrderFeed(perf.database.session)
        with on_stop_signal(feed.close):
            yield {
                "sessions": perf.database.session,
                "run": perf.database.run,
                "queries": perf.database.queries,
                "feed": feed,
                "figures": Figures(perf),
                "cache": perf.cache,
            }


async def home() -> FileResponse:
    return FileResponse(HERE / "home.html")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The shop; without `settings` they come from `PERFORMANCE_*` and the defaults."""
    app = FastAPI(title="Shop", lifespan=lifespan)
    settings, app.state.temporary_file = with_database(settings or Settings())
    perf = install(app, settings)
    perf.watched.add(trouble.OrderUnits.of)

    app.get("/", include_in_schema=False)(home)
    for part in (catalogue, orders, account, reports, live, trouble):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.mount("/partner", create_partner_app(), name="partner")
    return app


app = create_app()
