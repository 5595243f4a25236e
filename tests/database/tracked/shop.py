"""A small FastAPI app whose answers are tracked, and one process of it as tests have it.

Two installs share nothing but the database, and Redis where there is one: as two processes do.
"""

import asyncio
import contextlib
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy import ForeignKey, delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from perf_middleware import Settings, cache_response, install
from tests.driving import ask, http_scope, served


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(default="")
    author_id: Mapped[int | None] = mapped_column(
        ForeignKey("authors.id", ondelete="CASCADE"), default=None
    )


async def flush(session, title):
    (await session.get_one(Book, 1)).title = title


async def bulk(session, title):
    await session.execute(update(Book), [{"id": 1, "title": title}])


async def core(session, title):
    await session.execute(
        update(Book.__table__).where(Book.__table__.c.id == 1).values(title=title)
    )


async def raw(session, title):
    await session.execute(text("update books set title = :title where id = 1"), {"title": title})


async def released(session, title):
    async with session.begin_nested():
        await flush(session, title)


WAYS = {way.__name__: way for way in (flush, bulk, core, raw, released)}


class Shop:
    """One process: its app, what is installed in it, and how often it was asked."""

    def __init__(
        self, url, *, redis=None, redis_timeout_s=1.0, tracking=None, cache=None, database=None,
        **settings,
    ):  # fmt: skip
        self.calls = []
        self.gates = {}
        self.session = None  # one that is older than the requests
        self.sync_engine = None
        self.app = app = FastAPI()
        self.perf = install(
            app,
            Settings(
                database={"url": url, **(database or {})},
                tracking=tracking or {},
                cache=cache or {},
                **({"redis": {"url": redis, "timeout_s": redis_timeout_s}} if redis else {}),
                metrics={"workers": False},
                dashboard={"enabled": False},
                runtime={"enabled": False},
                memory={"enabled": False},
                **settings,
            ),
        )
        self._add_routes(app)

    def _add_routes(self, app):
        session_of = Depends(self.perf.database.session, scope="function")

        def called(request):
            self.calls.append(request.url.path)

        @app.get("/books")
        @cache_response(tracked=True)
        async def books(request: Request, session=session_of):
            called(request)
            found = (await session.scalars(select(Book.title).order_by(Book.id))).all()
            await self.passing("books read")
            return found

        @app.get("/authors")
        @cache_response(tracked=True)
        async def authors(request: Request, session=session_of):
            called(request)
            return (await session.scalars(select(Author.name).order_by(Author.id))).all()

        @app.get("/books/{number}")
        @cache_response(tracked=True, tags=["book:{number}"], negative_ttl=60)
        async def book(request: Request, number: int, session=session_of):
            called(request)
            found = await session.get_one(Book, number)
            await self.passing("book read")
            return found.title

        @app.get("/edition")
        @cache_response(tracked=True, ttl=0, stale_while_revalidate=60)
        async def edition(request: Request, response: Response, session=session_of):
            called(request)
            title = await session.scalar(select(Book.title).where(Book.id == 1))
            tag = f'"{title}"'
            if request.headers.get("if-none-match") == tag:
                await session.execute(select(Author))
                return Response(status_code=304, headers={"etag": tag})
            response.headers["etag"] = tag
            return title

        @app.get("/nothing")
        @cache_response(tracked=True)
        async def nothing(request: Request):
            called(request)
            return "nothing"

        @app.get("/session")
        @cache_response(tracked=True)
        async def only_a_session(request: Request, session=session_of):
            called(request)
            return (await session.execute(text("select 1"))).scalar_one()

        @app.get("/visits")
        @cache_response(tracked=True)
        async def visits(request: Request, session=session_of):
            called(request)
            await session.execute(update(Author).values(name="seen"))
            return (await session.scalars(select(Author.name))).all()

        @app.get("/copy")
        @cache_response(tracked=True)
        async def copy(request: Request):
            called(request)
            async with self.perf.database.session("replica") as session:
                return (await session.scalars(select(Book.title))).all()

        @app.get("/through")
        @cache_response(tracked=True)
        async def through_an_older_session(request: Request):
            called(request)
            return (await self.session.scalars(select(Book.title).order_by(Book.id))).all()

        @app.get("/threaded")
        @cache_response(tracked=True)
        def in_a_thread(request: Request):
            called(request)
            with self.sync_engine.connect() as connection:
                return list(connection.scalars(select(Book.title).order_by(Book.id)))

        @app.put("/threaded/{title}")
        def change_in_a_thread(title: str):
            with self.sync_engine.begin() as connection:
                connection.execute(update(Book).where(Book.id == 1).values(title=title))

        @app.put("/blocking/{title}")
        async def change_on_the_loop(title: str):
            change_in_a_thread(title)

        @app.put("/books/1/{way}/{title}")
        async def change(way: str, title: str, session=session_of):
            await WAYS[way](session, title)

        @app.put("/rolled-back")
        async def roll_back(session=session_of):
            await flush(session, "never")
            await session.flush()
            await session.rollback()

        @app.put("/savepoint")
        async def to_savepoint(session=session_of):
            await session.execute(update(Book).values(title="kept"))
            with contextlib.suppress(ZeroDivisionError):
                async with session.begin_nested():
                    await session.execute(update(Author).values(name="never"))
                    raise ZeroDivisionError

        @app.delete("/authors/1")
        async def remove(session=session_of):
            await session.execute(delete(Author).where(Author.id == 1))

    @property
    def purges(self):
        return self.perf.database.tracked.tracking._on_commit

    async def passing(self, place):
        """Stop here while a test holds the gate of this place."""
        if place in self.gates:
            reached, go_on = self.gates[place]
            reached.set()
            await go_on.wait()

    def hold(self, place):
        """Events: it was reached; let it go on."""
        gate = self.gates[place] = asyncio.Event(), asyncio.Event()
        return gate

    async def ask(self, path, *, method="GET", headers=(), query=b""):
        scope = http_scope(path, method=method, headers=headers, query_string=query)
        return await ask(self.app, scope)

    async def get(self, path, **headers):
        """What it says, and its Cache-Status behind the name."""
        answer = await self.ask(path, headers=[(n.replace("_", "-"), headers[n]) for n in headers])
        return answer.json() if answer.body else answer.status, told(answer)

    async def put(self, path):
        assert (await self.ask(path, method="PUT")).status == 200


def told(answer):
    status = answer.header("cache-status")
    return None if status is None else status.removeprefix("perf_middleware; ")


def is_hit(status):
    return status.startswith("hit")


async def prepare(shop):
    """The tables, with one author of two books."""
    async with shop.perf.database.engine().begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Author), [{"id": 1, "name": "Ann"}])
        await connection.execute(
            insert(Book),
            [{"id": n, "title": t, "author_id": 1} for n, t in ((1, "One"), (2, "Two"))],
        )
    await shop.perf.database.read_relations()


@asynccontextmanager
async def serving(*shops, fresh=True):
    """The shops, open, with fresh tables."""
    async with contextlib.AsyncExitStack() as stack:
        for shop in shops:
            server = await stack.enter_async_context(served(shop.app))
            assert server.words == ["startup.complete"], server.said
        if fresh:
            await prepare(shops[0])
        for shop in shops:
            await shop.perf.database.read_relations()
        yield shops
