"""RequestDecodingMiddleware, driven with plain ASGI messages on asyncio and trio."""

import contextlib
import gc
import json
import pickle
import weakref
from functools import partial
from typing import Annotated

import anyio
import pytest
from fastapi import Body, FastAPI, Form, UploadFile
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from perf_middleware import (
    CompressionMiddleware,
    RequestDecodingMiddleware,
    Settings,
    SettingsError,
    UndecodableBodyError,
    install,
    no_compression,
)
from tests.compression.coded import MB, OFFERED, coded, repeated
from tests.driving import DEADLINE_S, Answer, http_scope

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
BODY = json.dumps([{"id": number} for number in range(20_000)]).encode()


class Client:
    """One request: its body in `pieces`, and what came back; the client stays."""

    def __init__(
        self, coding, *pieces, method="POST", gone=False, headers=(), send_waits=False, **scope
    ):
        fields = [("Content-Encoding", coding)] if coding is not None else []
        size = sum(map(len, pieces))
        fields += [("Content-Length", str(size)), *headers]
        self.scope = http_scope(method=method, headers=fields, **scope)
        self.incoming = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        if gone:
            self.incoming.append({"type": "http.disconnect"})
        elif self.incoming:
            self.incoming[-1]["more_body"] = False
        else:
            self.incoming.append({"type": "http.request"})
        self.reads = 0
        self._send_waits = send_waits
        self.messages = []

    async def receive(self):
        self.reads += 1
        await anyio.lowlevel.checkpoint()
        if not self.incoming:
            return {"type": "http.disconnect"}
        return self.incoming.pop(0)

    async def send(self, message):
        if self._send_waits:
            await anyio.lowlevel.checkpoint()
        self.messages.append(message)

    async def ask(self, app):
        with anyio.fail_after(DEADLINE_S):
            await app(self.scope, self.receive, self.send)
        return Answer(self.messages)


def ask(app, *request, backend="asyncio", **more):
    client = Client(*request, **more)
    return anyio.run(client.ask, app, backend=backend)


def problem_of(answer):
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("content-length") == str(len(answer.body))
    problem = answer.json()
    assert problem["status"] == answer.status
    return problem


class Taken:
    """An app that reads its whole body and answers with its size; what it saw is kept."""

    def __init__(self):
        self.scope = None
        self.messages = []
        self.raised = None

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)

    async def __call__(self, scope, receive, send):
        self.scope = scope
        try:
            while True:
                self.messages.append(message := await receive())
                if not message.get("more_body"):
                    break
        except Exception as exc:
            self.raised = exc
            raise
        await PlainTextResponse(str(len(self.body)))(scope, receive, send)


# --- what the app sees -------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize(
    "names",
    [*((name,) for name in OFFERED), ("x-gzip",), ("gzip", "br"), ("deflate", "zstd")],
    ids=", ".join,
)
@pytest.mark.parametrize("size", [1, 1_000, 1 << 30], ids="in pieces of {}".format)
def test_the_app_gets_the_body_that_was_meant(backend, names, size):
    encoded = coded(BODY, *names)
    app = Taken()
    pieces = [encoded[at : at + size] for at in range(0, len(encoded), size)]
    answer = ask(RequestDecodingMiddleware(app), ", ".join(names), *pieces, backend=backend)
    assert answer.body == b"%d" % len(BODY)
    assert app.body == BODY
    assert max(len(message["body"]) for message in app.messages) <= 65_536
    assert [message["more_body"] for message in app.messages[-2:]] == [True, False]


def test_it_sees_neither_the_coding_nor_the_length_of_what_was_sent():
    app = Taken()
    client = Client("gzip", coded(b"x", "gzip"), headers=[("X-A", "1")])
    before = list(client.scope["headers"])
    anyio.run(client.ask, RequestDecodingMiddleware(app))
    assert app.scope["headers"] == [(b"x-a", b"1")]
    assert client.scope["headers"] == before
    assert app.scope["path"] == client.scope["path"]


def test_what_fits_in_one_message_comes_in_one():
    app = Taken()
    ask(RequestDecodingMiddleware(app), "gzip", coded(b"small", "gzip"))
    assert app.messages == [{"type": "http.request", "body": b"small", "more_body": False}]


@pytest.mark.parametrize("coding", [None, "identity", "", "Identity, identity"])
@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan"])
def test_what_has_no_coding_passes_untouched(coding, kind):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    client = Client(coding, b"as it is", type=kind)
    receive, send = client.receive, client.send

    async def run():
        await RequestDecodingMiddleware(app)(client.scope, receive, send)

    anyio.run(run)
    (scope, given_receive, given_send) = seen[0]
    assert (scope is client.scope, given_receive, given_send) == (True, receive, send)


def test_headers_that_can_be_read_once_are_read_once():
    app = Taken()
    client = Client("gzip", coded(b"x", "gzip"), headers=[("X-A", "1")])
    client.scope["headers"] = map(iter, client.scope["headers"])
    anyio.run(client.ask, RequestDecodingMiddleware(app))
    assert (app.scope["headers"], app.body) == ([(b"x-a", b"1")], b"x")


@pytest.mark.parametrize("pieces", [(), (b"",), (b"", b"")], ids=str)
def test_no_body_is_no_body_whatever_its_head_says(pieces):
    app = Taken()
    assert ask(RequestDecodingMiddleware(app), "gzip", *pieces, method="GET").body == b"0"
    assert app.messages[-1] == {"type": "http.request", "body": b"", "more_body": False}


@BACKENDS
def test_nothing_is_read_before_the_app_asks_nor_more_than_it_asks_for(backend):
    client = Client("gzip", *[coded(bytes(65_536), "gzip")] * 10)
    reads = []

    async def app(scope, receive, send):
        reads.append(client.reads)
        await receive()
        reads.append(client.reads)
        await PlainTextResponse("enough")(scope, receive, send)

    middleware = RequestDecodingMiddleware(app)
    answer = anyio.run(client.ask, middleware, backend=backend)
    assert (answer.body, reads) == (b"enough", [0, 1])
    assert middleware.figures.decoded_bytes == 65_536


@BACKENDS
def test_behind_the_end_the_app_hears_what_the_server_tells(backend):
    heard = []

    async def app(scope, receive, send):
        await receive()
        heard.append(await receive())

    ask_for = Client("gzip", coded(b"x", "gzip"))
    anyio.run(ask_for.ask, RequestDecodingMiddleware(app), backend=backend)
    assert heard == [{"type": "http.disconnect"}]


@BACKENDS
def test_a_client_that_leaves_in_the_middle_is_gone_for_the_app(backend):
    heard = []

    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            heard.append(message["more_body"])
        heard.append(message)
        heard.append(await receive())

    client = Client("gzip", coded(BODY, "gzip")[:-200], gone=True)
    middleware = RequestDecodingMiddleware(app)
    anyio.run(client.ask, middleware, backend=backend)
    gone = {"type": "http.disconnect"}
    assert set(heard[:-2]) == {True}
    assert heard[-2:] == [gone, gone]
    assert middleware.figures.refused == {}


def test_a_large_message_of_the_server_lets_others_run_between_two_pieces():
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0)

    async def run():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            client = Client("br", repeated("br", 4 * MB))
            await client.ask(RequestDecodingMiddleware(Taken(), decoded_ratio_max=10**9))
            tasks.cancel_scope.cancel()

    anyio.run(run)
    assert turns >= 4 * MB // 65_536


# --- what is refused ---------------------------------------------------------------------------

CORRUPT = [
    pytest.param("gzip", coded(BODY, "gzip")[:-1], id="gzip, its last byte is missing"),
    pytest.param("gzip", b"no gzip at all", id="no gzip"),
    pytest.param("gzip", coded(BODY, "gzip") + b"more", id="something behind the end"),
    pytest.param("gzip", coded(b"x", "gzip")[:-5] + bytes(5), id="wrong checksum"),
    pytest.param("br", b"\xff" * 100, id="no br"),
    pytest.param("zstd", coded(BODY, "zstd")[:100], id="zstd, truncated"),
    pytest.param("deflate", b"\x78", id="one byte of zlib"),
    pytest.param("gzip, br", coded(BODY, "gzip"), id="one coding of two"),
    pytest.param("br", coded(BODY, "br", "gzip"), id="another coding on top"),
]


@BACKENDS
@pytest.mark.parametrize(("coding", "body"), CORRUPT)
def test_a_corrupt_body_is_a_400(backend, coding, body):
    app = Taken()
    middleware = RequestDecodingMiddleware(app)
    answer = ask(middleware, coding, body, backend=backend)
    assert answer.status == 400
    assert problem_of(answer)["title"] == "Bad Request"
    assert problem_of(answer)["detail"].startswith("The body is not what its Content-Encoding says")
    assert isinstance(app.raised, UndecodableBodyError)
    assert middleware.figures.refused == {"corrupt": 1}


@BACKENDS
@pytest.mark.parametrize(
    ("limits", "reason", "detail"),
    [
        pytest.param({"decoded_bytes_max": 100_000}, "bytes", "more than 100000 bytes", id="bytes"),
        pytest.param({"decoded_ratio_max": 50}, "ratio", "more than 50 times as long", id="ratio"),
    ],
)
def test_a_body_that_becomes_too_large_is_a_413(backend, limits, reason, detail):
    middleware = RequestDecodingMiddleware(Taken(), **limits)
    answer = ask(middleware, "gzip", repeated("gzip", 4 * MB), backend=backend)
    assert answer.status == 413
    assert problem_of(answer)["title"] == "Content Too Large"
    assert detail in problem_of(answer)["detail"]
    assert middleware.figures.refused == {reason: 1}


@BACKENDS
@pytest.mark.parametrize("coding", ["compress", "gzip, exi", "gzip, gzip, gzip", "gzip;q=1"])
def test_an_unknown_coding_is_a_415_that_names_the_known_ones(backend, coding):
    client = Client(coding, b"body")
    app = Taken()
    middleware = RequestDecodingMiddleware(app)
    answer = anyio.run(client.ask, middleware, backend=backend)
    assert answer.status == 415
    assert answer.header("accept-encoding") == "zstd, br, gzip, deflate"
    assert "zstd, br, gzip, deflate" in problem_of(answer)["detail"]
    assert (client.reads, app.scope) == (0, None)
    assert middleware.figures.refused == {"coding": 1}


def test_only_what_is_installed_is_offered():
    middleware = RequestDecodingMiddleware(Taken(), codecs=[OFFERED["gzip"]])
    assert ask(middleware, "br", b"x").header("accept-encoding") == "gzip"
    assert ask(middleware, "gzip", coded(b"abc", "gzip")).body == b"3"


async def catches_all(scope, receive, send):
    try:
        while (await receive()).get("more_body"):
            pass
    except Exception:  # noqa: BLE001 - that is what it is here for
        await JSONResponse({"fine": True})(scope, receive, send)


async def raises_another(scope, receive, send):
    try:
        await receive()
    except Exception as exc:
        raise RuntimeError("could not read") from exc


async def reads_in_a_task(scope, receive, send):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)


async def by_starlette(scope, receive, send):
    async def echo(request):
        return PlainTextResponse(await request.body())

    await Starlette(routes=[Route("/", echo, methods=["POST"])])(scope, receive, send)


async def in_starlettes_debug_mode(scope, receive, send):
    async def echo(request):
        return PlainTextResponse(await request.body())

    await Starlette(debug=True, routes=[Route("/", echo, methods=["POST"])])(scope, receive, send)


async def by_fastapi(scope, receive, send):
    app = FastAPI()

    @app.post("/")
    async def echo(items: Annotated[list, Body()]):
        return items

    await app(scope, receive, send)


async def by_fastapi_as_a_form(scope, receive, send):
    app = FastAPI()

    @app.post("/")
    async def echo(name: Annotated[str, Form()]):
        return name

    await app(scope, receive, send)


@BACKENDS
@pytest.mark.parametrize(
    "app",
    [
        catches_all, raises_another, reads_in_a_task, by_starlette, in_starlettes_debug_mode,
        by_fastapi, by_fastapi_as_a_form,
    ],
    ids=lambda app: app.__name__,
)  # fmt: skip
def test_the_client_gets_our_answer_whatever_the_app_makes_of_the_error(backend, app):
    form = ("Content-Type", "application/x-www-form-urlencoded")
    json_body = ("Content-Type", "application/json")
    answer = ask(
        RequestDecodingMiddleware(app), "gzip", b"no gzip", backend=backend,
        headers=[form if app is by_fastapi_as_a_form else json_body],
    )  # fmt: skip
    assert answer.status == 400
    assert "Content-Encoding" in problem_of(answer)["detail"]
    assert [message["type"] for message in answer.messages] == [
        "http.response.start", "http.response.body",
    ]  # fmt: skip


def test_inside_an_app_its_handlers_of_errors_do_not_answer_either():
    async def echo(request):
        return PlainTextResponse(await request.body())

    async def handler(request, exc):
        return PlainTextResponse("handled", 500)

    app = Starlette(
        routes=[Route("/", echo, methods=["POST"])],
        middleware=[Middleware(RequestDecodingMiddleware)],
        exception_handlers={Exception: handler, 400: handler},
    )
    assert problem_of(ask(app, "gzip", b"no gzip"))["status"] == 400


@BACKENDS
def test_an_error_of_the_apps_own_is_its_own(backend):
    async def app(scope, receive, send):
        await receive()
        raise LookupError("mine")

    with pytest.raises(LookupError):
        ask(RequestDecodingMiddleware(app), "gzip", coded(b"x", "gzip"), backend=backend)


@BACKENDS
def test_an_error_that_has_nothing_to_do_with_the_refusal_is_raised(backend):
    async def app(scope, receive, send):
        with contextlib.suppress(UndecodableBodyError):
            await receive()
        raise LookupError("mine")

    with pytest.raises(LookupError):
        ask(RequestDecodingMiddleware(app), "gzip", b"no gzip", backend=backend)


@BACKENDS
@pytest.mark.parametrize("catches", [False, True])
def test_an_answer_that_has_begun_is_not_ended(backend, catches):
    async def echo(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            try:
                message = await receive()
            except UndecodableBodyError:
                if not catches:
                    raise
                assert await receive() == {"type": "http.disconnect"}
                break
            more = message["more_body"]
            body = message["body"]
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    client = Client("gzip", coded(BODY, "gzip"), b"more", b"and more")
    with pytest.raises(UndecodableBodyError):
        anyio.run(client.ask, RequestDecodingMiddleware(echo), backend=backend)
    answer = Answer(client.messages)
    assert answer.status == 200
    assert BODY.startswith(answer.body)
    assert client.messages[-1]["more_body"] is True


@BACKENDS
@pytest.mark.parametrize("body", [b"no gzip" * 99, coded(BODY, "gzip")], ids=["corrupt", "whole"])
def test_a_second_reader_gets_nothing_that_is_still_coded(backend, body):
    heard = []

    async def read(receive):
        try:
            heard.append(await receive())
        except UndecodableBodyError as error:
            heard.append(error)

    async def app(scope, receive, send):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read, receive)

    client = Client("gzip", body, b"more", b"of it", send_waits=True)
    anyio.run(client.ask, RequestDecodingMiddleware(app), backend=backend)
    assert len(heard) == 3
    for each in heard:
        if not isinstance(each, UndecodableBodyError) and each["type"] == "http.request":
            assert each["body"] in BODY


def test_a_stream_of_starlettes_ends_in_an_error_too():
    async def echo(request: Request):
        return StreamingResponse(request.stream())

    app = Starlette(routes=[Route("/", echo, methods=["POST"])])
    client = Client("gzip", coded(BODY, "gzip")[:-1])
    client.scope["asgi"]["spec_version"] = "2.4"
    with pytest.raises((UndecodableBodyError, RuntimeError, ClientDisconnect)):
        anyio.run(client.ask, RequestDecodingMiddleware(app))
    assert client.messages[-1]["more_body"] is True


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(UndecodableBodyError(400, "why")))
    assert (error.status_code, error.detail) == (400, "why")


# --- what is left ------------------------------------------------------------------------------


class WatchedCodec:
    """gzip, and a weak reference to each of its decoders."""

    name = "gzip"

    def __init__(self):
        self.alive = weakref.WeakSet()

    def decoder(self):
        class Watched:
            def __init__(self, decoder):
                self._decoder = decoder

            def __getattr__(self, name):
                return getattr(self._decoder, name)

        decoder = Watched(OFFERED["gzip"].decoder())
        self.alive.add(decoder)
        return decoder


@BACKENDS
@pytest.mark.parametrize("end", ["cancelled", "left", "failed", "done", "unread", "refused"])
def test_no_decoder_outlives_its_request(backend, end):
    codec = WatchedCodec()
    held = []  # by an app that keeps what it was given

    async def app(scope, receive, send):
        held.append((receive, send))
        if end == "unread":
            return
        await receive()
        assert len(codec.alive) == (end != "done")
        if end == "failed":
            raise LookupError
        if end == "cancelled":
            await anyio.sleep_forever()
        if end != "done":
            await receive()

    whole = coded(BODY, "gzip")
    pieces = {
        "done": [coded(b"x", "gzip")], "refused": [whole[:-1]], "left": [whole[:100]],
    }.get(end, [whole])  # fmt: skip

    async def run():
        client = Client("gzip", *pieces, gone=end == "left")
        middleware = RequestDecodingMiddleware(app, codecs=[codec], decoded_bytes_max=1_000_000)
        with anyio.move_on_after(0.05 if end == "cancelled" else DEADLINE_S):
            try:
                await middleware(client.scope, client.receive, client.send)
            except LookupError:
                assert end == "failed"

    gc.disable()
    try:
        anyio.run(run, backend=backend)
        assert len(codec.alive) == 0
    finally:
        gc.enable()


def test_its_figures_count_requests_and_bytes():
    middleware = RequestDecodingMiddleware(Taken())
    gzipped, packed = coded(BODY, "gzip"), coded(b"abc", "br", "zstd")
    ask(middleware, "gzip", gzipped)
    ask(middleware, "br, zstd", packed)
    ask(middleware, "gzip", b"no gzip")
    figures = middleware.figures
    assert figures.decoded == {"gzip": 2, "zstd": 1, "br": 1}
    assert figures.refused == {"corrupt": 1}
    assert figures.encoded_bytes == len(gzipped) + len(packed) + len(b"no gzip")
    assert figures.decoded_bytes == len(BODY) + 3
    figures.reset()
    assert [list(family.points) for family in figures.families()][:2] == [[], []]
    assert figures.decoded_bytes == 0


# --- as a part of install ----------------------------------------------------------------------


def app_that_takes(body_of=Request.body):
    async def size(request):
        return PlainTextResponse(str(len(await request.body())))

    return Starlette(routes=[Route("/", size, methods=["POST"])])


def test_installed_it_is_off_and_an_app_that_decodes_itself_sees_all():
    app = app_that_takes()
    perf = install(app, Settings())
    encoded = coded(BODY, "gzip")
    assert ask(app, "gzip", encoded).body == b"%d" % len(encoded)
    assert "request decoding" not in [layer.name for layer in perf.describe()]


def test_a_setting_switches_it_on():
    app = app_that_takes()
    perf = install(app, Settings(compression={"decode_requests": True, "decoded_bytes_max": 999}))
    assert ask(app, "gzip", coded(b"x" * 999, "gzip")).body == b"999"
    assert ask(app, "gzip", coded(b"x" * 1_000, "gzip")).status == 413
    assert "request decoding" in [layer.name for layer in perf.describe()]
    names = {family.name for family in perf.metrics.families()}
    assert {
        "perf_compression_request_decoded", "perf_compression_request_refused",
        "perf_compression_request_decoded_bytes", "perf_compression_request_encoded_bytes",
    } <= names  # fmt: skip
    refused = [
        family for family in perf.metrics.families()
        if family.name == "perf_compression_request_refused"
    ]  # fmt: skip
    assert [point.value for point in refused[0].points] == [1]


async def size_of(request):
    return PlainTextResponse("size " + str(len(await request.body())) + " " * 2_000)


ROUTES = [
    Route("/sizes/{name}", size_of, methods=["POST"]),
    Route("/secret", no_compression(partial(size_of)), methods=["POST"]),
]
ACCEPTED = [("Accept-Encoding", "gzip")]


@pytest.mark.parametrize("coding", ["gzip", None])
@pytest.mark.parametrize("middlewares", [[], [Middleware(CORSMiddleware)]], ids=["none", "one"])
def test_a_request_is_counted_under_its_route_however_its_body_came(coding, middlewares):
    """A fixed bug: what the router wrote stayed in a copy, and these were `unmatched`."""
    app = Starlette(routes=ROUTES, middleware=middlewares)
    perf = install(app, Settings(compression={"decode_requests": True}))
    body = BODY if coding is None else coded(BODY, coding)
    assert ask(app, coding, body, path="/sizes/7").status == 200
    assert [key[1:] for key in perf.metrics.recorder.figures.by_key] == [("/sizes/{name}", 200)]


@pytest.mark.parametrize("coding", ["gzip", None])
@pytest.mark.parametrize("is_measured", [True, False])
def test_an_endpoints_choice_holds_however_the_body_of_its_request_came(coding, is_measured):
    """A fixed bug: `@no_compression` was not obeyed where the request was encoded."""
    app = Starlette(routes=ROUTES)
    metrics = {"enabled": is_measured}
    install(app, Settings(compression={"decode_requests": True}, metrics=metrics))
    check_the_choice(app, coding)


@pytest.mark.parametrize("coding", ["gzip", None])
def test_an_endpoints_choice_holds_also_where_both_layers_stand_alone(coding):
    app = RequestDecodingMiddleware(Starlette(routes=ROUTES))
    check_the_choice(CompressionMiddleware(app), coding)


def check_the_choice(app, coding):
    body = BODY if coding is None else coded(BODY, coding)
    answer = ask(app, coding, body, path="/sizes/7", headers=ACCEPTED)
    assert answer.header("content-encoding") == "gzip"
    answer = ask(app, coding, body, path="/secret", headers=ACCEPTED)
    assert (answer.status, answer.header("content-encoding")) == (200, None)


def test_fastapi_reads_json_and_uploads_that_came_encoded():
    app = FastAPI()
    app.add_middleware(RequestDecodingMiddleware)

    @app.post("/json")
    async def read_json(items: list[dict[str, int]]):
        return len(items)

    @app.post("/file")
    async def read_file(file: UploadFile):
        return len(await file.read())

    answer = ask(
        app, "zstd", coded(BODY, "zstd"), path="/json",
        headers=[("Content-Type", "application/json")],
    )  # fmt: skip
    assert answer.json() == 20_000
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + BODY + b"\r\n--b--\r\n"
    )  # fmt: skip
    answer = ask(
        app, "br", coded(form, "br"), path="/file",
        headers=[("Content-Type", "multipart/form-data; boundary=b")],
    )  # fmt: skip
    assert answer.json() == len(BODY)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param({"decoded_bytes_max": 0}, "decoded_bytes_max", id="no bytes"),
        pytest.param({"decoded_ratio_max": 0}, "decoded_ratio_max", id="no ratio"),
        pytest.param({"decode_requests": True}, "decode_requests", id="only install can do that"),
        pytest.param({"ratio": 5}, "ratio", id="unknown"),
    ],
)
def test_a_wrong_argument_fails_where_it_is_given(arguments, said):
    with pytest.raises(SettingsError, match=said):
        RequestDecodingMiddleware(Taken(), **arguments)
