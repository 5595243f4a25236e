"""The slow-statement log: which lines are written, and how they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from perf_middleware.database.statements.fingerprint import Fingerprint
    from perf_middleware.database.statements.n_plus_one import Place

MINUTE_US: Final = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStatement:
    """One slow statement; `rows` is -1 where the driver does not tell."""

    fingerprint: Fingerprint
    elapsed_ns: int
    rows: int
    route: str
    place: Place | None
    outcome: str = ""

    def line(self) -> str:
        """The log line: the statement without its values."""
        parts = [f"{self.elapsed_ns / 1e9:.3f} s"]
        if self.rows >= 0:
            parts.append(f"{self.rows} rows")
        if self.outcome:
            parts.append(self.outcome)
        where = f" in {self.route}" if self.route else " outside a request"
        at = f" at {self.place}" if self.place else ""
        return (
            f"slow statement: {self.fingerprint.label} took {', '.join(parts)}{where}{at}: "
            f"{self.fingerprint.text}"
        )


class LineBudget:
    """Lets at most `per_minute_max` lines through in each minute, and counts the rest."""

    __slots__ = ("_count", "_minute", "_per_minute_max", "suppressed")

    def __init__(self, per_minute_max: int) -> None:
        self._per_minute_max = per_minute_max
        self.suppressed = 0
        self._minute = -1
        self._count = 0

    def admits(self, now_us: int) -> bool:
        """Whether one more line may be written now."""
        minute = now_us // MINUTE_US
        if minute != self._minute:
            self._minute = minute
            self._count = 0
        if self._count >= self._per_minute_max:
            self.suppressed += 1
            return False
        self._count += 1
        return True
