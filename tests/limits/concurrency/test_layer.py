"""The layer by plain ASGI messages: who waits, who is refused, when permits come back."""

import asyncio
import gc
import logging
import random
import weakref

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware.errors import SettingsError
from perf_middleware.limits.concurrency.decorators import criticality
from perf_middleware.limits.concurrency.middleware import BackpressureMiddleware
from perf_middleware.limits.concurrency.settings import BackpressureSettings
from tests.driving import DEADLINE_S, Answer, ask, get, http_scope

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}
BODY = {"type": "http.response.body", "body": b"x"}
FIXED = {"adaptive": "off", "turn_budget_s": None, "wait_max_s": 10, "wait_target_s": 10}


class App:
    """Each request waits inside until it is let go; `begun` are those that came in."""

    def __init__(self, *, answer=(START, BODY)):
        self.begun = []
        self.seen = []
        self._answer = answer
        self._go = {}

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        self.begun.append(path)
        await self.gate(path).wait()
        if scope["method"] == "POST":
            self.seen.append(await receive())
        for message in self._answer:
            await send(dict(message))

    def gate(self, path):
        return self._go.setdefault(path, anyio.Event())

    def go(self, path):
        self.gate(path).set()


class Client:
    """One request as a task, whose client may leave."""

    def __init__(self, tasks, layer, path, *, method="GET", headers=(), body=b"", on_wire=()):
        self.answer = Answer([])
        self.is_over = False
        self._left = anyio.Event()
        self._incoming = [{"type": "http.request", "body": body, "more_body": False}, *on_wire]
        self.task = None
        self.scope = http_scope(path, method=method, headers=headers)
        self._layer = layer
        tasks.start_soon(self._run)

    async def _run(self):
        try:
            await self._layer(self.scope, self.receive, self.send)
        finally:
            self.is_over = True

    async def receive(self):
        if self._incoming:
            return self._incoming.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.answer.messages.append(message)

    def leave(self):
        self._left.set()

    @property
    def status(self):
        return self.answer.status if self.answer.messages else None


async def calm(turns=40):
    for _ in range(turns):
        await anyio.sleep(0)


def scene(play, backend="asyncio"):
    """Run `play(tasks)` with everything over in the end."""

    async def run():
        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as tasks:
                await play(tasks)

    anyio.run(run, backend=backend)


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
def test_one_more_than_the_limit_waits_for_a_permit(backend):
    app = App()
    layer = BackpressureMiddleware(app, limit_first=1, **FIXED)
    pressure = layer.backpressure

    async def play(tasks):
        first = Client(tasks, layer, "/a")
        await calm()
        second = Client(tasks, layer, "/b")
        await calm()
        assert app.begun == ["/a"]
        assert (pressure.in_flight, pressure.waiting, pressure.limit) == (1, 1, 1)
        app.go("/a")
        app.go("/b")
        await calm()
        assert (first.status, second.status) == (200, 200)
        assert (pressure.in_flight, pressure.waiting) == (0, 0)
        assert pressure.figures.totals() == {
            "admitted": 2, "waited": 1, "shed": {}, "would_shed": {},
        }  # fmt: skip

    scene(play, backend)


@BACKENDS
def test_a_full_line_is_answered_with_503(backend):
    app = App()
    layer = BackpressureMiddleware(
        app, limit_first=1, waiting_max=0, retry_after_min_s=2, retry_after_max_s=9, **FIXED
    )

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        refused, head = Client(tasks, layer, "/b"), Client(tasks, layer, "/b", method="HEAD")
        await calm()
        assert refused.status == head.status == 503
        assert refused.answer.header("content-type") == "application/problem+json"
        assert refused.answer.header("cache-control") == "no-store"
        assert 2 <= int(refused.answer.header("retry-after")) <= 9
        assert refused.answer.json()["status"] == 503
        assert head.answer.body == b""
        assert head.answer.header("content-length") == str(len(refused.answer.body))
        app.go("/a")

    scene(play, backend)
    assert app.begun == ["/a"]
    assert layer.backpressure.figures.totals()["shed"] == {"full": 2}


@BACKENDS
def test_who_waits_too_long_is_shed(backend):
    app = App()
    layer = BackpressureMiddleware(
        app, limit_first=1, **FIXED | {"wait_max_s": 0.02, "wait_target_s": 0.01}
    )

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        late = Client(tasks, layer, "/b")
        while not late.is_over:
            await anyio.sleep(0.005)
        assert late.status == 503
        app.go("/a")

    scene(play, backend)
    assert layer.backpressure.figures.totals()["shed"] == {"expired": 1}


@BACKENDS
def test_a_client_that_leaves_frees_its_place_and_its_request_never_runs(backend):
    app = App()
    layer = BackpressureMiddleware(app, limit_first=1, **FIXED)

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        gone = Client(tasks, layer, "/b")
        await calm()
        assert layer.backpressure.waiting == 1
        gone.leave()
        while not gone.is_over:  # on asyncio it is listened to after LISTEN_AFTER_S
            await anyio.sleep(0.001)
        assert (layer.backpressure.waiting, gone.status) == (0, None)
        app.go("/a")

    scene(play, backend)
    assert app.begun == ["/a"]
    assert layer.backpressure.figures.totals()["shed"] == {"left": 1}


@BACKENDS
def test_the_app_gets_the_body_that_came_while_it_waited(backend):
    app = App()
    layer = BackpressureMiddleware(app, limit_first=1, **FIXED)

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        Client(tasks, layer, "/b", method="POST", body=b"kept")
        await calm()
        app.go("/a")
        app.go("/b")

    scene(play, backend)
    assert app.seen == [{"type": "http.request", "body": b"kept", "more_body": False}]


def test_who_left_before_it_was_listened_to_gets_no_permit_either():
    app = App()
    layer = BackpressureMiddleware(app, limit_first=1, **FIXED)

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        gone, other = Client(tasks, layer, "/b"), Client(tasks, layer, "/c")
        gone.leave()
        await calm()
        app.go("/a")
        await calm()
        assert (app.begun, gone.is_over, gone.status) == (["/a", "/c"], True, None)
        app.go("/c")
        await calm()
        assert other.status == 200

    scene(play)
    assert layer.backpressure.figures.totals()["shed"] == {"left": 1}
    assert layer.backpressure.in_flight == 0


def test_under_overload_no_task_listens_to_whom_has_no_chance(monkeypatch):
    """Refusing is cheap: each listening task would cost as much as the refusal itself."""
    monkeypatch.setattr("perf_middleware.limits.concurrency.runtime.waiting.LISTEN_AFTER_S", 600)
    app = App()
    layer = BackpressureMiddleware(app, limit_first=1, waiting_max=2, **FIXED)

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        before = len(asyncio.all_tasks())
        clients = [Client(tasks, layer, f"/{at}") for at in range(50)]
        await calm(3)
        assert len(asyncio.all_tasks()) - before == 2, "the two that wait, and no others"
        assert [client.status for client in clients].count(503) == 48
        tasks.cancel_scope.cancel()

    scene(play)
    assert layer.backpressure.waiting == layer.backpressure.in_flight == 0


def test_what_is_kept_of_a_body_is_bounded_and_nothing_is_lost():
    got = []

    async def reads(scope, receive, send):
        if scope["path"] == "/a":
            await anyio.sleep_forever()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            got.append(message["body"])
        await send(START)
        await send(BODY)

    layer = BackpressureMiddleware(reads, limit_first=1, **FIXED)
    pieces = [bytes([n]) * 20_000 for n in range(20)]

    async def play(tasks):
        async with anyio.create_task_group() as first:
            Client(first, layer, "/a")
            await calm()
            wire = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
            second = Client(tasks, layer, "/b", on_wire=wire)
            while len(second._incoming) > len(wire):  # not listened to yet
                await anyio.sleep(0.001)
            await calm()
            assert len(second._incoming) >= 16, "the rest stays with the server"
            second.leave()
            await calm()
            assert not second.is_over, "nobody listens any more: it waits for its turn"
            first.cancel_scope.cancel()

    scene(play)
    assert got == [b"", *pieces]


def test_a_receive_that_is_open_when_the_permit_comes_is_taken_over():
    open_calls = []
    said = []
    stopped = anyio.Event()

    async def listens(scope, receive, send):
        if scope["path"] == "/a":
            return await anyio.sleep(0.01)
        said.append(await receive())
        with anyio.move_on_after(0.005):  # as Starlette's streams do: a listener that is cancelled
            said.append(await receive())
        stopped.set()
        said.append(await receive())
        return None

    layer = BackpressureMiddleware(listens, limit_first=1, **FIXED)

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        second = Client(tasks, layer, "/b")
        receive = second.receive

        async def counted():
            open_calls.append(1)
            assert sum(open_calls) == 1, "two calls at once"
            try:
                return await receive()
            finally:
                open_calls.append(-1)

        second.receive = counted
        await stopped.wait()
        second.leave()

    scene(play)
    assert [message["type"] for message in said] == ["http.request", "http.disconnect"]


def test_to_wait_does_not_ask_for_a_body_that_waits_for_100_continue():
    app = App()
    layer = BackpressureMiddleware(app, limit_first=1, **FIXED)

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        waits = Client(tasks, layer, "/b", method="POST", headers=[("Expect", "100-continue")])
        await calm()
        assert len(waits._incoming) == 1
        app.go("/a")
        app.go("/b")

    scene(play)
    assert len(app.seen) == 1


@pytest.mark.parametrize(
    ("messages", "left_in_flight"),
    [
        pytest.param([START], 1, id="a head alone"),
        pytest.param([START, BODY | {"more_body": True}], 1, id="a part of the body"),
        pytest.param([START, BODY], 0, id="the last message"),
        pytest.param([START, {"type": "http.response.pathsend", "path": "/x"}], 0, id="a file"),
        pytest.param(
            [START | {"headers": [(b"content-type", b"text/event-stream; charset=utf-8")]}],
            0,
            id="the head of an event stream",
        ),
    ],
)
def test_when_a_permit_comes_back(messages, left_in_flight):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)
        await anyio.sleep_forever()

    layer = BackpressureMiddleware(app, **FIXED)

    async def play(tasks):
        async with anyio.create_task_group() as inner:
            Client(inner, layer, "/a")
            await calm()
            assert layer.backpressure.in_flight == left_in_flight
            inner.cancel_scope.cancel()
        assert layer.backpressure.in_flight == 0

    scene(play)
    assert layer.backpressure.figures.event_streams == (b"event" in repr(messages).encode())


def test_an_app_that_raises_gives_its_permit_back():
    async def app(scope, receive, send):
        raise LookupError("the app's own")

    layer = BackpressureMiddleware(app)
    with pytest.raises(LookupError, match="the app's own"):
        get(layer)
    assert layer.backpressure.in_flight == 0


def test_what_the_app_returns_is_passed_on_and_so_is_what_is_no_request():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])
        return 7

    async def run():
        layer = BackpressureMiddleware(app, limit_first=1, waiting_max=0, **FIXED)
        layer.backpressure.gate_on(asyncio.get_running_loop()).in_flight = 1
        for scope in ({"type": "lifespan"}, {"type": "websocket"}, http_scope("/healthz")):
            assert await layer(scope, None, None) == 7
        layer.backpressure.gate.in_flight = 0
        assert await layer(http_scope("/"), None, None) == 7

    anyio.run(run)
    assert seen == ["lifespan", "websocket", "http", "http"]


async def denied(layer, extensions):
    said = []
    incoming = [{"type": "websocket.connect"}]

    async def receive():
        return incoming.pop()

    async def send(message):
        said.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "extensions": extensions}
    await layer(scope, receive, send)
    return said


@pytest.mark.parametrize(
    ("extensions", "said"),
    [
        ({}, ["websocket.close"]),
        (
            {"websocket.http.response": {}},
            ["websocket.http.response.start", "websocket.http.response.body"],
        ),
    ],
)
def test_a_websocket_too_many_is_refused_at_the_handshake(extensions, said):
    async def app(scope, receive, send):
        await anyio.sleep_forever()

    layer = BackpressureMiddleware(app, websockets_max=1)

    async def play(tasks):
        tasks.start_soon(layer, {"type": "websocket", "path": "/"}, None, None)
        await calm()
        assert [each["type"] for each in await denied(layer, extensions)] == said
        tasks.cancel_scope.cancel()

    scene(play)
    assert layer.backpressure.websockets == 0
    assert layer.backpressure.figures.websockets_refused == 1


# --- classes, levels, deadlines -----------------------------------------------------------------


@criticality("sheddable")
async def endpoint():
    pass


RULES = [
    {"path": "/pay", "methods": "POST", "criticality": "critical_plus"},
    {"path": "/export/*", "criticality": "sheddable"},
]


@pytest.mark.parametrize(
    ("request_", "hooks", "code"),
    [
        pytest.param({"path": "/"}, {}, 1, id="critical where nothing is said"),
        pytest.param({"path": "/pay", "method": "POST"}, {}, 0, id="a rule"),
        pytest.param({"path": "/pay"}, {}, 1, id="a rule for another method"),
        pytest.param({"path": "/", "headers": [("X-Criticality", "sheddable")]}, {}, 1,
                     id="no header without trust"),
        pytest.param({"path": "/", "headers": [("X-Criticality", "sheddable")]},
                     {"trusts": lambda scope: False}, 1, id="no header of a stranger"),
        pytest.param({"path": "/export/1", "headers": [("X-Criticality", "sheddable_plus")]},
                     {"trusts": lambda scope: True}, 2, id="a trusted header before a rule"),
        pytest.param({"path": "/export/1", "headers": [("X-Criticality", "nonsense")]},
                     {"trusts": lambda scope: True}, 3, id="a header that says nothing"),
        pytest.param({"path": "/export/1"}, {"criticality_of": lambda scope: "critical_plus"}, 0,
                     id="the user's word before all"),
        pytest.param({"path": "/export/1"}, {"criticality_of": lambda scope: None}, 3,
                     id="the user says nothing"),
        pytest.param({"path": "/"}, {"criticality_of": lambda scope: 1 / 0}, 1,
                     id="the user's callable fails"),
        pytest.param({"path": "/"}, {"read": endpoint}, 3, id="a mark on the endpoint"),
        pytest.param({"path": "/pay", "method": "POST"}, {"read": endpoint}, 0,
                     id="a rule before a mark"),
    ],
)  # fmt: skip
def test_of_which_class_a_request_is(request_, hooks, code, caplog):
    async def app(scope, receive, send):
        await send(START)
        await send(BODY)

    layer = BackpressureMiddleware(app, rules=RULES)
    for name, hook in hooks.items():
        if name == "read":
            layer.backpressure.rules.read_endpoints(lambda scope, found=hook: found)
        else:
            setattr(layer.backpressure, name, hook)
    assert get(layer, **request_).status == 200
    admitted = [0, 0, 0, 0]
    admitted[code] = 1
    assert layer.backpressure.figures.admitted == admitted


@pytest.mark.parametrize(
    ("level", "in_flight", "statuses"),
    [
        (0, 0, {"/": 200, "/plus": 200, "/low": 200}),
        (1, 0, {"/": 200, "/plus": 200, "/low": 200}),
        (1, 1, {"/low": 503}),
        (2, 0, {"/": 200, "/plus": 503, "/low": 503, "/reports": 503}),
    ],
)
def test_a_level_of_overload_refuses_the_sheddable_classes(level, in_flight, statuses):
    async def app(scope, receive, send):
        await send(START)
        await send(BODY)

    rules = [
        {"path": "/plus", "criticality": "sheddable_plus"},
        {"path": "/low", "criticality": "sheddable"},
        {"path": "/reports", "criticality": "sheddable", "partition": "reports", "limit": 1},
    ]

    async def run():
        layer = BackpressureMiddleware(app, rules=rules, limit_first=1, **FIXED)
        layer.backpressure.level = lambda: level
        gate = layer.backpressure.gate_on(asyncio.get_running_loop())
        gate.in_flight = in_flight
        answers = {path: (await ask(layer, http_scope(path))).status for path in statuses}
        assert gate.in_flight == in_flight
        assert gate.partitions["reports"].in_flight == 0
        return answers

    assert anyio.run(run) == statuses


def test_who_would_wait_past_its_deadline_is_shed_at_once():
    app = App()
    layer = BackpressureMiddleware(app, limit_first=1, **FIXED)
    left = {"/over": 0, "/tight": 50_000, "/enough": 500_000}
    layer.backpressure.remaining_us = lambda scope: left.get(scope["path"])

    async def play(tasks):
        Client(tasks, layer, "/a")
        await calm()
        clients = {"/over": Client(tasks, layer, "/over")}
        await calm()
        enough = Client(tasks, layer, "/enough")
        await calm()
        layer.backpressure.gate.wait_us = 100_000
        clients["/tight"] = Client(tasks, layer, "/tight")
        await calm()
        assert [each.status for each in clients.values()] == [503, 503]
        app.go("/a")
        app.go("/enough")
        await calm()
        assert enough.status == 200

    scene(play)
    assert layer.backpressure.figures.totals()["shed"] == {"deadline": 2}


class Filter(logging.Filter):
    """An app's, which fails."""

    def filter(self, _):
        raise KeyError("tenant")


@pytest.fixture
def failing_filter():
    logger, failing = logging.getLogger("perf_middleware.limits"), Filter()
    logger.addFilter(failing)
    yield
    logger.removeFilter(failing)


REPORTS = [{"path": "/reports", "partition": "reports", "limit": 1}]


@pytest.mark.usefixtures("failing_filter")
def test_a_log_filter_that_raises_turns_no_refusal_into_an_error():
    """A fixed bug: a partition lost a permit for good by it, and the request was a 500."""
    layer = BackpressureMiddleware(App(), limit_first=1, rules=REPORTS, **FIXED)
    layer.backpressure.remaining_us = lambda _: 0

    async def run():
        gate = layer.backpressure.gate_on(asyncio.get_running_loop())
        gate.in_flight = 1
        assert (await ask(layer, http_scope("/reports"))).status == 503
        assert gate.partitions["reports"].in_flight == 0

    anyio.run(run)
    assert layer.backpressure.figures.failures == 1


@pytest.mark.usefixtures("failing_filter")
def test_a_request_that_fails_before_it_waits_gives_its_partitions_permit_back():
    """A fixed bug: a hook that raised, and a log filter that did so then, cost it for good."""
    layer = BackpressureMiddleware(App(), limit_first=1, rules=REPORTS, **FIXED)
    layer.backpressure.remaining_us = lambda scope: scope["nothing"]

    async def run():
        gate = layer.backpressure.gate_on(asyncio.get_running_loop())
        gate.in_flight = 1
        with pytest.raises(KeyError, match="tenant"):
            await ask(layer, http_scope("/reports"))
        assert gate.partitions["reports"].in_flight == 0

    anyio.run(run)


def test_a_dry_run_lets_everyone_in_and_counts():
    app = App()
    layer = BackpressureMiddleware(
        app, limit_first=1, waiting_max=1, dry_run=True, rules=RULES, **FIXED
    )
    layer.backpressure.level = lambda: 2

    async def play(tasks):
        for path in ("/a", "/b", "/c", "/export/1"):
            Client(tasks, layer, path)
            await calm()
        assert app.begun == ["/a", "/b", "/c", "/export/1"]
        for path in app.begun:
            app.go(path)
        await calm()
        assert layer.backpressure.in_flight == 0

    scene(play)
    figures = layer.backpressure.figures
    assert figures.would_wait == 1
    assert figures.totals()["would_shed"] == {"full": 1, "level": 1}
    assert figures.totals()["shed"] == {}


def test_shedding_is_told_once_when_it_begins_and_once_when_it_ends(caplog):
    caplog.set_level("INFO", "perf_middleware.limits")
    now = [0]
    events = []
    pressure = BackpressureSettings(limit_first=1, adaptive="off").make_backpressure()
    pressure.clock = lambda: now[0]
    pressure.on_change = events.append
    for at in (0, 1_000_000, 5_500_000):
        now[0] = at
        pressure.note_shed("full", 1, at)
        pressure.look_for_calm()
    now[0] = 10_500_000
    pressure.look_for_calm()
    pressure.look_for_calm()
    assert [(each.is_shedding, each.shed) for each in events] == [(True, 1), (False, 3)]
    assert len(caplog.records) == 2


@BACKENDS
def test_sync_endpoints_of_starlette_are_served(backend):
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("in a thread"))])
    layer = BackpressureMiddleware(app, limit_first=2, **FIXED)
    answers = []

    async def one():
        answers.append(await ask(layer, http_scope("/")))

    async def play(tasks):
        for _ in range(8):
            tasks.start_soon(one)

    scene(play, backend)
    assert [each.body for each in answers] == [b"in a thread"] * 8
    assert sum(layer.backpressure.figures.admitted) == 8
    assert layer.backpressure.in_flight == 0


# --- cancellation -------------------------------------------------------------------------------


def test_no_permit_is_lost_however_requests_are_cancelled():
    """Real tasks on a real loop, cancelled at any of their steps."""

    async def app(scope, receive, send):
        for _ in range(scope["steps"]):
            await asyncio.sleep(0)
        await send(START)
        await asyncio.sleep(0)
        await send(BODY)
        await asyncio.sleep(0)

    async def run(seed):
        pick = random.Random(seed)
        layer = BackpressureMiddleware(
            app,
            adaptive="off",
            limit_first=pick.randint(1, 3),
            waiting_max=pick.randint(1, 8),
            wait_max_s=5,
            wait_target_s=5,
            turn_budget_s=pick.choice([None, 1e-6, 0.005]),
            rules=[{"path": "/a", "partition": "a", "limit": 1}],
        )
        pressure = layer.backpressure
        tasks, begun = [], 0
        for _ in range(25):
            scope = http_scope(pick.choice(["/a", "/b"]), steps=pick.randint(0, 4))
            left = asyncio.Event()

            async def receive(left=left):
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                nonlocal begun
                begun += 1

            tasks.append((asyncio.create_task(layer(scope, receive, send)), left))
            for _ in range(pick.randint(0, 3)):
                await asyncio.sleep(0)
                assert pressure.in_flight <= pressure.limit
                task, left = pick.choice(tasks)
                what = pick.random()
                if what < 0.3:
                    task.cancel()
                elif what < 0.5:
                    left.set()
        done = await asyncio.wait_for(
            asyncio.gather(*(task for task, _ in tasks), return_exceptions=True), DEADLINE_S
        )
        assert all(each is None or isinstance(each, asyncio.CancelledError) for each in done), done
        assert (pressure.in_flight, pressure.waiting) == (0, 0)
        assert pressure.gate.partitions["a"].in_flight == 0
        assert (await ask(layer, http_scope("/a", steps=0))).status == 200

    async def run_all():
        for seed in range(400):
            await run(seed)

    asyncio.run(run_all())


# --- standing alone -----------------------------------------------------------------------------


def test_a_wrong_argument_is_named():
    with pytest.raises(SettingsError, match="limit_frist"):
        BackpressureMiddleware(App(), limit_frist=3)
    with pytest.raises(SettingsError, match="wait_target_s must not be above wait_max_s"):
        BackpressureMiddleware(App(), wait_target_s=2)
    pressure = BackpressureSettings().make_backpressure()
    assert BackpressureMiddleware(App(), pressure).backpressure is pressure
    with pytest.raises(TypeError, match="takes no limit_first"):
        BackpressureMiddleware(App(), pressure, limit_first=3)
    with pytest.raises(TypeError, match="not a int"):
        BackpressureMiddleware(App(), 3)


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"path": "nowhere"}, "does not start with /"),
        ({"path": "/", "criticality": "high"}, "critical"),
        ({"path": "/", "limit": 3}, "name the partition"),
        ({"path": "/", "partition": "reports"}, "has no limit"),
        ({"path": "/", "methods": "GE T"}, "no method"),
    ],
)
def test_a_wrong_rule_is_named(rule, problem):
    with pytest.raises(SettingsError, match=problem):
        BackpressureMiddleware(App(), rules=[rule])


def test_a_mark_needs_a_class_that_exists():
    with pytest.raises(ValueError, match="critical_plus"):
        criticality("high")


def test_one_layer_serves_one_loop_after_another():
    async def app(scope, receive, send):
        await send(START)
        await send(BODY)

    layer = BackpressureMiddleware(app, limit_first=1)
    for _ in range(3):
        assert get(layer).status == 200
    assert layer.backpressure.status()["admitted"] == 3
    names = [family.name for family in layer.backpressure.families()]
    assert len(names) == len(set(names)) == 13
    layer.backpressure.reset_counts()
    assert layer.backpressure.status()["admitted"] == 0


def test_an_app_is_let_go_of_and_so_are_the_loops_that_it_ran_in():
    """A fixed bug: each event loop kept its permits for ever, and they the app with all it held."""

    async def app(scope, receive, send):
        await send(START)
        await send(BODY)

    layer = BackpressureMiddleware(app, limit_first=1, **FIXED)
    loops = []

    async def run(layer):
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert (await ask(layer, http_scope("/"))).status == 200

    for _ in range(3):
        asyncio.run(run(layer))
    gc.collect()
    assert [loop() is None for loop in loops[:-1]] == [True, True], "the last may be asked again"
    gone = weakref.ref(layer.backpressure)
    del layer
    gc.collect()
    assert gone() is None
    assert loops[-1]() is None
