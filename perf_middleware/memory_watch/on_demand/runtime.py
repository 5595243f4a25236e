"""`MemoryInspection`: look at the memory of this process now, and compare with before.

Every method but `trace_async` blocks its thread and reads all objects of the process: from code of
an event loop, `await anyio.to_thread.run_sync(inspect.snapshot)`.  Per million objects, a snapshot
takes some 280 ms, of which no other thread runs for 50 at a time (CPython 3.11, shared two-core
machine); a full collection of garbage holds all threads for its whole length, 80 to 280 ms there.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.errors import TracingBusyError
from perf_middleware.memory_watch.on_demand.pictures import (
    US_PER_S,
    Collected,
    Comparison,
    Picture,
    changes,
)
from perf_middleware.memory_watch.tracing.counts import (
    GrownContainer,
    ObjectCounts,
    counted,
    grown_containers,
    growth,
)
from perf_middleware.memory_watch.tracing.drivers import objects
from perf_middleware.memory_watch.tracing.runtime import AllocationTracer, named_containers
from perf_middleware.resident import UNKNOWN, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.memory_watch.on_demand.pictures import Readings
    from perf_middleware.memory_watch.tracing.sites import TraceReport

CONTAINERS_TOP: Final = 5
TYPES_TOP: Final = 20


class UnknownPictureError(LookupError):
    """No snapshot has this id: it was never made, is too old, or is another worker's."""

    def __init__(self, picture: str, kept: tuple[str, ...]) -> None:
        super().__init__(picture, kept)
        self.picture = picture
        self.kept = kept

    def __str__(self) -> str:
        kept = ", ".join(self.kept) or "none"
        return (
            f"no snapshot {self.picture} is kept in this process ({os.getpid()}); kept are: {kept}"
        )


class MemoryInspection:
    """Snapshots, comparisons, garbage, object counts and traces of this process, one at a time.

    At most `snapshots_max` snapshots are kept, each for `snapshot_s_max`; a further one takes the
    place of the oldest.  `readings()` gives numbers by name with each snapshot.
    """

    def __init__(
        self,
        *,
        tracer: AllocationTracer | None = None,
        readings: Callable[[], Readings] | None = None,
        snapshots_max: int = 4,
        snapshot_s_max: float = 3_600.0,
        clock: Clock = monotonic_us,
    ) -> None:
        if snapshots_max < 2:
            raise ValueError(f"snapshots_max must be >= 2, to compare them: {snapshots_max}")
        if snapshot_s_max <= 0:
            raise ValueError(f"snapshot_s_max must be > 0: {snapshot_s_max}")
        self.tracer = AllocationTracer(clock=clock) if tracer is None else tracer
        self._readings = process_readings if readings is None else readings
        self._snapshots_max = snapshots_max
        self._snapshot_us_max = round(snapshot_s_max * US_PER_S)
        self._clock = clock
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._made = 0
        self._busy = threading.Lock()
        self._keeping = threading.Lock()

    def snapshot(self, *, trace: TraceReport | None = None) -> str:
        """Keep a picture of this moment and give its id; `trace` is kept with it.

        Raises TracingBusyError while another look is taken.
        """
        with self._alone():
            self._made += 1
            picture = Picture(
                # With the process: an operator's next request may reach another worker.
                id=f"{os.getpid()}-{self._made}",
                at_us=self._clock(),
                readings=dict(self._readings()),
                objects=counted(objects.count_types()),
                containers=objects.look_at_containers(),
                trace=trace,
            )
        with self._keeping:
            self._forget_old_locked(picture.at_us)
            while len(self._kept) >= self._snapshots_max:
                self._kept.popitem(last=False)
            self._kept[picture.id] = picture
        return picture.id

    def compare(self, a: str, b: str, *, top: int = TYPES_TOP) -> Comparison:
        """What changed from snapshot `a` to snapshot `b`.

        Containers are those that grew and are named by who holds them now.  Raises
        UnknownPictureError, and TracingBusyError while another look is taken.
        """
        before, after = self._picture(a), self._picture(b)
        rows = grown_containers(before.containers, after.containers, top=CONTAINERS_TOP)
        with self._alone():
            containers: tuple[GrownContainer, ...] = named_containers(rows)
        return Comparison(
            a=a,
            b=b,
            seconds=(after.at_us - before.at_us) / US_PER_S,
            readings=changes(before.readings, after.readings),
            objects=after.objects.total - before.objects.total,
            types=growth(before.objects, after.objects, top=top),
            containers=containers,
            trace=after.trace,
        )

    def collect(self) -> Collected:
        """Collect all garbage now.

        Raises TracingBusyError while another look is taken.
        """
        with self._alone():
            before = dict(self._readings())
            uncollectable = len(gc.garbage)
            began_us = self._clock()
            found = gc.collect()
            took_us = self._clock() - began_us
            return Collected(
                objects=found,
                uncollectable=len(gc.garbage) - uncollectable,
                seconds=took_us / US_PER_S,
                readings=changes(before, self._readings()),
            )

    def object_counts(self) -> ObjectCounts:
        """How many objects of each type there are; `.top(20)` are the most frequent ones.

        Raises TracingBusyError while another look is taken.
        """
        with self._alone():
            return counted(objects.count_types())

    def trace(self, seconds: float = 5.0, *, frames: int | None = None) -> TraceReport:
        """Which lines memory grew at: AllocationTracer.trace(), which see."""
        return self.tracer.trace(seconds, frames=frames)

    async def trace_async(self, seconds: float = 5.0, *, frames: int | None = None) -> TraceReport:
        """The same from an event loop."""
        return await self.tracer.trace_async(seconds, frames=frames)

    def close(self) -> None:
        """End a running trace and forget the snapshots: for the end of the app."""
        self.tracer.stop()
        with self._keeping:
            self._kept.clear()

    def families(self) -> Iterable[Family]:
        """The figures of the traces."""
        return self.tracer.families()

    def reset_counts(self) -> None:
        """Every count back to zero; snapshots stay."""
        self.tracer.reset_counts()

    def status(self) -> dict[str, Any]:
        """The readings now, which snapshots are kept, and what the last trace found."""
        now_us = self._clock()
        with self._keeping:
            self._forget_old_locked(now_us)
            kept = [
                {"id": picture.id, "age_s": round((now_us - picture.at_us) / US_PER_S, 1)}
                for picture in self._kept.values()
            ]
        return {
            "pid": os.getpid(),
            "readings": dict(self._readings()),
            "snapshots": kept,
            "trace": self.tracer.status(),
        }

    def _picture(self, picture: str) -> Picture:
        with self._keeping:
            self._forget_old_locked(self._clock())
            found = self._kept.get(picture)
            if found is None:
                raise UnknownPictureError(picture, tuple(self._kept))
            return found

    def _forget_old_locked(self, now_us: int) -> None:
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if now_us - oldest.at_us <= self._snapshot_us_max:
                return
            self._kept.popitem(last=False)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise TracingBusyError
        try:
            yield
        finally:
            self._busy.release()


def process_readings() -> dict[str, float | None]:
    """What this process tells of its memory without asking the system much."""
    resident = resident_bytes()
    return {
        "rss_bytes": None if resident == UNKNOWN else resident,
        "allocated_blocks": sys.getallocatedblocks(),
        "gc_collections": sum(generation["collections"] for generation in gc.get_stats()),
        "gc_frozen_objects": gc.get_freeze_count(),
    }
