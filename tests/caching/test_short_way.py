"""A miss goes a short way or a long one: both store the same and answer the same."""

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.caching.figures import RouteCounts
from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.stored import StoredResponse
from tests.caching.entries import NOW_S, date
from tests.caching.stage import (
    BACKENDS,
    MAX_AGE,
    US,
    Client,
    Clock,
    ask,
    assert_at_rest,
    cached,
    end,
    more,
    run,
    settle,
    start,
    verdict,
)

BODY = b"hello"
LENGTH = (b"content-length", b"5")
FIELDS = [
    MAX_AGE, LENGTH, (b"content-type", b"text/html"), (b"etag", b'"1"'), (b"etag", b"broken"),
    (b"last-modified", date(NOW_S - 50_000)), (b"cache-control", b"no-store"),
    (b"Cache-Control", b"max-age=9, stale-while-revalidate=20, stale-if-error=5"),
    (b"cache-control", b"no-cache, max-age=5"), (b"cache-control", b"max-age=0"),
    (b"cache-control", b"private"), (b"vary", b"accept"), (b"vary", b"*"), (b"set-cookie", b"a=b"),
    (b"content-length", b"4"), (b"content-length", b"05"), (b"content-length", b"x"),
    (b"content-length", b"9000000"), (b"date", date(NOW_S)), (b"cache-groups", b'"a"'),
    (b"connection", b"x-a"), (b"x-a", b"1"), (b"x-a", b""), (b"age", b"3"),
]  # fmt: skip
RULES = [
    [],
    [{"path": "/*", "ttl": 60}],
    [{"path": "/*", "ttl": 7, "stale_while_revalidate": 3, "tags": ["a", "b-{id}"]}],
    [{"path": "/*", "negative_ttl": 5, "stale_if_error": 9}],
    [{"path": "/*", "ttl": 60, "vary": ["accept"]}],
    [{"path": "/*", "ttl": 60, "tell_clients": "no-cache"}],
]
TIMES = st.sampled_from([0, 1, 700, US // 2, US - 1, US, 3 * US])
URLS = ["/a", "/a?x=1", "/a%20b?c+d", "/a?n=%41", "*", "/"]


class Answering:
    """Answers as it is told: in one message, in two, or so that the head is looked at anew."""

    def __init__(self, clock, way, *, head, status, times):
        self.clock, self.way, self.head, self.status, self.times = clock, way, head, status, times

    async def __call__(self, scope, receive, send):
        self.clock.us += self.times[0]
        if self.way == "looked at":
            scope["session"] = {}
        await send(start(*self.head, status=self.status))
        self.clock.us += self.times[1]
        await send(more(BODY) if self.way == "in two parts" else end(BODY))
        if self.way == "in two parts":
            await send(end())


def kept(stored):
    """All that a stored response is, in comparable parts."""
    parts = {
        name: getattr(stored, name) for name in StoredResponse.__slots__ if name != "_lines"
    } | {"lines": stored.lines}
    return parts | {"counts": counted(stored.counts), "rule": stored.rule_name}


def counted(counts):
    return {name: getattr(counts, name) for name in RouteCounts.__slots__} | {
        "silent": 0, "misses": counts.by_reason("misses"), "refused": counts.by_reason("refused"),
    }  # fmt: skip


async def lived(way, *, url, head, status, rules, times, collapse):
    """What one miss leaves behind, and what the same request is told then."""
    clock = Clock()
    app = Answering(clock, way, head=head, status=status, times=times)
    layer = cached(app, clock, rules=rules, collapse=collapse)
    cache = layer.cache
    told = []
    cache.on("store", lambda stored: told.append(stored.key))

    def read_slowly(message):
        if message["type"] == "http.response.start":
            clock.us += times[2]

    first = Client(url, on_send=read_slowly)
    await first.ask(layer)
    assert_at_rest(cache)
    left = {
        "stored": [kept(stored) for stored in cache.store.all()],
        "counts": {route: counted(counts) for route, counts in cache.figures.by_route.items()},
        "unstorable": dict(cache.unstorable),
        "bytes": cache.store.size_bytes,
        "found by path": [stored.key for stored in cache.store.of_path(url.encode())],
        "told": told,
    }
    answers = [first.answer, (await ask(layer, url))]
    return left, [(each.status, each.headers, each.body) for each in answers]


def without_sizes(way):
    left, answers = way
    stored = [
        {name: part for name, part in each.items() if name != "size_bytes"}
        for each in left["stored"]
    ]
    return left | {"bytes": 0, "stored": stored}, answers


@settings(max_examples=60)
@given(
    st.sampled_from(URLS), st.lists(st.sampled_from(FIELDS), max_size=5), st.booleans(),
    st.sampled_from([200, 200, 204, 206, 404, 500]), st.sampled_from(RULES),
    st.tuples(TIMES, TIMES, TIMES), st.booleans(),
)  # fmt: skip
def test_both_ways_store_the_same_and_answer_the_same(
    url, fields, is_usual, status, rules, times, collapse
):
    head = [MAX_AGE, LENGTH, *fields] if is_usual else fields

    async def act():
        return [
            await lived(
                way, url=url, head=head, status=status, rules=rules, times=times, collapse=collapse
            )
            for way in ("in one message", "in two parts", "looked at")
        ]

    short, handed_over, looked_at = run(act)
    assert short == handed_over
    # Names of its own take more room than those that all heads like it have in common.
    assert looked_at[0]["bytes"] >= short[0]["bytes"]
    assert without_sizes(short) == without_sizes(looked_at)


async def one_message(scope, receive, send):
    await send(start(MAX_AGE, LENGTH))
    await send(end(BODY))


def test_the_usual_answer_needs_no_forwarding(monkeypatch):
    """Else the test above compares the long way with itself."""
    made = []
    init = Forwarding.__init__
    monkeypatch.setattr(Forwarding, "__init__", lambda *a, **k: made.append(1) or init(*a, **k))

    async def act():
        layer = cached(one_message)
        assert "stored" in verdict(await ask(layer, "/"))
        assert not made
        assert "hit" in verdict(await ask(layer, "/"))

    run(act)


@BACKENDS
def test_a_client_that_leaves_between_head_and_body_leaves_the_answer_stored(backend):
    async def act():
        client = Client("/", send_tells=True)

        async def app(scope, receive, send):
            client.leave()
            await send(start(MAX_AGE, LENGTH))
            await send(end(BODY))

        layer = cached(app)
        await client.ask(layer)
        assert client.raised is None
        assert "hit" in verdict(await ask(layer, "/"))
        assert_at_rest(layer.cache)

    run(act, backend)


@BACKENDS
def test_a_body_that_is_on_its_way_when_the_client_leaves_is_stored_once(backend):
    async def act():
        client = Client("/")

        async def app(scope, receive, send):
            await send(start(MAX_AGE, LENGTH))
            body = send(end(BODY))
            await receive()
            client.leave()
            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await settle()
                await body

        layer = cached(app)
        await client.ask(layer)
        assert client.raised is None
        [counts] = layer.cache.figures.by_route.values()
        assert (counts.stored, counts.refused) == (1, {})
        assert_at_rest(layer.cache)

    run(act, backend)


def test_who_waits_for_the_short_way_gets_its_answer():
    async def act():
        gate = anyio.Event()
        calls = []

        async def app(scope, receive, send):
            calls.append(scope)
            await gate.wait()
            await one_message(scope, receive, send)

        layer = cached(app, default_ttl_s=60)
        clients = [Client("/") for _ in range(3)]
        async with anyio.create_task_group() as group:
            for client in clients:
                group.start_soon(client.ask, layer)
            await settle()
            assert layer.cache.flights.waiting == 2
            gate.set()
        assert len(calls) == 1
        assert [client.body for client in clients] == [BODY] * 3
        assert_at_rest(layer.cache)

    run(act)


@pytest.mark.parametrize("purged", ["/", "/other"])
def test_what_is_purged_between_head_and_body_is_not_stored(purged):
    async def act():
        async def app(scope, receive, send):
            await send(start(MAX_AGE, LENGTH))
            await layer.cache.purge(url=purged)
            await send(end(BODY))

        layer = cached(app)
        await ask(layer, "/")
        assert len(layer.cache.store.all()) == (purged != "/")
        assert_at_rest(layer.cache)

    run(act)


def test_a_layer_below_that_rewrites_scheme_and_path_changes_nothing_of_what_is_stored():
    async def act():
        async def app(scope, receive, send):
            scope["scheme"], scope["path"], scope["raw_path"] = "https", "/in", b"/in"
            await one_message(scope, receive, send)

        layer = cached(app)
        await ask(layer, "/out?x=1")
        assert [each.target for each in layer.cache.store.all()] == [b"http://example.test/out?x=1"]

    run(act)


def test_a_large_answer_that_is_asked_for_once_drives_nothing_out():
    """It is offered to the store once: what is offered again counts as asked for twice."""

    async def act():
        body = b""

        async def app(scope, receive, send):
            await send(start(MAX_AGE, (b"content-length", b"%d" % len(body))))
            await send(end(body))

        layer = cached(app, bytes_max=40_000, entry_bytes_max=20_000)
        for number in range(30):
            await ask(layer, f"/{number}")
        body = bytes(10_000)
        before = layer.cache.store.keys()
        answer = await ask(layer, "/large")
        assert answer.body == body
        assert layer.cache.store.keys() == before
        counts = next(iter(layer.cache.figures.by_route.values()))
        assert counts.refused == {"no-room": 1}
        assert_at_rest(layer.cache)

    run(act)
