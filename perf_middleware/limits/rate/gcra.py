"""Generic cell rate algorithm: may this request pass now?  (ITU-T I.371, virtual scheduling)

          |<----- window: burst * interval ----->|
    ------+--------------o-----------------------+------> time
         now            due: the bucket is full again       charging moves it right, cost * interval
                         |<----- what is left ---->|        past the window: refused, not charged

A bucket is one number, its due time (the theoretical arrival time): never seen is the same as due
in the past.  In no stretch of time t do more than burst + t / interval requests of cost 1 pass.

Whole microseconds: exact in Python and in the doubles of Lua (below 2**53), so that gcra.lua, which
repeats `decide` inside Redis, agrees to the last digit.
Source: ITU-T I.371 (03/2004) Annex A, generic cell rate algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NEVER: Final = -1
"""As `wait_us`: more is asked at once than the bucket ever holds."""

WINDOW_US_MAX: Final = 2**50  # 35 years: with the time of day before it, twice over, below 2**53
_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Quota:
    """`burst` requests at once, then one every `interval_us`."""

    interval_us: int
    burst: int = 1
    window_us: int = field(init=False, repr=False, compare=False)
    """Until an empty bucket is full again."""

    def __post_init__(self) -> None:
        if self.interval_us < 1 or self.burst < 1:
            raise ValueError(f"interval_us and burst must be >= 1: {self}")
        window_us = self.interval_us * self.burst
        if window_us > WINDOW_US_MAX:
            raise ValueError(f"burst * interval_us must be <= {WINDOW_US_MAX}: {self}")
        object.__setattr__(self, "window_us", window_us)

    @classmethod
    def per(cls, count: int, seconds: float, burst: int | None = None) -> Quota:
        """`count` requests per `seconds`, all of them at once where `burst` names no other number.

        `seconds` counts to the microsecond.  Where the interval is no whole number of them it is
        rounded up: never more pass (7 per 60 s: one every 8_571_429 us, all 7 in 60.000003 s).
        """
        if count < 1 or not 0 < seconds <= WINDOW_US_MAX / _US:
            raise ValueError(f"no quota: {count} per {seconds} s")
        interval_us = max(1, -(-round(seconds * _US) // count))
        return cls(interval_us, count if burst is None else burst)

    @property
    def window_s(self) -> int:
        """The window in seconds, rounded up, as header fields tell it."""
        return -(-self.window_us // _US)


class Demand(NamedTuple):
    """One bucket that one request draws from; cost 0 looks at it and charges nothing."""

    key: bytes
    quota: Quota
    cost: int = 1
    when_down: str = "local"


Draw: TypeAlias = "tuple[bytes, int, int, int]"
"""A demand in microseconds: the key, what it costs, the window and the interval of the quota."""


class Left(NamedTuple):
    """One bucket after the decision."""

    remaining: int
    """Whole requests of cost 1."""
    wait_us: int
    """Until the demand would pass: 0 where it does, NEVER where it asks for more than the burst."""
    full_us: int
    """Until the bucket is full."""


class Outcome(NamedTuple):
    """Of one request, for each demand in their order; refused by one: none is charged."""

    admitted: bool
    left: tuple[Left, ...]


def decide(
    demands: Sequence[Demand],
    due_of: Callable[[bytes], int],
    *,
    now_us: int,
    charge: bool = True,
) -> tuple[Outcome, dict[bytes, int]]:
    """Judge one request, all its demands or none; and the due times that change by it, by key.

    `due_of(key)` is 0 for a bucket never seen.  Demands on the same key are charged one after the
    other: each waits for those before it, and what is left is the same for all of them.  A due time
    beyond the window cannot be this quota's (it was lowered, the clock was put back): it is put at
    the window's end, also where the request is refused, so that nobody waits longer than that.
    `charge` False: what would be, all left as it is.
    """
    windows: dict[bytes, int] = {}
    for key, quota, cost, _ in demands:
        require_cost(cost)
        windows[key] = max(windows.get(key, 0), quota.window_us)
    due = {key: due_of(key) for key in windows}
    start = {key: min(max(due[key], now_us), now_us + window) for key, window in windows.items()}

    charged = dict.fromkeys(windows, 0)
    admitted = True
    for key, quota, cost, _ in demands:
        charged[key] += cost * quota.interval_us
        if cost and start[key] + charged[key] > now_us + quota.window_us:
            admitted = False
    charges = admitted and charge
    after = {key: start[key] + charged[key] for key in windows} if charges else start
    changed = {key: after[key] for key in windows if after[key] != max(due[key], now_us)}
    full_us = [after[demand.key] - now_us for demand in demands]
    return outcome_of(demands, admitted, full_us), changed


def outcome_of(demands: Sequence[Demand], admitted: bool, full_us: Sequence[int]) -> Outcome:
    """What is told of a decision: `full_us` is, for each demand, until its bucket is full again."""
    if admitted:
        return Outcome(
            True,
            tuple(
                [
                    Left(max(0, quota.window_us - us) // quota.interval_us, 0, us)
                    for (_, quota, _, _), us in zip(demands, full_us, strict=True)
                ]
            ),
        )
    asked: dict[bytes, int] = {}
    left = []
    for (key, quota, cost, _), bucket_full_us in zip(demands, full_us, strict=True):
        wait_us = 0
        if cost:
            asked[key] = asked_us = asked.get(key, 0) + cost * quota.interval_us
            over_us = asked_us - quota.window_us
            wait_us = NEVER if over_us > 0 else max(0, bucket_full_us + over_us)
        remaining = max(0, quota.window_us - bucket_full_us) // quota.interval_us
        left.append(Left(remaining, wait_us, bucket_full_us))
    return Outcome(False, tuple(left))


def require_cost(cost: int) -> None:
    """Raises ValueError for one below 0."""
    if cost < 0:
        raise ValueError(f"a cost must be >= 0: {cost}")
