"""What tests of several features need."""

import gc
import os
import time
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

from perf_middleware import clock

# How long an example takes says how busy the machine is: no test fails for that.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# While a million objects are made that stay, no collection would free anything.
gc.disable()

# Before any test module imports them: these assert for tests of several features.
pytest.register_assert_rewrite(
    "tests.http.servers", "tests.http.wire",
    "tests.examples.figures", "tests.examples.servers", "tests.examples.shop",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Modules that wait for a minute are spread: beside each other they would idle the workers."""
    waiting = {}
    for item in items:
        if item.get_closest_marker("takes_a_minute") is not None:
            waiting.setdefault(item.module.__name__, []).append(item)
    others = [item for item in items if item.get_closest_marker("takes_a_minute") is None]
    for number, module in enumerate(reversed(waiting.values())):
        place = len(others) * (len(waiting) - 1 - number) // (len(waiting) + 1)
        others[place:place] = module
    items[:] = others


@pytest.fixture
def standing_clock(monkeypatch):
    """No microsecond ends meanwhile, however long the machine takes: for figures told exactly."""
    now_ns = time.perf_counter_ns()
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter_ns=lambda: now_ns))


@pytest.fixture
def nothing_set(monkeypatch, tmp_path):
    """No settings from outside: a clean environment and an empty working directory."""
    for name in list(os.environ):
        if name.upper().startswith("PERFORMANCE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def pytest_collection_finish():
    """What was collected stays to the end: a million objects, a third of a second each time that
    a test, or Python itself, collects garbage.
    """
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture
def thawed():
    """The collector sees everything again, and so does who asks it: for what was there before."""
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()
