"""An answer on its way through the cache: streamed at once, kept beside, and bounded."""

import gc
import tracemalloc

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse, StreamingResponse
from starlette.routing import Route

from tests.caching.stage import (
    BACKENDS,
    MAX_AGE,
    App,
    Client,
    ask,
    assert_at_rest,
    cached,
    end,
    more,
    run,
    say,
    settle,
    start,
    verdict,
)

KIB = 1024


# --- in order -------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([MAX_AGE], id="an answer that is kept"),
        pytest.param([MAX_AGE, (b"content-length", b"30")], id="one of known length"),
        pytest.param([], id="one that is not"),
    ],
)
def test_the_client_has_each_part_before_the_app_makes_the_next(backend, headers):
    async def act():
        async def app(scope, receive, send):
            await send(start(*headers))
            assert len(client.messages) == 1
            for number in range(1, 4):
                await send(more(b"x" * 10))
                assert client.messages[number]["body"] == b"x" * 10
            await send(end())

        client = Client()
        await client.ask(cached(app))
        assert client.raised is None
        assert [message.get("more_body") for message in client.messages[1:]] == [True] * 3 + [False]

    run(act, backend)


LENGTH = (b"content-length", b"5")


@pytest.mark.parametrize(
    ("headers", "parts", "stored_at_each"),
    [
        pytest.param([], [b"hello"], [0, 1], id="one part"),
        pytest.param([], [b"he", b"llo"], [0, 0, 1], id="two"),
        pytest.param([], [b"hello", b""], [0, 0, 1], id="an empty end: nobody knows before"),
        pytest.param([LENGTH], [b"hello", b""], [0, 1, 1], id="all that was announced"),
        pytest.param([LENGTH], [b"he", b"llo", b""], [0, 0, 1, 1], id="all of it in two"),
        pytest.param([LENGTH], [b"", b"hello", b""], [0, 0, 1, 1], id="nothing first"),
    ],
)
def test_an_answer_is_in_the_store_before_its_last_byte_reaches_the_client(
    headers, parts, stored_at_each
):
    async def act():
        stored = []
        layer = cached(App(MAX_AGE, *headers, parts=parts))

        def on_send(message):
            stored.append(layer.cache.store.responses)

        client = await Client(on_send=on_send).ask(layer)
        assert client.body == b"hello"
        assert stored == stored_at_each
        assert_at_rest(layer.cache)

    run(act)


def test_an_answer_that_goes_on_behind_its_announced_end_is_taken_back():
    async def act():
        layer = cached(App(MAX_AGE, LENGTH, parts=[b"hello", b" and more", b""]))
        await Client().ask(layer)
        assert layer.cache.store.responses == 0
        assert layer.cache.figures.of("unmatched").refused == {"content-length": 1}

    run(act)


def test_a_confirmed_response_is_fresh_before_its_last_byte_reaches_the_client():
    async def act():
        app = App(MAX_AGE, (b"etag", b'"1"'))
        layer = cached(app)
        await ask(layer)
        layer.cache.clock.pass_s(100)
        app.status, app.parts = 304, [b""]
        left_us = []

        def on_send(message):
            (stored,) = layer.cache.store.all()
            left_us.append(stored.fresh_until_us - layer.cache.clock())

        await Client(on_send=on_send).ask(layer)
        assert min(left_us) > 0

    run(act)


# --- what is too large ----------------------------------------------------------------------------


@pytest.mark.parametrize("names_length", [True, False], ids=["length named", "length unknown"])
@pytest.mark.parametrize("size", [10_000, 10_001])
def test_above_the_limit_an_answer_is_only_streamed(names_length, size):
    async def act():
        parts = [b"x" * 1_000] * 10 + [b"y" * (size - 10_000)]
        headers = [MAX_AGE] + [(b"content-length", b"%d" % size)] * names_length
        layer = cached(App(*headers, parts=parts), entry_bytes_max=10_000)
        first = await ask(layer)
        assert first.body == b"".join(parts)
        again = await ask(layer)
        assert again.body == first.body
        fits = size == 10_000
        assert verdict(again).startswith("hit") == fits
        if not fits:
            assert layer.cache.figures.of("unmatched").refused == {"too-large": 2}
            if names_length:
                assert verdict(first) == 'fwd=uri-miss; detail="too-large"'
        assert_at_rest(layer.cache)

    run(act)


def test_bodies_on_their_way_share_a_bounded_room():
    async def act():
        gate = anyio.Event()

        async def app(scope, receive, send):
            await send(start(MAX_AGE))
            await send(more(b"x" * 50_000))
            await gate.wait()
            await send(end(b"y" * 50_000))

        layer = cached(app, bytes_max=1_000_000, entry_bytes_max=100_000)
        clients = [Client(f"/{number}") for number in range(30)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.ask, layer)
            await settle()
            assert layer.cache.storing_bytes == 250_000  # a quarter
            gate.set()
        assert {client.body for client in clients} == {b"x" * 50_000 + b"y" * 50_000}
        assert layer.cache.figures.of("unmatched").refused["busy"] >= 25
        assert_at_rest(layer.cache)

    run(act)


# --- what has no end ------------------------------------------------------------------------------


def traced_growth(function):
    """How far traced memory rose above where it began, at most, and where it ended."""
    gc.collect()
    tracemalloc.start()
    try:
        begin = tracemalloc.get_traced_memory()[0]
        function()
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        return peak - begin, tracemalloc.get_traced_memory()[0] - begin
    finally:
        tracemalloc.stop()


class Drain:
    """A client that keeps nothing, and leaves after so many messages."""

    def __init__(self, leaves_after, url="/"):
        self.scope = Client(url).scope
        self.count = 0
        self._leaves_after = leaves_after

    async def receive(self):
        await anyio.sleep_forever()

    async def send(self, message):
        self.count += 1
        if self.count > self._leaves_after:
            raise OSError("the client is gone")


@pytest.mark.parametrize(
    ("part", "count"),
    [
        pytest.param(64 * KIB, 2_000, id="large parts"),
        pytest.param(10, 60_000, id="small parts"),
    ],
)
def test_an_endless_stream_takes_no_more_memory_than_one_entry(part, count):
    """Endless, of a route that looks cacheable, for a client that reads all of it."""
    body = bytes(part)

    async def app(scope, receive, send):
        await send(start(MAX_AGE))
        number = 0
        while True:
            number += 1
            await send(more(body[:-8] + b"%8d" % number))

    layer = cached(app, entry_bytes_max=512 * KIB)

    async def act():
        client = Drain(count)
        with pytest.raises(OSError, match="gone"):
            await layer(client.scope, client.receive, client.send)

    peak, left = traced_growth(lambda: run(act))
    assert peak < 2 * 512 * KIB
    assert left < 200 * KIB
    assert_at_rest(layer.cache)
    assert layer.cache.figures.of("unmatched").refused == {"too-large": 1}


@BACKENDS
def test_events_on_a_route_that_looks_cacheable_are_never_kept(backend):
    async def act():
        held = []

        async def events():
            for number in range(100):
                held.append(layer.cache.storing_bytes)
                yield b"data: %d\n\n" % number

        async def endpoint(request):
            return StreamingResponse(
                events(),
                media_type="text/event-stream",
                headers={"cache-control": "public, max-age=60"},
            )

        layer = cached(Starlette(routes=[Route("/events", endpoint)]))
        answers = [await ask(layer, "/events") for _ in range(2)]
        assert [len(answer.body) for answer in answers] == [990, 990]
        assert max(held) == 0
        assert len(held) == 200
        assert verdict(answers[1]) == 'fwd=uri-miss; detail="event-stream"'

    run(act, backend)


class Trickle:
    """Endless.  No generator: Starlette leaves one suspended, of which trio complains."""

    pause_s = 0.0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await anyio.sleep(self.pause_s)
        self.pause_s = 0.005
        return b"."


@BACKENDS
@pytest.mark.parametrize(
    "asgi",
    [
        pytest.param("2.3", id="told by receive"),
        pytest.param(
            "2.4",
            id="told by send",
        ),
    ],
)
def test_a_slow_endless_stream_ends_some_time_after_its_client_left(backend, asgi):
    """Starlette's StreamingResponse learns of it by `receive` or, from 2.4 on, by `send` alone."""

    async def act():
        async def endpoint(request):
            return StreamingResponse(Trickle(), headers={"cache-control": "max-age=60"})

        layer = cached(Starlette(routes=[Route("/", endpoint)]), outlive_s=0.05)
        client = Client(send_tells=asgi == "2.4", asgi={"version": "3.0", "spec_version": asgi})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, layer)
            await settle(20)
            assert layer.cache.storing_bytes > 0
            client.leave()
            with anyio.move_on_after(1):
                while not client.done:
                    await anyio.sleep(0.01)
            done = client.done
            tasks.cancel_scope.cancel()
        assert done
        assert_at_rest(layer.cache)

    run(act, backend)


# --- what is not whole ----------------------------------------------------------------------------


async def _ends_early(send):
    await send(start(MAX_AGE))
    await send(more(b"hel"))


async def _promises_more(send):
    await say(send, MAX_AGE, (b"content-length", b"9"))


async def _promises_less(send):
    await say(send, MAX_AGE, (b"content-length", b"4"))


async def _two_lengths(send):
    await say(send, MAX_AGE, (b"content-length", b"5"), (b"content-length", b"6"))


async def _no_length(send):
    await say(send, MAX_AGE, (b"content-length", b"five"))


async def _trailers(send):
    await send(start(MAX_AGE, trailers=True))
    await send(end(b"hello"))
    await send(
        {"type": "http.response.trailers", "headers": [(b"x", b"1")], "more_trailers": False}
    )


async def _path(send):
    await send(start(MAX_AGE))
    await send({"type": "http.response.pathsend", "path": "/tmp/nothing"})


async def _zero_copy(send):
    await send(start(MAX_AGE))
    await send({"type": "http.response.zerocopysend", "file": object(), "more_body": False})


async def _zero_copy_after_a_part(send):
    await send(start(MAX_AGE))
    await send(more(b"head;"))
    await send({"type": "http.response.zerocopysend", "file": object(), "more_body": True})
    await send(end(b"tail"))


async def _nothing(send):
    pass


async def _only_a_head(send):
    await send(start(MAX_AGE))


@BACKENDS
@pytest.mark.parametrize(
    "answer",
    [
        _ends_early, _promises_more, _promises_less, _two_lengths, _no_length, _trailers, _path,
        _zero_copy, _zero_copy_after_a_part, _nothing, _only_a_head,
    ],
    ids=lambda answer: answer.__name__.strip("_"),
)  # fmt: skip
def test_what_is_not_a_whole_answer_is_passed_on_as_it_is_and_never_stored(backend, answer):
    async def act():
        said = []

        async def app(scope, receive, send):
            async def noted(message):
                said.append(message)
                await send(message)

            await answer(noted)

        layer = cached(app)
        for _ in range(2):
            said.clear()
            client = await Client().ask(layer)
            assert client.raised is None
            assert without_status(client.messages) == said
        assert layer.cache.store.responses == 0
        assert_at_rest(layer.cache)

    run(act, backend)


def without_status(messages):
    return [
        message
        | (
            {"headers": [pair for pair in message["headers"] if pair[0] != b"cache-status"]}
            if message["type"] == "http.response.start"
            else {}
        )
        for message in messages
    ]


@BACKENDS
@pytest.mark.parametrize("parts", [0, 1, 2])
def test_an_app_that_raises_after_its_head_is_heard_and_leaves_nothing(backend, parts):
    async def act():
        async def app(scope, receive, send):
            await send(start(MAX_AGE))
            for _ in range(parts):
                await send(more(b"part"))
            raise RuntimeError("broken")

        layer = cached(app)
        client = await Client().ask(layer)
        assert isinstance(client.raised, RuntimeError)
        assert len(client.messages) == 1 + parts
        assert layer.cache.store.responses == 0
        assert_at_rest(layer.cache)

    run(act, backend)


def test_an_app_that_raises_after_a_whole_answer_is_heard_and_the_answer_stays():
    async def act():
        async def app(scope, receive, send):
            await say(send, MAX_AGE)
            raise RuntimeError("in a background task")

        layer = cached(app)
        first = await Client().ask(layer)
        assert isinstance(first.raised, RuntimeError)
        assert (await ask(layer)).body == b"hello"
        assert layer.cache.status()["hits"] == 1

    run(act)


@pytest.mark.parametrize(
    "interim",
    [
        {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
        {"type": "http.response.start", "status": 103, "headers": [(b"link", b"</a.css>")]},
    ],
    ids=["an early hint", "a status of 103"],
)
def test_interim_answers_are_passed_on_and_not_stored(interim):
    async def act():
        async def app(scope, receive, send):
            await send(interim)
            await say(send, MAX_AGE)

        layer = cached(app)
        miss = await Client().ask(layer)
        hit = await Client().ask(layer)
        assert miss.messages[0] == interim
        assert [message["type"] for message in hit.messages] == [
            "http.response.start",
            "http.response.body",
        ]
        assert hit.messages[0]["status"] == 200

    run(act)


def test_a_file_that_the_server_would_send_is_not_stored_and_one_that_the_app_sends_is(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"of a file")

    async def endpoint(request):
        return FileResponse(tmp_path / "a.txt", headers={"cache-control": "max-age=60"})

    async def act():
        layer = cached(Starlette(routes=[Route("/", endpoint)]))
        client = Client(extensions={"http.response.pathsend": {}})
        await client.ask(layer)
        assert client.messages[-1]["type"] == "http.response.pathsend"
        assert layer.cache.store.responses == 0
        assert (await ask(layer)).body == b"of a file"
        assert verdict(await ask(layer)).startswith("hit")

    run(act)


# --- what the app does with its own objects -------------------------------------------------------


def test_a_buffer_that_the_app_uses_again_is_stored_as_it_was_sent():
    async def act():
        async def app(scope, receive, send):
            buffer = bytearray(b"one")
            await send(start(MAX_AGE))
            await send(more(buffer))
            buffer[:] = b"two"
            await send(end(memoryview(buffer)))
            buffer[:] = b"xxx"

        layer = cached(app)
        await ask(layer)
        hit = await ask(layer)
        assert hit.body == b"onetwo"

    run(act)


@pytest.mark.parametrize(
    "shape",
    [
        tuple,
        iter,
        lambda pairs: [list(pair) for pair in pairs],
        lambda pairs: (p for p in pairs),
        lambda pairs: [tuple(map(bytearray, pair)) for pair in pairs],
    ],
    ids=["a tuple", "an iterator", "lists in a list", "a generator", "buffers"],
)
def test_headers_may_come_in_any_shape_that_servers_take(shape):
    async def act():
        pairs = [MAX_AGE, (b"x-own", b"1")]

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": shape(pairs)})
            await send(end(b"hello"))

        layer = cached(app)
        miss = await ask(layer)
        assert miss.header("x-own") == "1"
        hit = await ask(layer)
        assert verdict(hit).startswith("hit")
        assert hit.header("x-own") == "1"

    run(act)


def test_buffers_may_stand_in_the_answer_to_one_who_sends_credentials():
    async def act():
        async def app(scope, receive, send):
            headers = [(bytearray(b"x-own"), bytearray(b"1")), (bytearray(b"etag"), b'"1"')]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send(end(b"hello"))

        for method in ("GET", "HEAD", "DELETE"):
            mine = Client("/", (b"authorization", b"Bearer mine"), method=method)
            await mine.ask(cached(app))
            assert mine.raised is None
            assert mine.answer.header("x-own") == "1"

    run(act)


def test_buffers_may_stand_where_a_rule_tells_clients_otherwise_and_in_the_host():
    async def act():
        async def app(scope, receive, send):
            headers = [(bytearray(b"x-own"), b"1"), (bytearray(b"expires"), b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send(end(b"hello"))

        layer = cached(app, rules=[{"path": "/*", "ttl": 60, "tell_clients": "no-cache"}])
        for method in ("GET", "GET", "POST"):
            mine = Client("/", method=method)
            mine.scope["headers"] = [(b"host", bytearray(b"example.org"))]
            await mine.ask(layer)
            assert mine.raised is None
            assert mine.answer.header("x-own") == "1"
            assert mine.answer.header("expires") == (None if method == "GET" else "0")

    run(act)


def test_an_app_may_write_its_field_names_in_any_case():
    async def act():
        layer = cached(App((b"Cache-Control", b"max-age=60"), (b"ETag", b'"1"')))
        await ask(layer)
        hit = await ask(layer, "/", (b"if-none-match", b'"1"'))
        assert hit.status == 304

    run(act)


def test_a_message_without_headers_and_a_body_message_without_body_are_what_the_spec_says():
    async def act():
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        layer = cached(app, default_ttl_s=60)
        assert (await ask(layer)).body == b""
        hit = await ask(layer)
        assert hit.header("content-length") == "0"

    run(act)
