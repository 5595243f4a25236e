"""What the user reads when a setting is wrong: the key as written, what is allowed or meant."""

import errno
import pickle
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError, model_validator

from perf_middleware.configuration.schema import Schema
from perf_middleware.errors import ConfigurationError, SettingsError
from perf_middleware.metrics.settings import MetricsSettings, RuntimeSettings
from perf_middleware.section import Section
from perf_middleware.settings import Settings

SECRET = "s3cret"


def problems_of(**arguments):
    with pytest.raises(SettingsError) as caught:
        Settings(**arguments)
    return caught.value.problems


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        pytest.param(
            "PERFORMANCE_METRICS_ENABLD", "1",
            "PERFORMANCE_METRICS_ENABLD is not a setting; "
            "did you mean PERFORMANCE_METRICS_ENABLED (true or false)?",
            id="a field misspelled",
        ),
        pytest.param(
            "PERFORMANCE_METRCS_ENABLED", "1",
            "PERFORMANCE_METRCS_ENABLED is not a setting; "
            "did you mean PERFORMANCE_METRICS_ENABLED (true or false)?",
            id="a section misspelled",
        ),
        pytest.param(
            "performance_metrics_enabld", "1",
            "performance_metrics_enabld is not a setting; "
            "did you mean PERFORMANCE_METRICS_ENABLED (true or false)?",
            id="as written, in small letters",
        ),
        pytest.param(
            "PERFORMANCE_CONFG", "1",
            "PERFORMANCE_CONFG is not a setting; did you mean PERFORMANCE_CONFIG (a path)?",
            id="the name of the file misspelled",
        ),
        pytest.param(
            "PERFORMANCE_LIFESPAN", "off",
            "PERFORMANCE_LIFESPAN names a section, not a setting: "
            "name one of its settings, such as PERFORMANCE_LIFESPAN_ENABLED",
            id="a section without a field",
        ),
        pytest.param(
            "PERFORMANCE_LIFESPAN_XYZ", "1",
            "PERFORMANCE_LIFESPAN_XYZ is not a setting; "
            "the settings of lifespan are enabled, start_timeout_s, drain_timeout_s",
            id="a field like no other",
        ),
        pytest.param(
            "PERFORMANCE_METRICS_SERIES_MAX", "5",
            "PERFORMANCE_METRICS_SERIES_MAX must be a whole number from 10 to 1000000, not '5'",
            id="out of range",
        ),
        pytest.param(
            "PERFORMANCE_LIFESPAN_DRAIN_TIMEOUT_S", "0",
            "PERFORMANCE_LIFESPAN_DRAIN_TIMEOUT_S must be a number above 0, not '0'",
            id="not above the bound",
        ),
        pytest.param(
            "PERFORMANCE_METRICS_SLOW_REQUEST_S", "never",
            "PERFORMANCE_METRICS_SLOW_REQUEST_S must be a number above 0 or none, not 'never'",
            id="optional",
        ),
        pytest.param(
            "PERFORMANCE_METRICS_ENABLED", "",
            "PERFORMANCE_METRICS_ENABLED must be true or false, not ''",
            id="empty where something is needed",
        ),
        pytest.param(
            "PERFORMANCE_METRICS_BUCKETS_S", "0.1,nan",
            "PERFORMANCE_METRICS_BUCKETS_S must be a list of numbers, not '0.1,nan' (item 2)",
            id="nan is no number",
        ),
        pytest.param(
            "PERFORMANCE_METRICS_BUCKETS_S", "2,1",
            "PERFORMANCE_METRICS_BUCKETS_S: bounds must be positive and rising, not '2,1'",
            id="a check of our own",
        ),
        pytest.param(
            "PERFORMANCE_METRICS_BUCKETS_S", "1,1e300",
            "PERFORMANCE_METRICS_BUCKETS_S: bounds must be at most 1e+09, not '1,1e300'",
            id="longer than any request",
        ),
        pytest.param(
            "PERFORMANCE_GC_THRESHOLDS", "700,10",
            "PERFORMANCE_GC_THRESHOLDS must be a list of 3 whole numbers or none, not '700,10' "
            "(item 3)",
            id="one number too few",
        ),
        pytest.param(
            "PERFORMANCE_SERVICE", "..",
            "PERFORMANCE_SERVICE must be text of at most 64 characters "
            "matching ^[A-Za-z0-9_][A-Za-z0-9_.-]*$, not '..'",
            id="a name that is a path",
        ),
        pytest.param(
            "PERFORMANCE_DASHBOARD_TOKEN", SECRET,
            "PERFORMANCE_DASHBOARD_TOKEN must be text of at least 8 characters or none "
            "(its value is a secret and not shown)",
            id="a secret",
        ),
        pytest.param(
            "PERFORMANCE_METRICS_TOKEN", "",
            "PERFORMANCE_METRICS_TOKEN must be text of at least 8 characters or none "
            "(its value is a secret and not shown)",
            id="a secret that was not injected opens nothing",
        ),
    ],
)  # fmt: skip
def test_an_environment_name_is_refused_with_one_sentence(monkeypatch, name, text, problem):
    monkeypatch.setenv(name, text)
    assert problems_of() == (problem,)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(
            {"metrics": {"enabld": True}},
            "Settings(metrics={'enabld': …}) is not a setting; "
            "did you mean metrics.enabled (true or false)?",
            id="a field misspelled",
        ),
        pytest.param(
            {"metrcs": {}},
            "Settings(metrcs=…) is not a setting; did you mean metrics?",
            id="a section misspelled",
        ),
        pytest.param(
            {"metrics_enabled": False},
            "Settings(metrics_enabled=…) is not a setting; "
            "did you mean metrics.enabled (true or false)?",
            id="a flat name",
        ),
        pytest.param(
            {"metrics.enabled": False},
            "Settings(metrics.enabled=…) is not a setting; "
            "did you mean metrics.enabled (true or false)?",
            id="a dotted name",
        ),
        pytest.param(
            {"lifespan": {1: 2}},
            "Settings(lifespan={'1': …}) is not a setting; "
            "the settings of lifespan are enabled, start_timeout_s, drain_timeout_s",
            id="a key that is no text",
        ),
        pytest.param(
            {"lifespan": RuntimeSettings()},
            "Settings(lifespan=…) must be a dict or LifespanSettings: "
            "the settings of lifespan are enabled, start_timeout_s, drain_timeout_s",
            id="the object of another section",
        ),
        pytest.param(
            {"lifespan": {"drain_timeout_s": None}},
            "Settings(lifespan={'drain_timeout_s': …}) must be a number above 0, not None",
            id="None where something is needed",
        ),
        pytest.param(
            {"metrics": {"slow_request_s": "none"}},
            "Settings(metrics={'slow_request_s': …}) must be a number above 0 or none, not 'none'",
            id="the word none, where Python has None",
        ),
        pytest.param(
            {"_env_file": ".env"},
            "Settings(_env_file=…) is not a setting; "
            "there are service and the sections metrics, runtime, dashboard, lifespan",
            id="an argument of pydantic-settings",
        ),
    ],
)
def test_an_argument_is_refused_with_one_sentence(arguments, problem):
    (found,) = problems_of(**arguments)
    start, _, rest = problem.partition("there are service")
    assert found.startswith(start)
    assert not rest or "there are service" in found


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(
            "[metrics]\nenabld = true",
            "metrics.enabld in perf.toml is not a setting; "
            "did you mean metrics.enabled (true or false)?",
            id="a field misspelled",
        ),
        pytest.param(
            "[metrcs]\nenabled = true",
            "metrcs in perf.toml is not a setting; did you mean metrics?",
            id="a section misspelled",
        ),
        pytest.param(
            "[tool.perf_middleware.metrics]\nenabled = 5",
            "tool.perf_middleware.metrics.enabled in perf.toml must be true or false, not 5",
            id="below the tool table",
        ),
        pytest.param(
            "[tool]\nperf_middleware = 1",
            "tool.perf_middleware in perf.toml must be a table of settings",
            id="the tool table is none",
        ),
        pytest.param(
            "lifespan = 's3cret'",
            "lifespan in perf.toml must be a table: "
            "the settings of lifespan are enabled, start_timeout_s, drain_timeout_s",
            id="a section that is no table",
        ),
        pytest.param(
            "\n[metrics\n",
            "perf.toml (from PERFORMANCE_CONFIG) is not valid TOML: "
            "Expected ']' at the end of a table declaration (at line 2, column 9)",
            id="broken",
        ),
        pytest.param(
            b"[metrics]\npath = '\xff'",
            "perf.toml (from PERFORMANCE_CONFIG) is not UTF-8: line 2",
            id="not UTF-8",
        ),
        pytest.param(
            b"#" * 1_000_001,
            "perf.toml (from PERFORMANCE_CONFIG) is larger than 1000000 bytes",
            id="too large",
        ),
        pytest.param(
            "[dashboard]\ntoken = 's3cret'",
            "dashboard.token in perf.toml must be text of at least 8 characters or none "
            "(its value is a secret and not shown)",
            id="a secret",
        ),
        pytest.param(
            "[dashboard]\ntokn = 's3cret'",
            "dashboard.tokn in perf.toml is not a setting; "
            "did you mean dashboard.token (text of at least 8 characters or none)?",
            id="a secret under a wrong name",
        ),
    ],
)
def test_a_file_is_refused_with_one_sentence(monkeypatch, tmp_path, content, problem):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "perf.toml").write_bytes(content)
    monkeypatch.setenv("PERFORMANCE_CONFIG", "perf.toml")
    assert problems_of() == (problem,)


def test_a_file_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_CONFIG", "/nowhere/perf.toml")
    assert problems_of() == ("/nowhere/perf.toml (from PERFORMANCE_CONFIG) does not exist",)


def test_a_directory_is_no_file(monkeypatch, tmp_path):
    monkeypatch.setenv("PERFORMANCE_CONFIG", str(tmp_path))
    (problem,) = problems_of()
    assert problem.startswith(f"{tmp_path} (from PERFORMANCE_CONFIG) cannot be read: ")


@pytest.fixture
def refused(monkeypatch):
    """No file can be opened; `refused(enterable)` says if the directories may be entered.

    The tests' own user may be one whom the system refuses nothing.
    """

    def refuse(*, enterable):
        def open_nothing(path, *mode):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("pathlib.Path.open", open_nothing)
        monkeypatch.setattr("os.access", lambda path, mode: enterable)

    return refuse


def test_a_pyproject_that_may_not_be_read_is_told(refused):
    refused(enterable=True)
    assert problems_of() == ("pyproject.toml cannot be read: Permission denied",)


def test_a_directory_that_may_not_be_entered_has_no_pyproject(refused, monkeypatch):
    """A fixed bug: `sudo -u app` in somebody else's home stopped an app that has no settings."""
    refused(enterable=False)
    assert Settings().service == "app"
    monkeypatch.setenv("PERFORMANCE_CONFIG", "perf.toml")
    (problem,) = problems_of()
    assert problem == "perf.toml (from PERFORMANCE_CONFIG) cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(
            "[tool.perf_middleware]\nservce = 'x'",
            "tool.perf_middleware.servce in pyproject.toml is not a setting; did you mean service",
            id="a name misspelled",
        ),
        pytest.param(
            "[tool.perf-middleware]\nservice = 'x'",
            "[tool.perf-middleware] in pyproject.toml is not read: "
            "name the table [tool.perf_middleware]",
            id="the table misspelled",
        ),
        pytest.param("[tool", "pyproject.toml is not valid TOML: ", id="broken"),
    ],
)
def test_pyproject_is_refused_with_one_sentence(tmp_path, content, problem):
    (tmp_path / "pyproject.toml").write_text(content)
    (found,) = problems_of()
    assert found.startswith(problem)


def test_all_problems_of_all_sources_are_reported_at_once(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.perf_middleware]\nservce = 'x'\n")
    monkeypatch.setenv("PERFORMANCE_CONFIG", "absent.toml")
    monkeypatch.setenv("PERFORMANCE_METRICS_ENABLD", "1")
    monkeypatch.setenv("PERFORMANCE_METRICS_WORKERS", "perhaps")
    problems = problems_of(lifespan={"enabld": 1, "start_timeout_s": -1})
    for key in (
        "servce", "absent.toml", "METRICS_ENABLD", "METRICS_WORKERS", "'enabld'", "start_timeout_s",
    ):  # fmt: skip
        assert sum(key in problem.split(" is not ")[0] for problem in problems) == 1, key
    assert len(problems) == 6


def test_the_error_is_a_configuration_error_that_lists_its_problems_and_survives_pickling():
    error = SettingsError(("one", "two"))
    assert isinstance(error, ConfigurationError)
    assert str(error) == "invalid settings:\n  - one\n  - two"
    assert pickle.loads(pickle.dumps(error)).problems == ("one", "two")


@pytest.mark.parametrize("wrong", [SECRET, SecretStr(SECRET), [SECRET], {"a": SECRET}])
def test_a_refused_secret_is_nowhere_in_the_traceback(wrong):
    with pytest.raises(SettingsError) as caught:
        Settings(dashboard={"token": wrong})
    said = "".join(traceback.format_exception_only(caught.value))
    assert SECRET not in said
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_a_section_built_by_hand_does_not_print_what_it_refuses():
    with pytest.raises(ValidationError) as caught:
        MetricsSettings(token=[SECRET])
    assert SECRET not in str(caught.value)


def test_settings_print_no_secret():
    found = Settings(metrics={"token": SECRET * 2}, dashboard={"token": SECRET * 2})
    assert SECRET not in f"{found!r}{found}{found.effective()}"
    masked = {row.key: row.value for row in found.effective() if row.value == "********"}
    assert set(masked) == {"metrics.token", "dashboard.token"}


def test_a_secret_reaches_pydantic_settings_only_as_a_secret(monkeypatch, caplog):
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    monkeypatch.setenv("PERFORMANCE_METRICS_TOKEN", SECRET * 2)
    with caplog.at_level("DEBUG"):
        assert Settings().metrics.token == SecretStr(SECRET * 2)
    assert SECRET not in caplog.text


class RangeSettings(Section):
    low: int = 1
    high: int = 2

    @model_validator(mode="after")
    def _rises(self):
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class Ranged(Settings):
    range: RangeSettings = RangeSettings()


def test_a_check_across_fields_speaks_for_its_section():
    with pytest.raises(SettingsError) as caught:
        Ranged(range={"low": 5})
    assert caught.value.problems == ("range: low must be below high",)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
keys = st.sampled_from(["enabled", "path", "buckets_s", "series_max", "slow_request_s", "x"])
sections = st.sampled_from(["metrics", "lifespan", "service", "metrcs", "dashboard"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(sections, json_like | st.dictionaries(keys, json_like, max_size=4)))
def test_any_arguments_give_settings_or_our_error(arguments):
    try:
        found = Settings(**arguments)
    except SettingsError:
        return
    assert {row.key for row in found.effective()} == set(Schema.of(Settings).settings)


@pytest.mark.parametrize("name", ["PERFORMANCE_METRICS_PATH", "PERFORMANCE_DASHBOARD_PREFIX"])
@pytest.mark.parametrize(
    "path",
    ["metrics", "/", "/metrics/", "/metrics?x", "/a b", "/\u00fc", "/a/../b", "/.", "/{id}", "//a"],
)
def test_a_path_that_no_request_could_ask_for_is_refused(monkeypatch, name, path):
    monkeypatch.setenv(name, path)
    (problem,) = problems_of()
    assert problem.startswith(f"{name}: must be a fixed path such as /metrics")


@pytest.mark.parametrize("path", ["/metrics", "/ops/v1.2/figures", "/.well-known/metrics", "/a..b"])
def test_a_fixed_path_is_taken(monkeypatch, path):
    monkeypatch.setenv("PERFORMANCE_METRICS_PATH", path)
    assert Settings().metrics.path == path
