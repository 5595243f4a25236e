"""Which line is to blame: the innermost one that the app's author can change.

    innermost   socket.py readinto          machinery   the call that waits
                psycopg2/… execute          library
                app/db.py   load_items      own         <- the line that is named
                starlette/routing.py        machinery
    outermost   asyncio/runners.py run      machinery

One sample of a long block may have hit an unlucky line, so several are taken and vote: first for
the function, then for the line inside it (a spinning function is seen at several of its lines).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Origin: TypeAlias = Literal["own", "library", "machinery"]
"""Whose code a line is: the app's, a library's, or the runtime's (stdlib, server, framework)."""

KEPT_LINES_MAX = 30  # what a reader looks at; the stack of a FastAPI request has about forty
LINES_MAX = 64  # different lines that may get votes in one block; more only count as samples

# Code that was typed or rendered has no file, yet it is the author's; other names in angle
# brackets (<frozen importlib>, <string> of a dataclass) are generated.
TYPED_BY_THE_AUTHOR = ("<stdin>", "<ipython-input", "<console>", "<template>")

# Installed packages that only carry a request to the code that answers it.
CARRIERS = frozenset(
    (
        "anyio", "asgiref", "fastapi", "granian", "gunicorn", "hypercorn", "outcome",
        "perf_middleware", "sniffio", "starlette", "trio", "uvicorn", "uvloop",
    )
)  # fmt: skip
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

    `own` wins over the others: an app that was installed into site-packages names itself there.
    """

    machinery: tuple[str, ...]
    own: tuple[str, ...] = ()

    def origin_of(self, file: str) -> Origin:
        """Whose code `file` is; what lies in no known place is the app's own."""
        file = file.replace("\\", "/")
        if file.startswith((*self.own, *TYPED_BY_THE_AUTHOR)):
            return "own"
        if file.startswith("<"):
            return "machinery"
        for marker in INSTALLED_UNDER:
            _, found, rest = file.rpartition(marker)
            if found:
                package = rest.partition("/")[0].removesuffix(".py")
                return "machinery" if package in CARRIERS else "library"
        return "machinery" if file.startswith(self.machinery) else "own"


def guilty_index(origins: Sequence[Origin]) -> int:
    """Index of the line to blame: innermost own, else innermost library, else the innermost."""
    for wanted in ("own", "library"):
        if wanted in origins:
            return origins.index(wanted)
    return 0


def shorten(stack: Stack, guilty: int) -> tuple[StackLine, ...]:
    """At most `KEPT_LINES_MAX` innermost lines; a guilty one further out takes the last place."""
    if guilty < KEPT_LINES_MAX:
        return tuple(stack[:KEPT_LINES_MAX])
    return (*stack[: KEPT_LINES_MAX - 1], stack[guilty])


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The line that most samples name, `call` where it was waiting or working, one whole stack."""

    line: StackLine
    origin: Origin
    call: StackLine
    stack: tuple[StackLine, ...]
    seen: int
    samples: int


@dataclass(slots=True)
class _Votes:
    origin: Origin
    stack: tuple[StackLine, ...]
    count: int = 0


class Tally:
    """The samples of one block, counted by the line that each of them blames."""

    __slots__ = ("_lines", "_roots", "samples")

    def __init__(self, roots: CodeRoots) -> None:
        self._roots = roots
        self._lines: dict[StackLine, _Votes] = {}
        self.samples = 0

    def add(self, stack: Stack) -> None:
        """Count one sample; an empty stack says nothing and is left out."""
        if not stack:
            return
        self.samples += 1
        origins = [self._roots.origin_of(line.file) for line in stack]
        guilty = guilty_index(origins)
        line = stack[guilty]
        votes = self._lines.get(line)
        if votes is None:
            if len(self._lines) >= LINES_MAX:
                return
            votes = self._lines[line] = _Votes(origins[guilty], shorten(stack, guilty))
        votes.count += 1

    def finding(self) -> Finding | None:
        """What the samples say, the earliest at a tie; None where there was none."""
        if not self._lines:
            return None
        functions: Counter[tuple[str, str]] = Counter()
        for line, votes in self._lines.items():
            functions[line.file, line.function] += votes.count
        (function, _), *_ = functions.most_common(1)
        line, votes = max(
            (item for item in self._lines.items() if (item[0].file, item[0].function) == function),
            key=lambda item: item[1].count,
        )
        return Finding(
            line=line,
            origin=votes.origin,
            call=votes.stack[0],
            stack=votes.stack,
            seen=votes.count,
            samples=self.samples,
        )
