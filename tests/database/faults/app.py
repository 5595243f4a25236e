"""The app whose database goes away: it reads, keeps, writes, and does without."""

import logging
from typing import Any

from fastapi import Depends, FastAPI
from sqlalchemy import text

from perf_middleware import Settings, cache_response, install

logging.basicConfig(level=logging.INFO)
app = FastAPI()
perf = install(app, Settings())
SESSION = Depends(perf.database.session, scope="function")


async def _version(session: Any, item: int) -> int:
    asked = text("select version from items where id = :id")
    return (await session.execute(asked, {"id": item})).scalar_one()


@app.get("/plain")
async def plain() -> str:
    return "plain"


@app.get("/status")
async def status() -> Any:
    return perf.status()["resources"]["database"]


@app.get("/fresh/{item}")
async def fresh(item: int, session: Any = SESSION) -> int:
    return await _version(session, item)


@app.get("/cached/{item}")
@cache_response(tracked=True, shared=True)
async def cached(item: int, session: Any = SESSION) -> int:
    return await _version(session, item)


@app.get("/stale/{item}")
@cache_response(ttl=1, stale_if_error=600, shared=True)
async def stale(item: int) -> int:
    async with perf.database.session() as session:
        return await _version(session, item)


@app.post("/write/{item}")
async def write(item: int, session: Any = SESSION) -> str:
    """A table of its own: what `/cached` has read stays stored."""
    await session.execute(text("insert into notes values (:id)"), {"id": item})
    return "written"


@app.post("/edit/{item}/{version}")
async def edit(item: int, version: int, session: Any = SESSION) -> str:
    asked = text("update items set version = :version where id = :id")
    await session.execute(asked, {"id": item, "version": version})
    return "edited"
