"""The cost of each layer is what its own code took: no waiting, no app, no other layer."""

import anyio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from perf_middleware import Settings, install
from perf_middleware.layer_meter import METER, OUTSIDE, LayerMeter
from perf_middleware.metrics.overhead import Overhead
from perf_middleware.stack import METRICS, REQUEST_SCOPE, Layer, composed_measured
from tests.metrics.wires import Wire, answer, at_once, http, values


def meter_for(overhead, now_ns=0):
    return LayerMeter(overhead, now_ns=now_ns)


def test_each_region_is_charged_with_its_own_time():
    overhead = Overhead(["one", "two"])
    meter = meter_for(overhead)
    for region, now_ns in [
        (0, 100),  # the server took 100
        (1, 1_100),  # layer one took 1000
        (OUTSIDE, 3_100),  # layer two took 2000
        (1, 900_000),  # the app waited
        (0, 900_500),  # layer two took 500
        (OUTSIDE, 900_600),  # layer one took 100
    ]:
        meter.cross(region, now_ns)
    assert meter.spent_ns == [1_100, 2_500]
    overhead.settle(meter)
    assert overhead.mean_us() == {"one": 1.1, "two": 2.5}
    assert values(overhead.families()) == {
        "perf_layer_seconds": {("one",): 1.1e-6, ("two",): 2.5e-6},
        "perf_layer_samples": {("one",): 1, ("two",): 1},
    }


def test_before_the_first_sample_there_is_no_mean():
    overhead = Overhead(["one"])
    assert overhead.mean_us() == {}
    overhead.settle(meter_for(overhead))
    overhead.reset()
    assert overhead.mean_us() == {}


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 10**9)), max_size=50))
def test_no_layer_is_charged_more_than_the_time_that_passed(crossings):
    meter, now_ns = meter_for(Overhead(["one", "two", "three"])), 0
    for region, passed_ns in crossings:
        now_ns += passed_ns
        meter.cross(region, now_ns)
    assert all(ns >= 0 for ns in meter.spent_ns)
    assert sum(meter.spent_ns) <= now_ns


class Slow:
    """A layer that takes a known time on the way in, out, and for each message."""

    def __init__(self, app, clock, seconds):
        self.app, self.clock, self.seconds = app, clock, seconds

    async def __call__(self, scope, receive, send):
        async def slow_send(message):
            self.clock.pass_s(self.seconds)
            await send(message)

        self.clock.pass_s(self.seconds)
        await self.app(scope, receive, slow_send)
        self.clock.pass_s(self.seconds)


def test_layers_in_a_stack_are_told_apart(clock, monkeypatch):
    monkeypatch.setattr("perf_middleware.stack.perf_counter_ns", clock)

    async def app(scope, receive, send):
        clock.pass_s(50)
        await receive()
        clock.pass_s(50)
        await answer(send)

    class SlowWire(Wire):
        async def receive(self):
            clock.pass_s(100)
            return await super().receive()

        async def send(self, message):
            clock.pass_s(100)
            await super().send(message)

    layers = [
        Layer(METRICS, lambda inner: Slow(inner, clock, 0.001)),
        Layer(REQUEST_SCOPE, lambda inner: Slow(inner, clock, 0.01)),
    ]
    meter = meter_for(Overhead(["one", "two"]), clock())
    scope = http() | {METER: meter}
    at_once(SlowWire(scope).serve(composed_measured(layers, app, first=0)))
    # In, out and two messages: four times each.
    assert meter.spent_ns == [4_000_000, 40_000_000]


class Passing:
    """A user's middleware between our layers."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


def test_one_request_in_so_many_is_sampled_and_answered_as_always():
    async def page(request):
        return PlainTextResponse("page")

    app = Starlette(routes=[Route("/", page)], middleware=[Middleware(Passing)])
    settings = Settings(runtime={"enabled": False}, metrics={"overhead_sample_every": 3})
    perf = install(app, settings)
    with TestClient(app) as client:
        assert perf.status()["overhead_us"] == {}
        for _ in range(7):
            assert client.get("/").text == "page"
    told = perf.status()["overhead_us"]
    assert set(told) == {
        "metrics",
        "operator endpoints",
        "compression",
        "response cache",
        "memory watch",
        "request scope",
    }
    assert all(us > 0 for us in told.values())
    families = {f.name: f for f in perf.metrics.families()}
    samples = {point.value for point in families["perf_layer_samples"].points}
    assert samples == {2}


def test_a_request_that_waits_for_anothers_answer_is_not_charged_with_the_wait(clock, monkeypatch):
    for module in ("perf_middleware.stack", "perf_middleware.caching.middleware.missing"):
        monkeypatch.setattr(f"{module}.perf_counter_ns", clock)

    async def act():
        gate = anyio.Event()

        async def page(request):
            await gate.wait()
            return PlainTextResponse("page", headers={"cache-control": "max-age=60"})

        app = Starlette(routes=[Route("/", page)])
        perf = install(
            app, Settings(runtime={"enabled": False}, metrics={"overhead_sample_every": 1})
        )
        wires = [Wire(http()) for _ in range(3)]
        async with anyio.create_task_group() as tasks:
            for wire in wires:
                tasks.start_soon(wire.serve, app)
            await anyio.wait_all_tasks_blocked()
            clock.pass_s(50)
            gate.set()
        assert perf.status()["cache"]["collapsed"] == 2
        assert perf.status()["overhead_us"] == {}

    anyio.run(act)
