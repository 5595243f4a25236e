"""Pauses of the garbage collector, by generation.

Cost: 1.7 us a collection, measured; the smallest real collection takes about as long.

What a generation means differs: 0 is the youngest and 2 the full heap; where the collector is
incremental (CPython 3.14, until it was taken back) 1 is one step over the old objects.  The number
is exported as the interpreter gives it.
"""

from __future__ import annotations

import contextlib
import gc
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.families import Family, LabelSet, Value, counter
from perf_middleware.metrics.watching.durations import NS_PER_S, Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.resource import Background

PAUSE_BOUNDS_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
GENERATIONS = 3


class _Generation:
    """What the collections of one generation did."""

    __slots__ = ("collected", "labels", "pauses", "uncollectable")

    def __init__(self, number: int) -> None:
        self.labels = LabelSet([("generation", str(number))])
        self.pauses = Durations(PAUSE_BOUNDS_S)
        self.collected = 0
        self.uncollectable = 0


class GcProbe:
    """Times collections between the interpreter's `start` and `stop` calls of `gc.callbacks`.

    The time of other callbacks that run between ours is part of a pause.  Each probe has its own
    callback, and the collector never runs twice at once, so one start time is enough.
    """

    name = "garbage collector probe"
    required = False

    def __init__(self, *, clock_ns: Callable[[], int] = perf_counter_ns) -> None:
        self._clock_ns = clock_ns
        self._generations = [_Generation(number) for number in range(GENERATIONS)]
        self._started_ns: int | None = None
        self._was_open = False
        self._errors = 0
        # One object, kept: `gc.callbacks` must hold exactly what is taken out again.
        self._callback = self._collecting

    async def open(self, background: Background) -> None:
        """Start timing; opening twice is as once."""
        self._was_open = True
        if self._callback not in gc.callbacks:
            gc.callbacks.append(self._callback)

    async def close(self) -> None:
        """Stop timing; the figures stay."""
        with contextlib.suppress(ValueError):  # someone else has cleared the list
            gc.callbacks.remove(self._callback)
        self._started_ns = None

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        try:
            if phase == "start":
                self._started_ns = self._clock_ns()
                return
            started_ns, self._started_ns = self._started_ns, None
            if started_ns is None:
                return  # opened in the middle of a collection
            # A number that no interpreter has today counts with the oldest generation.
            generation = self._generations[min(max(info["generation"], 0), GENERATIONS - 1)]
            generation.pauses.observe(self._clock_ns() - started_ns)
            generation.collected += info["collected"]
            generation.uncollectable += info["uncollectable"]
        except Exception:  # noqa: BLE001 - it would land in the middle of any line of the app
            self._errors += 1

    def families(self) -> Iterable[Family]:
        """Pauses and collected objects since the probe was made; none if it never was open."""
        if not self._was_open and not any(one.pauses.count for one in self._generations):
            return
        generations = self._generations
        yield Family(
            name="perf_gc_pause_seconds",
            kind="histogram",
            help="How long a garbage collection held the process.",
            points=[one.pauses.distribution(one.labels) for one in generations],
            unit="seconds",
            bounds=PAUSE_BOUNDS_S,
        )
        yield counter(
            "perf_gc_collected",
            "Objects in cycles that the garbage collector freed.",
            [Value(one.labels, one.collected) for one in generations],
        )
        yield counter(
            "perf_gc_uncollectable",
            "Objects that the garbage collector found in cycles and could not free.",
            [Value(one.labels, one.uncollectable) for one in generations],
        )

    def status(self) -> dict[str, Any]:
        """Collections of each generation, the time they took and the longest, seconds."""
        return {
            "running": self._callback in gc.callbacks,
            "collections": [one.pauses.count for one in self._generations],
            "pause_s": sum(one.pauses.sum_ns for one in self._generations) / NS_PER_S,
            "longest_s": max(one.pauses.longest_ns for one in self._generations) / NS_PER_S,
            "uncollectable": sum(one.uncollectable for one in self._generations),
            "errors": self._errors,
        }
