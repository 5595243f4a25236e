"""Real servers are started, asked and ended; what a row says of itself is seen before it counts."""

import shutil
import stat
from contextlib import contextmanager

import psutil
import pytest

from benchmarks import over_servers, servers
from benchmarks.figures import Spread
from benchmarks.generators import Asked, OwnClient, Wrk, generator, reached
from benchmarks.layers import LARGE_BYTES
from benchmarks.over_servers import GZIP, PLAIN, Line, Plan, Report, Row
from benchmarks.runner import CheckError
from benchmarks.served_apps import ANSWER_FILE
from benchmarks.servers import Fetched, Running, fetch, missing_servers, nginx, nginx_path, uvicorn

RECORDED = (
    b"HTTP/1.1 200\r\ndate: once\r\ncontent-type: application/json\r\nage: 7\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(LARGE_BYTES), LARGE_BYTES)
)


WHOLE = len(LARGE_BYTES)


def asked(port, *, body_bytes=WHOLE):
    return Asked(name="raw", port=port, coding=PLAIN, body_bytes=body_bytes)


class TestServers:
    def test_a_raw_answer_is_served_cached_loaded_and_every_process_ended(
        self, tmp_path, monkeypatch
    ):
        file = tmp_path / "answer"
        file.write_bytes(RECORDED)
        monkeypatch.setattr(shutil, "which", self.without_wrk(shutil.which))
        with uvicorn("raw", loop="asyncio", environment={ANSWER_FILE: str(file)}) as raw:
            answer = fetch(raw.port, PLAIN)
            assert (answer.status, answer.body) == (200, LARGE_BYTES)
            assert answer.headers["age"] == "7"
            assert answer.headers["date"] != "once"  # the server's own
            assert raw.cpu_s() > 0
            with generator(2) as loading:
                assert isinstance(loading, OwnClient)
                got = loading.load(asked(raw.port), seconds=1)
                assert got.requests > 0
                assert 0 < got.p50_ms <= got.p90_ms <= got.p99_ms
                with pytest.raises(CheckError, match="more than the answer"):
                    loading.load(asked(raw.port, body_bytes=10), seconds=1)
            pids = [raw.process.pid]
            if nginx_path() is None:
                assert "nginx" in missing_servers()
            else:
                with nginx(plain=raw.port, gzip=raw.port) as cache:
                    told = [fetch(cache.port, PLAIN).headers["x-cache"] for _ in range(2)]
                    assert told == ["MISS", "HIT"]
                    assert fetch(cache.port, GZIP).headers["x-cache"] == "MISS"
                    pids += [each.pid for each in (cache.process, *cache.process.children())]
        assert not any(psutil.pid_exists(pid) for pid in pids)

    @staticmethod
    def without_wrk(which):
        return lambda name, *args, **kwargs: None if name == "wrk" else which(name, *args, **kwargs)

    def test_a_server_that_does_not_start_is_told_with_what_it_said(self):
        with pytest.raises(CheckError, match=r"no_such did not start.*no_such"), uvicorn("no_such"):
            pass


TOLD = {
    "requests": 100, "duration_us": 500_000, "bytes": 100 * 300, "errors": 0,
    "p50_us": 1500, "p90_us": 2500, "p99_us": 9000,
}  # fmt: skip


class TestWrk:
    def test_its_figures_are_read(self):
        got = reached(TOLD, asked(1, body_bytes=200))
        assert (got.requests, got.requests_per_s) == (100, 200.0)
        assert (got.p50_ms, got.p90_ms, got.p99_ms) == (1.5, 2.5, 9.0)

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            pytest.param({"errors": 1}, "raw: 100 answers, 1 of them errors", id="an error"),
            pytest.param({"requests": 0}, "raw: 0 answers", id="no answer"),
            pytest.param({"bytes": 100}, "shorter than 200 bytes", id="short answers"),
        ],
    )
    def test_answers_that_are_none_end_the_run(self, changed, said):
        with pytest.raises(CheckError, match=said):
            reached(TOLD | changed, asked(1, body_bytes=200))

    def test_it_is_called_with_the_clients_fields_and_its_failure_told(self, tmp_path):
        wrk = tmp_path / "wrk"
        wrk.write_text('#!/bin/sh\necho "$*" >&2\nexit 1\n')
        wrk.chmod(wrk.stat().st_mode | stat.S_IXUSR)
        loading = Wrk(str(wrk), tmp_path / "told.lua", 3)
        with pytest.raises(CheckError) as told:
            loading.load(asked(4711), seconds=2)
        said = str(told.value)
        for part in ("-c3", "-d2s", "http://127.0.0.1:4711/large/17", "accept-encoding: identity"):
            assert part in said
        assert "-Hhost" not in said


def row(what, coding=PLAIN):
    running = Running(name="x", port=1, process=psutil.Process())
    return Row(server="uvicorn", what=what, coding=coding, running=running, beside=None)


class TestCheck:
    @pytest.mark.parametrize(
        ("what", "headers", "is_right"),
        [
            ("bare app", {}, True),
            ("bare app", {"age": "1", "cache-status": "x; hit"}, True),  # says nothing of itself
            ("everything, miss", {"cache-status": "x; fwd=miss"}, True),
            ("everything, miss", {"cache-status": "x; hit", "age": "1"}, False),
            ("everything, hit, plain", {"cache-status": "x; hit", "age": "1"}, True),
            ("everything, hit, plain", {"cache-status": "x; fwd=miss"}, False),
            ("everything, hit, gzip", {"cache-status": "x; hit", "age": "1"}, False),
            ("by hand, miss", {}, True),
            ("by hand, miss", {"age": "1"}, False),
            ("by hand, hit alone, plain", {"age": "1"}, True),
            ("by hand, hit alone, plain", {}, False),
            ("raw callable, plain", {"age": "1"}, True),
            ("proxy_cache hit, plain", {"x-cache": "HIT"}, True),
            ("proxy_cache hit, plain", {"x-cache": "MISS"}, False),
        ],
    )
    def test_a_row_must_be_what_it_says(self, monkeypatch, what, headers, is_right):
        answer = Fetched(status=200, headers=headers, body=LARGE_BYTES, head=b"")
        monkeypatch.setattr(over_servers, "fetch", lambda port, coding: answer)
        monkeypatch.setattr(over_servers, "SETTLE_S", 0.0)
        made = row(what, GZIP if "gzip" in what else PLAIN)
        if is_right:
            assert over_servers.check(made) is answer
        else:
            with pytest.raises(CheckError, match="is not what it says"):
                over_servers.check(made)

    def test_an_error_page_is_not_measured(self, monkeypatch):
        answer = Fetched(status=503, headers={}, body=b"busy", head=b"")
        monkeypatch.setattr(over_servers, "fetch", lambda port, coding: answer)
        monkeypatch.setattr(over_servers, "SETTLE_S", 0.0)
        with pytest.raises(CheckError, match="answered 503"):
            over_servers.check(row("bare app"))


class FakeServer:
    """Spends a second with each look at it."""

    def __init__(self, port):
        self.port = port
        self.spent_s = 0

    def cpu_s(self):
        self.spent_s += 1
        return self.spent_s


class FakeLoad:
    name = "fake"

    def __init__(self):
        self.left = {1: iter([100.0, 200.0, 90.0]), 2: iter([80.0, 190.0, 45.0])}

    def load(self, asked, *, seconds):
        per_s = next(self.left[asked.port])
        told = TOLD | {"requests": int(per_s), "bytes": 10**9}
        return reached(told | {"duration_us": 1_000_000}, asked)


def test_rows_are_compared_within_a_round_and_told_beside_their_targets(monkeypatch):
    raw = Row(
        server="uvicorn", what="raw callable, plain", coding=PLAIN, running=FakeServer(1),
        beside=None,
    )  # fmt: skip
    hit = Row(
        server="uvicorn", what="everything, hit, plain", coding=PLAIN, running=FakeServer(2),
        beside=raw.key, target=0.85,
    )  # fmt: skip

    @contextmanager
    def fake(connections):
        yield FakeLoad()

    monkeypatch.setattr(over_servers, "generator", fake)
    monkeypatch.setattr(over_servers, "_rows", lambda stack, plan, missing: [raw, hit])
    monkeypatch.setattr(over_servers, "check", lambda row: None)
    answer = Fetched(status=200, headers={}, body=b"x", head=b"")
    monkeypatch.setattr(over_servers, "fetch", lambda port, coding: answer)
    monkeypatch.setattr(servers, "missing_servers", lambda: {"nginx": "is not installed: no row"})

    report = over_servers.run(Plan(rounds=3))

    of_raw, line = report.lines
    assert of_raw.ratio is None
    assert line.ratio.median == pytest.approx(0.8)
    assert line.cpu_ratio.median == pytest.approx(0.8)
    assert of_raw.cpu_us == pytest.approx(10_000)  # a second for 100, of 200 and of 90
    text = over_servers.markdown(report)
    assert "nginx is not installed: no row" in text
    assert text.endswith(
        "- uvicorn, everything, hit, plain: 0.80 x uvicorn raw callable, plain (at least 0.85): "
        "MISSED (by CPU 0.80)"
    )


def test_a_target_that_is_reached_is_met():
    one = Spread(1.0, 1.0, 1.0)
    line = Line(
        server="granian", what="everything, miss", requests_per_s=one, p50_ms=1.0, p90_ms=1.0,
        p99_ms=1.0, cpu_us=1.0, beside="granian bare app", ratio=one, cpu_ratio=one, target=0.9,
    )  # fmt: skip
    report = Report(
        title="t", generator="g", rounds=1, loop="uvloop", python="3", lines=(line,), missing=()
    )
    (told,) = over_servers.targets(report)
    assert told.endswith("(at least 0.9): met (by CPU 1.00)")


def test_a_plan_without_a_round_is_refused():
    with pytest.raises(ValueError, match="positive"):
        Plan(rounds=0)
