"""Traces allocations for some seconds and says at which lines memory grew; then tracing is off.

Being traced is dear, which is why it is seconds on demand and never always.  A request of a small
app took 5 to 9 times as long with one frame, 16 with four, 25 with eight (CPython 3.11, shared
two-core machine, in-process).  Over a server, 240 requests a second of 2 ms became 120 of 13 ms
with one frame, and 48 of 48 ms with four: from there on requests wait in line.

A snapshot copies all traces while no other thread runs: 35 to 50 ms for 100,000 of them, 0.4 to
0.6 s for a million, and 20 to 40 ms per 100,000 to add them up, in which others run.  So tracing
ends early once tracemalloc itself has taken `tracing_bytes_max`: 8 MiB are some 150,000 blocks,
and 70 ms.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.families import NO_LABELS, Family, Value, counter, gauge
from perf_middleware.memory_watch.tracing.counts import GrownContainer, grown_containers
from perf_middleware.memory_watch.tracing.sites import TraceReport, growing_sites

if TYPE_CHECKING:
    import tracemalloc
    from collections.abc import Callable, Iterable, Sequence

    from perf_middleware.clock import Clock
    from perf_middleware.memory_watch.tracing.drivers.hold import Hold
    from perf_middleware.memory_watch.tracing.sites import Alive

US_PER_S: Final = 1_000_000
SECONDS_MIN: Final = 0.05
SECONDS_MAX: Final = 60.0
FRAMES_MAX: Final = 25  # of a line in a library, the app's is rarely further away
LOOK_US: Final = 100_000  # how often a running trace looks whether it has to end
CONTAINERS_TOP: Final = 5

STOPPED: Final = "it was stopped"
TURNED_OFF: Final = "other code turned tracemalloc off"
TOO_MUCH: Final = "more was allocated than a snapshot may hold"
MUST_STOP: Final = "the app is overloaded, or short of memory"

logger = logging.getLogger("perf_middleware.memory_watch")


class AllocationTracer:
    """Says which lines of code hold more and more memory: `trace(5)`, never on its own.

    `frames` lines are kept of each allocation, itself and its callers, so that the app's own line
    is found behind a library's; each makes tracing dearer.  `must_stop` ends a trace early, such as
    for an overload.  With `containers` the report also names lists, dicts, sets and deques that
    became longer.
    """

    def __init__(
        self,
        *,
        frames: int = 4,
        sites_max: int = 20,
        tracing_bytes_max: int = 8 << 20,
        own_paths: Sequence[str] = (),
        containers: bool = True,
        must_stop: Callable[[], bool] | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        _check_frames(frames)
        if sites_max < 1 or tracing_bytes_max < 1:
            raise ValueError(f"bounds must be >= 1: {sites_max}, {tracing_bytes_max}")
        self.must_stop = must_stop
        self.last: TraceReport | None = None
        self._frames = frames
        self._sites_max = sites_max
        self._tracing_bytes_max = tracing_bytes_max
        self._own_paths = tuple(own_paths)
        self._containers = containers
        self._clock = clock
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._must_stop_failed = False
        self.reset_counts()

    def trace(self, seconds: float = 5.0, *, frames: int | None = None) -> TraceReport:
        """Trace for `seconds` and report; blocks this thread for that long, and no other.

        `frames` for this once.  Raises TracingBusyError while another trace runs in this process,
        ValueError for what is out of its bounds.  Whatever is raised, tracing is off afterwards.
        """
        run = self._begin(seconds, frames)
        try:
            return self._finish(run)
        finally:
            self._end(run)

    async def trace_async(self, seconds: float = 5.0, *, frames: int | None = None) -> TraceReport:
        """The same from an event loop, in a thread; cancelled, it turns tracing off at once."""
        import anyio
        import anyio.to_thread

        run = self._begin(seconds, frames)
        try:
            # A thread of its own, not one of those that the app's sync endpoints wait for.
            return await anyio.to_thread.run_sync(
                self._finish, run, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        finally:
            self._end(run)

    def stop(self) -> None:
        """End a running trace now; it reports what it has seen.  For the end of the app."""
        with self._lock:
            run = self._run
        if run is not None:
            run.told_to_stop.set()

    @property
    def is_tracing(self) -> bool:
        """Whether a trace of this object runs now."""
        return self._run is not None

    def families(self) -> Iterable[Family]:
        """The figures of all traces so far."""
        yield gauge(
            "perf_memory_tracing",
            "Whether allocations are traced now, which slows everything down.",
            [Value(NO_LABELS, int(self.is_tracing))],
        )
        yield counter(
            "perf_memory_traces", "Traces of allocations.", [Value(NO_LABELS, self._traces)]
        )
        yield counter(
            "perf_memory_tracing_seconds",
            "How long allocations were traced, all together.",
            [Value(NO_LABELS, self._traced_us / US_PER_S)],
            unit="seconds",
        )

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self._traces = 0
        self._traced_us = 0

    def status(self) -> dict[str, Any]:
        """What it does now, and what the last trace found."""
        last = self.last
        return {
            "tracing": self.is_tracing,
            "traces": self._traces,
            "last": None if last is None else str(last).splitlines(),
        }

    def _begin(self, seconds: float, frames: int | None) -> _Run:
        # Here, not above: an app that never traces never imports tracemalloc.
        from perf_middleware.memory_watch.tracing.drivers.hold import PROCESS

        if not SECONDS_MIN <= seconds <= SECONDS_MAX:
            raise ValueError(f"seconds must be {SECONDS_MIN:g} to {SECONDS_MAX:g}: {seconds}")
        if frames is not None:
            _check_frames(frames)
        # Claimed before the first look, and started after it: what that makes is not traced.
        claim = PROCESS.claim_for_trace()
        run = _Run(claim, seconds, self._frames if frames is None else frames)
        with self._lock:
            self._run = run
        return run

    def _end(self, run: _Run) -> None:
        run.told_to_stop.set()
        run.hold.release()
        with self._lock:
            if self._run is run:
                self._run = None

    def _finish(self, run: _Run) -> TraceReport:
        """All of a trace after it was claimed; tracing is off when the sums are made."""
        from perf_middleware.memory_watch.tracing.drivers import objects

        before = objects.look_at_containers() if self._containers else {}
        looks: list[_Look] = []
        try:
            run.hold.start(run.frames)
            began_us = self._clock()
            why = self._watch(run, looks, began_us)
        finally:
            run.hold.release()
        traced_us = self._clock() - began_us
        containers = self._grown(before) if before and why != STOPPED else ()
        with self._lock:
            self._traces += 1
            self._traced_us += traced_us
        report = self._report(run, looks, began_us, traced_us, why, containers)
        if self._run is run:  # nobody waits for it any more where it was cancelled
            self.last = report
        return report

    def _watch(self, run: _Run, looks: list[_Look], began_us: int) -> str:
        """Take the snapshots; why it ended early, or nothing."""
        import tracemalloc

        whole_us = round(run.seconds * US_PER_S)
        why = self._reason_to_end(run)
        try:
            if run.hold.was_on and not why:
                looks.append(self._look())
            for share in (0.5, 1.0):
                if why:
                    break
                why = self._wait(run, began_us + round(whole_us * share))
                if why in ("", MUST_STOP, STOPPED, TOO_MUCH) and run.hold.is_valid:
                    too_large = tracemalloc.get_tracemalloc_memory() > 2 * self._tracing_bytes_max
                    if not too_large:  # one burst between two looks: too large to be copied
                        looks.append(self._look())
        except RuntimeError:  # take_snapshot's word for it
            why = TURNED_OFF
        return why

    def _look(self) -> _Look:
        import tracemalloc

        began_us = self._clock()
        snapshot = tracemalloc.take_snapshot()
        return _Look(began_us, self._clock() - began_us, snapshot)

    def _wait(self, run: _Run, until_us: int) -> str:
        while not (why := self._reason_to_end(run)):
            left_us = until_us - self._clock()
            if left_us <= 0:
                return ""
            run.told_to_stop.wait(min(left_us, LOOK_US) / US_PER_S)
        return why

    def _reason_to_end(self, run: _Run) -> str:
        import tracemalloc

        if run.told_to_stop.is_set():
            return STOPPED
        if not run.hold.is_valid:
            return TURNED_OFF
        if tracemalloc.get_tracemalloc_memory() > self._tracing_bytes_max:
            return TOO_MUCH
        return MUST_STOP if self._is_told_to_stop() else ""

    def _is_told_to_stop(self) -> bool:
        if self.must_stop is None:
            return False
        try:
            return self.must_stop()
        except Exception:
            if not self._must_stop_failed:
                self._must_stop_failed = True
                logger.exception("what may end a trace cannot be asked; tracing goes on without it")
            return False

    def _grown(self, before: dict[int, tuple[str, int]]) -> tuple[GrownContainer, ...]:
        from perf_middleware.memory_watch.tracing.drivers import objects

        rows = grown_containers(before, objects.look_at_containers(), top=CONTAINERS_TOP)
        return named_containers(rows)

    def _report(
        self,
        run: _Run,
        looks: list[_Look],
        began_us: int,
        traced_us: int,
        why: str,
        containers: tuple[GrownContainer, ...],
    ) -> TraceReport:
        from pathlib import Path

        from perf_middleware.code_roots import code_roots

        held_us = max((look.took_us for look in looks), default=0)
        begin: Alive = _alive(looks.pop(0)) if run.hold.was_on and looks else {}
        if not looks:
            return TraceReport(
                seconds=traced_us / US_PER_S, frames=run.frames, held_s=held_us / US_PER_S,
                ended_early=why, was_on=run.hold.was_on, containers=containers,
            )  # fmt: skip
        last = looks[-1]
        middle = looks[0] if len(looks) > 1 else None
        if middle is not None and (last.at_us - middle.at_us) * 5 < middle.at_us - began_us:
            middle = None  # it ended soon after: that is no second half
        split_us = last.at_us if middle is None else middle.at_us
        own_room = Path(__file__).parent.as_posix() + "/"
        sites, grown_bytes, grown_count = growing_sites(
            begin,
            None if middle is None else _alive(middle),
            _alive(last),
            halves_s=((split_us - began_us) / US_PER_S, (last.at_us - split_us) / US_PER_S),
            roots=code_roots(self._own_paths),
            ignored=(own_room, _tracemalloc_file()),
            sites_max=self._sites_max,
        )
        return TraceReport(
            seconds=(last.at_us - began_us) / US_PER_S,
            sites=sites,
            bytes=grown_bytes,
            count=grown_count,
            frames=last.snapshot.traceback_limit,
            held_s=held_us / US_PER_S,
            ended_early=why,
            was_on=run.hold.was_on,
            containers=containers,
        )


def named_containers(
    rows: Iterable[tuple[int, str, int, int]],
) -> tuple[GrownContainer, ...]:
    """The grown containers of grown_containers(), with the names of who holds them now."""
    from perf_middleware.memory_watch.tracing.drivers import objects

    rows = tuple(rows)
    names = objects.name_holders(frozenset(row[0] for row in rows)) if rows else {}
    return tuple(
        GrownContainer(name=names.get(identity, ""), kind=kind, before=before, after=after)
        for identity, kind, before, after in rows
    )


class _Run:
    """One trace from its claim on."""

    __slots__ = ("frames", "hold", "seconds", "told_to_stop")

    def __init__(self, hold: Hold, seconds: float, frames: int) -> None:
        self.hold = hold
        self.frames = frames
        self.seconds = seconds
        self.told_to_stop = threading.Event()


class _Look:
    """A snapshot, when it began and how long it kept all threads from running."""

    __slots__ = ("at_us", "snapshot", "took_us")

    def __init__(self, at_us: int, took_us: int, snapshot: tracemalloc.Snapshot) -> None:
        self.at_us = at_us
        self.took_us = took_us
        self.snapshot = snapshot


def _alive(look: _Look) -> Alive:
    """The snapshot added up by traceback; tracing is off by now, so that this is not traced."""
    return {
        tuple((frame.filename, frame.lineno) for frame in reversed(statistic.traceback)): (
            statistic.size,
            statistic.count,
        )
        for statistic in look.snapshot.statistics("traceback")
    }


def _check_frames(frames: int) -> None:
    if not 1 <= frames <= FRAMES_MAX:
        raise ValueError(f"frames must be 1 to {FRAMES_MAX}: {frames}")


def _tracemalloc_file() -> str:
    import tracemalloc

    return tracemalloc.__file__.replace("\\", "/")
