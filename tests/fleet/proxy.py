"""A way to a server that a test can make slow, silent or mad; also one that ends TLS."""

import asyncio
import contextlib
import socket

NONSENSE = b"\x00\xff\x13 +-:$*%~,#_( \r\n" * 50


class Proxy:
    """Passes bytes between its clients and the server on `upstream`, on a port of its own."""

    def __init__(self, upstream, *, port=0, ssl=None, room_bytes=None):
        self._upstream = upstream
        self._port = port
        self._ssl = ssl
        self._room_bytes = room_bytes  # for what the server has said and nobody has read yet
        self._server = None
        self._tasks = set()
        self.delay_s = 0.0
        self.says = None
        """Instead of what the server says."""
        self.accepted = 0

    @property
    def port(self):
        return self._server.sockets[0].getsockname()[1]

    async def __aenter__(self):
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._ssl
        )
        return self

    async def __aexit__(self, *failure):
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self):
        """Every connection that there is now."""
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, reader, writer):
        self.accepted += 1
        task = asyncio.current_task()
        self._tasks.add(task)
        up = None
        left = contextlib.ExitStack()
        try:
            upstream = socket.socket()
            left.callback(upstream.close)
            if self._room_bytes is not None:
                upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._room_bytes)
            upstream.setblocking(False)
            await asyncio.get_running_loop().sock_connect(upstream, ("127.0.0.1", self._upstream))
            back, up = await asyncio.open_connection(sock=upstream)
            left.pop_all()  # it is the writer's now
            done, pending = await asyncio.wait(
                [
                    asyncio.create_task(self._pass(reader, up)),
                    asyncio.create_task(self._pass(back, writer, is_answer=True)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for one in pending:
                one.cancel()
            await asyncio.gather(*done, *pending, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            left.close()
            self._tasks.discard(task)
            for end in (writer, up):
                if end is not None:
                    end.transport.abort()

    async def _pass(self, reader, writer, *, is_answer=False):
        with contextlib.suppress(OSError):
            while came := await reader.read(65_536):
                if is_answer and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if is_answer and self.says is not None:
                    came = self.says
                writer.write(came)
                await writer.drain()


@contextlib.asynccontextmanager
async def mad_server(port, answer):
    """Answers each request on `port` with `answer`, and listens to nothing."""
    writers = set()

    async def serve(reader, writer):
        writers.add(writer)
        try:
            while await reader.read(65_536):
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writers.discard(writer)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for writer in list(writers):
            writer.transport.abort()
        await asyncio.sleep(0)
