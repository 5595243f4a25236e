"""The rate limit over a real server: what only shows there."""

import json

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from perf_middleware.limits.rate.middleware import RateLimitMiddleware
from tests.http.servers import Server, serving
from tests.http.wire import http_request


async def home(request):
    return PlainTextResponse("hello")


async def parts(request):
    async def pieces():
        yield b"one "
        yield b"two"

    return StreamingResponse(pieces())


async def upload(request):
    return PlainTextResponse(str(len(await request.body())))


ROUTES = [Route("/", home), Route("/parts", parts), Route("/upload", upload, methods=["POST"])]


def head_and_body(raw):
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return lines[0], dict(line.lower().split(": ", 1) for line in lines[1:]), body


def test_answers_of_a_real_server():
    app = Starlette(routes=ROUTES)
    server = Server(RateLimitMiddleware(app, quotas=["3/hour"]))
    with serving(server):
        status, fields, body = head_and_body(server.exchange(http_request("GET", "/")))
        assert "200" in status
        assert fields["ratelimit-policy"] == '"default";q=3;w=3600'
        assert fields["ratelimit"] == '"default";r=2;t=1200'
        assert body == b"hello"
        _, fields, body = head_and_body(server.exchange(http_request("GET", "/parts")))
        assert fields["ratelimit"].startswith('"default";r=1;')
        assert b"one " in body
        server.exchange(http_request("GET", "/no-such"))
        status, fields, body = head_and_body(server.exchange(http_request("GET", "/")))
        assert "429" in status
        assert 1_190 <= int(fields["retry-after"]) <= 1_200
        assert json.loads(body)["quota"] == "default"
        status, _, body = head_and_body(server.exchange(http_request("HEAD", "/")))
        assert "429" in status
        assert body == b""
        status, _, _ = head_and_body(server.exchange(http_request("GET", "/health")))
        assert "404" in status  # exempt: the app itself answers


def test_a_refused_upload_is_answered_before_its_body_has_come():
    app = Starlette(routes=ROUTES)
    server = Server(RateLimitMiddleware(app, quotas=["1/hour"]))
    with serving(server):
        server.exchange(http_request("GET", "/"))
        with server.connect() as wire:
            wire.send(
                b"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                b"Content-Length: 1000000\r\n\r\nbegin"
            )
            assert wire.read_to_end().startswith(b"HTTP/1.1 429 ")
