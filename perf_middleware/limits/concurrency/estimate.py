"""How many requests at once: a limit is a fold over windows of what was measured.

    window, window, window ...        the runtime sums with plain counters, and ends a window
      |       |       |
    first -> after -> after -> limit  an estimator: parameters, and one pure function

A window ends once it has lasted `window_us` and has `samples_min` samples, and after
`window_us_max` in any case: an estimator says these three for itself.  Who looks at it only
when a request ends has windows that span idle time: estimators reckon with that.  A limit that was
lowered takes no permit back.

More than one mean is summed: a mean over routes of 1 ms and of 500 ms says how many of the slow
ones a window happened to have.  The mean of the logarithms weighs a doubling of either alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite, sqrt
from typing import Final, Protocol, TypeVar

LOG_LATENCY_MAX: Final = 60.0  # exp of it is a finite number of microseconds, and absurd
LOG_ERROR_MAX: Final = 0.5  # what is less certain is not less certain than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was seen since the last fold; a latency runs from the permit to the answer's head.

    `samples` are the admitted requests whose head was sent, `dropped` those which say overload: a
    timeout, a 503 from below.  They are no samples: what waited for a timeout measures the timeout.
    `in_flight_max` is how many held a permit at once, `waiting_max` how many waited for one.
    `latency_log_sum` sums `math.log(latency_us)`, each latency taken as 1 at least, and
    `latency_log_square_sum` the squares of these; 0.0 where nobody does: then the mean is taken.
    `is_starved`: threads keep the event loop from its turns, and they are what is in flight.
    """

    started_us: int
    ended_us: int
    samples: int
    latency_sum_us: int
    latency_min_us: int
    in_flight_max: int
    dropped: int
    waiting_max: int
    latency_log_sum: float = 0.0
    latency_log_square_sum: float = 0.0
    is_starved: bool = False

    @property
    def mean_us(self) -> float:
        """The mean latency; 0.0 without samples."""
        return self.latency_sum_us / self.samples if self.samples > 0 else 0.0

    @property
    def typical_us(self) -> float:
        """The geometric mean of the latencies, 1.0 at least: a slow route does not rule it.

        For any spread of latencies it doubles where each of them doubles.
        """
        if self.samples < 1:
            return 1.0
        log = self.latency_log_sum / self.samples
        if log <= 0 or not isfinite(log):
            return max(self.mean_us, 1.0)
        return exp(min(log, LOG_LATENCY_MAX))

    @property
    def log_error(self) -> float:
        """The standard error of the mean logarithm: `typical_us` is off by about this share.

        0.0 where no squares were summed; LOG_ERROR_MAX at most, also of one sample.
        """
        if self.latency_log_square_sum <= 0 or self.samples < 1:
            return 0.0
        if self.samples == 1:
            return LOG_ERROR_MAX
        mean = self.latency_log_sum / self.samples
        variance = self.latency_log_square_sum / self.samples - mean * mean
        if not isfinite(variance):
            return LOG_ERROR_MAX
        return min(sqrt(max(variance, 0.0) / (self.samples - 1)), LOG_ERROR_MAX)


class State(Protocol):
    """What an estimator knows so far; frozen."""

    @property
    def limit(self) -> int: ...


STARVED_LIMIT: Final = 4  # what a starved loop's limit is not cut below: the latency finds the rest
STARVED_KEPT: Final = 0.5


def starved_limit(limit: float, window: Window, *, limit_min: int) -> float:
    """What is left of `limit` where the event loop does not get its turns."""
    if window.in_flight_max * 2 < limit:
        return limit  # few are in flight: it is one of them, or something else
    return min(limit, max(limit * STARVED_KEPT, float(STARVED_LIMIT), float(limit_min)))


S = TypeVar("S", bound=State)


class Estimator(Protocol[S]):
    """A frozen object of parameters; the one who folds keeps the state."""

    @property
    def window_us(self) -> int: ...

    @property
    def window_us_max(self) -> int: ...

    @property
    def samples_min(self) -> int: ...

    def first(self) -> S:
        """The state before anything was seen."""
        ...

    def after(self, state: S, window: Window) -> S:
        """The state after one more window."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedState:
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """The limit that somebody chose: nothing is learnt."""

    limit: int
    window_us: int = 1_000_000
    window_us_max: int = 1_000_000
    samples_min: int = 1

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit must be >= 1: {self.limit}")
        check_windows(self.window_us, self.window_us_max, self.samples_min)

    def first(self) -> FixedState:
        return FixedState(limit=self.limit)

    def after(self, state: FixedState, window: Window) -> FixedState:
        return state


def check_windows(window_us: int, window_us_max: int, samples_min: int) -> None:
    """Raises ValueError where no window could end so."""
    if not 1 <= window_us <= window_us_max:
        raise ValueError(f"1 <= window_us <= window_us_max: {window_us}, {window_us_max}")
    if samples_min < 1:
        raise ValueError(f"samples_min must be >= 1: {samples_min}")


def check_limits(limit_min: int, limit_first: int, limit_max: int) -> None:
    """Raises ValueError where the bounds are not in order."""
    if not 1 <= limit_min <= limit_first <= limit_max:
        raise ValueError(
            f"1 <= limit_min <= limit_first <= limit_max: {limit_min}, {limit_first}, {limit_max}"
        )
