"""Coded answers over a real server: events one by one, broken bodies, clients that leave."""

import gc
import json
from random import Random
from time import sleep

import anyio
import httpx2
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from perf_middleware import CompressionMiddleware, Settings, install, no_compression
from perf_middleware.compression.drivers.brotli import BrotliEncoder
from perf_middleware.compression.drivers.gzip import GzipEncoder
from perf_middleware.compression.drivers.zstd import ZstdEncoder
from tests.compression.stage import BODY, CODECS, CODINGS, decode_some, decoded
from tests.http.servers import Gates, Server, serving
from tests.http.wire import DEADLINE_S, eventually, http_request

EACH_CODING = pytest.mark.parametrize("coding", CODINGS)
LARGE = json.dumps([{"number": number, "text": "some text"} for number in range(20_000)]).encode()
ENCODERS = (ZstdEncoder, BrotliEncoder, GzipEncoder)

gates = Gates()


async def release(request: Request) -> Response:
    gates.release(request.path_params["key"])
    return Response(status_code=204)


async def events(request: Request) -> Response:
    """Each event waits until the client has seen the one before."""
    ndjson = request.query_params.get("as") == "ndjson"
    key = request.path_params["key"]

    async def parts():
        for number in range(4):
            line = json.dumps({"number": number, "text": "größe"})
            yield f"{line}\n" if ndjson else f"id: {number}\ndata: {line}\n\n"
            await gates.wait(key)

    return StreamingResponse(
        parts(), media_type="application/x-ndjson" if ndjson else "text/event-stream"
    )


async def whole(_: Request) -> Response:
    return Response(BODY, media_type="application/json", headers={"ETag": '"1"'})


async def repeated(request: Request) -> Response:
    headers = {"ETag": '"1"', "Cache-Control": "private, no-cache"}
    body = BODY + request.path_params["name"].encode()
    return Response(body, media_type="application/json", headers=headers)


async def large(_: Request) -> Response:
    return Response(LARGE, media_type="application/json")


async def endless(_: Request) -> Response:
    random = Random(5)

    async def parts():
        while True:
            yield random.randbytes(400).hex() * 100
            await anyio.sleep(0)

    return StreamingResponse(parts(), media_type="text/plain")


async def breaks(_: Request) -> Response:
    async def parts():
        yield BODY
        raise RuntimeError("in the middle")

    return StreamingResponse(parts(), media_type="application/json")


async def file(request: Request) -> Response:
    return FileResponse(request.app.state.file, media_type="text/plain")


@no_compression
async def secret(_: Request) -> Response:
    return Response(BODY, media_type="application/json")


ROUTES = [
    Route("/release/{key}", release, methods=["POST"]),
    Route("/events/{key}", events),
    Route("/whole", whole),
    Route("/repeated/{name}", repeated),
    Route("/large", large),
    Route("/endless", endless),
    Route("/breaks", breaks),
    Route("/file", file),
    Route("/secret", secret),
]


@pytest.fixture(scope="module", params=["alone", "installed", "around"])
def server(request, tmp_path_factory):
    """The same app with the layer alone, inside `install`, and as any ASGI app with `install`."""
    path = tmp_path_factory.mktemp("files") / "lines.txt"
    path.write_text("a line of text\n" * 20_000)
    app = Starlette(routes=[*ROUTES, Mount("/static", StaticFiles(directory=path.parent))])
    app.state.file = path
    settings = Settings(compression={"adaptive": "off"})
    if request.param == "alone":
        app.add_middleware(CompressionMiddleware, adaptive="off")
        served = app
    elif request.param == "installed":
        install(app, settings)
        served = app
    else:

        async def hidden(scope, receive, send):
            await app(scope, receive, send)

        served = install(hidden, settings)
    server = Server(served)
    server.tells_figures = request.param != "alone"
    with serving(server):
        yield server


def client(server, coding):
    return httpx2.Client(
        base_url=server.url, timeout=DEADLINE_S, headers={"Accept-Encoding": coding}
    )


def raw_body(answer):
    return b"".join(answer.iter_raw())


@EACH_CODING
@pytest.mark.parametrize("kind", ["sse", "ndjson"])
def test_each_event_arrives_decodable_before_the_next_is_made(server, coding, kind):
    key = f"{coding}-{kind}-{server.port}"
    decoder = CODECS[coding].decoder()
    url = f"/events/{key}?as={kind}"
    with client(server, coding) as http, http.stream("GET", url) as answer:
        assert answer.headers["content-encoding"] == coding
        raw = answer.iter_raw()
        for number in range(4):
            seen = b""
            while not seen.endswith(b"\n"):
                seen += decode_some(decoder, next(raw))
            data = seen.decode().strip().rpartition("data: ")[2]
            assert json.loads(data) == {"number": number, "text": "größe"}
            server.release(key)
        rest = b"".join(raw)
    assert decode_some(decoder, rest) == b""
    assert decoder.is_complete


@EACH_CODING
@pytest.mark.parametrize("path", ["/whole", "/large", "/file"])
def test_what_is_decoded_is_what_the_app_sent(server, coding, path):
    with client(server, coding) as http:
        plain = http.get(path, headers={"Accept-Encoding": "identity"})
        with http.stream("GET", path) as answer:
            body = raw_body(answer)
    assert answer.headers["content-encoding"] == coding
    assert decoded(coding, body) == plain.content
    assert len(body) < len(plain.content) / 2
    assert plain.headers["vary"] == answer.headers["vary"] == "Accept-Encoding"
    if path == "/whole":
        assert int(answer.headers["content-length"]) == len(body)


@EACH_CODING
def test_an_answer_that_is_repeated_is_encoded_once(server, coding):
    with client(server, coding) as http:
        found = []
        for _ in range(4):
            with http.stream("GET", f"/repeated/{coding}") as answer:
                found.append((raw_body(answer), answer.headers.get("content-length")))
            assert answer.headers["content-encoding"] == coding
            assert answer.headers["etag"] == f'W/"1~pm-{coding}"'
        figures = http.get("/metrics", headers={"Accept-Encoding": "identity"}).text
    assert len(set(found)) == 1
    assert decoded(coding, found[0][0]) == BODY + coding.encode()
    if server.tells_figures:
        line = f'perf_compression_responses_total{{coding="{coding}",form="repeated"}}'
        assert f"{line} 2" in figures


@EACH_CODING
def test_a_coded_answer_is_revalidated_by_its_tag(server, coding):
    path = "/static/lines.txt"
    with client(server, coding) as http:
        etag = http.get(path).headers["etag"]
        again = http.get(path, headers={"If-None-Match": etag})
        plain = http.get(path, headers={"Accept-Encoding": "identity"}).headers["etag"]
        foreign = http.get(path, headers={"If-None-Match": etag, "Accept-Encoding": "identity"})
    assert etag != plain
    assert (again.status_code, again.headers["etag"]) == (304, etag)
    assert again.headers["vary"] == "Accept-Encoding"
    assert foreign.status_code == 200


def test_a_range_is_never_joined_with_coded_bytes(server):
    with client(server, "gzip") as http:
        whole = http.get("/file")
        assert "accept-ranges" not in whole.headers
        part = {"Range": "bytes=100-", "If-Range": whole.headers["etag"]}
        assert http.get("/file", headers=part).status_code == 200
        plain = http.get("/file", headers={"Range": "bytes=0-13", "Accept-Encoding": "gzip"})
    assert (plain.status_code, plain.content) == (206, b"a line of text")
    assert plain.headers["etag"] != whole.headers["etag"]
    assert "content-encoding" not in plain.headers


@EACH_CODING
def test_a_body_that_breaks_off_is_seen_to(server, coding):
    request = http_request("GET", "/breaks", ("Accept-Encoding", coding))
    with server.connect() as wire:
        wire.send(request)
        answer = wire.read_to_end()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-encoding: " + coding.encode() in head
    assert not body.endswith(b"0\r\n\r\n"), "the chunks have no end"
    chunk_size, _, chunk = body.partition(b"\r\n")
    decoder = CODECS[coding].decoder()
    assert decode_some(decoder, chunk[: int(chunk_size, 16)]) == BODY
    assert not decoder.is_complete


def test_a_route_that_refuses_is_sent_as_it_is(server):
    with client(server, "gzip, br, zstd") as http:
        answer = http.get("/secret")
    assert answer.content == BODY
    assert "content-encoding" not in answer.headers
    assert "vary" not in answer.headers


def alive():
    gc.collect()
    return [each for each in gc.get_objects() if type(each) in ENCODERS]


def test_clients_that_leave_leave_no_encoder_behind(server):
    random = Random(11)
    for round_ in range(30):
        path = random.choice(["/endless", "/large", "/file", f"/events/{round_}-{server.port}"])
        wire = server.connect()
        accepts = ("Accept-Encoding", random.choice(CODINGS))
        wire.send(http_request("GET", path, accepts))
        if random.random() < 0.7:
            wire.read_until(b"\r\n\r\n")
        wire.abort()
        if path.startswith("/events/"):  # it waits for nobody else
            for _ in range(4):
                server.release(path.removeprefix("/events/"))
    eventually(lambda: not alive(), what="the end of every encoder")


def test_what_the_apps_own_gzip_has_encoded_is_encoded_once():
    app = Starlette(routes=ROUTES, middleware=[Middleware(GZipMiddleware, minimum_size=100)])
    install(app, Settings())
    server = Server(app)
    with serving(server), client(server, "gzip") as http, http.stream("GET", "/whole") as answer:
        body = raw_body(answer)
    assert decoded("gzip", body) == BODY
    assert answer.headers.get_list("vary") == ["Accept-Encoding"]


def test_a_second_middleware_that_encodes_is_named_at_the_start(caplog):
    app = Starlette(routes=ROUTES, middleware=[Middleware(GZipMiddleware)])
    install(app, Settings())
    with serving(Server(app)):
        pass
    assert "GZipMiddleware encodes answers too" in caplog.text


class CopiesScope:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(dict(scope), receive, send)


@pytest.mark.parametrize("users", [[], [Middleware(CopiesScope)]], ids=["bare", "a copied scope"])
def test_routes_are_known_to_metrics_and_to_the_choice_of_endpoints(users):
    app = FastAPI(routes=[*ROUTES, Mount("/sub", routes=ROUTES)], middleware=users)
    perf = install(app, Settings())
    server = Server(app)
    with serving(server), client(server, "gzip") as http:
        assert "content-encoding" not in http.get("/sub/secret").headers
        assert "content-encoding" not in http.get("/secret").headers
        etag = http.get("/whole").headers["etag"]
        assert etag == 'W/"1~pm-gzip"'
        http.get("/whole", headers={"If-None-Match": etag})
        status = perf.status()["compression"]
    routes = {route for _, route, _ in perf.metrics.recorder.figures.by_key}
    assert routes == {"/secret", "/sub/secret", "/whole"}
    assert status["skipped"] == {"route": 2}


def test_what_an_endpoint_chooses_holds_below_a_function_that_another_router_found():
    inner = FastAPI(routes=ROUTES, middleware=[Middleware(CopiesScope)])
    install(inner, Settings())

    async def function(scope, receive, send):
        await inner(scope, receive, send)

    server = Server(Starlette(routes=[Mount("/sub", app=function)]))
    with serving(server), client(server, "gzip") as http:
        assert http.get("/sub/whole").headers["content-encoding"] == "gzip"
        assert "content-encoding" not in http.get("/sub/secret").headers


def test_a_stored_answer_is_encoded_for_each_client():
    app = Starlette(
        routes=[
            Route("/", lambda _: JSONResponse([1] * 500, headers={"Cache-Control": "max-age=60"}))
        ]
    )
    install(app, Settings())
    server = Server(app)
    seen, hits = {}, []
    with serving(server):
        for coding in [*CODINGS, "identity"]:
            with client(server, coding) as http:
                for _ in range(100):  # the first hit in a coding goes without it
                    answer = http.get("/")
                    assert answer.json() == [1] * 500
                    seen[coding] = answer.headers.get("content-encoding", "identity")
                    if seen[coding] == coding:
                        break
                    sleep(0.02)
                hits.append("; hit; " in answer.headers["cache-status"])
    assert seen == {coding: coding for coding in seen}
    assert hits == [False, True, True, True]


def test_an_error_with_a_long_body_is_encoded_too():
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("x" * 5_000, status_code=500))])
    install(app, Settings())
    server = Server(app)
    with serving(server), client(server, "br") as http:
        answer = http.get("/")
    assert (answer.status_code, answer.headers["content-encoding"]) == (500, "br")
    assert answer.text == "x" * 5_000
