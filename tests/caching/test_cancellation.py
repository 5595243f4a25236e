"""A request that is cancelled, at any of its steps, leaves nothing behind and harms nobody."""

import anyio
import anyio.lowlevel
import pytest

from tests.caching.stage import (
    BACKENDS,
    App,
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
)

STEPS_MAX = 40
ETAG = (b"etag", b'"1"')
CONTROL = (b"cache-control", b"max-age=10, stale-while-revalidate=20, stale-if-error=100")


class Stepwise:
    """Cancels its caller at the n-th point where it waits, whoever waits there."""

    def __init__(self, step):
        self.scope = anyio.CancelScope()
        self.steps = 0
        self._step = step

    async def point(self):
        self.steps += 1
        if self.steps == self._step:
            self.scope.cancel()
        await anyio.lowlevel.checkpoint()


class SlowApp(App):
    """Takes a step between any two messages, and one to read its request."""

    def __init__(self, *headers, **more):
        super().__init__(*headers, **more)
        self.cancels = None

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        await receive()
        await self._point()
        if self.status == 599:
            raise RuntimeError("broken")
        await send(start(*self.headers, status=self.status))
        await self._point()
        if self.status == 200:
            for part in (b"he", b"l"):
                await send(more(part))
                await self._point()
        await send(end(b"lo" if self.status == 200 else b""))
        await self._point()

    async def _point(self):
        if self.cancels is not None:
            await self.cancels.point()


class SteppedClient(Client):
    def __init__(self, cancels, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._cancels = cancels

    async def send(self, message):
        await self._cancels.point()
        await super().send(message)
        await self._cancels.point()

    async def receive(self):
        await self._cancels.point()
        return await super().receive()


SITUATIONS = {
    "a miss": {"past_s": None},
    "a hit": {"past_s": 1},
    "a hit in part": {"past_s": 1, "headers": [(b"range", b"bytes=0-1")]},
    "a stale hit and its refresh": {"past_s": 15},
    "a confirmation": {"past_s": 50, "status": 304},
    "a new answer for a stale one": {"past_s": 50},
    "a failure that is hidden": {"past_s": 50, "status": 503},
    "an app that raises, hidden": {"past_s": 50, "status": 599},
}


@BACKENDS
@pytest.mark.parametrize("followers", [0, 3], ids=["alone", "others wait"])
@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)
def test_whoever_is_cancelled_at_any_step_leaves_nothing_open(
    backend, situation, followers, caplog
):
    """From the first step to the last there is; then the next requests are as good as ever."""

    async def one(step):
        clock = Clock()
        app = SlowApp(CONTROL, ETAG)
        layer = cached(app, clock)
        if situation["past_s"] is not None:
            await ask(layer)
            clock.pass_s(situation["past_s"])
            app.status = situation.get("status", 200)
        cancels = app.cancels = Stepwise(step)
        client = SteppedClient(cancels, "/", *situation.get("headers", ()))
        others = [Client() for _ in range(followers)]

        async def cancelled():
            with cancels.scope:
                await client.ask(layer)
            app.cancels = None

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled)
            await settle(1)
            for other in others:
                tasks.start_soon(other.ask, layer)
        assert_at_rest(layer.cache)
        app.status = 200
        assert {other.body for other in others} <= {b"hello"}
        assert all(other.raised is None for other in others)
        for _ in range(2):
            assert (await ask(layer)).body == b"hello"
        assert_at_rest(layer.cache)
        return cancels.steps >= step

    async def act():
        with anyio.fail_after(120):
            step = 1
            while await one(step):
                step += 1
            assert 2 < step < STEPS_MAX

    caplog.set_level(100, "perf_middleware.caching")
    run(act, backend)


@BACKENDS
@pytest.mark.parametrize("messages", range(5))
def test_whose_client_breaks_off_at_any_message_leaves_nothing_open(backend, messages):
    async def act():
        for past_s in (None, 1, 15, 50):
            clock = Clock()
            app = SlowApp(CONTROL, ETAG)
            layer = cached(app, clock)
            if past_s is not None:
                await ask(layer)
                clock.pass_s(past_s)
            left = [None] * messages

            def on_send(message, left=left):
                if not left:
                    raise OSError("the client is gone")
                left.pop()

            await Client(on_send=on_send).ask(layer)
            assert_at_rest(layer.cache)
            assert (await ask(layer)).body == b"hello"

    run(act, backend)


@BACKENDS
def test_one_who_waits_and_is_cancelled_waits_no_more(backend):
    async def act():
        app = App(gate=anyio.Event())
        layer = cached(app)
        leader = Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leader.ask, layer)
            await settle(5)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as waiting:
                    for _ in range(5):
                        waiting.start_soon(Client().ask, layer)
                    await settle()
                    assert layer.cache.flights.waiting == 5
                    scope.cancel()
            assert layer.cache.flights.waiting == 0
            assert app.calls == 1
            app.gate.set()
        assert leader.body == b"hello"
        assert_at_rest(layer.cache)

    run(act, backend)
