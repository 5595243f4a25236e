"""A blocked event loop: when to look, when to speak, what to say.

    beat due          + blocked_s: sampled          + 4 x blocked_s: said aloud      comes back
    ----|------------------|----|----|----|----|---------|-------|--------|-------------|--->
        '------- looked at every blocked_s / 3 ------'   samples get rarer        report, one line

A stall (stalls.py) inside the time is taken off; what remains must reach `blocked_s`.  The watchdog
looks every third of it and takes lateness of a third for a stall, so at most two thirds of a stall
stay unexplained: too little for a false report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perf_middleware.code_roots import Origin
    from perf_middleware.metrics.watching.stacks import StackLine

US_PER_S = 1_000_000
SOURCE_CHARS_MAX = 200
ANNOUNCED_AFTER = 4  # times the threshold: a loop that is dead-locked never ends its block
NO_OWN_LINE = "no line of the app's own was at work"
TICK_US_MIN = 3_000
SAMPLE_US_MIN = 50_000  # twenty samples a second name the line as well as a thousand would
SAMPLE_US_MAX = US_PER_S
SAMPLES_PER_LENGTH = 20  # a block of a minute needs no more samples than one of a second


@dataclass(frozen=True, slots=True)
class Pace:
    """When the watchdog looks, for a loop that counts as blocked after `blocked_us`."""

    blocked_us: int

    def __post_init__(self) -> None:
        if self.blocked_us < 1:
            raise ValueError(f"blocked_us must be >= 1: {self.blocked_us}")

    @property
    def tick_us(self) -> int:
        """Between two looks at a loop that runs, and the lateness from which a stall is judged."""
        return max(self.blocked_us // 3, TICK_US_MIN)

    @property
    def announced_us(self) -> int:
        """A block this long is reported before its end."""
        return self.blocked_us * ANNOUNCED_AFTER

    def wait_us(self, *, due_us: int | None, now_us: int) -> int:
        """How long to sleep until the next look; `due_us` is None while no beat is expected."""
        if due_us is None:
            return self.tick_us
        overdue_us = now_us - due_us
        if overdue_us < self.blocked_us:
            return max(1_000, min(self.tick_us, self.blocked_us - overdue_us))
        return min(max(overdue_us // SAMPLES_PER_LENGTH, SAMPLE_US_MIN), SAMPLE_US_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlock:
    """One time that the event loop was stuck.

    `at_s` is Unix time of the missed heartbeat; `lasted_s` counts from there, so the block itself
    began up to one heartbeat interval earlier.  `ended` is False in a report about a block that
    still goes on.  `line` is the line to blame (whose it is says `origin`), `call` the innermost
    Python line, where it waits or works; both None when no sample could be taken.  Where `origin`
    is not "own" no line of the app's own was at work, and `caller` is the outermost line of a
    library or framework that led to `line`.  `seen` of `samples` found that very line.
    `load` is what the app was serving.
    """

    at_s: float
    lasted_s: float
    ended: bool
    line: StackLine | None = None
    origin: Origin = "machinery"
    code: str = ""
    call: StackLine | None = None
    call_code: str = ""
    caller: StackLine | None = None
    caller_code: str = ""
    stack: tuple[StackLine, ...] = ()
    seen: int = 0
    samples: int = 0
    load: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""

        def line_dict(line: StackLine, code: str) -> dict[str, Any]:
            return {
                "function": line.function,
                "file": line.file,
                "line": line.line,
                "code": code,
            }

        return {
            "at_s": self.at_s,
            "lasted_s": self.lasted_s,
            "ended": self.ended,
            "line": None if self.line is None else line_dict(self.line, self.code),
            "origin": self.origin,
            "call": None if self.call is None else line_dict(self.call, self.call_code),
            "caller": None if self.caller is None else line_dict(self.caller, self.caller_code),
            "stack": [str(line) for line in self.stack],
            "seen": self.seen,
            "samples": self.samples,
            "load": self.load,
        }

    def sentence(self) -> str:
        """The report in one line of a log."""
        state = "was blocked for" if self.ended else "has been blocked for"
        parts = [f"the event loop {state} {self.lasted_s:.2f} s"]
        if self.line is None:
            parts.append(", no sample could be taken")
        elif self.origin != "own":
            parts.append(f"; {NO_OWN_LINE}: {_with_code(self.line, self.code)}")
            if self.caller is not None and self.caller != self.line:
                parts.append(f", called from {_with_code(self.caller, self.caller_code)}")
            parts.append(f" ({self.seen} of {self.samples} samples)")
        else:
            parts.append(f" by {_with_code(self.line, self.code)}")
            if self.call is not None and self.call != self.line:
                parts.append(f", which is in {_with_code(self.call, self.call_code)}")
            parts.append(f" ({self.seen} of {self.samples} samples)")
        if self.load:
            parts.append(f", while serving {self.load}")
        return "".join(parts)


def _with_code(line: StackLine, code: str) -> str:
    return f"{line}: `{code}`" if code else str(line)


class LogBudget:
    """At most so many log lines a minute; what is held back is said with the next line."""

    __slots__ = ("_held_back", "_minute", "_per_minute_max", "_spent")

    def __init__(self, *, per_minute_max: int) -> None:
        self._per_minute_max = per_minute_max
        self._minute = -1
        self._spent = 0
        self._held_back = 0

    def spend(self, now_us: int) -> int | None:
        """How many lines were held back before this one, or None where it is held back too."""
        minute = now_us // (60 * US_PER_S)
        if minute != self._minute:
            self._minute = minute
            self._spent = 0
        if self._spent >= self._per_minute_max:
            self._held_back += 1
            return None
        self._spent += 1
        held_back, self._held_back = self._held_back, 0
        return held_back
