"""What tests of several features need."""

import os

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is: no test fails for that.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# Before any test module imports them: these assert for tests of several features.
pytest.register_assert_rewrite("tests.http.servers", "tests.http.wire")


@pytest.fixture
def nothing_set(monkeypatch, tmp_path):
    """No settings from outside: a clean environment and an empty working directory."""
    for name in list(os.environ):
        if name.upper().startswith("PERFORMANCE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
