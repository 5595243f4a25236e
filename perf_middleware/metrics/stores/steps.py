"""The steps of the exchange that take long enough to share the event loop: collect, read, fold.

They run on the event loop in slices below a millisecond.  In a thread the same work would hold
the interpreter for its switch interval, 5 ms, each time another callback wants to run.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from perf_middleware.metrics.stores.health import folded_workers
from perf_middleware.metrics.workers.frames import SnapshotError, frames_of
from perf_middleware.metrics.workers.merge import Ledger
from perf_middleware.metrics.workers.snapshot import FOLDED_MAX, decode, encode_frame, encode_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.families import Collector
    from perf_middleware.metrics.stores.directory import Member, SnapshotDirectory
    from perf_middleware.metrics.stores.health import ExchangeHealth
    from perf_middleware.metrics.workers.frames import Frame
    from perf_middleware.metrics.workers.snapshot import Snapshot

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

    A family whose points cannot be read or do not fit it ends there, which counts.
    """
    families = list(own())
    pacer = Pacer()
    frames, parts, fits = [], [encode_head(epoch=epoch)], True
    for family in families:
        try:
            for frame in frames_of((family,)):
                frames.append(frame)
                parts.append(encode_frame(frame))
                await pacer.pause_if_due()
        except Exception as error:  # noqa: BLE001 - points are made while they are read, by others
            fits = False
            health.failed("collect", error)
    if fits:
        health.worked("collect")
    data = b"".join(parts)
    busy_ns = pacer.stop()
    health.busy_ns += busy_ns
    return frames, data, busy_ns


Decoded: TypeAlias = "Snapshot | SnapshotError | None"


def read_all(directory: SnapshotDirectory) -> tuple[list[tuple[Member, Decoded]], Decoded]:
    """All others and the dead, as `SnapshotDirectory.read`; for a thread.  Raises OSError.

    Checksums of megabytes take milliseconds, and zlib lets go of the interpreter meanwhile.
    """
    members, retired = directory.read()
    return [(member, _decoded(member.data)) for member in members], _decoded(retired)


def read_dead(directory: SnapshotDirectory, names: Iterable[str]) -> list[tuple[Member, Decoded]]:
    """As `SnapshotDirectory.read_dead`; for a thread.  Raises OSError."""
    return [(member, _decoded(member.data)) for member in directory.read_dead(names)]


def read_retired(directory: SnapshotDirectory) -> Decoded:
    """The figures of the dead; for a thread.  Raises OSError."""
    return _decoded(directory.read_retired())


def _decoded(data: bytes) -> Decoded:
    try:
        return decode(data) if data else None
    except SnapshotError as error:
        return error


def accepted(found: Decoded, health: ExchangeHealth) -> Snapshot | None:
    """The snapshot; None where there is none, or none that can be read, which counts."""
    if isinstance(found, SnapshotError):
        health.failed("corrupt", found)
        return None
    return found


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
        retired = accepted(await threads.run(read_retired, directory), health)
        folded = retired.folded if retired else ()
        # First the files that a crash between the two steps of an earlier fold has left: from here
        # on no file has its name in `retired`, so that old names may be forgotten.
        left = tuple(name for name in dead if name in folded)
        await threads.run(directory.remove, (*litter, *left))
        fresh = [name for name in dead if name not in folded][:FOLD_MAX]
        found = await threads.run(read_dead, directory, fresh)
        if not found:
            return True
        epoch = max(epoch, retired.epoch if retired else 0)
        pacer, ledger = Pacer(), Ledger()
        for snapshot in (retired, *(accepted(each, health) for _, each in found)):
            if snapshot is not None and snapshot.epoch >= epoch:
                for frame in await frames_in(snapshot, pacer, health):
                    ledger.add(frame)
                    await pacer.pause_if_due()
        names = tuple(member.name for member, _ in found)
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
