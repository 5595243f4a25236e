"""Which line is to blame: the innermost one that the app's author can change.

    innermost   gc.py _collecting           interrupts  left out: it ran in the middle of a line
                psycopg2/… execute          library
                app/db.py   load_items      own         <- the line that is named
                fastapi/routing.py app      gate        hands on to what answers the request
                app/middleware.py __call__  own         waits like the gate: not guilty
                uvicorn/… run_asgi          server
                asyncio/events.py _run      turn        one turn of the loop
    outermost   main.py  uvicorn.run(app)   own         started the loop: not guilty

Only lines inside the gate did anything.  Where none of them is the app's own (a large answer that
the framework serialises), the innermost line of a library is named, and the outermost that leads
to it.  Lines of our own innermost are passed over, unless most samples found us there.

One sample of a long block may have hit an unlucky line, so several are taken and vote: first for
the function, then for the line inside it (a spinning function is seen at several of its lines).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.code_roots import CodeRoots, Origin, Role
    from perf_middleware.metrics.watching.stacks import Stack, StackLine

KEPT_LINES_MAX = 30  # what a reader looks at; the stack of a FastAPI request has about forty
LINES_MAX = 64  # different lines that may get votes in one block; more only count as samples

# Where a loop calls what is ready; uvloop's own frames are C and do not show, its runner's do.
LOOPS = ("/asyncio/", "/uvloop/", "/winloop/", "/trio/_core/")
TURNS = frozenset(
    ("_run", "_run_once", "guest_tick", "run", "run_forever", "run_until_complete", "unrolled_run")
)
GATES = frozenset(("__call__", "app", "handle", "main", "run_asgi", "serve", "wrapped_app"))
NO_GATE_IN = "/responses.py"  # an answer is called too, and works: it renders and sends


@dataclass(frozen=True, slots=True)
class Verdict:
    """Indexes into one stack: the guilty line, the innermost one that counts, who led to it.

    `in_ours` says that the innermost code was this package's own; `excused` is the verdict that
    passes it over, None where nothing but us was at work.
    """

    guilty: int
    call: int
    caller: int | None = None
    in_ours: bool = False
    excused: Verdict | None = None


def judge(stack: Stack, roots: CodeRoots) -> Verdict:
    """Who is to blame for `stack`, innermost line first, of at least one line."""
    roles = [roots.role_of(line.file) for line in stack]
    start = _after_interruption(stack, roles, roots)
    turn = _turn(stack, roles, start)
    lead = next((i for i in range(start, turn) if roles[i] not in ("ours", "machinery")), turn)
    in_ours = "ours" in roles[start:lead]
    if not in_ours:
        lead = start
    gate = next((i for i in range(lead, turn) if _is_gate(stack[i], roles[i])), turn)
    if "own" in roles[start:gate]:
        own = roles.index("own", start)
        return Verdict(own, start, None, in_ours, Verdict(own, lead) if in_ours else None)
    working = _working(roles, lead, gate, turn)
    if in_ours:
        return Verdict(roles.index("ours", start), start, None, in_ours, working)
    return working or Verdict(start, start)


def _working(roles: Sequence[Role], lead: int, gate: int, turn: int) -> Verdict | None:
    """The innermost library's line inside the gate, else the gate itself; servers only carry."""
    libraries = [i for i in range(lead, gate) if roles[i] in ("library", "framework")]
    is_gate_framework = gate < turn and roles[gate] == "framework"
    if not libraries:
        return Verdict(gate, lead) if is_gate_framework else None
    caller = libraries[-1] if len(libraries) > 1 else gate if is_gate_framework else None
    return Verdict(libraries[0], lead, caller)


def _after_interruption(stack: Stack, roles: Sequence[Role], roots: CodeRoots) -> int:
    """Index of the innermost line that nobody put into the middle of another."""
    start = 0
    for i, line in enumerate(stack):
        if line.file in roots.interrupting:
            start = i + 1
        elif roles[i] != "ours":
            break
    return start if start < len(stack) else 0


def _turn(stack: Stack, roles: Sequence[Role], start: int) -> int:
    """Index of the loop's innermost line: all from there outwards only keeps the loop running."""
    servers = 0
    for i in range(start, len(stack)):
        line = stack[i]
        if roles[i] in ("machinery", "server"):
            if _last_name(line) in TURNS and any(loop in _path(line) for loop in LOOPS):
                return i
            servers = i if roles[i] == "server" else servers
    # A loop that shows no lines, or a stack that was cut: what is outside the server started it.
    return servers + 1 if servers else len(stack)


def _is_gate(line: StackLine, role: Role) -> bool:
    return (
        role in ("framework", "server", "ours")
        and _last_name(line) in GATES
        and not _path(line).endswith(NO_GATE_IN)
    )


def _path(line: StackLine) -> str:
    return line.file.replace("\\", "/")


def _last_name(line: StackLine) -> str:
    return line.function.rpartition(".")[2]


def shorten(stack: Stack, guilty: int) -> tuple[StackLine, ...]:
    """At most `KEPT_LINES_MAX` innermost lines; a guilty one further out takes the last place."""
    if guilty < KEPT_LINES_MAX:
        return tuple(stack[:KEPT_LINES_MAX])
    return (*stack[: KEPT_LINES_MAX - 1], stack[guilty])


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The line that most samples name, `call` where it was waiting or working, one whole stack.

    `caller` is the outermost library's line that led to it, where no line was the app's own.
    """

    line: StackLine
    origin: Origin
    call: StackLine
    caller: StackLine | None
    stack: tuple[StackLine, ...]
    seen: int
    samples: int


@dataclass(slots=True)
class _Votes:
    origin: Origin
    call: StackLine
    caller: StackLine | None
    stack: tuple[StackLine, ...]
    count: int = 0


@dataclass(slots=True)
class _Ballot:
    """Votes by the line that they blame."""

    roots: CodeRoots
    lines: dict[StackLine, _Votes] = field(default_factory=dict)

    def add(self, stack: Stack, verdict: Verdict) -> None:
        line = stack[verdict.guilty]
        votes = self.lines.get(line)
        if votes is None:
            if len(self.lines) >= LINES_MAX:
                return
            votes = self.lines[line] = _Votes(
                self.roots.origin_of(line.file),
                stack[verdict.call],
                None if verdict.caller is None else stack[verdict.caller],
                shorten(stack, verdict.guilty),
            )
        votes.count += 1

    def winner(self) -> tuple[StackLine, _Votes]:
        """The most frequent line of the most frequent function, the earliest at a tie."""
        functions: Counter[tuple[str, str]] = Counter()
        for line, votes in self.lines.items():
            functions[line.file, line.function] += votes.count
        (function, _), *_ = functions.most_common(1)
        return max(
            (item for item in self.lines.items() if (item[0].file, item[0].function) == function),
            key=lambda item: item[1].count,
        )


class Tally:
    """The samples of one block, counted by the line that each of them blames."""

    __slots__ = ("_excused", "_in_ours", "_plain", "samples")

    def __init__(self, roots: CodeRoots) -> None:
        self._plain = _Ballot(roots)
        self._excused = _Ballot(roots)
        self._in_ours = 0
        self.samples = 0

    def add(self, stack: Stack) -> None:
        """Count one sample; an empty stack says nothing and is left out."""
        if not stack:
            return
        self.samples += 1
        verdict = judge(stack, self._plain.roots)
        self._in_ours += verdict.in_ours
        self._plain.add(stack, verdict)
        self._excused.add(stack, verdict.excused or verdict)

    def finding(self) -> Finding | None:
        """What the samples say; None where there was none."""
        if not self.samples:
            return None
        is_ours = self._in_ours * 2 > self.samples
        line, votes = (self._plain if is_ours else self._excused).winner()
        return Finding(
            line=line,
            origin=votes.origin,
            call=votes.call,
            caller=votes.caller,
            stack=votes.stack,
            seen=votes.count,
            samples=self.samples,
        )
