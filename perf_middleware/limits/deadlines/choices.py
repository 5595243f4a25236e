"""What holds for a route: a rule of the settings, or what a decorator left on the endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

TIMEOUT_ATTRIBUTE: Final = "__perf_timeout__"
BODY_LIMIT_ATTRIBUTE: Final = "__perf_body_limit__"

Covers: TypeAlias = Literal["head", "total"]
"""The time until the response's head, or until the last byte of its body is handed over."""


@dataclass(frozen=True, slots=True)
class TimeoutChoice:
    """How long a request may take, and what of it; None: as long as it takes.

    `covers` None is what the settings say.  `is_exempt`: nobody's deadline holds here.
    """

    timeout_us: int | None
    covers: Covers | None = None
    is_exempt: bool = False

    def __post_init__(self) -> None:
        if self.timeout_us is not None and self.timeout_us < 1:
            raise ValueError(f"a timeout must be longer than nothing: {self}")
        if self.covers not in (None, "head", "total"):
            raise ValueError(f"a timeout covers head or total, not {self.covers!r}")


@dataclass(frozen=True, slots=True)
class BodyChoice:
    """How long the body of a request may be; None: as long as it is.

    `is_exempt`: nobody counts its bytes, nor waits for them with a clock.
    """

    bytes_max: int | None
    is_exempt: bool = False

    def __post_init__(self) -> None:
        if self.bytes_max is not None and self.bytes_max < 0:
            raise ValueError(f"a body has no bytes or more: {self}")


EXEMPT_FROM_TIMEOUTS: Final = TimeoutChoice(None, is_exempt=True)
EXEMPT_FROM_BODY_LIMITS: Final = BodyChoice(None, is_exempt=True)
