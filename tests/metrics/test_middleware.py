"""Each request is counted once, with what became of it, whatever app, client and server do."""

import asyncio
import contextlib
import gc
from types import SimpleNamespace

import anyio
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from perf_middleware import ConfigurationError, MetricsMiddleware
from perf_middleware.metrics.middleware import current_exchange
from perf_middleware.metrics.requests.server_timing import PARTS_MAX
from perf_middleware.stack import RequestScope
from tests.metrics.wires import (
    REQUEST,
    Wire,
    answer,
    at_once,
    hello,
    http,
    request,
    run,
    totals,
    values,
)

BACKENDS = ("asyncio", "trio")


class Told:
    """What a middleware counted, read from its families."""

    def __init__(self, middleware):
        numbers = values(middleware.families())
        self.statuses = {
            status: count
            for (_, _, status), count in numbers["http_requests"].items()
            if count
        }  # fmt: skip
        self.exceptions = {
            name: count for (_, _, name), count in numbers["perf_request_exceptions"].items()
        }
        self.disconnects = sum(numbers["perf_client_disconnects"].values())
        self.cancelled = sum(numbers["perf_requests_cancelled"].values())
        self.in_progress = numbers["http_requests_in_progress"][()]
        self.request_bytes = sum(numbers["perf_request_bytes"].values())
        self.response_bytes = sum(numbers["perf_response_bytes"].values())
        timed = totals(middleware.families())
        self.durations = sum(n for n, _ in timed["http_request_duration_seconds"].values())
        self.duration_s = sum(s for _, s in timed["http_request_duration_seconds"].values())
        self.first_bytes = sum(n for n, _ in timed["perf_response_first_byte_seconds"].values())
        self.first_byte_s = sum(s for _, s in timed["perf_response_first_byte_seconds"].values())


async def outcome_of(app, wire):
    """What was counted when `app` served `wire`, and the exception that it ended with."""
    middleware = MetricsMiddleware(app)
    try:
        await wire.serve(middleware)
    except Exception as exc:  # noqa: BLE001 - told to the caller
        return Told(middleware), exc
    return Told(middleware), None


# --- what apps do -------------------------------------------------------------------------------


async def fails(scope, receive, send):
    raise ValueError("before the response")


async def lacks_a_database(scope, receive, send):
    raise ConnectionRefusedError("no database")


async def fails_halfway(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError("after the head")


async def loses_its_file(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise FileNotFoundError("the app's own")


async def fails_afterwards(scope, receive, send):
    await answer(send, 201)
    raise OSError("a background task's")


async def says_nothing(scope, receive, send):
    await receive()


async def stops_halfway(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def answers_twice(scope, receive, send):
    await answer(send, 200)
    await answer(send, 500)


async def starts_twice(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.start", "status": 500, "headers": []})
    raise RuntimeError("the server does not take a second head")


async def waits_for_the_client_to_leave(scope, receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass


async def sees_the_client_leave_and_fails(scope, receive, send):
    await waits_for_the_client_to_leave(scope, receive, send)
    raise KeyError("a mistake after that")


async def reads_on_when_the_client_left(scope, receive, send):
    await waits_for_the_client_to_leave(scope, receive, send)
    raise ClientDisconnect


async def streams_until_the_client_leaves(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    await waits_for_the_client_to_leave(scope, receive, send)


async def answers_though_the_client_left(scope, receive, send):
    await waits_for_the_client_to_leave(scope, receive, send)
    await answer(send)


class Parts:
    """The body of a stream; not a generator, which the loop would have to clean up."""

    def __init__(self, *, number, error=None):
        self._left = number
        self._error = error

    def __aiter__(self):
        return self

    async def __anext__(self):
        self._left -= 1
        if self._left >= 0:
            return b"part"
        raise self._error or StopAsyncIteration


async def streams(scope, receive, send):
    await StreamingResponse(Parts(number=5))(scope, receive, send)


async def streams_what_fails(scope, receive, send):
    error = ConnectionResetError("the upstream's connection")
    await StreamingResponse(Parts(number=1, error=error))(scope, receive, send)


async def sends_an_absurd_status(scope, receive, send):
    await answer(send, "teapot")


OUTCOMES = [
    # app, client leaves after so many messages, status, exceptions, the client left
    pytest.param(hello, None, "200", [], False, id="answered"),
    pytest.param(fails, None, "500", ["ValueError"], False, id="failed before the response"),
    pytest.param(
        lacks_a_database, None, "500", ["ConnectionRefusedError"], False,
        id="an OSError of the app is its own",
    ),
    pytest.param(fails_halfway, None, "200", ["ValueError"], False, id="failed halfway"),
    pytest.param(
        loses_its_file, None, "200", ["FileNotFoundError"], False, id="an OSError halfway"
    ),
    pytest.param(fails_afterwards, None, "201", ["OSError"], False, id="failed after the answer"),
    pytest.param(stops_halfway, None, "200", [], False, id="stopped halfway"),
    pytest.param(answers_twice, None, "200", [], False, id="the first of two answers counts"),
    pytest.param(starts_twice, None, "200", ["RuntimeError"], False, id="the first of two heads"),
    pytest.param(says_nothing, None, "500", [], False, id="never answered"),
    pytest.param(waits_for_the_client_to_leave, None, "499", [], True, id="left before"),
    pytest.param(
        sees_the_client_leave_and_fails, None, "499", ["KeyError"], True, id="left, then a mistake"
    ),
    pytest.param(
        reads_on_when_the_client_left, None, "499", [], True, id="left while its body was read"
    ),
    pytest.param(streams_until_the_client_leaves, None, "200", [], True, id="left while"),
    pytest.param(
        answers_though_the_client_left, None, "499", [], True, id="answered to nobody"
    ),
    pytest.param(hello, 0, "200", [], True, id="sending the head fails"),
    pytest.param(hello, 1, "200", [], True, id="sending the only part fails"),
    pytest.param(streams, 3, "200", [], True, id="sending fails while streaming"),
    pytest.param(
        streams_what_fails, None, "200", ["ConnectionResetError"], False,
        id="a stream's own OSError",
    ),
    pytest.param(sends_an_absurd_status, None, "other", [], False, id="an absurd status"),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("app", "breaks_after", "status", "exceptions", "left"), OUTCOMES)
def test_each_outcome_is_counted_once(backend, app, breaks_after, status, exceptions, left):
    async def main():
        told, _ = await outcome_of(app, Wire(http(), REQUEST, breaks_after=breaks_after))
        assert told.statuses == {status: 1}
        assert told.exceptions == dict.fromkeys(exceptions, 1)
        assert told.disconnects == left
        assert (told.cancelled, told.in_progress, told.durations) == (0, 0, 1)

    run(main, backend)


@pytest.mark.parametrize(("app", "breaks_after", "status", "exceptions", "left"), OUTCOMES)
def test_the_exception_that_the_server_sees_is_the_same(
    app, breaks_after, status, exceptions, left
):
    async def main():
        _, raised = await outcome_of(app, Wire(http(), REQUEST, breaks_after=breaks_after))
        bare = None
        try:
            await Wire(http(), REQUEST, breaks_after=breaks_after).serve(app)
        except Exception as exc:  # noqa: BLE001 - compared
            bare = exc
        assert (type(raised), str(raised)) == (type(bare), str(bare))

    run(main)


class CompiledSend:
    """A server whose send is an object, as that of a compiled server is."""

    def __init__(self, wire):
        self.wire = wire

    async def __call__(self, message):
        await self.wire.send(message)


def test_a_send_that_is_an_object_tells_as_well_that_the_client_left():
    middleware = MetricsMiddleware(hello)
    wire = Wire(http(), REQUEST, breaks_after=1)
    with pytest.raises(OSError, match="gone"):
        at_once(middleware(wire.scope, wire.receive, CompiledSend(wire)))
    assert Told(middleware).disconnects == 1


@pytest.mark.parametrize("app_kind", [Starlette, FastAPI])
def test_a_framework_that_answers_500_and_raises_on_is_counted_once(app_kind):
    async def fail(request):
        raise LookupError("unhandled")

    app = app_kind(routes=[Route("/fail", fail)])
    app.add_middleware(MetricsMiddleware, registry=(registry := CollectorRegistry()))
    with pytest.raises(LookupError):
        request(app, "/fail")
    page = generate_latest(registry).decode()
    assert 'http_requests_total{method="GET",route="/fail",status="500"} 1.0' in page
    assert 'perf_request_exceptions_total{exception="LookupError",method="GET",route="/fail"}' in (
        page
    )
    # Inside of ServerErrorMiddleware nothing was sent yet: the status is ours to conclude.
    outside = MetricsMiddleware(app_kind(routes=[Route("/fail", fail)]))
    with pytest.raises(LookupError):
        request(outside, "/fail")
    told = Told(outside)
    assert (told.statuses, told.exceptions) == ({"500": 1}, {"LookupError": 1})


# --- cancellation -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("started", "status"),
    [pytest.param(False, "499", id="before"), pytest.param(True, "200", id="halfway")],
)
def test_a_cancelled_request_is_counted_as_such(backend, started, status):
    async def main():
        entered = anyio.Event()

        async def waits(scope, receive, send):
            if started:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            entered.set()
            await anyio.sleep_forever()

        middleware = MetricsMiddleware(waits)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Wire(http(), REQUEST).serve, middleware)
            await entered.wait()
            assert Told(middleware).in_progress == 1
            tasks.cancel_scope.cancel()
        told = Told(middleware)
        assert told.statuses == {status: 1}
        assert (told.cancelled, told.disconnects, told.exceptions) == (1, 0, {})
        assert told.in_progress == 0

    run(main, backend)


def test_cancelling_after_the_answer_changes_nothing():
    async def main():
        entered = asyncio.Event()

        async def answers_and_waits(scope, receive, send):
            await answer(send)
            entered.set()
            await asyncio.sleep(3_600)

        middleware = MetricsMiddleware(answers_and_waits)
        task = asyncio.create_task(Wire(http(), REQUEST).serve(middleware))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        told = Told(middleware)
        assert (told.statuses, told.cancelled, told.in_progress) == ({"200": 1}, 0, 0)

    run(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_process_passes_and_is_no_exception_of_the_app(error):
    async def ends(scope, receive, send):
        raise error

    middleware = MetricsMiddleware(ends)
    with pytest.raises(error):
        at_once(Wire(http()).serve(middleware))
    told = Told(middleware)
    assert (told.cancelled, told.exceptions, told.in_progress) == (1, {}, 0)


class Odd(BaseException):
    pass


@pytest.mark.parametrize("error", [asyncio.CancelledError, Odd], ids=["cancelled", "odd"])
def test_what_the_app_lets_escape_is_its_failure_though_it_is_no_exception(error):
    """Awaiting a task that was cancelled raises CancelledError: the server answers 500."""

    async def fails(scope, receive, send):
        raise error

    middleware = MetricsMiddleware(fails)
    with pytest.raises(error):
        at_once(Wire(http()).serve(middleware))
    told = Told(middleware)
    assert (told.statuses, told.cancelled) == ({"500": 1}, 0)
    assert told.exceptions == {error.__name__: 1}


def test_an_upload_that_its_client_gave_up_is_no_failure_of_the_app():
    """Starlette raises ClientDisconnect, and answers it with a 500 that nobody hears."""

    async def upload(request):
        await request.body()
        return PlainTextResponse("stored")

    app = Starlette(routes=[Route("/", upload, methods=["POST"])])
    middleware = MetricsMiddleware(app)
    part = {"type": "http.request", "body": b"12345", "more_body": True}
    with pytest.raises(ClientDisconnect):
        at_once(Wire(http(method="POST"), part).serve(middleware))
    told = Told(middleware)
    assert (told.statuses, told.disconnects, told.exceptions) == ({"499": 1}, 1, {})


# --- time and bytes -----------------------------------------------------------------------------


def test_a_stream_has_its_first_byte_and_its_whole_duration_apart(clock):
    async def streams_slowly(scope, receive, send):
        clock.pass_s(0.25)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            clock.pass_s(2)
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        clock.pass_s(0.5)
        await send({"type": "http.response.body", "body": b""})
        clock.pass_s(100)  # a background task

    middleware = MetricsMiddleware(streams_slowly, slow_request_s=None)
    at_once(Wire(http()).serve(middleware))
    told = Told(middleware)
    assert (told.first_bytes, told.first_byte_s) == (1, 0.25)
    assert (told.durations, told.duration_s) == (1, 6.75)


def test_a_background_task_runs_after_the_count():
    seen = []

    async def task():
        seen.append(Told(middleware).statuses)

    async def page(request):
        return PlainTextResponse("page", background=BackgroundTask(task))

    middleware = MetricsMiddleware(Starlette(routes=[Route("/", page)]))
    request(middleware)
    assert seen == [{"200": 1}]


def test_the_time_that_the_server_takes_for_the_last_part_counts(clock):
    class SlowWire(Wire):
        async def send(self, message):
            clock.pass_s(1)
            await super().send(message)

    middleware = MetricsMiddleware(hello, slow_request_s=None)
    at_once(SlowWire(http()).serve(middleware))
    assert (Told(middleware).first_byte_s, Told(middleware).duration_s) == (0.0, 2.0)


def test_a_request_without_a_head_has_no_first_byte():
    told, _ = run(lambda: outcome_of(says_nothing, Wire(http())))
    assert (told.durations, told.first_bytes) == (1, 0)


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"77")]}


@pytest.mark.parametrize(
    ("messages", "sent_bytes"),
    [
        pytest.param([{"type": "http.response.body", "body": b"12345"}], 5, id="one part"),
        pytest.param([{"type": "http.response.body"}], 0, id="no body"),
        pytest.param([{"type": "http.response.body", "body": None}], 0, id="a body that is None"),
        pytest.param(
            [
                {"type": "http.response.body", "body": b"123", "more_body": True},
                {"type": "http.response.body", "body": b"45", "more_body": True},
                {"type": "http.response.body"},
            ],
            5, id="several parts",
        ),
        pytest.param(
            [{"type": "http.response.body", "body": memoryview(b"1234")}], 4, id="a memoryview"
        ),
        pytest.param([{"type": "http.response.pathsend", "path": "/x"}], 77, id="a file by path"),
        pytest.param(
            [{"type": "http.response.zerocopysend", "file": 3, "count": 40}], 40,
            id="a file's part",
        ),
        pytest.param(
            [{"type": "http.response.zerocopysend", "file": 3}], 77, id="a file to its end"
        ),
        pytest.param(
            [
                {"type": "http.response.zerocopysend", "file": 3, "count": 40, "more_body": True},
                {"type": "http.response.zerocopysend", "file": 3, "count": 2},
            ],
            42, id="a file in parts",
        ),
    ],
)  # fmt: skip
def test_bytes_of_the_response_are_counted(messages, sent_bytes):
    async def app(scope, receive, send):
        await send(START)
        for message in messages:
            await send(message)

    wire = Wire(http())
    middleware = MetricsMiddleware(app)
    at_once(wire.serve(middleware))
    told = Told(middleware)
    assert (told.response_bytes, told.statuses) == (sent_bytes, {"200": 1})
    assert wire.sent == [START, *messages]
    assert all(sent is message for sent, message in zip(wire.sent, [START, *messages], strict=True))


@pytest.mark.parametrize(
    ("length", "counted"),
    [(b"12", 12), (b"-1", 0), (b"many", 0), (b"", 0), (None, 0)],
)
def test_a_file_by_path_is_as_long_as_its_head_says(length, counted):
    async def app(scope, receive, send):
        headers = [] if length is None else [(b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.pathsend", "path": "/x"})

    told, raised = run(lambda: outcome_of(app, Wire(http())))
    assert (told.response_bytes, raised) == (counted, None)


def test_a_file_before_any_head_is_left_to_the_server_to_refuse():
    async def app(scope, receive, send):
        await send({"type": "http.response.pathsend", "path": "/x"})

    told, raised = run(lambda: outcome_of(app, Wire(http())))
    assert (raised, told.statuses) == (None, {"other": 1})


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_bytes_of_the_request_are_those_that_the_app_read(parts):
    async def reads(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await answer(send)

    incoming = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    middleware = MetricsMiddleware(reads)
    at_once(Wire(http(), *incoming, {"type": "http.request"}).serve(middleware))
    assert Told(middleware).request_bytes == sum(map(len, parts))


# --- every order of messages --------------------------------------------------------------------

STEPS = {
    "receive": None,
    "start": {"type": "http.response.start", "status": 200, "headers": []},
    "odd start": {"type": "http.response.start", "status": 1_000_000},
    "part": {"type": "http.response.body", "body": b"x", "more_body": True},
    "last": {"type": "http.response.body", "body": b"x"},
    "path": {"type": "http.response.pathsend", "path": "/x"},
    "trailers": {"type": "http.response.trailers", "headers": []},
    "unknown": {"type": "http.response.unheard_of"},
}
ENDINGS = (None, ValueError, OSError, ClientDisconnect, KeyboardInterrupt, asyncio.CancelledError)


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(sorted(STEPS)), max_size=8),
    st.sampled_from(ENDINGS),
    st.none() | st.integers(0, 6),
    st.booleans(),
)
def test_no_order_of_messages_leaves_anything_behind(steps, ending, breaks_after, asks):
    async def app(scope, receive, send):
        if asks:
            current_exchange().trace()
            current_exchange().add_part("db", 5)
        for step in steps:
            message = STEPS[step]
            await (receive() if message is None else send(message))
        if ending is not None:
            raise ending

    middleware = MetricsMiddleware(app, server_timing=asks, trace_response=asks)
    scope = http()
    wire = Wire(scope, REQUEST, breaks_after=breaks_after)
    try:
        at_once(wire.serve(middleware))
    except (Exception, KeyboardInterrupt, asyncio.CancelledError) as exc:  # noqa: BLE001
        assert ending is not None or isinstance(exc, OSError)  # noqa: PT017
    told = Told(middleware)
    assert told.in_progress == 0
    assert sum(told.statuses.values()) == told.durations == 1
    assert told.disconnects + told.cancelled <= 1
    assert current_exchange() is None


# --- the exchange and its surroundings ----------------------------------------------------------


async def with_exception(scope, receive, send):
    await receive()
    raise ValueError("unhandled")


async def page(request):
    await request.body()
    return PlainTextResponse("page")


async def starlette_fails(request):
    raise ValueError("unhandled")


def api_page():
    return {"a": 1}


def copies(app):
    async def copying(scope, receive, send):
        await app(dict(scope), receive, send)

    return copying


APPS = {
    "raw": lambda: hello,
    "raw, exception": lambda: with_exception,
    "raw, nothing sent": lambda: says_nothing,
    "starlette": lambda: Starlette(routes=[Route("/", page)]),
    "starlette, copied scope": lambda: copies(RequestScope(Starlette(routes=[Route("/", page)]))),
    "starlette, exception": lambda: Starlette(routes=[Route("/", starlette_fails)]),
    "fastapi": lambda: FastAPI(routes=[Route("/", page)]),
}


@pytest.mark.parametrize("kind", APPS)
@pytest.mark.parametrize("header", [True, False], ids=["adding headers", "adding none"])
def test_a_request_leaves_no_cycle_to_the_garbage_collector(kind, header):
    def garbage(app):
        def serve_some():
            for _ in range(20):
                with contextlib.suppress(ValueError):
                    at_once(Wire(http(), REQUEST).serve(app))

        serve_some()  # what is made once
        gc.collect()
        gc.disable()
        try:
            serve_some()
            return gc.collect()
        finally:
            gc.enable()

    middleware = MetricsMiddleware(APPS[kind](), server_timing=header, trace_response=header)
    assert garbage(middleware) <= garbage(APPS[kind]())


def test_the_exchange_is_current_in_the_request_and_not_outside():
    seen = []

    async def app(scope, receive, send):
        seen.append(current_exchange())
        await answer(send)

    at_once(Wire(http()).serve(MetricsMiddleware(app)))
    assert seen[0] is not None
    assert current_exchange() is None


def test_requests_side_by_side_do_not_see_each_other():
    async def main():
        both = anyio.Event()
        seen = []

        async def app(scope, receive, send):
            mine = current_exchange()
            seen.append(mine)
            if len(seen) == 2:
                both.set()
            await both.wait()
            assert current_exchange() is mine
            await answer(send)

        middleware = MetricsMiddleware(app)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(Wire(http()).serve, middleware)
        assert seen[0] is not seen[1]

    run(main)


def test_an_app_with_metrics_inside_another_one_with_metrics():
    inside = []

    async def inner_page(request):
        inside.append(current_exchange())
        return PlainTextResponse("inner")

    inner = Starlette(
        routes=[Route("/{id}", inner_page)],
        middleware=[
            Middleware(MetricsMiddleware, registry=(inner_registry := CollectorRegistry()))
        ],
    )
    outer = MetricsMiddleware(Starlette(routes=[Mount("/in", inner)]))
    request(outer, "/in/5")
    assert set(values(outer.families())["http_requests"]) == {("GET", "/in/{id}", "200")}
    page = generate_latest(inner_registry).decode()
    assert 'http_requests_total{method="GET",route="/{id}",status="200"} 1.0' in page
    assert inside[0] is not None
    assert current_exchange() is None


@pytest.mark.parametrize("kind", ["starlette", "fastapi", "raw"])
def test_alone_with_a_registry_the_exported_bounds_are_those_asked_for(kind):
    registry = CollectorRegistry()
    options = {"registry": registry, "buckets_s": (0.5, 2.0), "series_max": 50}
    if kind == "raw":
        app = MetricsMiddleware(hello, **options)
    else:
        app = {"starlette": Starlette, "fastapi": FastAPI}[kind](routes=[Route("/", page)])
        app.add_middleware(MetricsMiddleware, **options)
    request(app)
    lines = generate_latest(registry).decode().splitlines()
    bounds = [
        line.partition('le="')[2].partition('"')[0]
        for line in lines
        if line.startswith("http_request_duration_seconds_bucket")
    ]
    assert bounds == ["0.5", "2.0", "+Inf"]
    assert any(line.startswith("http_requests_total{") for line in lines)


def test_one_registry_takes_one_middleware():
    registry = CollectorRegistry()
    MetricsMiddleware(hello, registry=registry)
    with pytest.raises(ConfigurationError, match="registry"):
        MetricsMiddleware(hello, registry=registry)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"unheard_of": 1}, TypeError, id="an unknown option"),
        pytest.param({"buckets_s": (2.0, 1.0)}, ConfigurationError, id="falling bounds"),
    ],
)
def test_wrong_options_fail_when_the_middleware_is_made(options, error):
    with pytest.raises(error):
        MetricsMiddleware(hello, **options)


def test_other_scopes_pass_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    wire = Wire({"type": "lifespan"})
    receive, send = wire.receive, wire.send
    at_once(MetricsMiddleware(app)(wire.scope, receive, send))
    assert seen == [({"type": "lifespan"}, receive, send)]


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["headers", "root_path", "state", "client", "server"])
def test_a_scope_that_lacks_something_is_served(missing):
    scope = http()
    del scope[missing]
    wire = Wire(scope)
    middleware = MetricsMiddleware(hello, server_timing=True, trace_response=True)
    at_once(wire.serve(middleware))
    assert len(wire.sent) == 2
    assert Told(middleware).statuses == {"200": 1}


def test_routes_are_told_apart_where_the_server_sends_no_root_path():
    route = SimpleNamespace(path_format="/items/{id}")

    async def app(scope, receive, send):
        scope["route"] = route
        await answer(send, 200)

    middleware = MetricsMiddleware(app)
    for _ in range(3):  # on the first the route is not known as yet
        scope = http()
        del scope["root_path"]
        at_once(Wire(scope).serve(middleware))
    ((_, counted, _),) = middleware.recorder.figures.by_key
    assert counted == "/items/{id}"
    assert Told(middleware).statuses == {"200": 3}


def test_ten_thousand_headers_are_read_once_at_most():
    headers = [(b"x-%d" % number, b"v") for number in range(10_000)]
    middleware = MetricsMiddleware(hello, trace_response=True)
    sent = request(middleware, headers=headers)
    assert len(sent) == 2


@pytest.mark.parametrize("method", ["G\u00cbT", "\ud800", "x" * 10_240, "GET\n", ""])
def test_odd_methods_are_other(method):
    middleware = MetricsMiddleware(hello, slow_request_s=1e-9)
    wire = Wire(http(method=method))
    at_once(wire.serve(middleware))
    assert set(values(middleware.families())["http_requests"]) == {("other", "unmatched", "200")}


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_any_path_is_served_and_no_label(path):
    middleware = MetricsMiddleware(hello)
    at_once(Wire(http(path)).serve(middleware))
    assert set(values(middleware.families())["http_requests"]) == {("GET", "unmatched", "200")}


def test_the_parts_of_a_request_are_bounded():
    seen = []

    async def app(scope, receive, send):
        exchange = current_exchange()
        for number in range(1_000):
            exchange.add_part(f"part{number}", 1)
        exchange.add_part("part0", 1)
        seen.append(dict(exchange.parts_ns))
        await answer(send)

    request(MetricsMiddleware(app))
    (parts_ns,) = seen
    assert len(parts_ns) == PARTS_MAX + 1
    assert sum(parts_ns.values()) == 1_001
    assert parts_ns["part0"] == 2


def test_a_reset_while_a_request_is_served_counts_it_afterwards():
    async def main():
        entered, go_on = anyio.Event(), anyio.Event()

        async def waits(scope, receive, send):
            entered.set()
            await go_on.wait()
            await answer(send)

        middleware = MetricsMiddleware(waits)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Wire(http()).serve, middleware)
            await entered.wait()
            middleware.recorder.figures.reset()
            assert Told(middleware).in_progress == 1
            go_on.set()
        told = Told(middleware)
        assert (told.statuses, told.in_progress, told.durations) == ({"200": 1}, 0, 1)

    run(main)


def test_more_routes_than_the_bound_are_counted_together_with_one_warning(caplog):
    async def many(request):
        return PlainTextResponse("one of many")

    app = Starlette(routes=[Route(f"/r{number}", many) for number in range(20)])
    middleware = MetricsMiddleware(app, series_max=5)
    for number in [*range(20), *range(20)]:
        at_once(Wire(http(f"/r{number}")).serve(middleware))
    told = values(middleware.families())
    assert told["http_requests"][("GET", "other", "200")] == 30
    assert told["perf_metrics_overflow"] == {(): 30}
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "(series_max)" in warnings[0]
