"""What a queue may hold, and how a task is run: values, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.tasks.queue.order import PRIORITIES, RANK_OF
from perf_middleware.tasks.queue.retries import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.tasks.queue.figures import TaskCounts

US_PER_S: Final = 1_000_000


class AsSet(Enum):
    """Stands for what is set elsewhere, where None says something of its own."""

    AS_SET = "as set"


AS_SET: Final = AsSet.AS_SET
DELAY_S_MAX: Final = 366 * 86_400.0
RETRIES_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 200
KEY_CHARS_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """The bounds of one queue; PERFORMANCE_TASKS_* has the same, with their meaning."""

    workers: int = 16
    threads_max: int = 8
    backlog_max: int = 10_000
    backlog_bytes_max: int = 64 << 20
    full_wait_s: float = 1.0
    fair_every: int = 8
    paused_every_s: float = 0.25
    timeout_s: float | None = 300.0
    retry_first_s: float = 0.5
    retry_most_s: float = 60.0
    finished_max: int = 1_000
    finished_bytes_max: int = 16 << 20
    finished_age_s: float = 3_600.0
    dead_max: int = 1_000
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        seconds = (
            self.full_wait_s, self.drain_s, self.paused_every_s, self.retry_first_s,
            self.retry_most_s, self.finished_age_s, self.timeout_s or 0.0,
        )  # fmt: skip
        if not all(map(isfinite, seconds)):
            raise ValueError(f"every wait and age is finite: {self}")
        whole = (self.workers, self.threads_max, self.backlog_max, self.backlog_bytes_max)
        if min(*whole, self.fair_every) < 1 or min(self.finished_max, self.dead_max) < 0:
            raise ValueError(f"workers, threads, backlog and fair_every are 1 or more: {self}")
        if self.finished_bytes_max < 0 or self.finished_age_s < 0:
            raise ValueError(f"what is kept of finished jobs is 0 or more: {self}")
        if self.full_wait_s < 0 or self.drain_s < 0 or self.paused_every_s <= 0:
            raise ValueError(f"no wait is below 0, and paused_every_s above it: {self}")
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise ValueError(f"timeout_s is above 0, or None: {self}")
        self.backoff()

    def backoff(self) -> Backoff:
        """The waits between attempts."""
        return Backoff(
            first_us=round(self.retry_first_s * US_PER_S),
            most_us=round(self.retry_most_s * US_PER_S),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """How the jobs of one task are run, unless a call says otherwise."""

    name: str
    call: Callable[..., Any]
    is_threaded: bool
    counts: TaskCounts = field(repr=False)
    rank: int = RANK_OF["normal"]
    retries: int = 0
    timeout_us: int | None = None
    retry_on: tuple[type[Exception], ...] = (Exception,)


def rank_of(priority: object) -> int:
    """The rank of a class, 0 for the most urgent.  Raises ValueError for a name that is none."""
    rank = RANK_OF.get(priority) if isinstance(priority, str) else None
    if rank is None:
        raise ValueError(f"priority is one of {', '.join(PRIORITIES)}, not {priority!r}")
    return rank


def checked_retries(retries: object) -> int:
    """`retries`, from 0 to RETRIES_MAX.  Raises ValueError."""
    if not isinstance(retries, int) or not 0 <= retries <= RETRIES_MAX:
        raise ValueError(f"retries is from 0 to {RETRIES_MAX}, not {retries!r}")
    return retries


def checked_retry_on(retry_on: object) -> tuple[type[Exception], ...]:
    """`retry_on` as a tuple.  Raises ValueError for what is no subclass of Exception."""
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise ValueError(f"retry_on is a type of errors, or a tuple of such, not {retry_on!r}")
    return kinds


def microseconds(name: str, seconds: object, *, least_us: int = 1) -> int | None:
    """`seconds` as whole microseconds, None as None.  Raises ValueError where that is no wait."""
    if seconds is None:
        return None
    if not isinstance(seconds, int | float):
        raise ValueError(f"{name} is a number of seconds, not {seconds!r}")  # noqa: TRY004
    if not isfinite(seconds) or seconds > DELAY_S_MAX or seconds * US_PER_S < least_us - 0.5:
        allowed = "from 0" if least_us == 0 else "above 0"
        raise ValueError(f"{name} is {allowed} to {DELAY_S_MAX:g} seconds, not {seconds!r}")
    return max(least_us, round(seconds * US_PER_S))


def checked_key(unique_key: object) -> str | None:
    """`unique_key`, where it is text of a bearable length.  Raises ValueError."""
    if unique_key is None:
        return None
    if not isinstance(unique_key, str) or not 0 < len(unique_key) <= KEY_CHARS_MAX:
        raise ValueError(f"unique_key is 1 to {KEY_CHARS_MAX} characters of text")
    return unique_key
