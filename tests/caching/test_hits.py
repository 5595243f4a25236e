"""Answers from the store, in messages and over a real server's connection."""

import re

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from perf_middleware import ResponseCacheMiddleware
from perf_middleware.caching.syntax.dates import format_http_date
from tests.caching.stage import (
    BACKENDS,
    MAX_AGE,
    App,
    Client,
    Clock,
    ask,
    cached,
    end,
    run,
    say,
    start,
    verdict,
)
from tests.http.servers import Server, serving
from tests.http.wire import http_request

ETAG = (b"etag", b'"1"')
TEXT = bytes(range(32, 126)) * 10  # 940 bytes, each place different from its neighbours


# --- headers --------------------------------------------------------------------------------------


def test_a_layer_outside_may_edit_the_headers_of_any_answer_in_place():
    """As some middlewares do; what is stored, and the next answer, stay what they are."""

    async def act():
        def edit(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-outside", b"1"))
                message["headers"].remove((b"x-app", b"1"))
                message["status"] = 418

        app = App(MAX_AGE, ETAG, (b"x-app", b"1"), body=TEXT)
        layer = cached(app)
        requests = [
            [],  # the miss
            [],
            [(b"if-none-match", b'"1"')],
            [(b"range", b"bytes=0-3")],
            [(b"range", b"bytes=0-3, 8-9")],
        ]
        for headers in requests:
            await Client("/", *headers, on_send=edit).ask(layer)
            plain = await ask(layer)
            assert plain.status == 200
            assert plain.header("x-outside") is None
            assert plain.header("x-app") == "1"

    run(act)


@pytest.mark.parametrize("told", [True, False], ids=["with Cache-Status", "without"])
def test_the_app_may_edit_its_own_list_afterwards(told):
    async def act():
        headers = [MAX_AGE, (b"x-app", b"1")]

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            headers[1] = (b"x-app", b"2")
            await send(end(b"hello"))

        layer = cached(app, status_header=told)
        await ask(layer)
        assert (await ask(layer)).header("x-app") == "1"

    run(act)


def test_two_cookies_stay_two_on_the_way_through():
    async def act():
        cookies = [(b"set-cookie", b"a=1; Expires=Wed, 09 Jun 2027 10:18:14 GMT")]
        cookies.append((b"set-cookie", b"b=2"))
        layer = cached(App(MAX_AGE, *cookies))
        for _ in range(2):
            answer = await ask(layer)
            assert [pair for pair in answer.headers if pair[0] == b"set-cookie"] == cookies
            assert verdict(answer) == 'fwd=uri-miss; detail="set-cookie"'

    run(act)


def test_repeated_fields_come_back_in_their_order():
    async def act():
        own = [(b"link", b"</a>"), (b"x", b"1"), (b"link", b"</b>"), (b"www-authenticate", b"A, B")]
        layer = cached(App(MAX_AGE, *own))
        await ask(layer)
        hit = await ask(layer)
        assert [pair for pair in hit.headers if pair in own] == own

    run(act)


@pytest.mark.parametrize(
    ("status", "length"), [(200, "5"), (404, "5"), (204, None)], ids=["200", "404", "204"]
)
def test_a_hit_names_its_length_also_where_the_app_did_not(status, length):
    async def act():
        body = b"" if status == 204 else b"hello"
        layer = cached(App(MAX_AGE, status=status, body=body))
        assert (await ask(layer)).header("content-length") is None
        hit = await ask(layer)
        assert verdict(hit).startswith("hit")
        assert hit.header("content-length") == length

    run(act)


def test_the_age_grows_with_the_clock_and_not_by_asking():
    async def act():
        clock = Clock()
        layer = cached(App((b"cache-control", b"max-age=100")), clock)
        assert (await ask(layer)).header("age") is None
        seen = []
        for seconds in (0, 0.9, 0.1, 58, 0):
            clock.pass_s(seconds)
            hit = await ask(layer)
            seen.append((hit.header("age"), verdict(hit)))
        assert seen == [
            ("0", "hit; ttl=100"),
            ("0", "hit; ttl=100"),
            ("1", "hit; ttl=99"),
            ("59", "hit; ttl=41"),
            ("59", "hit; ttl=41"),
        ]
        clock.pass_s(41)
        assert verdict(await ask(layer)) == "fwd=stale; stored"

    run(act)


def test_an_age_that_came_with_the_answer_goes_on():
    async def act():
        clock = Clock()
        layer = cached(App((b"cache-control", b"max-age=100"), (b"age", b"30")), clock)
        await ask(layer)
        clock.pass_s(10)
        assert (await ask(layer)).header("age") == "40"
        clock.pass_s(60)
        assert verdict(await ask(layer)).startswith("fwd=stale")

    run(act)


@pytest.mark.parametrize("rules", [[], [{"path": "/", "ttl": 1}]], ids=["own word", "a rule"])
@pytest.mark.parametrize("age", [b"", b"5"], ids=["new", "five seconds old"])
def test_a_lifetime_of_one_second_is_one_although_the_app_takes_a_moment(rules, age):
    """Micro-caching: a delay of milliseconds is neither a whole second more nor one less."""

    async def act():
        clock = Clock()
        lifetime = b"max-age=%d" % (1 + int(age or b"0"))
        app = App((b"cache-control", lifetime), *([(b"age", age)] if age else []))

        async def slow(scope, receive, send):
            clock.pass_s(0.005)
            await app(scope, receive, send)

        layer = cached(slow, clock, rules=rules, early_refresh=0.0)
        await ask(layer)
        clock.pass_s(0.9)
        assert verdict(await ask(layer)).startswith("hit")
        clock.pass_s(0.1)
        assert verdict(await ask(layer)).startswith("fwd=stale")
        assert app.calls == 2

    run(act)


# --- other answers than the whole -----------------------------------------------------------------


@BACKENDS
def test_a_head_is_answered_from_a_stored_get(backend):
    async def act():
        app = App(MAX_AGE, ETAG)
        layer = cached(app)
        await ask(layer)
        head = await ask(layer, method="HEAD")
        assert (head.status, head.body, head.header("content-length")) == (200, b"", "5")
        assert verdict(head).startswith("hit")
        assert app.calls == 1

    run(act, backend)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        pytest.param((b"if-none-match", b'"1"'), 304, id="its tag"),
        pytest.param((b"if-none-match", b'W/"1"'), 304, id="its tag, weak"),
        pytest.param((b"if-none-match", b'"0", "1"'), 304, id="one of several"),
        pytest.param((b"if-none-match", b"*"), 304, id="any"),
        pytest.param((b"if-none-match", b'"2"'), 200, id="another"),
        pytest.param(
            (b"if-modified-since", b"Fri, 15 Jan 2027 08:00:00 GMT"), 304, id="not modified since"
        ),
        pytest.param(
            (b"if-modified-since", b"Thu, 14 Jan 2027 08:00:00 GMT"), 200, id="modified since"
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_condition_is_judged_by_the_stored_response(condition, status, method):
    async def act():
        modified = (b"last-modified", b"Fri, 15 Jan 2027 08:00:00 GMT")
        extra = [(b"content-type", b"text/plain"), (b"vary", b"accept"), (b"x-app", b"1")]
        app = App(MAX_AGE, ETAG, modified, *extra)
        layer = cached(app)
        await ask(layer)
        answer = await ask(layer, "/", condition, method=method)
        assert answer.status == status
        assert app.calls == 1
        if status == 304:
            assert answer.body == b""
            assert answer.header("content-length") is None
            assert answer.header("content-type") is None
            assert answer.header("etag") == '"1"'
            assert answer.header("vary") == "accept"
            assert answer.header("cache-control") == "max-age=60"

    run(act)


def test_an_answer_without_any_date_is_not_modified_since_its_receipt():
    """RFC 9111 §4.3.2; a confirmation later does not make the body younger."""

    async def act():
        clock = Clock()
        received_s = int(clock.wall_s())

        async def app(scope, receive, send):
            if layer.cache.store.responses:
                await say(send, MAX_AGE, ETAG, status=304, body=b"")
                return
            await send(start(MAX_AGE, ETAG))
            clock.pass_s(20)  # a slow body: what counts is when the head came
            await send(end(b"hello"))

        layer = cached(app, clock)
        await ask(layer)
        for _ in range(2):
            for since_s, status in ((received_s, 304), (received_s - 1, 200)):
                since = (b"if-modified-since", format_http_date(since_s))
                assert (await ask(layer, "/", since)).status == status
            part = [(b"range", b"bytes=0-1"), (b"if-range", format_http_date(received_s))]
            # It is no strong validator (RFC 9110 §13.1.5).
            assert (await ask(layer, "/", *part)).status == 200
            clock.pass_s(100)

    run(act)


@pytest.mark.parametrize(
    ("wanted", "status", "content_range", "body"),
    [
        pytest.param(b"bytes=0-3", 206, "bytes 0-3/940", TEXT[:4], id="the first"),
        pytest.param(b"bytes=930-", 206, "bytes 930-939/940", TEXT[930:], id="open"),
        pytest.param(b"bytes=-10", 206, "bytes 930-939/940", TEXT[930:], id="the last"),
        pytest.param(b"bytes=930-2000", 206, "bytes 930-939/940", TEXT[930:], id="beyond the end"),
        pytest.param(b"bytes=940-", 416, "bytes */940", b"", id="none of it"),
        pytest.param(b"lines=1-2", 200, None, TEXT, id="an unknown unit"),
        pytest.param(b"bytes=3-1", 200, None, TEXT, id="no range"),
    ],
)
def test_a_range_is_cut_from_the_stored_response(wanted, status, content_range, body):
    async def act():
        layer = cached(App(MAX_AGE, ETAG, body=TEXT))
        await ask(layer)
        answer = await ask(layer, "/", (b"range", wanted))
        assert (answer.status, answer.header("content-range")) == (status, content_range)
        assert answer.body == body
        assert answer.header("content-length") == str(len(body))
        assert answer.header("age") == "0"
        # A HEAD has no parts (RFC 9110 §14.2).
        head = await ask(layer, "/", (b"range", wanted), method="HEAD")
        assert (head.status, head.header("content-length")) == (200, "940")

    run(act)


def test_several_ranges_come_in_parts():
    async def act():
        layer = cached(App(MAX_AGE, ETAG, (b"content-type", b"text/plain"), body=TEXT))
        await ask(layer)
        answer = await ask(layer, "/", (b"range", b"bytes=0-3, -4"))
        assert answer.status == 206
        boundary = re.fullmatch(
            r"multipart/byteranges; boundary=(\S+)", answer.header("content-type")
        )[1].encode()
        assert answer.header("content-range") is None
        assert answer.header("content-length") == str(len(answer.body))
        parts = answer.body.split(b"--" + boundary)
        assert [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:3]] == [
            TEXT[:4],
            TEXT[-4:],
        ]
        assert all(b"content-type: text/plain" in part.lower() for part in parts[1:3])

    run(act)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (b'"1"', 206),
        (b'"2"', 200),
        (b'W/"1"', 200),  # weak tags say nothing of bytes
        (b"Fri, 15 Jan 2027 08:00:00 GMT", 200),  # a date without Last-Modified
    ],
    ids=["its tag", "another tag", "a weak tag", "a date"],
)
def test_a_range_with_if_range_is_for_that_response_alone(condition, status):
    async def act():
        layer = cached(App(MAX_AGE, ETAG, body=TEXT))
        await ask(layer)
        answer = await ask(layer, "/", (b"range", b"bytes=0-3"), (b"if-range", condition))
        assert (answer.status, len(answer.body)) == (status, 4 if status == 206 else 940)

    run(act)


@BACKENDS
def test_what_waits_for_the_app_to_confirm_is_answered_as_it_was_asked(backend):
    """Its condition is not the app's to judge: the cache asked with one of its own."""

    async def act():
        clock = Clock()
        app = App(MAX_AGE, ETAG, body=TEXT)
        layer = cached(app, clock)
        await ask(layer)
        app.status, app.parts = 304, [b""]
        seen = []
        for headers in (
            [],
            [(b"if-none-match", b'"1"')],
            [(b"range", b"bytes=0-3")],
            [(b"if-none-match", b'"other"'), (b"if-match", b'"x"')][:1],
        ):
            clock.pass_s(100)
            answer = await ask(layer, "/", *headers)
            assert app.seen(b"if-none-match") == [b'"1"']
            assert app.seen(b"range") == []
            seen.append((answer.status, len(answer.body)))
        assert seen == [(200, 940), (304, 0), (206, 4), (200, 940)]
        clock.pass_s(100)
        head = await ask(layer, method="HEAD")
        assert (head.status, head.body) == (200, b"")

    run(act, backend)


def test_only_if_cached_gets_what_is_stored_or_504():
    async def act():
        app = App()
        layer = cached(app)
        only = (b"cache-control", b"only-if-cached")
        refused = await ask(layer, "/", only)
        assert (refused.status, app.calls) == (504, 0)
        assert refused.header("content-length") == str(len(refused.body))
        await ask(layer)
        assert (await ask(layer, "/", only)).status == 200
        assert app.calls == 1

    run(act)


@pytest.mark.parametrize("status", [299, 499, 599])
def test_a_status_that_nobody_knows_is_stored_where_the_app_says_so(status):
    async def act():
        app = App(status=status)
        layer = cached(app)
        assert [(await ask(layer)).status for _ in range(2)] == [status] * 2
        assert app.calls == 1

    run(act)


# --- over a real server ---------------------------------------------------------------------------


def page(request):
    headers = {"cache-control": "max-age=60", "etag": '"1"'}
    return PlainTextResponse("hello " * 100, headers=headers)


def cookies(request):
    answer = Response("own", headers={"cache-control": "max-age=60"})
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


def streamed(request):
    return StreamingResponse(iter([b"part;"] * 3), headers={"cache-control": "max-age=60"})


@pytest.fixture(scope="module")
def server():
    app = Starlette(
        routes=[Route("/page", page), Route("/cookies", cookies), Route("/streamed", streamed)]
    )
    servers = {
        name: Server(ResponseCacheMiddleware(app), http=name, lifespan="off")
        for name in ("httptools", "h11")
    }
    with serving(*servers.values()):
        yield servers


def head_of(answer):
    return answer.partition(b"\r\n\r\n")[0].lower()


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        pytest.param([], b"200", b"hello " * 100, id="whole"),
        pytest.param([("If-None-Match", '"1"')], b"304", b"", id="not modified"),
        pytest.param([("Range", "bytes=0-4")], b"206", b"hello", id="in part"),
        pytest.param([("Range", "bytes=900-")], b"416", b"", id="no part"),
        pytest.param([("Range", "bytes=0-0, 5-6")], b"206", None, id="in parts"),
        pytest.param([("Cache-Control", "only-if-cached")], b"200", b"hello " * 100, id="only so"),
    ],
)
def test_a_connection_stays_open_after_any_answer_from_the_store(
    server, http, headers, status, body
):
    """A 304 with a Content-Length would end it, under uvicorn."""
    with server[http].connect() as wire:
        for _ in range(3):
            wire.send(http_request("GET", "/page", keep_alive=True))
            assert wire.read_answer().endswith(b"hello " * 100)
            wire.send(http_request("GET", "/page", *headers, keep_alive=True))
            answer = wire.read_answer()
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b"cache-status: perf_middleware; hit" in head_of(answer)
            assert (b"\r\ncontent-length:" in head_of(answer)) == (status != b"304")
            if body is not None:
                assert answer.partition(b"\r\n\r\n")[2] == body


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_so_it_does_after_a_head(server, http):
    with server[http].connect() as wire:
        wire.send(http_request("GET", "/page", keep_alive=True))
        wire.read_answer()
        for _ in range(2):
            wire.send(http_request("HEAD", "/page", keep_alive=True))
            head = wire.read_until(b"\r\n\r\n").lower()
            assert b"\r\ncontent-length: 600\r\n" in head
            assert b"; hit;" in head
        wire.send(http_request("GET", "/page", keep_alive=True))
        assert wire.read_answer().endswith(b"hello ")


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_stream_in_chunks_becomes_a_hit_with_a_length(server, http):
    with server[http].connect() as wire:
        wire.send(http_request("GET", "/streamed?" + http, keep_alive=True))
        assert b"transfer-encoding: chunked" in head_of(wire.read_answer())
        wire.send(http_request("GET", "/streamed?" + http, keep_alive=True))
        hit = wire.read_answer()
        assert hit.endswith(b"\r\n\r\npart;part;part;")
        assert b"transfer-encoding" not in head_of(hit)


def test_cookies_stay_apart_on_the_wire(server):
    with server["httptools"].connect() as wire:
        wire.send(http_request("GET", "/cookies", keep_alive=True))
        assert head_of(wire.read_answer()).count(b"\r\nset-cookie: ") == 2


def test_the_next_request_of_a_client_finds_what_it_has_just_read(server):
    """Two hundred keys, asked for twice each, as fast as one connection goes."""
    with server["httptools"].connect() as wire:
        for number in range(200):
            wire.send(http_request("GET", f"/page?{number}", keep_alive=True))
            assert b"fwd=uri-miss; stored" in head_of(wire.read_answer())
            wire.send(http_request("GET", f"/page?{number}", keep_alive=True))
            assert b"; hit;" in head_of(wire.read_answer())
