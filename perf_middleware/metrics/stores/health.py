"""The exchange's own figures: what it did, what failed, and what is failing now."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from perf_middleware.families import NO_LABELS, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.families import Family

REASONS = ("directory", "write", "read", "corrupt", "conflict", "collect")

_log = logging.getLogger("perf_middleware.metrics")


class ExchangeHealth:
    """Plain counters, and the troubles of the moment by reason; each is logged when it changes."""

    def __init__(self) -> None:
        self.troubles: dict[str, str] = {}
        self.errors = dict.fromkeys(REASONS, 0)
        self.published = 0
        self.published_bytes = 0
        self.busy_ns = 0

    def failed(self, reason: str, error: Exception | str) -> None:
        """Count a failure; log it if it is news."""
        self.errors[reason] += 1
        if reason not in self.troubles:
            self.troubles[reason] = f"{reason}: {error}"
            _log.warning(
                "worker exchange: %s: %s; figures of workers may be missing", reason, error
            )

    def worked(self, reason: str) -> None:
        """Forget the trouble; log that it is over if there was one."""
        if self.troubles.pop(reason, None) is not None:
            _log.info("worker exchange: %s works again", reason)

    def families(self) -> Iterator[Family]:
        """These figures, for the collector."""
        yield gauge("perf_workers", "Worker processes in this answer.", [Value(NO_LABELS, 1)])
        yield counter(
            "perf_worker_snapshot_errors",
            "Snapshots of workers that could not be written, read or added.",
            [Value(LabelSet([("reason", r)]), count) for r, count in self.errors.items()],
        )
        yield counter(
            "perf_worker_snapshots", "Snapshots published.", [Value(NO_LABELS, self.published)]
        )
        yield counter(
            "perf_worker_snapshot_seconds",
            "Time spent on collecting and encoding snapshots.",
            [Value(NO_LABELS, self.busy_ns / 1e9)],
            unit="seconds",
        )
        yield gauge(
            "perf_worker_snapshot_bytes",
            "Size of the largest snapshot.",
            [Value(NO_LABELS, self.published_bytes)],
            unit="bytes",
            across="max",
        )
        yield from folded_workers(0)


def folded_workers(count: int) -> Iterator[Family]:
    """How many dead workers' figures were kept.

    Counted among the figures of the dead, where it changes in the same step as they do; the living
    say zero, so that the figure is there before the first worker dies.
    """
    yield counter(
        "perf_workers_folded", "Dead workers whose figures were kept.", [Value(NO_LABELS, count)]
    )
