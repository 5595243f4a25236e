"""The slow-request log: which lines are written, and how they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf_middleware.metrics.requests.server_timing import DATABASE, counted

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH_CHARS_MAX = 200
MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRequest:
    """One slow request with where its time went; nanoseconds, bytes."""

    method: str
    route: str
    path: str
    status: int
    outcome: str
    duration_ns: int
    first_byte_ns: int | None
    response_bytes: int
    parts_ns: Mapping[str, int] | None
    trace_id: str | None
    statements: int = 0

    def line(self) -> str:
        """The log line.  The path without its query (which may hold secrets), escaped and cut."""
        in_all = f" in {counted(self.statements)}" if self.statements else ""
        parts = [
            f"{repr(name)[1:-1]} {ns / 1e9:.3f} s{in_all if name == DATABASE else ''}"
            for name, ns in (self.parts_ns or {}).items()
        ]
        if self.first_byte_ns is not None:
            parts.insert(0, f"first byte {self.first_byte_ns / 1e9:.3f} s")
        parts.append(f"{self.response_bytes} bytes")
        if self.outcome != "answered":
            parts.append(self.outcome)
        if self.trace_id:
            parts.append(f"trace {self.trace_id}")
        path = self.path if len(self.path) <= PATH_CHARS_MAX else self.path[:PATH_CHARS_MAX] + "…"
        method = ascii(self.method[:16])[1:-1]
        return (
            f"slow request: {method} {repr(self.route)[1:-1]} {self.status} took "
            f"{self.duration_ns / 1e9:.3f} s ({', '.join(parts)}) at {path!a}"
        )


class SlowLog:
    """Lets at most `per_minute_max` lines through in each minute, and counts the rest."""

    __slots__ = ("_count", "_minute", "per_minute_max", "slow", "suppressed")

    def __init__(self, per_minute_max: int) -> None:
        self.per_minute_max = per_minute_max
        self.slow = 0
        self.suppressed = 0
        self._minute = -1
        self._count = 0

    def admits(self, now_ns: int) -> bool:
        """Count one slow request; True when its line is to be written."""
        self.slow += 1
        minute = now_ns // MINUTE_NS
        if minute != self._minute:
            self._minute = minute
            self._count = 0
        self._count += 1
        if self._count > self.per_minute_max:
            self.suppressed += 1
            return False
        return True

    def reset(self) -> None:
        """Both counts back to zero; the lines of this minute stay spent."""
        self.slow = 0
        self.suppressed = 0
