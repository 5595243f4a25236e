"""Scripts in processes that start with the libraries imported: a second less for each of them.

A helper imports them once, and forks for each script.  What a script defines, sets, installs into
or breaks, the next one does not see.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HELPER = """
import gc, importlib, json, os, runpy, signal, sys

for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # else each of them would look at it all once more, at its end at the latest
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(os.waitpid(child, 0)[1], flush=True)
else:
    sys.exit()
signal.alarm(job["s_max"])
os.chdir(job["directory"])
told = os.open(job["log"], os.O_WRONLY | os.O_CREAT)
nothing = os.open(os.devnull, os.O_RDONLY)
for fd, instead in ((nothing, 0), (told, 1), (told, 2)):
    os.dup2(fd, instead)
sys.argv = [job["script"]]
sys.path[0] = job["directory"]
runpy.run_path(job["script"], run_name="__main__")
"""


class Forks:
    """Runs scripts one after the other."""

    def __init__(self, helper: subprocess.Popen[str]) -> None:
        self._helper = helper

    def run(self, script: Path, *, s_max: int) -> tuple[int, str]:
        """What `waitpid` says of it, 0 for a good end, and what it has printed."""
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        log = script.with_suffix(".log")
        job = {
            "script": str(script), "directory": str(script.parent), "log": str(log), "s_max": s_max,
        }  # fmt: skip
        self._helper.stdin.write(json.dumps(job) + "\n")
        self._helper.stdin.flush()
        status = self._helper.stdout.readline()
        assert status, "the helper has ended"
        return int(status), log.read_text(encoding="utf-8")


@contextmanager
def forks(modules: Sequence[str], *, root: Path) -> Iterator[Forks]:
    """A helper with `modules` imported, every warning an error, and nothing else of ours."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HELPER, *modules],
        env={"PYTHONPATH": str(root), "PATH": ""},
        cwd=os.sep,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as helper:
        yield Forks(helper)
        assert helper.stdin is not None
        helper.stdin.close()
