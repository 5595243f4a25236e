"""On what a run was made: figures of two machines say nothing about each other, ratios little."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).parents[1]
LIBRARIES: Final = (
    "perf-middleware", "fastapi", "starlette", "uvicorn", "granian", "uvloop", "httptools",
    "prometheus-client", "prometheus-fastapi-instrumentator", "starlette-exporter",
    "opentelemetry-sdk", "opentelemetry-instrumentation-asgi", "brotli-asgi", "starlette-compress",
    "fastapi-cache2", "cashews", "aiocache", "fastapi-cachex", "hishel", "slowapi", "limits",
    "fastapi-limiter",
)  # fmt: skip
TOOLS: Final = {"nginx": "-v", "wrk": "-v"}  # name -> what makes it tell its version
VERSION: Final = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`load` is the number of processes that wanted a core, mean of a minute, as the run began."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    versions: dict[str, str]  # of the libraries and tools that are there
    revision: str  # of this project; with a + where files were changed
    date: str
    load: float


def this_machine() -> Machine:
    """The machine as it is now."""
    return Machine(
        cpu=cpu_model(),
        cores=psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={**_libraries(), **_tools()},
        revision=_revision(),
        date=datetime.now(UTC).date().isoformat(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )


def cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    """The name that the processor gives itself."""
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _tools() -> dict[str, str]:
    found = {}
    for name, option in TOOLS.items():
        if shutil.which(name) is not None:
            told = subprocess.run([name, option], capture_output=True, text=True, check=False)
            number = VERSION.search(told.stderr + told.stdout)
            found[name] = number[0] if number else "?"
    return found


def _revision() -> str:
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "?"
    return told.stdout.strip()
