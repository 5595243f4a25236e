"""What another thread is doing right now."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from perf_middleware.code_roots import code_roots
from perf_middleware.metrics.probes import gc as gc_probe
from perf_middleware.metrics.watching.blocks import SOURCE_CHARS_MAX
from perf_middleware.metrics.watching.stacks import StackLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.code_roots import CodeRoots

DEPTH_MAX = 100  # how far out the app's own line is looked for; an ORM's call is some fifteen deep
SOURCE_LINE_MAX = 100_000  # a longer file is generated, its source line helps nobody


def watched_roots(own: Sequence[str] = ()) -> CodeRoots:
    """Where code lies; `own` are directories that are the app's.

    Our hook of the garbage collector runs in the middle of any line: no line is blamed for it.
    """
    return code_roots(own, interrupting=(gc_probe.__file__,))


def capture(thread_id: int) -> tuple[StackLine, ...]:
    """The stack of a thread, innermost line first; empty where there is no such thread.

    About 45 us for a request's stack of forty lines.  Only strings and numbers leave this function.
    """
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - the documented door for this
    lines: list[StackLine] = []
    while frame is not None and len(lines) < DEPTH_MAX:
        code = frame.f_code
        # Before its first line a function has no number; where it begins says more than 0.
        number = frame.f_lineno or code.co_firstlineno
        lines.append(StackLine(code.co_qualname, code.co_filename, number))
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
