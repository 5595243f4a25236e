"""How fields and values read in errors, in the docs and in the doctor."""

import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from perf_middleware.configuration.words import (
    NAME_CHARS_MAX,
    VALUE_CHARS_MAX,
    allowed_in_words,
    shown_name,
    shown_value,
    value_in_words,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    path: str


class Shapes(BaseModel):
    switch: bool
    whole: int = Field(ge=1)
    between: int = Field(ge=1, le=9)
    below: float = Field(gt=0, lt=1)
    text: str
    long: str = Field(min_length=1, max_length=9)
    patterned: str = Field(pattern="^a$")
    choice: Literal["x", "y"] | None
    colour: Colour
    number_or_word: float | Literal["auto"]
    numbers: tuple[Annotated[float, Field(gt=0)], ...] = Field(max_length=3)
    secrets: list[SecretStr]
    tables: tuple[Inner, ...] | None
    table: dict[str, int]
    folder: Path
    anything: Any


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("switch", "true or false"),
        ("whole", "a whole number of at least 1"),
        ("between", "a whole number from 1 to 9"),
        ("below", "a number above 0 and below 1"),
        ("text", "text"),
        ("long", "text of 1 to 9 characters"),
        ("patterned", "text matching ^a$"),
        ("choice", "one of x, y or none"),
        ("colour", "one of red, blue"),
        ("number_or_word", "a number or auto"),
        ("numbers", "a list of numbers above 0, at most 3 items"),
        ("secrets", "a list of texts"),
        ("tables", "a list of tables or none"),
        ("table", "a table"),
        ("folder", "a path"),
        ("anything", "any value"),
    ],
)
def test_what_a_field_allows_reads_as_a_sentence(field, words):
    assert allowed_in_words(Shapes.model_fields[field]) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        (True, "true"),
        (False, "false"),
        ("", '""'),
        ("/metrics", "/metrics"),
        (1.0, "1.0"),
        ([0.1, 5], "0.1,5"),
        ([], "[]"),
        ({"a": True, "b": None}, "a=true, b=none"),
        ("two\nlines\x1b[31m", r"two\nlines\x1b[31m"),
        ("\udcff", r"\udcff"),
    ],
)
def test_a_value_reads_as_the_environment_would_write_it(value, words):
    assert value_in_words(value) == words


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("enabld", "enabld", id="as written"),
        pytest.param("größe", "größe", id="in any language"),
        pytest.param("a\nb\x1b", r"a\nb\x1b", id="on one line"),
        pytest.param("x" * 500, "x" * (NAME_CHARS_MAX - 1) + "…", id="cut"),
        pytest.param(5, "5", id="no text"),
    ],
)
def test_a_name_is_shown_on_one_line(name, shown):
    assert shown_name(name) == shown


class Unreadable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize("value", ["x" * 500, list(range(500)), {"a": "x" * 500}, Unreadable()])
def test_a_value_is_shown_short_whatever_it_is(value):
    assert len(shown_value(value)) <= VALUE_CHARS_MAX + 20
