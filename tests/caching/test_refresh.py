"""Asking the app about what is stored: behind a stale answer, before one, and when it fails."""

import logging
import os

import anyio
import pytest
from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles

from tests.caching.stage import (
    BACKENDS,
    MAX_AGE,
    App,
    Client,
    Clock,
    ask,
    assert_at_rest,
    cached,
    end,
    run,
    say,
    settle,
    start,
    verdict,
)

ETAG = (b"etag", b'"1"')
REVALIDATE = (b"cache-control", b"max-age=10, stale-while-revalidate=100")
IF_ERROR = (b"cache-control", b"max-age=10, stale-if-error=100")


# --- stale-while-revalidate -----------------------------------------------------------------------


@BACKENDS
def test_a_stale_answer_comes_at_once_and_the_app_is_asked_once_behind_it(backend):
    async def act():
        clock = Clock()
        app = App(REVALIDATE, body=b"old")
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(20)
        app.gate, app.parts = anyio.Event(), [b"new"]
        clients = [Client() for _ in range(50)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.ask, layer)
            await settle()
            assert {client.body for client in clients} == {b"old"}
            assert {client.verdict for client in clients} == {"hit; ttl=-10"}
            assert app.calls == 2
            assert len(layer.cache.refreshing) == 1
            app.gate.set()
        after = await ask(layer)
        assert (after.body, verdict(after)) == (b"new", "hit; ttl=10")
        assert app.calls == 2
        assert_at_rest(layer.cache)

    run(act, backend)


@BACKENDS
def test_the_second_call_of_the_app_has_a_request_of_its_own(backend):
    """An empty body once, then nobody who leaves; the client's own conditions are not in it."""

    async def act():
        clock = Clock()
        received = []

        async def app(scope, receive, send):
            received.append([await receive()])
            with anyio.move_on_after(0.01):
                received[-1].append(await receive())
            scopes.append(scope)
            await say(send, REVALIDATE, ETAG)

        scopes = []
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(20)
        client = Client("/", (b"if-none-match", b'"1"'), (b"accept", b"a"), method="HEAD")
        client.leave()  # as soon as its request is read
        await client.ask(layer)
        assert received[1] == [{"type": "http.request", "body": b"", "more_body": False}]
        assert scopes[1]["method"] == "GET"
        assert scopes[1]["headers"] == [
            (b"host", b"example.test"),
            (b"accept", b"a"),
            (b"if-none-match", b'"1"'),
        ]
        assert client.scope["method"] == "HEAD"  # the client's stays what it was
        assert (b"if-none-match", b'"1"') in client.scope["headers"]

    run(act, backend)


def test_no_more_refreshes_at_once_than_allowed():
    async def act():
        clock = Clock()
        app = App(REVALIDATE)
        layer = cached(app, clock, refresh_max=3)
        for number in range(10):
            await ask(layer, f"/{number}")
        clock.pass_s(20)
        app.gate = anyio.Event()
        clients = [Client(f"/{number}") for number in range(10)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.ask, layer)
            await settle()
            assert app.calls == 13
            assert {client.verdict for client in clients} == {"hit; ttl=-10"}
            app.gate.set()
        assert_at_rest(layer.cache)

    run(act)


@BACKENDS
@pytest.mark.parametrize("what", ["hangs", "raises", "answers 503", "answers nothing"])
def test_a_refresh_that_fails_leaves_what_is_stored_and_does_not_last(backend, what, caplog):
    async def act():
        clock = Clock()
        app = App(REVALIDATE)

        async def fails(scope, receive, send):
            if not app.calls:
                await app(scope, receive, send)
                return
            app.scopes.append(scope)
            if what == "hangs":
                await anyio.sleep_forever()
            elif what == "raises":
                raise RuntimeError("broken")
            elif what == "answers 503":
                await say(send, status=503)

        layer = cached(fails, clock, refresh_timeout_s=0.02)
        await ask(layer)
        clock.pass_s(20)
        for calls in (2, 3):
            client = await Client().ask(layer)
            assert (client.body, client.raised) == (b"hello", None)
            assert app.calls == calls
            assert_at_rest(layer.cache)
            await ask(layer)
            assert app.calls == calls  # not again for each hit, but after a pause
            clock.pass_s(1)
        if what in {"hangs", "raises"}:
            assert layer.cache.figures.background_failed == 2

    with caplog.at_level(logging.CRITICAL, "perf_middleware.caching"):
        run(act, backend)


def test_a_refresh_that_is_answered_503_is_counted_as_failed():
    async def act():
        clock = Clock()
        app = App(REVALIDATE)
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(20)
        app.status, app.headers = 503, [(b"retry-after", b"1")]
        await ask(layer)
        assert layer.cache.figures.background_failed == 1

    run(act)


def test_a_client_that_left_with_its_stale_answer_does_not_stop_others():
    async def act():
        clock = Clock()
        app = App(REVALIDATE)
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(20)
        client = Client(send_tells=True)
        client.leave()
        await client.ask(layer)
        assert isinstance(client.raised, OSError)
        assert (await ask(layer)).body == b"hello"
        assert app.calls == 2

    run(act)


@BACKENDS
def test_when_the_time_for_stale_answers_is_over_the_client_waits(backend):
    async def act():
        clock = Clock()
        app = App(REVALIDATE, ETAG)
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(111)
        app.parts = [b"new"]
        answer = await ask(layer)
        assert (answer.body, verdict(answer)) == (b"new", "fwd=stale; stored")

    run(act, backend)


# --- early ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "calls"), [(0.9999, 2), (0.0, 1)], ids=["an unlikely draw", "a likely one"]
)
def test_a_hit_near_the_end_may_be_the_one_that_refreshes(draw, calls):
    """The answer took 2 s to make; 5 s before its end one draw in thirteen is due."""

    async def act():
        clock = Clock()
        seen = []

        async def app(scope, receive, send):
            seen.append(scope)
            clock.pass_s(2)
            await say(send, body=b"%d" % len(seen))

        rules = [{"path": "/", "ttl": 60}]
        layer = cached(app, clock, rules=rules, draw=lambda: draw)
        await ask(layer)
        clock.pass_s(53)
        assert (await ask(layer)).body == b"1"
        assert len(seen) == calls
        assert (await ask(layer)).body == b"%d" % calls

    run(act)


def test_early_refresh_can_be_switched_off():

    async def act():
        clock = Clock()
        app = App()

        async def slow(scope, receive, send):
            clock.pass_s(2)
            await app(scope, receive, send)

        layer = cached(slow, clock, early_refresh=0.0, draw=lambda: 1 - 1e-12)
        await ask(layer)
        clock.pass_s(57)
        await ask(layer)
        assert app.calls == 1

    run(act)


# --- failures -------------------------------------------------------------------------------------


async def raises(send):
    raise RuntimeError("broken")


async def answers_503(send):
    await say(send, status=503, body=b"sorry")


async def raises_after_503(send):
    await answers_503(send)
    raise RuntimeError("broken too")


@BACKENDS
@pytest.mark.parametrize("failure", [raises, answers_503], ids=["raises", "answers 503"])
@pytest.mark.parametrize("burst", [1, 20])
def test_a_stale_response_stands_in_for_a_failing_app(backend, failure, burst, caplog):
    async def act():
        clock = Clock()
        app = App(IF_ERROR)

        async def failing(scope, receive, send):
            if not app.calls:
                await app(scope, receive, send)
                return
            app.scopes.append(scope)
            await settle(5)
            await failure(send)

        layer = cached(failing, clock)
        await ask(layer)
        clock.pass_s(20)
        clients = [Client() for _ in range(burst)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.ask, layer)
        assert {client.body for client in clients} == {b"hello"}
        assert {client.answer.header("age") for client in clients} == {"20"}
        assert app.calls == 2
        clock.pass_s(100)
        late = await Client().ask(layer)
        if failure is raises:
            assert isinstance(late.raised, RuntimeError)
        else:
            assert (late.answer.status, late.body) == (503, b"sorry")
        assert_at_rest(layer.cache)

    with caplog.at_level(logging.CRITICAL, "perf_middleware.caching"):
        run(act, backend)


@pytest.mark.parametrize("status", [400, 404, 499, 501, 505])
def test_other_answers_than_failures_are_the_truth(status):
    async def act():
        clock = Clock()
        app = App(IF_ERROR)
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(20)
        app.headers, app.status = [], status
        assert (await ask(layer)).status == status

    run(act)


@pytest.mark.parametrize(
    "more", [b"must-revalidate", b"proxy-revalidate", b"no-cache", b"s-maxage=10"]
)
def test_what_must_be_confirmed_never_stands_in(more, caplog):
    async def act():
        clock = Clock()
        app = App((b"cache-control", b"max-age=10, stale-if-error=100, " + more), ETAG)
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(20)
        app.headers, app.status = [], 503
        assert (await ask(layer)).status == 503

    run(act)


# --- 304 ------------------------------------------------------------------------------------------


def test_the_304_of_static_files_refreshes_what_is_stored(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    os.utime(tmp_path / "a.txt", (1_700_000_000, 1_700_000_000))

    async def act():
        clock = Clock()
        files = StaticFiles(directory=tmp_path)
        rules = [{"path": "/*", "ttl": 60}]
        seen = []

        async def app(scope, receive, send):
            async def noted(message):
                if message["type"] == "http.response.start":
                    seen.append(message["status"])
                await send(message)

            await files(scope, receive, noted)

        layer = cached(app, clock, rules=rules)
        await ask(layer, "/a.txt")
        for _ in range(3):
            clock.pass_s(61)
            answer = await ask(layer, "/a.txt")
            assert (answer.status, answer.body) == (200, b"first")
            assert verdict(answer) == 'fwd=stale; fwd-status=304; detail="/*"'
            assert answer.header("age") is None  # validated for this very request
            assert verdict(await ask(layer, "/a.txt")).startswith("hit; ttl=60")
        clock.pass_s(61)
        (tmp_path / "a.txt").write_text("second!")
        assert (await ask(layer, "/a.txt")).body == b"second!"
        assert seen == [200, 304, 304, 304, 200]

    run(act)


@BACKENDS
def test_a_304_about_something_else_makes_the_cache_ask_for_the_whole(backend):
    async def act():
        clock = Clock()
        statuses = iter([200, 304, 200])
        received = []

        async def app(scope, receive, send):
            received.append((await receive())["type"])
            conditions.append([pair for pair in scope["headers"] if pair[0].startswith(b"if-")])
            status = next(statuses)
            tag = (b"etag", b'"other"') if status == 304 else ETAG
            await say(send, MAX_AGE, tag, status=status, body=b"" if status == 304 else b"hello")

        conditions = []
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(100)
        client = await Client().ask(layer)
        assert (client.answer.status, client.body) == (200, b"hello")
        assert conditions == [[], [(b"if-none-match", b'"1"')], []]
        assert received == ["http.request"] * 3
        assert verdict(await ask(layer)).startswith("hit")

    run(act, backend)


def test_a_304_brings_new_fields_and_keeps_those_of_the_body():
    async def act():
        clock = Clock()
        app = App(MAX_AGE, ETAG, (b"content-type", b"text/plain"), (b"x-app", b"1"))
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(100)
        app.status, app.parts = 304, [b""]
        app.headers = [
            (b"cache-control", b"max-age=5"),
            ETAG,
            (b"content-type", b"image/png"),
            (b"content-length", b"0"),
            (b"x-app", b"2"),
            (b"x-new", b"3"),
        ]
        await ask(layer)
        hit = await ask(layer)
        assert verdict(hit) == "hit; ttl=5"
        fields = {name: hit.header(name) for name in ("content-type", "content-length", "x-app")}
        assert fields == {"content-type": "text/plain", "content-length": "5", "x-app": "2"}
        assert hit.header("x-new") == "3"

    run(act)


def test_interim_answers_before_a_304_are_not_sent_as_the_apps_own_answer_is():
    async def act():
        clock = Clock()
        app = App(MAX_AGE, ETAG)

        async def hints(scope, receive, send):
            await send({"type": "http.response.early_hint", "links": [b"</a>"]})
            await app(scope, receive, send)

        layer = cached(hints, clock)
        await ask(layer)
        clock.pass_s(100)
        app.status, app.parts = 304, [b""]
        client = await Client().ask(layer)
        assert [each["type"] for each in client.messages] == [
            "http.response.start",
            "http.response.body",
        ]
        clock.pass_s(100)
        app.status, app.parts = 200, [b"new"]
        client = await Client().ask(layer)
        assert [each["type"] for each in client.messages] == [
            "http.response.early_hint",
            "http.response.start",
            "http.response.body",
        ]

    run(act)


# --- purges meanwhile -----------------------------------------------------------------------------


PURGES = {
    "by path": {"url": "/items/5"},
    "by url": {"url": "http://example.test/items/5"},
    "by pattern": {"pattern": "/items/*"},
    "by tag": {"tags": ["item-5"]},
    "everything": {"everything": True},
}
WAYS = pytest.mark.parametrize("way", PURGES.values(), ids=PURGES)
RULE = {"path": "/items/*", "ttl": 60, "tags": ("item-5",)}


@WAYS
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("moment", ["before the head", "in the body"])
@pytest.mark.parametrize("by_rule", [True, False], ids=["by a rule", "by its own word"])
def test_an_answer_begun_before_a_purge_is_not_stored(way, soft, moment, by_rule):
    async def act():
        own = [] if by_rule else [MAX_AGE, (b"cache-groups", b'"item-5"')]

        async def app(scope, receive, send):
            if moment == "before the head":
                await layer.cache.purge(**way, soft=soft)
            await send(start(*own))
            if moment == "in the body":
                await layer.cache.purge(**way, soft=soft)
            await send(end(b"old"))

        layer = cached(app, rules=[RULE] * by_rule)
        assert (await ask(layer, "/items/5")).body == b"old"
        assert layer.cache.store.responses == 0
        assert layer.cache.figures.of("unmatched").refused == {"invalidated": 1}
        assert_at_rest(layer.cache)

    run(act)


@WAYS
@pytest.mark.parametrize(
    "soft",
    [
        pytest.param(False, id="hard"),
        pytest.param(
            True,
            id="soft",
        ),
    ],
)
def test_a_confirmation_begun_before_a_purge_does_not_undo_it(way, soft):
    async def act():
        clock = Clock()
        app = App(ETAG, (b"x", b"1"))

        async def purging(scope, receive, send):
            if app.calls == 1:
                await layer.cache.purge(**way, soft=soft)
            await app(scope, receive, send)

        layer = cached(purging, clock, rules=[RULE])
        await ask(layer, "/items/5")
        clock.pass_s(100)
        app.status, app.parts = 304, [b""]
        assert (await ask(layer, "/items/5")).body == b"hello"
        app.status, app.parts = 200, [b"new"]
        assert (await ask(layer, "/items/5")).body == b"new"

    run(act)


@WAYS
def test_a_purge_during_a_refresh_in_the_background_wins(way):
    async def act():
        clock = Clock()
        app = App(ETAG, body=b"old")

        async def purging(scope, receive, send):
            if app.calls == 1:
                await layer.cache.purge(**way)
            await app(scope, receive, send)

        layer = cached(purging, clock, rules=[RULE | {"stale_while_revalidate": 600}])
        await ask(layer, "/items/5")
        clock.pass_s(100)
        await ask(layer, "/items/5")
        app.parts = [b"new"]
        assert (await ask(layer, "/items/5")).body == b"new"

    run(act)


def test_a_write_to_another_url_does_not_keep_an_answer_out():
    async def act():
        async def app(scope, receive, send):
            await layer.cache.purge(url="/items/6")
            await layer.cache.purge(tags=["item-6"])
            await layer.cache.purge(pattern="/users/*")
            await say(send)

        layer = cached(app, rules=[RULE])
        await ask(layer, "/items/5")
        assert layer.cache.store.responses == 1

    run(act)


@BACKENDS
def test_after_a_purge_meanwhile_one_of_those_who_wait_asks_again(backend):
    async def act():
        gates = [anyio.Event(), anyio.Event()]
        calls = []

        async def app(scope, receive, send):
            calls.append(scope)
            number = len(calls)
            await gates[number - 1].wait()
            await say(send, MAX_AGE, body=b"%d" % number)

        layer = cached(app)
        leader, *others = clients = [Client() for _ in range(10)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leader.ask, layer)
            await settle(3)
            for client in others:
                tasks.start_soon(client.ask, layer)
            await settle()
            await layer.cache.purge(everything=True)
            gates[0].set()
            await settle()
            assert len(calls) == 2
            gates[1].set()
        assert [client.body for client in clients] == [b"1"] + [b"2"] * 9
        assert (await ask(layer)).body == b"2"
        assert_at_rest(layer.cache)

    run(act, backend)


def test_a_mounted_file_app_inside_starlette_is_refreshed_too(tmp_path):
    (tmp_path / "a.txt").write_text("first")

    async def act():
        clock = Clock()
        app = Starlette()
        app.mount("/static", StaticFiles(directory=tmp_path))
        rules = [{"path": "/static/*", "ttl": 10, "stale_while_revalidate": 100}]
        layer = cached(app, clock, rules=rules)
        await ask(layer, "/static/a.txt")
        clock.pass_s(20)
        assert verdict(await ask(layer, "/static/a.txt")).startswith("hit; ttl=-10")
        assert verdict(await ask(layer, "/static/a.txt")).startswith("hit; ttl=10")
        assert layer.cache.status()["revalidated"] == 1

    run(act)


# --- what a whole answer to a validation says -----------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(404, [(b"cache-control", b"no-store")], id="gone"),
        pytest.param(200, [(b"cache-control", b"no-store")], id="not to be stored any more"),
        pytest.param(200, [(b"cache-control", b"private, max-age=60")], id="private now"),
        pytest.param(404, [], id="gone, and nothing said of it"),
    ],
)
@pytest.mark.parametrize("first", [REVALIDATE, IF_ERROR], ids=["behind a hit", "before an answer"])
def test_what_the_app_has_answered_anew_is_never_answered_as_of_old(first, status, headers):
    async def act():
        app = App(first, body=b"old")
        layer = cached(app)
        await ask(layer)
        layer.cache.clock.pass_s(20)
        app.status, app.headers, app.parts = status, headers, [b"new"]
        await ask(layer)
        assert (await ask(layer)).body == b"new"
        app.status = 503
        assert (await ask(layer)).status == 503
        assert layer.cache.store.responses == 0

    run(act)


def test_a_failure_leaves_what_is_stored():
    async def act():
        app = App(IF_ERROR, body=b"old")
        layer = cached(app)
        await ask(layer)
        layer.cache.clock.pass_s(200)  # too long for it to stand in
        app.status, app.headers = 503, []
        assert (await ask(layer)).status == 503
        assert layer.cache.store.responses == 1

    run(act)


@pytest.mark.parametrize("status", [428, 429, 431, 511])
@pytest.mark.parametrize("asked", [(), (b"cache-control", b"no-cache")], ids=["stale", "asked"])
def test_what_one_client_is_told_of_himself_leaves_what_is_stored_for_the_others(status, asked):
    """Else whoever has used up his quota could empty the cache by pressing reload."""

    async def act():
        app = App(MAX_AGE, (b"etag", b'"1"'), body=b"old")
        layer = cached(app)
        await ask(layer)
        if not asked:
            layer.cache.clock.pass_s(70)
        app.status, app.headers, app.parts = status, [], [b"no"]
        assert (await ask(layer, "/", *([asked] if asked else []))).status == status
        app.status, app.headers = 304, [MAX_AGE, (b"etag", b'"1"')]
        assert (await ask(layer)).body == b"old"

    run(act)


@pytest.mark.parametrize("directive", [b"only-if-cached", b"no-store"])
def test_who_wants_nothing_asked_or_stored_has_nothing_refreshed(directive):
    async def act():
        app = App(REVALIDATE, body=b"old")
        layer = cached(app)
        await ask(layer)
        layer.cache.clock.pass_s(20)
        answer = await ask(layer, "/", (b"cache-control", directive))
        assert (answer.body, app.calls) == (b"old", 1)

    run(act)


def test_the_second_call_after_a_foreign_304_hears_that_its_client_left():
    async def act():
        heard = anyio.Event()

        async def app(scope, receive, send):
            if any(name == b"if-none-match" for name, _ in scope["headers"]):
                await say(send, (b"etag", b'"other"'), status=304, body=b"")
            elif clock.us > 30 * 1_000_000:
                await send(start())
                while (await receive())["type"] != "http.disconnect":
                    continue
                heard.set()
            else:
                await say(send, MAX_AGE, ETAG)

        clock = Clock()
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(100)
        client = Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, layer)
            await settle()
            client.leave()
            with anyio.fail_after(120):
                await heard.wait()

    run(act)


def test_a_foreign_304_drops_only_what_it_was_asked_about():
    async def act():
        gate = anyio.Event()
        app = App(MAX_AGE, ETAG, body=b"old")
        layer = cached(app)
        await ask(layer)
        layer.cache.clock.pass_s(100)
        app.status, app.headers, app.parts, app.gate = 304, [(b"etag", b'"2"')], [b""], gate
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Client().ask, layer)
            await settle()
            await layer.cache.purge(everything=True)
            app.status, app.headers, app.parts, app.gate = 200, [MAX_AGE], [b"new"], None
            await ask(layer, "/", (b"cache-control", b"no-cache"))
            app.status, app.headers, app.parts = 304, [(b"etag", b'"2"')], [b""]
            gate.set()
            await settle()
            app.status, app.headers, app.parts = 200, [MAX_AGE], [b"third"]
        assert layer.cache.store.responses == 1

    run(act)


def test_a_refresh_whose_second_call_fails_is_one_that_failed(caplog):
    async def act():
        async def app(scope, receive, send):
            if clock.us < 30 * 1_000_000:
                await say(send, REVALIDATE, ETAG)
            elif any(name == b"if-none-match" for name, _ in scope["headers"]):
                await say(send, (b"etag", b'"other"'), status=304, body=b"")
            else:
                await say(send, status=500)

        clock = Clock()
        layer = cached(app, clock)
        await ask(layer)
        clock.pass_s(26)
        await ask(layer)
        assert layer.cache.figures.background_failed == 1

    run(act)


def test_what_the_app_does_behind_a_refreshed_answer_is_not_cut_short():
    async def act():
        done = anyio.Event()

        async def app(scope, receive, send):
            await say(send, REVALIDATE)
            if app_calls:
                await anyio.sleep(0.1)  # a background task
                done.set()
            app_calls.append(1)

        app_calls = []
        layer = cached(app, refresh_timeout_s=0.02)
        await ask(layer)
        layer.cache.clock.pass_s(20)
        await ask(layer)
        assert done.is_set()
        assert layer.cache.figures.background_failed == 0

    run(act)


def test_how_dear_an_answer_is_does_not_depend_on_how_slowly_its_client_reads():
    async def act():
        clock = Clock()
        layer = cached(App(parts=[b"a", b"b"]), clock)
        await Client(on_send=lambda message: clock.pass_s(30)).ask(layer)
        (stored,) = layer.cache.store.all()
        assert stored.produced_us == 0

    run(act)


def test_a_head_of_the_same_length_is_no_sign_that_a_body_is_still_the_same():
    async def act():
        app = App(body=b"100")
        layer = cached(app)
        await ask(layer)
        app.parts = [b"200"]
        for _ in range(3):
            layer.cache.clock.pass_s(25)
            app.headers = [MAX_AGE, (b"content-length", b"3")]
            await ask(layer, "/", (b"cache-control", b"no-cache"), method="HEAD")
        assert (await ask(layer)).body == b"200"

    run(act)


def test_a_head_that_asks_for_nothing_to_be_stored_renews_nothing():
    async def act():
        app = App(MAX_AGE, ETAG)
        layer = cached(app)
        await ask(layer)
        layer.cache.clock.pass_s(100)
        app.headers = [(b"cache-control", b"max-age=6000"), ETAG]
        await ask(layer, "/", (b"cache-control", b"no-store"), method="HEAD")
        assert "hit" not in verdict(await ask(layer))

    run(act)
