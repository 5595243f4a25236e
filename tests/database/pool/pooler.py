"""What pgbouncer does in transaction mode, as far as its clients notice.

Each client logs in to a server connection of its own, through us; from then on a transaction goes
to whichever server connection is idle, the longest idle first, so that two clients change theirs
all the time.  Sources: PostgreSQL "Message Formats"; pgbouncer, "pool_mode = transaction".
"""

import asyncio
import contextlib
import struct
from collections import deque
from urllib.parse import parse_qs, urlsplit

MADE_UP_PID = 4711


async def message(reader):
    """One message of the protocol: its type and all of its bytes."""
    head = await reader.readexactly(5)
    [length] = struct.unpack("!i", head[1:])
    return head[:1], head + await reader.readexactly(length - 4)


class TransactionPooler:
    """`async with TransactionPooler(url) as pooler: … pooler.url`."""

    def __init__(self, url):
        self._parts = urlsplit(url)
        self._host = parse_qs(self._parts.query).get("host", [None])[0]
        self._idle = deque()
        self._free = asyncio.Condition()
        self._tasks = set()
        self._writers = []
        self.changes = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.netloc.rpartition("@")[0] or "postgres"
        self.url = f"postgresql://{user}@127.0.0.1:{port}{self._parts.path}?sslmode=disable"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _start(self, work):
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            [length] = struct.unpack("!i", await reader.readexactly(4))
            rest = await reader.readexactly(length - 4)
            if length > 16:  # else it asks for TLS, or to cancel something
                server = await self._connect()
                self._writers.append(server[1])
                server[1].write(struct.pack("!i", length) + rest)
                asking = await self._log_in(reader, writer, server)
                await self._transactions(asking, reader, writer, server)
        writer.close()

    async def _connect(self):
        if self._host is None:
            return await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)
        return await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.5432")

    async def _log_in(self, reader, writer, server):
        """To the first ReadyForQuery; the task that reads what the client says next."""

        async def say():
            while (said := await message(reader))[0] == b"p":
                server[1].write(said[1])
            return said

        saying = self._start(say())
        while True:
            kind, whole = await message(server[0])
            if kind == b"K":
                whole = whole[:5] + struct.pack("!i", MADE_UP_PID) + whole[9:]
            writer.write(whole)
            if kind == b"Z":
                await self._give_back(server)
                return saying

    async def _transactions(self, asking, reader, writer, last):
        while (said := await asking)[0] != b"X":
            async with self._free:
                await self._free.wait_for(lambda: self._idle)
                server = self._idle.popleft()
            self.changes += server is not last
            last = server
            asking = await self._transaction(said[1], reader, writer, server)
            await self._give_back(server)

    async def _transaction(self, first, reader, writer, server):
        """To the end of one; the task that reads what the client says next."""
        server[1].write(first)
        saying = self._start(message(reader))
        hearing = self._start(message(server[0]))
        while True:
            await asyncio.wait({saying, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                kind, whole = hearing.result()
                writer.write(whole)
                if kind == b"Z" and whole[5:6] == b"I":
                    return saying
                hearing = self._start(message(server[0]))
            elif saying.done():
                server[1].write(saying.result()[1])
                saying = self._start(message(reader))

    async def _give_back(self, server):
        async with self._free:
            self._idle.append(server)
            self._free.notify()
