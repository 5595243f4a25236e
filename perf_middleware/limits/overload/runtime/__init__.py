"""`perf.limits.overload`: the one overload level of an app, sampled beside its requests.

    signals (callables)  ->  level.py, a fold  ->  `.level`, which layers read as a plain number

Cost: four samples a second; where one of another signal means more than the level, the next comes
after a fifth of that time, so that a peak and a state are told apart soon.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import anyio

from perf_middleware.clock import monotonic_us
from perf_middleware.events import OverloadChanged
from perf_middleware.limits.overload.figures import LevelCounts
from perf_middleware.limits.overload.level import (
    BUSY,
    LEVEL_NAMES,
    NORMAL,
    OVERLOADED,
    LevelState,
    Signal,
    after,
    is_rising,
)
from perf_middleware.limits.overload.runtime.lag import LoopLag
from perf_middleware.limits.overload.runtime.watched import WatchedSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.clock import Clock
    from perf_middleware.events import Events
    from perf_middleware.families import Family
    from perf_middleware.limits.overload.level import Smoothing
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.limits")

SIGNALS_MAX: Final = 32
RISING_SHARE: Final = 5  # a sample that means more is asked again after a fifth of the interval
LOOP_LAG: Final = "loop_lag"
US_PER_S: Final = 1_000_000


class OverloadLevel:
    """Measures how loaded this process is; `level` is 0 normal, 1 busy, 2 overloaded.

    `level` is what layers obey, `measured` what the signals say: they differ while an operator
    forces one, and with `obey` false, which is a dry run.  Without a lifespan nobody measures, and
    both stay normal.  On the loop only, but for `lag_s`.
    """

    name = "overload level"
    required = False

    def __init__(
        self,
        *,
        lag_busy_s: float = 0.1,
        lag_overloaded_s: float | None = 0.3,
        interval_s: float = 0.25,
        fall_s: float = 2.5,
        obey: bool = True,
        events: Events | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        if interval_s <= 0 or fall_s <= 0:
            raise ValueError("interval_s and fall_s must be > 0")
        self.level = NORMAL
        self.obey = obey
        self.events = events
        self._interval_s = interval_s
        self._fall_us = round(fall_s * US_PER_S)
        self._clock = clock
        self._watched: dict[str, WatchedSignal] = {}
        self._signals: tuple[Signal, ...] = ()
        self._state = LevelState()
        self._forced: tuple[int, int] | None = None  # the level, and until when
        self._lag = LoopLag(doubted_s=lag_busy_s, clock=clock)
        self._scope: anyio.CancelScope | None = None
        self._seen_us: int | None = None
        self.counts = LevelCounts()
        self.add_signal(
            LOOP_LAG, self.lag_s, busy_at=lag_busy_s, overloaded_at=lag_overloaded_s,
            smoothing="none",
        )  # fmt: skip

    @property
    def measured(self) -> int:
        """What the signals say, whether it is obeyed or not."""
        return self._state.level

    @property
    def level_name(self) -> str:
        return LEVEL_NAMES[self.level]

    @property
    def reason(self) -> str:
        """The signal that holds the measured level; empty when that is normal."""
        return self._state.reason

    @property
    def since_us(self) -> int:
        """Since when the measured level holds, on the clock of this object."""
        return self._state.since_us

    @property
    def is_measuring(self) -> bool:
        return self._scope is not None

    def lag_s(self) -> float:
        """Seconds by which the loop's turns are late: the newest that was seen, or is by now.

        From any thread: while the loop is blocked it grows.
        """
        return self._lag.read_s()

    @property
    def is_starved(self) -> bool:
        """Whether threads of this process keep the loop from its turns, and layers obey.

        A loop that is late for its own work is not: fewer in flight would not help it.
        """
        return self._lag.is_starved and self.obey and self._forced is None

    def add_signal(
        self,
        name: str,
        read: Callable[[], float | None],
        *,
        busy_at: float,
        overloaded_at: float | None = None,
        relief: float = 0.7,
        smoothing: Smoothing = "least",
    ) -> None:
        """Ask `read()` at each sample, on the event loop: be quick, do not wait.

        None is "not known now".  `overloaded_at` None: alone it never says more than busy.

        Raises ValueError for a name that is taken, bounds that contradict each other, too many.
        """
        if name in self._watched:
            raise ValueError(f"there is a signal named {name!r} already")
        if len(self._watched) >= SIGNALS_MAX:
            raise ValueError(f"more than {SIGNALS_MAX} signals")
        signal = Signal(
            name=name, busy_at=busy_at, overloaded_at=overloaded_at, relief=relief,
            smoothing=smoothing,
        )  # fmt: skip
        self._watched[name] = WatchedSignal(signal, read)
        self._signals = tuple(watched.signal for watched in self._watched.values())

    def remove_signal(self, name: str) -> None:
        """Ask it no more; what is not there does no harm."""
        self._watched.pop(name, None)
        self._signals = tuple(watched.signal for watched in self._watched.values())

    def force(self, level: int, seconds: float) -> None:
        """Let layers see `level` for so long, whatever is measured; also in a dry run.

        Raises ValueError for no such level or time, RuntimeError where nobody measures, and so
        nobody would end it.
        """
        if level not in (NORMAL, BUSY, OVERLOADED) or not 0 < seconds <= 86_400:
            raise ValueError(f"a level from 0 to 2, up to a day: {level!r}, {seconds!r}")
        if self._scope is None:
            raise RuntimeError("the overload level is not measured now: its lifespan does not run")
        self._forced = (level, self._clock() + round(seconds * US_PER_S))
        logger.warning("overload level: %s for %g s, forced", LEVEL_NAMES[level], seconds)
        self._show()

    def release(self) -> None:
        """End what was forced."""
        self._forced = None
        self._show()

    async def open(self, background: Background) -> None:
        """Start to measure; opening twice starts anew."""
        await self.close()
        scope = self._scope = anyio.CancelScope()
        now_us = self._seen_us = self._clock()
        self._state = LevelState(since_us=now_us)

        async def run() -> None:
            try:
                with scope:
                    await self._sample_always()
            finally:
                if self._scope is scope:  # it failed or was cancelled: what it knew grows old
                    self._forget()

        background.start("overload level", run)

    def note_started(self) -> None:
        """The app has started: what its start has kept the loop from doing was no load."""
        if self._scope is None:
            return
        now_us = self._clock()
        self._account(now_us)
        self._lag.forget()
        before, self._state = self._state, LevelState(since_us=now_us)
        self._show()
        if before.level:
            self.counts.changes[NORMAL] += 1
            self._tell(before, self._state)

    async def close(self) -> None:
        """Measure no more; the level is normal again."""
        scope = self._scope
        self._forget()
        if scope is not None:
            scope.cancel()

    def _forget(self) -> None:
        if self._seen_us is not None:
            self._account(self._clock())
        self._scope = self._seen_us = self._forced = None
        self._lag.forget()
        self._state = LevelState()
        self.level = NORMAL

    async def _sample_always(self) -> None:
        interval_s = self._interval_s
        while True:
            await self._lag.measure(interval_s)
            self.sample(self._clock())
            is_rising_now = is_rising(self._state, self._signals)
            interval_s = self._interval_s / RISING_SHARE if is_rising_now else self._interval_s

    def sample(self, now_us: int) -> None:
        """Read every signal once and judge; the sampler's step."""
        self._account(now_us)
        before = self._state
        state = self._state = after(
            before,
            {name: watched.sample() for name, watched in self._watched.items()},
            now_us=now_us,
            signals=self._signals,
            fall_us=self._fall_us,
        )
        if self._forced is not None and now_us >= self._forced[1]:
            self._forced = None
        self._show()
        if state.level != before.level:
            self.counts.changes[state.level] += 1
            self._tell(before, state)

    def _account(self, now_us: int) -> None:
        """Count the time that is over for the level that was measured in it."""
        if self._seen_us is not None:
            self.counts.at_level_us[self._state.level] += max(0, now_us - self._seen_us)
            self._seen_us = now_us

    def _show(self) -> None:
        """Let the layers see what is forced or measured."""
        forced = self._forced
        shown = forced[0] if forced is not None else self._state.level if self.obey else NORMAL
        before, self.level = self.level, shown
        if forced is not None and before != shown and self.events is not None:
            self.events.publish(OverloadChanged(level=shown, before=before, forced=True))

    def _tell(self, before: LevelState, state: LevelState) -> None:
        """Log a change of the measured level, and publish it."""
        signal, value, bound = self._cause(state)
        logger.log(
            logging.WARNING if state.level == OVERLOADED else logging.INFO,
            "overload level: %s, was %s%s%s",
            LEVEL_NAMES[state.level],
            LEVEL_NAMES[before.level],
            f" ({signal} {value:.3g}, {LEVEL_NAMES[state.level]} from {bound:.3g})"
            if value is not None and bound is not None
            else "",
            "" if self.obey else "; dry run, nothing acts on it",
        )
        if self.events is not None:
            self.events.publish(
                OverloadChanged(
                    level=state.level,
                    before=before.level,
                    reason=signal,
                    value=value,
                    bound=bound,
                    obeyed=self.obey,
                )
            )

    def _cause(self, state: LevelState) -> tuple[str, float | None, float | None]:
        """The signal behind a level, its value, and the bound from which it means that level."""
        watched = self._watched.get(state.reason)
        seen = state.smoothed.get(state.reason)
        if watched is None or seen is None:
            return state.reason, None, None
        signal = watched.signal
        bound = signal.overloaded_at if state.level == OVERLOADED else signal.busy_at
        return signal.name, seen.value, bound

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        if self._seen_us is not None:
            self._account(self._clock())
        return self.counts.families(
            level=self.level,
            measured=self._state.level,
            values=self._values(),
            signals=self._signals,
            failures={name: watched.failures for name, watched in self._watched.items()},
        )

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.counts.reset()
        for watched in self._watched.values():
            watched.failures = 0

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        now_us = self._clock()
        state = self._state
        return {
            "level": LEVEL_NAMES[self.level],
            "measured": LEVEL_NAMES[state.level],
            "reason": state.reason,
            "since_s": round((now_us - state.since_us) / US_PER_S, 3) if state.since_us else None,
            "forced": self._forced is not None,
            "dry_run": not self.obey,
            "measuring": self.is_measuring,
            "signals": {
                name: {
                    "value": round(value, 4),
                    "busy_at": self._watched[name].signal.busy_at,
                    "overloaded_at": self._watched[name].signal.overloaded_at,
                }
                for name, value in self._values().items()
            },
        }

    def _values(self) -> dict[str, float]:
        """What is known of each signal; the lag as it is at this moment."""
        values = {
            name: seen.value for name, seen in self._state.smoothed.items() if name in self._watched
        }
        if self._scope is not None:
            values[LOOP_LAG] = max(values.get(LOOP_LAG, 0.0), self.lag_s())
        return values
