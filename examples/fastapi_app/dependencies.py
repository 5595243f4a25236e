"""What endpoints ask for by type.

All of it is in the lifespan's state, which requests, websockets and the mounted app see alike.
"""

from collections.abc import AsyncIterator
from typing import Annotated, TypedDict, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy.ext.asyncio import AsyncSession

from examples.fastapi_app.database import Run, Sessions
from examples.fastapi_app.feed import OrderFeed
from examples.fastapi_app.figures import Figures
from perf_middleware import ResponseCache
from perf_middleware.database.queries.runtime import QueryCache


class ShopState(TypedDict):
    """What the lifespan yields."""

    sessions: Sessions
    run: Run
    queries: QueryCache
    feed: OrderFeed
    figures: Figures
    cache: ResponseCache


def _sessions(connection: HTTPConnection) -> Sessions:
    return cast("Sessions", connection.state.sessions)


def _run(connection: HTTPConnection) -> Run:
    return cast("Run", connection.state.run)


def _queries(connection: HTTPConnection) -> QueryCache:
    return cast("QueryCache", connection.state.queries)


def _feed(connection: HTTPConnection) -> OrderFeed:
    return cast("OrderFeed", connection.state.feed)


def _figures(connection: HTTPConnection) -> Figures:
    return cast("Figures", connection.state.figures)


def _cache(connection: HTTPConnection) -> ResponseCache:
    return cast("ResponseCache", connection.state.cache)


SessionsDep = Annotated[Sessions, Depends(_sessions)]


async def _session(sessions: SessionsDep) -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


# "function": committed and given back when the endpoint returns, not after the response has gone
# out and the background tasks have run.  Who has the answer can rely on what it says; and those
# tasks need a connection too, and would wait for each other.
SessionDep = Annotated[AsyncSession, Depends(_session, scope="function")]
# Open until the last byte, as FastAPI's dependencies are by default: for what is streamed.
StreamSessionDep = Annotated[AsyncSession, Depends(_session)]
RunDep = Annotated[Run, Depends(_run)]
QueriesDep = Annotated[QueryCache, Depends(_queries)]
FeedDep = Annotated[OrderFeed, Depends(_feed)]
FiguresDep = Annotated[Figures, Depends(_figures)]
CacheDep = Annotated[ResponseCache, Depends(_cache)]
