"""docs/pools.md names every argument and every figure of a pool, and every way an object goes."""

import inspect
import re
from pathlib import Path

import pytest

from perf_middleware.memory_watch.pools import AsyncObjectPool, ObjectPool
from perf_middleware.memory_watch.pools.figures import REASONS, STEPS

PAGE = (Path(__file__).parents[2] / "docs" / "pools.md").read_text("utf-8")
ROWS = " ".join(line for line in PAGE.splitlines() if line.startswith("| "))
NAMED = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", ROWS))))


@pytest.mark.parametrize("pool", [AsyncObjectPool, ObjectPool])
def test_every_argument_has_a_row(pool):
    assert set(inspect.signature(pool).parameters) - {"clock"} - NAMED == set()


def test_every_figure_has_a_row_with_all_its_reasons():
    names = {
        family.name + ("_total" if family.kind == "counter" else "")
        for family in ObjectPool(object, size_max=1).families()
    }
    assert (names | set(REASONS) | set(STEPS)) - NAMED == set()
