"""docs/values.md names every argument of the decorators, every action and every count."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from perf_middleware import ValueCache
from perf_middleware.caching.values.decorators.functions import ACTIONS
from perf_middleware.caching.values.figures import FunctionStats

PAGE = (Path(__file__).parents[2] / "docs" / "values.md").read_text("utf-8")


def first_column(title):
    """The words between backticks in the first column of the tables below a heading."""
    section = re.split(
        r"^## ", PAGE.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE
    )[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return set(re.findall(r"`(\w+)", " ".join(rows)))


def test_every_argument_of_cached_has_a_row():
    arguments = set(inspect.signature(ValueCache.cached).parameters) - {"self", "function"}
    assert arguments - first_column("Decorating") == set()


def test_every_action_has_a_row():
    assert {action for action in ACTIONS if f"`load.{action}(" not in PAGE} == set()


def test_every_count_of_a_function_is_named():
    row = next(line for line in PAGE.splitlines() if line.startswith("| `load.stats()`"))
    counts = {field.name.replace("saved_s", "saved seconds") for field in fields(FunctionStats)}
    assert {count for count in counts if count not in row} == set()


def test_every_figure_stands_there_as_a_scrape_shows_it():
    shown = {
        family.name + ("_total" if family.kind == "counter" else "")
        for family in ValueCache().families()
    }
    assert first_column("Figures") == shown


@pytest.mark.parametrize(
    "name",
    [name for name, member in vars(ValueCache).items() if inspect.iscoroutinefunction(member)],
)
def test_every_call_by_key_is_shown(name):
    assert f"memo.{name}(" in PAGE
