"""One cleanup: who is asked to free memory, what each was told, and what came of it.

Pressure      what every callback is given
Cleaner       one callback, its place in the order, and where it runs
Freed         what became of it
CleanupReport the whole, before and after, as one sentence for the log
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from perf_middleware.memory_watch.ladder import STEP_NAMES

if TYPE_CHECKING:
    from perf_middleware.memory_watch.reading import Bound, BoundName, MemorySample

CLEANERS_MAX: Final = 64
NAME_CHARS_MAX: Final = 100
FREED_BYTES_MAX: Final = 1 << 50  # no process had more: a figure of it could not even be told
MIB: Final = 1 << 20
US_PER_S: Final = 1_000_000

Outcome: TypeAlias = Literal["done", "failed", "overran", "skipped"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("done", "failed", "overran", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Why memory is asked for: the step (1 soft, 2 hard, 3 critical; 0 where code asked for it).

    `shrink_share` is how much of its bytes a cache is asked to let go of: 0 where the step stays
    soft and the last cleanup has brought nothing, so that a cache is better kept.  `share` and
    `limit_bytes` are None where no limit is known.
    """

    step: int
    shrink_share: float
    used_bytes: int
    share: float | None = None
    limit_bytes: int | None = None


Callback: TypeAlias = Callable[[Pressure], int | Awaitable[int | None] | None]
"""Frees memory; returns how many bytes, where it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaner:
    """A callback, called in the order of `order`, with `thread` on the watch's own thread.

    `relief` is called without arguments, in the same place, once the pressure is over.
    """

    name: str
    callback: Callable[[Pressure], Any]
    order: int = 100
    thread: bool = False
    relief: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > NAME_CHARS_MAX:
            raise ValueError(f"a cleanup has a name of at most {NAME_CHARS_MAX} characters")


def with_cleaner(cleaners: tuple[Cleaner, ...], cleaner: Cleaner) -> tuple[Cleaner, ...]:
    """`cleaners` with one more, behind those of the same order.

    Raises ValueError for a name that is taken, and where there are too many.
    """
    if any(known.name == cleaner.name for known in cleaners):
        raise ValueError(f"there is a cleanup named {cleaner.name!r} already")
    if len(cleaners) >= CLEANERS_MAX:
        raise ValueError(f"more than {CLEANERS_MAX} cleanups")
    ordered = list(cleaners)
    insort(ordered, cleaner, key=lambda one: one.order)
    return tuple(ordered)


@dataclass(frozen=True, slots=True)
class Freed:
    """What became of one callback; `freed_bytes` None: it does not say.

    `overran`: its time was over before it ended.  `skipped`: it was not begun, for `reason`.
    """

    name: str
    outcome: Outcome
    took_us: int = 0
    freed_bytes: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.outcome != "done":
            return f"{self.name} {self.outcome}{f' ({self.reason})' if self.reason else ''}"
        if self.freed_bytes is None:
            return f"{self.name} done"
        return f"{self.name} {mib(self.freed_bytes)}"


def freed_bytes_of(answer: object) -> int | None:
    """How many bytes a callback says it has freed; None where it says nothing of use."""
    if isinstance(answer, bool) or not isinstance(answer, int):
        return None
    return answer if 0 <= answer <= FREED_BYTES_MAX else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupReport:
    """One cleanup: used bytes of the `bound` before and after, of RSS where there is no bound.

    `collected` objects that the garbage collector found, None where it was not asked;
    `trimmed_bytes` that RSS fell by in the trim, None where nothing was trimmed.
    """

    step: int
    before_bytes: int
    after_bytes: int
    took_us: int
    bound: BoundName | None = None
    limit_bytes: int | None = None
    freed: tuple[Freed, ...] = ()
    collected: int | None = None
    trimmed_bytes: int | None = None

    @property
    def brought_share(self) -> float:
        """What was freed, of the limit; 0 where memory grew meanwhile or nothing limits it."""
        if self.limit_bytes is None:
            return 0.0
        return max(0, self.before_bytes - self.after_bytes) / self.limit_bytes

    def count(self, outcome: Outcome) -> int:
        return sum(freed.outcome == outcome for freed in self.freed)

    def sentence(self) -> str:
        """For the log."""
        limit = "" if self.limit_bytes is None else f" of {mib(self.limit_bytes)} ({self.bound})"
        done = [str(freed) for freed in self.freed]
        if self.collected is not None:
            done.append(f"{self.collected} objects collected")
        if self.trimmed_bytes is not None:
            done.append(f"trimmed {mib(self.trimmed_bytes)}")
        return (
            f"memory cleanup at step {STEP_NAMES[self.step]}: {mib(self.before_bytes)} before, "
            f"{mib(self.after_bytes)} after{limit}, {self.took_us / US_PER_S:.3f} s"
            f"{': ' if done else ''}{', '.join(done)}"
        )


def same_bound(sample: MemorySample, bound: Bound | None) -> Bound | None:
    """How `bound` stands in a later sample; None where it is not there."""
    if bound is None:
        return None
    key = (bound.name, bound.where)
    return next((one for one in sample.bounds if (one.name, one.where) == key), None)


def mib(size_bytes: int) -> str:
    """`12.3 MiB`."""
    return f"{size_bytes / MIB:.1f} MiB"
