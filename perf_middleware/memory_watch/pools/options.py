"""What a pool is told once: how many, how long, and which of its objects are worn out."""

from __future__ import annotations

from dataclasses import dataclass

US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Bounds of one pool; None: no such bound.

    `check_after_idle_us` None: never checked.  `wait_us` is for the whole of one acquire, the
    making of an object included; `step_us` for each call of create, check, reset or close.
    """

    name: str
    size_max: int
    size_min: int = 0
    waiting_max: int = 1_000
    wait_us: int | None = None
    step_us: int = 10 * US_PER_S
    idle_us_max: int | None = None
    age_us_max: int | None = None
    uses_max: int | None = None
    check_after_idle_us: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.size_min <= self.size_max or self.size_max < 1:
            raise ValueError(f"0 <= size_min <= size_max and size_max >= 1 must hold: {self}")
        if self.waiting_max < 0:
            raise ValueError(f"waiting_max must be >= 0: {self}")
        positive = (self.step_us, self.idle_us_max, self.age_us_max, self.uses_max)
        if any(bound is not None and bound < 1 for bound in positive):
            raise ValueError(
                f"step_s_max, idle_s_max, age_s_max and uses_max must be above 0: {self}"
            )
        if (self.wait_us or 0) < 0 or (self.check_after_idle_us or 0) < 0:
            raise ValueError(f"wait_s and check_after_idle_s must not be negative: {self}")


def whole_us(seconds: float | None) -> int | None:
    """`seconds` in whole microseconds, rounded to the nearest; None stays None."""
    return None if seconds is None else round(seconds * US_PER_S)
