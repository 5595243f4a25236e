"""The layer by plain ASGI messages: who is refused, with what, and what goes on."""

import json
import logging

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from perf_middleware.errors import SettingsError
from perf_middleware.memory_watch.finish.runtime import Finisher
from perf_middleware.memory_watch.middleware import MemoryLayer, MemoryWatchMiddleware
from perf_middleware.memory_watch.middleware.guard import COMPANY_MAX, RequestGuard, guard_of
from perf_middleware.memory_watch.reading import Bound, MemorySample
from perf_middleware.memory_watch.settings import MemorySettings
from perf_middleware.memory_watch.shedding import CRITICAL, HARD, SOFT
from tests.driving import ask, http_scope
from tests.memory_watch.watch_stage import Stage

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
CODES = {"/plus": 0, "/page": 1, "/batch": 2, "/export": 3}


class FakeWatch:
    """A watch whose looks the test takes itself."""

    def __init__(self):
        self.step = 0
        self.on_sample, self.on_end = [], []
        self.calls = []

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def look(self, step, share, *, at_us=1_000_000):
        self.step = step
        bound = Bound(name="cgroup", used_bytes=int(share * 10_000), limit_bytes=10_000)
        for call in self.on_sample:
            call(MemorySample(at_us=at_us, rss_bytes=5_000, bounds=(bound,)))


class App:
    """Answers each request, after its gate where it has one."""

    def __init__(self):
        self.seen = []
        self.gate = None
        self.error = None

    async def __call__(self, scope, receive, send):
        self.seen.append(scope.get("path", scope["type"]))
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                await send({"type": "websocket.send", "text": "still here"})
            return None
        if scope["type"] == "lifespan":
            return "told"
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        await PlainTextResponse("well")(scope, receive, send)
        return None


def stage(*, classes=False, turn=None, **settings):
    watch, app = FakeWatch(), App()
    guard = guard_of(MemorySettings(**{"shed": True, **settings}), watch)
    if classes:
        guard.criticality_of = lambda scope: CODES[scope["path"]]
    return watch, app, guard, MemoryWatchMiddleware(app, guard)


async def get(layer, path):
    return await ask(layer, http_scope(path))


def statuses(layer, *paths, **scope):
    async def main():
        return [(await ask(layer, http_scope(path, **scope))).status for path in paths]

    return anyio.run(main)


def value_of(guard, name, /, **labels):
    [family] = [family for family in guard.families() if family.name == name]
    [value] = [p.value for p in family.points if p.labels.pairs == tuple(labels.items())]
    return value


# --- who is refused -------------------------------------------------------------------------------


@BACKENDS
def test_while_memory_is_short_requests_are_told_to_come_again(backend):
    watch, app, guard, layer = stage(retry_after_s=5)
    watch.look(HARD, 0.9)

    async def main():
        return [await get(layer, "/page") for _ in range(40)]

    answers = anyio.run(main, backend=backend)
    assert {answer.status for answer in answers} == {503}
    assert app.seen == []
    waits = {int(answer.header("retry-after")) for answer in answers}
    assert waits <= set(range(5, 11))
    assert len(waits) > 1  # they shall not come again together
    assert answers[0].header("content-type") == "application/problem+json"
    assert answers[0].header("cache-control") == "no-store"
    assert answers[0].header("connection") is None
    assert answers[0].json() == {
        "status": 503,
        "title": "Service Unavailable",
        "detail": "The server is short of memory: ask again later.",
    }
    assert value_of(guard, "perf_memory_shed", criticality="critical") == 40
    watch.look(0, 0.5)
    assert statuses(layer, "/page") == [200]


@pytest.mark.parametrize(
    ("step", "share", "served"),
    [
        pytest.param(SOFT, 0.80, {"/plus", "/page", "/batch", "/export"}, id="at soft all"),
        pytest.param(HARD, 0.88, {"/plus", "/page", "/batch"}, id="at hard all but the lowest"),
        pytest.param(HARD, 0.91, {"/plus", "/page"}, id="then what users see"),
        pytest.param(HARD, 0.94, {"/plus"}, id="then what they cannot do without"),
        pytest.param(CRITICAL, 0.96, set(), id="at critical nobody"),
    ],
)
def test_with_classes_the_least_critical_are_refused_first(step, share, served):
    watch, _, guard, layer = stage(classes=True)
    watch.look(step, share)
    told = dict(zip(CODES, statuses(layer, *CODES), strict=True))
    assert {path for path, status in told.items() if status == 200} == served
    assert value_of(guard, "perf_memory_shed_classes") == 4 - len(served)


def test_where_no_request_has_a_class_all_are_alike():
    watch, _, guard, layer = stage(classes=True)
    guard.has_classes = lambda: False
    watch.look(HARD, 0.88)
    assert statuses(layer, *CODES) == [503] * 4


def test_health_checks_are_served_behind_a_root_path_too():
    watch, _, _, layer = stage()
    watch.look(CRITICAL, 0.99)
    assert statuses(layer, "/healthz", "/readyz", "/healthzz") == [200, 200, 503]
    assert statuses(layer, "/api/healthz", root_path="/api") == [200]


def test_without_shedding_everybody_is_served_at_every_step():
    watch, _, guard, layer = stage(shed=False)
    watch.look(CRITICAL, 0.99)
    assert statuses(layer, "/page") == [200]
    assert list(guard.families()) == []


def test_a_class_that_cannot_be_told_is_critical_and_said_once(caplog):
    watch, _, guard, layer = stage(classes=True)
    guard.criticality_of = lambda scope: {}[scope["path"]]
    watch.look(HARD, 0.91)
    assert statuses(layer, "/page", "/page") == [200, 200]
    watch.look(HARD, 0.94)
    assert statuses(layer, "/page") == [503]
    assert value_of(guard, "perf_memory_hook_failures", hook="criticality") == 3
    assert len([r for r in caplog.records if "hook 'criticality' failed" in r.getMessage()]) == 1


def test_a_refused_head_has_no_body_and_a_refused_body_is_not_read():
    watch, _, _, layer = stage()
    watch.look(HARD, 0.9)

    async def receive():
        pytest.fail("the body was asked for")

    async def main():
        for method in ("HEAD", "POST"):
            sent = []

            async def send(message, sent=sent):
                sent.append(message)

            await layer(http_scope("/page", method=method), receive, send)
            yield sent

    async def collect():
        return [sent async for sent in main()]

    head, post = anyio.run(collect)
    assert head[1]["body"] == b""
    assert json.loads(post[1]["body"])["status"] == 503


def test_what_already_runs_goes_on_and_is_counted():
    watch, app, guard, layer = stage()

    async def main():
        app.gate = anyio.Event()
        statuses = []

        async def run():
            statuses.append((await get(layer, "/page")).status)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            seen = guard.in_flight
            watch.look(CRITICAL, 0.99)
            refused = (await get(layer, "/page")).status
            app.gate.set()
        return seen, refused, statuses, guard.in_flight

    assert anyio.run(main) == (3, 503, [200] * 3, 0)


def test_who_fails_or_is_cancelled_is_in_flight_no_more():
    _, app, guard, layer = stage()

    async def main():
        async def broken(scope, receive, send):
            raise RuntimeError("broken")

        layer.app = broken
        with pytest.raises(RuntimeError):
            await get(layer, "/page")
        layer.app, app.gate = app, anyio.Event()
        with anyio.move_on_after(0.01) as scope:
            await get(layer, "/page")
        return scope.cancelled_caught, guard.in_flight

    assert anyio.run(main) == (True, 0)


def test_each_change_is_logged_once_with_who_and_how_many(caplog):
    watch, _, _, layer = stage(classes=True)
    with caplog.at_level(logging.INFO, "perf_middleware.memory_watch"):
        for step, share in [(0, 0.5), (HARD, 0.89), (HARD, 0.89), (HARD, 0.915)]:
            watch.look(step, share)
        statuses(layer, "/export", "/batch", "/page")
        for step, share in [(HARD, 0.89), (0, 0.6), (0, 0.6)]:
            watch.look(step, share)
    short, well = "memory is short, at ", "memory suffices again, at "
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", f"{short}89% of its limit: requests are refused: sheddable"),
        ("WARNING", f"{short}92% of its limit: requests are refused: sheddable_plus and sheddable"),
        ("INFO", f"{short}89% of its limit: requests are refused: sheddable"),
        ("INFO", f"{well}60% of its limit: every request is served (2 were refused in 0 s)"),
    ]


# --- websockets, and what is none of its business -------------------------------------------------


class Socket:
    """A client of a websocket, message by message."""

    def __init__(self, *, extensions=()):
        self.scope = {
            "type": "websocket", "path": "/live", "headers": [],
            "extensions": {name: {} for name in extensions},
        }  # fmt: skip
        self.sent = []
        self.put, self._get = anyio.create_memory_object_stream(10)
        self.put.send_nowait({"type": "websocket.connect"})

    async def receive(self):
        return await self._get.receive()

    async def send(self, message):
        self.sent.append(message)

    def types(self):
        return [message["type"] for message in self.sent]

    def close(self):
        self.put.close()
        self._get.close()


@BACKENDS
def test_a_new_websocket_is_refused_and_one_that_runs_goes_on(backend):
    watch, _, guard, layer = stage()

    async def main():
        running, late, denied = Socket(), Socket(), Socket(extensions=["websocket.http.response"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(layer, running.scope, running.receive, running.send)
            await anyio.wait_all_tasks_blocked()
            watch.look(HARD, 0.9)
            for socket in (late, denied):
                await layer(socket.scope, socket.receive, socket.send)
            running.put.send_nowait({"type": "websocket.receive", "text": "there?"})
            running.put.send_nowait({"type": "websocket.disconnect", "code": 1000})
        for socket in (running, late, denied):
            socket.close()
        return running, late, denied

    running, late, denied = anyio.run(main, backend=backend)
    assert running.types() == ["websocket.accept", "websocket.send"]
    assert late.sent == [{"type": "websocket.close", "code": 1013}]
    assert denied.types() == ["websocket.http.response.start", "websocket.http.response.body"]
    assert denied.sent[0]["status"] == 503
    assert value_of(guard, "perf_memory_websockets_refused") == 2


def test_messages_pass_untouched_and_so_does_what_the_app_returns():
    async def receive():
        raise AssertionError

    async def send(message):
        raise AssertionError

    async def app(scope, inner_receive, inner_send):
        return inner_receive is receive and inner_send is send

    watch = FakeWatch()
    layer = MemoryWatchMiddleware(app, guard_of(MemorySettings(), watch))

    async def main():
        scopes = [http_scope("/"), {"type": "websocket"}, {"type": "lifespan"}, {"type": "new"}]
        return [await layer(scope, receive, send) for scope in scopes]

    assert anyio.run(main) == [True] * 4
    assert watch.calls == []  # whoever made it starts it


@pytest.mark.parametrize("how", ["close", "stop", "begin_anew"])
def test_nobody_is_refused_for_what_a_watch_saw_that_has_ended(how):
    stage = Stage()
    guard = guard_of(MemorySettings(shed=True), stage.watch)
    stage.feed(0.97)
    assert guard.refuses(0)

    async def end():
        ended = getattr(stage.watch, how)()
        if ended is not None:
            await ended

    anyio.run(end)
    assert stage.watch.step == 0
    assert not guard.refuses(3)


def test_nobody_is_refused_for_good_where_the_memory_cannot_be_read_any_more():
    stage = Stage()
    guard = guard_of(MemorySettings(shed=True), stage.watch)
    stage.feed(0.9, *[OSError("gone")] * 3)
    assert guard.refuses(3)
    stage.feed(*[OSError("gone")] * 6)
    assert stage.watch.step == 0
    assert not guard.refuses(3)


def test_a_share_that_swings_over_a_step_does_not_fill_the_log(caplog):
    stage = Stage()
    guard = guard_of(MemorySettings(shed=True), stage.watch, clock=stage.clock)
    with caplog.at_level(logging.INFO, "perf_middleware.memory_watch"):
        stage.feed(*[0.9, 0.1, 0.1] * 100, *[0.1] * 25)
    lines = [line.message for line in caplog.records if line.module == "guard"]
    assert 10 < len(lines) <= 12 + 325 / 20 + 1
    assert lines[-1].startswith("memory suffices again")
    assert not guard.refuses(3)


# --- finishing ------------------------------------------------------------------------------------


class FreeTurn:
    def take(self, now_us):
        return None

    def give_back(self):
        raise AssertionError


def finishing_stage():
    watch, calls = FakeWatch(), []
    given = guard_of(MemorySettings(shed=True), watch)
    watch.on_sample.clear()
    finisher = Finisher(
        lambda: calls.append(1), turn=FreeTurn(), uptime_us_min=0, siblings=lambda: ()
    )
    guard = RequestGuard(
        watch, refusals=given.refusals, hard_share=0.88, critical_share=0.95, finisher=finisher
    )
    return watch, calls, guard, MemoryWatchMiddleware(App(), guard)


@pytest.mark.parametrize(
    ("version", "told"),
    [
        pytest.param("1.0", "close", id="HTTP/1.0"),
        pytest.param("1.1", "close", id="HTTP/1.1"),
        pytest.param("2", None, id="HTTP/2 has no such field"),
        pytest.param("3", None, id="nor has HTTP/3"),
    ],
)
def test_a_worker_that_finishes_sends_refused_clients_to_another_connection(version, told):
    watch, calls, guard, layer = finishing_stage()

    async def ask_once():
        return await ask(layer, http_scope("/page", http_version=version))

    watch.look(CRITICAL, 0.96)
    assert anyio.run(ask_once).header("connection") is None
    for _ in range(5):
        watch.look(CRITICAL, 0.96)
    assert (calls, guard.finishing) == ([1], True)
    assert anyio.run(ask_once).header("connection") == told
    assert value_of(guard, "perf_memory_finishing") == 1
    json.dumps(guard.status())
    guard.reset_counts()
    assert guard.status()["shed"]["critical"] == 0


def test_a_worker_that_only_refuses_finishes_too(monkeypatch):
    watch, calls, guard, layer = finishing_stage()
    now = [0]
    monkeypatch.setattr(guard.finisher, "_clock", lambda: now[0])
    for _ in range(40):
        now[0] += 1_000_000
        watch.look(HARD, 0.9)
        statuses(layer, "/page")
    assert calls == [1]


# --- requests that run alone ----------------------------------------------------------------------


class Sampler:
    def __init__(self, *, goes_on=False):
        self.begun, self.ended, self.forgotten, self.goes_on = [], [], 0, goes_on

    def begin(self, scope):
        self.begun.append(scope["path"])
        if scope["path"] == "/unread":
            raise OSError("no statm")
        return "token"

    def end(self, token, scope):
        self.ended.append((token, scope["path"]))
        if scope["path"] == "/odd":
            raise ValueError("no route")
        return self.goes_on

    def forget(self):
        self.forgotten += 1


def test_the_next_request_that_runs_alone_is_measured_after_a_look():
    watch, app, guard, layer = stage()
    sampler = guard.route_sampler = Sampler()

    async def main():
        await get(layer, "/before")  # nobody has looked
        watch.look(0, 0.1)
        for path in ("/0", "/1"):
            await get(layer, path)
        watch.look(0, 0.1)  # too soon after the last one
        await get(layer, "/2")
        watch.look(0, 0.1, at_us=2_000_000)
        app.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get, layer, "/measured")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(get, layer, "/company")
            await anyio.wait_all_tasks_blocked()
            app.gate.set()

    anyio.run(main)
    assert sampler.begun == ["/0", "/measured"]
    assert sampler.ended == [("token", "/0")]  # the other one had company
    assert sampler.forgotten == 1


def test_a_sampler_that_fails_harms_no_request(caplog):
    watch, _, guard, layer = stage()
    guard.route_sampler = Sampler()
    for second, path in enumerate(("/unread", "/odd", "/odd"), 1):
        watch.look(0, 0.1, at_us=second * 1_000_000)
        assert statuses(layer, path) == [200]
    assert value_of(guard, "perf_memory_hook_failures", hook="sampler") == 3
    assert len([r for r in caplog.records if "hook 'sampler' failed" in r.getMessage()]) == 1


# --- stepping aside -------------------------------------------------------------------------------


class Above:
    """A layer that calls the next one by its `app`."""

    def __init__(self, app):
        self.app = app

    def __call__(self, scope, receive, send):
        return self.app(scope, receive, send)


def stacked():
    watch, app, guard, _ = stage()
    guard.in_progress = lambda: 1
    layer = MemoryLayer(app, guard)
    above = Above(layer)
    layer.stand_below(above)
    return watch, app, guard, layer, above


def test_the_layer_of_a_stack_steps_aside_while_memory_suffices():
    watch, app, _, layer, above = stacked()
    assert above.app is app
    watch.look(HARD, 0.97)
    assert above.app is layer
    assert statuses(above, "/page") == [503]
    watch.look(0, 0.1)
    assert above.app is app
    assert statuses(above, "/page") == [200]


def test_it_stands_in_the_way_until_one_request_was_measured_to_the_beginning_of_the_next():
    watch, app, guard, layer, above = stacked()
    sampler = guard.route_sampler = Sampler(goes_on=True)
    watch.look(0, 0.1)
    assert above.app is layer
    assert statuses(above, "/0") == [200]
    assert above.app is layer  # what that one has left shows when the next one begins
    sampler.goes_on = False
    assert statuses(above, "/1", "/2") == [200] * 2
    assert above.app is app
    assert sampler.begun == ["/0", "/1"]


def test_it_steps_aside_where_no_request_runs_alone():
    watch, app, guard, _, above = stacked()
    sampler = guard.route_sampler = Sampler()
    guard.in_progress = lambda: 2
    watch.look(0, 0.1)
    assert statuses(above, *["/busy"] * COMPANY_MAX) == [200] * COMPANY_MAX
    assert above.app is app
    assert sampler.begun == []


def test_a_request_that_fails_is_not_measured_and_the_layer_steps_aside():
    watch, app, guard, _, above = stacked()
    sampler = guard.route_sampler = Sampler()
    app.error = LookupError
    watch.look(0, 0.1)
    with pytest.raises(LookupError):
        statuses(above, "/0")
    assert above.app is app
    assert (sampler.ended, sampler.forgotten) == ([], 1)


def test_it_steps_aside_when_nobody_looks_any_more():
    watch, app, guard, _, above = stacked()
    guard.route_sampler = Sampler()
    watch.look(HARD, 0.97)
    for told in watch.on_end:
        told()
    assert above.app is app


# --- standing alone -------------------------------------------------------------------------------


@pytest.fixture
def own_watch(monkeypatch):
    watch = FakeWatch()
    monkeypatch.setattr(MemorySettings, "make_watch", lambda self, sample, **more: watch)
    return watch


def test_it_stands_alone_and_looks_as_long_as_the_app_lives(own_watch):
    async def page(request):
        return PlainTextResponse("well")

    app = Starlette(routes=[Route("/page", page)])
    app.add_middleware(MemoryWatchMiddleware, shed=True, exempt_paths=["/other"])
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/page").status_code == 200
            own_watch.look(HARD, 0.9)
            assert client.get("/page").status_code == 503
            own_watch.look(0, 0.1)
            assert own_watch.calls == ["start"]
        assert own_watch.calls == ["start", "stop"]
        own_watch.calls.clear()


def test_without_a_start_up_the_first_request_starts_it(own_watch):
    layer = MemoryWatchMiddleware(App(), shed=True)
    assert own_watch.calls == []
    statuses(layer, "/page", "/page")
    assert own_watch.calls == ["start"]


def test_alone_it_takes_a_hook_for_finishing(own_watch, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    calls = []
    layer = MemoryWatchMiddleware(
        App(),
        finish=True,
        finish_uptime_s_min=0,
        cleanup_s_max=1e-6,
        on_finish=lambda: calls.append(1),
    )
    layer.guard.finisher._siblings = lambda: ()  # not those of this test run
    for _ in range(5):
        own_watch.look(CRITICAL, 0.96)
    assert calls == [1]


def test_wrong_arguments_are_named(own_watch):
    with pytest.raises(SettingsError, match="shedd"):
        MemoryWatchMiddleware(App(), shedd=True)
    _, app, guard, _ = stage()
    with pytest.raises(TypeError, match="takes no shed beside it"):
        MemoryWatchMiddleware(app, guard, shed=True)
    with pytest.raises(TypeError, match="takes no on_finish beside it"):
        MemoryWatchMiddleware(app, guard, on_finish=print)
    with pytest.raises(TypeError, match="not a FakeWatch"):
        MemoryWatchMiddleware(app, own_watch)
