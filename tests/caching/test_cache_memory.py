"""What the cache takes of memory, whatever it is fed with, and what it gives back."""

import gc
import tracemalloc
from random import Random

import pytest

from tests.caching.stage import (
    MAX_AGE,
    App,
    Client,
    Clock,
    ask,
    assert_at_rest,
    cached,
    end,
    run,
    start,
    verdict,
)

MIB = 1 << 20


class Traced:
    """Traced memory above what there was at the beginning."""

    def __enter__(self):
        gc.collect()
        tracemalloc.start()
        self._begin = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_):
        tracemalloc.stop()

    def now(self):
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._begin


class Feeding:
    """Answers with what it is told, and keeps nothing itself."""

    def __init__(self):
        self.headers = []
        self.size = 0
        self.number = 0

    async def __call__(self, scope, receive, send):
        self.number += 1
        body = bytes(self.size)
        await send(start(*self.headers))
        await send(end(body))


class Sink(Client):
    async def send(self, message):
        pass


def small(random):
    return "", [MAX_AGE], random.randrange(200), []


def of_any_size(random):
    return "", [MAX_AGE], int(2 ** random.uniform(0, 17)), []


def large(random):
    return "", [MAX_AGE], random.randrange(60_000, 140_000), []


def many_fields(random):
    fields = [(b"x-%d" % n, b"%d" % random.getrandbits(64)) for n in range(random.randrange(60))]
    return "", [MAX_AGE, *fields], 300, []


def long_urls(random):
    return "x" * random.randrange(6_000), [MAX_AGE], 100, []


def variants(random):
    """Of few URLs, told apart by long values."""
    value = b"%d" % random.getrandbits(60) * random.randrange(1, 40)
    return None, [MAX_AGE, (b"vary", b"x-value")], 200, [(b"x-value", value)]


def groups(random):
    """A list page that is tagged with each of its items."""
    names = b", ".join(b'"item-%d"' % random.getrandbits(40) for _ in range(random.randrange(60)))
    return "", [MAX_AGE, (b"cache-groups", names)], 500, []


def many_tags(random):
    return "", [MAX_AGE], 500, []


FEEDS = [small, of_any_size, large, many_fields, long_urls, variants, groups, many_tags]


def fed(feed, *, bytes_max, count, entries_max=50_000):
    random = Random(7)
    app = Feeding()
    rules = []
    if feed is many_tags:
        rules = [{"path": "/*", "tags": [f"{n}-{{id}}" for n in range(20)]}]
    layer = cached(
        app,
        bytes_max=bytes_max,
        entries_max=entries_max,
        entry_bytes_max=min(bytes_max // 4, MIB),
        rules=rules,
        status_header=True,
    )
    most = 0

    async def act():
        nonlocal most
        for number in range(count):
            rest, app.headers, app.size, fields = feed(random)
            url = f"/{number % 5}" if rest is None else f"/{number}{rest}"
            client = Sink(url, *fields, path_params={"id": str(number)})
            await layer(client.scope, client.receive, client.send)
            most = max(most, layer.cache.store.size_bytes)

    return layer, act, lambda: most


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.__name__)
def test_any_mix_stays_within_the_configured_bytes(feed):
    """What is counted never exceeds them, what Python traces hardly; a purge gives it back."""
    bytes_max = (4 if feed is many_tags else 2) * MIB  # what a tag takes once counts in 2
    run(fed(feed, bytes_max=MIB, count=2)[1])  # what is imported at first use
    fill = {"large": 150, "of_any_size": 450, "long_urls": 350, "many_tags": 2_500}.get(
        feed.__name__, 1_300
    )
    with Traced() as traced:
        layer, act, most = fed(feed, bytes_max=bytes_max, count=fill)
        empty = traced.now()
        run(act)
        full = traced.now() - empty
        assert most() <= bytes_max
        assert layer.cache.store.size_bytes > bytes_max * 0.8  # else it proves little
        assert full <= bytes_max * 1.1
        run(lambda: layer.cache.purge(everything=True))
        assert layer.cache.store.size_bytes == 0
        assert traced.now() - empty < bytes_max * 0.1
        assert_at_rest(layer.cache)


def test_no_more_entries_than_configured():
    layer, act, _ = fed(small, bytes_max=4 * MIB, count=500, entries_max=50)
    run(act)
    assert len(layer.cache.store) <= 50
    assert layer.cache.store.evictions >= 400


@pytest.mark.parametrize("entries_max", [1, 3])
def test_a_bound_of_entries_is_one_of_stored_responses_whether_they_vary_or_not(entries_max):
    """With room for one, an answer with Vary was never hit: its record took the place."""

    async def act():
        varied = App((b"cache-control", b"max-age=60"), (b"vary", b"accept-language"))
        layer = cached(varied, entries_max=entries_max)
        for number in range(5):
            for url in ("/a", f"/{number}"):
                for expected in ("fwd=", "hit"):
                    answer = await ask(layer, url, (b"accept-language", b"%d" % number))
                    assert verdict(answer).startswith(expected)
                    assert layer.cache.status()["entries"] <= entries_max
        assert layer.cache.status()["entries"] == entries_max

    run(act)


def test_what_cannot_be_stored_leaves_nothing_of_its_url():
    """Long URLs, each another one: what is remembered of URLs and paths is bounded in bytes too."""

    async def act():
        app = App((b"cache-control", b"no-store"))
        layer = cached(app, rules=[{"path": "/only", "ttl": 1}])
        with Traced() as traced:
            for number in range(1_500):
                client = Sink(f"/{number}" + "x" * 8_000)
                await layer(client.scope, client.receive, client.send)
                app.scopes.clear()
            assert traced.now() < MIB

    run(act)


def test_what_has_expired_goes_without_being_asked_for():
    async def act():
        clock = Clock()
        layer = cached(App((b"cache-control", b"max-age=5")), clock)
        for number in range(200):
            await ask(layer, f"/old/{number}")
        clock.pass_s(100)
        for number in range(20):
            await ask(layer, f"/new/{number}")
        assert layer.cache.store.responses == 20

    run(act)


def test_answers_of_clients_who_left_do_not_pile_up():
    async def act():
        app = App(parts=[bytes(10_000)] * 10)
        layer = cached(app, bytes_max=10 * MIB)

        def leaves(message):
            raise OSError("the client is gone")

        with Traced() as traced:
            for number in range(2_000):
                client = Client(f"/{number}", on_send=leaves)
                await client.ask(layer)
                app.scopes.clear()
            assert_at_rest(layer.cache)
            assert traced.now() < 11 * MIB

    run(act)


@pytest.mark.parametrize(
    "header",
    [
        b"vary", b"cache-control", b"cache-groups", b"set-cookie", b"content-length", b"etag",
        b"expires", b"connection", b"cdn-cache-control",
    ],
)  # fmt: skip
def test_a_field_of_64_kib_is_no_burden(header):
    """Whatever it says, the answer is passed on whole and the next request is answered too."""

    async def act():
        for value in (b"a," * 32_000, b'"' + b"x" * 64_000, b"a=" * 32_000, b"9" * 64_000):
            layer = cached(App(MAX_AGE, (header, value)))
            for _ in range(2):
                answer = await ask(layer)
                assert (answer.status, answer.body) == (200, b"hello")

    run(act)
