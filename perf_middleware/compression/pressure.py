r"""How hard to try while the CPU is scarce: a fold over samples, with hysteresis.

    sample  1 |        ______
         high |- - - -/- - - \ - - - - - - -     rises a step after `rise_us` at or above it
              |      /        \_____
          low |- - -/- - - - - - - -\ - - - -    falls a step after `fall_us` at or below it
              |____/                 \______
    step        0 0 0 0 1 1 2 2 2 2 2 2 1 1 0

One peak changes nothing; between the two bounds nothing changes at all, so that the relief which a
step brings does not take it back at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NORMAL: Final = 0
LOWER_LEVEL: Final = 1
IDENTITY: Final = 2
GAP_US_MAX: Final = 2_000_000  # between two high samples that are taken to be of one time


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Shares of the CPU from 0 to 1, and how long they must last; `highest` is the last step."""

    high: float = 0.9
    low: float = 0.7
    rise_us: int = 2_000_000
    fall_us: int = 5_000_000
    highest: int = IDENTITY

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1 or self.rise_us < 1 or self.fall_us < 1:
            raise ValueError(f"low < high, both from 0 to 1, and times above 0: {self}")
        if not NORMAL <= self.highest <= IDENTITY:
            raise ValueError(f"there is no step {self.highest}")


@dataclass(frozen=True, slots=True)
class Pressure:
    """The step that holds; since when samples are on one side of it: 1 high, -1 low, 0 between.

    `seen_us` is when the newest came: they come with answers.
    """

    step: int = NORMAL
    side: int = 0
    since_us: int = 0
    seen_us: int = 0


def after(state: Pressure, sample: float, *, now_us: int, thresholds: Thresholds) -> Pressure:
    """The state after one more sample; of what is no number nothing follows.

    At most one step at a time: each needs the whole time again.
    """
    if not 0 <= sample <= 1:
        sample = 1.0 if sample > 1 else (thresholds.low + thresholds.high) / 2
    side = 1 if sample >= thresholds.high else -1 if sample <= thresholds.low else 0
    gap_us = now_us - state.seen_us
    step = state.step
    if side < 0 and gap_us >= thresholds.fall_us:
        return Pressure(NORMAL, side, now_us, now_us)  # nothing was asked for, and it is low
    # Of the time in a gap nothing is known: what is high has not lasted through that.
    if side != state.side or (side > 0 and gap_us > GAP_US_MAX):
        return Pressure(step, side, now_us, now_us)
    lasted_us = now_us - state.since_us
    if side > 0 and lasted_us >= thresholds.rise_us and step < thresholds.highest:
        return Pressure(step + 1, side, now_us, now_us)
    if side < 0 and lasted_us >= thresholds.fall_us and step > NORMAL:
        return Pressure(step - 1, side, now_us, now_us)
    return Pressure(step, side, state.since_us, now_us)
