"""May this worker finish now, so that a fresh one takes its place?

    cause      critical lasts, though the ladder has cleaned up; or all it does is refuse
    standing   old enough; a server that heeds the signal; no smaller than its siblings
    turn       nobody else of this service is finishing on this host, nor was a moment ago

Whoever may not, goes on shedding and asks again at the next look.

Where a limit is shared (a control group, the whole machine) the largest goes first: it gives back
most.  A limit of this process alone is its own affair, however large the others are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from perf_middleware.memory_watch.shedding import CRITICAL, HARD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.memory_watch.reading import MemorySample

Cause: TypeAlias = Literal["critical", "stuck"]
Reason: TypeAlias = Literal["young", "unhandled", "futile", "smaller", "turn", "gap", "failed"]
"""Why a worker does not finish: it is too young, nothing in it heeds the signal, a fresh one would
be as full, a sibling is larger, another one finishes, another one has just finished, the lock or
the hook failed."""

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

CRITICAL_LOOKS_MIN: Final = 3
SHARED_BOUNDS: Final = frozenset({"cgroup", "system"})

_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """This worker among its siblings; `sibling_bytes` has no one where nobody was asked."""

    uptime_us: int
    own_bytes: int
    sibling_bytes: tuple[int, ...] = ()
    is_heeded: bool = True
    is_futile: bool = False


class Lasting:
    """Folds the looks at the memory into a cause to finish, or None.

    Critical counts once it has lasted for `settle_us` and some looks: the ladder cleans up at the
    first of them, looks go on meanwhile, and the last one has seen what that brought.  Who refuses
    everybody at hard leaks no more, so critical may never come, and everybody be refused for good:
    after `stuck_us` of that a fresh worker is better.
    """

    __slots__ = (
        "_critical_looks",
        "_critical_since_us",
        "_hard_since_us",
        "_refused",
        "_settle_us",
        "_stuck_us",
    )

    def __init__(self, *, settle_us: int, stuck_us: int) -> None:
        self._settle_us = settle_us
        self._stuck_us = stuck_us
        self._critical_looks = 0
        self._critical_since_us = 0
        self._hard_since_us: int | None = None
        self._refused = 0

    def note(self, step: int, *, at_us: int, refused: int | None) -> Cause | None:
        """One look; `refused` is how many requests were so far, None where some are let in."""
        if step < HARD:
            self._critical_looks, self._hard_since_us = 0, None
            return None
        if self._hard_since_us is None or refused is None:
            self._hard_since_us, self._refused = at_us, refused or 0
        if step < CRITICAL:
            self._critical_looks = 0
        else:
            if self._critical_looks == 0:
                self._critical_since_us = at_us
            self._critical_looks += 1
            lasted_us = at_us - self._critical_since_us
            if self._critical_looks >= CRITICAL_LOOKS_MIN and lasted_us >= self._settle_us:
                return "critical"
        if (
            refused is None
            or refused <= self._refused
            or at_us - self._hard_since_us < self._stuck_us
        ):
            return None
        return "stuck"


def is_futile(first: MemorySample, sample: MemorySample, *, share: float) -> bool:
    """Whether a fresh worker would begin at `share` or above, as this one has at its first look.

    Of what others use as well nothing is said: they may use less by now.
    """
    tightest = sample.tightest
    if tightest is None or tightest.name in SHARED_BOUNDS:
        return False
    used_bytes = max(
        (one.used_bytes for one in first.bounds if one.name == tightest.name), default=0
    )
    return used_bytes >= tightest.limit_bytes * share


def is_shared(sample: MemorySample) -> bool:
    """Whether others use what this worker is short of."""
    tightest = sample.tightest
    return tightest is not None and tightest.name in SHARED_BOUNDS


def held_back(standing: Standing, *, uptime_us_min: int) -> Reason | None:
    """Why this worker must not finish whoever else does; None: it may ask for its turn."""
    if standing.uptime_us < uptime_us_min:
        return "young"
    if not standing.is_heeded:
        return "unhandled"
    if standing.is_futile:
        return "futile"
    siblings = standing.sibling_bytes
    if siblings and standing.own_bytes * len(siblings) < sum(siblings):
        return "smaller"
    return None


def gap_left_us(*, now_us: int, ended_us: int | None, gap_us: int) -> int:
    """How long the last end keeps the next one waiting, microseconds; 0 where it may come.

    An end in the future was noted before this host was started again, and says nothing.
    """
    if ended_us is None or ended_us > now_us:
        return 0
    return max(ended_us + gap_us - now_us, 0)


def is_sibling(command: Sequence[str], own: Sequence[str]) -> bool:
    """Whether two children of one parent do the same work: their command lines differ in numbers
    at most (pipes, ports), so that a helper of multiprocessing is none.
    """
    return bool(own) and _NUMBER.sub("", "\0".join(command)) == _NUMBER.sub("", "\0".join(own))
