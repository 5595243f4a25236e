"""docs/batching.md and docs/concurrency-helpers.md name every argument and every figure."""

import inspect
import re
from pathlib import Path

import pytest

from perf_middleware import WorkerThreads, batched
from perf_middleware.tasks.batching import batching_families
from perf_middleware.tasks.concurrency import worker_families

DOCS = Path(__file__).parents[2] / "docs"


def named(page):
    """The words between backticks in the rows of the tables of a page."""
    rows = " ".join(
        line for line in (DOCS / page).read_text("utf-8").splitlines() if line.startswith("| ")
    )
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", rows))))


def test_every_argument_of_batched_has_a_row():
    assert set(inspect.signature(batched).parameters) - {"function"} - named("batching.md") == set()


@pytest.mark.parametrize(
    ("page", "families"),
    [
        ("batching.md", batching_families([])),
        ("concurrency-helpers.md", worker_families([WorkerThreads(limit=1).reading()])),
    ],
)
def test_every_figure_has_a_row(page, families):
    names = {family.name + ("_total" if family.kind == "counter" else "") for family in families}
    assert names - named(page) == set()
