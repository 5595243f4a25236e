"""A limit as people write it: `100/minute`, `5 per 10 seconds`, `10/second;burst=20`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from perf_middleware.limits.rate.gcra import Quota

_UNITS: Final = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60,
                 "h": 3_600, "hour": 3_600, "d": 86_400, "day": 86_400}  # fmt: skip
_NAMES: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_TEXT: Final = re.compile(
    r"\s*([0-9_]{1,15})\s*(?:/|\bper\b)\s*([0-9]{1,8})?\s*([a-z]+)\s*(?:;\s*burst\s*=\s*([0-9_]{1,15})\s*)?"
)
PER_SECOND_MAX: Final = 1_000_000  # one each microsecond
DAYS_MAX: Final = 366
FORM: Final = "write 100/minute, 5/10 seconds or 10/second;burst=20"


@dataclass(frozen=True, slots=True)
class Limit:
    """`count` requests in `seconds`; `burst` of them at once, where that is another number."""

    count: int
    seconds: int
    burst: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.seconds < 1 or (self.burst is not None and self.burst < 1):
            raise ValueError(
                "a limit, its time and its burst are at least 1: without any, leave it out"
            )
        if self.seconds > DAYS_MAX * 86_400:
            raise ValueError(f"a limit is of {DAYS_MAX} days at most")
        if self.count > self.seconds * PER_SECOND_MAX:
            raise ValueError("a limit is of one request each microsecond at most")
        if (self.burst or 0) > 10**12:
            raise ValueError("a burst is of 10**12 requests at most")

    @classmethod
    def of(cls, text: str) -> Limit:
        """Raises ValueError for what is no limit."""
        found = _TEXT.fullmatch(text.lower())
        unit = (
            None
            if found is None
            else _UNITS.get(found[3]) or _UNITS.get(found[3].removesuffix("s"))
        )
        if found is None or unit is None:
            raise ValueError(f"{text!r} is no limit: {FORM}")
        burst = None if found[4] is None else int(found[4])
        return cls(int(found[1]), int(found[2] or 1) * unit, burst)

    def quota(self) -> Quota:
        return Quota.per(self.count, self.seconds, self.burst)

    def __str__(self) -> str:
        name, unit = next(each for each in _NAMES if self.seconds % each[1] == 0)
        number = self.seconds // unit
        per = name if number == 1 else f"{number} {name}s"
        return f"{self.count}/{per}" + ("" if self.burst is None else f";burst={self.burst}")
