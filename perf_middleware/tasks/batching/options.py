"""How single look-ups become bulk calls: the bounds, and what is shared with whom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Sharing: TypeAlias = Literal["same", "named", "empty", "first"]
"""Whose look-ups go into one call: docs/batching.md tells what each means."""


class _Missing:
    """No default was given."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """Times in seconds; `timeout_s` None has no limit, `default` MISSING raises an error."""

    name: str
    size_max: int = 100
    wait_s: float = 0.002
    timeout_s: float | None = 30.0
    in_flight_max: int = 8
    waiting_max: int = 100_000
    default: Any = MISSING
    sharing: Sharing = "same"
    is_remembered: bool = False
    remembered_max: int = 10_000

    def __post_init__(self) -> None:
        for field in ("size_max", "in_flight_max", "waiting_max", "remembered_max"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} must be at least 1")
        if not (math.isfinite(self.wait_s) and self.wait_s >= 0):
            raise ValueError(f"{self.name}: wait_s must be 0 or more seconds")
        if self.timeout_s is not None and not 0 < self.timeout_s < math.inf:
            raise ValueError(f"{self.name}: timeout_s must be above 0, or None for no limit")
