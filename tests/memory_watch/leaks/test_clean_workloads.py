"""What grows and is no leak, each in a process of its own with default settings, is never told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.memory_watch.leaks.clean_workloads import WORKLOADS

pytestmark = pytest.mark.takes_a_minute

HERE = Path(__file__).parent
SECONDS = 62
SAID = {
    "lru_cache_fills": "looked_up fills",
    "log_buffer": "collections.deque fills",
    "cyclic_garbage": "it is garbage, a collection freed",
}


@pytest.fixture(scope="module")
def statuses():
    """The status of the watch of each workload; all of them run at once."""
    children = {
        name: subprocess.Popen(
            [sys.executable, str(HERE / "clean_workloads.py"), name, str(SECONDS)],
            env={**os.environ, "PYTHONPATH": str(HERE.parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in WORKLOADS
    }
    found = {}
    for name, child in children.items():
        with child:
            out, err = child.communicate(timeout=SECONDS * 20)
        assert child.returncode == 0, f"{name}: {err}"
        found[name] = json.loads(out) | {"log": err}
    return found


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_clean_workload_is_no_leak(name, statuses):
    status = statuses[name]
    assert "memory leak" not in status["log"]
    assert status["verdict"] is None or status["verdict"]["kind"] != "leak"
    assert status["failures"] == 0
    assert status["growth"], "it has been judged"


@pytest.mark.parametrize("name", SAID)
def test_what_it_is_is_said(name, statuses):
    assert SAID[name] in statuses[name]["verdict"]["text"]
