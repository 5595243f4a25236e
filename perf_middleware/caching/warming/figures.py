"""What warming has done: plain counts, and the last run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from perf_middleware.families import NO_LABELS, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.families import Family

Outcome: TypeAlias = Literal["warmed", "fresh", "unstored", "failed"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("warmed", "fresh", "unstored", "failed")
PROBLEMS_TOLD_MAX: Final = 5
PROBLEM_CHARACTERS_MAX: Final = 500
Cause: TypeAlias = Literal["start", "interval", "purge", "request", "turn"]


@dataclass(slots=True)
class Run:
    """One run: `warmed` were asked and stored, `fresh` skipped, `left` not come to in time."""

    cause: Cause
    planned: int = 0
    warmed: int = 0
    fresh: int = 0
    unstored: int = 0
    failed: int = 0
    left: int = 0
    seconds: float = 0.0
    ended_unix_s: float | None = None
    problems: list[str] = field(default_factory=list)
    """The first few, as sentences: what failed, and what is never stored."""

    def count(self, outcome: Outcome) -> None:
        setattr(self, outcome, getattr(self, outcome) + 1)

    def tell(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_TOLD_MAX:
            self.problems.append(problem[:PROBLEM_CHARACTERS_MAX])

    def picture(self) -> dict[str, Any]:
        return {
            "cause": self.cause,
            "planned": self.planned,
            "warmed": self.warmed,
            "fresh": self.fresh,
            "unstored": self.unstored,
            "failed": self.failed,
            "left": self.left,
            "seconds": round(self.seconds, 3),
            "ended_unix_s": self.ended_unix_s,
            "problems": list(self.problems),
        }


class WarmingFigures:
    """Counts since the start, or the last reset."""

    def __init__(self) -> None:
        self.last: Run | None = None
        self.runs = 0
        self.seconds = 0.0
        self.left = 0
        self.paused_s = 0.0
        self.refreshed = 0
        self.outcomes: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)

    def reset(self) -> None:
        last = self.last
        self.__init__()  # type: ignore[misc]
        self.last = last

    def families(self) -> Iterator[Family]:
        """The figures for /metrics."""
        yield counter(
            "perf_warming_requests", "What warming asked the app or the cache for, by outcome.",
            tuple(Value(LabelSet([("outcome", name)]), n) for name, n in self.outcomes.items()),
        )  # fmt: skip
        yield counter(
            "perf_warming_refreshes", "Those among them that renewed a hot answer before its end.",
            (Value(NO_LABELS, self.refreshed),),
        )  # fmt: skip
        yield counter("perf_warming_runs", "Runs that have ended.", (Value(NO_LABELS, self.runs),))
        yield counter(
            "perf_warming_left", "What a run had no time or no room for.",
            (Value(NO_LABELS, self.left),),
        )  # fmt: skip
        yield counter(
            "perf_warming_run_seconds", "How long runs took.",
            (Value(NO_LABELS, self.seconds),), unit="seconds",
        )  # fmt: skip
        yield counter(
            "perf_warming_paused_seconds", "How long warming stood aside for clients.",
            (Value(NO_LABELS, self.paused_s),), unit="seconds",
        )  # fmt: skip
        if self.last is not None and self.last.ended_unix_s is not None:
            yield gauge(
                "perf_warming_last_run_timestamp_seconds", "When the last run ended, Unix time.",
                (Value(NO_LABELS, self.last.ended_unix_s),), unit="seconds", across="max",
            )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """The same, JSON-able."""
        return {
            "runs": self.runs,
            **{str(name): count for name, count in self.outcomes.items()},
            "left": self.left,
            "refreshed": self.refreshed,
            "seconds": round(self.seconds, 3),
            "paused_s": round(self.paused_s, 3),
            "last_run": None if self.last is None else self.last.picture(),
        }
