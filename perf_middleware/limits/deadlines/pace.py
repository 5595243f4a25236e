"""How long the next piece of a request's body may be waited for.

    waited_us so far  <=  grace_us + bytes so far / bytes_per_s_min

Only the time counts in which the app waits for the client; one that reads slowly itself refuses
nobody.  Source: Apache's mod_reqtimeout ("body=20,MinRate=500").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """No longer than `idle_us` for one piece, and `bytes_per_s_min` over all, after a grace."""

    idle_us: int | None = None
    bytes_per_s_min: int | None = None
    grace_us: int = 0

    def wait_us(self, *, waited_us: int, body_bytes: int) -> int | None:
        """Microseconds for the next piece, after so much of both; None: for ever; 0: too slow."""
        if self.bytes_per_s_min is None:
            return self.idle_us
        earned_us = self.grace_us + body_bytes * 1_000_000 // self.bytes_per_s_min
        left_us = max(earned_us - waited_us, 0)
        return left_us if self.idle_us is None else min(left_us, self.idle_us)
