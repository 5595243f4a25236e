r"""The limit at which latency begins to grow, found without being told a latency or a capacity.

    latency |                /        Below the knee a request takes its own time (the baseline).
            |              /          Above it more in flight ends nothing sooner: by Little's law
   baseline |-------------/           in flight = throughput * latency, and with a throughput that
            |            knee         grows no more each one above only adds to everyone's latency.
            +-----------------------> in flight

Each window moves the limit towards

    limit * gradient + headroom     gradient = tolerance * baseline / latency, at most tolerance
                                    headroom = sqrt(limit): room to grow, and a short queue

which rests a little above the knee, at knee * tolerance + headroom: the queue that keeps a backend
busy while arrivals and service times vary.  It holds whatever the knee is made of: a pool of
connections, threads that share the GIL (latency grows from the second one on), nothing at all (no
knee: the limit grows to its maximum, and stays).

A gradient is as good as its baseline.  That is read off windows with little in flight, and off any
that is faster than it.  While latency stays above it, nothing says whether that is a queue or an
app that became slower for good, so a probe asks: the limit is halved for some samples.

    limit  ____      _______    held: the throughput did not suffer: all below was enough, so the
               |    |                 knee is lower still; halve again, and do not go all the way up
               |____|           fell: no queue is left, this latency is the baseline
            drain measure

Rules that keep it sane:
- What was never in flight at once was never measured: the limit does not grow above what was in use
  and the headroom, and stays where it is while less than half of it is in use.
- A window moves the limit by its certainty: mixed routes and few samples have a wide error, which
  widens the tolerance and shortens the step.
- The typical latency is the geometric mean: half of it is half of everybody's, so that a slow route
  does not rule it, nor a fast one.  Who has routes 500 times apart still does better with a limit
  for each: a mix has no one knee.
- While what is in flight keeps the event loop from its turns (threads that hold the GIL), each
  window halves the limit, down to four, without waiting for latencies.
- What a limit does is seen one latency later, and of those it lets in the fast ones end first.

Sources: L. Brakmo, L. Peterson, "TCP Vegas: End to End Congestion Avoidance on a Global Internet",
1995 (the queue from latency against its minimum, once a round trip).  N. Cardwell et al., "BBR:
Congestion-Based Congestion Control", 2016, and draft-cardwell-iccrg-bbr-congestion-control (probes
for the minimum only after it was not seen for a while; half of what is in flight, not a few).
Netflix concurrency-limits, Gradient2Limit (window, smoothing, the root as headroom, no growth
without use).  Envoy, adaptive concurrency filter (the measured minimum with jitter and buffer).
J. Little, "A Proof for the Queuing Formula L = λW", 1961.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, isfinite, log, sqrt
from typing import Final

from perf_middleware.limits.concurrency.estimate import (
    Window,
    check_limits,
    check_windows,
    starved_limit,
)

KEPT_MIN: Final = 0.6  # of the limit, is where one window points at least: it may be an outlier
KEPT_MIN_DROPPED: Final = 0.8  # one too many in flight may be enough to have many dropped
DROP_WEIGHT: Final = 2  # a share of drops d alone holds the limit at 1 / (2 d)**2: 10 % at 25
LOG_GRADIENT_MIN: Final = -5.0
NEAR: Final = 0.1  # of the baseline: as slow as unloaded, but for noise
NOISE: Final = 1.5  # standard errors above the tolerance that are no reason to cut
ERROR_HALF: Final = 0.15  # the error at which a window has half its weight

PROBE_EARLY_US: Final = 2_000_000  # between probes while the baseline is in doubt
PROBE_EARLY_LATENCIES: Final = 16  # or so many latencies: at half the limit for a tenth of the time
PROBE_LATENCIES: Final = 50  # between probes otherwise, where latencies are long
PROBE_US_MAX: Final = 10_000_000  # then it is given up
PROBE_SAMPLES: Final = 50  # are enough, as are fewer which agree
AGREED_ERROR: Final = 0.05
HELD: Final = 0.75  # of the throughput: the lower limit cost nothing
FELL: Final = 0.6  # of the highest limit since the last probe: look again, soon


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A lowered limit: first what was in flight has to end, then samples count.

    `rate` is the throughput before, in requests per us; `began_us` is 0 until it is drained.
    """

    gives_up_us: int
    rate: float
    began_us: int = 0
    samples: int = 0
    log_sum: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientState:
    """`limit` is what holds now, lowered in a probe; `estimate` what was found, with its fraction.

    `baseline_us` is the typical latency without a queue, 0.0 before anything was seen; `is_sure`
    where it was read without one.  `gradient` is the newest: below 1 the latency says queue.
    `changed_us` is when the limit last moved, `probed_us` when a probe last ended (0: none did),
    `highest` the highest estimate since; the next is due at `probe_due_us`.
    """

    limit: int
    estimate: float
    baseline_us: float = 0.0
    is_sure: bool = False
    gradient: float = 1.0
    changed_us: int = 0
    probe: Probe | None = None
    probe_due_us: int = 0
    probed_us: int = 0
    highest: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """Finds the limit from latency alone.

    `tolerance` is how many times the baseline a latency may be without a cut.  `smoothing` is the
    share of the way that a window goes.  Probes come `probe_interval_us` after the baseline was
    last seen to hold, and never lower the limit below `probe_limit`.  `jitter`, from 0 to 1, is
    drawn once by who makes this, and puts them up to a quarter off: processes that share a backend
    shall not probe it together.
    """

    limit_min: int = 1
    limit_first: int = 20
    limit_max: int = 200
    tolerance: float = 1.5
    smoothing: float = 0.5
    probe_interval_us: int = 20_000_000
    probe_limit: int = 1
    jitter: float = 0.5
    window_us: int = 200_000
    window_us_max: int = 1_000_000
    samples_min: int = 20

    def __post_init__(self) -> None:
        check_limits(self.limit_min, self.limit_first, self.limit_max)
        check_windows(self.window_us, self.window_us_max, self.samples_min)
        if not (isfinite(self.tolerance) and 1 <= self.tolerance <= 10):
            raise ValueError(f"tolerance must be from 1 to 10: {self.tolerance}")
        if not 0 < self.smoothing <= 1:
            raise ValueError(f"smoothing must be above 0 and at most 1: {self.smoothing}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1: {self.jitter}")
        if self.probe_interval_us < 1 or self.probe_limit < 1:
            raise ValueError(
                f"probe_interval_us, probe_limit >= 1: {self.probe_interval_us}, {self.probe_limit}"
            )

    def first(self) -> GradientState:
        return GradientState(limit=self.limit_first, estimate=float(self.limit_first))

    def after(self, state: GradientState, window: Window) -> GradientState:
        """The state after `window`; the same where it says nothing: no traffic, or too early."""
        if window.is_starved:
            return self._starved(state, window)
        if state.probe is not None:
            return self._after_probing(state, state.probe, window)
        if window.samples < 1 and window.dropped < 1:
            return state
        if state.probed_us and window.started_us < state.probed_us + 2 * state.baseline_us:
            return state  # of those that the restored limit let in, the fast ones ended
        if window.samples > 0:
            state = self._with_baseline(state, window)
        if window.in_flight_max * 2 < state.limit:
            return state
        lasted_us = max(window.ended_us - window.started_us, 1)
        # Of a window that spans idle time the throughput says nothing: no probe could fall below.
        if lasted_us <= 2 * self.window_us_max + window.mean_us and self._is_probe_due(
            state, window
        ):
            return self._lowered(state, window, rate=window.samples / lasted_us)
        if window.ended_us - state.changed_us < window.mean_us:
            return state
        return self._stepped(state, window)

    def _starved(self, state: GradientState, window: Window) -> GradientState:
        """Cut at once; such latencies are the starved loop's, and no baseline."""
        estimate = starved_limit(state.estimate, window, limit_min=self.limit_min)
        if estimate == state.estimate and state.probe is None:
            return state
        return replace(
            state, limit=int(estimate), estimate=estimate, probe=None, changed_us=window.ended_us
        )

    # --- the limit ------------------------------------------------------------------------------

    def _stepped(self, state: GradientState, window: Window) -> GradientState:
        estimate = state.estimate
        headroom = sqrt(estimate)
        dropped = window.dropped / (window.samples + window.dropped)
        gradient, weight = self._gradient(state, window)
        if dropped:
            gradient = min(gradient, 1.0) * max(1 - DROP_WEIGHT * dropped, 0.0)
            weight = min(weight, self.smoothing)
        target = estimate * gradient + headroom
        target = min(target, max(estimate, window.in_flight_max + headroom))
        target = max(target, estimate * (KEPT_MIN_DROPPED if dropped else KEPT_MIN))
        estimate += (target - estimate) * weight
        estimate = max(float(self.limit_min), min(float(self.limit_max), estimate))
        return replace(
            state,
            limit=int(estimate),
            estimate=estimate,
            gradient=gradient,
            changed_us=window.ended_us,
            highest=max(state.highest, estimate),
        )

    def _gradient(self, state: GradientState, window: Window) -> tuple[float, float]:
        """The gradient, from exp(LOG_GRADIENT_MIN) to the tolerance, and the weight of it."""
        if window.samples < 1:
            return 1.0, self.smoothing
        error = window.log_error
        room = log(self.tolerance * state.baseline_us / window.typical_us)
        if room < 0:
            room = min(max(room + NOISE * error, LOG_GRADIENT_MIN), 0.0)
        most = log(self.tolerance)
        if room >= most - NEAR:  # as fast as unloaded: no noise says so
            return exp(min(room, most)), 1.0
        return exp(room), self.smoothing / (1 + (error / ERROR_HALF) ** 2)

    # --- the baseline ---------------------------------------------------------------------------

    def _with_baseline(self, state: GradientState, window: Window) -> GradientState:
        """Down at once where it is surely lower, and slowly either way where it is near.

        Up by more only without a load: otherwise it would follow the queue.
        """
        typical_us, baseline_us = window.typical_us, state.baseline_us
        if baseline_us == 0:
            return replace(state, baseline_us=typical_us)
        is_unloaded = window.in_flight_max <= max(self._probe_limit_min, state.limit // 4)
        ratio = typical_us / baseline_us
        ratio_max = ratio * exp(2 * window.log_error)
        is_sure, due_us = state.is_sure, state.probe_due_us
        if is_unloaded:
            share = 0.1 if ratio_max >= 1 - NEAR else 0.5
            is_sure = True
        elif ratio_max < 1 - NEAR:
            # Measured under load: the app became faster, or was in a queue when this was read.
            share = 0.5 if ratio_max >= 0.7 else 1.0
            is_sure, due_us = False, min(due_us, self._soon_us(window, since_us=window.ended_us))
        elif ratio <= 1 + NEAR:
            share = 0.1
        else:
            return state
        if is_sure:
            due_us = self._later_us(window)
        baseline_us += (typical_us - baseline_us) * share
        return replace(state, baseline_us=baseline_us, is_sure=is_sure, probe_due_us=due_us)

    # --- probes ---------------------------------------------------------------------------------

    @property
    def _probe_limit_min(self) -> int:
        return max(self.probe_limit, self.limit_min)

    def _soon_us(self, window: Window, *, since_us: int) -> int:
        return since_us + int(max(PROBE_EARLY_US, PROBE_EARLY_LATENCIES * window.mean_us))

    def _later_us(self, window: Window) -> int:
        wait_us = max(self.probe_interval_us, PROBE_LATENCIES * window.mean_us)
        return window.ended_us + int(wait_us * (1 + self.jitter / 4))

    def _is_probe_due(self, state: GradientState, window: Window) -> bool:
        if window.in_flight_max <= self._probe_limit_min:
            return False  # it is as low as a probe would make it
        if state.is_sure and window.typical_us <= state.baseline_us * (1 + NEAR):
            return False
        if window.ended_us >= state.probe_due_us:
            return True
        if state.estimate > state.highest * FELL:
            return False
        return window.ended_us >= self._soon_us(window, since_us=state.probed_us)

    def _lowered(self, state: GradientState, window: Window, *, rate: float) -> GradientState:
        wait_us = min(max(2.0 * self.window_us_max, 8 * window.mean_us), PROBE_US_MAX)
        return replace(
            state,
            limit=min(max(state.limit // 2, self._probe_limit_min), state.limit),
            probe=Probe(gives_up_us=window.ended_us + int(wait_us), rate=rate),
        )

    def _after_probing(self, state: GradientState, probe: Probe, window: Window) -> GradientState:
        now_us = window.ended_us
        if window.samples > 0 and window.in_flight_max <= state.limit:
            probe = replace(
                probe,
                began_us=probe.began_us or max(window.started_us, 1),
                samples=probe.samples + window.samples,
                log_sum=probe.log_sum + window.samples * log(window.typical_us),
            )
            state = replace(state, probe=probe)
        lasted_us = now_us - probe.began_us if probe.began_us else 0
        is_enough = lasted_us >= 4 * window.mean_us and (
            probe.samples >= PROBE_SAMPLES or self._do_agree(probe, window)
        )
        if not is_enough and now_us < probe.gives_up_us:
            return state
        if not probe.samples:
            return self._restored(state, window, is_sure=state.is_sure)
        state = replace(state, baseline_us=exp(probe.log_sum / probe.samples))
        rate = probe.samples / max(lasted_us, 1)
        if is_enough and rate >= HELD * probe.rate:
            # This much was enough, so twice as much is plenty, whatever the estimate was.
            estimate = max(min(state.estimate, 2.0 * state.limit), float(self.limit_min))
            state = replace(state, estimate=estimate)
            if state.limit > self._probe_limit_min:
                return self._lowered(state, window, rate=probe.rate)
        return self._restored(state, window, is_sure=True)

    def _do_agree(self, probe: Probe, window: Window) -> bool:
        is_known = window.latency_log_square_sum > 0
        return is_known and probe.samples >= self.samples_min and window.log_error <= AGREED_ERROR

    def _restored(self, state: GradientState, window: Window, *, is_sure: bool) -> GradientState:
        return replace(
            state,
            limit=int(state.estimate),
            is_sure=is_sure,
            probe=None,
            probe_due_us=self._later_us(window),
            probed_us=max(window.ended_us, 1),
            highest=state.estimate,
            changed_us=window.ended_us,
        )
