"""Which requests are refused while memory is short: the least critical first.

    share    soft        hard                          critical
    -----------|-----------|---------|---------|---------|------->
    refused      nobody     sheddable  and      and        everybody
                                       _plus    critical

Without classes all requests are alike, and from hard on nobody is let in.  It is decided once for
each look at the memory; a request compares two numbers.
"""

from __future__ import annotations

from typing import Final

SOFT: Final = 1
HARD: Final = 2
CRITICAL: Final = 3
"""The steps of the ladder; 0 is normal."""

CLASS_NAMES: Final = ("critical_plus", "critical", "sheddable_plus", "sheddable")
"""Of requests, by their codes: the higher the code, the sooner it is refused."""

EVERYBODY: Final = 0
CRITICAL_CLASS: Final = 1
"""What a request is of which nothing is said."""
LOWEST: Final = len(CLASS_NAMES) - 1
NOBODY: Final = len(CLASS_NAMES)


def shed_from(
    step: int,
    share: float | None,
    *,
    hard_share: float,
    critical_share: float,
    has_classes: bool,
) -> int:
    """The code from which on requests are refused: NOBODY, a class and all below it, EVERYBODY.

    `share` is used of the tightest bound; None, or less than `hard_share` where the step is hard
    still, is as little as hard begins with.  The highest class is served up to the critical step.
    """
    if step < HARD:
        return NOBODY
    if step >= CRITICAL or not has_classes:
        return EVERYBODY
    if share is None:
        return LOWEST
    risen = (share - hard_share) / (critical_share - hard_share)
    return LOWEST - min(max(int(risen * LOWEST), 0), LOWEST - 1)


def refused_in_words(refused_from: int) -> str:
    """Which requests are refused, for a log line and a status."""
    if refused_from >= NOBODY:
        return "none"
    if refused_from <= EVERYBODY:
        return "all"
    return " and ".join(CLASS_NAMES[refused_from:])
