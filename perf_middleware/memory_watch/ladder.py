r"""How near to its limit this process is, as one step, and when to clean up: a fold over samples.

    share    |              _
    critical - - - - - - - / \ - - - - - - - - - - -   at or above a step: up at once, over steps
    its relief - - - - - -/- -\- - - - - - - - - - -   between a step and its relief: no change
    hard     |- - - - - -/- - - \___                   at or below it: one step down for each look
    its relief - - - - -/- - - - - -\- - - - - - - -
    soft     |- - - ___/- - - - - - -\- - - - - - -
    its relief - - / - - - - - - - - -\_____________
    step     0 0 0 1 1 2 3 3 2 2 2 1 1 0 0 0 0 0 0 0
    clean up       !   !             !                 at a rise; while it stays, each cooldown

Each bound is judged for itself and the worst is the step.  Of the machine's own memory (`system`)
it is hard at most: another process may be who fills it, and would take what the end of this one
gives back.

A rise is a reason to clean up at once: what memory has grown by, something may give back.  Where
the step stays, the next cleanup comes after `cooldown_us`, and after one that brought nothing the
time doubles, up to COOLDOWNS_MAX: what cannot be freed is not collected over and over.  A share
that swings over a step must fall by the relief in between, and even then a rise waits for a part
of the cooldown (RISE_PART), or for all of its time where the last cleanup at that step was in vain.
To a step above that of a cleanup that freed something, it waits for nothing: the next may be last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from perf_middleware.memory_watch.reading import Bound, MemorySample

NORMAL: Final = 0
SOFT: Final = 1
HARD: Final = 2
CRITICAL: Final = 3
STEP_NAMES: Final = ("normal", "soft", "hard", "critical")

RISE_PART: Final = 10  # of the cooldown, which rises wait after any cleanup
COOLDOWNS_MAX: Final = 16  # what the gap between two cleanups in vain grows to
BROUGHT_SHARE_MIN: Final = 0.01  # of the limit: a cleanup that frees less was in vain


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """From which share on each step holds, and how far below it is left."""

    soft_share: float
    hard_share: float
    critical_share: float
    relief_share: float
    cooldown_us: int

    def __post_init__(self) -> None:
        if not 0 < self.soft_share < self.hard_share < self.critical_share <= 1:
            raise ValueError(f"0 < soft < hard < critical <= 1 must hold: {self}")
        if not 0 < self.relief_share < self.soft_share or self.cooldown_us < 1:
            raise ValueError(f"0 < relief < soft must hold, and cooldown_us >= 1: {self}")

    @property
    def shares(self) -> tuple[float, float, float]:
        """Where soft, hard and critical begin."""
        return self.soft_share, self.hard_share, self.critical_share

    def step_at(self, bound: Bound) -> int:
        """The step that `bound` means by itself."""
        share = bound.share
        return _at_most(bound, sum(share >= at for at in self.shares))

    def step_kept_at(self, bound: Bound) -> int:
        """The highest step that `bound` does not let go of."""
        share, relief = bound.share, self.relief_share
        # Rounded: 0.95 - 0.05 is a little less than 0.9, which would hold for ever.
        return _at_most(bound, sum(share > round(at - relief, 9) for at in self.shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderState:
    """The step, the bound that holds it (the tightest when normal), and since when.

    `cleaned_us` is when the last cleanup ended, None before the first; `cleaned_step` its step and
    `gap_us` the time until the next while the step stays.  `has_risen`: since then.
    """

    step: int = NORMAL
    bound: Bound | None = None
    since_us: int = 0
    cleaned_us: int | None = None
    cleaned_step: int = NORMAL
    gap_us: int = 0
    has_risen: bool = False


def after(state: LadderState, sample: MemorySample, *, ladder: Ladder) -> LadderState:
    """The state after one more look.  Without any bound it falls: nothing limits this process."""
    up, up_by = _worst([(ladder.step_at(bound), bound) for bound in sample.bounds])
    if up > state.step:
        return replace(state, step=up, bound=up_by, since_us=sample.at_us, has_risen=True)
    kept, kept_by = _worst([(ladder.step_kept_at(bound), bound) for bound in sample.bounds])
    if kept >= state.step:
        return replace(state, bound=kept_by)
    step = state.step - 1
    bound = sample.tightest if step == NORMAL else kept_by
    return replace(state, step=step, bound=bound, since_us=sample.at_us)


def cleanup_is_due(state: LadderState, *, now_us: int, ladder: Ladder) -> bool:
    """Whether caches should shrink and garbage be collected now."""
    if state.step == NORMAL:
        return False
    if state.cleaned_us is None:
        return True
    gap_us = state.gap_us
    was_in_vain = gap_us > ladder.cooldown_us
    if state.has_risen and not was_in_vain and state.step > state.cleaned_step:
        return True
    if state.has_risen and (not was_in_vain or state.step > state.cleaned_step):
        gap_us = ladder.cooldown_us // RISE_PART
    return now_us - state.cleaned_us >= gap_us


def is_worth_shrinking(state: LadderState, *, ladder: Ladder) -> bool:
    """Whether caches are to let go of something in a cleanup now.

    Not where soft merely stays, and the last cleanup was in vain: memory that is well used for
    something else would empty every cache by halves, for ever, and for nothing.  From hard on all
    that there is counts.
    """
    was_in_vain = state.cleaned_us is not None and state.gap_us > ladder.cooldown_us
    return state.step != SOFT or state.has_risen or not was_in_vain


def cleaned(
    state: LadderState, *, step: int, brought_share: float, now_us: int, ladder: Ladder
) -> LadderState:
    """The state after a cleanup of `step` that has ended and freed `brought_share` of the limit.

    The step may have risen meanwhile.
    """
    gap_us = ladder.cooldown_us
    if brought_share < BROUGHT_SHARE_MIN:
        gap_us = min(2 * max(state.gap_us, gap_us), COOLDOWNS_MAX * gap_us)
    return replace(
        state, cleaned_us=now_us, cleaned_step=step, gap_us=gap_us, has_risen=state.step > step
    )


def _at_most(bound: Bound, step: int) -> int:
    return min(step, HARD) if bound.name == "system" else step


def _worst(judged: list[tuple[int, Bound]]) -> tuple[int, Bound | None]:
    """The highest step and, of the bounds that mean it, the tightest."""
    return max(judged, key=lambda one: (one[0], one[1].share), default=(NORMAL, None))
