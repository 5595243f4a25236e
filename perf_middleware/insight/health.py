"""The health score: 0 to 100, computed only from what was measured, each input with its weight.

Every input is placed between a value that is fine (1.0) and one that is not (0.0); the score is the
weighted mean.  An input that nobody measured has no part in it; with none at all there is no score.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthInput:
    """One measured value, and how much it counts.

    `fine` is the value up to which nothing is lost, `bad` the one from which on everything is.
    """

    name: str
    value: float
    fine: float
    bad: float
    weight: float
    reason: str

    def __post_init__(self) -> None:
        ends_differ = isfinite(self.fine) and isfinite(self.bad) and self.fine != self.bad
        if not (0 < self.weight < inf and ends_differ):
            raise ValueError(f"needs a weight above 0 and two different ends: {self}")

    @property
    def grade(self) -> float:
        """1.0 where the value is fine, 0.0 where it is bad, linear between."""
        return min(1.0, max(0.0, (self.bad - self.value) / (self.bad - self.fine)))


def health(inputs: list[HealthInput]) -> dict[str, Any]:
    """The score (None where nothing was measured) and what it was made of, worst loss first."""
    total = sum(given.weight for given in inputs)
    rows = [
        asdict(given)
        | {
            "grade": round(given.grade, 3),
            "points_lost": round(100 * given.weight * (1 - given.grade) / total, 1),
        }
        for given in inputs
    ]
    rows.sort(key=lambda row: row["points_lost"], reverse=True)
    score = round(100 * sum(i.weight * i.grade for i in inputs) / total) if inputs else None
    return {"score": score, "inputs": rows}
