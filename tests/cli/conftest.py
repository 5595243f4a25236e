"""Every test starts without settings, in an empty directory, and prints to a pipe."""

import os

import pytest


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in list(os.environ):
        # The others make rich believe in a terminal that is not there.
        if name.upper().startswith("PERFORMANCE_") or name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
