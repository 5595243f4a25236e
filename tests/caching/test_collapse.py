"""Many requests that miss the same at once: who asks the app, who waits, who is let go."""

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import cache_response
from perf_middleware.caching.refused import IN_A_ROW_MAX
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
)

NO_STORE = (b"cache-control", b"no-store")
LANGUAGES = [b"de", b"en", b"fr"]


async def burst(layer, clients, *, open_gate=None):
    """All clients at once, the first as leader, until each has come to its end."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clients[0].ask, layer)
        await settle(3)
        for client in clients[1:]:
            tasks.start_soon(client.ask, layer)
        if open_gate is not None:
            await settle()
            open_gate.set()
    return clients


# --- one call for all -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "count"),
    [pytest.param("asyncio", 10_000, id="asyncio"), pytest.param("trio", 3_000, id="trio")],
)
def test_ten_thousand_requests_for_one_cold_key_call_the_app_once(backend, count):
    async def act():
        app = App(body=b"x" * 500)
        layer = cached(app)
        await ask(layer, "/another")  # what the app answers is stored: that much is known
        app.gate = anyio.Event()
        clients = await burst(layer, [Client() for _ in range(count)], open_gate=app.gate)
        assert app.calls == 2
        assert {client.body for client in clients} == {b"x" * 500}
        assert sum("collapsed" in client.verdict for client in clients) == count - 1
        assert layer.cache.status()["collapsed"] == count - 1
        assert_at_rest(layer.cache)

    run(act, backend)


def test_so_do_ten_thousand_for_a_decorated_route_that_nobody_knew():
    calls = []

    async def act():
        gate = anyio.Event()

        @cache_response(ttl=60)
        async def endpoint(request):
            calls.append(request.url.path)
            await gate.wait()
            return PlainTextResponse("hello")

        layer = cached(Starlette(routes=[Route("/items/{id}", endpoint)]))
        clients = [Client("/items/5") for _ in range(10_000)]
        await burst(layer, clients, open_gate=gate)
        assert calls == ["/items/5"]
        assert {client.body for client in clients} == {b"hello"}
        assert_at_rest(layer.cache)

    run(act)


@BACKENDS
def test_a_rule_with_a_key_of_its_own_is_learnt_by_those_who_wait(backend):
    calls = []

    async def act():
        gate = anyio.Event()

        @cache_response(ttl=60, query=["page"])
        async def endpoint(request):
            calls.append(request.url.query)
            await gate.wait()
            return PlainTextResponse(request.query_params["page"])

        layer = cached(Starlette(routes=[Route("/items", endpoint)]))
        clients = [Client(f"/items?page={n % 3}&utm=same") for n in range(90)]
        await burst(layer, clients, open_gate=gate)
        assert len(calls) == 3
        assert [client.body for client in clients] == [b"%d" % (n % 3) for n in range(90)]

    run(act, backend)


@BACKENDS
def test_each_variant_of_a_cold_url_is_asked_for_once(backend):
    async def act():
        calls = []
        gate = anyio.Event()

        async def app(scope, receive, send):
            language = dict(scope["headers"])[b"accept-language"]
            calls.append(language)
            await gate.wait()
            await settle(5)
            await say(send, MAX_AGE, (b"vary", b"accept-language"), body=language)

        layer = cached(app)
        wanted = [LANGUAGES[n % 3] for n in range(600)]
        clients = [Client("/", (b"accept-language", each)) for each in wanted]
        await burst(layer, clients, open_gate=gate)
        assert sorted(calls) == LANGUAGES
        assert [client.body for client in clients] == wanted
        assert_at_rest(layer.cache)

    run(act, backend)


def test_requests_for_different_urls_do_not_wait_for_each_other():
    async def act():
        app = App(gate=anyio.Event())
        layer = cached(app)
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(Client(f"/{number}").ask, layer)
            await settle()
            assert app.calls == 50
            app.gate.set()

    run(act)


@BACKENDS
def test_a_burst_for_a_stale_response_asks_the_app_once_whether_it_still_holds(backend):
    async def act():
        gate = anyio.Event()
        app = App(MAX_AGE, (b"etag", b'"1"'))
        layer = cached(app)
        await Client().ask(layer)
        layer.cache.clock.pass_s(61)
        app.gate, app.status, app.parts = gate, 304, [b""]
        clients = await burst(layer, [Client() for _ in range(500)], open_gate=gate)
        assert app.calls == 2
        assert app.seen(b"if-none-match") == [b'"1"']
        assert {client.body for client in clients} == {b"hello"}

    run(act, backend)


def test_without_collapsing_each_request_asks_the_app():
    async def act():
        app = App(gate=anyio.Event())
        layer = cached(app, collapse=False)
        await burst(layer, [Client() for _ in range(20)], open_gate=app.gate)
        assert app.calls == 20

    run(act)


# --- leaders that come to nothing -----------------------------------------------------------------


class Fails:
    """The first `times` calls end as told, the others answer."""

    def __init__(self, ending, times=1):
        self.calls = 0
        self._ending = ending
        self._times = times
        self.gate = anyio.Event()

    async def __call__(self, scope, receive, send):
        self.calls += 1
        if self.calls <= self._times:
            await self.gate.wait()
            await self._ending(receive, send)
        else:
            await say(send, MAX_AGE)


async def raises(receive, send):
    raise RuntimeError("broken")


async def says_nothing(receive, send):
    pass


async def stops_in_the_middle(receive, send):
    await send(start(MAX_AGE))
    await send(more(b"he"))


async def raises_in_the_middle(receive, send):
    await stops_in_the_middle(receive, send)
    raise RuntimeError("broken")


@BACKENDS
@pytest.mark.parametrize(
    "ending",
    [raises, says_nothing, stops_in_the_middle, raises_in_the_middle],
    ids=lambda ending: ending.__name__,
)
def test_a_leader_that_fails_lets_one_of_those_who_wait_lead(backend, ending):
    async def act():
        app = Fails(ending)
        layer = cached(app)
        leader, *others = await burst(layer, [Client() for _ in range(100)], open_gate=app.gate)
        assert app.calls == 2
        assert {client.body for client in others} == {b"hello"}
        assert leader.body != b"hello"
        assert_at_rest(layer.cache)

    run(act, backend)


def refuses(status):
    async def ending(receive, send):
        await send(start(status=status))
        await send(end(b"no"))

    return ending


@BACKENDS
@pytest.mark.parametrize("status", [403, 406, 429, 431, 500, 502, 503, 504, 599])
def test_a_leader_that_is_refused_or_answered_with_a_failure_lets_one_who_waits_lead(
    backend, status
):
    """Its answer is of no use to others, and says nothing of theirs."""

    async def act():
        app = Fails(refuses(status))
        layer = cached(app)
        leader, *others = await burst(layer, [Client() for _ in range(100)], open_gate=app.gate)
        assert leader.body == b"no"
        assert app.calls == 2
        assert {client.body for client in others} == {b"hello"}
        assert_at_rest(layer.cache)

    run(act, backend)


def test_an_app_that_always_fails_is_not_asked_one_by_one():
    """Each failing call takes a step of the gate: a burst is over after a few of them."""

    async def act():
        open_calls, most, rounds = 0, 0, 0
        gate = anyio.Event()

        async def app(scope, receive, send):
            nonlocal open_calls, most
            open_calls += 1
            most = max(most, open_calls)
            try:
                await gate.wait()
                raise RuntimeError("broken")
            finally:
                open_calls -= 1

        layer = cached(app)
        clients = [Client() for _ in range(200)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.ask, layer)
            await settle()
            while not all(client.done for client in clients):
                rounds += 1
                gate.set()
                gate = anyio.Event()
                await settle()
        assert rounds <= 3
        assert most > 100
        assert all(isinstance(client.raised, RuntimeError) for client in clients)
        assert_at_rest(layer.cache)

    run(act)


@BACKENDS
def test_a_leader_that_is_cancelled_lets_another_lead(backend):
    async def act():
        app = App(gate=anyio.Event())
        layer = cached(app)
        others = [Client() for _ in range(20)]
        async with anyio.create_task_group() as tasks:
            leading = anyio.CancelScope()

            async def lead():
                with leading:
                    await Client().ask(layer)

            tasks.start_soon(lead)
            await settle(5)
            for client in others:
                tasks.start_soon(client.ask, layer)
            await settle()
            assert app.calls == 1
            leading.cancel()
            await settle()
            assert app.calls == 2
            app.gate.set()
        assert {client.body for client in others} == {b"hello"}
        assert_at_rest(layer.cache)

    run(act, backend)


@BACKENDS
def test_nobody_waits_for_a_leader_that_hangs_beyond_the_bound(backend):
    async def act():
        hangs = anyio.Event()
        app = App()

        async def first_hangs(scope, receive, send):
            if not app.calls:
                app.scopes.append(scope)
                await hangs.wait()
            await app(scope, receive, send)

        layer = cached(first_hangs, collapse_wait_s=0.05)
        clients = [Client() for _ in range(10)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clients[0].ask, layer)
            await settle(3)
            for client in clients[1:]:
                tasks.start_soon(client.ask, layer)
            with anyio.fail_after(120):
                while not all(client.done for client in clients[1:]):
                    await anyio.sleep(0.005)
            assert not clients[0].done
            after = await Client().ask(layer)
            assert after.verdict.startswith("hit")  # what those who went alone brought is stored
            hangs.set()
        assert_at_rest(layer.cache)

    run(act, backend)


def test_a_hanging_leader_delays_a_key_that_cannot_be_stored_only_until_that_is_known():
    """Its answer came to others in the meantime: nobody needs to wait for the first one."""

    async def act():
        hangs = anyio.Event()
        app = App((b"cache-control", b"no-store"))

        async def first_hangs(scope, receive, send):
            if not app.calls:
                app.scopes.append(scope)
                await hangs.wait()
            await app(scope, receive, send)

        layer = cached(first_hangs, collapse_wait_s=0.05)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Client().ask, layer)
            await settle(5)
            late = await Client().ask(layer)
            assert late.body == b"hello"
            after = Client()
            tasks.start_soon(after.ask, layer)
            await settle(10)
            waiting = layer.cache.flights.waiting
            hangs.set()
        assert waiting == 0

    run(act)


def test_only_so_many_wait_and_the_others_ask_themselves():
    async def act():
        app = App(gate=anyio.Event())
        layer = cached(app, waiting_max=5)
        clients = [Client() for _ in range(20)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.ask, layer)
            await settle()
            assert layer.cache.flights.waiting == 5
            assert app.calls == 15
            app.gate.set()
        assert sum("collapsed" in client.verdict for client in clients) == 5
        assert_at_rest(layer.cache)

    run(act)


# --- leaders whose client leaves ------------------------------------------------------------------


class Listens:
    """Streams, and stops as soon as its client has left, as Starlette's StreamingResponse does."""

    def __init__(self, *, says_head_first):
        self.calls = 0
        self.stopped = 0
        self.finished = False
        self.gate = anyio.Event()
        self._says_head_first = says_head_first

    async def __call__(self, scope, receive, send):
        self.calls += 1
        async with anyio.create_task_group() as tasks:

            async def until_left():
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.stopped += not self.finished
                tasks.cancel_scope.cancel()

            tasks.start_soon(until_left)
            if self._says_head_first:
                await send(start(MAX_AGE))
            await self.gate.wait()
            if not self._says_head_first:
                await send(start(MAX_AGE))
            await send(more(b"he"))
            self.finished = True
            await send(end(b"llo"))
            tasks.cancel_scope.cancel()


@BACKENDS
@pytest.mark.parametrize("says_head_first", [True, False], ids=["after the head", "before it"])
@pytest.mark.parametrize("send_tells", [True, False], ids=["send raises", "send is deaf"])
def test_a_leader_whose_client_leaves_answers_those_who_wait(backend, says_head_first, send_tells):
    async def act():
        app = Listens(says_head_first=says_head_first)
        layer = cached(app)
        leader = Client(send_tells=send_tells)
        others = [Client() for _ in range(20)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leader.ask, layer)
            await settle(5)
            for client in others:
                tasks.start_soon(client.ask, layer)
            await settle()
            leader.leave()
            await settle()
            app.gate.set()
        assert (app.calls, app.stopped) == (1, 0)
        assert {client.body for client in others} == {b"hello"}
        assert leader.raised is None
        assert_at_rest(layer.cache)

    run(act, backend)


@BACKENDS
def test_the_app_of_a_client_who_left_alone_is_told_so(backend):
    async def act():
        app = Listens(says_head_first=False)
        layer = cached(app)
        client = Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, layer)
            await settle(5)
            client.leave()
        assert app.stopped == 1
        assert_at_rest(layer.cache)

    run(act, backend)


@BACKENDS
def test_an_app_that_hangs_after_its_client_left_is_told_after_the_bound(backend):
    async def act():
        app = Listens(says_head_first=True)  # its gate never opens
        layer = cached(app, outlive_s=0.05)
        leader = Client()
        other = Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leader.ask, layer)
            await settle(5)
            tasks.start_soon(other.ask, layer)
            await settle(5)
            leader.leave()
            with anyio.fail_after(120):
                while app.calls < 2:
                    await anyio.sleep(0.005)
            assert app.stopped == 1
            other.leave()
        assert layer.cache.store.responses == 0
        assert_at_rest(layer.cache)

    run(act, backend)


# --- answers that are not for others --------------------------------------------------------------

NOT_STORABLE = [
    pytest.param([(b"cache-control", b"no-store")], id="no-store"),
    pytest.param([(b"content-type", b"text/plain")], id="without a word"),
    pytest.param([MAX_AGE, (b"set-cookie", b"a=1")], id="a cookie"),
    pytest.param([MAX_AGE, (b"vary", b"*")], id="vary by all"),
    pytest.param([MAX_AGE, (b"content-type", b"text/event-stream")], id="events"),
    pytest.param([MAX_AGE, (b"content-length", b"99999999")], id="too large"),
    pytest.param([(b"cache-control", b"max-age=0")], id="stale as it comes"),
]


@BACKENDS
@pytest.mark.parametrize("headers", NOT_STORABLE)
def test_an_answer_that_is_not_stored_releases_all_at_its_head(backend, headers):
    """Not one after the other, and not only when its body has ended."""

    async def act():
        gates = [anyio.Event() for _ in range(3)]
        calls = 0

        async def app(scope, receive, send):
            nonlocal calls
            calls += 1
            await gates[0 if calls == 1 else 1].wait()
            await send(start(*headers))
            await gates[2].wait()
            await send(end(b"own"))

        layer = cached(app)
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(Client().ask, layer)
            await settle()
            assert calls == 1
            gates[0].set()
            await settle()
            assert calls == 50
            gates[1].set()
            gates[2].set()
        for gate in range(3):
            gates[gate] = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(Client().ask, layer)
            await settle()
            assert calls == 100  # from now on nobody waits at all
            for gate in gates:
                gate.set()
        assert_at_rest(layer.cache)

    run(act, backend)


def test_a_key_whose_answers_become_storable_collapses_again():
    async def act():
        app = App((b"cache-control", b"no-store"))
        layer = cached(app)
        await Client().ask(layer)
        app.headers = [MAX_AGE]
        await Client().ask(layer)
        await layer.cache.purge(everything=True)
        app.gate = anyio.Event()
        await burst(layer, [Client() for _ in range(20)], open_gate=app.gate)
        assert app.calls == 3

    run(act)


@BACKENDS
def test_requests_with_credentials_neither_wait_nor_get_the_leaders_answer(backend):
    async def act():
        gate = anyio.Event()

        async def app(scope, receive, send):
            await gate.wait()
            who = dict(scope["headers"]).get(b"cookie", b"nobody")
            await say(send, (b"cache-control", b"public, max-age=60"), body=who)

        layer = cached(app)
        names = [b"u=%d" % n if n % 2 else None for n in range(60)]
        clients = [Client("/", *([(b"cookie", name)] if name else [])) for name in names]
        await burst(layer, clients, open_gate=gate)
        assert [client.body for client in clients] == [name or b"nobody" for name in names]

    run(act, backend)


def test_those_who_wait_get_it_as_they_asked_for_it():
    """A HEAD, a condition and a range beside the leader's plain GET."""

    async def act():
        app = App(MAX_AGE, (b"etag", b'"1"'), gate=anyio.Event())
        layer = cached(app)
        clients = [
            Client(),
            Client("/", (b"accept", b"*/*")),
            Client("/", (b"cache-control", b"max-age=10")),
        ]
        await burst(layer, clients, open_gate=app.gate)
        assert app.calls == 1
        assert {client.body for client in clients} == {b"hello"}
        assert all(client.answer.header("content-length") == "5" for client in clients[1:])

    run(act)


def test_a_burst_for_what_must_always_be_confirmed_is_not_asked_one_by_one():
    async def act():
        gate = anyio.Event()
        app = App((b"cache-control", b"no-cache"), (b"etag", b'"1"'))
        layer = cached(app)
        await Client().ask(layer)
        app.status, app.parts = 304, [b""]
        rounds = 0
        clients = [Client() for _ in range(50)]
        async with anyio.create_task_group() as tasks:
            app.gate = gate
            for client in clients:
                tasks.start_soon(client.ask, layer)
            await settle()
            while not all(client.done for client in clients):
                rounds += 1
                app.gate = anyio.Event()
                gate.set()
                gate = app.gate
                await settle()
        assert rounds == 1
        assert {client.body for client in clients} == {b"hello"}

    run(act)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([(b"cache-control", b"no-cache"), (b"etag", b'"1"')], id="no-cache"),
        pytest.param([(b"cache-control", b"max-age=0"), (b"etag", b'"1"')], id="stale at once"),
    ],
)
def test_those_who_wait_for_what_they_may_not_have_unasked_wait_for_one_call_alone(answer):
    async def act():
        app = App(*answer)
        layer = cached(app)
        await ask(layer, "/another")
        app.gate = gate = anyio.Event()
        clients = [Client() for _ in range(20)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.ask, layer)
            await settle()
            assert app.calls == 2
            app.gate = anyio.Event()
            gate.set()
            await settle()
            assert app.calls == 2 + 19
            app.gate.set()

    run(act)


# --- who waits, and for what ----------------------------------------------------------------------


def test_reloads_are_not_collapsed():
    """Whose client says no-cache wants an answer made for it."""

    async def act():
        app = App(gate=anyio.Event())
        layer = cached(app)
        clients = [Client("/", (b"cache-control", b"no-cache")) for _ in range(5)]
        await burst(layer, clients, open_gate=app.gate)
        assert app.calls == 5

    run(act)


@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        pytest.param({"method": "HEAD"}, {}, id="HEAD"),
        pytest.param({"headers": [(b"cache-control", b"no-store")]}, {}, id="no-store"),
        pytest.param({"headers": [(b"if-none-match", b'"1"')]}, {"status": 304}, id="a 304"),
        pytest.param({"headers": [(b"range", b"bytes=0-1")]}, {"status": 206}, id="a part"),
        pytest.param({"session": {"user": 5}}, {}, id="a session"),
        pytest.param({}, {"status": 429}, id="what one client has asked too often"),
        pytest.param({}, {"status": 503, "headers": ()}, id="a failure without a word"),
        pytest.param({}, {"status": 403, "headers": ()}, id="a refusal without a word"),
        pytest.param({}, {"status": 500, "headers": [NO_STORE]}, id="a failure not to be stored"),
        pytest.param(
            {"headers": [(b"accept-language", b"a" * 9_000)]},
            {"headers": [MAX_AGE, (b"vary", b"accept-language")]},
            id="a field too long to vary by",
        ),
    ],
)
def test_one_request_of_another_kind_leaves_the_url_its_protection(asked, changes):
    async def act():
        app = App()
        layer = cached(app)
        await ask(layer, "/another")
        usual = app.headers
        app.status, app.headers = changes.get("status", 200), list(changes.get("headers", usual))
        asked_with = dict(asked)
        await ask(layer, "/", *asked_with.pop("headers", ()), **asked_with)
        app.status, app.headers, app.gate = 200, usual, anyio.Event()
        await burst(layer, [Client() for _ in range(100)], open_gate=app.gate)
        assert app.calls == 3

    run(act)


def gated(headers):
    """An app of one route, `/items/{id}`; the paths that are in its endpoint, and its gate."""
    gate = anyio.Event()
    inside = []

    async def endpoint(request):
        inside.append(request.url.path)
        if request.url.path != "/items/first":
            await gate.wait()
        return PlainTextResponse("hello", headers=headers)

    return Starlette(routes=[Route("/items/{id}", endpoint)]), inside, gate


def test_nobody_waits_for_answers_of_a_route_that_never_had_one_stored():
    async def act():
        app, inside, gate = gated({})
        layer = cached(app)
        await ask(layer, "/items/first")
        async with anyio.create_task_group() as tasks:
            for client in [Client("/items/5") for _ in range(3)]:
                tasks.start_soon(client.ask, layer)
            await settle()
            assert inside.count("/items/5") == 3
            gate.set()

    run(act)


def test_for_the_first_answer_of_a_route_nobody_waits_longer_than_a_moment(monkeypatch):
    """They may be waiting for each other in the app: a barrier, a long poll."""
    monkeypatch.setattr("perf_middleware.caching.middleware.missing.UNPROVEN_WAIT_S", 0.02)

    async def act():
        app, inside, gate = gated({})
        layer = cached(app)
        async with anyio.create_task_group() as tasks:
            for client in [Client("/items/5") for _ in range(3)]:
                tasks.start_soon(client.ask, layer)
            while len(inside) < 3:
                await anyio.sleep(0.005)
            gate.set()

    run(act)


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        pytest.param({"cache-control": "max-age=60"}, {}, id="it had one stored"),
        pytest.param({}, {"rules": [{"path": "/items/*", "ttl": 60}]}, id="a rule"),
        pytest.param({}, {"default_ttl_s": 60}, id="a default lifetime"),
    ],
)
def test_where_answers_are_stored_the_others_wait_as_long_as_it_takes(
    headers, options, monkeypatch
):
    monkeypatch.setattr("perf_middleware.caching.middleware.missing.UNPROVEN_WAIT_S", 0.001)

    async def act():
        app, inside, gate = gated(headers)
        layer = cached(app, **options)
        if headers:
            await ask(layer, "/items/first")
        async with anyio.create_task_group() as tasks:
            for client in [Client("/items/5") for _ in range(5)]:
                tasks.start_soon(client.ask, layer)
            await anyio.sleep(0.05)
            gate.set()
        assert inside.count("/items/5") == 1

    run(act)


def test_a_follower_whom_a_rule_keeps_out_that_was_learnt_meanwhile_is_kept_out():
    async def act():
        def unless_preview(scope):
            return None if (b"x-preview", b"1") in scope["headers"] else "page"

        @cache_response(ttl=60, key=unless_preview)
        async def page(request):
            if request.path_params["page"] == "a" and "x-preview" not in request.headers:
                await anyio.sleep_forever()
            return PlainTextResponse("page")

        layer = cached(Starlette(routes=[Route("/{page}", page)]))
        follower = Client("/a", (b"x-preview", b"1"))
        async with anyio.create_task_group() as tasks, anyio.create_task_group() as leading:
            leading.start_soon(Client("/a").ask, layer)
            await settle(5)
            tasks.start_soon(follower.ask, layer)
            await settle()
            await ask(layer, "/b")  # the route is known from here on
            leading.cancel_scope.cancel()
        assert follower.verdict == 'fwd=bypass; detail="cache_response; rule"'
        assert layer.cache.store.responses == 0

    run(act)


def test_an_app_whose_client_left_is_told_as_soon_as_nobody_else_waits():
    async def act():
        told = anyio.Event()

        async def app(scope, receive, send):
            await receive()
            while (await receive())["type"] != "http.disconnect":
                continue
            told.set()

        layer = cached(app, collapse_wait_s=0.05, outlive_s=60)
        first = Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.ask, layer)
            await settle(5)
            with anyio.move_on_after(0.02):
                second = Client()
                tasks.start_soon(second.ask, layer)
                await settle(5)
                first.leave()
                await anyio.sleep(1)
            assert not told.is_set()
            with anyio.fail_after(120):
                await told.wait()
            tasks.cancel_scope.cancel()

    run(act)


def test_an_error_that_is_always_told_keeps_nobody_waiting_in_the_end():
    """One refusal speaks of one client; so many in a row speak of the URL, until one is stored."""

    async def at_once(app, layer):
        asked, app.gate = app.calls, anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(Client().ask, layer)
            await settle()
            calls = app.calls - asked
            app.gate.set()
        app.gate = None
        return calls

    async def act():
        app = App((b"content-type", b"text/plain"), status=403)
        layer = cached(app, default_ttl_s=60)
        for _ in range(IN_A_ROW_MAX - 1):
            await ask(layer, "/")
        assert await at_once(app, layer) == 1
        assert await at_once(app, layer) == 20

        app.status, app.headers = 200, [MAX_AGE]
        await ask(layer, "/")
        await layer.cache.purge(everything=True)
        assert await at_once(app, layer) == 1

    run(act)
