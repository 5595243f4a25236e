"""The steps of the exchange that take long enough to share the event loop: collect, read, fold.

They run on the event loop in slices below a millisecond.  In a thread the same work would hold
the interpreter for its switch interval, 5 ms, each time another callback wants to run.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from perf_middleware.metrics.frames import SnapshotError, frames_of
from perf_middleware.metrics.merge import Ledger
from perf_middleware.metrics.snapshot import FOLDED_MAX, decode, encode_frame, encode_head
from perf_middleware.metrics.stores.health import folded_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.metrics.families import Collector
    from perf_middleware.metrics.frames import Frame
    from perf_middleware.metrics.snapshot import Snapshot
    from perf_middleware.metrics.stores.directory import SnapshotDirectory
    from perf_middleware.metrics.stores.health import ExchangeHealth

    T = TypeVar("T")

SLICE_NS = 700_000  # work between two pauses; the frame that ends it adds some 300 us at most
# A request's way through the loop is a chain of callbacks, and each waits for its turn behind us:
# one checkpoint a slice would make it late by a slice for every link.
CHECKPOINTS = 4
FOLD_MAX = 32  # dead workers in one fold; the next turn takes the rest


class Threads:
    """Threads of the exchange's own: a scrape must not wait behind the app's blocking work."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(2)

    async def run(self, call: Callable[..., T], *args: object) -> T:
        """What `call(*args)` gives in a thread."""
        return await anyio.to_thread.run_sync(call, *args, limiter=self._limiter)


class Pacer:
    """Gives way to the event loop after every SLICE_NS of work, and adds up the work."""

    __slots__ = ("_since_ns", "busy_ns")

    def __init__(self) -> None:
        self.busy_ns = 0
        self._since_ns = time.perf_counter_ns()

    async def pause_if_due(self) -> None:
        """Let others run if a slice is over."""
        if time.perf_counter_ns() - self._since_ns >= SLICE_NS:
            self.stop()
            for _ in range(CHECKPOINTS):
                await anyio.lowlevel.checkpoint()
            self._since_ns = time.perf_counter_ns()

    def stop(self) -> int:
        """All work up to now, nanoseconds."""
        now_ns = time.perf_counter_ns()
        self.busy_ns += now_ns - self._since_ns
        self._since_ns = now_ns
        return self.busy_ns


async def collect(
    own: Collector, *, epoch: int, health: ExchangeHealth
) -> tuple[list[Frame], bytes, int]:
    """The own figures as frames and as a snapshot, and the nanoseconds of work that took.

    A family whose points do not fit it is left out and counted.
    """
    pacer = Pacer()
    frames, parts, fits = [], [encode_head(epoch=epoch)], True
    for family in own():
        try:
            for frame in frames_of((family,)):
                frames.append(frame)
                parts.append(encode_frame(frame))
                await pacer.pause_if_due()
        except ValueError as error:
            fits = False
            health.failed("collect", error)
    if fits:
        health.worked("collect")
    data = b"".join(parts)
    busy_ns = pacer.stop()
    health.busy_ns += busy_ns
    return frames, data, busy_ns


def decoded(data: bytes, health: ExchangeHealth) -> Snapshot | None:
    """The snapshot in `data`; None where there is none, or none that can be read, which counts."""
    try:
        return decode(data) if data else None
    except SnapshotError as error:
        health.failed("corrupt", error)
        return None


async def frames_in(snapshot: Snapshot, pacer: Pacer, health: ExchangeHealth) -> list[Frame]:
    """All frames or none: half of a worker's figures would be worse than nothing."""
    frames = []
    try:
        for frame in snapshot.frames():
            frames.append(frame)
            await pacer.pause_if_due()
    except SnapshotError as error:
        health.failed("corrupt", error)
        return []
    return frames


async def fold(
    directory: SnapshotDirectory,
    dead: tuple[str, ...],
    litter: tuple[str, ...] = (),
    *,
    epoch: int,
    threads: Threads,
    health: ExchangeHealth,
) -> bool:
    """Move figures of dead workers into `retired`; False where another worker is doing so.

    Safe to be cut off after any step (see `directory`).  Raises OSError.
    """
    if not directory.try_lock():
        return False
    try:
        retired = decoded(await threads.run(directory.read_retired), health)
        folded = retired.folded if retired else ()
        # First the files that a crash between the two steps of an earlier fold has left: from here
        # on no file has its name in `retired`, so that old names may be forgotten.
        left = tuple(name for name in dead if name in folded)
        await threads.run(directory.remove, (*litter, *left))
        fresh = [name for name in dead if name not in folded][:FOLD_MAX]
        members = await threads.run(directory.read_dead, fresh)
        if not members:
            return True
        epoch = max(epoch, retired.epoch if retired else 0)
        pacer, ledger = Pacer(), Ledger()
        for snapshot in (retired, *(decoded(member.data, health) for member in members)):
            if snapshot is not None and snapshot.epoch >= epoch:
                for frame in await frames_in(snapshot, pacer, health):
                    ledger.add(frame)
                    await pacer.pause_if_due()
        names = tuple(member.name for member in members)
        for frame in frames_of(folded_workers(len(names))):
            ledger.add(frame)
        parts = [encode_head(epoch=epoch, folded=(*folded, *names)[-FOLDED_MAX:])]
        for frame in ledger.frames():
            parts.append(encode_frame(frame))
            await pacer.pause_if_due()
        await threads.run(directory.replace_retired, b"".join(parts))
        await threads.run(directory.remove, names)
    finally:
        directory.unlock()
    return True
