r"""One overload level out of several signals: a fold over samples, quick to rise, slow to fall.

    signal   |          ____
    overloaded_at - - -/- - \- - - - - - - - - - -    at or above a bound: its level, at once
    its relief  - - - /- - - \- - - - - - - - - - -   between a bound and its relief: no change
    busy_at  |- - - -/- - - - \_____
    its relief - - -/- - - - - - - -\- - - - - - -    at or below it for `fall_us`: one level less
             |_____/                 \____________
    level     0 0 0 1 2 2 2 2 2 2 2 1 1 1 1 1 0 0

The level is the worst signal's.  What makes one peak harmless is the smoothing of each signal:
`least` is the smaller of its last two samples, so that only what stands counts (a line that is
empty now and then is a good line: CoDel, RFC 8289 §4.2), `mean` an average that forgets in
`mean_us`, `none` for a figure that has seen to it itself.  A fall takes its whole time for each
step, and any sample above the relief begins it anew: a level is left once in `fall_us` at most,
however its signals swing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import expm1, isfinite
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NORMAL: Final = 0
BUSY: Final = 1
OVERLOADED: Final = 2
LEVEL_NAMES: Final = ("normal", "busy", "overloaded")

Smoothing: TypeAlias = Literal["least", "mean", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What is measured, and from which value on it means a level.

    `overloaded_at` None: alone it never says more than busy.  `relief` is the share of a bound at
    which its level may be left.
    """

    name: str
    busy_at: float
    overloaded_at: float | None = None
    relief: float = 0.7
    smoothing: Smoothing = "least"
    mean_us: int = 1_000_000

    def __post_init__(self) -> None:
        highest = self.busy_at if self.overloaded_at is None else self.overloaded_at
        if not (0 < self.busy_at <= highest and isfinite(highest)):
            raise ValueError(f"0 < busy_at <= overloaded_at, both finite: {self}")
        if not 0 < self.relief < 1 or self.mean_us < 1:
            raise ValueError(f"relief is above 0 and below 1, mean_us above 0: {self}")

    def level_at(self, value: float) -> int:
        """The level that `value` means by itself."""
        if self.overloaded_at is not None and value >= self.overloaded_at:
            return OVERLOADED
        return BUSY if value >= self.busy_at else NORMAL

    def level_kept_at(self, value: float) -> int:
        """The highest level that `value` does not let go of."""
        if self.overloaded_at is not None and value > self.overloaded_at * self.relief:
            return OVERLOADED
        return BUSY if value > self.busy_at * self.relief else NORMAL

    def strain(self, value: float) -> float:
        """How far `value` is on its way to the highest bound: from there on 1 and more."""
        return value / (self.busy_at if self.overloaded_at is None else self.overloaded_at)


@dataclass(frozen=True, slots=True)
class Smoothed:
    """One signal so far: its newest sample, and the value that counts."""

    newest: float
    value: float
    at_us: int


@dataclass(frozen=True, slots=True)
class LevelState:
    """The level, the signal that is the reason for it (empty when normal), and since when it holds.

    `calm_since_us`: from when on no signal has held the level, None while one does.
    """

    level: int = NORMAL
    reason: str = ""
    since_us: int = 0
    calm_since_us: int | None = None
    smoothed: Mapping[str, Smoothed] = field(default_factory=dict)


def after(
    state: LevelState,
    samples: Mapping[str, float | None],
    *,
    now_us: int,
    signals: Sequence[Signal],
    fall_us: int,
) -> LevelState:
    """The state after one more sample of each signal.

    A signal that is missing, None or no finite number counts as nothing, and begins anew when it
    is back.
    """
    smoothed: dict[str, Smoothed] = {}
    up = kept = NORMAL
    up_by = kept_by = ""
    up_strain = kept_strain = 0.0
    for signal in signals:
        sample = samples.get(signal.name)
        if sample is None or not isfinite(sample):
            continue
        seen = smoothed[signal.name] = smoothed_after(
            state.smoothed.get(signal.name), sample, now_us=now_us, signal=signal
        )
        strain = signal.strain(seen.value)
        level = signal.level_at(seen.value)
        if (level, strain) > (up, up_strain):
            up, up_by, up_strain = level, signal.name, strain
        level = signal.level_kept_at(seen.value)
        if (level, strain) > (kept, kept_strain):
            kept, kept_by, kept_strain = level, signal.name, strain
    level = state.level
    if up > level:
        return LevelState(up, up_by, now_us, None, smoothed)
    if kept >= level:
        reason = kept_by if level else ""
        return LevelState(level, reason, state.since_us, None, smoothed)
    calm_since_us = now_us if state.calm_since_us is None else state.calm_since_us
    if now_us - calm_since_us < fall_us:
        return LevelState(level, state.reason, state.since_us, calm_since_us, smoothed)
    level -= 1
    reason = (kept_by or state.reason) if level else ""
    return LevelState(level, reason, now_us, now_us, smoothed)


def is_rising(state: LevelState, signals: Sequence[Signal]) -> bool:
    """Whether a newest sample means more than the level: the next one may confirm it."""
    smoothed = state.smoothed
    return any(
        signal.level_at(smoothed[signal.name].newest) > state.level
        for signal in signals
        if signal.name in smoothed
    )


def smoothed_after(
    before: Smoothed | None, sample: float, *, now_us: int, signal: Signal
) -> Smoothed:
    """The signal's value after `sample`.

    The first one of a mean is taken as it is; of a least it counts as 0: one sample is a peak.
    """
    if signal.smoothing == "least":
        return Smoothed(sample, min(sample, 0.0 if before is None else before.newest), now_us)
    if before is None or signal.smoothing == "none":
        return Smoothed(sample, sample, now_us)
    weight = -expm1(-max(0, now_us - before.at_us) / signal.mean_us)
    return Smoothed(sample, before.value + weight * (sample - before.value), now_us)
