"""Timeouts, driven with plain messages on both event loops.

SOON_S is when a timer fires; what a test waits for is a message or a gate, never the clock.
"""

import asyncio
import threading
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio
import anyio.to_thread
import pytest

from perf_middleware.errors import DeadlineExceededError
from perf_middleware.limits.deadlines.decorators import timeout
from perf_middleware.limits.deadlines.middleware.timeouts import DeadlineMiddleware
from perf_middleware.limits.deadlines.runtime import current_deadline, remaining_us
from tests.driving import DEADLINE_S, ask, http_scope

SOON_S = 0.03
LONG_S = 60.0
START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"done"}

each_loop = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Exchange:
    """One request that goes on while the test looks at it."""

    def __init__(self, app, scope=None):
        self.app = app
        self.scope = scope or http_scope()
        self.messages = []
        self.error = None
        self.cancel_scope = anyio.CancelScope()
        self._changed = anyio.Event()
        self.is_over = anyio.Event()

    async def receive(self):
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message):
        self.messages.append(message)
        self._changed.set()
        self._changed = anyio.Event()

    async def run(self):
        try:
            with self.cancel_scope:
                await self.app(self.scope, self.receive, self.send)
        except Exception as exc:  # noqa: BLE001 - what the server would see
            self.error = exc
        finally:
            self.is_over.set()

    async def answered(self):
        while not (self.messages and not self.messages[-1].get("more_body", False)) or (
            self.messages[-1]["type"] == "http.response.start"
        ):
            await self._changed.wait()

    @property
    def statuses(self):
        return [message["status"] for message in self.messages if "status" in message]


@asynccontextmanager
async def going_on(app, scope=None):
    exchange = Exchange(app, scope)
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(exchange.run)
            yield exchange


def run(test, backend="asyncio"):
    anyio.run(test, backend=backend)


async def answers(scope, receive, send):
    await send(START)
    await send(LAST)


async def hangs(scope, receive, send):
    await anyio.sleep_forever()


# --- in time ------------------------------------------------------------------------------------


@each_loop
def test_an_answer_in_time_is_passed_on(backend):
    layer = DeadlineMiddleware(answers, timeout_s=LONG_S)
    answer = anyio.run(ask, layer, http_scope(), backend=backend)
    assert answer.messages == [START, LAST]
    assert layer.deadlines.figures.timeouts == {"head": 0, "total": 0}


def test_a_request_in_time_runs_in_its_own_task_and_makes_none():
    variable = ContextVar("variable")

    async def app(scope, receive, send):
        seen.append(asyncio.current_task())
        seen.append(asyncio.all_tasks())
        variable.set("from the app")
        await answers(scope, receive, send)

    seen = []

    async def test():
        before = asyncio.all_tasks()
        await DeadlineMiddleware(app, timeout_s=LONG_S)(http_scope(), None, Exchange(app).send)
        assert seen == [asyncio.current_task(), before]
        assert asyncio.all_tasks() == before
        assert variable.get() == "from the app"

    run(test)


@each_loop
@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_what_is_no_http_request_passes_untouched(backend, kind):
    passed = []

    async def app(*args):
        passed.append(args)

    async def test():
        args = ({"type": kind}, object(), object())
        await DeadlineMiddleware(app, timeout_s=LONG_S)(*args)
        assert passed == [args]

    run(test, backend)


@each_loop
def test_an_error_of_the_app_is_its_own(backend):
    async def app(scope, receive, send):
        raise LookupError("the app's")

    async def test():
        with pytest.raises(LookupError, match="the app's"):
            await DeadlineMiddleware(app, timeout_s=LONG_S)(http_scope(), None, None)

    run(test, backend)


# --- behind the deadline ------------------------------------------------------------------------


@each_loop
def test_who_takes_too_long_is_answered_with_504_and_cancelled(backend):
    layer = DeadlineMiddleware(hangs, timeout_s=SOON_S)
    answer = anyio.run(ask, layer, http_scope(), backend=backend)
    assert answer.status == 504
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    assert answer.json()["title"] == "Gateway Timeout"
    assert layer.deadlines.figures.timeouts == {"head": 1, "total": 0}


@each_loop
def test_the_answer_does_not_wait_for_the_cleanup(backend):
    async def app(scope, receive, send):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await gate.wait()
            cleaned.append(True)

    layer = DeadlineMiddleware(app, timeout_s=SOON_S)
    cleaned = []

    async def test():
        nonlocal gate
        gate = anyio.Event()
        async with going_on(layer) as exchange:
            await exchange.answered()
            assert (exchange.statuses, cleaned) == ([504], [])
            assert layer.deadlines.figures.running_on == 1
            gate.set()
        assert (exchange.error, cleaned) == (None, [True])
        assert layer.deadlines.figures.running_on == 0

    gate = None
    run(test, backend)


def test_on_asyncio_cleanup_may_wait_without_a_shield():
    async def app(scope, receive, send):
        try:
            await anyio.sleep_forever()
        finally:
            for _ in range(5):
                await asyncio.sleep(0.001)
            cleaned.append(True)

    cleaned = []
    answer = anyio.run(ask, DeadlineMiddleware(app, timeout_s=SOON_S), http_scope())
    assert (answer.status, cleaned) == (504, [True])


@each_loop
def test_the_answer_does_not_wait_for_a_thread(backend):
    def work():
        current = current_deadline()
        assert gate.wait(DEADLINE_S)
        seen.append((current is not None, current.expired))

    async def app(scope, receive, send):
        try:
            await anyio.to_thread.run_sync(work)
            seen.append("behind the thread")
            await anyio.sleep_forever()
        finally:
            seen.append("cleanup")

    layer = DeadlineMiddleware(app, timeout_s=SOON_S)
    gate, seen = threading.Event(), []

    async def test():
        async with going_on(layer) as exchange:
            await exchange.answered()
            assert (exchange.statuses, seen) == ([504], [])
            assert layer.deadlines.figures.running_on == 1
            gate.set()
        assert exchange.error is None
        # Cancelled at its next wait: its cleanup never met the running thread.
        assert seen == [(True, True), "behind the thread", "cleanup"]

    run(test, backend)


@each_loop
def test_a_thread_keeps_its_place_until_it_ends(backend):
    """Otherwise endpoints that hang would have threads without bound."""

    async def app(scope, receive, send):
        await anyio.to_thread.run_sync(gate.wait, limiter=limiter)

    gate = threading.Event()
    limiter = None

    async def test():
        nonlocal limiter
        limiter = anyio.CapacityLimiter(1)
        async with going_on(DeadlineMiddleware(app, timeout_s=SOON_S)) as exchange:
            await exchange.answered()
            await anyio.sleep(SOON_S)
            assert limiter.borrowed_tokens == 1
            gate.set()
        assert limiter.borrowed_tokens == 0

    run(test, backend)


def test_a_shield_that_stands_outside_of_the_layer_shields_nothing_inside():
    async def outside(scope, receive, send):
        with anyio.CancelScope(shield=True):
            await layer(scope, receive, send)

    layer = DeadlineMiddleware(hangs, timeout_s=SOON_S)
    assert anyio.run(ask, outside, http_scope()).status == 504


@each_loop
def test_who_answers_late_is_not_heard(backend):
    async def app(scope, receive, send):
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=backend == "trio"):
                await answers(scope, receive, send)
                late.append(True)
            if backend == "trio":
                raise

    late = []
    layer = DeadlineMiddleware(app, timeout_s=SOON_S)
    answer = anyio.run(ask, layer, http_scope(), backend=backend)
    statuses = [message["status"] for message in answer.messages if "status" in message]
    assert (statuses, len(answer.messages), late) == ([504], 2, [True])


@each_loop
def test_an_endless_stream_behind_a_thread_is_cancelled_where_it_sends(backend):
    async def app(scope, receive, send):
        await anyio.to_thread.run_sync(gate.wait)
        while True:
            await send({"type": "http.response.body", "body": b"more", "more_body": True})
            sent.append(True)

    gate, sent = threading.Event(), []

    async def test():
        async with going_on(DeadlineMiddleware(app, timeout_s=SOON_S)) as exchange:
            await exchange.answered()
            gate.set()
        assert (exchange.statuses, exchange.error, sent) == ([504], None, [])

    run(test, backend)


@each_loop
def test_an_error_of_the_cleanup_is_raised_behind_the_answer(backend):
    async def app(scope, receive, send):
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("in the cleanup")

    async def test():
        async with going_on(DeadlineMiddleware(app, timeout_s=SOON_S)) as exchange:
            pass
        assert exchange.statuses == [504]
        assert isinstance(exchange.error, LookupError)

    run(test, backend)


@each_loop
def test_an_answer_that_cannot_be_sent_is_told_to_the_server(backend):
    async def send(message):
        raise OSError("the client is gone")

    async def test():
        with pytest.raises(OSError, match="the client is gone"):
            await DeadlineMiddleware(hangs, timeout_s=SOON_S)(http_scope(), None, send)

    run(test, backend)


def test_the_answer_is_sent_in_the_context_of_its_own_request():
    """A line has one timer, set by the request that came first."""
    who = ContextVar("who")
    seen = []

    async def outside(scope, receive, send):
        async def told(message):
            seen.append((scope["path"], who.get()))
            await send(message)

        who.set(scope["path"])
        await layer(scope, receive, told)

    layer = DeadlineMiddleware(hangs, timeout_s=SOON_S)

    async def test():
        async with anyio.create_task_group() as tasks:
            for path in ("/a", "/b"):
                tasks.start_soon(ask, outside, http_scope(path))

    run(test)
    assert sorted(seen) == [("/a", "/a")] * 2 + [("/b", "/b")] * 2


# --- cancellation that is not ours --------------------------------------------------------------


@each_loop
def test_cancellation_from_outside_stays_what_it_is(backend):
    async def app(scope, receive, send):
        started.set()
        await anyio.sleep_forever()

    started = None

    async def test():
        nonlocal started
        started = anyio.Event()
        async with going_on(DeadlineMiddleware(app, timeout_s=LONG_S)) as exchange:
            await started.wait()
            exchange.cancel_scope.cancel()
        assert exchange.cancel_scope.cancelled_caught
        assert (exchange.messages, exchange.error) == ([], None)

    run(test, backend)


@pytest.mark.parametrize("swallows", [False, True], ids=["in its cleanup", "swallowed"])
def test_cancellation_from_outside_during_the_cleanup_stays_what_it_is(swallows):
    async def app(scope, receive, send):
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            if not swallows:
                await asyncio.sleep(LONG_S)
                raise
        await asyncio.sleep(LONG_S)

    async def test():
        exchange = Exchange(None)
        layer = DeadlineMiddleware(app, timeout_s=SOON_S)
        task = asyncio.create_task(layer(http_scope(), None, exchange.send))
        await exchange.answered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert exchange.statuses == [504]

    run(test)


def test_both_cancellations_at_once_are_the_one_from_outside():
    async def test():
        layer = DeadlineMiddleware(hangs, timeout_s=SOON_S)
        task = asyncio.create_task(layer(http_scope(), None, Exchange(None).send))
        await asyncio.sleep(0)
        timed = next(iter(layer.deadlines.lines(asyncio.get_running_loop()).line(30_000)._due_us))
        timed.expire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert layer.deadlines.figures.running_on == 0

    run(test)


def test_nothing_is_left_on_the_task():
    async def test():
        layer = DeadlineMiddleware(hangs, timeout_s=SOON_S)
        await layer(http_scope(), None, Exchange(None).send)
        task = asyncio.current_task()
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        assert current_deadline() is None

    run(test)


@each_loop
def test_timeouts_of_the_app_itself_are_its_own(backend):
    async def app(scope, receive, send):
        with anyio.move_on_after(SOON_S / 10) as own:
            await anyio.sleep_forever()
        assert own.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(SOON_S / 10):
            await anyio.sleep_forever()
        await answers(scope, receive, send)

    layer = DeadlineMiddleware(app, timeout_s=LONG_S)
    assert anyio.run(ask, layer, http_scope(), backend=backend).status == 200


def test_a_longer_timeout_of_the_app_does_not_take_ours_for_its_own():
    async def app(scope, receive, send):
        try:
            async with asyncio.timeout(LONG_S):
                with anyio.fail_after(LONG_S):
                    await anyio.sleep_forever()
        except BaseException as exc:
            seen.append(type(exc))
            raise

    seen = []
    answer = anyio.run(ask, DeadlineMiddleware(app, timeout_s=SOON_S), http_scope())
    assert (answer.status, seen) == (504, [asyncio.CancelledError])


@each_loop
def test_tasks_of_the_app_are_cancelled_with_it(backend):
    async def app(scope, receive, send):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(child)

    async def child():
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    ended = []
    layer = DeadlineMiddleware(app, timeout_s=SOON_S)
    answer = anyio.run(ask, layer, http_scope(), backend=backend)
    assert (answer.status, ended) == (504, [True] * 3)


# --- a response that has begun ------------------------------------------------------------------


async def streams(scope, receive, send):
    await send(START)
    await anyio.sleep(SOON_S * 3)
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send(LAST)


@each_loop
def test_a_stream_is_not_cut(backend):
    layer = DeadlineMiddleware(streams, timeout_s=SOON_S)
    answer = anyio.run(ask, layer, http_scope(), backend=backend)
    assert (answer.status, answer.body) == (200, b"adone")


@each_loop
def test_a_stream_is_cut_where_the_timeout_covers_all_of_it(backend):
    async def app(scope, receive, send):
        try:
            await streams(scope, receive, send)
        finally:
            ended.append(True)

    ended = []
    layer = DeadlineMiddleware(app, timeout_s=SOON_S, covers="total")

    async def test():
        async with going_on(layer) as exchange:
            pass
        assert exchange.messages == [START]
        assert isinstance(exchange.error, DeadlineExceededError)
        assert (ended, layer.deadlines.figures.timeouts) == ([True], {"head": 0, "total": 1})

    run(test, backend)


@each_loop
def test_who_swallows_the_cut_cannot_end_the_body(backend):
    async def app(scope, receive, send):
        await send(START)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await send(LAST)

    async def test():
        async with going_on(DeadlineMiddleware(app, timeout_s=SOON_S, covers="total")) as exchange:
            pass
        assert exchange.messages == [START]
        assert isinstance(exchange.error, DeadlineExceededError)

    run(test, backend)


TRAILERS = {"type": "http.response.trailers", "headers": []}


@each_loop
@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([START, LAST], id="last piece"),
        pytest.param([START, {"type": "http.response.pathsend", "path": "/f"}], id="a file"),
        pytest.param([{**START, "trailers": True}, LAST, TRAILERS], id="trailers"),
    ],
)
@pytest.mark.parametrize("covers", ["head", "total"])
def test_the_timeout_ends_with_the_response(backend, covers, messages):
    async def app(scope, receive, send):
        for message in messages:
            seen.append(current_deadline() is None)
            await send(message)
        seen.append(current_deadline() is None)
        await anyio.sleep(SOON_S * 3)  # a background task
        background.append(True)

    seen, background = [], []
    layer = DeadlineMiddleware(app, timeout_s=SOON_S, covers=covers)
    answer = anyio.run(ask, layer, http_scope(), backend=backend)
    assert (answer.messages, background) == (messages, [True])
    assert seen == [False, *[covers == "head"] * (len(messages) - 1), True]
    assert layer.deadlines.figures.timeouts == {"head": 0, "total": 0}


# --- the deadline as the app sees it ------------------------------------------------------------


@each_loop
def test_the_deadline_is_there_in_the_endpoint_and_in_its_threads(backend):
    async def app(scope, receive, send):
        deadline = current_deadline()
        assert 0 < deadline.remaining_s() <= LONG_S
        assert 0 < deadline.remaining_ms() <= LONG_S * 1_000
        assert 0 < remaining_us(scope) <= LONG_S * 1_000_000
        assert not deadline.expired
        assert (deadline.header_name, deadline.header_value()[-1]) == ("grpc-timeout", "m")
        assert await anyio.to_thread.run_sync(lambda: current_deadline() is not None)
        deadline.require(LONG_S / 2)
        await answers(scope, receive, send)

    layer = DeadlineMiddleware(app, timeout_s=LONG_S)
    assert anyio.run(ask, layer, http_scope(), backend=backend).status == 200


def test_without_a_timeout_there_is_no_deadline():
    async def app(scope, receive, send):
        assert current_deadline() is None
        assert remaining_us(scope) is None
        await answers(scope, receive, send)

    layer = DeadlineMiddleware(app, exempt="/", timeout_s=1)
    assert anyio.run(ask, layer, http_scope("/")).status == 200


@each_loop
@pytest.mark.parametrize("way", ["require", "scope", "group"])
def test_an_app_that_gives_up_itself_is_answered_with_504(backend, way):
    async def app(scope, receive, send):
        deadline = current_deadline()
        if way == "require":
            deadline.require(2 * LONG_S)
        elif way == "scope":
            with deadline.within(SOON_S).scope():
                await anyio.sleep_forever()
        else:
            async with anyio.create_task_group():
                deadline.require(2 * LONG_S)

    layer = DeadlineMiddleware(app, timeout_s=LONG_S)
    answer = anyio.run(ask, layer, http_scope(), backend=backend)
    assert (answer.status, layer.deadlines.figures.timeouts["head"]) == (504, 1)
    assert layer.deadlines.figures.running_on == 0


def test_an_app_may_answer_for_itself_where_the_time_is_too_short():
    async def app(scope, receive, send):
        with pytest.raises(DeadlineExceededError, match="120 s are needed") as caught:
            current_deadline().require(120)
        assert caught.value.status == 504
        await answers(scope, receive, send)

    layer = DeadlineMiddleware(app, timeout_s=LONG_S)
    assert anyio.run(ask, layer, http_scope()).status == 200


def test_giving_up_within_a_response_is_an_error_for_the_server():
    async def app(scope, receive, send):
        await send(START)
        raise DeadlineExceededError

    async def test():
        async with going_on(DeadlineMiddleware(app, timeout_s=LONG_S)) as exchange:
            pass
        assert exchange.messages == [START]
        assert isinstance(exchange.error, DeadlineExceededError)

    run(test)


def test_of_two_layers_the_sooner_deadline_is_seen():
    async def app(scope, receive, send):
        seen.append(current_deadline().remaining_s())
        await answers(scope, receive, send)

    seen = []
    for outer_s, inner_s in ((5, 60), (60, 5)):
        inner = DeadlineMiddleware(app, timeout_s=inner_s)
        anyio.run(ask, DeadlineMiddleware(inner, timeout_s=outer_s), http_scope())
    assert all(0 < each <= 5 for each in seen)


# --- what is told by callers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told", "trusted", "expected_s"),
    [
        pytest.param({}, "5S", True, 5, id="alone"),
        pytest.param({"timeout_s": 60}, "5S", True, 5, id="it shortens"),
        pytest.param({"timeout_s": 5}, "60S", True, 5, id="it never lengthens"),
        pytest.param({"header_max_s": 5}, "60S", True, 5, id="cut"),
        pytest.param({}, "5S", False, None, id="not from everybody"),
        pytest.param({"timeout_s": 5}, "1S", False, 5, id="the route's own stays"),
        pytest.param({}, "soon", True, None, id="no time"),
        pytest.param({"header": "x-left-ms"}, "5S", True, None, id="another field"),
        pytest.param({"exempt": "/"}, "5S", True, None, id="exempt"),
    ],
)
def test_a_trusted_caller_may_shorten_the_time(settings, told, trusted, expected_s):
    async def app(scope, receive, send):
        current = current_deadline()
        seen.append(None if current is None else current.remaining_s())
        await answers(scope, receive, send)

    seen = []
    layer = DeadlineMiddleware(app, follow_header=True, trusts=lambda _: trusted, **settings)
    anyio.run(ask, layer, http_scope(headers=[("grpc-timeout", told)]))
    if expected_s is None:
        assert seen == [None]
    else:
        assert expected_s - 1 < seen[0] <= expected_s


def test_headers_that_can_be_read_once_reach_the_app():
    async def app(scope, receive, send):
        assert len(list(scope["headers"])) == 1
        await answers(scope, receive, send)

    scope = http_scope(headers=[("grpc-timeout", "5S")])
    scope["headers"] = map(iter, scope["headers"])
    layer = DeadlineMiddleware(app, follow_header=True, trusts=lambda _: True)
    assert anyio.run(ask, layer, scope).status == 200


def test_nobody_is_trusted_unless_it_is_said_who():
    layer = DeadlineMiddleware(answers, follow_header=True)
    anyio.run(ask, layer, http_scope(headers=[("grpc-timeout", "1n")]))
    assert layer.deadlines.figures.incoming == 0


@each_loop
def test_a_told_deadline_that_is_reached_is_answered_with_504(backend):
    layer = DeadlineMiddleware(hangs, follow_header=True, trusts=lambda _: True)
    scope = http_scope(headers=[("grpc-timeout", "30m")])
    assert anyio.run(ask, layer, scope, backend=backend).status == 504
    assert layer.deadlines.figures.incoming == 1


# --- rules, marks, dry run, figures -------------------------------------------------------------


def test_a_rule_holds_for_its_paths_and_methods():
    layer = DeadlineMiddleware(
        hangs_at_slow, rules=[{"path": "/slow", "methods": ["GET"], "timeout_s": SOON_S}]
    )
    assert anyio.run(ask, layer, http_scope("/slow")).status == 504
    assert anyio.run(ask, layer, http_scope("/slow", method="POST")).status == 200
    assert anyio.run(ask, layer, http_scope("/else")).status == 200


async def hangs_at_slow(scope, receive, send):
    if scope["method"] == "GET" and scope["path"] == "/slow":
        await anyio.sleep_forever()
    await answers(scope, receive, send)


def test_a_mark_takes_the_place_of_the_sections_timeout():
    @timeout(SOON_S)
    def endpoint():
        """Marked."""

    layer = DeadlineMiddleware(hangs, timeout_s=LONG_S)
    layer.deadlines.read_endpoints(lambda _: endpoint)
    assert anyio.run(ask, layer, http_scope()).status == 504


@each_loop
@pytest.mark.parametrize("covers", ["head", "total"])
def test_a_dry_run_only_counts(backend, covers):
    timeout_s = SOON_S if covers == "head" else 10 * SOON_S  # it begins before, and ends after it

    async def counted():
        while not layer.deadlines.figures.dry_timeouts[covers]:
            await anyio.sleep(SOON_S / 10)

    async def app(scope, receive, send):
        assert current_deadline() is None
        if covers == "head":
            await counted()
        await send(START)
        await counted()
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send(LAST)

    layer = DeadlineMiddleware(app, timeout_s=timeout_s, covers=covers, dry_run=True)
    answer = anyio.run(ask, layer, http_scope(), backend=backend)
    assert (answer.status, answer.body) == (200, b"adone")
    figures = layer.deadlines.figures
    assert figures.timeouts == {"head": 0, "total": 0}
    assert figures.dry_timeouts[covers] == 1
    assert figures.running_on == 0


def test_the_figures_are_told_and_reset():
    layer = DeadlineMiddleware(hangs, timeout_s=SOON_S)
    anyio.run(ask, layer, http_scope())
    told = {
        (family.name, point.labels.text): point.value
        for family in layer.deadlines.families()
        for point in family.points
    }
    assert told["perf_deadline_timeouts", 'phase="head"'] == 1
    assert told["perf_deadline_running_on", ""] == 0
    assert told["perf_request_refused", 'reason="slow"'] == 0
    assert layer.deadlines.status()["timeouts"]["head"] == 1
    layer.deadlines.reset_counts()
    assert layer.deadlines.status()["timeouts"]["head"] == 0
