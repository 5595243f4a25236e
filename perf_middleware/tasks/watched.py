"""Batched functions and workers whose figures are offered together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from perf_middleware.tasks.batching.figures import BatchReading, batching_families
from perf_middleware.tasks.concurrency.figures import WorkersReading, worker_families

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.families import Family


class Readable(Protocol):
    """A batched function, worker threads, worker processes."""

    def reading(self) -> BatchReading | WorkersReading:
        """Its figures by now."""


class Watched:
    """`watched.add(load_user, threads)`; `families()` offers the figures of all of them."""

    def __init__(self, *parts: Readable) -> None:
        self._parts: list[Readable] = []
        self.add(*parts)

    def add(self, *parts: Readable) -> None:
        """Offer the figures of `parts` too.  Raises ValueError for a name that is taken."""
        for part in parts:
            reading = part.reading()
            if any(
                type(other) is type(reading) and other.name == reading.name
                for other in self._readings()
            ):
                raise ValueError(f"there are figures of {reading.name} already: give it a name=")
            self._parts.append(part)

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape; none of a kind that is not there."""
        readings = self._readings()
        batches = [each for each in readings if isinstance(each, BatchReading)]
        workers = [each for each in readings if isinstance(each, WorkersReading)]
        if batches:
            yield from batching_families(batches)
        if workers:
            yield from worker_families(workers)

    def reset_counts(self) -> None:
        """Every count back to zero."""
        for reading in self._readings():
            reading.counts.reset()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture, by name."""
        return {
            "batching": {
                each.name: {
                    "waiting": each.waiting,
                    "in_flight": each.in_flight,
                    "asks": each.counts.asks,
                    "keys": each.counts.keys,
                    "calls": each.counts.calls,
                }
                for each in self._readings()
                if isinstance(each, BatchReading)
            },
            "workers": {
                each.name: {
                    "limit": each.limit,
                    "in_progress": each.in_progress,
                    "waiting": each.waiting,
                    "calls": each.counts.calls,
                }
                for each in self._readings()
                if isinstance(each, WorkersReading)
            },
        }

    def _readings(self) -> list[BatchReading | WorkersReading]:
        return [part.reading() for part in self._parts]
