"""On trio the bundle is as quiet as on asyncio: plain messages, uvicorn does not run there."""

from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from perf_middleware import Settings, install
from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
from tests.http.apps import hidden, noting_lifespan, starlette_app
from tests.http.ground import UnhandledError
from tests.http.servers import EVERY_REQUEST_MEASURED, Journal, with_bundle
from tests.http.wire import DEADLINE_S

Dress = Callable[[ASGIApp], ASGIApp]
DRESSES: dict[str, Dress] = {
    "bare": lambda app: app,
    "installed": with_bundle,
    "installed around": lambda app: with_bundle(hidden(app)),
    "installed and measured": lambda app: with_bundle(app, Settings(**EVERY_REQUEST_MEASURED)),
}


@pytest.fixture(params=DRESSES)
def dress(request: pytest.FixtureRequest) -> Dress:
    return DRESSES[request.param]


def http_scope(path: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("192.0.2.1", 4711),
        "server": ("192.0.2.2", 80),
    }


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def with_deadline() -> Any:
        with trio.fail_after(120):
            return await main()

    return trio.run(with_deadline)


async def get(app: ASGIApp, path: str) -> list[Message]:
    """One GET; what was sent, as the server saw it."""
    sent: list[Message] = []

    async def receive() -> Message:
        await trio.sleep_forever()

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await app(http_scope(path), receive, send)
    return sent


def body_of(messages: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages[1:])


async def text(_: Request) -> Response:
    return PlainTextResponse("hello")


def in_thread(_: Request) -> Response:
    return PlainTextResponse("from a thread")


async def own_task(request: Request) -> Response:
    same = request.scope["server.task"] is trio.lowlevel.current_task()
    return PlainTextResponse(f"own task: {same}")


async def streamed(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one", b"two"):
            await trio.lowlevel.checkpoint()
            yield part

    return StreamingResponse(parts())


async def boom(_: Request) -> Response:
    raise UnhandledError("on trio")


async def greet(ws: WebSocket) -> None:
    await ws.accept()
    await ws.send_text(f"hello {await ws.receive_text()}")
    await ws.close(4000)


ROUTES = [
    Route("/text", text),
    Route("/thread", in_thread),
    Route("/task", own_task),
    Route("/streamed", streamed),
    Route("/boom", boom),
    WebSocketRoute("/ws", greet),
]


@pytest.mark.parametrize(
    ("path", "bodies"),
    [
        ("/text", [b"hello"]),
        ("/thread", [b"from a thread"]),
        ("/streamed", [b"one", b"two", b""]),
        ("/nowhere", [b"Not Found"]),
    ],
)
def test_a_starlette_app_answers(dress: Dress, path, bodies):
    start, *rest = run(lambda: get(dress(Starlette(routes=ROUTES)), path))
    assert start["type"] == "http.response.start"
    assert [message["body"] for message in rest] == bodies


def test_the_endpoint_runs_in_the_servers_own_task(dress: Dress):
    app = dress(Starlette(routes=ROUTES))

    async def as_a_server(scope: Scope, receive: Receive, send: Send) -> None:
        scope["server.task"] = trio.lowlevel.current_task()
        await app(scope, receive, send)

    assert body_of(run(lambda: get(as_a_server, "/task"))) == b"own task: True"


def test_an_exception_reaches_the_server_as_it_was_raised(dress: Dress):
    async def main() -> None:
        with pytest.raises(UnhandledError, match="on trio"):
            await get(dress(Starlette(routes=ROUTES)), "/boom")

    run(main)


def test_cancellation_reaches_the_app_and_waits_for_its_cleanup(dress: Dress):
    steps: list[str] = []

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            steps.append("cancelled")
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            steps.append("cleaned up")

    async def main() -> bool:
        with trio.move_on_after(0) as scope:
            await get(dress(hidden(app)), "/")
        return scope.cancelled_caught

    assert run(main)
    assert steps == ["cancelled", "cleaned up"]


def test_many_requests_run_side_by_side(dress: Dress):
    """All meet inside the app before any of them is answered."""
    together = 10
    arrived = 0

    async def main() -> list[bytes]:
        everyone = trio.Event()

        async def meet(request: Request) -> Response:
            nonlocal arrived
            arrived += 1
            if arrived == together:
                everyone.set()
            await everyone.wait()
            return PlainTextResponse(request.path_params["number"])

        app = dress(Starlette(routes=[Route("/{number}", meet)]))
        answers: list[bytes] = []

        async def ask(number: int) -> None:
            answers.append(body_of(await get(app, f"/{number}")))

        async with trio.open_nursery() as nursery:
            for number in range(together):
                nursery.start_soon(ask, number)
        return answers

    assert sorted(run(main)) == [b"%d" % number for number in range(together)]


def test_a_lifespan_starts_serves_and_stops(dress: Dress):
    """The whole life: start, state in a request, shutdown; nothing is still running after it."""
    journal = Journal()

    async def state(request: Request) -> Response:
        return PlainTextResponse(request.state.greeting)

    async def main() -> list[Message]:
        app = dress(Starlette(routes=[Route("/", state)], lifespan=noting_lifespan(journal)))
        to_app_send, to_app = trio.open_memory_channel[Message](2)
        from_app_send, from_app = trio.open_memory_channel[Message](2)
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        said = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app, scope, to_app.receive, from_app_send.send)
            await to_app_send.send({"type": "lifespan.startup"})
            said.append(await from_app.receive())
            request_scope = http_scope("/") | {"state": dict(scope["state"])}

            async def keep(message: Message) -> None:
                said.append(message)

            await app(request_scope, trio.sleep_forever, keep)
            await to_app_send.send({"type": "lifespan.shutdown"})
            said.append(await from_app.receive())
        return said

    started, _, body, stopped = run(main)
    assert started == {"type": "lifespan.startup.complete"}
    assert body["body"] == b"from the lifespan"
    assert stopped == {"type": "lifespan.shutdown.complete"}
    assert journal.about("lifespan") == ["started", "stopped in its task: True"]


def test_a_failed_start_is_told_to_the_server(dress: Dress):
    @asynccontextmanager
    async def failing(_: Any) -> AsyncIterator[None]:
        raise UnhandledError("no start")
        yield

    async def main() -> list[Message]:
        said: list[Message] = []

        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            said.append(message)

        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        with pytest.raises(UnhandledError, match="no start"):
            await dress(Starlette(lifespan=failing))(scope, receive, send)
        return said

    [message] = run(main)
    assert message["type"] == "lifespan.startup.failed"
    assert "UnhandledError: no start" in message["message"]


def answers_to_a_test_client(app: ASGIApp, backend: str) -> list[Any]:
    with TestClient(app, backend=backend, raise_server_exceptions=False) as client:
        answers = [client.get(at) for at in ("/json", "/cookies", "/boom", "/state", "/thread")]
        answers.append(client.post("/upload", content=b"x" * 1_000))
        with client.websocket_connect("/ws/echo") as ws:
            ws.send_text("hello")
            greeting = ws.receive_text()
    seen = [
        (answer.status_code, answer.headers.multi_items(), answer.content) for answer in answers
    ]
    return [*seen, greeting]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_test_client_sees_the_same_answers(dress: Dress, files: Path, backend):
    """Apps are tested with `TestClient`; those tests go on as they were."""
    pool = ThreadPoolExecutor(2)  # the client itself knows no deadline
    try:
        bare, dressed = (
            pool.submit(
                answers_to_a_test_client, one(starlette_app(Journal(), files)), backend
            ).result(DEADLINE_S)
            for one in (DRESSES["bare"], dress)
        )
    finally:
        pool.shutdown(wait=False)
    assert dressed == bare
    assert [answer[0] for answer in bare[:-1]] == [200, 200, 500, 200, 200, 200]
    assert bare[-1] == "text hello"


def test_anyio_runs_it_on_trio_too():
    """`install` picks no event loop: the one that serves decides."""
    app = Starlette(routes=ROUTES)
    install(app, Settings())
    sent = anyio.run(get, app, "/text", backend="trio")
    assert body_of(sent) == b"hello"
