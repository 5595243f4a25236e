"""`perf.limits.threads`: the threads of sync endpoints, measured, sized where that is wanted.

Every event loop has one limiter for them (anyio's default, 40 tokens), which Starlette and FastAPI
take a token from for each sync endpoint, sync dependency, file and upload.  What waits there is
seen by nobody else: no lag of the loop, no processor time.
"""

from __future__ import annotations

import logging
import sys
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import anyio

from perf_middleware.clock import monotonic_us
from perf_middleware.families import NO_LABELS, Family, Value, counter, gauge
from perf_middleware.limits.overload.probes import CpuShare
from perf_middleware.limits.threads.drivers.lane import (
    QueueCounts,
    UnexpectedLimiterError,
    lane_here,
)
from perf_middleware.limits.threads.drivers.switching import SwitchInterval
from perf_middleware.limits.threads.sizing import SizeBounds, Sizing, ThreadSample, after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.clock import Clock
    from perf_middleware.limits.threads.drivers.lane import ThreadLane
    from perf_middleware.resource import Background

logger = logging.getLogger("perf_middleware.limits")

US_PER_S: Final = 1_000_000


class ThreadOffload:
    """Watches the default thread limiter of the event loop that opens it.

    `reserved_max` threads beyond its tokens are for probes alone (middleware.py marks them).  With
    `bounds` the number of tokens follows what is waited for; without, it is never touched.  Where
    several bundles share an event loop the first to open sizes, the others watch.
    `switch_interval_s` holds for the whole process while this is open.
    """

    name = "thread offload"
    required = False

    def __init__(
        self,
        *,
        reserved_max: int = 4,
        bounds: SizeBounds | None = None,
        interval_s: float = 0.25,
        switch_interval_s: float | None = None,
        cpu_quota: Callable[[], float | None] | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        if interval_s <= 0 or reserved_max < 0:
            raise ValueError("interval_s must be > 0 and reserved_max >= 0")
        self.counts = QueueCounts(reserved_max=reserved_max)
        self.resizes = 0
        self._bounds = bounds
        self._interval_s = interval_s
        self._switch_interval_s = switch_interval_s
        self._switch = SwitchInterval()
        self._cpu = CpuShare(cpu_quota=cpu_quota)
        self._clock = clock
        self._lane: ThreadLane | None = None
        self._scope: anyio.CancelScope | None = None
        self._was_opened = False
        self._sizing: Sizing | None = None
        self._plain_total: float | None = None
        self._told_unexpected = False

    # --- a life -----------------------------------------------------------------------------------

    async def open(self, background: Background) -> None:
        """Watch this event loop's limiter; opening twice starts anew."""
        await self.close()
        self._was_opened = True
        if self._switch_interval_s is not None:
            self._switch.set(self._switch_interval_s)
        if not await self._join() or self._bounds is None:
            return
        scope = self._scope = anyio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    await self._size_always()
            finally:
                if self._scope is scope:
                    self._stop_sizing()

        background.start("thread sizing", run)

    async def close(self) -> None:
        """The limiter as it was before, and the interpreter's switch interval."""
        self._switch.restore()
        scope = self._scope
        self._stop_sizing()
        if scope is not None:
            scope.cancel()
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.leave(self.counts)

    async def reserve_here(self) -> None:
        """Give probes their reserve in this event loop, where no lifespan has opened us."""
        if not self._was_opened:
            await self._join()

    async def _join(self) -> bool:
        try:
            lane = lane_here(clock=self._clock)
            if self.counts not in lane.bundles:
                await lane.join(self.counts)
        except UnexpectedLimiterError as error:
            if not self._told_unexpected:
                self._told_unexpected = True
                logger.warning(
                    "threads are not measured and probes have no reserve: the limiter of this "
                    "event loop is not as expected: %s", error,
                )  # fmt: skip
            self._was_opened = True  # once is enough
            return False
        self._lane = lane
        return True

    # --- the number of threads --------------------------------------------------------------------

    async def _size_always(self) -> None:
        while True:
            await anyio.sleep(self._interval_s)
            if not self.sample():
                return

    def sample(self) -> bool:
        """Judge once how many threads there should be; False where that is no more ours to say."""
        lane, bounds = self._lane, self._bounds
        if lane is None or bounds is None:
            return False
        limiter = lane.limiter
        if lane.sizer is None:
            lane.sizer = self
        if lane.sizer is not self:
            return True  # another bundle's; ours once that one has gone
        total: float = limiter.total_tokens
        if self._sizing is None:
            if not isfinite(total):
                return False  # there is no limit: nothing to size
            self._plain_total = total
            self._sizing = Sizing(int(total))
        elif total != self._sizing.total:
            logger.warning(
                "the app has set the number of threads itself (%g): it is not changed any more",
                total,
            )
            self._plain_total = None
            return False
        before = self._sizing
        self._sizing = after(
            before,
            ThreadSample(
                borrowed=limiter.borrowed_tokens,
                waiting=lane.waiting,
                completed=lane.released,
                cpu_share=self._cpu.read_process(),
            ),
            now_us=self._clock(),
            bounds=bounds,
        )
        if self._sizing.total != before.total:
            self.resizes += 1
            limiter.total_tokens = self._sizing.total
            logger.info(
                "threads for sync endpoints: %d, were %d (%d waiting)",
                self._sizing.total, before.total, lane.waiting,
            )  # fmt: skip
        return True

    def _stop_sizing(self) -> None:
        """Give back the old number, unless the app has set another one meanwhile."""
        lane, sizing, plain = self._lane, self._sizing, self._plain_total
        self._scope = self._sizing = self._plain_total = None
        if lane is None or lane.sizer is not self:
            return
        lane.sizer = None
        if sizing is not None and plain is not None and lane.limiter.total_tokens == sizing.total:
            lane.limiter.total_tokens = plain

    # --- figures ----------------------------------------------------------------------------------

    def queue_s(self) -> float | None:
        """How long the call has waited that waits longest for a thread; 0 where none does.

        None where nothing is watched.  On the event loop only.
        """
        return None if self._lane is None else self._lane.oldest_wait_us() / US_PER_S

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape; none where no event loop is watched."""
        lane = self._lane
        if lane is None:
            return
        counts, limiter = self.counts, lane.limiter
        for name, help_text, value in (
            # Not "total": that ending is a counter's (OpenMetrics 1.0).
            ("limit", "Threads that sync endpoints may use.", limiter.total_tokens),
            ("borrowed", "Threads that sync endpoints use.", limiter.borrowed_tokens),
            ("waiting", "Calls that wait for a thread.", lane.waiting),
            ("reserve_borrowed", "Threads of the reserve that probes use.", lane.reserve_in_use),
        ):
            yield gauge(f"perf_threads_{name}", help_text, [Value(NO_LABELS, value)])
        for name, help_text, count in (
            ("acquired", "Calls that asked for a thread.", counts.acquired),
            ("queued", "Calls that had to wait for a thread.", counts.queued),
            ("reserve_used", "Threads that probes took from the reserve.", counts.reserved_used),
            ("resizes", "Times that the number of threads was changed.", self.resizes),
        ):
            yield counter(f"perf_threads_{name}", help_text, [Value(NO_LABELS, count)])
        yield counter(
            "perf_threads_queue_seconds",
            "How long calls have waited for a thread, all together.",
            [Value(NO_LABELS, counts.queue_us / US_PER_S)],
            unit="seconds",
        )
        yield gauge(
            "perf_threads_queue_oldest_seconds",
            "How long the call has waited by now that waits longest for a thread.",
            [Value(NO_LABELS, lane.oldest_wait_us() / US_PER_S)],
            unit="seconds",
            across="max",
        )
        yield gauge(
            "perf_threads_queue_max_seconds",
            "The longest wait for a thread since the start, or the last reset.",
            [Value(NO_LABELS, counts.queue_us_max / US_PER_S)],
            unit="seconds",
            across="max",
        )

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.counts.reset()
        self.resizes = 0

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture; on the event loop."""
        lane, counts = self._lane, self.counts
        if lane is None:
            return {"watching": False}
        total = lane.limiter.total_tokens
        return {
            "watching": True,
            "total": total if isfinite(total) else None,
            "borrowed": lane.limiter.borrowed_tokens,
            "waiting": lane.waiting,
            "oldest_wait_s": round(lane.oldest_wait_us() / US_PER_S, 4),
            "adaptive": self._sizing is not None,
            "switch_interval_s": round(sys.getswitchinterval(), 6),
            "reserved_max": counts.reserved_max,
            "reserve_borrowed": lane.reserve_in_use,
            "acquired": counts.acquired,
            "queued": counts.queued,
            "queue_s": round(counts.queue_us / US_PER_S, 4),
            "queue_max_s": round(counts.queue_us_max / US_PER_S, 4),
        }
