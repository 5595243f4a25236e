"""What is invalidated: by the app's own code, by writes, by what their answers name."""

import logging

import anyio
import pytest

from perf_middleware.caching.runtime import PURGED_AT_ONCE
from tests.caching.stage import (
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

SHOP = "/größe/a b"  # as a browser's address bar shows it
SHOP_SENT = "/gr%C3%B6%C3%9Fe/a%20b"


async def filled(*urls, hosts=("example.test",), headers=(MAX_AGE,), **options):
    """A cache that has the answers of these URLs."""
    layer = cached(App(*headers), **options)
    for url in urls:
        for host in hosts:
            await ask(layer, url, host=host)
    assert layer.cache.store.responses == len(urls) * len(hosts)
    return layer


def left(layer):
    return sorted(entry.target.decode() for entry in layer.cache.store.all())


# --- by URL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "purged", "count"),
    [
        pytest.param("/items/5", "/items/5", 1, id="a path"),
        pytest.param("/items/5", "/items/6", 0, id="another path"),
        pytest.param("/items/5", "/items", 0, id="a shorter path"),
        pytest.param("/items/5?a=1", "/items/5?a=1", 1, id="with its query"),
        pytest.param("/items/5?a=1", "/items/5", 0, id="a query that is left out"),
        pytest.param("/items/5", "http://example.test/items/5", 1, id="with its host"),
        pytest.param("/items/5", "HTTP://EXAMPLE.test:80/items/5", 1, id="its host, spelled out"),
        pytest.param("/items/5", "http://other.test/items/5", 0, id="with another host"),
        pytest.param("/items/5", "https://example.test/items/5", 0, id="with another scheme"),
        pytest.param(SHOP_SENT, SHOP, 1, id="unicode"),
        pytest.param(SHOP_SENT, SHOP_SENT, 1, id="unicode as it is sent"),
        pytest.param(SHOP_SENT.lower(), SHOP_SENT, 1, id="percent digits in either case"),
        pytest.param("/%69tems/5", "/items/5", 1, id="what needs no percent"),
        pytest.param("/items/5", "/%69tems/%35", 1, id="the same purged"),
        pytest.param("/items/5", "/items/5#part", 1, id="with a fragment"),
        pytest.param("/go?to=http://x.test/", "/go?to=http://x.test/", 1, id="a URL in the query"),
        pytest.param("//items", "//items", 1, id="two slashes"),
        pytest.param("/", "/", 1, id="the root"),
        pytest.param("/", "http://example.test", 1, id="the root, host alone"),
    ],
)
def test_a_purge_by_url_finds_each_spelling_of_it(sent, purged, count):
    async def act():
        layer = await filled(sent)
        assert await layer.cache.purge(url=purged) == count
        assert layer.cache.store.responses == 1 - count

    run(act)


def test_a_path_is_purged_of_every_host_and_a_url_of_its_own():
    async def act():
        layer = await filled("/a", hosts=("one.test", "two.test"))
        assert await layer.cache.purge(url="http://one.test/a") == 1
        assert left(layer) == ["http://two.test/a"]
        layer = await filled("/a", "/b", hosts=("one.test", "two.test"))
        assert await layer.cache.purge(url="/a") == 2
        assert left(layer) == ["http://one.test/b", "http://two.test/b"]

    run(act)


def test_all_variants_of_a_url_are_purged_and_all_keys_of_its_rule():
    async def act():
        layer = cached(App(MAX_AGE, (b"vary", b"accept")), rules=[{"path": "/k", "query": ["a"]}])
        for kind in (b"text/html", b"application/json"):
            for url in ("/a", "/k?a=1&b=2", "/k?a=1&b=3"):
                await ask(layer, url, (b"accept", kind))
        assert layer.cache.store.responses == 4
        assert await layer.cache.purge(url="/a") == 2
        # One stored answer for several URLs is of the one that was asked for first.
        assert await layer.cache.purge(url="/k?a=1&b=2") == 2
        assert len(layer.cache.store) == 0

    run(act)


@pytest.mark.parametrize(
    ("sent", "human"),
    [
        pytest.param("/search?q=a%20b", "/search?q=a b", id="a space"),
        pytest.param("/search?q=%C3%BC", "/search?q=ü", id="unicode"),
        pytest.param("/search?q=%22a%22", '/search?q="a"', id="quotes"),
        pytest.param("/search?q=[a]|{b}", "/search?q=[a]|{b}", id="what clients leave as it is"),
        pytest.param("/search?q=1%2B1%26c", "/search?q=1%2B1%26c", id="escapes that have to be"),
        pytest.param("/gr%C3%B6%C3%9Fe?q=%C3%BC&p=2", "/größe?q=ü&p=2", id="path and query"),
        pytest.param("//items?a=1", "//items?a=1", id="two slashes"),
        pytest.param("/go?to=http://x.test/?", "/go?to=http://x.test/?", id="a URL in the query"),
    ],
)
@pytest.mark.parametrize(
    "origin", ["", "http://example.test", "HTTP://Example.test:80"],
    ids=["any host", "its host", "its host, spelled out"],
)  # fmt: skip
def test_a_url_means_the_same_to_a_purge_to_an_explanation_and_to_a_client(sent, human, origin):
    async def act():
        for spelled in (sent, human):
            layer = await filled(sent)
            told = await layer.cache.explain(origin + spelled)
            assert len(told["stored"]) == 1
            assert told["verdict"].startswith("fresh")
            assert await layer.cache.purge(url=origin + spelled) == 1

    run(act)


@pytest.mark.parametrize(
    "sent", ["/search?q=a+b%2c%21", "/search?q=a%20b,!", "/search?q=%61%20b%2C!"]
)
def test_a_purge_finds_the_query_in_whichever_spelling_a_client_sent_it(sent):
    async def act():
        layer = await filled(sent, "/search?q=a%2Bb,!", "/search?q=a")
        assert await layer.cache.purge(url="/search?q=a b,!") == 1
        assert layer.cache.store.responses == 2

    run(act)


# --- by pattern, by tag, everything ---------------------------------------------------------------

PATHS = ["/items/5", "/items/5/parts", "/items", "/items/5?page=2", "/static/a/b.css", "/größe/5"]


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("/items/{id}", ["/items", "/items/5/parts", "/static/a/b.css", "/größe/5"]),
        ("/items/*", ["/items", "/static/a/b.css", "/größe/5"]),
        ("/items*", ["/static/a/b.css", "/größe/5"]),
        ("/{name}/5", ["/items", "/items/5/parts", "/static/a/b.css"]),
        ("/static/{path:path}", ["/items", *PATHS[:2], "/items/5?page=2", "/größe/5"]),
        ("*", []),
        (
            "/items",
            ["/items/5", "/items/5/parts", "/items/5?page=2", "/static/a/b.css", "/größe/5"],
        ),
        ("/größe/{id}", PATHS[:-1]),
        ("/items.5", PATHS),
    ],
)
def test_a_purge_by_pattern_takes_the_paths_that_match_with_any_query(pattern, kept):
    async def act():
        layer = await filled(*PATHS)
        assert await layer.cache.purge(pattern=pattern) == len(PATHS) - len(kept)
        assert left(layer) == sorted("http://example.test" + path for path in kept)

    run(act)


def test_a_purge_by_tags_takes_what_has_any_of_them():
    async def act():
        rules = [
            {"path": "/a", "tags": ("one", "both")},
            {"path": "/b", "tags": ("two", "both")},
            {"path": "/c", "tags": ("three",)},
        ]
        layer = await filled("/a", "/b", "/c", rules=rules)
        assert await layer.cache.purge(tags=["unknown"]) == 0
        assert await layer.cache.purge(tags=["one", "three"]) == 2
        assert left(layer) == ["http://example.test/b"]
        assert await layer.cache.purge(tags="both") == 1

    run(act)


def test_everything_is_everything():
    async def act():
        layer = await filled(*PATHS, hosts=("one.test", "two.test"))
        assert await layer.cache.purge(everything=True) == 12
        assert len(layer.cache.store) == 0
        assert layer.cache.store.size_bytes == 0
        assert layer.cache.status()["invalidated"] == 12
        assert await layer.cache.purge(everything=True) == 0

    run(act)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"soft": True}, id="soft alone"),
        pytest.param({"url": "/a", "everything": True}, id="two"),
        pytest.param({"url": "/a", "pattern": "/a"}, id="two others"),
        pytest.param({"url": ""}, id="an empty url"),
        pytest.param({"url": "items/5"}, id="no path"),
        pytest.param({"url": "ftp://example.test/a"}, id="another scheme"),
        pytest.param({"url": "http:///a"}, id="no host"),
        pytest.param({"pattern": "items/*"}, id="a pattern that matches no path"),
        pytest.param({"pattern": "/items/{id"}, id="half a brace"),
        pytest.param({"pattern": "/items/{i d}"}, id="no name"),
        pytest.param({"pattern": ""}, id="an empty pattern"),
    ],
)
def test_a_purge_of_nothing_certain_is_refused_and_changes_nothing(use):
    async def act():
        layer = await filled("/a")
        with pytest.raises(ValueError, match=r"."):
            await layer.cache.purge(**use)
        assert layer.cache.store.responses == 1

    run(act)


# --- soft -----------------------------------------------------------------------------------------


def test_a_soft_purge_leaves_an_answer_for_those_who_may_have_it_stale():
    async def act():
        clock = Clock()
        app = App((b"cache-control", b"max-age=60, stale-while-revalidate=60"), body=b"old")
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(10)
        app.parts = [b"new"]
        assert await layer.cache.purge(url="/", soft=True) == 1
        assert (await ask(layer)).body == b"old"  # and asks behind it
        assert (await ask(layer)).body == b"new"
        assert app.calls == 2

    run(act)


def test_after_a_soft_purge_the_app_is_asked_by_the_validator():
    """Until its own time is over it is served at once, and the app asked behind it."""

    async def act():
        clock = Clock()
        app = App(MAX_AGE, (b"etag", b'"1"'))
        layer = cached(app, clock)
        await ask(layer)
        app.status, app.parts = 304, [b""]
        for past_s, told in ((30, "hit; ttl=0"), (61, "fwd=stale; fwd-status=304")):
            clock.pass_s(past_s)
            await layer.cache.purge(everything=True, soft=True)
            answer = await ask(layer)
            assert (answer.body, verdict(answer)) == (b"hello", told)
            assert app.seen(b"if-none-match") == [b'"1"']
            assert verdict(await ask(layer)) == "hit; ttl=60"
        assert app.calls == 3

    run(act)


def test_a_soft_purge_is_a_purge_for_what_must_not_be_stale():
    async def act():
        control = b"max-age=60, must-revalidate, stale-while-revalidate=60, stale-if-error=60"
        app = App((b"cache-control", control))
        layer = cached(app)
        await ask(layer)
        await layer.cache.purge(everything=True, soft=True)
        app.status, app.headers, app.parts = 503, [], [b"sorry"]
        assert (await ask(layer)).status == 503

    run(act)


# --- writes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "gone"),
    [
        ("POST", 201, True),
        ("PUT", 204, True),
        ("DELETE", 200, True),
        ("PATCH", 303, True),
        ("PURGE", 200, True),
        ("X-OWN", 200, True),
        ("POST", 404, False),
        ("POST", 500, False),
        ("OPTIONS", 200, False),
        ("TRACE", 200, False),
        ("HEAD", 200, False),
    ],
)
def test_a_write_that_succeeds_invalidates_its_own_url(method, status, gone):
    async def act():
        app = App()
        layer = cached(app)
        await ask(layer, "/items/5")
        await ask(layer, "/items/5?page=2")
        app.status = status
        await ask(layer, "/items/5", method=method, body=b"{}")
        assert left(layer) == ["http://example.test/items/5"] * (not gone) + [
            "http://example.test/items/5?page=2"
        ]

    run(act)


def test_what_a_write_invalidates_is_gone_before_its_client_hears_of_success():
    async def act():
        app = App()
        layer = cached(app)
        await ask(layer)
        seen = []

        async def send(message):
            seen.append(layer.cache.store.responses)

        client = Client(method="PUT", body=b"x")
        await layer(client.scope, client.receive, send)
        assert seen[0] == 0

    run(act)


@pytest.mark.parametrize("field", [b"location", b"content-location"])
@pytest.mark.parametrize(
    ("value", "gone"),
    [
        (b"/list", True),
        (b"http://example.test/list", True),
        (b"//example.test/list", True),
        (b"list", True),
        (b"http://other.test/list", False),
        (b"https://example.test/list", False),
        (b"", False),
        (b"http://[broken", False),
    ],
)
def test_a_write_invalidates_what_its_answer_points_to_on_the_same_origin(field, value, gone):
    async def act():
        app = App()
        layer = cached(app)
        for scheme in ("http", "https"):
            for host in ("example.test", "other.test"):
                await ask(layer, "/list", host=host, scheme=scheme)
        app.headers = [(field, value)]
        await ask(layer, "/items", method="POST")
        assert ("http://example.test/list" not in left(layer)) == gone
        assert len(left(layer)) == 4 - gone

    run(act)


def test_groups_that_an_answer_is_in_are_tags_to_purge_by():
    """Cache-Groups and Cache-Group-Invalidation, RFC 9875."""

    async def act():
        app = App(MAX_AGE, (b"cache-groups", b'"shop", "item \\"5\\""'))
        layer = cached(app)
        await ask(layer, "/a")
        app.headers[1] = (b"cache-groups", b'"Shop"')
        await ask(layer, "/b")
        app.headers[1] = (b"cache-groups", b"not a list of strings")
        await ask(layer, "/c")
        assert await layer.cache.purge(tags=['item "5"']) == 1
        assert left(layer) == ["http://example.test/b", "http://example.test/c"]

    run(act)


@pytest.mark.parametrize(
    ("method", "status", "value", "gone"),
    [
        ("POST", 200, b'"shop"', True),
        ("POST", 200, b'"other", "shop";param=1', True),
        ("POST", 200, b'"SHOP"', False),
        ("POST", 200, b"shop", False),
        ("POST", 500, b'"shop"', False),
        ("GET", 200, b'"shop"', False),
    ],
)
def test_a_write_may_name_the_groups_that_it_invalidates(method, status, value, gone):
    async def act():
        app = App(MAX_AGE, (b"cache-groups", b'"shop"'))
        layer = cached(app)
        await ask(layer, "/a")
        app.headers, app.status = [(b"cache-group-invalidation", value)], status
        await ask(layer, "/elsewhere", method=method)
        assert (left(layer) == []) == gone

    run(act)


def test_groups_are_of_one_origin_where_a_write_names_them():
    """RFC 9875 §2: names of other origins are others; the app's own purge means all."""

    async def act():
        app = App(MAX_AGE, (b"cache-groups", b'"shop"'))
        layer = cached(app, rules=[{"path": "/tagged", "tags": ["shop"], "shared": True}])
        for path in ("/a", "/tagged"):
            await ask(layer, path, host="example.test")
            await ask(layer, path, host="other.test")
            await ask(layer, path, host="example.test", scheme="https")
            await ask(layer, path, host="example.test:8080")
        writer = App((b"cache-group-invalidation", b'"shop"'))
        layer.app = writer
        await ask(layer, "/elsewhere", method="POST", host="EXAMPLE.test:80")
        assert left(layer) == [
            "http://example.test:8080/a", "http://example.test:8080/tagged",
            "http://other.test/a", "http://other.test/tagged",
            "https://example.test/a", "https://example.test/tagged",
        ]  # fmt: skip
        assert await layer.cache.purge(tags="shop") == 6

    run(act)


@pytest.mark.parametrize(
    ("host", "stored"),
    [
        pytest.param("example.test", False, id="of its origin"),
        pytest.param("other.test", True, id="of another origin"),
    ],
)
def test_an_answer_begun_before_a_write_to_its_group_is_not_stored(host, stored):
    async def act():
        async def app(scope, receive, send):
            if scope["method"] == "POST":
                await say(send, (b"cache-group-invalidation", b'"shop"'))
                return
            await send(start(MAX_AGE, (b"cache-groups", b'"shop"')))
            await ask(layer, "/elsewhere", method="POST", host=host)
            await send(end(b"old"))

        layer = cached(app)
        await ask(layer, "/a")
        assert bool(left(layer)) is stored

    run(act)


CONFIRMED = [MAX_AGE, (b"etag", b'"1"')]


@pytest.mark.parametrize(
    ("before", "renewed", "by", "gone"),
    [
        pytest.param(b'"old"', b'"new"', "new", 1, id="by the group that it is in now"),
        pytest.param(b'"old"', b'"new"', "old", 0, id="not by the one that it was in"),
        pytest.param(b'"old"', b'"new"', "of-rule", 1, id="by the tag of its rule, as ever"),
        pytest.param(b'"old"', None, "old", 1, id="by its group, where the 304 names none"),
        pytest.param(None, b'"new"', "new", 1, id="by its first group"),
        pytest.param(b'"old"', b"broken", "old", 0, id="by none where the field is broken now"),
        pytest.param(b'"of-rule"', b'"new"', "of-rule", 1, id="by a tag that was a group too"),
    ],
)
def test_a_confirmed_response_is_found_by_its_new_groups(before, renewed, by, gone):
    async def act():
        clock = Clock()
        app = App(*CONFIRMED, *([] if before is None else [(b"cache-groups", before)]))
        layer = cached(app, clock, rules=[{"path": "/a", "ttl": 60, "tags": ["of-rule"]}])
        await ask(layer, "/a")
        clock.pass_s(61)
        app.status, app.parts = 304, [b""]
        app.headers = [*CONFIRMED, *([] if renewed is None else [(b"cache-groups", renewed)])]
        assert "fwd-status=304" in verdict(await ask(layer, "/a"))
        size_bytes = layer.cache.store.size_bytes
        assert await layer.cache.purge(tags=by) == gone
        assert (layer.cache.store.size_bytes < size_bytes) == bool(gone)

    run(act)


def test_a_confirmation_into_a_group_that_was_purged_meanwhile_is_not_kept():
    async def act():
        clock = Clock()
        app = App(*CONFIRMED)

        async def purging(scope, receive, send):
            if app.calls == 1:
                await layer.cache.purge(tags="new")
            await app(scope, receive, send)

        layer = cached(purging, clock)
        await ask(layer, "/a")
        clock.pass_s(61)
        app.status, app.parts = 304, [b""]
        app.headers = [*CONFIRMED, (b"cache-groups", b'"new"')]
        await ask(layer, "/a")
        assert verdict(await ask(layer, "/a")) == "fwd=stale; fwd-status=304"

    run(act)


async def crowded(count, **options):
    layer = cached(App(), **options)
    for number in range(count):
        await ask(layer, f"/{number}")
    return layer


def test_a_purge_of_everything_lets_others_work_in_between_and_spares_what_they_store():
    async def act():
        layer = await crowded(4 * PURGED_AT_ONCE)
        cache = layer.cache
        heard, turns = [], []
        cache.on("invalidate", lambda stored: heard.append(stored.target))

        async def store_meanwhile():
            while len(heard) < 4 * PURGED_AT_ONCE:
                turns.append(len(heard))
                answer = await ask(layer, f"/{len(turns)}")
                assert "fwd=uri-miss; stored" in answer.header("cache-status")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store_meanwhile)
            assert await cache.purge(everything=True) == 4 * PURGED_AT_ONCE
        assert len(set(turns)) > 1
        assert len(heard) == len(set(heard)) == cache.figures.invalidated == 4 * PURGED_AT_ONCE
        assert cache.store.responses == len(left(layer)) == len(turns)
        assert cache.store.size_bytes == sum(each.size_bytes for each in cache.store.all())
        for number in range(len(turns)):
            assert "hit" in verdict(await ask(layer, f"/{number + 1}"))

    run(act)


def test_a_purge_of_everything_is_finished_by_whom_it_was_begun():
    async def act():
        layer = await crowded(3 * PURGED_AT_ONCE)
        heard = []
        layer.cache.on("invalidate", heard.append)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await layer.cache.purge(everything=True)
        assert len(heard) == layer.cache.figures.invalidated == 3 * PURGED_AT_ONCE
        assert layer.cache.store.size_bytes == 0

    run(act)


# --- hooks ----------------------------------------------------------------------------------------


def test_hooks_hear_of_each_store_hit_and_invalidation():
    async def act():
        heard = []
        layer = cached(App())
        for happening in ("store", "hit", "invalidate"):
            layer.cache.on(happening, lambda stored, what=happening: heard.append((what, stored)))
        await ask(layer, "/a")
        await ask(layer, "/a")
        await ask(layer, "/a", (b"if-none-match", b"*"))
        await ask(layer, "/a", method="HEAD")
        await ask(layer, "/a", method="POST")
        await ask(layer, "/a")
        await layer.cache.purge(everything=True, soft=True)
        assert [what for what, _ in heard] == [
            "store", "hit", "hit", "hit", "invalidate", "store", "invalidate"
        ]  # fmt: skip
        assert {stored.target for _, stored in heard} == {b"http://example.test/a"}

    run(act)


def test_a_hook_that_raises_harms_nobody(caplog):
    async def act():
        heard = []

        def raises(stored):
            raise RuntimeError("broken hook")

        layer = cached(App())
        for happening in ("store", "hit", "invalidate"):
            layer.cache.on(happening, raises)
            layer.cache.on(happening, heard.append)
        assert (await ask(layer)).body == b"hello"
        assert verdict(await ask(layer)).startswith("hit")
        assert await layer.cache.purge(everything=True) == 1
        assert len(heard) == 3

    with caplog.at_level(logging.CRITICAL + 1, "perf_middleware.caching"):
        run(act)


def test_hooks_are_for_what_happens_here_alone():
    with pytest.raises(ValueError, match="there are store, hit, invalidate"):
        cached(App()).cache.on("miss", print)


def test_a_purge_of_no_tags_is_one_of_nothing():
    async def act():
        layer = await filled("/a")
        assert await layer.cache.purge(tags=[]) == 0
        assert layer.cache.store.responses == 1

    run(act)


@pytest.mark.parametrize(
    "use",
    [
        {"tags": 5},
        {"tags": [5]},
        {"tags": b"a"},
        {"tags": {"a": 1}},
        {"url": b"/a"},
        {"pattern": 5},
    ],
    ids=repr,
)
def test_a_purge_of_what_is_no_text_is_refused(use):
    async def act():
        layer = await filled("/a")
        with pytest.raises(TypeError, match="text"):
            await layer.cache.purge(**use)

    run(act)


def test_a_pattern_with_a_query_is_refused():
    async def act():
        layer = await filled("/a")
        with pytest.raises(ValueError, match="paths alone"):
            await layer.cache.purge(pattern="/a?page=*")

    run(act)


@pytest.mark.parametrize("url", ["/items/5", "/api/items/5", "http://example.test/api/items/5"])
def test_an_app_below_a_root_path_is_purged_by_its_own_paths_and_by_those_of_clients(url):
    async def act():
        rules = [{"path": "/items/{id}", "ttl": 60, "tags": "item:{id}"}]
        app = App((b"content-type", b"text/plain"))
        layer = cached(app, rules=rules)

        async def served():
            return verdict(await ask(layer, "/api/items/5", root_path="/api"))

        assert [await served(), await served()] == [
            'fwd=uri-miss; stored; detail="/items/{id}"', 'hit; ttl=60; detail="/items/{id}"',
        ]  # fmt: skip
        told = await layer.cache.explain(url)
        assert len(told["stored"]) == 1
        assert await layer.cache.purge(url=url) == 1
        await served()
        assert await layer.cache.purge(pattern="/items/*") == 1
        await served()
        assert await layer.cache.purge(tags="item:5") == 1

    run(act)


def test_a_write_below_a_root_path_invalidates_what_it_and_its_location_name():
    async def act():
        app = App()
        layer = cached(app)
        for path in ("/api/items/5", "/api/items"):
            await ask(layer, path, root_path="/api")
        app.headers = [(b"location", b"/api/items/5")]
        await ask(layer, "/api/items", method="POST", root_path="/api")
        assert layer.cache.store.responses == 0

    run(act)
