"""How one function is cached, checked once where it is decorated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

Seconds: TypeAlias = "float | timedelta"

TTL_S_MAX: Final = 10 * 365 * 86_400
TAGS_MAX: Final = 64  # of one value
US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What holds for every call of one function."""

    ttl_us: int | None
    stale_us: int = 0
    early: float = 0.0
    none: bool = False
    copy: bool = True


def as_us(name: str, value: Seconds | None) -> int | None:
    """Microseconds of `value` seconds (or a timedelta); None for None.

    Raises TypeError for what is no number, ValueError for what is not above 0 and at most
    TTL_S_MAX.
    """
    if value is None:
        return None
    seconds: Any = value
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} must be seconds or a timedelta, not {value!r}")
    if not (math.isfinite(seconds) and 0 < seconds <= TTL_S_MAX):
        raise ValueError(f"{name} must be above 0 and at most {TTL_S_MAX} seconds, not {value!r}")
    return max(1, round(seconds * US_PER_S))


def ttl_us(value: Seconds | None) -> int | None:
    """Microseconds of a lifetime; None: until it is invalidated or has to make room."""
    return as_us("ttl", value)


def early_factor(value: float | None) -> float:
    """How early; 0.0 for never (None).  Raises ValueError for what is not from 0 to 100."""
    if value is None:
        return 0.0
    given: Any = value
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 100:
        raise ValueError(f"early must be a number from 0 to 100, not {given!r}")
    return float(given)


def texts(argument: str, given: Iterable[str] | str) -> tuple[str, ...]:
    """One text, or several; raises TypeError for what is neither, ValueError for too many."""
    if isinstance(given, str):
        return (given,)
    names: Any = given
    if not isinstance(names, Iterable) or isinstance(names, bytes | Mapping):
        raise TypeError(f"{argument} must be a text or several, not {given!r}")
    found: tuple[Any, ...] = tuple(names)
    if not all(isinstance(name, str) for name in found):
        raise TypeError(f"{argument} must be a text or several, not {given!r}")
    return found


def tag_texts(given: Iterable[str] | str) -> tuple[str, ...]:
    """The tags of one value; raises as `texts` does, and ValueError for more than TAGS_MAX."""
    found = texts("tags", given)
    if len(found) > TAGS_MAX:
        raise ValueError(f"at most {TAGS_MAX} tags, not {len(found)}")
    return found
