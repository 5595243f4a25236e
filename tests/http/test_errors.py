"""What goes wrong goes wrong as before: the same answer, and the same exception in the log."""

from collections.abc import Awaitable, Callable, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perf_middleware.asgi import Receive, Scope, Send
from tests.http.apps import boom, late_boom
from tests.http.ground import UnhandledError
from tests.http.servers import Server, Twins, serving_twins
from tests.http.wire import http_request

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
BODY = {"type": "http.response.body", "body": b"body"}
NO_START = "Expected ASGI message 'http.response.start'"
Play = Callable[[Scope, Receive, Send], Awaitable[object]]


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        pytest.param(
            "/boom",
            "UnhandledError('boom', 7) raised in boom <- KeyError('the cause',) raised in boom",
            id="with its cause and its own frames",
        ),
        pytest.param(
            "/late-boom", "UnhandledError('too late for a 500',) raised in parts", id="mid-stream"
        ),
        pytest.param(
            "/boom-in-background", "UnhandledError('after the answer',) raised in fail",
            id="after the answer",
        ),
        pytest.param("/inner/boom", "UnhandledError('boom', 7)", id="in a mounted app"),
    ],
)  # fmt: skip
def test_an_exception_reaches_the_servers_log_as_it_was_raised(twins: Twins, path, logged):
    def fail(server: Server):
        with server.logged(until="UnhandledError") as lines:
            answer = server.exchange(http_request("GET", path))
        return answer, lines

    _, lines = twins.both(fail)
    assert [line for line in lines if logged in line] == [
        line for line in lines if " ERROR " in line
    ]


def test_a_handled_exception_is_not_logged(twins: Twins):
    def ask(server: Server):
        with server.logged(until="GET /text") as lines:
            server.exchange(http_request("GET", "/teapot"))
            server.exchange(http_request("GET", "/http-error"))
            server.exchange(http_request("GET", "/text"))
        return lines

    assert twins.both(ask) == [
        'uvicorn.access INFO (client) - "GET /teapot HTTP/1.1" 418',
        'uvicorn.access INFO (client) - "GET /http-error HTTP/1.1" 403',
        'uvicorn.access INFO (client) - "GET /text HTTP/1.1" 200',
    ]


# --- a handler for every exception --------------------------------------------------------------


@pytest.fixture(scope="module")
def catching_all() -> Iterator[Twins]:
    async def sorry(request: Request, exc: Exception) -> Response:
        return JSONResponse({"sorry": repr(exc), "path": request.url.path}, status_code=503)

    def build(_: object) -> Starlette:
        routes = [Route("/boom", boom), Route("/late-boom", late_boom)]
        return Starlette(routes=routes, exception_handlers={Exception: sorry})

    with serving_twins(build) as twins:
        yield twins


@pytest.mark.parametrize(("path", "status"), [("/boom", 503), ("/late-boom", 200)])
def test_a_handler_for_every_exception_answers_and_the_server_still_learns(
    catching_all: Twins, path, status
):
    def fail(server: Server):
        with server.logged(until="UnhandledError") as lines:
            answer = server.exchange(http_request("GET", path))
        return answer, lines

    answer, lines = catching_all.both(fail)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert len(lines) == 2


# --- an app that breaks the protocol ------------------------------------------------------------


async def body_first(_: Scope, __: Receive, send: Send) -> None:
    await send(BODY)


async def two_starts(_: Scope, __: Receive, send: Send) -> None:
    await send(START)
    await send(START)


async def a_second_body(_: Scope, __: Receive, send: Send) -> None:
    await send(START)
    await send(BODY)
    await send(BODY)


async def nothing(_: Scope, __: Receive, ___: Send) -> None:
    pass


async def only_a_start(_: Scope, __: Receive, send: Send) -> None:
    await send(START)


async def too_much(_: Scope, __: Receive, send: Send) -> None:
    await send(START)
    await send({**BODY, "body": b"too long a body"})


async def too_little(_: Scope, __: Receive, send: Send) -> None:
    await send(START)
    await send({**BODY, "body": b"x"})


async def an_unknown_message(_: Scope, __: Receive, send: Send) -> None:
    await send(START)
    await send({"type": "http.response.fancy"})


async def a_return_value(_: Scope, __: Receive, send: Send) -> object:
    await send(START)
    await send(BODY)
    return "something"


async def an_invalid_header(_: Scope, __: Receive, send: Send) -> None:
    await send({**START, "headers": [(b"x-split", b"a\r\nb: c")]})


async def its_own_failure(_: Scope, __: Receive, ___: Send) -> None:
    raise UnhandledError("before anything")


async def a_caught_refusal(_: Scope, __: Receive, send: Send) -> None:
    """The app may go on after the server refused a message."""
    try:
        await send({"type": "http.response.fancy"})
    except RuntimeError as exc:
        refusal = str(exc).encode()
    headers = [(b"content-length", b"%d" % len(refusal))]
    await send({**START, "headers": headers})
    await send({**BODY, "body": refusal})


async def a_group(_: Scope, __: Receive, ___: Send) -> None:
    raise ExceptionGroup("two at once", [UnhandledError("one"), ValueError("two")])


async def leaving(_: Scope, __: Receive, ___: Send) -> None:
    raise SystemExit("the app has had enough")


PLAYS: dict[str, tuple[Play, bytes, str]] = {
    "body-first": (body_first, b"500", NO_START),
    "two-starts": (two_starts, b"200", "Expected ASGI message 'http.response.body'"),
    "a-second-body": (a_second_body, b"200", "after response already completed"),
    "nothing": (nothing, b"500", "returned without starting response"),
    "only-a-start": (only_a_start, b"200", "returned without completing response"),
    "too-much": (too_much, b"200", "longer than Content-Length"),
    "too-little": (too_little, b"200", "shorter than Content-Length"),
    "an-unknown-message": (an_unknown_message, b"200", "Expected ASGI message"),
    "a-return-value": (a_return_value, b"200", "should return None, but returned 'something'"),
    "an-invalid-header": (an_invalid_header, b"", "Invalid HTTP header value"),
    "its-own-failure": (its_own_failure, b"500", "UnhandledError('before anything',)"),
    "a-caught-refusal": (a_caught_refusal, b"200", '"GET /a-caught-refusal HTTP/1.1" 200'),
    "a-group": (a_group, b"500", "ExceptionGroup('two at once'"),
    "leaving": (leaving, b"500", "SystemExit('the app has had enough',)"),
}


@pytest.fixture(scope="module")
def rule_breakers() -> Iterator[Twins]:
    """A plain ASGI callable: `install` returns what is served."""

    def build(_: object) -> Play:
        async def app(scope: Scope, receive: Receive, send: Send) -> object:
            assert scope["type"] == "http", "takes no part in the lifespan protocol"
            play, _, _ = PLAYS[scope["path"].strip("/")]
            return await play(scope, receive, send)

        return app

    with serving_twins(build) as twins:
        yield twins


@pytest.mark.parametrize("play", PLAYS)
def test_an_app_that_breaks_the_protocol_is_told_so_as_before(rule_breakers: Twins, play):
    _, status, logged = PLAYS[play]

    def ask(server: Server):
        with server.logged(until=logged) as lines:
            answer = server.exchange(http_request("GET", f"/{play}"))
        return answer, sorted(lines)

    answer, _ = rule_breakers.both(ask)
    assert answer[9:12] == status
