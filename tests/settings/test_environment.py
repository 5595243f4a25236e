"""How environment names and texts become settings."""

import json
import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from perf_middleware.configuration.json_text import read_json
from perf_middleware.configuration.schema import Schema
from perf_middleware.errors import SettingsError
from perf_middleware.section import Section
from perf_middleware.settings import Settings

SECRET = "sesame-open-thyself"


class Rule(BaseModel):
    path: str
    limit: int = 1


class ShapesSettings(Section):
    words: tuple[str, ...] = ("a",)
    maybe: tuple[int, ...] | None = (1,)
    kinds: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    limits: dict[str, int] = Field(default={})
    ratio: float | None = 0.5


class Shaped(Settings):
    shapes: ShapesSettings = ShapesSettings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        pytest.param("WORDS", "x", ("x",), id="one item"),
        pytest.param("WORDS", " x , y ", ("x", "y"), id="comma separated, blanks around"),
        pytest.param("WORDS", '["x", "y,z"]', ("x", "y,z"), id="JSON"),
        pytest.param("WORDS", "", (), id="an empty list"),
        pytest.param("MAYBE", "1,2", (1, 2), id="an optional list"),
        pytest.param("MAYBE", "", None, id="empty is None where None is allowed"),
        pytest.param("MAYBE", "[]", (), id="an empty optional list as JSON"),
        pytest.param("KINDS", "x,y,x", frozenset("xy"), id="a set"),
        pytest.param("RULES", '[{"path": "/a"}]', (Rule(path="/a"),), id="a list of tables"),
        pytest.param("LIMITS", '{"a": 1}', {"a": 1}, id="a table"),
        pytest.param("RATIO", "none", None, id="none"),
        pytest.param("RATIO", "NONE", None, id="none in capitals"),
        pytest.param("RATIO", "1e-3", 0.001, id="a number"),
    ],
)
def test_a_text_becomes_the_value_of_its_field(monkeypatch, name, text, value):
    monkeypatch.setenv(f"PERFORMANCE_SHAPES_{name}", text)
    assert getattr(Shaped().shapes, name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        pytest.param("WORDS", '["x"', "a list of texts", id="broken JSON is not cut at its commas"),
        pytest.param("MAYBE", "1,x", "not '1,x' (item 2)", id="a wrong item"),
        pytest.param(
            "RULES",
            '[{"path": 5}]',
            "item 1: path must be text, not 5",
            id="a wrong field of a table",
        ),
        pytest.param(
            "RULES", "x", "written as JSON (Expecting value", id="text instead of a table"
        ),
        pytest.param("RULES", "[1]", "item 1 must be a table of path, ", id="a number for a table"),
        pytest.param("LIMITS", "{", "must be a table, not '{'", id="broken JSON of a table"),
        pytest.param("WORDS", "[" * 100_000, "a list of texts", id="JSON too deep to read"),
    ],
)
def test_a_text_of_another_shape_is_refused(monkeypatch, name, text, complaint):
    monkeypatch.setenv(f"PERFORMANCE_SHAPES_{name}", text)
    with pytest.raises(SettingsError) as caught:
        Shaped()
    (problem,) = caught.value.problems
    assert f"PERFORMANCE_SHAPES_{name}" in problem
    assert complaint in problem
    assert len(problem) < 300


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        pytest.param("RULES", '[{"path": "/a", "limit": 1, "limit": 2}]',
                     [", item 1: limit is given twice: keep one of them"], id="in an item"),
        pytest.param("RULES", '[{"path": "/a"}, {"path": "/a", "path": "/a"}]',
                     [", item 2: path is given twice: keep one of them"], id="the same value"),
        pytest.param("RULES", '[{"path": "", "path": "/b", "limit": 1, "path": "/c", "limit": 2}]',
                     [", item 1: path is given twice: keep one of them",
                      ", item 1: limit is given twice: keep one of them"], id="several names"),
        pytest.param("LIMITS", '{"a": 1, "b": 1, "a": 1}',
                     [": a is given twice: keep one of them"], id="in a table"),
        pytest.param("LIMITS", r'{"a\n": 1, "\u0061\n": 1}',
                     [r": a\n is given twice: keep one of them"], id="a name spelled otherwise"),
    ],
)  # fmt: skip
def test_a_name_given_twice_in_json_is_refused_with_its_place(monkeypatch, name, text, told):
    monkeypatch.setenv(f"PERFORMANCE_SHAPES_{name}", text)
    with pytest.raises(SettingsError) as caught:
        Shaped()
    assert caught.value.problems == tuple(f"PERFORMANCE_SHAPES_{name}{each}" for each in told)


def test_a_name_given_twice_is_told_beside_what_else_is_wrong(monkeypatch):
    monkeypatch.setenv(
        "PERFORMANCE_CACHE_RULES", '[{"path": "/a", "ttl": 1, "ttl": "x", "shard": 1}]'
    )
    with pytest.raises(SettingsError) as caught:
        Settings()
    twice, *others = caught.value.problems
    assert twice == "PERFORMANCE_CACHE_RULES, item 1: ttl is given twice: keep one of them"
    assert len(others) == 2


scalars = st.none() | st.booleans() | st.integers(0, 3)
NESTED = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: ("list", items))
        | st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=4).map(
            lambda pairs: ("table", pairs)
        )
    ),
    max_leaves=12,
)


def written_as_json(node):
    match node:
        case ("list", items):
            return f"[{', '.join(map(written_as_json, items))}]"
        case ("table", pairs):
            fields = (f'"{name}": {written_as_json(each)}' for name, each in pairs)
            return "{" + ", ".join(fields) + "}"
        case _:
            return json.dumps(node)


def has_names_twice(node):
    match node:
        case ("list", items):
            return any(map(has_names_twice, items))
        case ("table", pairs):
            names = [name for name, _ in pairs]
            inner = (each for _, each in pairs)
            return len(names) != len(set(names)) or any(map(has_names_twice, inner))
        case _:
            return False


@given(NESTED)
def test_json_is_read_as_python_reads_it_and_each_name_given_twice_is_found(node):
    text = written_as_json(node)
    value, places = read_json(text)
    assert value == json.loads(text)
    assert bool(places) == has_names_twice(node)
    for place in places:
        inner = value
        for at in place:
            inner = inner[at]


def test_a_name_given_twice_is_found_however_deep_it_stands():
    deep = 500
    assert read_json("[" * deep + '{"a": 1, "a": 2}' + "]" * deep)[1] == [(*[0] * deep, "a")]


@pytest.mark.parametrize(
    ("text", "value"),
    [(text, True) for text in ("1", "true", "True", "on", "yes", "y", "t")]
    + [(text, False) for text in ("0", "false", "FALSE", "off", "no", "n", "f")],
)
def test_a_switch_is_read_as_pydantic_reads_it(monkeypatch, text, value):
    monkeypatch.setenv("PERFORMANCE_METRICS_ENABLED", text)
    assert Settings().metrics.enabled is value


def test_buckets_are_comma_separated(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_METRICS_BUCKETS_S", "0.1,0.5,1")
    assert Settings().metrics.buckets_s == (0.1, 0.5, 1.0)


def test_a_name_may_be_written_in_any_case_and_keeps_it(monkeypatch):
    monkeypatch.setenv("performance_Metrics_Series_Max", "77")
    settings = Settings()
    assert settings.metrics.series_max == 77
    assert settings.origin_of("metrics.series_max") == "performance_Metrics_Series_Max"


def test_one_setting_under_two_spellings_is_refused(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_SERVICE", "one")
    monkeypatch.setenv("performance_service", "two")
    with pytest.raises(SettingsError, match="name the same setting: keep one of them"):
        Settings()


def test_names_of_other_programs_are_not_ours(monkeypatch):
    monkeypatch.setenv("PERFORMANCE", "1")
    monkeypatch.setenv("MY_PERFORMANCE_METRICS_ENABLD", "1")
    assert Settings() == Settings()


@pytest.mark.parametrize("name", sorted(Schema.of(Settings).settings))
def test_every_setting_has_one_environment_name_that_leads_back_to_it(name):
    schema = Schema.of(Settings)
    env_name = schema.settings[name].env_name
    section, _, field = env_name.removeprefix("PERFORMANCE_").lower().partition("_")
    assert (f"{section}.{field}" if section in schema.sections else section + field) == name


def test_a_section_whose_name_would_not_split_is_refused():
    class Wrong(Settings):
        two_words: ShapesSettings = ShapesSettings()

    with pytest.raises(TypeError, match="two_words"):
        Schema.of(Wrong)


KNOWN_NAMES = [setting.env_name for setting in Schema.of(Shaped).settings.values()]
names = st.one_of(
    st.sampled_from(KNOWN_NAMES),
    st.sampled_from(KNOWN_NAMES).map(str.lower),
    st.sampled_from(KNOWN_NAMES).map(lambda name: name[:-1]),
    st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), max_size=30).map(
        "PERFORMANCE_".__add__
    ),
)
texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(
        ["", "none", "nan", "inf", "-1", "1" * 5_000, "[", "[1,", "{}", "[[]]", "0.1,x"]
    ),
    st.floats().map(str),
    st.integers().map(str),
)


# The first example also builds hypothesis's table of characters: slow, once per machine.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def said_about(environ):
    """All that Settings has to say about an environment: itself, or its error."""
    with mock.patch.dict(os.environ, environ):
        try:
            found = Shaped()
        except SettingsError as error:
            return str(error)
    return f"{found!r} {found} {found.effective()}"


@patient
@given(st.dictionaries(names, texts, max_size=6), st.booleans())
def test_any_environment_gives_settings_or_our_error_and_no_secret(environ, secret_is_valid):
    environ = {name: text for name, text in environ.items() if "TOKEN" not in name.upper()}
    environ["PERFORMANCE_METRICS_TOKEN"] = SECRET
    environ["PERFORMANCE_DASHBOARD_TOKEN"] = SECRET if secret_is_valid else SECRET[:7]
    assert SECRET[:7] not in said_about(environ)


@patient
@given(st.dictionaries(names, texts, max_size=6))
def test_each_problem_is_one_line_that_can_be_encoded(environ):
    said = said_about(environ)
    if said.startswith("invalid settings:"):
        said.encode()
        assert all(line.startswith("  - ") for line in said.split("\n")[1:])


@patient
@given(st.binary(max_size=20).filter(lambda raw: b"\0" not in raw))
def test_bytes_that_are_no_text_do_no_harm(raw):
    with mock.patch.dict(os.environ, {"PERFORMANCE_METRICS_WORKERS_DIR": os.fsdecode(raw)}):
        found = Settings().metrics.workers_dir
    text = os.fsdecode(raw).strip().lower()
    assert found == (None if text in ("", "none") else Path(os.fsdecode(raw)))
