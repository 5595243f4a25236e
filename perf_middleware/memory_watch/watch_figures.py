"""What the memory watch has counted of its steps and cleanups, and the families of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge
from perf_middleware.memory_watch.cleanup import OUTCOMES
from perf_middleware.memory_watch.ladder import STEP_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.memory_watch.cleanup import CleanupReport, Freed, Outcome

US_PER_S: Final = 1_000_000
_STEP_LABELS: Final = tuple(LabelSet([("step", name)]) for name in STEP_NAMES)


class WatchCounts:
    """Looks, time at each step, changes, and what cleanups have brought."""

    __slots__ = (
        "at_step_us", "by_cleaner", "changes", "cleanup_us", "cleanups", "collected", "freed_bytes",
        "look_failures", "look_us", "looks", "observer_failures", "trimmed_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.looks = 0
        self.look_us = 0
        self.look_failures = 0
        self.observer_failures = 0
        self.at_step_us = [0] * len(STEP_NAMES)
        self.changes = [0] * len(STEP_NAMES)
        self.cleanups = [0] * len(STEP_NAMES)
        self.cleanup_us = 0
        self.collected = 0
        self.trimmed_bytes = 0
        self.freed_bytes: dict[str, int] = {}
        self.by_cleaner: dict[tuple[str, Outcome], int] = {}

    def forget(self, name: str) -> None:
        """Nothing of this callback: it is there no more."""
        self.freed_bytes.pop(name, None)
        for outcome in OUTCOMES:
            self.by_cleaner.pop((name, outcome), None)

    def note_cleanup(self, report: CleanupReport) -> None:
        """Count one cleanup and what became of each callback."""
        self.cleanups[report.step] += 1
        self.cleanup_us += report.took_us
        self.collected += report.collected or 0
        self.trimmed_bytes += report.trimmed_bytes or 0
        for freed in report.freed:
            self.note_outcome(freed)
            if freed.freed_bytes is not None:
                known = self.freed_bytes.get(freed.name, 0)
                self.freed_bytes[freed.name] = known + freed.freed_bytes

    def note_outcome(self, freed: Freed) -> None:
        """Count what became of one callback."""
        key = (freed.name, freed.outcome)
        self.by_cleaner[key] = self.by_cleaner.get(key, 0) + 1

    def families(self, *, step: int) -> Iterable[Family]:
        """The families for a scrape."""
        yield gauge(
            "perf_memory_step",
            "Step of the memory watch: 0 normal, 1 soft, 2 hard, 3 critical.",
            [Value(NO_LABELS, step)],
            across="max",
        )
        yield counter(
            "perf_memory_step_changes",
            "Changes of the step, by the step they led to.",
            [Value(_STEP_LABELS[at], count) for at, count in enumerate(self.changes)],
        )
        yield counter(
            "perf_memory_step_seconds",
            "How long each step held.",
            [Value(_STEP_LABELS[at], us / US_PER_S) for at, us in enumerate(self.at_step_us)],
            unit="seconds",
        )
        yield counter(
            "perf_memory_cleanups",
            "Cleanups, by the step they ran at.",
            [Value(_STEP_LABELS[at], count) for at, count in enumerate(self.cleanups)],
        )
        yield counter(
            "perf_memory_cleanup_seconds",
            "How long cleanups took, all together.",
            [Value(NO_LABELS, self.cleanup_us / US_PER_S)],
            unit="seconds",
        )
        yield counter(
            "perf_memory_cleanup_callbacks",
            "Calls of each cleanup callback, by what became of them.",
            [
                Value(LabelSet([("cleanup", name), ("outcome", outcome)]), count)
                for (name, outcome), count in list(self.by_cleaner.items())
            ],
        )
        yield counter(
            "perf_memory_cleanup_freed_bytes",
            "Bytes that each cleanup callback says it has freed.",
            [
                Value(LabelSet([("cleanup", name)]), freed)
                for name, freed in list(self.freed_bytes.items())
            ],
            unit="bytes",
        )
        yield counter(
            "perf_memory_cleanup_collected_objects",
            "Objects that the garbage collector found in cleanups.",
            [Value(NO_LABELS, self.collected)],
        )
        yield counter(
            "perf_memory_cleanup_trimmed_bytes",
            "Bytes that malloc_trim gave back to the system in cleanups.",
            [Value(NO_LABELS, self.trimmed_bytes)],
            unit="bytes",
        )
        yield counter(
            "perf_memory_looks", "Looks of the memory watch.", [Value(NO_LABELS, self.looks)]
        )
        yield counter(
            "perf_memory_look_seconds",
            "Processor time of the looks.",
            [Value(NO_LABELS, self.look_us / US_PER_S)],
            unit="seconds",
        )
        yield counter(
            "perf_memory_look_failures",
            "Looks that failed.",
            [Value(NO_LABELS, self.look_failures)],
        )
        yield counter(
            "perf_memory_observer_failures",
            "Calls of observers of the memory watch that raised.",
            [Value(NO_LABELS, self.observer_failures)],
        )
