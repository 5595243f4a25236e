"""The command line: `perf-middleware`.  Needs the extra `cli`; nothing else of the package does."""

from __future__ import annotations

import importlib.util
import sys

NEEDS_EXTRA = "perf-middleware: the command line needs typer: pip install 'perf-middleware[cli]'\n"


def main() -> None:
    """Run the command line of this process, and exit with its status."""
    try:
        found = importlib.util.find_spec("typer")
    except ValueError:  # a module that sys.modules says is absent has no spec
        found = None
    if found is None:
        sys.stderr.write(NEEDS_EXTRA)
        raise SystemExit(2)
    from perf_middleware.cli.commands import commands

    commands()(prog_name="perf-middleware")
