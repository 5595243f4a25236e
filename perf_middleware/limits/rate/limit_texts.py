"""A limit as people write it: `100/minute`, `5 per 10 seconds`, `10/second;burst=20`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from perf_middleware.limits.rate.gcra import Quota

_LETTERS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WORDS: Final = {"sec": 1, "second": 1, "min": 60, "minute": 60, "hour": 3_600, "day": 86_400}
_NAMES: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_TEXT: Final = re.compile(
    r"\s*([0-9][0-9_]{0,14})\s*(?:/|\bper\b)\s*([0-9]{1,8})?\s*([a-z]+)\s*(?:;\s*burst\s*=\s*([0-9][0-9_]{0,14})\s*)?"
)
PER_SECOND_MAX: Final = 1_000_000  # one each microsecond
DAYS_MAX: Final = 366
BURST_MAX: Final = 10**12
FULL_DAYS_MAX: Final = 10_000  # 27 years: below what a quota counts in
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
        if (self.burst or 0) > BURST_MAX:
            raise ValueError(f"a burst is of {BURST_MAX} requests at most")
        if (self.burst or 0) * self.seconds > FULL_DAYS_MAX * 86_400 * self.count:
            raise ValueError(
                f"a burst of {self.burst} at {self.count} in {self.seconds} s would be full again "
                f"after more than {FULL_DAYS_MAX} days"
            )

    @classmethod
    def of(cls, text: str) -> Limit:
        """Raises ValueError for what is no limit."""
        found = _TEXT.fullmatch(text.lower())
        unit_s = None if found is None else _unit_s(found[3])
        if found is None or unit_s is None:
            raise ValueError(f"{text!r} is no limit: {FORM}")
        burst = None if found[4] is None else int(found[4].replace("_", ""))
        return cls(int(found[1].replace("_", "")), int(found[2] or 1) * unit_s, burst)

    @staticmethod
    def is_meant(text: str) -> bool:
        """Whether `text` is written as one, even if it is too large or too small."""
        found = _TEXT.fullmatch(text.lower())
        return found is not None and _unit_s(found[3]) is not None

    def quota(self) -> Quota:
        return Quota.per(self.count, self.seconds, self.burst)

    def __str__(self) -> str:
        name, unit = next(each for each in _NAMES if self.seconds % each[1] == 0)
        number = self.seconds // unit
        per = name if number == 1 else f"{number} {name}s"
        return f"{self.count}/{per}" + ("" if self.burst is None else f";burst={self.burst}")


def _unit_s(word: str) -> int | None:
    # No plural of a letter: `ms` would be minutes.
    return _LETTERS.get(word) or _WORDS.get(word.removesuffix("s"))
