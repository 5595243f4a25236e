"""One who listens, in tests: what is handed over can be awaited, and its line can be cut."""

import asyncio
import contextlib
from urllib.parse import parse_qs, urlsplit

import asyncpg

from perf_middleware.database.outside.runtime import OutsideWrites, Times
from perf_middleware.database.outside.triggers import Triggers
from perf_middleware.database.tables.touched import ALL_TABLES
from perf_middleware.database.urls import read_url
from tests.database.tasks import Tasks

QUICK = Times(
    heartbeat_s=0.2, answer_s=20, take_again_s=0.1, silent_s=60, again_s=0.2, look_s=0.2,
    fold_s=0.001, failed_s=0.01,
)  # fmt: skip


class Heard:
    """Called with written tables; `async with asyncio.timeout` is around every test."""

    def __init__(self):
        self.told = []
        self._news = asyncio.Condition()

    async def __call__(self, tables):
        async with self._news:
            self.told.append(tables)
            self._news.notify_all()

    async def until(self, is_enough):
        async with self._news:
            await self._news.wait_for(lambda: is_enough(self.told))

    async def everything(self, times=1):
        """Until all tables were handed over so often."""
        await self.until(lambda told: told.count(ALL_TABLES) >= times)

    def names(self, without=None):
        """The tables that were handed over by name, in the order of their names."""
        found = {str(table) for tables in self.told if tables != ALL_TABLES for table in tables}
        short = {name.removeprefix("public.") for name in found}
        return " ".join(sorted(short - {without}))


@contextlib.asynccontextmanager
async def listening(url, *, times=QUICK, shares=None, namespace="shop", on_write=None, **triggers):
    heard = on_write or Heard()
    outside = OutsideWrites(
        read_url(url), triggers=Triggers(namespace=namespace, **triggers), on_write=heard,
        shares=shares, times=times,
    )  # fmt: skip
    tasks = Tasks()
    try:
        await outside.open(tasks)
        yield outside, heard
    finally:
        await outside.close()
        await tasks.stop()


@contextlib.asynccontextmanager
async def psql(url):
    """A connection of somebody else's."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


class Line:
    """A way to the server that can be cut, and that can swallow everything."""

    def __init__(self, url):
        self._parts = urlsplit(url)
        self._host = parse_qs(self._parts.query).get("host", [None])[0]
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers = []
        self._tasks = set()
        self.accepts = True

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.netloc.rpartition("@")[0] or "postgres"
        self.url = f"postgresql://{user}@127.0.0.1:{port}{self._parts.path}?sslmode=disable"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def swallow(self):
        """Those who are connected hear nothing more, and are not told why."""
        self._flows.clear()

    def flow_for_new_ones(self):
        """Who connects from now on is served."""
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self):
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        if not self.accepts:
            writer.transport.abort()
            return
        if self._host is None:
            at = (self._parts.hostname, self._parts.port or 5432)
            server = await asyncio.open_connection(*at)
        else:
            server = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.5432")
        self._writers += [writer, server[1]]
        flows = self._flows
        with contextlib.suppress(OSError):
            await asyncio.gather(
                self._pass_on(reader, server[1], flows), self._pass_on(server[0], writer, flows)
            )

    async def _pass_on(self, reader, writer, flows):
        while said := await reader.read(65_536):
            await flows.wait()
            writer.write(said)
            await writer.drain()
        if flows.is_set():
            writer.close()
