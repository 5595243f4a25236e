"""`MemoryWatch`: a thread that looks at the memory, tells the step, and lets it be cleaned up.

    sample() -> ladder.py, a fold -> `.step`, which layers read as a plain number
                                  -> a cleanup, where one is due (cleaning.py)
                                  -> pace.py: when to look again

A thread and no task, because what fills the memory may be what keeps the event loop from its turns.
While garbage is collected or a callback on this thread runs, nobody looks.

Cost, measured: a look of an idle process takes 0.2 ms of a processor, waking up and cold caches
included, with the readings of Linux 0.4 to 0.5 ms: once a second that is 0.05 % of one core.  The
hot path reads an attribute.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from perf_middleware.clock import monotonic_us
from perf_middleware.events import MemoryCleaned
from perf_middleware.memory_watch.cleanup import Cleaner
from perf_middleware.memory_watch.ladder import HARD, NORMAL, STEP_NAMES
from perf_middleware.memory_watch.runtime.cleaning import Cleaning
from perf_middleware.memory_watch.runtime.home import HomeLoop, home_here
from perf_middleware.memory_watch.runtime.lookout import Lookout
from perf_middleware.memory_watch.watch_figures import WatchCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.clock import Clock
    from perf_middleware.events import Events
    from perf_middleware.families import Family
    from perf_middleware.memory_watch.cleanup import Callback, CleanupReport
    from perf_middleware.memory_watch.ladder import Ladder
    from perf_middleware.memory_watch.reading import MemorySample
    from perf_middleware.resource import Background

A = TypeVar("A")
R = TypeVar("R")

logger = logging.getLogger("perf_middleware.memory_watch")

THREAD_NAME: Final = "perf_middleware memory watch"
US_PER_S: Final = 1_000_000
CLOSE_S: Final = 1.0


class _Run:
    """One thread of the watch, from its start to its end."""

    def __init__(self, watch: Callable[[_Run], None]) -> None:
        self.wake = threading.Event()
        self.is_stopped = False
        self.thread = threading.Thread(target=watch, args=(self,), name=THREAD_NAME, daemon=True)


class MemoryWatch:
    """Watches the memory of this process; `step` is 0 normal, 1 soft, 2 hard, 3 critical.

    `sample` is a cheap look, `trim` gives free memory back to the system: bytes, or None where it
    cannot.  Both are called on the watch's thread, as are the observers in `on_sample`; those in
    `on_end` are told, on any thread, that nothing is known any more.  A resource of the lifespan
    plugin; without a lifespan `start` does.  In a forked child it does not watch until it is
    started there.
    """

    name = "memory watch"
    required = False

    def __init__(
        self,
        sample: Callable[[], MemorySample],
        *,
        ladder: Ladder,
        interval_s: float = 1.0,
        cleanup_s_max: float = 1.0,
        shrink_share: float = 0.5,
        collect: bool = True,
        trim: Callable[[], int | None] | None = None,
        events: Events | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        if interval_s <= 0 or cleanup_s_max <= 0 or not 0 < shrink_share <= 1:
            raise ValueError("interval_s, cleanup_s_max and shrink_share must be > 0")
        self.step = NORMAL
        self.counts = WatchCounts()
        self.last_cleanup: CleanupReport | None = None
        self.events = events
        self._interval_us = round(interval_s * US_PER_S)
        self._clock = clock
        self._lookout = Lookout(
            sample, ladder=ladder, interval_us=self._interval_us, show=self._show,
            counts=self.counts, events=events, clock=clock,
        )  # fmt: skip
        self.on_sample = self._lookout.on_sample
        self.on_end: list[Callable[[], object]] = []  # what was judged is nobody's any more
        self._cleaning = Cleaning(
            sample, trim=trim, collect=collect, budget_us=round(cleanup_s_max * US_PER_S),
            shrink_share=shrink_share, meanwhile=self._lookout.glance, overdue=self._forget,
            clock=clock,
        )  # fmt: skip
        self._starting = threading.Lock()
        self._turn = threading.Lock()  # a look with all that comes of it, or a cleanup by code
        self._run: _Run | None = None
        self._home: HomeLoop | None = None
        self._owed: set[str] = set()  # names of callbacks that are to be told of relief
        if hasattr(os, "register_at_fork"):
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _begin_anew(this()))

    # --- what code asks -----------------------------------------------------------------------

    @property
    def is_watching(self) -> bool:
        run = self._run
        return run is not None and run.thread.is_alive()

    def share(self) -> float | None:
        """Used of the tightest bound, at the newest look; None where that is old or knows none."""
        return self._lookout.share()

    def on_pressure(
        self,
        name: str,
        callback: Callback,
        *,
        order: int = 100,
        thread: bool = False,
        relief: Callable[[], object] | None = None,
    ) -> None:
        """Call `callback(pressure)` in each cleanup: it frees memory and returns how many bytes.

        On the event loop, async or not; with `thread` on the watch's thread, also while the loop is
        stuck.  The lowest `order` first.  All together have `cleanup_s_max`: what is async is
        cancelled then, what was not begun is skipped.  `relief()` is called in the same place once
        the step is normal again.

        Raises ValueError for a name that is taken, and where there are too many.
        """
        self._cleaning.add(
            Cleaner(name=name, callback=callback, order=order, thread=thread, relief=relief)
        )

    def off_pressure(self, name: str) -> None:
        """Ask it no more; what is not there does no harm."""
        self._cleaning.remove(name)
        self.counts.forget(name)

    async def clean_up(self) -> CleanupReport:
        """Clean up now, whatever the step: what came of it.

        A cancelled caller waits for its end.  Raises what `sample` raises.
        """
        return await _in_a_thread(self._clean_up_here, home_here())

    def _clean_up_here(self, home: HomeLoop | None) -> CleanupReport:
        with self._turn:
            self._lookout.look()
            report = self._clean(home)
            if not self.is_watching:
                self._forget()  # nobody would see it fall again
            self._relieve_if_over(home)
            return report

    # --- on and off ---------------------------------------------------------------------------

    async def open(self, background: Background) -> None:
        """Start to watch; opening twice starts anew."""
        await self.close()
        self.start()

    async def close(self) -> None:
        """Watch no more: the step is normal, and who was asked for memory may have it again."""
        run = self._run
        self._tell_to_end()
        if run is not None:
            await _in_a_thread(run.thread.join, CLOSE_S)
        if self._owed and not self._turn.locked():
            await _in_a_thread(self._relieve_if_over, home_here())
        self._home = None

    def start(self) -> None:
        """Watch from now on, with the running event loop, if there is one, for the callbacks.

        Once is enough; where it watches already, it learns of another event loop.  Raises
        RuntimeError where no thread can be had.
        """
        self._home = home_here() or self._home
        with self._starting:
            if self.is_watching:
                return
            run = _Run(self._watch)
            self._forget()
            run.thread.start()
            self._run = run

    def stop(self) -> None:
        """Watch no more; its thread ends by itself, within milliseconds where it only waits.

        Caches that have shrunk stay so until it is started again: `close` gives their room back.
        """
        self._tell_to_end()

    def _tell_to_end(self) -> None:
        with self._starting:
            run, self._run = self._run, None
            if run is not None:
                run.is_stopped = True
                self._cleaning.interrupt()
                run.wake.set()
        self._forget()

    def begin_anew(self) -> None:
        """In a forked child: its parent's thread is not there, and may have held the locks."""
        self._starting, self._turn = threading.Lock(), threading.Lock()
        self._run = self._home = None
        self._cleaning.begin_anew()
        self._forget()

    def _forget(self) -> None:
        self._lookout.forget()
        for tell in self.on_end:
            tell()

    # --- the thread ---------------------------------------------------------------------------

    def _watch(self, run: _Run) -> None:
        while not run.is_stopped:
            until_next_us = self._interval_us
            try:
                until_next_us = self.look(run)
            except Exception as exc:  # noqa: BLE001 - an error of ours must not end the watch
                self.counts.look_failures += 1
                self._lookout.tell_once("look", "the memory watch failed and goes on: %s: %s", exc)
            run.wake.wait(until_next_us / US_PER_S)
        if self._run is None:
            self._forget()  # what a last look has found is nobody's any more

    def look(self, run: _Run | None = None) -> int:
        """Look once and do what is due: microseconds until the next look.  The thread's step."""
        with self._turn:
            if run is not None and run.is_stopped:
                return 0
            self._lookout.glance()
            if self._lookout.cleanup_is_due():
                self._clean(self._home, shrinks=self._lookout.is_worth_shrinking())
            self._relieve_if_over(self._home)
            return self._lookout.wait_us()

    def _show(self, step: int) -> None:
        self.step = step

    # --- cleaning up --------------------------------------------------------------------------

    def _clean(self, home: HomeLoop | None, *, shrinks: bool = True) -> CleanupReport:
        """One cleanup, counted and told; the caller has the turn."""
        state = self._lookout.state
        self._owed |= self._cleaning.relievable()
        report, newest = self._cleaning.run(
            self._lookout.newest, step=state.step, bound=state.bound, home=home, shrinks=shrinks
        )
        self._lookout.note_cleanup(report)
        self.last_cleanup = report
        self.counts.note_cleanup(report)
        lost = len(report.freed) - report.count("done")
        logger.log(
            logging.WARNING if report.step >= HARD or lost else logging.INFO,
            "%s",
            report.sentence(),
        )
        if self.events is not None:
            self.events.publish(_told(report))
        if not self._cleaning.is_interrupted:  # the watch has ended: its step is normal, and stays
            self._lookout.judge(newest)
        return report

    def _relieve_if_over(self, home: HomeLoop | None) -> None:
        if not self._owed or self.step != NORMAL:
            return
        told = self._cleaning.relieve(self._owed, home=home)
        # A loop that is stuck hears of it later: nobody's room is forgotten.
        self._owed = {freed.name for freed in told if freed.outcome == "skipped"}
        for freed in told:
            if freed.outcome in ("failed", "overran"):
                self.counts.note_outcome(freed)

    # --- what operators see -------------------------------------------------------------------

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        return self.counts.families(step=self.step)

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.counts.reset()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        state, newest, report = self._lookout.state, self._lookout.newest, self.last_cleanup
        bound = state.bound
        return {
            "watching": self.is_watching,
            "step": STEP_NAMES[state.step],
            "since_s": round((self._clock() - state.since_us) / US_PER_S, 3),
            "share": None if bound is None else round(bound.share, 4),
            "bound": None if bound is None else bound.name,
            "where": None if bound is None else bound.where,
            "used_bytes": None if bound is None else bound.used_bytes,
            "limit_bytes": None if bound is None else bound.limit_bytes,
            "rss_bytes": newest.rss_bytes,
            "cleanups": sum(self.counts.cleanups),
            "callbacks": [cleaner.name for cleaner in self._cleaning.cleaners],
            "last_cleanup": None if report is None else report.sentence(),
        }


async def _in_a_thread(function: Callable[[A], R], argument: A) -> R:
    # A limiter of its own: under pressure all threads of the others may be taken.
    return await anyio.to_thread.run_sync(function, argument, limiter=anyio.CapacityLimiter(1))


def _told(report: CleanupReport) -> MemoryCleaned:
    names = {
        outcome: tuple(freed.name for freed in report.freed if freed.outcome == outcome)
        for outcome in ("failed", "overran", "skipped")
    }
    return MemoryCleaned(
        step=report.step,
        before_bytes=report.before_bytes,
        after_bytes=report.after_bytes,
        took_s=report.took_us / US_PER_S,
        bound=report.bound,
        limit_bytes=report.limit_bytes,
        freed_bytes={
            freed.name: freed.freed_bytes for freed in report.freed if freed.outcome == "done"
        },
        failed=names["failed"],
        overran=names["overran"],
        skipped=names["skipped"],
        collected=report.collected,
        trimmed_bytes=report.trimmed_bytes,
    )


def _begin_anew(watch: MemoryWatch | None) -> None:
    if watch is not None:
        watch.begin_anew()
