"""Every test starts without settings: a clean environment and an empty working directory."""

import os

import pytest


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper().startswith("PERFORMANCE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
