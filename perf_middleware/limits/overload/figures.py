"""What the overload level has counted, and its families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge
from perf_middleware.limits.overload.level import LEVEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from perf_middleware.limits.overload.level import Signal

US_PER_S: Final = 1_000_000
_LEVEL_LABELS: Final = tuple(LabelSet([("level", name)]) for name in LEVEL_NAMES)


class LevelCounts:
    """Time at each measured level, and changes to it."""

    __slots__ = ("at_level_us", "changes")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.at_level_us = [0] * len(LEVEL_NAMES)
        self.changes = [0] * len(LEVEL_NAMES)

    def families(
        self,
        *,
        level: int,
        measured: int,
        values: Mapping[str, float],
        signals: Sequence[Signal],
        failures: Mapping[str, int],
    ) -> Iterable[Family]:
        """The families for a scrape; `values` are the signals' that are known now."""
        labels = {signal.name: LabelSet([("signal", signal.name)]) for signal in signals}
        known = [signal for signal in signals if signal.name in values]
        yield gauge(
            "perf_overload_level",
            "The overload level that layers obey: 0 normal, 1 busy, 2 overloaded.",
            [Value(NO_LABELS, level)],
            across="max",
        )
        yield gauge(
            "perf_overload_measured_level",
            "The overload level that the signals say, also in a dry run.",
            [Value(NO_LABELS, measured)],
            across="max",
        )
        yield gauge(
            "perf_overload_signal",
            "What each signal measures, smoothed, in its own unit.",
            [Value(labels[signal.name], values[signal.name]) for signal in known],
            across="max",
        )
        yield gauge(
            "perf_overload_signal_strain",
            "Each signal as a share of its highest bound.",
            [Value(labels[signal.name], signal.strain(values[signal.name])) for signal in known],
            across="max",
        )
        yield counter(
            "perf_overload_signal_failures",
            "Readings of a signal that raised.",
            [Value(labels[name], count) for name, count in failures.items()],
        )
        yield counter(
            "perf_overload_changes",
            "Changes of the measured overload level, by the level they led to.",
            [Value(_LEVEL_LABELS[at], count) for at, count in enumerate(self.changes)],
        )
        yield counter(
            "perf_overload_seconds",
            "How long each overload level was measured.",
            [Value(_LEVEL_LABELS[at], us / US_PER_S) for at, us in enumerate(self.at_level_us)],
            unit="seconds",
        )
