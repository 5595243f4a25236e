"""How long an answer is kept at most."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final

DAY_US: Final = 86_400_000_000
"""Where nothing is said: purges end it long before."""
S_MAX: Final = 10 * 365 * 86_400


def ttl_us(given: float | timedelta | None) -> int | None:
    """Microseconds; None for None.  Raises TypeError and ValueError for what is no lifetime."""
    if given is None:
        return None
    seconds: Any = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"ttl must be seconds or a timedelta, not {given!r}")
    if not (math.isfinite(seconds) and 0 < seconds <= S_MAX):
        raise ValueError(f"ttl must be above 0 and at most {S_MAX} seconds, not {given!r}")
    return max(1, round(seconds * 1_000_000))
