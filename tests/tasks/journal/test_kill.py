"""`kill -9` at any moment: what was answered runs."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.journal.killed import numbers_in

ROOT = Path(__file__).parents[3]
KILLS = 200
ENDS_S_MAX = 900


@pytest.mark.takes_a_minute
@pytest.mark.skipif(not hasattr(os, "fork"), reason="servers are forked")
def test_every_durable_task_that_was_answered_runs_whenever_its_process_is_killed(tmp_path):
    seed = random.randrange(1 << 32)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.tasks.journal.killed", tmp_path, str(KILLS), str(seed)],
        cwd=ROOT, timeout=ENDS_S_MAX, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, (seed, ended.stderr)
    told = json.loads((tmp_path / "told.json").read_text())
    answered = set(told["answered"])
    assert answered - numbers_in(tmp_path / "ran") == set(), seed
    assert told["entries_and_dead"] == [0, 0], seed
    # It was a real test: much was accepted, and kills came in the midst of accepting and running.
    assert len(told["left_behind"]) == KILLS
    assert len(answered) >= 2 * KILLS
    assert told["asked"] - len(answered) >= KILLS
    assert sum(left > 0 for left in told["left_behind"]) >= 5
