"""Which source wins, field by field, and that the settings remember it."""

import pickle

import pytest
from pydantic import SecretStr, ValidationError

from perf_middleware.metrics.settings import MetricsSettings
from perf_middleware.settings import LifespanSettings, Settings

PYPROJECT = "[tool.perf_middleware.metrics]\nseries_max = 11\n"
CONFIG = "[metrics]\nseries_max = 12\n"


def give(monkeypatch, tmp_path, *sources):
    """Name `metrics.series_max` in each of the sources."""
    if "pyproject" in sources:
        (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    if "file" in sources:
        (tmp_path / "perf.toml").write_text(CONFIG)
        monkeypatch.setenv("PERFORMANCE_CONFIG", "perf.toml")
    if "environment" in sources:
        monkeypatch.setenv("PERFORMANCE_METRICS_SERIES_MAX", "13")
    return {"metrics": {"series_max": 14}} if "argument" in sources else {}


@pytest.mark.parametrize(
    ("sources", "value", "origin"),
    [
        pytest.param((), 10_000, "default", id="nothing given: the default"),
        pytest.param(("pyproject",), 11, "pyproject.toml", id="pyproject over the default"),
        pytest.param(("pyproject", "file"), 12, "perf.toml", id="the named file over pyproject"),
        pytest.param(
            ("pyproject", "file", "environment"),
            13,
            "PERFORMANCE_METRICS_SERIES_MAX",
            id="the environment over files",
        ),
        pytest.param(
            ("pyproject", "file", "environment", "argument"),
            14,
            "argument",
            id="arguments over all",
        ),
    ],
)
def test_the_highest_source_that_names_a_field_wins(monkeypatch, tmp_path, sources, value, origin):
    settings = Settings(**give(monkeypatch, tmp_path, *sources))
    assert settings.metrics.series_max == value
    assert settings.origin_of("metrics.series_max") == origin


def test_each_field_of_a_section_may_come_from_another_source(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        "[tool.perf_middleware]\nservice = 'shop'\nmetrics = { workers = false }\n"
    )
    (tmp_path / "perf.toml").write_text("[metrics]\nserver_timing = true\n")
    monkeypatch.setenv("PERFORMANCE_CONFIG", str(tmp_path / "perf.toml"))
    monkeypatch.setenv("PERFORMANCE_METRICS_EXEMPLARS", "off")
    settings = Settings(metrics={"path": "/figures"})
    assert settings.service == "shop"
    assert settings.metrics == MetricsSettings(
        workers=False, server_timing=True, exemplars=False, path="/figures"
    )
    origins = {row.key: row.origin for row in settings.effective() if row.origin != "default"}
    assert origins == {
        "service": "pyproject.toml",
        "metrics.path": "argument",
        "metrics.server_timing": str(tmp_path / "perf.toml"),
        "metrics.exemplars": "PERFORMANCE_METRICS_EXEMPLARS",
        "metrics.workers": "pyproject.toml",
    }


def test_a_section_object_counts_for_what_was_set_in_it(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_LIFESPAN_START_TIMEOUT_S", "5")
    monkeypatch.setenv("PERFORMANCE_LIFESPAN_DRAIN_TIMEOUT_S", "5")
    settings = Settings(lifespan=LifespanSettings(drain_timeout_s=2))
    assert settings.lifespan == LifespanSettings(start_timeout_s=5, drain_timeout_s=2)
    assert settings.origin_of("lifespan.drain_timeout_s") == "argument"
    assert settings.origin_of("lifespan.start_timeout_s") == "PERFORMANCE_LIFESPAN_START_TIMEOUT_S"


def test_a_section_of_other_settings_can_be_passed_on():
    first = Settings(metrics={"token": "sesame-1"})
    assert Settings(metrics=first.metrics).metrics == first.metrics


def test_an_invalid_value_that_a_higher_source_replaces_does_no_harm(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_METRICS_ENABLED", "perhaps")
    assert not Settings(metrics={"enabled": False}).metrics.enabled


def test_the_named_file_may_hold_its_sections_below_the_tool_table(monkeypatch, tmp_path):
    (tmp_path / "tools.toml").write_text(
        "[other]\nkey = 1\n[tool.perf_middleware.metrics]\nseries_max = 20\n"
    )
    monkeypatch.setenv("PERFORMANCE_CONFIG", "tools.toml")
    assert Settings().metrics.series_max == 20


@pytest.mark.parametrize("config", ["", "absent"])
def test_pyproject_and_the_named_file_are_optional(monkeypatch, config):
    monkeypatch.setenv("PERFORMANCE_CONFIG", "")
    if config == "absent":
        monkeypatch.delenv("PERFORMANCE_CONFIG")
    assert Settings() == Settings()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[project]\nname = 'shop'\n", id="without tools"),
        pytest.param("[tool.ruff]\nline-length = 100\n", id="with the tables of other tools"),
        pytest.param("tool = 1\n", id="tool is no table"),
        pytest.param("\ufeff[tool.ruff]\n", id="with a byte order mark"),
    ],
)
def test_a_pyproject_that_does_not_mention_us_changes_nothing(tmp_path, content):
    (tmp_path / "pyproject.toml").write_text(content, encoding="utf-8")
    assert Settings() == Settings()


def test_the_environment_is_read_when_settings_are_made(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_SERVICE", "one")
    first = Settings()
    monkeypatch.setenv("PERFORMANCE_SERVICE", "two")
    assert (first.service, Settings().service) == ("one", "two")


def test_settings_cannot_be_changed():
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.service = "other"
    with pytest.raises(ValidationError, match="frozen"):
        settings.metrics.enabled = False


def test_settings_survive_pickling_with_their_origins_and_secrets(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_DASHBOARD_TOKEN", "sesame-1")
    settings = Settings()
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert again.dashboard.token == SecretStr("sesame-1")
    assert again.origin_of("dashboard.token") == "PERFORMANCE_DASHBOARD_TOKEN"


def test_the_origin_of_what_is_no_setting_is_a_key_error():
    with pytest.raises(KeyError):
        Settings().origin_of("metrics.enabld")


def test_model_validate_reads_the_sources_too(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_SERVICE", "shop")
    settings = Settings.model_validate({"metrics": {"enabled": False}})
    assert (settings.service, settings.metrics.enabled) == ("shop", False)
