"""Makes docs/images/demo.svg: what the demo really prints and answers, as a picture of a terminal.

Run it after a change of the log lines or of the summary:  python scripts/screenshot.py
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx2
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.examples.servers import eventually, serving  # noqa: E402

SHOWN = ("the event loop was blocked", "slow request")
DOCTOR = ["doctor", "examples.fastapi_app.app:app"]
WIDTH = 132
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> None:
    console = Console(record=True, width=WIDTH, file=Path("/dev/null").open("w"))  # noqa: SIM115
    doctor = subprocess.run(
        [sys.executable, "-c", "from perf_middleware.cli import main; main()", *DOCTOR],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    layers = doctor.split("\n\n")[1]
    show(console, "perf-middleware doctor examples.fastapi_app.app:app", layers.splitlines())
    with serving(["-m", "examples.fastapi_app", "--port", "0"]) as server:
        for path in ("/catalogue/products", "/catalogue/products/7", "/reports/sales") * 20:
            httpx2.get(server.url + path)
        httpx2.get(server.url + "/trouble/block?seconds=0.6")
        httpx2.get(server.url + "/trouble/slow?seconds=1.2")
        eventually(lambda: all(said in server.log() for said in SHOWN), what="both lines")
        lines = [line for line in server.log().splitlines() if line.startswith(SHOWN)]
        show(console, "make demo", lines)
        summary = httpx2.get(server.url + "/metrics", headers={"Accept": "application/json"}).json()
    rows = [
        {key: row[key] for key in ("method", "route", "requests", "p50_s", "p95_s", "p99_s")}
        for row in summary["routes"][:5]
    ]
    command = "curl -s -H 'Accept: application/json' localhost:8000/metrics | jq -c '.routes[]'"
    show(console, command, [json.dumps(row) for row in rows])
    target = ROOT / "docs" / "images" / "demo.svg"
    target.parent.mkdir(exist_ok=True)
    svg = console.export_svg(title="perf_middleware")
    # The picture names a font on somebody's server; a page that shows it should ask nobody.
    target.write_text(FONT_FACE.sub("", svg), encoding="utf-8")


def show(console: Console, command: str, lines: list[str]) -> None:
    console.print(Text(f"$ {command}", style="bold green"))
    for line in lines:
        console.print(Text(line.replace(str(ROOT) + "/", "")))
    console.print()


if __name__ == "__main__":
    main()
