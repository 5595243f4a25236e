"""A kilobyte that one of several routes keeps of each request is found, with its line, in time."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.memory_watch.leaks.leaking_app import TOKEN

pytestmark = pytest.mark.takes_a_minute

HERE = Path(__file__).parent
LEAK_LINE = 1 + next(
    number
    for number, line in enumerate((HERE / "leaking_app.py").read_text().splitlines())
    if "the planted leak" in line
)
REQUESTS_PER_S = 200
REQUESTS_MAX = 60 * REQUESTS_PER_S  # a minute is promised; a slow machine takes longer for them


@contextlib.contextmanager
def served():
    """The port of a server of its own, that serves the leaking app."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "leaking_app.py")],
        env={
            **{name: os.environ[name] for name in os.environ if "PERFORMANCE_" not in name},
            "PYTHONPATH": str(HERE.parents[2]),
        },
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield int(child.stdout.readline())
        finally:
            child.terminate()


def ask(client, path):
    client.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
    return json.loads(client.getresponse().read())


def test_a_planted_leak_is_told_with_its_line_in_time():
    with served() as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=150)
        ask(client, "/items")  # it has started
        began_s = time.monotonic()
        sent, verdict = 0, None
        while verdict is None and sent < REQUESTS_MAX:
            ask(client, ("/orders", "/items", "/orders", "/users")[sent % 4])
            sent += 1
            if sent % REQUESTS_PER_S == 0:
                verdict = ask(client, "/_perf/memory")["leaks"]["verdict"]
            time.sleep(max(0.0, sent / REQUESTS_PER_S - (time.monotonic() - began_s)))
        report = ask(client, "/_perf/memory")["leaks"]
        client.close()
    assert verdict is not None, report
    assert verdict["kind"] == "leak", report
    assert verdict["reason"] == "traced", report
    assert verdict["sites"][0]["where"].endswith(f"leaking_app.py:{LEAK_LINE}"), report
    assert report["tracings"] == 1, report
    assert report["failures"] == 0, report
