"""Whether a failed attempt is made again, and when: full jitter within bounds.

    bound    first, 2 first, 4 first, ... most
    delay    anywhere from 0 to the bound: those that failed together do not come back together

Source: Brooker, "Exponential Backoff And Jitter", 2015 (full jitter).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DOUBLINGS_MAX: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait between attempts at most, microseconds."""

    first_us: int
    most_us: int

    def __post_init__(self) -> None:
        if not 1 <= self.first_us <= self.most_us:
            raise ValueError(f"1 <= first_us <= most_us: {self}")

    def delay_us(self, failures: int, draw: float) -> int:
        """Microseconds to wait after so many failures, 1 or more; `draw` is from 0 to 1."""
        bound_us = min(self.most_us, self.first_us * 2 ** min(failures - 1, DOUBLINGS_MAX))
        return int(bound_us * draw)


def is_tried_again(
    error: BaseException, *, retries: int, attempts: int, retry_on: tuple[type[Exception], ...]
) -> bool:
    """Whether a job with `attempts` made, the last of which raised `error`, gets another.

    What is no Exception (SystemExit, KeyboardInterrupt) is never tried again.
    """
    return attempts <= retries and isinstance(error, retry_on)
