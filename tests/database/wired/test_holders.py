"""Who is told to hold a connection: requests, websockets, and what they leave behind."""

import asyncio

from fastapi import FastAPI, WebSocket
from sqlalchemy import text
from starlette.testclient import TestClient

from perf_middleware import Settings, install

LEFT = "by a task that a request of /items/{number} has left behind, taken at"


class Holding:
    """An app whose work waits for `go` with a connection in its hands."""

    def __init__(self):
        app = self.app = FastAPI()
        self.perf = install(app, Settings(database={"url": "sqlite://", "held_s_told": 0.001}))
        self.tasks = []

        async def hold(taken, go):
            async with self.perf.database.session() as session:
                await session.execute(text("select 1"))
                taken.set()
                await go.wait()

        async def leave():
            taken, self.go = asyncio.Event(), asyncio.Event()
            self.tasks.append(asyncio.create_task(hold(taken, self.go)))
            await taken.wait()

        @app.get("/items/{number}")
        async def item(number: int) -> int:
            begin = asyncio.Event()

            async def later():
                await begin.wait()
                await leave()
                self.is_held.set()

            self.is_held = asyncio.Event()
            self.tasks.append(asyncio.create_task(later()))
            self.begin = begin
            return number

        @app.websocket("/rooms/{room}")
        async def room(socket: WebSocket, room: str) -> None:
            await socket.accept()
            async with self.perf.database.session() as session:
                await session.execute(text("select 1"))
                await socket.send_text(room)
                await socket.receive_text()

    def held(self):
        [held] = self.perf.database.status()["main"]["held"]
        return held["route"], held["left_by"]


def test_a_websocket_holds_under_its_route():
    app = Holding()
    with TestClient(app.app) as client, client.websocket_connect("/rooms/blue") as socket:
        assert socket.receive_text() == "blue"
        assert app.held() == ("/rooms/{room}", None)
        socket.send_text("go")


def test_a_task_that_its_request_has_left_is_told_by_the_route_of_that(caplog):
    app = Holding()
    with TestClient(app.app) as client:
        assert client.get("/items/7").json() == 7

        async def held():
            app.begin.set()
            await app.is_held.wait()
            async with asyncio.timeout(120):
                while not [line for line in caplog.messages if LEFT in line]:
                    app.perf.database.instruments.look()
                    await asyncio.sleep(0.01)
            return app.held()

        assert client.portal.call(held) == (None, "/items/{number}")

        async def end():
            app.go.set()
            await asyncio.gather(*app.tasks)

        client.portal.call(end)
