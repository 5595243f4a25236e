"""What another thread is doing right now, and where its code lies."""

from __future__ import annotations

import sys
import sysconfig
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import perf_middleware
from perf_middleware.metrics.watching.blocks import SOURCE_CHARS_MAX
from perf_middleware.metrics.watching.stacks import CodeRoots, StackLine

if TYPE_CHECKING:
    from collections.abc import Sequence

DEPTH_MAX = 100  # how far out the app's own line is looked for; an ORM's call is some fifteen deep
SOURCE_LINE_MAX = 100_000  # a longer file is generated, its source line helps nobody


def code_roots(own: Sequence[str] = ()) -> CodeRoots:
    """Where this interpreter keeps its own code; `own` are directories that are the app's."""
    paths = sysconfig.get_paths()
    package = [str(Path(path)) for path in perf_middleware.__path__]
    return CodeRoots(
        machinery=tuple(
            {_as_root(path) for path in (paths["stdlib"], paths["platstdlib"], *package)}
        ),
        own=tuple(_as_root(path) for path in own),
    )


def capture(thread_id: int) -> tuple[StackLine, ...]:
    """The stack of a thread, innermost line first; empty where there is no such thread.

    About 45 us for a request's stack of forty lines.  Only strings and numbers leave this function.
    """
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - the documented door for this
    lines: list[StackLine] = []
    while frame is not None and len(lines) < DEPTH_MAX:
        code = frame.f_code
        lines.append(StackLine(code.co_qualname, code.co_filename, frame.f_lineno or 0))
        frame = frame.f_back
    return tuple(lines)


def source_of(line: StackLine) -> str:
    """The text of `line`, stripped and cut; empty where its file cannot be read.

    Reads a file: once or twice for a report, never for a sample.  Not `linecache`, which keeps
    every file that it ever touched.
    """
    if not 0 < line.line <= SOURCE_LINE_MAX or line.file.startswith("<"):
        return ""
    try:
        with Path(line.file).open(encoding="utf-8", errors="replace") as file:
            text = next(islice(file, line.line - 1, None), "")
    except (OSError, ValueError):
        return ""
    return text.strip()[:SOURCE_CHARS_MAX]


def _as_root(path: str) -> str:
    return path.replace("\\", "/").rstrip("/") + "/"
