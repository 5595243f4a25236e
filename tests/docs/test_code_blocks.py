"""Every Python block of the README and of docs/ runs as it stands; every figure is described."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.applications import Starlette

from perf_middleware import Settings, install
from tests.docs.forks import forks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNS_S_MAX = 300
LIBRARIES = (
    "anyio._backends._asyncio", "fastapi.testclient", "ormsgpack", "psutil", "pydantic_settings",
    "sqlalchemy.ext.asyncio",
)  # fmt: skip
OURS = ("perf_middleware.assembly", "perf_middleware.bundle", "perf_middleware.settings")


def python_blocks():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, match in enumerate(BLOCK.finditer(text), start=1):
            line = text[: match.start(1)].count("\n") + 1
            yield pytest.param(page, line, match[1], id=f"{page.name}, block {number}")


@pytest.fixture(scope="module")
def fresh_processes():
    """By whether the package is imported already.

    Who begins with something deep in it meets it as it is imported by that.
    """
    with ExitStack() as both:
        yield {
            ours: both.enter_context(forks([*LIBRARIES, *ours_imported], root=ROOT))
            for ours, ours_imported in ((False, ()), (True, OURS))
        }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="scripts are run in forks")
@pytest.mark.parametrize(("page", "line", "code"), list(python_blocks()))
def test_a_code_block_of_the_docs_runs_as_it_stands(page, line, code, tmp_path, fresh_processes):
    # A process of its own: a reader starts with nothing installed into.
    placed = "\n" * (line - 1) + code
    script = tmp_path / f"{page.stem}.py"
    script.write_text(placed, encoding="utf-8")
    begins = re.search(r"^(?:from|import) perf_middleware\b(\S*)", code, re.MULTILINE)
    is_deep = begins is not None and begins[1] != ""
    status, told = fresh_processes[not is_deep].run(script, s_max=RUNS_S_MAX)
    assert status == 0, told


def test_every_metric_is_named_in_the_docs():
    documented = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    every_part = {"redis": {"url": "redis://127.0.0.1:1"}, "compression": {"decode_requests": True}}
    perf = install(Starlette(), Settings(**every_part))
    names = {family.name for family in perf.metrics.families()}
    assert {name for name in names if name not in documented} == set()


def test_every_relative_link_leads_somewhere():
    dead = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert dead == []
