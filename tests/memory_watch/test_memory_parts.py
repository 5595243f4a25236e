"""How the parts of the memory watch work together in an app as `install` makes it."""

import gc
import threading

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from perf_middleware import Settings, install
from perf_middleware.memory_parts import Served
from perf_middleware.memory_watch.cleanup import Pressure
from perf_middleware.memory_watch.ladder import HARD, NORMAL, SOFT
from perf_middleware.memory_watch.reading import Bound, MemorySample
from perf_middleware.memory_watch.shedding import EVERYBODY, NOBODY
from perf_middleware.route_templates import RouteTemplates


@pytest.fixture
def perf():
    return install(FastAPI(), Settings(memory={"shed": True}))


def test_requests_go_on_to_be_counted_where_an_operator_sets_the_count_back():
    counts = iter([10, 25, 3, 3, 0, 7])
    served = Served(lambda: next(counts))
    assert [served() for _ in range(6)] == [10, 25, 28, 28, 28, 35]


def test_no_trace_begins_where_memory_is_short(perf):
    must_stop = perf.memory.inspect.tracer.must_stop
    for step, stops in ((NORMAL, False), (SOFT, False), (HARD, True)):
        perf.memory.watch.step = step
        assert must_stop() is stops


def test_two_snapshots_of_the_same_second_differ_by_what_was_made_between(perf):
    inspect = perf.memory.inspect
    gc.collect()  # else what is freed meanwhile may be more
    before = inspect.snapshot()
    kept = [{} for _ in range(20_000)]
    told = inspect.compare(before, inspect.snapshot())
    assert told.readings["allocated_blocks"].change >= 0.9 * len(kept)


def test_who_looks_into_growth_closes_before_the_looks_it_begins(perf):
    names = list(perf.status()["resources"])
    # In reverse: the watch, then what its inquiries have begun.
    assert names.index("memory inspection") < names.index("memory watch")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="default"),
        pytest.param({"memory": {"enabled": False}}, id="no watch, though leaks are on"),
        pytest.param({"leaks": {"enabled": False}}, id="no leaks"),
        pytest.param({"metrics": {"enabled": False}}, id="no metrics"),
        pytest.param(
            {"metrics": {"enabled": False}, "memory": {"shed": True, "finish": True}},
            id="shedding without metrics",
        ),
        pytest.param({"dashboard": {"enabled": False}}, id="no dashboard"),
        pytest.param({"overload": {"enabled": False}, "memory": {"shed": True}}, id="no level"),
    ],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_thread_is_left_after_the_app(settings, backend):
    app = FastAPI()
    perf = install(app, Settings(**settings))
    before = set(threading.enumerate())
    for _ in range(2):  # and it may start again
        with TestClient(app, backend=backend) as client:
            client.get("/nothing")
            assert perf.status()
            memory = settings.get("memory", {})
            assert perf.memory.watch.is_watching is memory.get("enabled", True)
    left = [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
    assert [thread.name for thread in left if "perf" in thread.name] == []


def test_who_refuses_requests_hears_that_memory_cannot_be_read_any_more(perf, monkeypatch):
    watch, guard = perf.memory.watch, perf.memory.guard
    guard.refused_from = EVERYBODY

    def broken():
        raise OSError("no such file")

    monkeypatch.setattr(watch._lookout, "_sample", broken)
    monkeypatch.setattr(watch._lookout, "share", lambda: None)  # the last look is too old
    for _ in range(4):
        watch.look()
    assert watch.step == NORMAL
    assert guard.refused_from == NOBODY


def test_memory_that_stays_soft_costs_a_cache_one_half(monkeypatch):
    perf = install(FastAPI(), Settings())
    watch, asked = perf.memory.watch, []
    monkeypatch.setattr(perf.memo, "shrink", lambda share: asked.append(share) or 1)
    bound = Bound(name="configured", used_bytes=80 << 20, limit_bytes=100 << 20)
    now_us = [0]

    def soft():
        now_us[0] += 1_000_000_000
        return MemorySample(at_us=now_us[0], rss_bytes=80 << 20, bounds=(bound,))

    monkeypatch.setattr(watch._lookout, "_sample", soft)
    monkeypatch.setattr(watch._lookout, "_clock", lambda: now_us[0])
    monkeypatch.setattr(watch._cleaning, "_sample", soft)
    for _ in range(4):
        watch.look()
    assert watch.counts.cleanups[SOFT] == 4
    assert asked == [0.5]


def test_the_bodies_that_compression_remembers_are_known_and_a_share_is_let_go(perf):
    repeats, known_bytes = perf.compression.repeats, perf.memory.probe._known_bytes
    before = known_bytes()
    for number in range(8):
        repeats.keep(number, b"%d" % number, "gzip", 4, b"form")
    assert known_bytes() - before == repeats.held_bytes > 0
    cleaners = {each.name: each.callback for each in perf.memory.watch._cleaning.cleaners}
    let_go = cleaners["repeated bodies"]
    assert let_go(Pressure(step=SOFT, used_bytes=80, shrink_share=0.0)) == 0
    assert let_go(Pressure(step=SOFT, used_bytes=80, shrink_share=0.5)) > 0
    assert len(repeats) == 4


def test_workers_take_turns_where_they_meet_for_their_figures(tmp_path):
    settings = Settings(service="shop", metrics={"workers_dir": tmp_path}, memory={"finish": True})
    finisher = install(FastAPI(), settings).memory.guard.finisher
    assert finisher._turn.take(10**12) is None
    assert (tmp_path / "shop.turn").exists()
    finisher._turn.give_back()


def test_the_route_of_a_long_collection_is_told_and_nothing_is_logged_inside_it(
    monkeypatch, caplog
):
    app, told = FastAPI(), []
    perf = install(app)

    @app.get("/rows/{number}")
    async def rows(number: int):
        told.append(perf.memory.gc.route_running())
        with monkeypatch.context() as patched:
            patched.setattr(RouteTemplates, "template_of", unreadable)
            with pytest.raises(LookupError):  # the collector's callback counts it
                perf.memory.gc.route_running()

    def unreadable(templates, scope, root_path):
        raise LookupError

    with TestClient(app) as client:
        assert client.get("/rows/5").status_code == 200
    assert told == ["/rows/{number}"]
    assert "could not be named" not in caplog.text
