"""Request decoding under real servers: what travels, in which order, and what is cut."""

import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from perf_middleware import Settings, install
from tests.compression.coded import MB, coded, repeated
from tests.http.servers import Server, serving
from tests.http.wire import chunk, http_request

BODY = b"".join(b"%d " % number for number in range(100_000))
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
GZIP = ("Content-Encoding", "gzip")


async def size(request: Request):
    return PlainTextResponse(str(len(await request.body())))


async def echo(request: Request):
    first = await anext(stream := request.stream())

    async def pieces():
        yield first
        async for piece in stream:
            yield piece

    return StreamingResponse(pieces())


async def unread(request: Request):
    return PlainTextResponse("not read")


def app_that_decodes(**settings):
    routes = [Route(f"/{each.__name__}", each, methods=["POST"]) for each in (size, echo, unread)]
    app = Starlette(routes=routes)
    install(app, Settings(compression={"decode_requests": True, **settings}))
    return app


@pytest.fixture(params=["httptools", "h11"])
def server(request):
    server = Server(app_that_decodes(decoded_bytes_max=MB), http=request.param)
    with serving(server):
        yield server


def status_of(answer):
    return int(answer[9:12])


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
def test_a_coded_body_arrives_with_and_without_a_length(server, coding):
    encoded = coded(BODY, coding)
    field = ("Content-Encoding", coding)
    assert server.exchange(http_request("POST", "/size", field, body=encoded)).endswith(
        b"\r\n\r\n%d" % len(BODY)
    )
    chunked = ("Transfer-Encoding", "chunked")
    with server.connect() as wire:
        wire.send(http_request("POST", "/size", field, chunked, keep_alive=True))
        for at in range(0, len(encoded), 5_000):
            wire.send(chunk(encoded[at : at + 5_000]))
        wire.send(chunk(b""))
        assert wire.read_answer().endswith(b"\r\n\r\n%d" % len(BODY))


def test_continue_is_said_when_the_app_reads_and_not_before(server):
    expect = ("Expect", "100-continue")
    length = ("Content-Length", "1000")
    with server.connect() as wire:
        wire.send(http_request("POST", "/size", GZIP, expect, length, keep_alive=True))
        assert wire.read_until(b"\r\n\r\n") == CONTINUE
    with server.connect() as wire:
        wire.send(http_request("POST", "/unread", GZIP, expect, length, keep_alive=True))
        assert status_of(wire.read_until(b"\r\n\r\n")) == 200
    unknown = ("Content-Encoding", "compress")
    with server.connect() as wire:
        wire.send(http_request("POST", "/size", unknown, expect, length, keep_alive=True))
        assert status_of(wire.read_until(b"\r\n\r\n")) == 415


@pytest.mark.parametrize(
    ("field", "body", "status"),
    [
        pytest.param(GZIP, b"no gzip" * 30_000, 400, id="corrupt"),
        pytest.param(GZIP, coded(BODY, "gzip")[:-1], 400, id="truncated"),
        pytest.param(GZIP, repeated("gzip", 512 * MB), 413, id="bomb"),
        pytest.param(("Content-Encoding", "exi"), b"x" * 200_000, 415, id="unknown"),
    ],
)
def test_a_refused_request_leaves_its_connection_to_the_next_one(server, field, body, status):
    with server.connect() as wire:
        wire.send(http_request("POST", "/size", field, body=body, keep_alive=True))
        answer = wire.read_answer()
        wire.send(http_request("POST", "/size", body=b"next", keep_alive=True))
        assert wire.read_answer().endswith(b"\r\n\r\n4")
    head, _, problem = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == json.loads(problem)["status"] == status
    assert b"\r\ncontent-type: application/problem+json" in head
    assert not [line for line in server.log.lines() if "ERROR" in line]


def test_an_answer_that_has_begun_is_cut_where_its_request_breaks(server):
    encoded = coded(BODY, "gzip")
    with server.connect() as wire:
        wire.send(http_request("POST", "/echo", GZIP, body=encoded[:-8] + bytes(8),
                               keep_alive=True))  # fmt: skip
        answer = wire.read_to_end()
    assert status_of(answer) == 200
    assert b"\r\ntransfer-encoding: chunked\r\n" in answer.lower()
    assert not answer.endswith(b"0\r\n\r\n")
    server.wait_logged("UndecodableBodyError")


def test_a_client_that_leaves_in_the_middle_disturbs_nobody(server):
    length = ("Content-Length", "100000")
    for at in (0, 1, 500, 90_000):
        with server.connect() as wire:
            wire.send(http_request("POST", "/size", GZIP, length, keep_alive=True))
            wire.send(coded(BODY, "gzip")[:at])
            wire.abort()
    assert server.exchange(http_request("POST", "/size", body=b"next")).endswith(b"\r\n\r\n4")
