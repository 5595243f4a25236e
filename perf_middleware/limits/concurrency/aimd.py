"""Additive increase, multiplicative decrease: the limit of who knows which latency is too much.

    limit |      /|      /|
          |     / |    /  |    /      + step each time it was of use and nothing was too slow
          |    /  |  /    |  /        * backoff where requests were dropped, or too slow
          |__/    |/      |/
          +--------------------> windows

Of the linear rules that need only "too much" or "not", this one alone ends fair to several who
share.  It saws around the limit, where `gradient` settles.  Until the first cut it grows by half
at a time, or the way up would last minutes.

A latency that is too much is a promise of somebody who knows the app: one that becomes slower than
that for good is cut to `limit_min`.

Sources: D. Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
Avoidance in Computer Networks", 1989; V. Jacobson, "Congestion Avoidance and Control", 1988 (slow
start); Netflix concurrency-limits, AIMDLimit (no growth without use).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from perf_middleware.limits.concurrency.estimate import (
    Window,
    check_limits,
    check_windows,
    starved_limit,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AimdState:
    """`changed_us` is when the limit last moved: what that brought shows one latency later."""

    limit: int
    changed_us: int = 0
    was_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Aimd:
    """Cuts where a window's mean latency is above `latency_us_max`, or too many were dropped.

    Without `latency_us_max` only drops cut.  A share of drops up to `dropped_share_max` is noise.
    """

    limit_min: int = 1
    limit_first: int = 20
    limit_max: int = 200
    latency_us_max: int | None = None
    dropped_share_max: float = 0.01
    step: int = 1
    backoff: float = 0.9
    window_us: int = 200_000
    window_us_max: int = 1_000_000
    samples_min: int = 10

    def __post_init__(self) -> None:
        check_limits(self.limit_min, self.limit_first, self.limit_max)
        check_windows(self.window_us, self.window_us_max, self.samples_min)
        if self.step < 1 or not (isfinite(self.backoff) and 0 < self.backoff < 1):
            raise ValueError(f"step >= 1 and backoff between 0 and 1: {self.step}, {self.backoff}")
        if not 0 <= self.dropped_share_max < 1:
            raise ValueError(f"a share from 0 to below 1: {self.dropped_share_max}")
        if self.latency_us_max is not None and self.latency_us_max < 1:
            raise ValueError(f"latency_us_max must be >= 1: {self.latency_us_max}")

    def first(self) -> AimdState:
        return AimdState(limit=self.limit_first)

    def after(self, state: AimdState, window: Window) -> AimdState:
        """One step up or one cut down, at most once a latency; without samples only drops count."""
        if window.is_starved:
            starved = int(starved_limit(float(state.limit), window, limit_min=self.limit_min))
            if starved == state.limit:
                return state
            return AimdState(limit=starved, changed_us=window.ended_us, was_cut=True)
        ended = window.samples + window.dropped
        if ended < 1 or window.ended_us - state.changed_us < window.mean_us:
            return state
        if self._is_too_much(window, ended):
            limit, was_cut = min(state.limit - 1, int(state.limit * self.backoff)), True
        elif window.in_flight_max * 2 >= state.limit:
            step = self.step if state.was_cut else max(self.step, state.limit // 2)
            # Not above what was in use and a step: what nobody used was never tried.
            limit, was_cut = max(window.in_flight_max + step, state.limit), state.was_cut
            limit = min(limit, state.limit + step)
        else:
            return state
        limit = max(self.limit_min, min(self.limit_max, limit))
        if limit == state.limit:
            return state
        return AimdState(limit=limit, changed_us=window.ended_us, was_cut=was_cut)

    def _is_too_much(self, window: Window, ended: int) -> bool:
        if window.dropped > ended * self.dropped_share_max:
            return True
        return self.latency_us_max is not None and window.mean_us > self.latency_us_max
