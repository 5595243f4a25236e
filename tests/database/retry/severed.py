"""A proxy that cuts a connection just when the answer to one message has come: not passed on."""

import asyncio
import contextlib


@contextlib.asynccontextmanager
async def severing_proxy(url, word):
    """A URL through the proxy, and an event set once it has cut: the answer to `word` is lost."""
    cut = asyncio.Event()
    tasks = set()

    async def connect():
        socket = url.query.get("host")
        if socket:
            return await asyncio.open_unix_connection(f"{socket}/.s.PGSQL.{url.port or 5432}")
        return await asyncio.open_connection(url.host, url.port or 5432)

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        server_reader, server_writer = await connect()
        asked = False

        async def up():
            nonlocal asked
            while piece := await reader.read(65536):
                asked = asked or word in piece
                server_writer.write(piece)

        async def down():
            while piece := await server_reader.read(65536):
                if asked:
                    break
                writer.write(piece)
            writer.transport.abort()
            cut.set()

        both = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            writer.close()
            server_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    through = url.set(host="127.0.0.1", port=port, query={"ssl": "disable"})
    try:
        yield through, cut
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
