"""docs/settings.md names every setting, with the default, range and meaning that hold."""

import re
import runpy
from pathlib import Path

import pytest

from perf_middleware.configuration.schema import Schema
from perf_middleware.configuration.sources import decode_text
from perf_middleware.errors import SettingsError
from perf_middleware.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text("utf-8")
SETTINGS = Schema.of(Settings).settings


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "settings_docs.py"))


def test_the_tables_are_those_of_the_models(script):
    assert script["page_with"](PAGE, script["tables"]()) == PAGE, "run scripts/settings_docs.py"


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_every_setting_has_a_row_with_its_meaning_and_a_default_one_can_set(key):
    setting = SETTINGS[key]
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{key}`<br>")]
    name, _, default, meaning = (cell.strip() for cell in row.strip("|").split(" | "))
    assert setting.env_name in name
    assert len(meaning) > 10
    given = Settings(**_tree(key, decode_text(setting, default.strip("`"))[0]))
    assert given.model_dump() == Settings().model_dump()


def test_a_setting_that_is_not_in_the_page_is_noticed(script):
    row = next(line for line in PAGE.splitlines() if "`metrics.enabled`" in line)
    shorter = PAGE.replace(f"{row}\n", "")
    assert script["page_with"](shorter, script["tables"]()) != shorter


def test_the_toml_and_the_environment_of_the_page_are_valid(tmp_path, monkeypatch):
    whole, pyproject = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "perf.toml").write_text(whole)
    (tmp_path / "pyproject.toml").write_text(pyproject)
    exports = re.findall(r"^export (\w+)=(\S+)", PAGE, re.MULTILINE)
    assert exports
    for name, text in exports:
        monkeypatch.setenv(name, "perf.toml" if name == "PERFORMANCE_CONFIG" else text)
    settings = Settings()
    assert (settings.service, settings.metrics.buckets_s) == ("shop", (0.1, 0.5, 1.0))
    assert settings.metrics.slow_request_s is None
    assert not settings.runtime.enabled
    assert settings.lifespan.drain_timeout_s == 20


def test_the_errors_of_the_page_are_what_one_reads(tmp_path, monkeypatch):
    path = tmp_path / "perf.toml"
    path.write_text("[metrics]\nenabld = true\n")
    monkeypatch.setenv("PERFORMANCE_CONFIG", str(path))
    monkeypatch.setenv("PERFORMANCE_METRCS_ENABLED", "true")
    monkeypatch.setenv("PERFORMANCE_METRICS_SERIES_MAX", "5")
    monkeypatch.setenv("PERFORMANCE_DASHBOARD_TOKEN", "sesame")
    with pytest.raises(SettingsError) as caught:
        Settings()
    shown = next(block for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL))
    said = str(caught.value).replace(str(path), "/etc/shop/perf.toml")
    assert sorted(said.splitlines()) == sorted(shown.splitlines())


def _tree(key, value):
    section, _, name = key.rpartition(".")
    return {section: {name: value}} if section else {name: value}
