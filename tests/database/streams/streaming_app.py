"""An app whose responses stream while a session's dependency is open, in every way there is."""

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from sqlalchemy import create_engine, delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from perf_middleware import Settings, install

POOL = 5


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "guarded_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def build(url, own_url, file, options, **settings):
    """Its `app.state` has `perf`, `engines` by the name of their database, and `watch`."""
    own = create_async_engine(own_url, pool_size=POOL, max_overflow=0, pool_timeout=10, **options)
    sessions = async_sessionmaker(own, expire_on_commit=False)
    gate = {"open": asyncio.Event()}

    @asynccontextmanager
    async def lifespan(app):
        async with own.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        async with sessions() as session, session.begin():
            session.add_all([Item(id=number, name=f"item {number}") for number in range(500)])
        app.state.engines = {"own": own, "main": perf.database.engine()}
        yield
        await own.dispose()

    app = FastAPI(lifespan=lifespan)
    database = {"url": url, "pool_size": POOL, "pool_overflow_max": 0, **settings}
    perf = app.state.perf = install(app, Settings(database=database))
    app.state.watch = perf.database.watch(own, name="own")

    async def own_session():
        async with sessions() as session:
            yield session

    async def begun_session():
        async with sessions() as session, session.begin():
            yield session

    async def main_session():
        async with perf.database.session() as session:
            yield session

    given = {
        "own": own_session, "begun": begun_session, "main": main_session,
        "direct": perf.database.session,
    }  # fmt: skip

    async def lines(session):
        yield "data: begun\n\n"
        await gate["open"].wait()
        name = await session.scalar(select(Item.name).where(Item.id == 7))
        yield f"data: then {name}\n\n"
        await gate["open"].wait()
        yield "data: end\n\n"

    def add_routes(kind, dependency):
        session = Annotated[AsyncSession, Depends(dependency)]

        @app.get(f"/{kind}/events")
        async def events(session: session):
            items = (await session.scalars(select(Item).where(Item.id < 3))).all()
            head = {"x-names": ",".join(item.name for item in items)}
            return StreamingResponse(lines(session), headers=head, media_type="text/event-stream")

        @app.get(f"/{kind}/file")
        async def download(session: session):
            await session.execute(text("select 1"))
            return FileResponse(file)

        @app.get(f"/{kind}/count")
        async def count(session: session):
            return len((await session.scalars(select(Item.id))).all())

        @app.get(f"/{kind}/unsaved")
        async def unsaved(session: session, number: int):
            session.add(Item(id=number, name="new"))
            await session.flush()
            return StreamingResponse(lines(session), media_type="text/event-stream")

        @app.get(f"/{kind}/cursor")
        async def cursor(session: session):
            rows = await session.stream(
                select(Item.name).order_by(Item.id), execution_options={"yield_per": 10}
            )

            async def names():
                async for (name,) in rows:
                    yield name + "\n"
                    if name == "item 20":
                        await gate["open"].wait()

            return StreamingResponse(names())

        @app.websocket(f"/{kind}/socket")
        async def socket(websocket: WebSocket, session: session):
            await session.execute(text("select 1"))
            await websocket.accept()
            await websocket.receive_text()
            await websocket.send_text(await session.scalar(select(Item.name)))
            await websocket.close()

    for kind, dependency in given.items():
        add_routes(kind, dependency)

    @app.post("/forget")
    async def forget():
        async with sessions() as session, session.begin():
            await session.execute(delete(Item).where(Item.id >= 1_000))

    @app.post("/gate/{state}")
    async def move_gate(state: str):
        if state == "open":
            gate["open"].set()
        else:
            gate["open"] = asyncio.Event()
        return JSONResponse(None)

    return app


def add_sync_route(app, url):
    """A stream that reads through a session of threads."""
    engine = create_engine(url, connect_args={"check_same_thread": False})
    app.state.perf.database.watch(engine, name="threads")

    def sync_session():
        with Session(engine) as session:
            yield session

    @app.get("/sync/events")
    def events(session: Annotated[Session, Depends(sync_session)]):
        session.execute(text("select 1"))

        def lines():
            yield f"data: {session.scalar(text('select 2'))}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")
