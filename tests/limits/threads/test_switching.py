"""The interpreter's switch interval: set while the app runs, and put back."""

import sys

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from perf_middleware import Settings, SettingsError, install
from perf_middleware.limits.threads.drivers.switching import SwitchInterval


@pytest.fixture(autouse=True)
def plain():
    before_s = sys.getswitchinterval()
    yield before_s
    sys.setswitchinterval(before_s)


def test_it_holds_while_the_app_runs(plain):
    app = FastAPI()
    perf = install(app, Settings(threads={"switch_interval_s": 0.001}))
    assert sys.getswitchinterval() == plain
    with TestClient(app):
        assert sys.getswitchinterval() == pytest.approx(0.001)
        assert perf.limits.threads.status()["switch_interval_s"] == 0.001
    assert sys.getswitchinterval() == plain


def test_without_the_setting_it_is_not_touched(plain):
    app = FastAPI()
    install(app, Settings())
    sys.setswitchinterval(0.02)
    with TestClient(app):
        assert sys.getswitchinterval() == pytest.approx(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_what_the_app_sets_itself_stays():
    interval = SwitchInterval()
    interval.set(0.001)
    sys.setswitchinterval(0.003)
    interval.restore()
    assert sys.getswitchinterval() == pytest.approx(0.003)


def test_set_twice_it_puts_back_the_first_one(plain):
    interval = SwitchInterval()
    interval.set(0.001)
    interval.set(0.002)
    interval.restore()
    interval.restore()
    assert sys.getswitchinterval() == plain


@pytest.mark.parametrize("value", [0, -1, 2, "soon"])
def test_a_wrong_one_is_refused(value):
    with pytest.raises(SettingsError, match="switch_interval_s"):
        Settings(threads={"switch_interval_s": value})
