"""The exchange between real processes: killed, told to go, started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import forked

WORKER = Path(__file__).with_name("exchange_worker.py")
DEADLINE_S = 150.0
JOBS = 'jobs{route="/jobs"}'


class Worker:
    def __init__(self, directory: Path, *, interval_s: float = 0.05, backend: str = "asyncio"):
        self.process = forked.start(
            [str(WORKER), str(directory), str(interval_s), backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = None

    def ready(self) -> Worker:
        self.pid = self.read()
        return self

    def read(self):
        line = self.process.stdout.readline()
        assert line, "the worker ended"
        return json.loads(line)

    def ask(self, command: str):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def terminate(self) -> None:
        self.process.terminate()
        assert self.process.wait(DEADLINE_S) == 0

    def end(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def starter(count: int = 1, **options) -> list[Worker]:
            workers = [Worker(tmp_path, **options) for _ in range(count)]
            for worker in workers:
                stack.callback(worker.end)
            return [worker.ready() for worker in workers]

        yield starter


def until(found, expected):
    deadline_s = time.monotonic() + DEADLINE_S
    while (seen := found()) != expected:
        assert time.monotonic() < deadline_s, f"{seen} is not {expected}"
        time.sleep(0.01)


def files(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "test.v1").iterdir())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_worker_answers_for_all_through_kill_and_termination(start, tmp_path, backend):
    workers = start(3, backend=backend)
    for number, worker in enumerate(workers):
        worker.ask(f"add {10**number}")
    for worker in workers:  # each has published when it was asked
        worker.ask("scrape")
    for worker in workers:
        seen = worker.ask("scrape")
        assert seen[JOBS] == seen["took_seconds_count"] == 111
        assert seen["in_progress"] == seen["perf_workers"] == 3
        assert {f'up{{worker="{w.pid}"}}' for w in workers} <= seen.keys()

    killed, told, last = workers
    killed.kill()
    seen = last.ask("scrape")
    assert (seen[JOBS], seen["in_progress"]) == (111, 2), "gauges of the dead vanish at once"
    assert f'up{{worker="{killed.pid}"}}' not in seen
    told.ask("add 5")  # nobody has seen these: a clean end must not lose them
    told.terminate()
    seen = last.ask("scrape")
    assert (seen[JOBS], seen["in_progress"]) == (116, 1)

    until(lambda: len(files(tmp_path)), 2)  # the last worker's file and `retired`
    (new,) = start(1, backend=backend)
    for worker in (new, last):
        seen = worker.ask("scrape")
        assert (seen[JOBS], seen["took_seconds_count"], seen["in_progress"]) == (116, 116, 2)
        assert seen["perf_workers_folded"] == 2


def test_no_counter_is_seen_to_fall_whoever_answers(start):
    """Workers take turns in answering while others count, publish, are killed and replaced."""
    workers = start(3)
    seen = {}
    for turn in range(150):
        worker = workers[turn % 3]
        worker.ask(f"add {turn % 7}")
        now = worker.ask("scrape")
        for name in (JOBS, "took_seconds_count", "took_seconds_sum"):
            assert now[name] >= seen.get(name, 0), (turn, name)
            seen[name] = now[name]
        if turn % 25 == 20:
            workers[turn % 3].kill()
            (workers[turn % 3],) = start()
        if turn % 25 == 10:
            workers[turn % 3].terminate()
            (workers[turn % 3],) = start()
    assert seen[JOBS] == sum(turn % 7 for turn in range(150))


def test_a_killed_worker_takes_at_most_one_interval_along(start):
    one, two = start(2)
    one.ask("add 8")
    until(lambda: two.ask("scrape")[JOBS], 8)  # published without being asked
    one.kill()
    assert two.ask("scrape")[JOBS] == 8


def test_a_child_that_outlives_a_killed_worker_does_not_keep_it_alive(start):
    one, two = start(2, interval_s=60)  # the child inherits the very lock that is the last one
    one.ask("scrape")
    child = one.ask("fork")
    try:
        assert two.ask("scrape")["in_progress"] == 2
        one.kill()
        until(lambda: two.ask("scrape")["in_progress"], 1)
    finally:
        os.kill(child, signal.SIGKILL)


def test_with_a_full_disk_the_own_figures_are_served_and_the_failure_is_counted(start):
    one, two = start(2, interval_s=60)
    two.ask("add 1")
    two.ask("scrape")
    one.ask("starve")
    one.ask("add 10")
    seen = one.ask("scrape")
    assert seen[JOBS] == 11
    seen = one.ask("scrape")
    assert seen['perf_worker_snapshot_errors{reason="write"}'] == 1
    assert one.ask("turn")["state"] == "degraded"
    one.ask("feed")
    assert one.ask("scrape")[JOBS] == two.ask("scrape")[JOBS] == 11
    assert one.ask("turn")["state"] == "sharing"


def test_processes_come_and_go_and_leave_no_files(start, tmp_path):
    (watcher,) = start()
    for generation in range(5):
        workers = start(6, interval_s=60)
        for worker in workers:
            worker.ask("add 1")
            worker.ask("scrape")
        assert len(files(tmp_path)) <= 6 + 1 + 2
        for number, worker in enumerate(workers):
            (worker.kill if number % 2 else worker.terminate)()
        assert watcher.ask("scrape")[JOBS] == 6 * (generation + 1)
        until(lambda: len(files(tmp_path)), 2)
    assert watcher.ask("scrape")["perf_workers_folded"] == 30
