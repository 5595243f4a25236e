"""Request limits, driven with plain messages on both event loops."""

import pickle
from contextlib import suppress

import anyio
import pytest
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware.errors import RequestRejectedError
from perf_middleware.limits.deadlines.decorators import body_limit
from perf_middleware.limits.deadlines.middleware.bodies import (
    LINGER_BYTES_MAX,
    BodyRefusedError,
    RequestLimitsMiddleware,
)
from tests.driving import DEADLINE_S, Answer, http_scope

CHUNKED = [("Transfer-Encoding", "chunked")]
START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"done"}

each_loop = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Client:
    """Sends its body in these pieces; None is a pause without end."""

    def __init__(self, *pieces, headers=None, **scope):
        if headers is None:
            headers = CHUNKED
        self.scope = http_scope(method="POST", headers=headers, **scope)
        self._left = list(pieces)
        self.messages = []
        self.asked = 0

    async def receive(self):
        self.asked += 1
        if not self._left:
            await anyio.sleep_forever()
        piece = self._left.pop(0)
        if piece is None:
            await anyio.sleep_forever()
        return {"type": "http.request", "body": piece, "more_body": bool(self._left)}

    async def send(self, message):
        self.messages.append(dict(message))

    async def ask(self, app):
        with anyio.fail_after(DEADLINE_S):
            await app(self.scope, self.receive, self.send)
        return Answer(self.messages)

    def get(self, app, backend="asyncio"):
        return anyio.run(self.ask, app, backend=backend)

    @property
    def is_ended(self):
        return bool(self.messages) and not self.messages[-1].get("more_body", False)


async def reads(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            break
    await send(START)
    await send({"type": "http.response.body", "body": body})


async def never_asked(scope, receive, send):
    raise AssertionError("the app was called")


def refused(layer):
    return {key: count for key, count in layer.deadlines.figures.refused.items() if count}


# --- by the head --------------------------------------------------------------------------------


@each_loop
def test_a_body_that_is_told_to_be_too_long_is_refused_unread(backend):
    layer = RequestLimitsMiddleware(never_asked, body_bytes_max=10)
    client = Client(headers=[("Content-Length", "11"), ("Expect", "100-continue")])
    answer = client.get(layer, backend)
    assert (answer.status, client.asked, client.is_ended) == (413, 0, True)
    assert answer.header("connection") == "close"
    assert answer.header("content-type") == "application/problem+json"
    assert len(answer.body) == int(answer.header("content-length"))
    assert answer.json()["title"] == "Content Too Large"
    assert refused(layer) == {"body": 1}


def test_a_body_that_is_told_to_be_short_enough_is_passed_as_it_is():
    passed = []

    async def app(*args):
        passed.append(args)

    client = Client(headers=[("Content-Length", "10")])
    args = (client.scope, client.receive, client.send)

    async def test():
        await RequestLimitsMiddleware(app, body_bytes_max=10)(*args)

    anyio.run(test)
    assert passed == [args]


@pytest.mark.parametrize(
    ("settings", "scope", "status", "reason"),
    [
        pytest.param({"url_bytes_max": 10}, {"path": "/" + "a" * 10}, 414, "url", id="path"),
        pytest.param({"url_bytes_max": 10}, {"query_string": b"q" * 9}, 414, "url", id="query"),
        pytest.param(
            {"header_count_max": 2}, {"headers": [("a", "b")] * 3}, 431, "header", id="count"
        ),
        pytest.param(
            {"header_bytes_max": 9}, {"headers": [("name", "value1")]}, 431, "header", id="bytes"
        ),
    ],
)
def test_a_head_that_is_too_long_is_refused(settings, scope, status, reason):
    layer = RequestLimitsMiddleware(never_asked, **settings)
    client = Client(**{"headers": [], **scope})
    answer = client.get(layer)
    assert (answer.status, refused(layer)) == (status, {reason: 1})
    assert answer.header("connection") is None  # there is no body that was not read


@pytest.mark.parametrize(
    "scope",
    [{"path": "/" + "a" * 8}, {"query_string": b"q" * 8}, {"headers": [("a", "b")] * 2}],
)
def test_a_head_of_exactly_its_limits_passes(scope):
    layer = RequestLimitsMiddleware(reads, url_bytes_max=10, header_count_max=2, header_bytes_max=4)
    assert Client(b"", **{"headers": [], **scope}).get(layer).status == 200


def test_headers_that_can_be_read_once_are_read_once():
    layer = RequestLimitsMiddleware(reads, header_count_max=5)
    client = Client(b"a")
    client.scope["headers"] = map(iter, client.scope["headers"])
    assert client.get(layer).status == 200
    assert len(client.scope["headers"]) == 1


# --- as it comes --------------------------------------------------------------------------------


@each_loop
def test_a_body_that_becomes_too_long_is_refused_in_the_middle(backend):
    async def app(scope, receive, send):
        try:
            await reads(scope, receive, send)
        except BodyRefusedError as error:
            errors.append(error)
            raise

    errors = []
    layer = RequestLimitsMiddleware(app, body_bytes_max=10)
    client = Client(b"a" * 6, b"b" * 6, b"c" * 6, b"d")
    answer = client.get(layer, backend)
    assert (answer.status, client.is_ended) == (413, True)
    assert answer.header("connection") == "close"
    assert (errors[0].status, refused(layer)) == (413, {"body": 1})


@each_loop
def test_a_body_of_exactly_its_limit_passes(backend):
    layer = RequestLimitsMiddleware(reads, body_bytes_max=10)
    assert Client(b"a" * 5, b"b" * 5).get(layer, backend).body == b"a" * 5 + b"b" * 5


def test_the_answer_is_whole_before_the_rest_is_read_and_the_rest_is_bounded():
    piece = b"a" * (LINGER_BYTES_MAX // 4)
    client = Client(*[piece] * 100)
    whole_at = []

    async def send(message):
        client.messages.append(dict(message))
        whole_at.append(client.asked)

    client.send, ended = send, RequestLimitsMiddleware(reads, body_bytes_max=10)
    answer = client.get(ended)
    assert len(answer.body) == int(answer.header("content-length"))
    assert whole_at == [1, 1, 1 + 5]  # head, body, end


def test_a_refused_client_that_has_sent_all_is_not_listened_to():
    client = Client(b"a" * 20)
    client.get(RequestLimitsMiddleware(reads, body_bytes_max=10))
    assert (client.asked, client.is_ended) == (1, True)


def test_later_versions_of_http_have_no_connection_field():
    client = Client(b"a" * 20, b"more", headers=[], http_version="2")
    answer = client.get(RequestLimitsMiddleware(reads, body_bytes_max=10))
    assert (answer.status, answer.header("connection"), len(answer.messages)) == (413, None, 2)


def test_without_a_body_nothing_is_counted():
    async def app(scope, receive, send):
        received.append(receive)

    received = []
    client = Client(headers=[])
    layer = RequestLimitsMiddleware(app, body_bytes_max=0, body_idle_s=1)
    anyio.run(layer, client.scope, client.receive, client.send)
    assert received == [client.receive]


def test_a_response_that_has_begun_is_cut():
    async def app(scope, receive, send):
        await send(START)
        try:
            await receive()
        except RequestRejectedError:
            assert (await receive())["type"] == "http.disconnect"
        await send(LAST)

    layer = RequestLimitsMiddleware(app, body_bytes_max=10)
    client = Client(b"a" * 20)
    with pytest.raises(BodyRefusedError, match="413: The body may have 10 bytes"):
        client.get(layer)
    assert client.messages == [START]


def test_an_error_that_is_not_of_the_refusal_is_raised():
    async def app(scope, receive, send):
        with suppress(BodyRefusedError):
            await receive()
        raise LookupError("another")

    with pytest.raises(LookupError):
        Client(b"a" * 20).get(RequestLimitsMiddleware(app, body_bytes_max=10))


def test_an_app_that_answers_anyway_is_not_heard():
    async def app(scope, receive, send):
        try:
            await receive()
        except BodyRefusedError:
            await send(START)
            await send(LAST)

    client = Client(b"a" * 20)
    assert client.get(RequestLimitsMiddleware(app, body_bytes_max=10)).status == 413
    assert [message["type"] for message in client.messages].count("http.response.start") == 1


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(BodyRefusedError(413, "too long")))
    assert (str(error), error.status, error.detail) == ("413: too long", 413, "too long")
    assert error.retry_after_s is None


# --- slow clients -------------------------------------------------------------------------------


@each_loop
def test_a_client_that_sends_nothing_is_refused(backend):
    layer = RequestLimitsMiddleware(reads, body_idle_s=0.02)
    client = Client(b"a", None)
    answer = client.get(layer, backend)
    assert (answer.status, refused(layer)) == (408, {"slow": 1})
    assert answer.header("connection") == "close"
    assert client.is_ended


@each_loop
def test_a_client_that_sends_too_little_is_refused(backend):
    async def drips():
        await anyio.sleep(0.01)
        return {"type": "http.request", "body": b"a", "more_body": True}

    layer = RequestLimitsMiddleware(reads, body_bytes_per_s_min=1_000_000, body_grace_s=0.05)
    client = Client()
    client.receive = drips
    assert client.get(layer, backend).status == 408


@each_loop
def test_an_app_that_reads_slowly_itself_refuses_nobody(backend):
    async def app(scope, receive, send):
        for _ in range(3):
            await anyio.sleep(0.03)
            await receive()
        await send(START)
        await send(LAST)

    layer = RequestLimitsMiddleware(
        app, body_idle_s=0.02, body_bytes_per_s_min=10**9, body_grace_s=0.02
    )
    assert Client(b"a", b"b", b"c").get(layer, backend).status == 200


@each_loop
def test_behind_the_body_nobody_is_slow(backend):
    async def app(scope, receive, send):
        await receive()
        with anyio.move_on_after(0.1):
            await receive()  # watches for a client that leaves
        await send(START)
        await send(LAST)

    layer = RequestLimitsMiddleware(app, body_idle_s=0.02)
    assert Client(b"a").get(layer, backend).status == 200


@each_loop
def test_an_app_that_answers_already_listens_as_long_as_it_likes(backend):
    async def app(scope, receive, send):
        await send(START)
        with anyio.move_on_after(0.1):
            await receive()
        await send(LAST)

    layer = RequestLimitsMiddleware(app, body_idle_s=0.02)
    assert Client(None).get(layer, backend).status == 200


@each_loop
def test_a_client_that_leaves_is_seen_to_leave(backend):
    async def leaves():
        return {"type": "http.disconnect"}

    async def app(scope, receive, send):
        assert await receive() == {"type": "http.disconnect"}
        await send(START)
        await send(LAST)

    client = Client()
    client.receive = leaves
    layer = RequestLimitsMiddleware(app, body_bytes_max=1, body_idle_s=1)
    assert client.get(layer, backend).status == 200


# --- rules, marks, frameworks -------------------------------------------------------------------


def test_a_rule_takes_the_place_of_the_sections_limit():
    layer = RequestLimitsMiddleware(
        reads,
        body_bytes_max=3,
        rules=[
            {"path": "/upload", "methods": ["POST"], "body_bytes_max": 100},
            {"path": "/any", "body_bytes_max": None},
        ],
        exempt=["/free"],
    )
    for path in ("/upload", "/any", "/free"):
        assert Client(b"a" * 50, path=path).get(layer).status == 200
    assert Client(b"a" * 101, path="/upload").get(layer).status == 413
    assert Client(b"a" * 4, path="/else").get(layer).status == 413


def test_a_mark_takes_the_place_of_the_sections_limit():
    @body_limit(100)
    def endpoint():
        """Marked."""

    layer = RequestLimitsMiddleware(reads, body_bytes_max=3)
    layer.deadlines.read_endpoints(lambda _: endpoint)
    assert Client(b"a" * 50).get(layer).status == 200
    assert Client(b"a" * 101).get(layer).status == 413


async def echo(request: Request):
    return PlainTextResponse(await request.body())


async def fastapi_echo(request: FastAPIRequest):
    return len(await request.body())


def fastapi_app(**settings):
    app = FastAPI(**settings)
    app.post("/")(fastapi_echo)

    @app.post("/json")
    async def read_json(body: dict):
        return body

    return app


def starlette_app(*middleware):
    return Starlette(routes=[Route("/", echo, methods=["POST"])], middleware=list(middleware))


@pytest.mark.parametrize("path", ["/", "/json"])
def test_fastapi_lets_the_refusal_pass(path):
    layer = RequestLimitsMiddleware(fastapi_app(), body_bytes_max=10)
    headers = [*CHUNKED, ("Content-Type", "application/json")]
    answer = Client(b'{"a": "', b"a" * 20, b'"}', headers=headers, path=path).get(layer)
    assert answer.json()["detail"] == "The body may have 10 bytes."


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [
        pytest.param(10, 100, b"The body may have 10 bytes", id="ours is less"),
        pytest.param(100, 10, b"Content Too Large", id="theirs is less"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_beside_the_limit_of_the_framework_the_lesser_holds(
    ours, theirs, answer, chunked, framework
):
    if framework == "fastapi":
        app = fastapi_app(max_body_size=theirs)
    else:
        app = starlette_app(Middleware(RequestBodyLimitMiddleware, max_body_size=theirs))
    layer = RequestLimitsMiddleware(app, body_bytes_max=ours)
    headers = CHUNKED if chunked else [("Content-Length", "50")]
    given = Client(b"a" * 25, b"b" * 25, headers=headers).get(layer)
    assert given.status == 413
    assert answer in given.body
