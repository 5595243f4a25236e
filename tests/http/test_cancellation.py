"""What is raised arrives as it was raised, and who is cancelled may clean up."""

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from tests.http.apps import InnerMiddleware
from tests.http.doors import (
    END,
    HTTP_SCOPE,
    START,
    WEBSOCKET_SCOPE,
    Dress,
    new_scope,
    play,
)
from tests.http.servers import with_bundle


class ServerRefusalError(Exception):
    """What a server raises out of `send` or `receive`."""


class BareExit(BaseException):
    """Neither an Exception nor known to anyone."""


@pytest.mark.parametrize("error", [ServerRefusalError("x"), OSError("client left"), BareExit("x")])
@pytest.mark.parametrize("place", ["endpoint", "send", "receive"])
@pytest.mark.parametrize("template", [HTTP_SCOPE, WEBSOCKET_SCOPE], ids=["http", "websocket"])
def test_what_is_raised_arrives_as_the_same_object(template, place, error):
    caught_by_the_app: list[BaseException] = []

    async def raising(*_: Any) -> Any:
        raise error

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        step = {
            "endpoint": raising,
            "send": lambda: send(START),
            "receive": receive,
        }
        try:
            await step[place]()
        except BaseException as exc:
            caught_by_the_app.append(exc)
            raise

    async def run() -> None:
        await with_bundle(app)(new_scope(template), raising, raising)

    with pytest.raises(type(error)) as caught:
        asyncio.run(run())
    assert caught_by_the_app == [error]
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    error.__traceback__ = None


@pytest.mark.parametrize("template", [HTTP_SCOPE, WEBSOCKET_SCOPE], ids=["http", "websocket"])
def test_cancellation_reaches_the_app_once_and_waits_for_its_cleanup(door, template):
    async def run(dress: Dress) -> list[str]:
        steps: list[str] = []
        inside = asyncio.Event()

        async def app(*_: Any) -> None:
            try:
                inside.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError as exc:
                steps.append(f"cancelled {exc.args}")
                await asyncio.sleep(0)  # a second cancellation would land here
                raise
            finally:
                await asyncio.sleep(0)
                steps.append("cleaned up")

        task = asyncio.create_task(play(dress(app), new_scope(template)))
        await inside.wait()
        task.cancel("server stops")
        await asyncio.wait([task])
        return [*steps, f"task cancelled: {task.cancelled()}"]

    bare = asyncio.run(run(door.bare))
    assert bare == ["cancelled ('server stops',)", "cleaned up", "task cancelled: True"]
    assert asyncio.run(run(door.installed)) == bare


def test_an_app_may_refuse_to_be_cancelled(door):
    """It answers instead; nothing outside repeats the cancellation."""

    async def run(dress: Dress) -> list[Message]:
        inside = asyncio.Event()

        async def app(_: Scope, __: Receive, send: Send) -> None:
            try:
                inside.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
                await send(START)
                await send(END)

        task = asyncio.create_task(play(dress(app), new_scope()))
        await inside.wait()
        task.cancel()
        return await task

    assert asyncio.run(run(door.bare)) == [START, END]
    assert asyncio.run(run(door.installed)) == [START, END]


def test_a_deadline_around_the_app_works(door):
    """`asyncio.timeout` in a layer outside: it cancels, and turns it into TimeoutError."""

    async def app(*_: Any) -> None:
        await asyncio.Event().wait()

    async def run(dressed: ASGIApp) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await dressed(new_scope(), asyncio.Event().wait, asyncio.Event().wait)

    asyncio.run(run(door.bare(app)))
    asyncio.run(run(door.installed(app)))


def test_middlewares_that_end_the_request_themselves_are_obeyed():
    """A layer of the user's may answer, or raise, without calling what is inside it."""

    class Shortcut:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await send(END)

    called: list[str] = []

    async def endpoint(_: Any) -> None:
        called.append("endpoint")

    app = Starlette(routes=[Route("/somewhere", endpoint)])
    app.add_middleware(InnerMiddleware)
    served = with_bundle(app)
    app.add_middleware(Shortcut)
    assert asyncio.run(play(served, new_scope())) == [START, END]
    assert called == []
