"""Order events as they happen.

The events are rows, so a follower that was away catches up, and followers in every worker process
see all of them.  The feed itself only wakes those who wait in this process; it holds nothing.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from sqlalchemy import func, select

from examples.fastapi_app.database import Sessions
from examples.fastapi_app.tables import OrderEvent
from perf_middleware import allow_repeats

LOOK_EVERY_S = 1.0  # for what other worker processes wrote
EVENTS_PER_READ_MAX = 100


class OrderFeed:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._news = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """End every stream of events."""
        self._closed = True
        self.announce()

    def announce(self) -> None:
        """Wake the followers: a transaction with new events has been committed."""
        self._news.set()
        self._news = asyncio.Event()

    async def changes(self) -> AsyncGenerator[None, None]:
        """Once at the beginning, then whenever something may be new, until the feed is closed."""
        while not self._closed:
            news = self._news  # taken before the caller reads: what is committed then sets it
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await news.wait()

    async def newest_id(self) -> int:
        """The id of the latest event, 0 before the first."""
        async with self._sessions() as session:
            return await session.scalar(select(func.max(OrderEvent.id))) or 0

    async def follow(
        self, *, after: int, order_id: int | None = None
    ) -> AsyncGenerator[OrderEvent, None]:
        """Every event with an id above `after`, of one order or of all, until the feed is closed.

        No connection is held while waiting, nor while the caller sends an event to a slow client.
        """
        query = select(OrderEvent).order_by(OrderEvent.id).limit(EVENTS_PER_READ_MAX)
        if order_id is not None:
            query = query.where(OrderEvent.order_id == order_id)
        while not self._closed:
            news = self._news  # taken before reading: what is committed from here on sets it
            with allow_repeats():  # a stream asks again and again: no "N+1"
                async with self._sessions() as session:
                    events = (await session.scalars(query.where(OrderEvent.id > after))).all()
            for event in events:
                yield event
                after = event.id
            if not events:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await news.wait()
