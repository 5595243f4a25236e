"""The limit at which latency begins to grow: a gradient against the unloaded latency."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from math import exp, isfinite, log, sqrt
from typing import Final

from perf_middleware.limits.concurrency.estimate import Window, check_limits, check_windows

PROBE_MEANS: Final = 4
PROBE_SAMPLES: Final = 50
GRADIENT_MIN: Final = 0.5  # one window does not take more than half
NEAR: Final = 0.1  # of the baseline: as slow as unloaded, but for noise
PROBE_EARLY_US: Final = 2_000_000
PROBE_LATENCIES: Final = 50  # a probe comes at most once in so many latencies


class Phase(IntEnum):
    """Of a probe."""

    NONE = 0
    DRAINING = 1
    MEASURING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientState:
    """`limit` is what holds now, lowered in a probe; `estimate` what was found, with its fraction.

    `baseline_us` is the typical latency without a queue, 0.0 before anything was seen.
    `gradient` is the newest: below 1 the latency says queue.
    """

    limit: int
    estimate: float
    baseline_us: float = 0.0
    gradient: float = 1.0
    changed_us: int = 0
    probe: Phase = Phase.NONE
    probe_due_us: int = 0  # while probing: when it is given up
    probed_us: int = 0
    probe_began_us: int = 0
    probe_samples: int = 0
    probe_log_sum: float = 0.0
    estimate_known: float = 0.0  # when the baseline was last seen to be right


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """Bounds, how much slower than unloaded is still no queue (`tolerance`), and when to look again.

    `jitter`, from 0 to 1, is drawn once by who makes this: processes that share a backend shall not
    probe at once.
    """

    limit_min: int = 1
    limit_first: int = 20
    limit_max: int = 200
    tolerance: float = 1.5
    smoothing: float = 0.5
    probe_interval_us: int = 20_000_000
    probe_limit: int = 2
    probe_share: float = 0.25
    jitter: float = 0.5
    window_us: int = 200_000
    window_us_max: int = 1_000_000
    samples_min: int = 20

    def __post_init__(self) -> None:
        check_limits(self.limit_min, self.limit_first, self.limit_max)
        check_windows(self.window_us, self.window_us_max, self.samples_min)
        if not (isfinite(self.tolerance) and 1 <= self.tolerance <= 10):
            raise ValueError(f"tolerance must be from 1 to 10: {self.tolerance}")
        if not 0 < self.smoothing <= 1 or not 0 < self.probe_share < 1 or not 0 <= self.jitter <= 1:
            raise ValueError(f"smoothing, probe_share and jitter are shares: {self}")
        if self.probe_interval_us < 1 or self.probe_limit < 1:
            raise ValueError(f"probe_interval_us and probe_limit must be >= 1: {self}")

    def first(self) -> GradientState:
        return GradientState(limit=self.limit_first, estimate=float(self.limit_first))

    def after(self, state: GradientState, window: Window) -> GradientState:
        if state.probe is not Phase.NONE:
            return self._probed(state, window)
        if window.samples + window.dropped < 1:
            return state
        state = self._with_baseline(state, window)
        if window.in_flight_max * 2 < state.limit and not window.dropped:
            return state
        if self._is_probe_due(state, window):
            return replace(
                state,
                limit=self._probe_limit(state),
                probe=Phase.DRAINING,
                probe_due_us=window.ended_us + max(2 * self.window_us_max, int(8 * window.mean_us)),
            )
        if window.ended_us - state.changed_us < window.mean_us:
            return state  # what the newest limit does shows one latency later
        return self._stepped(state, window)

    def _probe_limit(self, state: GradientState) -> int:
        estimate = state.estimate
        lowered = min(estimate / 2, estimate - 2.5 * sqrt(estimate))
        return min(max(self.probe_limit, self.limit_min, int(lowered)), state.limit)

    def _is_probe_due(self, state: GradientState, window: Window) -> bool:
        if window.in_flight_max <= self._probe_limit(state):
            return False
        if window.typical_us <= state.baseline_us * (1 + NEAR) and state.estimate_known:
            return False
        if window.ended_us >= state.probe_due_us:
            return True
        early_us = state.probed_us + max(PROBE_EARLY_US, PROBE_LATENCIES // 3 * window.mean_us)
        return state.estimate <= state.estimate_known * 0.7 and window.ended_us >= early_us

    def _next_probe_us(self, window: Window) -> int:
        interval = max(self.probe_interval_us, PROBE_LATENCIES * window.mean_us)
        return window.ended_us + int(interval * (1 + self.jitter / 4))

    def _with_baseline(self, state: GradientState, window: Window) -> GradientState:
        if window.samples < 1:
            return state
        typical_us, baseline_us = window.typical_us, state.baseline_us
        if baseline_us == 0:
            return replace(state, baseline_us=typical_us)
        is_unloaded = window.in_flight_max <= max(self.probe_limit, self.limit_min)
        ratio = typical_us / baseline_us
        surely = ratio * exp(2 * window.log_error)
        if surely < 1 - NEAR:
            share = 1.0 if surely < 0.7 else 0.5
        elif ratio <= 1 + NEAR or is_unloaded:
            share = 0.1
        else:
            return state
        return replace(
            state,
            baseline_us=baseline_us + (typical_us - baseline_us) * share,
            probe_due_us=self._next_probe_us(window) if state.estimate_known else 0,
        )

    def _probed(self, state: GradientState, window: Window) -> GradientState:
        now_us = window.ended_us
        is_late = now_us >= state.probe_due_us
        if window.in_flight_max <= state.limit and window.samples:
            samples = state.probe_samples + window.samples
            log_sum = state.probe_log_sum + window.samples * log(window.typical_us)
            began_us = state.probe_began_us or window.started_us
            if is_late or (now_us - began_us >= PROBE_MEANS * window.mean_us and samples >= PROBE_SAMPLES):
                return replace(
                    state,
                    limit=int(state.estimate),
                    baseline_us=exp(log_sum / samples),
                    probe=Phase.NONE,
                    probe_due_us=self._next_probe_us(window),
                    changed_us=now_us,
                    probed_us=now_us,
                    probe_began_us=0,
                    probe_samples=0,
                    probe_log_sum=0.0,
                    estimate_known=state.estimate,
                )
            return replace(
                state, probe_began_us=began_us, probe_samples=samples, probe_log_sum=log_sum
            )
        if is_late:
            return replace(
                state,
                limit=int(state.estimate),
                probe=Phase.NONE,
                probe_due_us=self._next_probe_us(window),
                probed_us=now_us,
                probe_began_us=0,
                probe_samples=0,
                probe_log_sum=0.0,
                changed_us=now_us,
            )
        return state

    def _stepped(self, state: GradientState, window: Window) -> GradientState:
        gradient = window.samples / (window.samples + window.dropped)
        if window.samples:
            step = log(self.tolerance * state.baseline_us / window.typical_us)
            if step < 0:  # only so far as noise is no reason
                step = min(step + window.log_error, 0.0)
            gradient *= exp(max(step, -5.0))
        gradient = max(GRADIENT_MIN, min(self.tolerance, gradient))
        headroom = sqrt(state.estimate)
        target = state.estimate * gradient + headroom
        # In use and headroom, not more: what was never in flight at once was never measured.
        target = min(target, max(state.estimate, window.in_flight_max + headroom))
        if window.dropped and not window.samples:
            target = state.estimate * GRADIENT_MIN
        is_free = gradient >= self.tolerance / (1 + NEAR)
        smoothing = 1.0 if is_free else self.smoothing
        estimate = state.estimate + (target - state.estimate) * smoothing
        estimate = max(float(self.limit_min), min(float(self.limit_max), estimate))
        return replace(
            state,
            limit=int(estimate),
            estimate=estimate,
            gradient=gradient,
            changed_us=window.ended_us,
        )
