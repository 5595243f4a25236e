"""How much a request matters: four classes, and the lowest is shed first.

The words and their meaning are those of the SRE book: `critical_plus` what users see and cannot do
without, `critical` what they see (the default), `sheddable_plus` what is repeated if it fails,
`sheddable` what may fail often.
Source: Site Reliability Engineering, ch. 21, "Criticality".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

CriticalityName: TypeAlias = Literal["critical_plus", "critical", "sheddable_plus", "sheddable"]

NAMES: Final[tuple[CriticalityName, ...]] = (
    "critical_plus", "critical", "sheddable_plus", "sheddable",
)  # fmt: skip
"""By their codes: the higher the code, the sooner it is shed."""

CRITICAL_PLUS: Final = 0
CRITICAL: Final = 1
SHEDDABLE_PLUS: Final = 2
SHEDDABLE: Final = 3

CODES: Final[dict[str, int]] = {name: code for code, name in enumerate(NAMES)}
FIELD_CODES: Final[dict[bytes, int]] = {name.encode(): code for name, code in CODES.items()}
"""By the value of a header; anything else says nothing."""

NORMAL: Final = 0
BUSY: Final = 1
OVERLOADED: Final = 2
"""The levels of overload."""

ATTRIBUTE: Final = "__perf_criticality__"


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a rule or a mark says of requests; None is what would hold without it."""

    criticality: int | None = None
    partition: str | None = None


def is_refused(criticality: int, level: int, *, would_wait: bool) -> bool:
    """Whether a class is not served at this level: overloaded neither sheddable one, busy the
    lowest where it would have to wait.
    """
    if level >= OVERLOADED:
        return criticality >= SHEDDABLE_PLUS
    return level == BUSY and would_wait and criticality >= SHEDDABLE
