"""What another thread is doing right now, and where its code lies."""

from __future__ import annotations

import site
import sys
import sysconfig
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import perf_middleware
from perf_middleware.metrics.probes import gc as gc_probe
from perf_middleware.metrics.watching.blocks import SOURCE_CHARS_MAX
from perf_middleware.metrics.watching.stacks import CodeRoots, StackLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DEPTH_MAX = 100  # how far out the app's own line is looked for; an ORM's call is some fifteen deep
SOURCE_LINE_MAX = 100_000  # a longer file is generated, its source line helps nobody


def code_roots(own: Sequence[str] = ()) -> CodeRoots:
    """Where this interpreter keeps its own code; `own` are directories that are the app's.

    Projects are the working directory and what is on `sys.path`: servers put the app's there.
    """
    paths = sysconfig.get_paths()
    prefixes = _as_roots({sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix})
    # A console script's folder is the first on `sys.path`, and is nobody's project for that.
    scripts = [f"{base}{name}/" for base in prefixes for name in ("bin", "Scripts")]
    scripts += _as_roots([paths["scripts"]])
    if site.ENABLE_USER_SITE:
        scripts += [f"{base}bin/" for base in _as_roots([site.getuserbase()])]
    fixed = (*_as_roots([paths["stdlib"], paths["platstdlib"]]), *scripts)
    searched = _as_roots([str(Path.cwd()), *(path or "." for path in sys.path)])
    return CodeRoots(
        machinery=tuple(dict.fromkeys((*fixed, *prefixes))),
        own=tuple(_as_root(path) for path in own),
        projects=tuple(path for path in searched if not path.startswith(fixed)),
        ours=_as_roots(perf_middleware.__path__),
        interrupting=(gc_probe.__file__,),
    )


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


def _as_roots(paths: Iterable[str]) -> tuple[str, ...]:
    """The directories as they are written and as links lead to them: code has either name."""
    spelled = [(str(Path(path).absolute()), str(Path(path).resolve())) for path in paths]
    return tuple(dict.fromkeys(_as_root(path) for pair in spelled for path in pair))


def _as_root(path: str) -> str:
    return path.replace("\\", "/").rstrip("/") + "/"
