"""Whose code the line of a stack is, told from where its file lies.

    innermost   socket.py readinto          machinery   the call that waits
                psycopg2/… execute          library
                app/db.py   load_items      own         the author can change it
                starlette/routing.py        framework   carries a request to the code that answers
                uvicorn/…   run_asgi        server
    outermost   asyncio/runners.py run      machinery

Which of them is to blame, blame.py decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

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


@dataclass(frozen=True, slots=True)
class StackLine:
    """One line of a stack, as strings: a kept frame would keep every local of the request alive."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


Stack: TypeAlias = Sequence[StackLine]
"""Innermost line first."""


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


def _role_of_package(package: str) -> Role:
    if package in FRAMEWORKS:
        return "framework"
    if package == OURSELVES:
        return "ours"
    return "server" if package in SERVERS else "library"


def _longest(roots: tuple[str, ...], file: str) -> int:
    return max((len(root) for root in roots if file.startswith(root)), default=0)
