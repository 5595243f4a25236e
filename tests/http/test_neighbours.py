"""The user's own middlewares do what they did, whether added before or after `install`."""

import gzip
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import httpx2
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
    requires,
)
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from perf_middleware import Perf, Settings, install
from tests.http.servers import Server, serving
from tests.http.socket_apps import socket_echo
from tests.http.wire import DEADLINE_S, handshake, http_request, masked

T = TypeVar("T")
ORIGIN = ("Origin", "https://elsewhere.test")
AUTHORIZED = ("Authorization", "Token right")


class TokenBackend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        match conn.headers.get("authorization"):
            case None:
                return None
            case "Token right":
                return AuthCredentials(["authenticated"]), SimpleUser("someone")
            case _:
                raise AuthenticationError("wrong token")


def unauthorized(_: HTTPConnection, exc: Exception) -> Response:
    return JSONResponse({"why": str(exc)}, status_code=401, headers={"WWW-Authenticate": "Token"})


async def dispatch(request: Request, call_next: Callable[[Request], Awaitable[Response]]):
    """A middleware of the `BaseHTTPMiddleware` kind, as many apps have one."""
    request.state.seen = "by dispatch"
    response = await call_next(request)
    response.headers["X-Dispatched"] = request.url.path
    return response


# Innermost first, as `add_middleware` takes them.
MIDDLEWARES = [
    (GZipMiddleware, {"minimum_size": 500}),
    (AuthenticationMiddleware, {"backend": TokenBackend(), "on_error": unauthorized}),
    (SessionMiddleware, {"secret_key": "secret", "max_age": None}),
    (TrustedHostMiddleware, {"allowed_hosts": ["example.test", "127.0.0.1"]}),
    (CORSMiddleware, {"allow_origins": [ORIGIN[1]], "allow_headers": ["X-Mine"]}),
]


async def large(_: Request) -> Response:
    return PlainTextResponse("a line of text\n" * 1_000)


async def streamed(_: Request) -> Response:
    return StreamingResponse(iter([b"a part of it\n" * 100] * 3), media_type="text/plain")


async def small(request: Request) -> Response:
    return JSONResponse({"seen": request.state.seen})


async def count(request: Request) -> Response:
    request.session["count"] = request.session.get("count", 0) + 1
    return JSONResponse(dict(request.session))


@requires("authenticated")
async def private(request: Request) -> Response:
    return PlainTextResponse(request.user.display_name)


async def crash(_: Request) -> Response:
    raise RuntimeError("crash")


ROUTES = [
    Route("/large", large),
    Route("/streamed", streamed),
    Route("/small", small),
    Route("/count", count),
    Route("/private", private),
    Route("/crash", crash),
    WebSocketRoute("/ws", socket_echo),
]

FRAMEWORKS = {"starlette": Starlette, "fastapi": FastAPI}


def app_installed_after(framework: str, middlewares_before: int | None) -> Starlette:
    """The app with all middlewares; `install` comes after so many of them, or never."""
    app = FRAMEWORKS[framework](routes=ROUTES)
    for index, (middleware, options) in enumerate(MIDDLEWARES):
        if index == middlewares_before:
            install(app, Settings())
        app.add_middleware(middleware, **options)
        if middleware is GZipMiddleware:
            _add_dispatch(app)
    if middlewares_before == len(MIDDLEWARES):
        install(app, Settings())
    return app


def _add_dispatch(app: Starlette) -> None:
    from starlette.middleware.base import BaseHTTPMiddleware

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)


class Neighbours:
    """The bare app, and one for each moment of `install`."""

    def __init__(self, framework: str) -> None:
        self.bare = Server(app_installed_after(framework, None))
        self.installed = {
            "first": Server(app_installed_after(framework, 0)),
            "in between": Server(app_installed_after(framework, 3)),
            "last": Server(app_installed_after(framework, len(MIDDLEWARES))),
        }

    def all(self) -> list[Server]:
        return [self.bare, *self.installed.values()]

    def agree(self, act: Callable[[Server], T]) -> T:
        as_before = act(self.bare)
        seen = {moment: act(server) for moment, server in self.installed.items()}
        assert seen == dict.fromkeys(seen, as_before)
        return as_before


@pytest.fixture(scope="module", params=FRAMEWORKS)
def neighbours(request: pytest.FixtureRequest) -> Iterator[Neighbours]:
    neighbours = Neighbours(request.param)
    with serving(*neighbours.all()):
        yield neighbours


@pytest.mark.parametrize(
    ("request_bytes", "status", "part"),
    [
        pytest.param(
            http_request("GET", "/small"), 200, b'{"seen":"by dispatch"}', id="BaseHTTPMiddleware"
        ),
        pytest.param(http_request("GET", "/large"), 200, b"a line of text\n" * 1_000, id="plain"),
        pytest.param(
            http_request("GET", "/large", ("Accept-Encoding", "br, gzip;q=0.5")),
            200, b"content-encoding: gzip", id="gzip",
        ),
        pytest.param(
            http_request("GET", "/streamed", ("Accept-Encoding", "gzip")),
            200, b"content-encoding: gzip", id="a gzip stream",
        ),
        pytest.param(
            http_request("GET", "/small", ("Accept-Encoding", "gzip")),
            200, b'{"seen":"by dispatch"}', id="too small for gzip",
        ),
        pytest.param(
            http_request("HEAD", "/large", ("Accept-Encoding", "gzip")), 200, b"", id="gzip, HEAD"
        ),
        pytest.param(
            http_request("GET", "/small", ORIGIN),
            200, b"access-control-allow-origin: https://elsewhere.test", id="CORS",
        ),
        pytest.param(
            http_request(
                "OPTIONS", "/small", ORIGIN, ("Access-Control-Request-Method", "GET"),
                ("Access-Control-Request-Headers", "x-mine"),
            ),
            200, b"access-control-allow-headers", id="CORS preflight",
        ),
        pytest.param(
            http_request(
                "OPTIONS", "/small", ("Origin", "https://evil.test"),
                ("Access-Control-Request-Method", "GET"),
            ),
            400, b"Disallowed CORS origin", id="CORS preflight, refused",
        ),
        pytest.param(
            http_request("GET", "/crash", ORIGIN), 500, b"Internal Server Error", id="crash"
        ),
        pytest.param(
            http_request("GET", "/small").replace(b"example.test", b"evil.test"),
            400, b"Invalid host header", id="untrusted host",
        ),
        pytest.param(http_request("GET", "/private", AUTHORIZED), 200, b"someone", id="authorized"),
        pytest.param(http_request("GET", "/private"), 403, b"Forbidden", id="anonymous"),
        pytest.param(
            http_request("GET", "/private", ("Authorization", "wrong")),
            401, b"www-authenticate: Token", id="wrong token",
        ),
        pytest.param(
            http_request("GET", "/nowhere", ("Authorization", "wrong")),
            401, b"wrong token", id="wrong token where nothing is",
        ),
        pytest.param(
            handshake("/ws", ("Authorization", "wrong")), 403, b"", id="websocket refused"
        ),
    ],
)  # fmt: skip
def test_a_middlewares_effect_is_the_same_before_and_after_install(
    neighbours: Neighbours, request_bytes, status, part
):
    answer = neighbours.agree(lambda server: server.exchange(request_bytes))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:500]
    assert part in answer


def test_what_gzip_packed_is_what_the_app_sent(neighbours: Neighbours):
    request = http_request("GET", "/large", ("Accept-Encoding", "gzip"))
    answer = neighbours.agree(lambda server: server.exchange(request))
    assert gzip.decompress(answer.partition(b"\r\n\r\n")[2]) == b"a line of text\n" * 1_000


def test_a_session_goes_on_from_request_to_request(neighbours: Neighbours):
    def visit_thrice(server: Server):
        with httpx2.Client(base_url=server.url, timeout=DEADLINE_S) as client:
            answers = [client.get("/count") for _ in range(3)]
        set_cookies = [answer.headers.get_list("set-cookie") for answer in answers]
        # The signature holds the second of its making; the payload before it does not.
        payloads = [[cookie.partition(".")[0] for cookie in cookies] for cookies in set_cookies]
        flags = [[cookie.partition(";")[2] for cookie in cookies] for cookies in set_cookies]
        return [answer.json() for answer in answers], payloads, flags

    counts, payloads, _ = neighbours.agree(visit_thrice)
    assert counts == [{"count": 1}, {"count": 2}, {"count": 3}]
    assert [len(cookies) for cookies in payloads] == [1, 1, 1]


def test_an_authorized_websocket_is_accepted(neighbours: Neighbours):
    def shake_hands(server: Server):
        with server.connect() as wire:
            wire.send(handshake("/ws", AUTHORIZED))
            return masked(wire.read_until(b"\r\n\r\n"))

    assert neighbours.agree(shake_hands).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("moment", ["first", "in between", "last"])
def test_metrics_see_what_a_middleware_refused(neighbours: Neighbours, moment):
    """401 of the authentication, 400 of the host check and the preflight never reach the app."""
    server = neighbours.installed[moment]

    def counted(method: str, status: int) -> float:
        page = server.exchange(http_request("GET", "/metrics")).decode()
        lines = [line for line in page.splitlines() if line.startswith("http_requests_total{")]
        wanted = (f'method="{method}"', f'status="{status}"')
        return sum(
            float(line.split()[1]) for line in lines if all(label in line for label in wanted)
        )

    for request, method, status in [
        (http_request("GET", "/private", ("Authorization", "wrong")), "GET", 401),
        (http_request("GET", "/small").replace(b"example.test", b"evil.test"), "GET", 400),
        (http_request("OPTIONS", "/small", ORIGIN, ("Access-Control-Request-Method", "GET")),
         "OPTIONS", 200),
        (http_request("GET", "/crash"), "GET", 500),
    ]:  # fmt: skip
        before = counted(method, status)
        server.exchange(request)
        assert counted(method, status) == before + 1, (method, status)


def test_what_is_added_after_install_is_served():
    """Routes, handlers and overrides may come later; the handle is where it is documented."""
    bare, app = FastAPI(), FastAPI()
    perf = install(app, Settings())
    handles = []
    for one in (bare, app):

        @one.get("/late/{number}")
        async def late(number: int, request: Request) -> dict[str, int]:
            handles.append(getattr(request.state, "perf", None))
            return {"number": number}

        @one.exception_handler(404)
        async def lost(_: Request, __: Exception) -> Response:
            return PlainTextResponse("lost", status_code=404)

    servers = Server(bare), Server(app)
    with serving(*servers):
        for target in ("/late/7", "/late/x", "/elsewhere", "/openapi.json"):
            as_before, answer = (server.exchange(http_request("GET", target)) for server in servers)
            assert answer == as_before
    assert handles == [None, perf]
    assert isinstance(perf, Perf)
    assert app.state.perf is perf
    assert json.dumps(app.openapi()) == json.dumps(bare.openapi())
