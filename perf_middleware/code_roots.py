"""Whose code a line is, told from where its file lies.

    innermost   socket.py readinto          machinery   the call that waits
                psycopg2/… execute          library
                app/db.py   load_items      own         the author can change it
                starlette/routing.py        framework   carries a request to the code that answers
                uvicorn/…   run_asgi        server
    outermost   asyncio/runners.py run      machinery

Which of them is to blame, those decide who ask: what blocks the loop, what memory grows at.
"""

from __future__ import annotations

import site
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Origin: TypeAlias = Literal["own", "library", "machinery"]
"""Whose code a line is: the app's, a library's, or the runtime's (stdlib, server, framework)."""

Role: TypeAlias = Literal["own", "library", "framework", "server", "ours", "machinery"]
"""The same, with the machinery taken apart: `ours` is this package."""

# Code that was typed or rendered has no file, yet it is the author's; other names in angle
# brackets (<frozen importlib>, <string> of a dataclass) are generated.
TYPED_BY_THE_AUTHOR = ("<stdin>", "<ipython-input", "<console>", "<template>")

# Installed packages that only carry a request to the code that answers it.
FRAMEWORKS = frozenset(("fastapi", "starlette"))
SERVERS = frozenset(
    (
        "a2wsgi", "anyio", "asgiref", "click", "daphne", "fastapi_cli", "granian", "gunicorn",
        "hypercorn", "outcome", "sniffio", "trio", "typer", "uvicorn", "uvicorn_worker", "uvloop",
        "winloop",
    )
)  # fmt: skip
OURSELVES = "perf_middleware"
INSTALLED_UNDER = ("/site-packages/", "/dist-packages/")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRoots:
    """Where code lies: directories with `/` between and at the end of their names.

    `own` wins over all others: an app that was installed into site-packages names itself there.
    `machinery` and `projects` may lie in each other, and the innermost wins: a virtual environment
    in the project's folder is the interpreter's, a project in /usr/src is not though Python's
    prefix is /usr.  `interrupting` are files whose functions run in the middle of any line.
    """

    machinery: tuple[str, ...]
    own: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    interrupting: tuple[str, ...] = ()

    def origin_of(self, file: str) -> Origin:
        """Whose code `file` is; what lies in no known place is the app's own."""
        role = self.role_of(file)
        return role if role in ("own", "library") else "machinery"

    def role_of(self, file: str) -> Role:
        """What part `file` plays in the serving of a request."""
        file = file.replace("\\", "/")
        if file.startswith((*self.own, *TYPED_BY_THE_AUTHOR)):
            return "own"
        if file.startswith("<"):
            return "machinery"
        if file.startswith(self.ours):
            return "ours"
        for marker in INSTALLED_UNDER:
            _, found, rest = file.rpartition(marker)
            if found:
                return _role_of_package(rest.partition("/")[0].removesuffix(".py"))
        machinery = _longest(self.machinery, file)
        return "machinery" if machinery > _longest(self.projects, file) else "own"


def code_roots(own: Sequence[str] = (), *, interrupting: Sequence[str] = ()) -> CodeRoots:
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
    searched = _as_roots([".", *(path or "." for path in sys.path)])
    return CodeRoots(
        machinery=tuple(dict.fromkeys((*fixed, *prefixes))),
        own=tuple(_as_root(path) for path in own),
        projects=tuple(path for path in searched if not path.startswith(fixed)),
        ours=_as_roots([str(Path(__file__).parent)]),
        interrupting=tuple(interrupting),
    )


def _role_of_package(package: str) -> Role:
    if package in FRAMEWORKS:
        return "framework"
    if package == OURSELVES:
        return "ours"
    return "server" if package in SERVERS else "library"


def _longest(roots: tuple[str, ...], file: str) -> int:
    return max((len(root) for root in roots if file.startswith(root)), default=0)


def _as_roots(paths: Iterable[str]) -> tuple[str, ...]:
    """The directories as they are written and as links lead to them: code has either name."""
    spelled: list[str] = []
    for path in paths:
        # A working directory that was deleted has no name: nothing is imported from there.
        with suppress(OSError):
            spelled += (str(Path(path).absolute()), str(Path(path).resolve()))
    return tuple(dict.fromkeys(map(_as_root, spelled)))


def _as_root(path: str) -> str:
    return path.replace("\\", "/").rstrip("/") + "/"
