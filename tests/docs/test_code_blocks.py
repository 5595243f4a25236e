"""Every Python block of the README and of docs/ runs as it stands; every figure is described."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette

from perf_middleware import Settings, install

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, match in enumerate(BLOCK.finditer(text), start=1):
            line = text[: match.start(1)].count("\n") + 1
            yield pytest.param(page, line, match[1], id=f"{page.name}, block {number}")


@pytest.mark.parametrize(("page", "line", "code"), list(python_blocks()))
def test_a_code_block_of_the_docs_runs_as_it_stands(page, line, code, tmp_path):
    # A process of its own: a reader starts with nothing imported and nothing installed into.
    placed = "\n" * (line - 1) + code
    script = tmp_path / f"{page.stem}.py"
    script.write_text(placed, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


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
