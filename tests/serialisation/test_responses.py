"""OrjsonResponse and StreamingJSONResponse, driven with plain ASGI messages on asyncio and trio."""

import json
import threading
import time

import anyio
import anyio.from_thread
import pytest
from fastapi import FastAPI
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from perf_middleware import OrjsonResponse, StreamingJSONResponse
from tests.driving import DEADLINE_S, Answer, get, http_scope

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
KINDS = pytest.mark.parametrize("kind", ["async generator", "generator", "list"])


def of_kind(kind, items):
    async def async_items():
        for item in items:
            yield item

    return {
        "async generator": async_items,
        "generator": lambda: iter(items),
        "list": lambda: items,
    }[kind]()


class Client:
    """One request; once `gone` is set, `receive` tells it, or `send` where `send_tells`.

    `waits` is False for a server whose `send` never lets others run.
    """

    def __init__(self, *, method="GET", send_tells=False, waits=True):
        self.scope = http_scope(method=method)
        self.messages = []
        self.gone = anyio.Event()
        self.sent = anyio.Event()
        self._send_tells = send_tells
        self._waits = waits

    async def receive(self):
        await (anyio.sleep_forever() if self._send_tells else self.gone.wait())
        return {"type": "http.disconnect"}

    async def send(self, message):
        if self._waits:
            await anyio.lowlevel.checkpoint()
        if self.gone.is_set() and self._send_tells:
            raise OSError("gone")
        self.messages.append(message)
        if message.get("body"):
            self.sent.set()

    async def ask(self, response):
        with anyio.fail_after(DEADLINE_S):
            await response(self.scope, self.receive, self.send)
        return Answer(self.messages)


def run(function, backend):
    return anyio.run(function, backend=backend)


# --- whole -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"content": {"a": 1}}, id="content"),
        pytest.param({"content": None}, id="null"),
        pytest.param({"content": ["é"], "status_code": 201}, id="status"),
        pytest.param({"content": [], "headers": {"X-A": "1", "Content-Type": "a/b"}}, id="headers"),
        pytest.param({"content": [], "media_type": "application/geo+json"}, id="media type"),
        pytest.param({"content": [], "status_code": 204}, id="no body"),
    ],
)
def test_it_is_what_jsonresponse_is(arguments):
    ours, starlettes = OrjsonResponse(**arguments), JSONResponse(**arguments)
    assert isinstance(ours, JSONResponse)
    assert (ours.status_code, ours.raw_headers) == (starlettes.status_code, starlettes.raw_headers)
    assert ours.body == starlettes.body


def test_its_background_task_runs_behind_it():
    ran = []
    answer = get(OrjsonResponse([1], background=BackgroundTask(ran.append, 1)))
    assert (answer.json(), ran) == ([1], [1])


# --- streams ------------------------------------------------------------------------------------


@BACKENDS
@KINDS
@pytest.mark.parametrize("count", [0, 1, 5_000])
def test_all_items_arrive_as_one_array(backend, kind, count):
    items = [{"id": number, "text": "é" * 10} for number in range(count)]

    async def ask():
        return await Client().ask(StreamingJSONResponse(of_kind(kind, items), piece_bytes=4_096))

    answer = run(ask, backend)
    assert answer.json() == items
    assert answer.header("content-type") == "application/json"
    bodies = [message["body"] for message in answer.messages[1:]]
    assert max(map(len, bodies)) < 4_096 + 100
    assert answer.messages[-1].get("more_body", False) is False


@KINDS
def test_lines_are_one_item_each(kind):
    answer = get(StreamingJSONResponse(of_kind(kind, [1, {"a": "x\ny"}]), lines=True))
    assert answer.body == b'1\n{"a":"x\\ny"}\n'
    assert answer.header("content-type") == "application/x-ndjson"


def test_the_array_may_have_a_name():
    assert get(StreamingJSONResponse([1, 2], key="items")).json() == {"items": [1, 2]}


def test_what_fits_in_one_piece_has_a_length():
    assert get(StreamingJSONResponse([1, 2])).header("content-length") == "5"


def test_what_does_not_fit_has_none():
    answer = get(StreamingJSONResponse(["x" * 100] * 10, piece_bytes=200))
    assert answer.header("content-length") is None
    assert len(answer.body) == 10 * 103 + 1


def test_status_headers_and_media_type_are_those_given():
    answer = get(
        StreamingJSONResponse([], 202, {"X-A": "1"}, "application/geo+json", piece_bytes=1)
    )
    assert answer.status == 202
    assert answer.header("x-a") == "1"
    assert answer.header("content-type") == "application/geo+json"


@BACKENDS
@KINDS
def test_the_background_task_runs_behind_the_last_piece(backend, kind):
    async def ask():
        client = Client()
        seen = []

        async def later():
            seen.append(len(client.messages))

        response = StreamingJSONResponse(of_kind(kind, [1]), background=BackgroundTask(later))
        await client.ask(response)
        return seen == [len(client.messages)]

    assert run(ask, backend)


@BACKENDS
def test_an_item_that_waits_is_sent_though_no_other_comes(backend):
    async def ask():
        client = Client()

        async def items():
            yield 1
            await client.sent.wait()
            yield 2

        return await client.ask(StreamingJSONResponse(items(), lines=True, piece_wait_s=0.01))

    answer = run(ask, backend)
    assert [message["body"] for message in answer.messages[1:]] == [b"1\n", b"2\n"]


@BACKENDS
def test_a_source_that_never_waits_lets_others_run(backend):
    async def ask():
        client = Client(waits=False)

        async def items():
            while True:  # until the client leaves: it can do so only when this task pauses
                yield "x" * 1_000

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, StreamingJSONResponse(items(), piece_bytes=10_000))
            await client.sent.wait()
            client.gone.set()

    run(ask, backend)


@BACKENDS
def test_a_sync_source_is_iterated_in_a_thread(backend):
    threads = set()

    def items():
        for number in range(1_000):
            threads.add(threading.get_ident())
            yield number

    async def ask():
        answer = await Client().ask(StreamingJSONResponse(items(), piece_bytes=500))
        return answer.json(), threading.get_ident()

    numbers, loop_thread = run(ask, backend)
    assert numbers == list(range(1_000))
    assert loop_thread not in threads


@BACKENDS
def test_what_waits_in_a_thread_goes_out_with_the_next_item(backend):
    async def ask():
        client = Client()

        def items():
            yield 1
            time.sleep(0.02)  # two times as long as it may wait
            yield 2
            anyio.from_thread.run(client.sent.wait)
            yield 3

        return await client.ask(StreamingJSONResponse(items(), lines=True, piece_wait_s=0.01))

    answer = run(ask, backend)
    assert answer.messages[1]["body"] == b"1\n2\n"
    assert answer.body == b"1\n2\n3\n"


@BACKENDS
@pytest.mark.parametrize("send_tells", [False, True])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_source_is_closed_when_its_client_is_gone(backend, send_tells, kind):
    closed = []

    async def async_items():
        try:
            while True:
                yield "x" * 1_000
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            closed.append("async")

    def sync_items():
        try:
            while True:
                yield "x" * 1_000
        finally:
            closed.append("sync")

    async def ask():
        client = Client(send_tells=send_tells)
        items = async_items() if kind == "async" else sync_items()

        async def asked():
            response = StreamingJSONResponse(items, piece_bytes=5_000)
            if send_tells:
                with pytest.raises(ClientDisconnect):
                    await client.ask(response)
            else:
                await client.ask(response)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked)
            await client.sent.wait()
            client.gone.set()
        return items, list(closed)  # closed though there is still a reference to it

    assert run(ask, backend)[1] == [kind]


@BACKENDS
def test_a_source_that_waits_for_its_next_item_is_closed_too(backend):
    closed = []

    async def items():
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    async def ask():
        client = Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, StreamingJSONResponse(items(), piece_wait_s=0.001))
            await client.sent.wait()
            client.gone.set()

    run(ask, backend)
    assert closed == [True]


@BACKENDS
@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("before", [0, 3, 2_000])
def test_an_error_of_the_source_is_raised_as_it_is(backend, kind, before):
    class SourceError(OSError):
        """An OSError too is the app's own: no sign of a client that is gone."""

    async def async_items():
        for number in range(before):
            yield number
        raise SourceError

    def sync_items():
        yield from range(before)
        raise SourceError

    async def ask():
        client = Client()
        items = async_items() if kind == "async" else sync_items()
        with pytest.raises(SourceError):
            await client.ask(StreamingJSONResponse(items, piece_bytes=1_000, piece_wait_s=10))
        return client.messages

    messages = run(ask, backend)
    if before < 2_000:
        assert messages == []  # the server can still answer 500
    else:
        body = Answer(messages).body
        assert body.startswith(b"[0,1,2,")
        assert not body.endswith(b"]")
        assert messages[-1]["more_body"] is True


@BACKENDS
def test_an_item_that_cannot_be_json_ends_the_stream_with_an_error(backend):
    async def ask():
        client = Client()
        with pytest.raises(TypeError, match=r"item 1: content \(object\)"):
            await client.ask(StreamingJSONResponse([1, object()]))
        return client.messages

    assert run(ask, backend) == []


@BACKENDS
def test_head_takes_nothing_from_the_source(backend):
    taken = []

    async def items():
        taken.append(1)
        yield 1

    async def ask():
        return await Client(method="HEAD").ask(StreamingJSONResponse(items()))

    answer = run(ask, backend)
    assert (answer.status, answer.body, taken) == (200, b"", [])


@BACKENDS
def test_cancelled_from_outside_it_closes_its_source(backend):
    closed = []

    async def items():
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    async def ask():
        client = Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, StreamingJSONResponse(items(), piece_wait_s=0.001))
            await client.sent.wait()
            tasks.cancel_scope.cancel()

    run(ask, backend)
    assert closed == [True]


def test_an_iterator_that_is_no_generator_stays_open():
    class Rows:
        closed = False

        def __init__(self):
            self.rows = [2, 1]

        def __iter__(self):
            return self

        def __next__(self):
            if not self.rows:
                raise StopIteration
            return self.rows.pop()

        def close(self):
            self.closed = True

    rows = Rows()
    assert get(StreamingJSONResponse(rows)).json() == [1, 2]
    assert not rows.closed


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param({"content": 5}, TypeError, id="not iterable"),
        pytest.param({"content": [], "lines": True, "key": "a"}, ValueError, id="lines and key"),
        pytest.param({"content": [], "piece_bytes": 0}, ValueError, id="no bytes"),
        pytest.param({"content": [], "piece_wait_s": 0}, ValueError, id="no time"),
        pytest.param({"content": [], "piece_wait_s": float("nan")}, ValueError, id="nan"),
    ],
)
def test_wrong_arguments_fail_where_they_are_given(arguments, error):
    with pytest.raises(error):
        StreamingJSONResponse(**arguments)


# --- FastAPI ------------------------------------------------------------------------------------


def test_fastapi_takes_it_as_its_default_and_for_a_route():
    app = FastAPI(default_response_class=OrjsonResponse)

    @app.get("/plain")
    async def plain():
        return {"a": float("inf"), 1: "b"}

    @app.get("/typed")
    async def typed() -> dict[str, int]:
        return {"a": 1}

    @app.get("/own", response_class=JSONResponse)
    async def own():
        return {"a": 1}

    @app.get("/direct")
    async def direct():
        return OrjsonResponse({1: {2}}, status_code=202)

    assert get(app, "/plain").json() == {"a": None, "1": "b"}
    assert get(app, "/typed").json() == {"a": 1}
    assert get(app, "/own").json() == {"a": 1}
    assert get(app, "/direct").status == 202
    assert get(app, "/direct").body == b'{"1":[2]}'
    described = get(app, "/openapi.json").json()["paths"]["/plain"]["get"]["responses"]["200"]
    assert list(described["content"]) == ["application/json"]


def test_fastapi_streams_what_a_generator_endpoint_yields():
    app = FastAPI()

    @app.get("/async", response_class=StreamingJSONResponse)
    async def async_rows():
        yield {"a": 1}
        yield {"a": 2}

    @app.get("/sync", response_class=StreamingJSONResponse, status_code=203)
    def sync_rows():
        yield {"a": 1}

    assert get(app, "/async").json() == [{"a": 1}, {"a": 2}]
    answer = get(app, "/sync")
    assert (answer.status, json.loads(answer.body)) == (203, [{"a": 1}])
