"""The limit of now: latencies are kept as they come, and folded at each window's end."""

from __future__ import annotations

from math import log
from operator import mul
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.limits.concurrency.estimate import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.limits.concurrency.estimate import Estimator


LATENCIES_MAX: Final = 1_000  # then they are summed, also within a window


class LimitFold:
    """An estimator with its state and the window that is open; `limit` is what holds now.

    `is_starved()`, where set, says that the event loop is late: asked at the end of a window.
    """

    __slots__ = (
        "_dropped", "_due_us", "_estimator", "_latencies", "_log_square_sum", "_log_sum", "_min_us",
        "_samples", "_started_us", "_state", "_sum_us", "in_flight_max", "is_starved",
        "limit", "waiting_max",
    )  # fmt: skip

    def __init__(self, estimator: Estimator[Any]) -> None:
        self._estimator = estimator
        self._state = estimator.first()
        self.limit: int = self._state.limit
        self.is_starved: Callable[[], bool] | None = None
        self._due_us = -1  # no window is open before the first sample
        self._latencies: list[int] = []  # of this window, and in none of its sums as yet
        self._open(0, 0)

    @property
    def state(self) -> Any:
        return self._state

    def _open(self, now_us: int, in_flight: int) -> None:
        self._started_us = now_us
        self._samples = self._sum_us = self._min_us = self._dropped = 0
        self._log_sum = self._log_square_sum = 0.0
        self.in_flight_max = in_flight
        self.waiting_max = 0

    def note(self, latency_us: int, status: Any, now_us: int, in_flight: int) -> bool:
        """One answer's head, `latency_us` after its permit; True where the limit has changed.

        One that says that something below is overloaded is no sample of a latency.
        """
        if status == 503 or status == 504:
            self._dropped += 1
        else:
            latencies = self._latencies
            latencies.append(latency_us)
            if len(latencies) >= LATENCIES_MAX:
                self._sum_up()
        return now_us >= self._due_us and self._end(now_us, in_flight)

    def _sum_up(self) -> None:
        """In a few calls of C: no answer pays for its logarithm on its way."""
        latencies, self._latencies = self._latencies, []
        if not latencies:
            return
        least_us = min(latencies)
        if least_us < 1:
            latencies = [max(each, 1) for each in latencies]
            least_us = 1
        if least_us < self._min_us or not self._samples:
            self._min_us = least_us
        self._samples += len(latencies)
        self._sum_us += sum(latencies)
        logarithms = list(map(log, latencies))
        self._log_sum += sum(logarithms)
        self._log_square_sum += sum(map(mul, logarithms, logarithms))

    def _end(self, now_us: int, in_flight: int) -> bool:
        estimator = self._estimator
        if self._due_us < 0:
            self._started_us = now_us
            self._due_us = now_us + estimator.window_us
            return False
        self._sum_up()
        is_starved = self.is_starved is not None and self.is_starved()
        if (
            not is_starved  # then there is no time for many samples
            and self._samples < estimator.samples_min
            and now_us - self._started_us < estimator.window_us_max
        ):
            return False
        self._state = estimator.after(
            self._state,
            Window(
                started_us=self._started_us, ended_us=now_us, samples=self._samples,
                latency_sum_us=self._sum_us, latency_min_us=self._min_us,
                in_flight_max=self.in_flight_max, dropped=self._dropped,
                waiting_max=self.waiting_max, latency_log_sum=self._log_sum,
                latency_log_square_sum=self._log_square_sum, is_starved=is_starved,
            ),
        )  # fmt: skip
        self._due_us = now_us + estimator.window_us
        self._open(now_us, in_flight)
        before, self.limit = self.limit, self._state.limit
        return before != self.limit
