"""From what is seen once a second to one verdict, told once."""

import json
import logging
import math
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.events import Events, MemoryVerdict
from perf_middleware.memory_watch.leaks.route_growth import RouteGrowth
from perf_middleware.memory_watch.leaks.runtime import LeakWatch, leak_watch_of
from perf_middleware.memory_watch.leaks.runtime.inquiry import Looks
from perf_middleware.memory_watch.leaks.settings import LeakSettings
from perf_middleware.memory_watch.leaks.verdict import FillingCache, GrowingType
from tests.memory_watch.leaks.synthetic import BASE_BLOCKS, KB, MB, RATE, Grown, Report, witness

LINE = "/srv/app/orders.py:42"
LEAK = Report((Grown(LINE, 195 * KB), Grown("/srv/app/log.py:7", 300)))
ORDINARY = Report((Grown("/srv/app/log.py:7", 300),))


class FakeCensus:
    """What fills, and what there is more of, as the test says."""

    def __init__(self, *filling, more=()):
        self._filling, self._more = filling, more

    def filling(self):
        return self._filling

    def more_than(self, before):
        return self._more


class Told:
    """A watch with what it is told and what it tells."""

    def __init__(
        self, caplog, *, report=LEAK, census=None, garbage_share=0.0, traced=True, **options
    ):
        caplog.set_level(logging.INFO, logger="perf_middleware.memory_watch")
        self._caplog = caplog
        self.events = []
        self.traces = []
        self.report = report
        self._garbage_share = garbage_share
        self._seen = None
        events = Events()
        events.subscribe(MemoryVerdict, self.events.append)
        self.watch = LeakWatch(
            events=events,
            looks=Looks(
                census=lambda: FakeCensus() if census is None else census,
                collect=self._collect,
                trace=self._trace if traced else None,
                trace_s=5,
                start=lambda work: work(),
            ),
            **options,
        )

    def _collect(self):
        """What is left: all that had grown, but for the share that is garbage."""
        grown = self._seen.blocks - BASE_BLOCKS, self._seen.malloc_bytes or 0
        return tuple(round(each * (1 - self._garbage_share)) for each in grown)

    def _trace(self, seconds):
        self.traces.append(seconds)
        if isinstance(self.report, Exception):
            raise self.report
        return self.report

    def see(self, look, until_s, *, from_s=0):
        for second in range(from_s, until_s):
            self._seen = look(second)
            self.watch.observe(self._seen)
        return self

    @property
    def kinds(self):
        return [event.kind for event in self.events]

    @property
    def lines(self):
        return [
            (record.levelname, record.getMessage())
            for record in self._caplog.records
            if record.name == "perf_middleware.memory_watch"
        ]


def leak(second):
    return witness(second, 200 * KB * second)


def test_a_leak_is_told_once_with_its_line_and_its_figures(caplog):
    told = Told(caplog, room_bytes=lambda: 480 * MB).see(leak, 60)
    assert told.kinds == ["leak"]
    assert told.events[0].where == LINE
    assert told.events[0].bytes_per_s == pytest.approx(200 * KB)
    assert told.events[0].bytes_per_request == pytest.approx(KB)
    assert told.traces == [5]
    [(level, line)] = told.lines
    assert level == "WARNING"
    for part in (
        f"memory leak at {LINE}",
        "200 kB/s (200-200, 95 %)",
        "1 kB a request",
        "blocks +200/s",
        "malloc +200 kB/s",
        "the tightest limit is reached in 40 min",
        f"{LINE} 195 kB/s (5 blocks)",
    ):
        assert part in line
    assert "log.py" not in line  # too little to be named
    told.see(leak, 600, from_s=60)
    assert told.kinds == ["leak"]
    assert len(told.lines) == 1


def test_it_is_told_before_a_minute_is_over(caplog):
    told = Told(caplog).see(leak, 50)  # the fake trace takes no time, a real one five seconds
    assert told.kinds == ["leak"]


def test_a_leak_that_still_grows_is_traced_again_after_the_gap(caplog):
    told = Told(caplog, trace_gap_us=160_000_000).see(leak, 240)
    assert len(told.traces) == 2
    assert told.kinds == ["leak"]
    told.report = Report((Grown("/srv/app/users.py:9", 195 * KB),))
    told.see(leak, 420, from_s=240)
    assert [event.where for event in told.events] == [LINE, "/srv/app/users.py:9"]


CLEAN = [
    pytest.param(lambda s: witness(s, 0), id="nothing grows"),
    pytest.param(lambda s: witness(s, 0, noise=30 * MB), id="noise"),
    pytest.param(lambda s: witness(s, 500 * KB * min(s, 35)), id="a dictionary fills for 35 s"),
    pytest.param(lambda s: witness(s, 500 * KB * min(s, 41)), id="one fills for 41 s"),
    pytest.param(lambda s: witness(s, 6 * MB * min(s, 8)), id="a start of 8 s"),
    pytest.param(lambda s: witness(s, 9 * MB * math.log1p(s)), id="a logarithm"),
    pytest.param(lambda s: witness(s, 30 * MB * (1 - math.exp(-s / 15))), id="it saturates"),
    pytest.param(lambda s: witness(s, 20 * MB * (s % 5 == 0)), id="batches"),
    pytest.param(lambda s: witness(s, MB * (s % 9)), id="a short saw-tooth"),
    pytest.param(lambda s: witness(s, 300 * KB * (s % 45 if s % 45 < 33 else 0)), id="sessions"),
    pytest.param(lambda s: witness(s, 300 * KB * s, known=300 * KB * s), id="a known cache"),
    pytest.param(lambda s: witness(s, 40 * MB * (s > 30)), id="a step"),
]


@pytest.mark.parametrize("look", CLEAN)
def test_what_ends_is_no_leak_though_a_line_allocates(look, caplog):
    """The trace names a line with the full rate, as one does that replaces what it had."""
    told = Told(caplog).see(look, 180)
    assert "leak" not in told.kinds
    assert all(level == "INFO" for level, _ in told.lines)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 50 * MB))
def test_noise_of_any_size_around_a_constant_is_never_a_leak(seed, size):
    """Though each trace names a line that allocates as fast as it may."""
    chance = random.Random(seed)
    watch = LeakWatch(
        looks=Looks(
            census=None,
            collect=None,
            trace=lambda _: Report((Grown(LINE, size),)),
            trace_s=5,
            start=lambda work: work(),
        ),
        trace_gap_us=16_000_000,
    )
    for second in range(240):
        watch.observe(witness(second, chance.randint(0, size)))
        assert watch.verdict is None or watch.verdict.kind != "leak"


def test_a_bounded_cache_that_fills_is_named(caplog):
    cache = FillingCache(
        name="app.prices", entries=1_200, entries_max=10_000, entries_per_s=90, bytes_per_s=180 * KB
    )
    told = Told(caplog, census=FakeCensus(cache)).see(leak, 300)
    assert told.kinds == ["levels_off"]
    assert told.traces == []
    [(level, line)] = told.lines
    assert (level, "app.prices fills, 1,200 of 10,000" in line) == ("INFO", True)
    assert told.watch.counts.inquiries > 1  # looked at again, said once


def test_a_cache_too_slow_to_explain_it_hides_no_leak(caplog):
    cache = FillingCache(
        name="app.prices", entries=1_200, entries_max=10_000, entries_per_s=9, bytes_per_s=18 * KB
    )
    assert Told(caplog, census=FakeCensus(cache)).see(leak, 60).kinds == ["leak"]


def test_growth_that_a_collection_frees_is_no_leak(caplog):
    told = Told(caplog, garbage_share=0.9).see(leak, 60)
    assert [event.reason for event in told.events] == ["garbage"]
    assert told.lines[0][0] == "INFO"


def test_a_little_garbage_hides_no_leak(caplog):
    assert Told(caplog, garbage_share=0.3).see(leak, 60).kinds == ["leak"]


def native(second):
    return witness(second, 200 * KB * second, blocks=0)


def test_what_no_line_explains_is_native_after_some_minutes(caplog):
    told = Told(caplog, report=ORDINARY).see(native, 120)
    assert told.kinds == []
    told.see(native, 600, from_s=120)
    assert [event.reason for event in told.events] == ["native"]
    assert "outside Python's allocator" in told.lines[0][1]
    assert "memray" in told.lines[0][1]


def test_without_a_trace_a_leak_takes_longer_and_has_no_line(caplog):
    told = Told(caplog, traced=False).see(leak, 300)
    assert told.kinds == []
    told.see(leak, 700, from_s=300)
    assert [(event.reason, event.where) for event in told.events] == [("untraced", "")]


def test_traces_that_find_nothing_become_rare(caplog):
    told = Told(caplog, report=ORDINARY, trace_gap_us=720_000_000)

    def unexplained(second):
        return witness(second, 200 * KB * second, malloc=False)

    told.see(unexplained, 1_500)
    assert told.kinds == []
    assert len(told.traces) == 6  # the gaps are 45, 90, 180, 360, 720 s and the time of an inquiry


def test_a_trace_that_was_cut_short_is_repeated_soon(caplog):
    told = Told(caplog, report=Report((), ended_early="the process is busy")).see(leak, 120)
    assert told.kinds == []
    told.report = LEAK
    told.see(leak, 200, from_s=120)
    assert [event.where for event in told.events] == [LINE]


def test_a_trace_that_could_not_be_had_is_repeated_soon_and_is_none(caplog):
    """The process was too busy, or an operator, or another app in it, traced just then."""
    told = Told(caplog, report=None).see(leak, 240)
    assert told.kinds == []
    assert len(told.traces) == 3
    assert told.watch.counts.tracings == 0
    told.report = LEAK
    told.see(leak, 320, from_s=240)
    assert [event.where for event in told.events] == [LINE]


def test_a_trace_in_a_pause_of_the_load_names_no_line_and_is_repeated_soon(caplog):
    """What the library allocates meanwhile would seem to explain what next to no requests leave."""
    library = Grown("lib.py:1", 15 * KB, is_own=False)
    told, tracing, served = Told(caplog, report=Report((library,))), [], 0
    told.watch._looks.start = tracing.append
    since = None
    for second in range(220):
        served += 0 if tracing else RATE
        seen = witness(second, served * KB, requests=served)
        told.see(lambda at, seen=seen: seen, second + 1, from_s=second)
        since = second if tracing and since is None else since
        if tracing and second - since >= 6:
            tracing.pop()()
            since = None
        if second == 80:
            assert told.kinds == []
            told.report = LEAK
            told.watch._looks.start = lambda work: work()
    assert [event.where for event in told.events] == [LINE]
    assert told.events[0].reason == "traced"


def test_a_leak_of_requests_that_come_in_bursts_is_told_though_one_half_of_a_trace_had_none(
    caplog,
):
    burst = Grown(LINE, 200 * KB, is_momentary=True)
    told, tracing, since = Told(caplog, report=Report((burst,))), [], None
    told.watch._looks.start = tracing.append
    for second in range(75):
        served = (second // 5 * 5 + 5 * (second % 5 > 0)) * RATE
        seen = witness(second, served * KB, requests=served)
        told.see(lambda at, seen=seen: seen, second + 1, from_s=second)
        since = second if tracing and since is None else since
        if tracing and second - since >= 6:
            tracing.pop()()
    assert [(event.reason, event.where) for event in told.events] == [("traced", LINE)]


def test_a_leak_told_without_its_line_gets_it_once_it_can_be_traced(caplog):
    told = Told(caplog, report=None).see(leak, 700)
    assert [event.reason for event in told.events] == ["untraced"]
    told.report = LEAK
    told.see(leak, 800, from_s=700)
    assert [event.reason for event in told.events] == ["untraced", "traced"]


def test_beside_a_line_of_a_library_the_apps_own_is_named(caplog):
    library = Grown("contextlib.py:473", 150 * KB, is_own=False)
    own = Grown(LINE, 40 * KB, count=1)
    told = Told(caplog, report=Report((library, own))).see(leak, 60)
    assert told.events[0].where == library.where
    assert f"memory leak at contextlib.py:473 (of the app's own lines {LINE});" in told.lines[0][1]
    assert f"{LINE} 40 kB/s (1 block)" in told.lines[0][1]


def test_what_a_trace_has_seen_before_it_was_cut_short_counts(caplog):
    report = Report(LEAK.sites, ended_early="the process is busy")
    assert [event.where for event in Told(caplog, report=report).see(leak, 60).events] == [LINE]


def test_a_line_that_grew_in_one_half_alone_comes_after_one_that_grew_alike(caplog):
    burst = Grown("/srv/app/burst.py:3", 220 * KB, is_momentary=True)
    told = Told(caplog, report=Report((burst, LEAK.sites[0]))).see(leak, 60)
    assert told.events[0].where == LINE
    assert [site.where for site in told.watch.verdict.sites] == [LINE, burst.where]


def test_what_is_alive_for_a_moment_explains_no_growth(caplog):
    """A list made for each request is there whenever one looks: in one run it explained a cache."""
    moment = Grown("/srv/app/moment.py:65", 220 * KB, is_momentary=True)
    told = Told(caplog, report=Report((moment, Grown("/srv/app/cache.py:28", 14 * KB))))
    assert told.see(leak, 60).kinds == []


def test_a_trace_that_fails_is_counted_and_nothing_is_told(caplog):
    told = Told(caplog, report=RuntimeError("tracemalloc is in use")).see(leak, 120)
    assert told.kinds == []
    assert told.watch.counts.failures == 1
    assert told.watch.status()["failures"] == 1
    told.report = LEAK
    told.see(leak, 400, from_s=120)
    assert told.kinds == ["leak"]


def test_a_census_that_fails_is_logged_once_and_the_watch_goes_on(caplog):
    def fails():
        raise RuntimeError("no objects")

    watch = LeakWatch(
        looks=Looks(census=fails, collect=None, trace=lambda _: LEAK, trace_s=5, start=None)
    )
    for second in range(200):
        watch.observe(leak(second))
    assert watch.counts.failures > 1
    assert sum("failed" in record.getMessage() for record in caplog.records) == 1


def test_a_leak_that_levels_off_is_taken_back(caplog):
    told = Told(caplog).see(lambda s: witness(s, 200 * KB * min(s, 70)), 140)
    assert told.kinds == ["leak", "levels_off"]
    assert [event.taken_back for event in told.events] == [False, True]
    level, line = told.lines[1]
    assert level == "INFO"
    assert line.startswith(f"taken back: memory leak at {LINE}; now memory growth levels off")
    assert told.watch.counts.taken_back == 1


def test_a_leak_is_not_taken_back_because_nobody_asks(caplog):
    def load_stops(second):
        requests = RATE * min(second, 70)
        return witness(second, KB * requests, requests=requests)

    assert Told(caplog).see(load_stops, 300).kinds == ["leak"]


def test_fragmentation_is_told_once_with_what_helps(caplog):
    told = Told(caplog).see(lambda s: witness(s, 0, occupied=2 * MB * s), 600)
    assert [event.reason for event in told.events] == ["pieces"]
    [(level, line)] = told.lines
    assert level == "INFO"
    for word in ("malloc_trim", "MALLOC_ARENA_MAX", "jemalloc"):
        assert word in line


def test_memory_that_is_given_back_and_still_occupied_is_fragmentation(caplog):
    def stays(second):
        return witness(second, 200 * MB if second < 60 else 0, occupied=200 * MB, blocks=0)

    told = Told(caplog).see(stays, 240)
    assert [event.reason for event in told.events] == ["kept"]
    assert "200 MB that was given back is still occupied" in told.lines[0][1]


def test_nothing_is_judged_while_it_warms_up(caplog):
    told = Told(caplog, warm_up_us=3_600_000_000).see(leak, 600)
    assert told.kinds == []
    assert told.watch.judge().text() == "memory: too early to judge"


def test_the_evidence_is_there_at_any_time(caplog):
    told = Told(caplog, traced=False).see(leak, 60)
    evidence = told.watch.judge()
    assert evidence.text() == "memory: no growth that is a leak"
    assert evidence.growth[0].amount.per_s.slope == pytest.approx(200 * KB)
    json.dumps(told.watch.status())


def test_status_and_figures_show_the_leak(caplog):
    told = Told(
        caplog,
        census=FakeCensus(more=(GrowingType(name="app.Order", more=990),)),
        routes=routes_that_leak(),
    ).see(leak, 60)
    status = json.loads(json.dumps(told.watch.status()))
    assert status["verdict"]["kind"] == "leak"
    assert status["verdict"]["sites"][0]["where"] == LINE
    assert status["verdict"]["types"] == {"app.Order": 990}
    assert status["verdict"]["routes"][0]["route"] == "/orders/{id}"
    assert "/orders/{id} grows by 1.02 kB and 1 block a request (n=40)" in told.lines[0][1]
    values = {
        (family.name, point.labels.text): point.value
        for family in told.watch.families()
        for point in family.points
    }
    assert values["perf_memory_leak_suspected", ""] == 1
    assert values["perf_memory_leak_verdicts", 'verdict="leak"'] == 1
    assert values["perf_memory_leak_tracings", ""] == 1
    assert values["perf_memory_route_growth_blocks", 'route="/orders/{id}"'] == 1
    told.watch.reset_counts()
    assert told.watch.counts.verdicts["leak"] == 0
    assert told.watch.verdict is not None


def routes_that_leak():
    left = [0, 0]
    routes = RouteGrowth(in_use=lambda: tuple(left), route_of=lambda scope: scope["path"])
    for _ in range(40):
        scope = {"path": "/orders/{id}"}
        token = routes.begin(scope)
        left[0] += 1
        left[1] += 1_024
        routes.end(token, scope)
        routes.begin(scope)
    return routes


def test_a_trace_that_does_not_come_back_is_not_waited_for(caplog):
    watch = LeakWatch(
        looks=Looks(
            census=None, collect=None, trace=lambda _: LEAK, trace_s=5, start=lambda work: None
        )
    )
    for second in range(160):
        watch.observe(leak(second))
    assert watch.judge().is_looking
    for second in range(160, 175):
        watch.observe(leak(second))
    assert not watch.judge().is_looking
    assert watch.counts.failures == 1
    assert "has not come back" in caplog.text


def test_the_trace_runs_beside_the_watch():
    """The watch goes on to hear, while a trace that takes its time has not come back."""
    may_end, has_begun = threading.Event(), threading.Event()

    def trace(seconds):
        assert threading.current_thread().name == "perf-middleware-leak-inquiry"
        has_begun.set()
        may_end.wait(20)
        return LEAK

    watch = leak_watch_of(LeakSettings(census=False, collect=False), trace=trace)
    for second in range(60):
        watch.observe(leak(second))
    assert has_begun.wait(20)
    assert watch.judge().text() == "memory: growth is being looked into"
    assert watch.verdict is None
    may_end.set()
    for thread in threading.enumerate():
        if thread.name == "perf-middleware-leak-inquiry":
            thread.join(20)
    for second in range(60, 75):
        watch.observe(leak(second))
    assert watch.verdict.sites[0].where == LINE


def test_inquiries_that_need_no_trace_become_rarer(caplog):
    cache = FillingCache(
        name="app.prices", entries=1_200, entries_max=10_000, entries_per_s=90, bytes_per_s=180 * KB
    )
    told = Told(caplog, census=FakeCensus(cache)).see(leak, 1_800)
    assert told.watch.counts.inquiries in range(8, 12)  # two after a minute, then 120, 225 s


def test_a_leak_whose_line_cannot_be_had_is_looked_into_ever_more_seldom(caplog):
    told = Told(caplog, report=None).see(leak, 2_400)
    assert [event.reason for event in told.events] == ["untraced"]
    assert len(told.traces) in range(8, 14)


def test_a_status_reckons_nothing(caplog, monkeypatch):
    told = Told(caplog).see(leak, 60)
    monkeypatch.setattr("perf_middleware.memory_watch.leaks.runtime.growth_of", None)
    assert [growth.level for growth in told.watch.judge().growth] == [0]
    assert told.watch.status()["growth"]


def test_an_inquiry_that_is_given_up_does_nothing_more():
    asked, has_begun, told_to_stop = [], threading.Event(), threading.Event()

    def trace(seconds):
        has_begun.set()
        told_to_stop.wait(20)
        return LEAK

    def count():
        asked.append("census")
        return FakeCensus()

    threads = []

    def start(work):
        threads.append(threading.Thread(target=work))
        threads[0].start()

    looks = Looks(
        census=count, collect=lambda: asked.append("collect"), trace=trace, trace_s=5, start=start
    )
    watch = LeakWatch(looks=looks)
    for second in range(60):
        watch.observe(leak(second))
    assert has_begun.wait(20)
    watch.give_up()
    told_to_stop.set()
    threads[0].join(20)
    assert asked == ["census"]  # the first look at caches, before the trace
    assert not watch.judge().is_looking
    watch.observe(leak(60))
    assert watch.verdict is None
