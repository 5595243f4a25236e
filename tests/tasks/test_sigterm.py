"""SIGTERM while requests come: every job whose request was answered runs, or is told of."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

APP = Path(__file__).with_name("sigterm_app.py")
WAIT_S = 120


def until(holds, process):
    end = time.monotonic() + WAIT_S
    while not holds():
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def load(port, name, accepted):
    """Enqueue one after the other until the server is gone."""
    number = 0
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        try:
            connection.request("GET", f"/accept?name={name}-{number}")
            answer = connection.getresponse()
            told = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return
        finally:
            connection.close()
        if told["accepted"]:
            accepted.append(f"{name}-{number}")
        number += 1


@pytest.mark.parametrize("drain_s", [WAIT_S, 0])
def test_jobs_of_answered_requests_are_run_or_handed_back(drain_s, tmp_path):
    port_file, journal = tmp_path / "port", tmp_path / "journal"
    process = subprocess.Popen(
        [sys.executable, str(APP), port_file, journal, str(drain_s)],
        env={**os.environ, "PYTHONPATH": str(APP.parents[2])},
    )
    try:
        until(lambda: port_file.exists() and port_file.read_text(), process)
        accepted = []
        port = int(port_file.read_text())
        threads = [threading.Thread(target=load, args=(port, n, accepted)) for n in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(accepted) >= 60, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) in {0, -signal.SIGTERM}
        for thread in threads:
            thread.join(WAIT_S)
    finally:
        process.kill()
        process.wait()
    lines = journal.read_text().splitlines()
    begun = [line.split()[1] for line in lines if line.startswith("begun ")]
    done = [line.split()[1] for line in lines if line.startswith("done ")]
    assert len(begun) == len(set(begun))  # none twice
    assert set(done) <= set(begun)
    if drain_s:
        assert set(accepted) <= set(done)
        assert lines.index("app ended") > max(lines.index(f"done {name}") for name in done)
        return
    (told,) = [line for line in lines if line.startswith("log task queue drained")]
    numbers = [int(number) for number in re.findall(r"(\d+) (?:jobs|failed|were|handed)", told)]
    cancelled, handed_back = numbers[2:]
    # One whose answer was on its way as the server stopped may be done or told, and not be heard.
    assert len(accepted) <= len(done) + cancelled + handed_back
