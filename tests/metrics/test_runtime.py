"""`perf.metrics` gathers, resets, exports and samples, and nothing of it can fail a scrape."""

import logging
import threading
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from perf_middleware.families import NO_LABELS, Value, counter
from perf_middleware.metrics.exposition.page import CHUNK_LINES_MAX
from perf_middleware.metrics.middleware import MetricsMiddleware, RequestRecorder
from perf_middleware.metrics.routes import MetricsPage, ResetCounts
from perf_middleware.metrics.runtime import Metrics, Sampler
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S
from tests.metrics.wires import REQUEST, Wire, hello, http, request, run, values

SECOND_NS = 1_000_000_000


def made(**options):
    recorder = RequestRecorder(**options)
    return Metrics(recorder=recorder, label_sets_max=100, buckets_s=DEFAULT_BUCKETS_S)


def with_series(number, **options):
    """Figures of `number` routes, a request each."""
    metrics = made(**options)
    for route in range(number):
        series = metrics.recorder.figures.series("GET", f"/route-{route}/{{id}}", 200)
        series.count += 1
        series.timing.durations[route % 60] += 1
        series.timing.duration_sum_ns += route
        series.timing.first_bytes[route % 60] += 1
    return metrics


async def page_of(metrics, form="text"):
    return b"".join([chunk async for chunk in metrics.page(form)]).decode()


def test_everything_counted_goes_back_to_zero():
    async def main():
        metrics = made(slow_request_s=1e-9, slow_log_per_minute_max=1)
        app = MetricsMiddleware.recording(hello, metrics.recorder)
        for _ in range(3):
            await Wire(http(), REQUEST).serve(app)
        metrics.counter("orders", "Orders.").inc()
        with metrics.timer("block"):
            pass
        metrics.recorder.sockets.count("/ws", 1000, received=1, sent=1, open_ns=1)
        before = values(metrics.families())
        assert before["perf_slow_requests"] == {(): 3}
        assert before["perf_slow_requests_unlogged"] == {(): 2}
        assert (await metrics.summary())["requests"] == 3
        await metrics.reset()
        after = values(metrics.families())
        assert {
            name: sum(rows.values()) for name, rows in after.items() if sum(rows.values())
        } == {}
        told = await metrics.summary()
        assert (told["requests"], told["this_process"]["rate_per_s"], told["p50_s"]) == (
            0,
            0.0,
            None,
        )

    run(main)


def test_after_a_reset_the_rate_tells_what_came_since(monkeypatch):
    now_s = 1_000.0
    monkeypatch.setattr("perf_middleware.metrics.runtime.monotonic", lambda: now_s)
    metrics = made()
    app = MetricsMiddleware.recording(hello, metrics.recorder)
    metrics.sample()
    for _ in range(50):
        request(app)
    metrics.reset_own()
    now_s += 10
    for _ in range(20):
        request(app)
    recent = metrics.recent(60.0)
    assert (recent.requests, recent.seconds, recent.rate_per_s) == (20, 10.0, 2.0)


def test_a_reset_through_the_page_is_asked_for_and_answered():
    metrics = with_series(3)
    sent = request(ResetCounts(metrics), method="POST")
    assert sent[0]["status"] == 200
    assert sent[1]["body"] == b'{"reset":true}'
    assert metrics.recorder.figures.totals() == (0, 0)


def test_a_collector_that_fails_is_counted_said_once_and_left_out(caplog):
    metrics = made()

    def broken():
        raise RuntimeError("no figures today")

    metrics.add_collector("broken", broken)
    metrics.add_collector("fine", lambda: [counter("fine", "", [Value(NO_LABELS, 7)])])
    for _ in range(3):
        told = values(metrics.families())
    assert told["fine"] == {(): 7}
    assert told["perf_collector_failures"] == {(): 2}  # told before this scrape's own failure
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_a_page_of_ten_thousand_series_comes_in_small_chunks(form):
    async def main():
        lines, chunks, series = 0, 0, 0
        async for chunk in with_series(10_000).page(form):
            lines = max(lines, chunk.count(b"\n"))
            chunks += 1
            series += chunk.count(b"http_requests_total{")
        assert lines <= CHUNK_LINES_MAX
        assert chunks > 1_000
        assert series == 10_000

    run(main)


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_a_page_of_many_chunks_can_be_read(form):
    text = run(lambda: page_of(with_series(300), form))
    parse = parse_openmetrics if form == "openmetrics" else parse_text
    families = {family.name: family for family in parse(text)}
    assert sum(sample.value for sample in families["http_requests"].samples) == 300
    assert families["http_request_duration_seconds"].type == "histogram"


@pytest.mark.parametrize("accept", [b"text/plain", b"application/json"])
@pytest.mark.parametrize("coding", [b"", b"gzip"])
def test_while_a_large_page_is_made_others_run(accept, coding):
    turns = 0

    async def main():
        nonlocal turns
        done = anyio.Event()

        async def others():
            nonlocal turns
            while not done.is_set():
                turns += 1
                await anyio.lowlevel.checkpoint()

        headers = [(b"accept", accept), (b"accept-encoding", coding)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            await Wire(http("/metrics", headers=headers)).serve(MetricsPage(with_series(2_000)))
            done.set()

    run(main)
    # 2,000 routes: 66,000 lines in text, 14,000 points in the summary.
    assert turns >= 150


def test_for_head_no_page_is_made():
    start, body = request(MetricsPage(with_series(300)), "/metrics", "HEAD")
    assert start["status"] == 200
    assert body == {"type": "http.response.body", "body": b""}


def test_a_page_that_fails_at_once_is_no_empty_success(monkeypatch):
    metrics = made()

    async def broken():
        raise RuntimeError("no page today")

    monkeypatch.setattr(metrics, "_together", broken)
    wire = Wire(http("/metrics"))
    with pytest.raises(RuntimeError, match="no page today"):
        run(lambda: wire.serve(MetricsPage(metrics)))
    assert wire.sent == [], "the server answers 500"


def test_a_list_header_may_come_in_several_lines():
    headers = [
        (b"accept", b"text/html"), (b"accept-encoding", b"br"),
        (b"accept", b"application/openmetrics-text"), (b"accept-encoding", b"gzip"),
    ]  # fmt: skip
    start, *_ = request(MetricsPage(made()), "/metrics", "HEAD", headers=headers)
    answered = dict(start["headers"])
    assert answered[b"content-type"].startswith(b"application/openmetrics-text")
    assert answered[b"content-encoding"] == b"gzip"


def test_a_summary_under_trio():
    async def main():
        return await with_series(120).summary()

    assert run(main, "trio")["requests"] == 120


# --- export -------------------------------------------------------------------------------------


def test_an_exported_file_is_the_page(tmp_path):
    async def main():
        metrics = with_series(50)
        target = tmp_path / "app.prom"
        target.write_text("older")
        await metrics.export(target)
        await metrics.export(str(tmp_path / "open.prom"), format="openmetrics")
        return await page_of(metrics), await page_of(metrics, "openmetrics")

    text, openmetrics = run(main)
    assert (tmp_path / "app.prom").read_text() == text
    assert (tmp_path / "open.prom").read_text() == openmetrics
    assert openmetrics.endswith("# EOF\n")
    assert {path.name for path in tmp_path.iterdir()} == {"app.prom", "open.prom"}


def test_whoever_reads_during_exports_sees_a_complete_page(tmp_path):
    target = tmp_path / "app.prom"
    stop = threading.Event()
    seen: set[str] = set()

    def read():
        while not stop.is_set():
            if target.exists():
                seen.add(target.read_text()[-6:])

    async def main():
        metrics = with_series(300)
        async with anyio.create_task_group() as tasks:
            for _ in range(12):
                tasks.start_soon(lambda: metrics.export(target, format="openmetrics"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            run(main)
    finally:
        stop.set()
        reader.join()
    assert seen <= {"# EOF\n"}
    assert [path.name for path in tmp_path.iterdir()] == ["app.prom"]


def test_a_file_that_cannot_be_written_is_an_oserror_and_leaves_nothing(tmp_path):
    async def main():
        metrics = made()
        with pytest.raises(OSError, match="missing"):
            await metrics.export(tmp_path / "missing" / "app.prom")
        (tmp_path / "directory").mkdir()
        with pytest.raises(OSError, match="directory"):
            await metrics.export(tmp_path / "directory")

    run(main)
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]
    assert not any(Path(tmp_path, "directory").iterdir())


# --- the sampler --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_sampler_notes_the_totals_until_it_is_stopped(backend, monkeypatch):
    monkeypatch.setattr("perf_middleware.metrics.runtime.SAMPLE_EVERY_S", 0.001)

    async def main():
        metrics = made()
        sampler = Sampler(metrics)
        started = []

        class Background:
            def start(self, name, task):
                started.append((name, task))

        await sampler.open(Background())
        ((name, task),) = started
        assert name == sampler.name
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
            with anyio.fail_after(120):
                while len(metrics._window._samples) < 4:
                    await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await sampler.close()
        assert sampler.status() == {"failed_turns": 0}

    run(main, backend)


# --- any requests, read in every way ------------------------------------------------------------

odd_text = st.text(st.characters(exclude_categories=()), max_size=30)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(odd_text, odd_text, st.integers(-5, 1_500), st.integers(0, 200 * SECOND_NS)),
        max_size=15,
    )
)
def test_any_requests_are_a_page_that_can_be_read(requests):
    async def main():
        metrics = made(series_max=10)
        for method, route, status, duration_ns in requests:
            series = metrics.recorder.figures.series(method, route, status)
            series.count += 1
            series.timing.durations[0] += 1
            series.timing.duration_sum_ns += duration_ns
            metrics.recorder.figures.count_exception(series.timing, route)
            metrics.recorder.sockets.count(route, status, received=1, sent=1, open_ns=1)
        for form, parse in (("text", parse_text), ("openmetrics", parse_openmetrics)):
            families = {family.name: family for family in parse(await page_of(metrics, form))}
            samples = families["http_requests"].samples
            assert sum(sample.value for sample in samples) == len(requests)
            labels = [tuple(sample.labels.items()) for sample in samples]
            assert len(labels) == len(set(labels))
        assert (await metrics.summary())["requests"] == len(requests)

    run(main)
